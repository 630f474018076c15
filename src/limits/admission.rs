//! `[admission]`: load shedding by queue delay; off unless `target` is set.
//!
//! A queue that is sometimes empty is doing its work: it evens out bursts. One that is never empty only makes everybody wait,
//! and once the wait is past what clients bear, the work is done for nobody. CoDel (Nichols and Jacobson, "Controlling
//! Queue Delay", 2012; RFC 8289) tells the two apart by one figure: the *smallest* delay within an interval. If that is above
//! the target, the queue stands.
//!
//! That test is taken over as it is. CoDel's answer, dropping at growing frequency, is not: it relies on TCP senders that slow
//! down with each drop, and requests do not. While a queue stands, requests are refused as long as the last delay that was
//! seen is above the target, as in Maurer, "Fail at Scale" (2015), where the queue's time-out falls to the target. The queue
//! then drains to the target and is never empty, so all of the capacity does useful work. The state ends when no
//! delay was above the target for a whole interval.
//!
//! A refusal takes away what would have been measured. So a delay counts only for as long as it says itself: by then
//! whatever was waiting has been served, and the next request is admitted to look.
//!
//! One for each worker, not shared: a worker's queue is its own.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Millis;
use crate::config::model::AdmissionControl;

/// Whether a worker takes more work.
#[derive(Debug)]
pub struct Admission {
    target: Duration,
    interval: Duration,
    /// The queue stands: requests may be refused.
    standing: Cell<bool>,
    /// The interval that is being watched; none before the first delay.
    window: Cell<Option<Window>>,
    last: Cell<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Millis,
    least: Duration,
    most: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    delay: Duration,
    at: Millis,
}

impl Admission {
    /// None if it is off.
    pub fn new(settings: &AdmissionControl) -> Option<Self> {
        Some(Admission {
            target: settings.target?,
            interval: settings.interval,
            standing: Cell::new(false),
            window: Cell::new(None),
            last: Cell::new(Seen {
                delay: Duration::ZERO,
                at: Millis(0),
            }),
        })
    }

    /// A request that waited for `delay` was taken out of the queue; zero for one that did not wait.
    pub fn observe(&self, delay: Duration, now: Millis) {
        self.last.set(Seen { delay, at: now });
        let fresh = Window {
            since: now,
            least: delay,
            most: delay,
        };
        let Some(window) = self.window.get() else {
            return self.window.set(Some(fresh));
        };
        if now - window.since < self.interval {
            return self.window.set(Some(Window {
                since: window.since,
                least: window.least.min(delay),
                most: window.most.max(delay),
            }));
        }
        if window.least > self.target {
            self.standing.set(true);
        } else if window.most <= self.target {
            self.standing.set(false);
        }
        self.window.set(Some(fresh));
    }

    /// Whether a request that comes now is taken.
    pub fn admit(&self, now: Millis) -> bool {
        if !self.standing.get() {
            return true;
        }
        let Seen { delay, at } = self.last.get();
        delay <= self.target || now - at > delay
    }

    /// Whether the queue stands, for metrics.
    pub fn is_standing(&self) -> bool {
        self.standing.get()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const TARGET: Duration = Duration::from_millis(10);
    const INTERVAL: Duration = Duration::from_millis(100);

    fn admission() -> Admission {
        Admission::new(&AdmissionControl {
            target: Some(TARGET),
            interval: INTERVAL,
        })
        .expect("it is on")
    }

    #[test]
    fn without_a_target_it_is_off() {
        assert!(Admission::new(&AdmissionControl::default()).is_none());
    }

    /// What one phase of a simulated worker came to.
    #[derive(Debug, Default)]
    struct Phase {
        offered: u32,
        refused: u32,
        served: u32,
        delays: Vec<Duration>,
    }

    impl Phase {
        fn percentile(&mut self, percent: usize) -> Duration {
            self.delays.sort_unstable();
            self.delays[(self.delays.len() - 1) * percent / 100]
        }
    }

    /// A worker that serves one request in a millisecond, in virtual time of 10 µs steps.
    struct Simulation {
        rng: fastrand::Rng,
        micros: u64,
        busy_until: u64,
        queue: VecDeque<u64>,
    }

    impl Simulation {
        /// Runs for `millis` with random arrivals at `load` times the capacity.
        fn run(&mut self, admission: Option<&Admission>, load: f64, millis: u64) -> Phase {
            let mut phase = Phase::default();
            let end = self.micros + millis * 1000;
            while self.micros < end {
                self.micros += 10;
                let now = Millis(self.micros / 1000);
                if self.rng.f64() < load / 100.0 {
                    phase.offered += 1;
                    if admission.is_none_or(|admission| admission.admit(now)) {
                        self.queue.push_back(self.micros);
                    } else {
                        phase.refused += 1;
                    }
                }
                if self.micros >= self.busy_until
                    && let Some(came) = self.queue.pop_front()
                {
                    let delay = Duration::from_micros(self.micros - came);
                    if let Some(admission) = admission {
                        admission.observe(delay, now);
                    }
                    phase.served += 1;
                    phase.delays.push(delay);
                    self.busy_until = self.micros + 1000;
                }
            }
            phase
        }
    }

    fn simulation() -> Simulation {
        Simulation {
            rng: fastrand::Rng::with_seed(11),
            micros: 1_000_000,
            busy_until: 0,
            queue: VecDeque::new(),
        }
    }

    #[test]
    fn at_twice_the_load_the_delay_stays_near_the_target_and_the_worker_busy() {
        let (mut worker, admission) = (simulation(), admission());
        let mut first = worker.run(Some(&admission), 2.0, 500);
        assert!(admission.is_standing());
        // It is noticed within two intervals; until then the queue grows as fast as time passes.
        assert!(first.percentile(100) <= INTERVAL * 5 / 2, "{:?}", first.percentile(100));
        let mut steady = worker.run(Some(&admission), 2.0, 20_000);
        assert!(steady.served >= 19_800, "{}", steady.served);
        let refused = f64::from(steady.refused) / f64::from(steady.offered);
        assert!((0.48..0.52).contains(&refused), "{refused}");
        let (median, worst) = (steady.percentile(50), steady.percentile(99));
        assert!(median <= 2 * TARGET && worst <= 3 * TARGET, "{median:?} {worst:?}");

        // Without it, everybody waits for ever longer.
        let mut unshed = simulation().run(None, 2.0, 20_000);
        assert!(unshed.percentile(50) > 100 * TARGET);
    }

    #[test]
    fn below_capacity_nothing_is_refused() {
        let (mut worker, admission) = (simulation(), admission());
        assert_eq!(worker.run(Some(&admission), 0.8, 20_000).refused, 0);
    }

    #[test]
    fn a_burst_passes() {
        let (mut worker, admission) = (simulation(), admission());
        worker.run(Some(&admission), 0.5, 1000);
        let burst = worker.run(Some(&admission), 3.0, 30);
        let after = worker.run(Some(&admission), 0.5, 1000);
        assert_eq!((burst.refused, after.refused), (0, 0));
    }

    #[test]
    fn it_ends_with_the_overload() {
        let (mut worker, admission) = (simulation(), admission());
        worker.run(Some(&admission), 2.0, 5_000);
        worker.run(Some(&admission), 0.5, 500);
        assert!(!admission.is_standing());
        assert_eq!(worker.run(Some(&admission), 0.5, 5_000).refused, 0);
    }

    #[test]
    fn after_silence_it_looks_again() {
        let admission = admission();
        for millis in 0..300 {
            admission.observe(Duration::from_millis(50), Millis(millis));
        }
        assert!(!admission.admit(Millis(300)));
        assert!(!admission.admit(Millis(349)));
        assert!(admission.admit(Millis(350)));
    }
}

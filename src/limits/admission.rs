//! `[admission]`: load shedding by queue delay; off unless `target` is set.
//!
//! A queue that is sometimes empty is doing its work: it evens out bursts. One that is never empty only makes everybody wait,
//! and once the wait is past what clients bear, the work is done for nobody. CoDel (Nichols and Jacobson, "Controlling
//! Queue Delay", 2012; RFC 8289) tells the two apart by one figure: the *smallest* delay within an interval. If that is above
//! the target, the queue stands.
//!
//! That test is taken over as it is. CoDel's answer, dropping at growing frequency, is not: it relies on TCP senders that slow
//! down with each drop, and requests do not. Instead, while a queue stands, arrivals are clocked by departures: each request
//! that leaves the queue lets one come in, somewhat more than one while its delay was below the target and
//! somewhat less while it was above (from 1/2 to 5/4). So the queue settles at the target whatever the overload is, it is
//! never empty, and all of the capacity does useful work. The state ends when no delay was above half of the target for a
//! whole interval.
//!
//! If nothing has left the queue for as long as the target, or as the last delay, nothing may be in it: one request is
//! admitted to look.
//!
//! One for each worker, not shared: a worker's queue is its own.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Millis;
use crate::config::model::AdmissionControl;

/// Entries that may be saved up: after a lull a few requests may come at once.
const CREDIT_MAX: f32 = 16.0;

/// Whether a worker takes more work.
#[derive(Debug)]
pub struct Admission {
    target: Duration,
    interval: Duration,
    /// The queue stands: requests may be refused.
    standing: Cell<bool>,
    /// How many requests may come in while it does.
    credit: Cell<f32>,
    /// The interval that is being watched; none before the first delay.
    window: Cell<Option<Window>>,
    /// From when on nothing may be in the queue, unless something leaves it before.
    look_at: Cell<Millis>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Millis,
    least: Duration,
    most: Duration,
}

impl Admission {
    /// None if it is off.
    pub fn new(settings: &AdmissionControl) -> Option<Self> {
        Some(Admission {
            target: settings.target?.max(Duration::from_millis(1)),
            interval: settings.interval,
            standing: Cell::new(false),
            credit: Cell::new(0.0),
            window: Cell::new(None),
            look_at: Cell::new(Millis(0)),
        })
    }

    /// A request left the queue after `delay`; zero if it did not wait.
    pub fn observe(&self, delay: Duration, now: Millis) {
        self.look_at.set(now + delay.max(self.target));
        let excess = delay.as_secs_f32() / self.target.as_secs_f32() - 1.0;
        let credit = self.credit.get() + (1.0 - excess / 4.0).max(0.5);
        self.credit.set(credit.min(CREDIT_MAX));
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
        } else if window.most <= self.target / 2 {
            self.standing.set(false);
        }
        self.window.set(Some(fresh));
    }

    /// Whether a request that comes now is taken.
    pub fn admit(&self, now: Millis) -> bool {
        if !self.standing.get() {
            return true;
        }
        let credit = self.credit.get();
        if credit >= 1.0 {
            self.credit.set(credit - 1.0);
            return true;
        }
        if now < self.look_at.get() {
            return false;
        }
        self.look_at.set(now + self.target);
        true
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
        assert!(
            first.percentile(100) <= INTERVAL * 5 / 2,
            "{:?}",
            first.percentile(100)
        );
        worker.run(Some(&admission), 2.0, 1_000);
        for load in [1.2, 2.0, 10.0] {
            let mut steady = worker.run(Some(&admission), load, 20_000);
            assert!(steady.served >= 19_800, "{load}: {}", steady.served);
            let refused = f64::from(steady.refused) / f64::from(steady.offered);
            assert!((refused - (1.0 - 1.0 / load)).abs() < 0.02, "{load}: {refused}");
            let (median, worst) = (steady.percentile(50), steady.percentile(99));
            assert!(median <= TARGET * 3 / 2, "{load}: {median:?}");
            assert!(worst <= 3 * TARGET, "{load}: {worst:?}");
        }

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
        while admission.admit(Millis(300)) {}
        assert!(!admission.admit(Millis(348)));
        assert!(admission.admit(Millis(349)));
        // One to look, and the next if nothing comes of it.
        assert!(!admission.admit(Millis(349)));
        assert!(admission.admit(Millis(360)));
    }
}

//! A backend in virtual time: processors, a queue, and what it knows of its own load.
//!
//! Requests that it has taken run at the same rate: each on a core of its own while there are enough, else with an equal
//! share. Their progress is one number for all, so that a change of the rate (a slow period, an antagonist, one request
//! more) costs the same whatever their number.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::distribution::Distribution;
use super::scenario::Discipline;
use super::{Nanos, SECOND};

/// Requests in flight that have statistics of their own; above, they are counted with the last.
const BUCKETS: usize = 64;
/// Answers that a bucket remembers.
const REMEMBERED: usize = 16;
/// Answers that a median is of, if there are so many.
const WANTED: usize = 9;
/// Older answers say nothing about now.
const FRESH: Nanos = 5 * SECOND;

/// What happens to the requests that arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    Well,
    /// Nobody listens.
    Crashed,
    /// Nothing comes back.
    Gone,
    /// A share of them fails with this status after this time.
    Failing {
        share: f64,
        status: u16,
        after: Nanos,
    },
}

/// One request here: the index of its attempt, and what it needs.
#[derive(Clone, Copy, Debug)]
struct Job {
    attempt: usize,
    work: f64,
    arrived: Nanos,
    /// In flight when it arrived, itself not counted.
    met: u32,
}

/// A job that runs, by the progress at which it is finished. Positive floats order like their bits.
#[derive(Clone, Copy, Debug)]
struct Running {
    end: f64,
    job: Job,
}

impl PartialEq for Running {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Running {}

impl PartialOrd for Running {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Running {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_age = || self.job.attempt.cmp(&other.job.attempt);
        self.end.total_cmp(&other.end).then_with(by_age)
    }
}

#[derive(Debug)]
pub struct Backend {
    pub condition: Condition,
    /// What it says to health probes, whatever happens to requests; none: as to requests.
    pub health: Option<bool>,
    /// Instead of the time of the service, where it is special.
    pub time: Option<Distribution>,
    cores: f64,
    /// Jobs that run at a time.
    slots: usize,
    room: usize,
    /// Times `cores`: what antagonists leave.
    capacity: f64,
    antagonist_speed: f64,
    /// Its own, apart from slow periods.
    base_speed: f64,
    /// Times slower in a slow period; infinite while it hangs.
    slowness: f64,
    running: BinaryHeap<Reverse<Running>>,
    waiting: VecDeque<Job>,
    /// What each running job has got so far, if it ran since the last time that this was empty.
    progress: f64,
    /// When that was so.
    at: Nanos,
    /// Progress per nanosecond.
    rate: f64,
    /// When the engine is to look next; of its events for this backend only the one at that time counts.
    pub alarm: Nanos,
    own: OwnView,
    /// Most that ever waited for a core.
    pub peak: usize,
    /// The same since the last slice.
    pub slice_peak: usize,
}

impl Backend {
    pub fn new(
        cores: usize,
        discipline: Discipline,
        concurrency: Option<usize>,
        room: usize,
        speed: f64,
    ) -> Self {
        let slots = concurrency.unwrap_or(match discipline {
            Discipline::Fifo => cores,
            Discipline::Sharing => usize::MAX,
        });
        Backend {
            condition: Condition::Well,
            health: None,
            time: None,
            cores: cores as f64,
            slots,
            room,
            capacity: 1.0,
            antagonist_speed: 1.0,
            base_speed: speed,
            slowness: 1.0,
            running: BinaryHeap::new(),
            waiting: VecDeque::new(),
            progress: 0.0,
            at: 0,
            rate: 0.0,
            alarm: Nanos::MAX,
            own: OwnView::default(),
            peak: 0,
            slice_peak: 0,
        }
    }

    /// Requests that are here.
    pub fn in_flight(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// A request arrives; says whether there is room.
    pub fn take(&mut self, now: Nanos, attempt: usize, work: f64) -> bool {
        self.advance(now);
        if self.running.len() >= self.slots && self.waiting.len() >= self.room {
            return false;
        }
        let job = Job {
            attempt,
            work,
            arrived: now,
            met: self.in_flight() as u32,
        };
        if self.running.len() < self.slots {
            self.start(job);
        } else {
            self.waiting.push_back(job);
        }
        let queue = self.in_flight().saturating_sub(self.cores as usize);
        self.peak = self.peak.max(queue);
        self.slice_peak = self.slice_peak.max(queue);
        self.set_rate();
        true
    }

    /// The attempt of one that is finished; to be asked until there is none.
    pub fn finished(&mut self, now: Nanos) -> Option<usize> {
        self.advance(now);
        // What is less than a nanosecond from its end is at it: the alarm cannot be set finer.
        let due = self.progress + self.rate;
        if self.running.peek()?.0.end > due {
            return None;
        }
        let Reverse(Running { job, .. }) = self.running.pop()?;
        self.own.record(job.met, now, now - job.arrived);
        if let Some(next) = self.waiting.pop_front() {
            self.start(next);
        }
        if self.running.is_empty() {
            self.progress = 0.0;
        }
        self.set_rate();
        Some(job.attempt)
    }

    /// All that are here, in no order that means anything; they are gone.
    pub fn drop_all(&mut self, now: Nanos) -> impl Iterator<Item = usize> + use<> {
        self.advance(now);
        let mut jobs: Vec<usize> = std::mem::take(&mut self.running)
            .into_iter()
            .map(|Reverse(running)| running.job.attempt)
            .chain(self.waiting.drain(..).map(|job| job.attempt))
            .collect();
        jobs.sort_unstable();
        self.progress = 0.0;
        self.set_rate();
        jobs.into_iter()
    }

    /// When the first of those that run is finished if nothing changes; never if none is.
    pub fn next_finish(&self) -> Nanos {
        let Some(Reverse(first)) = self.running.peek() else {
            return Nanos::MAX;
        };
        if self.rate <= 0.0 {
            return Nanos::MAX;
        }
        let left = ((first.end - self.progress) / self.rate).ceil().max(0.0);
        self.at.saturating_add(left as Nanos)
    }

    /// What antagonists leave: so many times the cores, at so many times their speed.
    pub fn set_antagonist(&mut self, now: Nanos, capacity: f64, speed: f64) {
        self.advance(now);
        (self.capacity, self.antagonist_speed) = (capacity, speed);
        self.set_rate();
    }

    /// A slow period: 1 is none, infinite stands still.
    pub fn set_slowness(&mut self, now: Nanos, slowness: f64) {
        self.advance(now);
        self.slowness = slowness;
        self.set_rate();
    }

    /// What it says of itself to a load probe: in flight, and the latency that one more may expect (the median of the
    /// last answers to requests that met about as many), in nanoseconds. As `weir backend` has it.
    pub fn own_view(&self, now: Nanos) -> (u32, Nanos) {
        let in_flight = self.in_flight() as u32;
        (in_flight, self.own.median(in_flight, now))
    }

    fn start(&mut self, job: Job) {
        let end = self.progress + job.work;
        self.running.push(Reverse(Running { end, job }));
    }

    fn advance(&mut self, now: Nanos) {
        self.progress += (now - self.at) as f64 * self.rate;
        self.at = now;
    }

    fn set_rate(&mut self) {
        let speed = self.base_speed * self.antagonist_speed / self.slowness;
        let cores = self.cores * self.capacity;
        let running = self.running.len();
        self.rate = match running {
            0 => 0.0,
            running => speed * (cores / running as f64).min(1.0),
        };
    }
}

/// What a backend remembers of its answers, by how many requests they met, as Prequal's servers do.
#[derive(Debug)]
struct OwnView {
    answers: Box<[Ring; BUCKETS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    last: [Answered; REMEMBERED],
    len: u8,
    next: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Answered {
    at: Nanos,
    took: Nanos,
}

impl Default for OwnView {
    fn default() -> Self {
        OwnView {
            answers: Box::new([Ring::default(); BUCKETS]),
        }
    }
}

impl OwnView {
    /// Few are told apart exactly, many by eighths of their power of two.
    fn bucket(met: u32) -> usize {
        const EXACT: u32 = 8;
        if met < EXACT {
            return met as usize;
        }
        let power = met.ilog2();
        let eighth = met >> (power - 3) & 7;
        ((power - 2) * EXACT + eighth).min(BUCKETS as u32 - 1) as usize
    }

    fn record(&mut self, met: u32, at: Nanos, took: Nanos) {
        let ring = &mut self.answers[OwnView::bucket(met)];
        ring.last[usize::from(ring.next)] = Answered { at, took };
        ring.next = (ring.next + 1) % REMEMBERED as u8;
        ring.len = (ring.len + 1).min(REMEMBERED as u8);
    }

    /// Of the buckets nearest to `met`; 0 where nothing is known.
    fn median(&self, met: u32, now: Nanos) -> Nanos {
        let here = OwnView::bucket(met);
        let mut found = [0; WANTED + 2 * REMEMBERED];
        let mut len = 0;
        for distance in 0..BUCKETS {
            let below = here.checked_sub(distance);
            let above = Some(here + distance).filter(|above| distance > 0 && *above < BUCKETS);
            for ring in below.into_iter().chain(above).map(|at| &self.answers[at]) {
                let known = ring.last[..usize::from(ring.len)].iter();
                for answered in known.filter(|answered| answered.at + FRESH >= now) {
                    found[len] = answered.took;
                    len += 1;
                }
            }
            if len >= WANTED {
                break;
            }
        }
        let found = &mut found[..len];
        match len {
            0 => 0,
            len => *found.select_nth_unstable(len / 2).1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIFO: Discipline = Discipline::Fifo;

    /// Runs to the end of all that is there: who finished when.
    fn run(backend: &mut Backend) -> Vec<(Nanos, usize)> {
        let mut done = Vec::new();
        while backend.in_flight() > 0 {
            let at = backend.next_finish();
            assert_ne!(at, Nanos::MAX);
            while let Some(attempt) = backend.finished(at) {
                done.push((at, attempt));
            }
        }
        done
    }

    #[test]
    fn fifo_serves_as_many_as_there_are_cores_in_order() {
        let mut backend = Backend::new(2, FIFO, None, 10, 1.0);
        for attempt in 0..5 {
            assert!(backend.take(0, attempt, 100.0));
        }
        assert_eq!(backend.peak, 3);
        assert_eq!(
            run(&mut backend),
            [(100, 0), (100, 1), (200, 2), (200, 3), (300, 4)]
        );
    }

    #[test]
    fn sharing_gives_each_an_equal_part() {
        let mut backend = Backend::new(1, Discipline::Sharing, None, 10, 1.0);
        backend.take(0, 0, 100.0);
        backend.take(0, 1, 200.0);
        // Both at half speed until 200, then the second alone with 100 to go.
        assert_eq!(run(&mut backend), [(200, 0), (300, 1)]);
    }

    #[test]
    fn what_changes_on_the_way_counts_from_then_on() {
        let mut backend = Backend::new(2, FIFO, None, 10, 1.0);
        backend.take(0, 0, 100.0);
        backend.set_slowness(50, 10.0);
        assert_eq!(backend.next_finish(), 550);
        backend.set_slowness(100, f64::INFINITY);
        assert_eq!(backend.next_finish(), Nanos::MAX);
        backend.set_slowness(1000, 1.0);
        // 50 and 5 were done.
        assert_eq!(backend.next_finish(), 1045);
        backend.set_antagonist(1000, 0.25, 1.0);
        assert_eq!(backend.next_finish(), 1090);
    }

    #[test]
    fn a_full_queue_refuses_and_a_crash_drops_all() {
        let mut backend = Backend::new(1, FIFO, None, 1, 1.0);
        assert!(backend.take(0, 7, 10.0) && backend.take(0, 8, 10.0));
        assert!(!backend.take(0, 9, 10.0));
        assert_eq!(backend.drop_all(5).collect::<Vec<_>>(), [7, 8]);
        assert_eq!((backend.in_flight(), backend.next_finish()), (0, Nanos::MAX));
    }

    #[test]
    fn its_own_view_is_the_median_near_the_present_load() {
        let mut backend = Backend::new(1, FIFO, None, 10, 1.0);
        assert_eq!(backend.own_view(0), (0, 0));
        for _ in 0..3 {
            backend.take(backend.at, 0, 1e6);
            run(&mut backend);
        }
        assert_eq!(backend.own_view(backend.at), (0, 1_000_000));
        assert_eq!(backend.own_view(backend.at + FRESH + 1_000_000_000), (0, 0));
        let mut last = 0;
        for met in 0..100_000 {
            let bucket = OwnView::bucket(met);
            assert!(bucket >= last && bucket < BUCKETS);
            last = bucket;
        }
    }
}

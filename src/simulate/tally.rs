//! What a simulation counts.

use hdrhistogram::Histogram;

use super::{Nanos, SECOND};

/// Slices of the time line, over all arrivals.
pub const SLICES: usize = 120;

/// The longest latency that is told apart, in nanoseconds: an hour.
const LONGEST: u64 = 3600 * SECOND;

/// Figures of one strategy. Requests that arrived during the warm-up are in `arrived`, `done`, `failed` and `in_flight`
/// alone.
#[derive(Debug)]
pub struct Tally {
    pub arrived: u64,
    /// With an answer that is no failure.
    pub done: u64,
    pub failed: u64,
    /// Not finished at the end.
    pub in_flight: u64,
    /// Requests that count below.
    pub measured: u64,
    pub measured_failed: u64,
    /// Attempts of requests that count, all, and those after the first.
    pub attempts: u64,
    pub retries: u64,
    /// Retries that the budget refused.
    pub refused_retries: u64,
    /// Requests for which nobody was eligible.
    pub nobody: u64,
    /// Attempts after the warm-up by backend.
    pub by_backend: Vec<u64>,
    /// Of answers that are no failures, from the request's arrival, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Most requests that waited for a core at one backend.
    pub queue_peak: usize,
    pub load_probes: u64,
    pub health_probes: u64,
    /// Events of `balance` by name.
    pub happened: Vec<(&'static str, u64)>,
    pub slices: Vec<Slice>,
    pub slice_length: Nanos,
    slice: Histogram<u64>,
    current: Slice,
}

/// One part of the time line; requests belong to that in which they end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slice {
    pub done: u64,
    pub failed: u64,
    /// In nanoseconds.
    pub p50: Nanos,
    pub p99: Nanos,
    /// Most that waited at one backend.
    pub queue: usize,
    pub attempts: u64,
    /// Those of them at the backends that the scenario names.
    pub attempts_named: u64,
}

impl Tally {
    pub fn new(backends: usize, duration: Nanos) -> Self {
        let histogram =
            |digits| Histogram::new_with_bounds(1, LONGEST, digits).expect("bounds that are allowed");
        Tally {
            arrived: 0,
            done: 0,
            failed: 0,
            in_flight: 0,
            measured: 0,
            measured_failed: 0,
            attempts: 0,
            retries: 0,
            refused_retries: 0,
            nobody: 0,
            by_backend: vec![0; backends],
            latency: histogram(3),
            queue_peak: 0,
            load_probes: 0,
            health_probes: 0,
            happened: Vec::new(),
            slices: Vec::with_capacity(SLICES),
            slice_length: (duration / SLICES as u64).max(1),
            slice: histogram(2),
            current: Slice::default(),
        }
    }

    /// A request ended after `took`.
    #[inline]
    pub fn end(&mut self, counts: bool, failed: bool, took: Nanos) {
        let took = took.clamp(1, LONGEST);
        if failed {
            self.failed += 1;
            self.current.failed += 1;
            self.measured_failed += u64::from(counts);
        } else {
            self.done += 1;
            self.current.done += 1;
            self.slice.saturating_record(took);
            if counts {
                self.latency.saturating_record(took);
            }
        }
        self.measured += u64::from(counts);
    }

    #[inline]
    pub fn attempt(&mut self, counts: bool, backend: usize, again: bool, named: bool) {
        self.current.attempts += 1;
        self.current.attempts_named += u64::from(named);
        if counts {
            self.attempts += 1;
            self.retries += u64::from(again);
            self.by_backend[backend] += 1;
        }
    }

    pub fn happened(&mut self, name: &'static str) {
        match self.happened.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => self.happened.push((name, 1)),
        }
    }

    /// The slice ends in which the longest queue was `queue`.
    pub fn cut(&mut self, queue: usize) {
        let mut slice = std::mem::take(&mut self.current);
        slice.queue = queue;
        if slice.done > 0 {
            slice.p50 = self.slice.value_at_quantile(0.5);
            slice.p99 = self.slice.value_at_quantile(0.99);
            self.slice.reset();
        }
        self.slices.push(slice);
    }

    /// A latency that `quantile` of the answers were not above, in milliseconds; 0 without an answer.
    pub fn millis_at(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e6
    }

    /// Per cent of the attempts that each backend got, in their order.
    pub fn shares(&self) -> impl Iterator<Item = f64> + '_ {
        let all = self.by_backend.iter().sum::<u64>().max(1) as f64;
        self.by_backend
            .iter()
            .map(move |count| *count as f64 / all * 100.0)
    }
}

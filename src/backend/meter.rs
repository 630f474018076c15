//! What the backend knows about its own load: requests in flight, and how long they take at that number.
//!
//! The estimate follows Prequal (Wydrowski et al., NSDI 2024, §4): each latency is kept with the number of requests that
//! were in flight when its request arrived, and the answer to a probe is the median of the latest ones at, or nearest
//! to, the number in flight now. It may look worse than the request it stands for, never like the average of a calm hour.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use serde_json::json;

/// Latencies kept for each number in flight.
const KEPT: usize = 16;

/// Latencies that an estimate is the median of, if there are so many.
const WANTED: usize = 9;

/// Older latencies say nothing about now.
const FRESH: Duration = Duration::from_secs(5);

/// Requests in flight from here on share one row.
const ROWS: usize = 512;

/// Rates are over this many whole seconds.
const RATE_SECONDS: u64 = 5;

/// The load of one backend. A lock, for this is no data path and one thread serves a backend.
#[derive(Debug)]
pub(super) struct Meter {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    /// By the number in flight, the request itself included.
    rows: Vec<VecDeque<Sample>>,
    /// Whole seconds since the start, the latest last.
    seconds: VecDeque<Second>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    latency: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    requests: u32,
    errors: u32,
}

/// What a probe is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub in_flight: usize,
    /// Microseconds; 0 if nothing was answered lately, so that somebody tries.
    pub latency_us: u64,
    /// Answers per second.
    pub rps: f64,
    /// Those of them with a status from 500.
    pub eps: f64,
}

impl Meter {
    pub fn new() -> Meter {
        Meter {
            start: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// Counts a request in; it is in flight until the ticket is dropped.
    pub fn enter(self: &Arc<Self>) -> Ticket {
        let mut state = self.state();
        state.in_flight += 1;
        Ticket {
            meter: Arc::clone(self),
            row: state.in_flight.min(ROWS),
            arrived: Instant::now(),
        }
    }

    pub fn load(&self) -> Load {
        self.state().load(self.start.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request in flight: from its head's arrival until its answer's head is there, or nobody waits for one any more.
#[derive(Debug)]
pub(super) struct Ticket {
    meter: Arc<Meter>,
    row: usize,
    arrived: Instant,
}

impl Ticket {
    /// Records an answer.
    pub fn answered(self, is_error: bool) {
        let sample = Sample {
            at: self.meter.start.elapsed(),
            latency: self.arrived.elapsed(),
        };
        self.meter.state().record(self.row, sample, is_error);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.meter.state().in_flight -= 1;
    }
}

impl State {
    fn record(&mut self, row: usize, sample: Sample, is_error: bool) {
        if self.rows.len() <= row {
            self.rows.resize_with(row + 1, VecDeque::new);
        }
        if let Some(kept) = self.rows.get_mut(row) {
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(sample);
        }
        let number = sample.at.as_secs();
        if self.seconds.back().is_none_or(|last| last.number < number) {
            self.seconds.push_back(Second {
                number,
                ..Second::default()
            });
            self.seconds
                .retain(|second| second.number + RATE_SECONDS >= number);
        }
        if let Some(last) = self.seconds.back_mut() {
            last.requests += 1;
            last.errors += u32::from(is_error);
        }
    }

    fn load(&self, now: Duration) -> Load {
        let rate = |count: fn(&Second) -> u32| {
            let whole = now.as_secs();
            let counted = self
                .seconds
                .iter()
                .filter(|second| second.number < whole && second.number + RATE_SECONDS >= whole);
            // Of the first second there is no whole one yet.
            f64::from(counted.map(count).sum::<u32>()) / whole.clamp(1, RATE_SECONDS) as f64
        };
        Load {
            in_flight: self.in_flight,
            latency_us: self.latency_us(now),
            rps: rate(|second| second.requests),
            eps: rate(|second| second.errors),
        }
    }

    /// The median of the latest latencies at the row that a request arriving now would be in, and around it.
    fn latency_us(&self, now: Duration) -> u64 {
        let here = (self.in_flight + 1).min(ROWS);
        let mut found: Vec<u64> = Vec::with_capacity(WANTED);
        for distance in 0..=self.rows.len().max(here) {
            let around = [here.checked_sub(distance), here.checked_add(distance)];
            let rows = &around[..if distance == 0 { 1 } else { 2 }];
            for row in rows.iter().flatten().filter_map(|row| self.rows.get(*row)) {
                let fresh = row
                    .iter()
                    .rev()
                    .take_while(|sample| sample.at + FRESH >= now)
                    .take(WANTED - found.len().min(WANTED));
                found.extend(
                    fresh.map(|sample| u64::try_from(sample.latency.as_micros()).unwrap_or(u64::MAX)),
                );
            }
            if found.len() >= WANTED {
                break;
            }
        }
        let middle = found.len() / 2;
        if found.is_empty() {
            return 0;
        }
        *found.select_nth_unstable(middle).1
    }
}

impl Load {
    /// The report as `endpoint-load-metrics` carries it: Open Request Cost Aggregation, `xds.data.orca.v3.OrcaLoadReport`,
    /// in JSON or as text. A backend without a known capacity has no `application_utilization`.
    pub fn orca(&self, as_text: bool) -> HeaderValue {
        let Load {
            in_flight,
            latency_us,
            rps,
            eps,
        } = self;
        let report = if as_text {
            format!(
                "TEXT rps_fractional={rps}, eps={eps}, named_metrics.in_flight={in_flight}, \
                 named_metrics.latency_us={latency_us}"
            )
        } else {
            let report = json!({
                "rps_fractional": rps,
                "eps": eps,
                "named_metrics": { "in_flight": in_flight, "latency_us": latency_us },
            });
            format!("JSON {report}")
        };
        HeaderValue::try_from(report).expect("names and numbers are visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(in_flight: usize, samples: &[(usize, u64, u64)]) -> State {
        let mut state = State {
            in_flight,
            ..State::default()
        };
        for (row, at_ms, latency_us) in samples {
            let sample = Sample {
                at: Duration::from_millis(*at_ms),
                latency: Duration::from_micros(*latency_us),
            };
            state.record(*row, sample, false);
        }
        state
    }

    #[test]
    fn the_latency_is_the_median_at_the_number_in_flight_now() {
        let mut samples: Vec<_> = (0..WANTED as u64).map(|n| (1, 0, 10 + n)).collect();
        samples.extend((0..WANTED as u64).map(|n| (8, 0, 1000 + n)));
        let now = Duration::from_secs(1);
        assert_eq!(state(0, &samples).latency_us(now), 14);
        assert_eq!(state(7, &samples).latency_us(now), 1004);
    }

    #[test]
    fn with_too_few_the_nearest_numbers_in_flight_help_out() {
        let samples = [(3, 0, 30), (5, 0, 50), (4, 0, 40)];
        assert_eq!(state(3, &samples).latency_us(Duration::ZERO), 40);
        assert_eq!(state(0, &[(400, 0, 7)]).latency_us(Duration::ZERO), 7);
        assert_eq!(state(100_000, &[(1, 0, 7)]).latency_us(Duration::ZERO), 7);
    }

    #[test]
    fn what_is_old_does_not_count() {
        let samples = [(1, 0, 90_000), (1, 4000, 10)];
        assert_eq!(state(0, &samples).latency_us(Duration::from_secs(6)), 10);
        assert_eq!(state(0, &samples).latency_us(Duration::from_secs(60)), 0);
        assert_eq!(State::default().latency_us(Duration::ZERO), 0);
    }

    #[test]
    fn only_the_latest_are_kept() {
        let samples: Vec<_> = (0..1000).map(|n| (1, n, n)).collect();
        let state = state(0, &samples);
        assert_eq!(state.rows[1].len(), KEPT);
        assert_eq!(state.latency_us(Duration::from_secs(1)), 995);
    }

    #[test]
    fn rates_are_of_whole_seconds() {
        let mut state = State::default();
        for at in [0, 100, 1500, 2999, 3001] {
            let sample = Sample {
                at: Duration::from_millis(at),
                latency: Duration::ZERO,
            };
            state.record(1, sample, at == 1500);
        }
        let load = state.load(Duration::from_millis(3100));
        assert_eq!((load.rps, load.eps), (4.0 / 3.0, 1.0 / 3.0));
        assert_eq!(state.load(Duration::from_secs(60)).rps, 0.0);
    }

    #[test]
    fn a_ticket_counts_back_whatever_becomes_of_it() {
        let meter = Arc::new(Meter::new());
        let (first, second) = (meter.enter(), meter.enter());
        assert_eq!(meter.load().in_flight, 2);
        drop(first);
        second.answered(false);
        assert_eq!(meter.load().in_flight, 0);
        assert_eq!(meter.state().rows[2].len(), 1, "with the number it arrived at");
    }

    #[test]
    fn orca_in_both_forms() {
        let load = Load {
            in_flight: 3,
            latency_us: 1500,
            rps: 2.5,
            eps: 0.0,
        };
        let text = "TEXT rps_fractional=2.5, eps=0, named_metrics.in_flight=3, named_metrics.latency_us=1500";
        assert_eq!(load.orca(true), text);
        let json = load.orca(false);
        let json = json
            .to_str()
            .ok()
            .and_then(|value| value.strip_prefix("JSON "))
            .expect("a prefix");
        let expected = json!({
            "rps_fractional": 2.5,
            "eps": 0.0,
            "named_metrics": { "in_flight": 3, "latency_us": 1500 },
        });
        let parsed: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(parsed, expected);
    }
}

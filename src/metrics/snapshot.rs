//! All shards added up at one moment: what every rendering of the metrics starts from.
//!
//! Taken on the control thread, while the workers go on. Every number is a sum of counters that only grow and that one
//! thread reads in order, so no later snapshot shows less than an earlier one. Numbers of one snapshot may be a few
//! events apart from each other, as the workers count while it is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::distribution::{Distribution, EDGES_US};
use super::exemplar::Exemplar;
use super::histogram::Merged;
use super::shard::{BackendCounts, Series, Shard};
use crate::balance::breaker;
use crate::reason::Reason;

/// What the metrics say that nobody counts.
#[derive(Clone, Debug)]
pub struct Info {
    /// In the order of the shards' backend indices.
    pub backends: Vec<BackendInfo>,
    /// The pool's name.
    pub pool: String,
    /// What each worker's driver is called.
    pub drivers: Vec<String>,
    /// The strategy's type, spelled as users do: `round-robin`, `random`, …
    pub algorithm: String,
    /// When weir started to serve.
    pub started: Instant,
}

/// What names a backend.
#[derive(Clone, Debug)]
pub struct BackendInfo {
    /// As written in the configuration.
    pub url: String,
    /// Unique.
    pub name: String,
    pub counts: Arc<BackendCounts>,
}

/// What a backend is right now, as opposed to what was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendState {
    /// Whether the health thread says up.
    pub healthy: bool,
    /// Whether a pick may choose it.
    pub eligible: bool,
    /// Attempts that are under way.
    pub in_flight: u64,
    /// One word for what it is, as in `GET /backends`.
    pub condition: &'static str,
    pub breaker: breaker::State,
    pub breaker_openings: u64,
    pub ejections: u64,
}

/// Everything counted, over all workers.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub uptime: Duration,
    pub algorithm: String,
    pub pool: String,
    pub drivers: Vec<String>,
    /// When it was taken, by the wall clock.
    pub at: SystemTime,
    /// In the order of [`Info::backends`].
    pub backends: Vec<BackendTotals>,
    /// In the order of the shards: worker 0 first.
    pub workers: Vec<WorkerTotals>,
    /// Own answers by `Reason as usize`.
    pub reasons: [u64; Reason::ALL.len()],
}

/// What one worker counted beside its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkerTotals {
    pub exchanges: u64,
    pub connections_accepted: u64,
    pub connections_open: u64,
    pub panics: u64,
    pub accept_errors: u64,
    pub client_aborts: u64,
    /// Closed at once, for `limits.max_connections_per_ip`.
    pub connections_refused: u64,
    /// What its thread spent on a CPU.
    pub busy_seconds: f64,
}

/// One backend over all workers.
#[derive(Clone, Debug)]
pub struct BackendTotals {
    pub info: BackendInfo,
    pub state: BackendState,
    pub selections: u64,
    /// Picks after another attempt of the same exchange.
    pub retries: u64,
    pub failures: u64,
    pub connects: u64,
    pub connect_failures: u64,
    /// Answers by status code.
    pub statuses: BTreeMap<u16, u64>,
    pub latency: Latency,
    /// In the order of [`Series::ALL`].
    pub series: [Distribution; Series::ALL.len()],
    /// The latest traced exchange of each bucket of the total.
    pub exemplars: Vec<Option<Exemplar>>,
}

/// The latency of a backend's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    pub count: u64,
    /// Exact.
    pub mean_ns: u64,
    /// Exact.
    pub max_ns: u64,
    /// The p50, p95 and p99 are those of one histogram over all workers, with 3 significant digits.
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p95_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    /// Answers that took more than an hour, which the percentiles count as an hour.
    pub clamped: u64,
}

/// What was dropped since the start because nobody took it in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    pub log_lines: u64,
    pub access_log_lines: u64,
    pub spans: u64,
}

impl BackendTotals {
    /// Attempts that came to an end: answered or failed.
    pub fn attempts(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.failures
    }
}

impl Snapshot {
    /// Reads all `shards` (worker 0 first). `state` is asked once for each backend, by index.
    pub fn take(shards: &[Arc<Shard>], info: &Info, state: impl Fn(usize) -> BackendState) -> Snapshot {
        let mut scratch = Scratch::default();
        let backends = info
            .backends
            .iter()
            .enumerate()
            .map(|(index, info)| backend_totals(info, state(index), &mut scratch))
            .collect();
        let mut reasons = [0; Reason::ALL.len()];
        for shard in shards {
            for (total, counter) in reasons.iter_mut().zip(&shard.worker_cells().reasons) {
                *total += counter.get();
            }
        }
        Snapshot {
            uptime: info.started.elapsed(),
            algorithm: info.algorithm.clone(),
            pool: info.pool.clone(),
            drivers: info.drivers.clone(),
            at: SystemTime::now(),
            backends,
            workers: shards.iter().map(|shard| worker_totals(shard)).collect(),
            reasons,
        }
    }

    /// The sum of `field` over all workers.
    pub fn total(&self, field: impl Fn(&WorkerTotals) -> u64) -> u64 {
        self.workers.iter().map(field).sum()
    }

    /// Own answers by status code.
    pub fn own_statuses(&self) -> BTreeMap<u16, u64> {
        let mut statuses = BTreeMap::new();
        for (reason, &count) in Reason::ALL
            .iter()
            .zip(&self.reasons)
            .filter(|(_, count)| **count > 0)
        {
            *statuses.entry(reason.status()).or_default() += count;
        }
        statuses
    }
}

fn worker_totals(shard: &Shard) -> WorkerTotals {
    let cells = shard.worker_cells();
    // Closed before opened: a connection is opened first, so the difference cannot be negative.
    let closed = cells.connections_closed.get();
    let opened = cells.connections_opened.get();
    WorkerTotals {
        exchanges: cells.exchanges.get(),
        connections_accepted: opened,
        connections_open: opened.saturating_sub(closed),
        panics: cells.panics.get(),
        accept_errors: cells.accept_errors.get(),
        client_aborts: cells.client_aborts.get(),
        connections_refused: cells.connections_refused.get(),
        busy_seconds: shard.busy_seconds(),
    }
}

fn backend_totals(info: &BackendInfo, state: BackendState, scratch: &mut Scratch) -> BackendTotals {
    let mut totals = BackendTotals {
        info: info.clone(),
        state,
        selections: 0,
        retries: 0,
        failures: 0,
        connects: 0,
        connect_failures: 0,
        statuses: BTreeMap::new(),
        latency: Latency::default(),
        series: Default::default(),
        exemplars: vec![None; EDGES_US.len() + 1],
    };
    for cells in info.counts.by_worker() {
        totals.selections += cells.selections.get();
        totals.retries += cells.retries.get();
        totals.failures += cells.failures.get();
        totals.connects += cells.connects.get();
        totals.connect_failures += cells.connect_failures.get();
        cells.statuses.for_each(|status, count| {
            *totals.statuses.entry(status).or_default() += count;
        });
        for (index, kept) in totals.exemplars.iter_mut().enumerate() {
            let newer = |found: &Exemplar| kept.is_none_or(|kept| kept.unix_millis < found.unix_millis);
            if let Some(found) = cells.exemplars.get(index).filter(newer) {
                *kept = Some(found);
            }
        }
    }
    for (index, (series, distribution)) in Series::ALL.iter().zip(&mut totals.series).enumerate() {
        *distribution = match series {
            Series::Total => {
                scratch.fine.clear();
                let cells = info.counts.by_worker();
                cells.for_each(|cells| scratch.fine.add(&cells.latency));
                scratch.fine.distribution()
            }
            _ => {
                scratch.coarse.clear();
                let cells = info.counts.by_worker();
                cells.for_each(|cells| scratch.coarse.add(&cells.phases[index - 1]));
                scratch.coarse.distribution()
            }
        };
    }
    totals.latency = Latency::of(&totals.series[0]);
    totals
}

/// What adding up needs, made once for all backends of a snapshot.
#[derive(Default)]
struct Scratch {
    fine: Merged<1024>,
    coarse: Merged<128>,
}

impl Latency {
    /// The figures of a distribution.
    pub fn of(distribution: &Distribution) -> Latency {
        Latency {
            count: distribution.count,
            mean_ns: distribution.mean_ns(),
            max_ns: distribution.max_ns,
            p50_ns: distribution.quantile_ns(0.50),
            p90_ns: distribution.quantile_ns(0.90),
            p95_ns: distribution.quantile_ns(0.95),
            p99_ns: distribution.quantile_ns(0.99),
            p999_ns: distribution.quantile_ns(0.999),
            clamped: distribution.clamped,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{BackendInfo, BackendState, Dropped, Info, Latency, Snapshot};
    use crate::balance::breaker;
    use crate::clock::Span;
    use crate::metrics::families::{Kind, Value, families};
    use crate::metrics::histogram::{Coarse, Fine, MAX_US};
    use crate::metrics::process::Process;
    use crate::metrics::{BackendCounts, Phases, Shard};
    use crate::reason::Reason;

    const UP: BackendState = BackendState {
        healthy: true,
        eligible: true,
        in_flight: 0,
        condition: "up",
        breaker: breaker::State::Closed,
        breaker_openings: 0,
        ejections: 0,
    };

    const WORKERS: usize = 4;

    fn info(backends: usize) -> Info {
        Info {
            backends: (0..backends)
                .map(|index| BackendInfo {
                    url: format!("http://127.0.0.1:{index}"),
                    name: format!("b{index}"),
                    counts: Arc::new(BackendCounts::new(WORKERS)),
                })
                .collect(),
            pool: "default".to_owned(),
            drivers: Vec::new(),
            algorithm: "round-robin".to_owned(),
            started: Instant::now(),
        }
    }

    fn shards(workers: usize) -> Vec<Arc<Shard>> {
        (0..workers).map(|number| Arc::new(Shard::new(number))).collect()
    }

    #[test]
    fn workers_are_added_up_and_kept_apart() {
        let (shards, info) = (shards(3), info(2));
        let counts = &*info.backends[1].counts;
        for (worker, shard) in shards.iter().enumerate() {
            for _ in 0..=worker {
                shard.exchange_received();
                shard.selection(counts, worker == 0);
                shard.backend_connect(counts, true);
                shard.attempt(counts, Some(200), Duration::from_millis(worker as u64 + 1));
            }
            shard.attempt(counts, None, Duration::from_secs(9));
            shard.attempt(counts, Some(99), Duration::from_secs(9));
            shard.backend_connect(counts, false);
            shard.own_answer(Reason::NoBackend);
            shard.own_answer(Reason::QueueFull);
            shard.own_answer(Reason::OutOfMemory);
            shard.connection_opened();
            shard.connection_opened();
            shard.connection_closed();
            shard.panic_caught();
            shard.accept_error();
            shard.client_abort();
        }
        let snapshot = Snapshot::take(&shards, &info, |_| UP);
        assert_eq!(snapshot.total(|worker| worker.exchanges), 6);
        assert_eq!(snapshot.workers[2].exchanges, 3);
        assert_eq!(snapshot.workers[0].connections_accepted, 2);
        assert_eq!(snapshot.total(|worker| worker.connections_open), 3);
        assert_eq!(snapshot.total(|worker| worker.panics), 3);
        assert_eq!(snapshot.total(|worker| worker.accept_errors), 3);
        assert_eq!(snapshot.total(|worker| worker.client_aborts), 3);
        assert_eq!(
            snapshot.own_statuses().into_iter().collect::<Vec<_>>(),
            [(503, 9)]
        );
        assert_eq!(snapshot.reasons[Reason::QueueFull as usize], 3);

        assert_eq!(snapshot.backends[0].attempts(), 0);
        assert_eq!(snapshot.backends[0].latency, Default::default());
        let backend = &snapshot.backends[1];
        assert_eq!(backend.attempts(), 12);
        assert_eq!(backend.failures, 6);
        assert_eq!((backend.selections, backend.retries), (6, 1));
        assert_eq!(counts.tally().attempts, 12);
        assert_eq!(counts.tally().failed, 3);
        assert_eq!((backend.connects, backend.connect_failures), (6, 3));
        assert_eq!(backend.statuses.iter().collect::<Vec<_>>(), [(&200, &6)]);
        // 1 ms once, 2 ms twice, 3 ms three times; failures are no samples.
        assert_eq!(backend.latency.count, 6);
        assert_eq!(backend.latency.mean_ns, 14_000_000 / 6);
        assert_eq!(backend.latency.max_ns, 3_000_000);
        assert_eq!(backend.latency.p50_ns, 2_000_000);
        assert_eq!(backend.latency.p99_ns, 3_000_000);
    }

    #[test]
    fn a_percentile_is_never_past_the_maximum() {
        let (shards, info) = (shards(1), info(1));
        shards[0].attempt(
            &info.backends[0].counts,
            Some(200),
            Duration::from_micros(1_000_001),
        );
        let latency = Snapshot::take(&shards, &info, |_| UP).backends[0].latency;
        assert_eq!((latency.p50_ns, latency.p99_ns), (latency.max_ns, latency.max_ns));
    }

    proptest! {
        /// However exchanges are spread over workers: what is shown is what one histogram that saw all of them shows.
        #[test]
        fn percentiles_of_four_workers_are_those_of_one_histogram(
            exchanges in vec((0..WORKERS, any_us(), any_us()), 1..500),
        ) {
            let (shards, info) = (shards(WORKERS), info(1));
            let counts = &*info.backends[0].counts;
            let (mut fine, mut coarse) = (Fine::empty_hdr(), Coarse::empty_hdr());
            for &(worker, total, first_byte) in &exchanges {
                shards[worker].attempt(counts, Some(200), Duration::from_micros(total));
                let phases = Phases { first_byte: Some(Span(first_byte * 1_000)), ..Phases::default() };
                shards[worker].phases(counts, &phases);
                fine.record(total.min(MAX_US)).unwrap();
                coarse.record(first_byte.min(MAX_US)).unwrap();
            }
            let backend = &Snapshot::take(&shards, &info, |_| UP).backends[0];
            for (distribution, hdr) in backend.series.iter().zip([&fine, &coarse]) {
                prop_assert_eq!(distribution.count, exchanges.len() as u64);
                for tenth_of_percent in 1..=1_000 {
                    let quantile = f64::from(tenth_of_percent) / 1_000.0;
                    let expected = (hdr.value_at_quantile(quantile) * 1_000).min(distribution.max_ns);
                    prop_assert_eq!(distribution.quantile_ns(quantile), expected, "{}", quantile);
                }
            }
            prop_assert_eq!(backend.latency, Latency::of(&backend.series[0]));
            prop_assert!(backend.series[2..].iter().all(|series| series.count == 0));
        }
    }

    /// Values of every magnitude, some past the range.
    fn any_us() -> impl Strategy<Value = u64> {
        (0..33_u32, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
    }

    /// Everything in a snapshot that may only grow, as it is exposed: counters, and of histograms each bucket.
    fn counters(snapshot: &Snapshot) -> Vec<f64> {
        let mut all = Vec::new();
        for family in families(snapshot, Dropped::default(), Process::default()) {
            for sample in &family.samples {
                match (&sample.value, family.kind) {
                    (Value::Histogram { distribution, .. }, _) => {
                        let figures = [distribution.count, distribution.clamped, distribution.max_ns];
                        all.extend(figures.map(|figure| figure as f64));
                        all.push(distribution.sum_ns as f64);
                        all.extend(distribution.below_edges().map(|below| below as f64));
                    }
                    (Value::Whole(count), Kind::Counter) => all.push(*count as f64),
                    (Value::Real(count), Kind::Counter) => all.push(*count),
                    _ => {}
                }
            }
        }
        all
    }

    fn every(span: Span) -> Phases {
        let span = Some(span);
        Phases {
            first_byte: span,
            connect: span,
            queue: span,
            weir: span,
            upload: span,
            download: span,
        }
    }

    #[test]
    fn a_scrape_during_load_never_sees_a_counter_go_back() {
        const EVENTS: u64 = 40_000;
        let shards = shards(3);
        let info = info(2);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writers: Vec<_> = shards
                .iter()
                .map(|shard| {
                    scope.spawn(|| {
                        for event in 0..EVENTS {
                            let counts = &*info.backends[event as usize % 2].counts;
                            shard.connection_opened();
                            shard.exchange_received();
                            shard.selection(counts, event % 2 == 0);
                            shard.backend_connect(counts, event % 4 > 0);
                            let status = [200, 404, 503][event as usize % 3];
                            shard.attempt(counts, Some(status), Duration::from_nanos(event * event * 7));
                            shard.attempt(counts, None, Duration::ZERO);
                            shard.phases(counts, &every(Span(event * event * 5)));
                            shard.own_answer(Reason::ALL[event as usize % Reason::ALL.len()]);
                            shard.client_abort();
                            shard.connection_closed();
                        }
                    })
                })
                .collect();
            let reader = scope.spawn(|| {
                let mut before = Vec::new();
                let mut scrapes = 0;
                while !done.load(Ordering::Acquire) || scrapes == 0 {
                    let snapshot = Snapshot::take(&shards, &info, |_| UP);
                    let now = counters(&snapshot);
                    // A status that occurs for the first time is a series more, in between the others.
                    if before.len() != now.len() {
                        before.clear();
                    }
                    assert!(before.iter().zip(&now).all(|(before, now)| before <= now));
                    assert!(snapshot.workers.iter().all(|worker| worker.connections_open <= 1));
                    before = now;
                    scrapes += 1;
                }
            });
            for writer in writers {
                writer.join().unwrap();
            }
            done.store(true, Ordering::Release);
            reader.join().unwrap();
        });
        let last = Snapshot::take(&shards, &info, |_| UP);
        assert_eq!(last.total(|worker| worker.exchanges), 3 * EVENTS);
        assert_eq!(last.total(|worker| worker.connections_open), 0);
        assert_eq!(last.backends[0].latency.count, 3 * EVENTS / 2);
        assert_eq!(last.backends[1].attempts(), 3 * EVENTS);
    }
}

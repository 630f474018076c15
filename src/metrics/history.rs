//! The last quarter of an hour, second by second, and the exact histograms of the last minute.
//!
//! The control thread calls [`History::tick`] once a second; everything else reads. A row says what happened within its
//! second: percentiles are those of that second's own histogram over all backends and workers. What is longer than a
//! second is made by adding histograms, never by averaging percentiles.
//!
//! # Memory
//! A row takes some 350 bytes, and 48 for each backend: with 100 backends 4.7 MB in all. The last minute's histograms are
//! sparse: 16 bytes for each cell that was hit in its second.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::distribution::{Distribution, EDGES_US};
use super::shard::Series;
use super::snapshot::Snapshot;
use crate::reason::Reason;

/// Rows that are kept: 15 minutes.
pub const ROWS: usize = 900;
/// Seconds of which the histograms are kept.
pub const WINDOW: usize = 60;

/// One second, over all backends.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The number of the row: one more each second.
    pub number: u64,
    /// When it ended, in milliseconds since 1970.
    pub at: u64,
    /// How long it was in truth, in milliseconds: a busy control thread comes late.
    pub ms: u64,
    /// Requests received.
    pub requests: u64,
    /// Own answers with a status of 500 and more, and backends' 5xx that went to clients or to a retry.
    pub errors: u64,
    pub retries: u64,
    /// In microseconds; 0 without an answer.
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    /// How many answers took less than 64 µs, less than 128 µs, …, and longer than all of those.
    pub heat: Vec<u64>,
    pub backends: Vec<BackendRow>,
    /// Client connections open at its end, by worker.
    pub connections: Vec<u64>,
    /// Of the second, which share each worker's thread was on a CPU, in per cent.
    pub busy: Vec<u64>,
    /// Requests by worker.
    pub by_worker: Vec<u64>,
}

/// One second of one backend.
#[derive(Clone, Debug, Serialize)]
pub struct BackendRow {
    pub name: String,
    pub attempts: u64,
    pub failures: u64,
    pub in_flight: u64,
    /// In microseconds; 0 without an answer.
    pub p50: u64,
    pub p99: u64,
    pub state: &'static str,
}

/// What the histograms of a backend gained in one second, by [`Series`].
#[derive(Debug)]
struct Second {
    backends: Vec<(String, [Distribution; Series::ALL.len()])>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct History {
    rows: VecDeque<Row>,
    seconds: VecDeque<Second>,
    /// What the last tick saw.
    before: Option<Snapshot>,
    next: u64,
}

impl History {
    /// A second is over; `snapshot` was taken at its end.
    pub fn tick(&mut self, snapshot: Snapshot) {
        if let Some(before) = &self.before {
            let (row, second) = between(before, &snapshot, self.next);
            self.next += 1;
            push(&mut self.rows, row, ROWS);
            push(&mut self.seconds, second, WINDOW);
        }
        self.before = Some(snapshot);
    }

    /// The rows from number `from` on, oldest first.
    pub fn rows(&self, from: u64) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.number >= from)
    }

    pub fn last(&self) -> Option<&Row> {
        self.rows.back()
    }

    /// The histogram of the last `span`, of one backend or of all of them, with how much of it is known yet. None: there
    /// is no such backend.
    pub fn window(
        &self,
        backend: Option<&str>,
        series: Series,
        span: Duration,
    ) -> Option<(Distribution, Duration)> {
        let seconds = (span.as_secs() as usize).clamp(1, WINDOW);
        let known = self.before.as_ref().is_some_and(|before| {
            before
                .backends
                .iter()
                .any(|known| Some(&*known.info.name) == backend)
        });
        if backend.is_some() && !known {
            return None;
        }
        let mut sum = Distribution::default();
        let position = Series::ALL.iter().position(|known| *known == series)?;
        let (mut length, recent) = (
            0,
            self.rows
                .iter()
                .rev()
                .zip(self.seconds.iter().rev())
                .take(seconds),
        );
        for (row, second) in recent {
            length += row.ms;
            for (name, distributions) in &second.backends {
                if backend.is_none_or(|wanted| wanted == name) {
                    sum.add(&distributions[position]);
                }
            }
        }
        Some((sum, Duration::from_millis(length)))
    }
}

fn push<T>(ring: &mut VecDeque<T>, item: T, max: usize) {
    if ring.len() == max {
        ring.pop_front();
    }
    ring.push_back(item);
}

/// What happened between two snapshots.
fn between(before: &Snapshot, now: &Snapshot, number: u64) -> (Row, Second) {
    let mut all = Distribution::default();
    let (mut rows, mut seconds) = (Vec::new(), Vec::new());
    let (mut server_errors, mut retries) = (0, 0);
    for backend in &now.backends {
        let name = &backend.info.name;
        // After a reload a backend of the same name may be another one, which has counted less.
        let earlier = before
            .backends
            .iter()
            .find(|earlier| std::sync::Arc::ptr_eq(&earlier.info.counts, &backend.info.counts));
        let gained: [Distribution; Series::ALL.len()] = std::array::from_fn(|index| match earlier {
            Some(earlier) => backend.series[index].since(&earlier.series[index]),
            None => backend.series[index].clone(),
        });
        let total = &gained[0];
        all.add(total);
        let gain = |read: fn(&super::snapshot::BackendTotals) -> u64| {
            read(backend).saturating_sub(earlier.map_or(0, read))
        };
        let fives = |totals: &super::snapshot::BackendTotals| {
            let fives = totals.statuses.range(500..);
            fives.map(|(_, count)| count).sum::<u64>()
        };
        server_errors += gain(fives);
        retries += gain(|totals| totals.retries);
        rows.push(BackendRow {
            name: name.clone(),
            attempts: gain(|totals| totals.attempts()),
            failures: gain(|totals| totals.failures) + gain(fives),
            in_flight: backend.state.in_flight,
            p50: total.quantile_ns(0.50) / 1_000,
            p99: total.quantile_ns(0.99) / 1_000,
            state: backend.state.condition,
        });
        seconds.push((name.clone(), gained));
    }
    let own = |snapshot: &Snapshot| {
        let counts = Reason::ALL.iter().zip(snapshot.reasons);
        counts
            .filter(|(reason, _)| reason.status() >= 500)
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    let ms = now.uptime.saturating_sub(before.uptime).as_millis().max(1) as u64;
    let workers = now.workers.iter().zip(&before.workers);
    let busy = |(now, before): (&super::snapshot::WorkerTotals, &super::snapshot::WorkerTotals)| {
        ((now.busy_seconds - before.busy_seconds) * 100_000.0 / ms as f64).round() as u64
    };
    let row = Row {
        number,
        at: unix_millis(now.at),
        ms,
        requests: now
            .total(|worker| worker.exchanges)
            .saturating_sub(before.total(|worker| worker.exchanges)),
        errors: own(now).saturating_sub(own(before)) + server_errors,
        retries,
        p50: all.quantile_ns(0.50) / 1_000,
        p90: all.quantile_ns(0.90) / 1_000,
        p99: all.quantile_ns(0.99) / 1_000,
        p999: all.quantile_ns(0.999) / 1_000,
        max: all.max_ns / 1_000,
        heat: heat(&all),
        backends: rows,
        connections: now.workers.iter().map(|worker| worker.connections_open).collect(),
        busy: workers.clone().map(busy).collect(),
        by_worker: workers
            .map(|(now, before)| now.exchanges.saturating_sub(before.exchanges))
            .collect(),
    };
    (row, Second { backends: seconds })
}

/// Counts by powers of two instead of counts below them.
fn heat(distribution: &Distribution) -> Vec<u64> {
    let below = distribution.below_edges();
    let mut heat = Vec::with_capacity(EDGES_US.len() + 1);
    let mut before = 0;
    for count in below.into_iter().chain([distribution.count]) {
        heat.push(count - before);
        before = count;
    }
    heat
}

fn unix_millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::balance::breaker;
    use crate::metrics::{BackendCounts, BackendInfo, BackendState, Info, Shard};

    fn info(names: &[&str], workers: usize) -> Info {
        let backends = names.iter().map(|name| BackendInfo {
            url: String::new(),
            name: (*name).to_owned(),
            counts: Arc::new(BackendCounts::new(workers)),
        });
        Info {
            pool: "default".to_owned(),
            drivers: Vec::new(),
            algorithm: String::new(),
            started: Instant::now(),
            backends: backends.collect(),
        }
    }

    fn take(shards: &[Arc<Shard>], info: &Info) -> Snapshot {
        Snapshot::take(shards, info, |_| BackendState {
            healthy: true,
            eligible: true,
            in_flight: 3,
            condition: "up",
            breaker: breaker::State::Closed,
            breaker_openings: 0,
            ejections: 0,
        })
    }

    fn shards(workers: usize) -> Vec<Arc<Shard>> {
        (0..workers).map(|number| Arc::new(Shard::new(number))).collect()
    }

    #[test]
    fn a_row_is_what_happened_in_its_second_and_a_window_is_the_sum_of_seconds() {
        let (shards, info) = (shards(2), info(&["a", "b"], 2));
        let mut history = History::default();
        history.tick(take(&shards, &info));
        assert!(history.last().is_none());
        for second in 1..=3_u64 {
            for shard in &shards {
                for (index, backend) in info.backends.iter().enumerate() {
                    shard.exchange_received();
                    let took = Duration::from_millis(10 * second + index as u64);
                    shard.attempt(&backend.counts, Some(200), took);
                }
            }
            shards[0].attempt(&info.backends[1].counts, Some(503), Duration::from_millis(1));
            shards[0].own_answer(Reason::NoBackend);
            shards[0].own_answer(Reason::BadRequest);
            history.tick(take(&shards, &info));
            let row = history.last().unwrap();
            assert_eq!((row.number, row.requests, row.errors), (second - 1, 4, 2));
            assert_eq!(row.heat.iter().sum::<u64>(), 5);
            let (a, b) = (&row.backends[0], &row.backends[1]);
            assert_eq!((a.attempts, a.failures, a.in_flight), (2, 0, 3));
            assert_eq!((b.attempts, b.failures), (3, 1));
            assert!(a.p50.abs_diff(10_000 * second) <= 16, "{}", a.p50);
        }
        let window = |backend, span| {
            history
                .window(backend, Series::Total, Duration::from_secs(span))
                .unwrap()
                .0
        };
        assert_eq!(window(Some("a"), 1).count, 2);
        assert_eq!(window(Some("a"), 60).count, 6);
        assert_eq!(window(None, 2).count, 10);
        assert!(window(Some("a"), 1).quantile_ns(0.5) > window(Some("a"), 60).quantile_ns(0.5));
        assert!(
            history
                .window(Some("c"), Series::Total, Duration::from_secs(1))
                .is_none()
        );
        assert_eq!(history.rows(1).count(), 2);
    }

    #[test]
    fn a_backend_that_is_new_under_an_old_name_begins_anew() {
        let (shards, first) = (shards(1), info(&["a"], 1));
        let mut history = History::default();
        shards[0].attempt(&first.backends[0].counts, Some(200), Duration::from_millis(5));
        history.tick(take(&shards, &first));
        let second = info(&["a"], 1);
        shards[0].attempt(&second.backends[0].counts, Some(200), Duration::from_millis(5));
        history.tick(take(&shards, &second));
        assert_eq!(history.last().unwrap().backends[0].attempts, 1);
        history.tick(take(&shards, &second));
        assert_eq!(history.last().unwrap().backends[0].attempts, 0);
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let (shards, info) = (shards(1), info(&["a"], 1));
        let mut history = History::default();
        for _ in 0..ROWS + 100 {
            history.tick(take(&shards, &info));
        }
        assert_eq!(history.rows.len(), ROWS);
        assert_eq!(history.seconds.len(), WINDOW);
        assert_eq!(history.last().unwrap().number, (ROWS + 100 - 2) as u64);
    }
}

//! The last quarter of an hour, second by second, and the exact histograms of the last minute.
//!
//! The control thread calls [`History::tick`] about once a second; everything else reads. A tick reads the shards as a scrape
//! does and keeps what they grew by. Workers neither know of it nor wait for it; a backend that nothing happened to costs a
//! few loads. A tick that comes late makes one longer second, which says how long it is; what was missed is counted.
//!
//! - [`History::window`] is the histogram of one backend, or of all, over the last 1 to 60 s: the sum of the [`Delta`]s of
//!   those seconds and of all workers, so it is the histogram of exactly what was recorded in between.
//! - [`History::rows`] has a [`Row`] for each of the last 900 s, [`History::backend_rows`] the same of one backend.
//!   Percentiles of a second are read off the histogram of that second over all backends and workers. A row keeps that
//!   histogram with two significant digits ([`Row::latency`]), so that what is longer than a second is made by adding
//!   histograms, never by averaging percentiles.
//!
//! # Memory
//! The last minute is bounded by [`WINDOW_BYTES`] of cells over all backends: past that the oldest second goes early, and a
//! window says how much of it is known. What was seen last of each histogram takes half of what one worker's own takes. A
//! row over all backends takes 10 KB at the very most and about 1 KB in ordinary traffic; a backend's row takes 40 bytes,
//! so 100 backends make 4 MB of them. A test holds 100 busy backends to that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use super::delta::{Baseline, Delta};
use super::distribution::Distribution;
use super::histogram::Merged;
use super::shard::{BackendCounts, Series, Shard};
use super::snapshot::{BackendInfo, BackendState, Info};
use crate::reason::Reason;

/// Between two ticks.
pub const TICK: Duration = Duration::from_secs(1);
/// Rows that are kept: 15 minutes.
pub const ROWS: usize = 900;
/// Seconds of which the histograms are kept.
pub const WINDOW: usize = 60;
/// Bytes of cells in the last minute's histograms, over all backends.
pub const WINDOW_BYTES: usize = 24 * 1024 * 1024;

/// See the module's documentation.
#[derive(Debug)]
pub struct History {
    rows: VecDeque<Row>,
    /// How long each second of the backends' `seconds` was; the newest last.
    spans: VecDeque<Duration>,
    backends: Vec<Track>,
    workers: Vec<WorkerNow>,
    last: Instant,
    own_errors: u64,
    next: u64,
    missed: u64,
    window_bytes: usize,
    max_window_bytes: usize,
    scratch: Scratch,
}

/// One second over all backends, or a longer time if the tick came late.
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
    /// Attempts that came to an end: answered or failed.
    pub attempts: u64,
    /// Own answers with a status of 500 and more, and backends' 5xx that went to clients or to a retry.
    pub errors: u64,
    /// Of `errors`, those that weir answered itself.
    pub own_errors: u64,
    /// Attempts that got no answer; a retry may have made them good, or `own_errors` has them too.
    pub failures: u64,
    pub retries: u64,
    /// In microseconds; 0 without an answer.
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    /// Exact if it is the longest of its backend ever, else the upper end of its cell.
    pub max: u64,
    /// All answers of the second, with two significant digits.
    #[serde(rename = "heat", serialize_with = "heat")]
    pub latency: Delta<128>,
    /// Client connections open at its end, by worker.
    pub connections: Vec<u64>,
    /// Of the second, which share each worker's thread was on a CPU, in per cent.
    pub busy: Vec<u64>,
    /// Requests by worker.
    pub by_worker: Vec<u64>,
}

/// The same second at one backend. A count past 2³² stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BackendRow {
    /// How often it was picked.
    pub selections: u32,
    /// Attempts that came to an end.
    pub attempts: u32,
    /// Its answers of 500 and more, and attempts without an answer.
    pub failures: u32,
    pub in_flight: u32,
    /// In microseconds; 0 without an answer.
    pub p50: u32,
    pub p99: u32,
    /// One word for what it was at its end, as in `GET /backends`.
    pub state: &'static str,
}

/// A backend's figures at the last tick, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendNow {
    pub selections: u64,
    pub retries: u64,
    /// Attempts that were answered or failed.
    pub attempts: u64,
    /// Its answers of 500 and more.
    pub server_errors: u64,
    /// Attempts without an answer.
    pub failures: u64,
    /// Of all its answers ever.
    pub p50_ns: u64,
    pub p99_ns: u64,
}

/// A worker's figures at the last tick, since the start.
#[derive(Clone, Copy, Debug, Default)]
struct WorkerNow {
    requests: u64,
    busy_seconds: f64,
}

/// What is kept of one backend.
#[derive(Debug)]
struct Track {
    name: String,
    counts: Arc<BackendCounts>,
    activity: u64,
    now: BackendNow,
    total: Baseline<1024>,
    phases: [Baseline<128>; Series::PHASES.len()],
    /// In step with the history's spans at their newer end; none: nothing happened.
    seconds: VecDeque<Option<Box<Second>>>,
    rows: VecDeque<BackendRow>,
}

/// One backend's histograms of one second.
#[derive(Debug, Default)]
struct Second {
    total: Delta<1024>,
    phases: [Delta<128>; Series::PHASES.len()],
}

impl Second {
    fn heap_bytes(&self) -> usize {
        let phases = self.phases.iter().map(Delta::heap_bytes).sum::<usize>();
        size_of::<Second>() + self.total.heap_bytes() + phases
    }
}

/// What a tick needs and the next one can use again.
#[derive(Debug, Default)]
struct Scratch {
    fine: Merged<1024>,
    coarse: Merged<128>,
    /// Over all backends.
    all: Merged<1024>,
    bytes: Vec<u8>,
}

impl Default for History {
    fn default() -> Self {
        History::new(Instant::now())
    }
}

impl History {
    /// Nothing yet; the first second begins `now`.
    pub fn new(now: Instant) -> History {
        History::within(WINDOW_BYTES, now)
    }

    fn within(max_window_bytes: usize, now: Instant) -> History {
        History {
            rows: VecDeque::new(),
            spans: VecDeque::new(),
            backends: Vec::new(),
            workers: Vec::new(),
            last: now,
            own_errors: 0,
            next: 0,
            missed: 0,
            window_bytes: 0,
            max_window_bytes,
            scratch: Scratch::default(),
        }
    }

    /// A second is over. `wall` is the time of day; `state` is asked once for each backend of `info`, by index. Gives how
    /// many ticks should have come before this one and did not.
    pub fn tick(
        &mut self,
        now: Instant,
        wall: SystemTime,
        shards: &[Arc<Shard>],
        info: &Info,
        state: impl Fn(usize) -> BackendState,
    ) -> u64 {
        let span = now.saturating_duration_since(self.last);
        self.last = now;
        let missed = (span.as_secs_f64() / TICK.as_secs_f64()).round().max(1.0) as u64 - 1;
        self.missed += missed;
        self.follow(&info.backends);
        let mut row = self.begin_row(wall, span, shards);
        self.scratch.all.clear();
        for (index, track) in self.backends.iter_mut().enumerate() {
            let before = track.now;
            self.window_bytes += track.tick(state(index), &mut self.scratch);
            row.attempts += track.now.attempts - before.attempts;
            row.errors += track.now.server_errors - before.server_errors;
            row.failures += track.now.failures - before.failures;
            row.retries += track.now.retries - before.retries;
        }
        let Scratch {
            all, coarse, bytes, ..
        } = &mut self.scratch;
        [row.p50, row.p90, row.p99, row.p999] = all.quantiles([0.5, 0.9, 0.99, 0.999]).map(|ns| ns / 1_000);
        row.max = all.max_ns / 1_000;
        coarse.clear();
        all.fold_into(coarse);
        row.latency = Delta::of(coarse, bytes);
        push(&mut self.rows, row);
        self.spans.push_back(span);
        while self.spans.len() > WINDOW || (self.window_bytes > self.max_window_bytes && self.spans.len() > 1)
        {
            self.forget_oldest_second();
        }
        missed
    }

    /// The rows from number `from` on, oldest first.
    pub fn rows(&self, from: u64) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.number >= from)
    }

    pub fn last(&self) -> Option<&Row> {
        self.rows.back()
    }

    /// A backend's rows from number `from` on, with their numbers. None: there is no such backend.
    pub fn backend_rows(&self, name: &str, from: u64) -> Option<impl Iterator<Item = (u64, &BackendRow)>> {
        let track = self.find(name)?;
        let first = self.next - track.rows.len() as u64;
        let numbered = (first..).zip(&track.rows);
        Some(numbered.filter(move |(number, _)| *number >= from))
    }

    /// A backend's figures at the last tick.
    pub fn backend_now(&self, name: &str) -> Option<BackendNow> {
        self.find(name).map(|track| track.now)
    }

    /// Requests received by the last tick.
    pub fn requests(&self) -> u64 {
        self.workers.iter().map(|worker| worker.requests).sum()
    }

    /// Ticks that did not come when they were due, ever.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The histogram of the last `span`, of one backend or of all that there are, with how much of it is known yet. In whole
    /// ticks: one at least and [`WINDOW`] at most. None: there is no such backend.
    pub fn window(
        &self,
        backend: Option<&str>,
        series: Series,
        span: Duration,
    ) -> Option<(Distribution, Duration)> {
        let tracks = match backend {
            Some(name) => vec![self.find(name)?],
            None => self.backends.iter().collect(),
        };
        let mut covered = Duration::ZERO;
        let mut seconds = 0;
        for length in self.spans.iter().rev() {
            covered += *length;
            seconds += 1;
            // A tick is due each second and comes a little after.
            if covered + TICK / 2 >= span {
                break;
            }
        }
        let within = tracks
            .into_iter()
            .flat_map(|track| track.seconds.iter().rev().take(seconds).flatten());
        let phase = Series::PHASES.iter().position(|phase| *phase == series);
        let distribution = match phase {
            None => {
                let mut merged = Merged::new();
                within.for_each(|second| second.total.add_to(&mut merged));
                merged.distribution()
            }
            Some(phase) => {
                let mut merged = Merged::new();
                within.for_each(|second| second.phases[phase].add_to(&mut merged));
                merged.distribution()
            }
        };
        Some((distribution, covered))
    }

    /// A row with what the workers say.
    fn begin_row(&mut self, wall: SystemTime, span: Duration, shards: &[Arc<Shard>]) -> Row {
        self.workers.resize(shards.len(), WorkerNow::default());
        let (mut connections, mut busy, mut by_worker) = (Vec::new(), Vec::new(), Vec::new());
        let mut errors = 0;
        for (worker, shard) in self.workers.iter_mut().zip(shards) {
            let cells = shard.worker_cells();
            // Closed before opened: a connection is opened first, so the difference cannot be negative.
            let closed = cells.connections_closed.get();
            connections.push(cells.connections_opened.get().saturating_sub(closed));
            let now = WorkerNow {
                requests: cells.exchanges.get(),
                busy_seconds: shard.busy_seconds(),
            };
            let before = std::mem::replace(worker, now);
            by_worker.push(now.requests - before.requests);
            let share = (now.busy_seconds - before.busy_seconds) / span.as_secs_f64().max(0.001);
            busy.push((share * 100.0).round() as u64);
            errors += own_errors(shard);
        }
        let own_errors = errors - std::mem::replace(&mut self.own_errors, errors);
        let number = self.next;
        self.next += 1;
        Row {
            number,
            at: wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
            ms: span.as_millis().max(1) as u64,
            requests: by_worker.iter().sum(),
            attempts: 0,
            errors: own_errors,
            own_errors,
            failures: 0,
            retries: 0,
            p50: 0,
            p90: 0,
            p99: 0,
            p999: 0,
            max: 0,
            latency: Delta::default(),
            connections,
            busy,
            by_worker,
        }
    }

    /// Keeps what is known of backends that stay, begins with those that came, and forgets those that went.
    fn follow(&mut self, backends: &[BackendInfo]) {
        let same = |track: &Track, info: &BackendInfo| {
            Arc::ptr_eq(&track.counts, &info.counts) && track.name == info.name
        };
        let mut pairs = self.backends.iter().zip(backends);
        if self.backends.len() == backends.len() && pairs.all(|(track, info)| same(track, info)) {
            return;
        }
        let mut before = std::mem::take(&mut self.backends);
        for info in backends {
            let known = before.iter().position(|track| same(track, info));
            self.backends.push(match known {
                Some(at) => before.swap_remove(at),
                None => Track::new(info),
            });
        }
        for gone in before {
            let kept = gone.seconds.iter().flatten();
            self.window_bytes -= kept.map(|second| second.heap_bytes()).sum::<usize>();
        }
    }

    fn forget_oldest_second(&mut self) {
        self.spans.pop_front();
        for track in &mut self.backends {
            if track.seconds.len() > self.spans.len()
                && let Some(Some(second)) = track.seconds.pop_front()
            {
                self.window_bytes -= second.heap_bytes();
            }
        }
    }

    fn find(&self, name: &str) -> Option<&Track> {
        self.backends.iter().find(|track| track.name == name)
    }
}

/// weir's own answers of 500 and more, by one worker.
fn own_errors(shard: &Shard) -> u64 {
    let counts = Reason::ALL.iter().zip(&shard.worker_cells().reasons);
    let errors = counts.filter(|(reason, _)| reason.status() >= 500);
    errors.map(|(_, count)| count.get()).sum()
}

fn push<T>(ring: &mut VecDeque<T>, item: T) {
    if ring.len() == ROWS {
        ring.pop_front();
    }
    ring.push_back(item);
}

/// Where the heat map has a value: four buckets a power of two from 4 µs on, one a microsecond below.
fn heat_bucket(us: u64) -> u64 {
    // As the cells of a histogram are numbered, whose division is four.
    let halvings = u64::from((us | 7).ilog2() - 2);
    4 * halvings + (us >> halvings)
}

/// Pairs of a bucket's number and its count, in ascending order. Exact: no cell of the histogram is wider than a bucket.
fn heat<S: Serializer>(latency: &Delta<128>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut buckets: Vec<(u64, u64)> = Vec::new();
    for (us, count) in latency.values() {
        let bucket = heat_bucket(us);
        match buckets.last_mut() {
            Some((last, sum)) if *last == bucket => *sum += count,
            _ => buckets.push((bucket, count)),
        }
    }
    buckets.serialize(serializer)
}

impl Track {
    fn new(info: &BackendInfo) -> Track {
        Track {
            name: info.name.clone(),
            counts: info.counts.clone(),
            activity: 0,
            now: BackendNow::default(),
            total: Baseline::default(),
            phases: Default::default(),
            seconds: VecDeque::new(),
            rows: VecDeque::new(),
        }
    }

    /// Takes in one second, adds its latencies to those of all backends, and gives how many bytes are kept of it.
    fn tick(&mut self, state: BackendState, scratch: &mut Scratch) -> usize {
        let before = self.now;
        let activity = self.counts.activity();
        let happened = activity != std::mem::replace(&mut self.activity, activity);
        let second = happened.then(|| self.read(scratch));
        let mut percentiles = [0; 2];
        if let Some(second) = &second {
            scratch.fine.clear();
            second.total.add_to(&mut scratch.fine);
            scratch.all.add_merged(&scratch.fine);
            percentiles = scratch.fine.quantiles([0.5, 0.99]);
        }
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let [p50, p99] = percentiles.map(|ns| narrow(ns / 1_000));
        let failed = |now: &BackendNow| now.server_errors + now.failures;
        let row = BackendRow {
            selections: narrow(self.now.selections - before.selections),
            attempts: narrow(self.now.attempts - before.attempts),
            failures: narrow(failed(&self.now) - failed(&before)),
            in_flight: narrow(state.in_flight),
            p50,
            p99,
            state: state.condition,
        };
        push(&mut self.rows, row);
        let kept = second.as_ref().map_or(0, |second| second.heap_bytes());
        self.seconds.push_back(second);
        kept
    }

    /// Brings `now` up to date, and gives what is new.
    fn read(&mut self, scratch: &mut Scratch) -> Box<Second> {
        let Scratch {
            fine, coarse, bytes, ..
        } = scratch;
        let mut second = Box::<Second>::default();
        let mut now = BackendNow::default();
        fine.clear();
        for cells in self.counts.by_worker() {
            now.selections += cells.selections.get();
            now.retries += cells.retries.get();
            now.failures += cells.failures.get();
            cells.statuses.for_each(|status, count| {
                now.attempts += count;
                now.server_errors += if status >= 500 { count } else { 0 };
            });
            fine.add(&cells.latency);
        }
        now.attempts += now.failures;
        [now.p50_ns, now.p99_ns] = fine.quantiles([0.5, 0.99]);
        self.now = now;
        second.total = self.total.advance(fine, bytes);
        let phases = self.phases.iter_mut().zip(&mut second.phases);
        for (phase, (seen, delta)) in phases.enumerate() {
            coarse.clear();
            for cells in self.counts.by_worker() {
                coarse.add(&cells.phases[phase]);
            }
            *delta = seen.advance(coarse, bytes);
        }
        second
    }
}

#[cfg(test)]
mod tests;

//! What happened lately, second by second: the last 15 minutes as figures, the last minute as whole histograms.
//!
//! Owned by the control thread, which calls [`History::tick`] about once a second. A tick reads the shards as a scrape does
//! and keeps what they grew by. Workers neither know of it nor wait for it; a backend that nothing happened to costs a few
//! loads. A tick that comes late makes one longer second, which says how long it is; ticks that were missed are counted.
//!
//! # What can be asked
//! - [`History::window`]: the histogram of one backend, or of all, over the last 1 to 60 s: the sum of the [`Delta`]s of
//!   those seconds and of all workers, so it is the histogram of exactly what was recorded in between.
//! - [`History::rows`] and [`History::backend_rows`]: a [`Row`] for each of the last 900 s. Percentiles of a second are read
//!   off the histogram of that second over all workers and backends. A row keeps that histogram with two significant digits,
//!   so that percentiles of several rows come from adding them ([`Row::latency`]), never from averaging.
//!
//! # Memory
//! The last minute is bounded by [`WINDOW_BYTES`] of cells over all backends: past that, the oldest second goes early and
//! [`Window::covered`] says so. What was seen last of each histogram takes half of what one worker's own histogram takes.
//! A row over all backends takes 10 KB at the very most and about 1 KB in ordinary traffic, a backend's row takes
//! [`BackendRow`]'s 56 bytes: 100 backends make 5 MB of them. A test holds 100 busy backends to all that.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::delta::{Baseline, Delta};
use super::histogram::{Coarse, Fine, Merged};
use super::shard::{BackendCounts, Series, Shard};
use super::snapshot::{BackendInfo, Info};
use crate::reason::Reason;

/// Between two ticks.
pub const TICK: Duration = Duration::from_secs(1);
/// Rows that are kept: 15 minutes.
pub const ROWS: usize = 900;
/// Seconds that are kept as histograms.
pub const SECONDS: usize = 60;
/// Bytes of cells in the last minute's histograms, over all backends.
pub const WINDOW_BYTES: usize = 24 * 1024 * 1024;

/// What a backend is at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Attempts under way.
    pub in_flight: u64,
    /// One word for its state.
    pub state: &'static str,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct History {
    rows: VecDeque<Row>,
    /// When each second of the backends' `seconds` ended; the newest last.
    edges: VecDeque<Edge>,
    backends: Vec<Track>,
    workers: Vec<WorkerNow>,
    last: Instant,
    own_errors: u64,
    own_answers: u64,
    ticks: u64,
    missed: u64,
    window_bytes: usize,
    max_window_bytes: usize,
    scratch: Scratch,
}

/// One second over all backends, or a longer time if the tick came late.
#[derive(Clone, Debug)]
pub struct Row {
    /// Grows by one from row to row.
    pub number: u64,
    /// Its end.
    pub at: SystemTime,
    pub span: Duration,
    /// Exchanges received.
    pub requests: u64,
    /// Attempts that came to an end: answered or failed.
    pub attempts: u64,
    pub errors: Errors,
    /// Of the answers that came to an end, in ns: p50, p90, p99 and p99.9 with three significant digits.
    pub percentiles: [u64; 4],
    /// Exact if it is the longest of its backend ever, else the upper end of its cell. 0: no answer.
    pub max_ns: u64,
    /// The same latencies with two significant digits.
    pub latency: Delta<128>,
}

/// The shares that [`Row::percentiles`] are of.
pub const SHARES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// What went wrong, by who saw it. A failed attempt may have been made good by a retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// weir's own answers of 500 and more.
    pub own: u64,
    /// Backends' answers of 500 and more.
    pub backend: u64,
    /// Attempts without an answer.
    pub failures: u64,
}

impl Errors {
    pub fn total(&self) -> u64 {
        self.own + self.backend + self.failures
    }
}

/// The same second at one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendRow {
    /// How often it was picked.
    pub selections: u32,
    /// Attempts that came to an end.
    pub attempts: u32,
    /// Its answers of 500 and more, and attempts without an answer.
    pub errors: u32,
    pub in_flight: u32,
    /// In ns; 0: no answer in this second.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub state: &'static str,
}

/// A backend's figures at the last tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendNow {
    pub selections: u64,
    /// Attempts that were answered or failed.
    pub attempts: u64,
    /// Its answers of 500 and more.
    pub server_errors: u64,
    /// Attempts without an answer.
    pub failures: u64,
    /// Of all its answers ever, in ns.
    pub p50_ns: u64,
    pub p99_ns: u64,
}

/// A worker's figures at the last tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerNow {
    /// Exchanges received.
    pub requests: u64,
    /// Of them, those of the last row.
    pub latest: u64,
    pub connections_open: u64,
}

/// The histogram of the last seconds.
#[derive(Clone, Debug)]
pub struct Window {
    /// In µs, of the series' significant digits: 3 for the total, 2 for phases.
    pub histogram: hdrhistogram::Histogram<u64>,
    /// Exact.
    pub sum_ns: u128,
    /// Exact if it is the longest ever, else the upper end of its cell.
    pub max_ns: u64,
    /// Values past an hour, which the histogram has as an hour.
    pub clamped: u64,
    /// What it holds was recorded between these two.
    pub from: SystemTime,
    pub to: SystemTime,
    /// Its length: shorter than asked for while weir is young or much is to be kept, longer if a tick came late.
    pub covered: Duration,
}

/// The end of a second.
#[derive(Clone, Copy, Debug)]
struct Edge {
    at: SystemTime,
    span: Duration,
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
    /// In step with the history's edges at their newer end; none: nothing happened.
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

impl History {
    /// Nothing yet; the first second begins `now`.
    pub fn new(now: Instant) -> History {
        History::within(WINDOW_BYTES, now)
    }

    fn within(max_window_bytes: usize, now: Instant) -> History {
        History {
            rows: VecDeque::new(),
            edges: VecDeque::new(),
            backends: Vec::new(),
            workers: Vec::new(),
            last: now,
            own_errors: 0,
            own_answers: 0,
            ticks: 0,
            missed: 0,
            window_bytes: 0,
            max_window_bytes,
            scratch: Scratch::default(),
        }
    }

    /// Takes in what happened since the last tick. `wall` is the time of day; `standing` is asked once for each backend of
    /// `info`, by index. Gives how many ticks were missed before this one.
    pub fn tick(
        &mut self,
        now: Instant,
        wall: SystemTime,
        shards: &[Arc<Shard>],
        info: &Info,
        standing: impl Fn(usize) -> Standing,
    ) -> u64 {
        let span = now.saturating_duration_since(self.last);
        self.last = now;
        let missed = (span.as_secs_f64() / TICK.as_secs_f64()).round().max(1.0) as u64 - 1;
        self.missed += missed;
        self.follow(&info.backends);
        self.edges.push_back(Edge { at: wall, span });
        self.scratch.all.clear();
        let mut row = Row {
            number: self.ticks,
            at: wall,
            span,
            requests: self.count_workers(shards),
            attempts: 0,
            errors: Errors {
                own: self.count_own_errors(shards),
                ..Errors::default()
            },
            percentiles: [0; 4],
            max_ns: 0,
            latency: Delta::default(),
        };
        self.ticks += 1;
        for (index, track) in self.backends.iter_mut().enumerate() {
            let (second, errors, kept) = track.tick(standing(index), &mut self.scratch);
            row.attempts += u64::from(second);
            row.errors.backend += errors.backend;
            row.errors.failures += errors.failures;
            self.window_bytes += kept;
        }
        let Scratch {
            all, coarse, bytes, ..
        } = &mut self.scratch;
        row.percentiles = all.quantiles(SHARES);
        row.max_ns = all.max_ns;
        coarse.clear();
        all.fold_into(coarse);
        row.latency = Delta::of(coarse, bytes);
        if self.rows.len() == ROWS {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
        while self.edges.len() > SECONDS || self.window_bytes > self.max_window_bytes && self.edges.len() > 1
        {
            self.forget_oldest_second();
        }
        missed
    }

    /// The rows of the last 15 minutes, the oldest first.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &Row> + ExactSizeIterator {
        self.rows.iter()
    }

    /// A backend's rows: the last one belongs to the last of [`Self::rows`]. None: there is no such backend.
    pub fn backend_rows(
        &self,
        name: &str,
    ) -> Option<impl DoubleEndedIterator<Item = &BackendRow> + ExactSizeIterator> {
        self.find(name).map(|track| track.rows.iter())
    }

    /// A backend's figures at the last tick.
    pub fn backend_now(&self, name: &str) -> Option<BackendNow> {
        self.find(name).map(|track| track.now)
    }

    /// The workers at the last tick, worker 0 first.
    pub fn workers(&self) -> &[WorkerNow] {
        &self.workers
    }

    /// Answers that weir gave by itself, up to the last tick.
    pub fn own_answers(&self) -> u64 {
        self.own_answers
    }

    /// Ticks that did not come when they were due, ever.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// What was recorded in the last `span`, in whole ticks: at least one and at most [`SECONDS`]. Of one backend, or of all
    /// that there are. None: there is no such backend, or no tick was yet.
    pub fn window(&self, backend: Option<&str>, series: Series, span: Duration) -> Option<Window> {
        let tracks: Vec<&Track> = match backend {
            Some(name) => vec![self.find(name)?],
            None => self.backends.iter().collect(),
        };
        let to = self.edges.back()?.at;
        let mut covered = Duration::ZERO;
        let mut seconds = 0;
        for edge in self.edges.iter().rev() {
            covered += edge.span;
            seconds += 1;
            // A tick is due each second and comes a little after.
            if covered + TICK / 2 >= span {
                break;
            }
        }
        let phase = Series::PHASES.iter().position(|phase| *phase == series);
        let within = tracks
            .into_iter()
            .flat_map(|track| track.seconds.iter().rev().take(seconds).flatten());
        let mut window = match phase {
            None => {
                let mut merged = Merged::new();
                within.for_each(|second| second.total.add_to(&mut merged));
                Window::of(&merged, Fine::empty_hdr())
            }
            Some(phase) => {
                let mut merged = Merged::new();
                within.for_each(|second| second.phases[phase].add_to(&mut merged));
                Window::of(&merged, Coarse::empty_hdr())
            }
        };
        window.from = to.checked_sub(covered).unwrap_or(to);
        window.to = to;
        window.covered = covered;
        Some(window)
    }

    /// Keeps what is known of backends that stay, begins with those that came, and forgets those that went.
    fn follow(&mut self, backends: &[BackendInfo]) {
        let same = |track: &Track, info: &BackendInfo| {
            Arc::ptr_eq(&track.counts, &info.counts) && track.name == info.name
        };
        let unchanged = self.backends.len() == backends.len()
            && self
                .backends
                .iter()
                .zip(backends)
                .all(|(track, info)| same(track, info));
        if unchanged {
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
            self.window_bytes -= gone
                .seconds
                .iter()
                .flatten()
                .map(|second| second.heap_bytes())
                .sum::<usize>();
        }
    }

    fn forget_oldest_second(&mut self) {
        self.edges.pop_front();
        for track in &mut self.backends {
            if track.seconds.len() > self.edges.len()
                && let Some(Some(second)) = track.seconds.pop_front()
            {
                self.window_bytes -= second.heap_bytes();
            }
        }
    }

    /// Exchanges received since the last tick.
    fn count_workers(&mut self, shards: &[Arc<Shard>]) -> u64 {
        self.workers.resize(shards.len(), WorkerNow::default());
        let mut received = 0;
        for (worker, shard) in self.workers.iter_mut().zip(shards) {
            let cells = shard.worker_cells();
            let requests = cells.exchanges.get();
            // Closed before opened: a connection is opened first, so the difference cannot be negative.
            let closed = cells.connections_closed.get();
            *worker = WorkerNow {
                requests,
                latest: requests - worker.requests,
                connections_open: cells.connections_opened.get().saturating_sub(closed),
            };
            received += worker.latest;
        }
        received
    }

    /// weir's own answers of 500 and more since the last tick.
    fn count_own_errors(&mut self, shards: &[Arc<Shard>]) -> u64 {
        let (mut answers, mut errors) = (0, 0);
        for shard in shards {
            for (reason, counter) in Reason::ALL.iter().zip(&shard.worker_cells().reasons) {
                let count = counter.get();
                answers += count;
                errors += if reason.status() >= 500 { count } else { 0 };
            }
        }
        self.own_answers = answers;
        errors - std::mem::replace(&mut self.own_errors, errors)
    }

    fn find(&self, name: &str) -> Option<&Track> {
        self.backends.iter().find(|track| track.name == name)
    }
}

impl Window {
    fn of<const CELLS: usize>(merged: &Merged<CELLS>, mut histogram: hdrhistogram::Histogram<u64>) -> Window {
        merged.merge_into(&mut histogram);
        Window {
            histogram,
            sum_ns: merged.sum_ns,
            max_ns: merged.max_ns,
            clamped: merged.clamped,
            from: SystemTime::UNIX_EPOCH,
            to: SystemTime::UNIX_EPOCH,
            covered: Duration::ZERO,
        }
    }
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

    /// Takes in one second: attempts that came to an end, how they went wrong, and bytes that are kept of it. Adds the
    /// second's latencies to those of all backends.
    fn tick(&mut self, standing: Standing, scratch: &mut Scratch) -> (u32, Errors, usize) {
        let before = self.now;
        let activity = self.counts.activity();
        let happened = activity != std::mem::replace(&mut self.activity, activity);
        let second = happened.then(|| self.read(scratch));
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let errors = Errors {
            own: 0,
            backend: self.now.server_errors - before.server_errors,
            failures: self.now.failures - before.failures,
        };
        let [p50_ns, p99_ns] = match &second {
            Some(second) => {
                scratch.fine.clear();
                second.total.add_to(&mut scratch.fine);
                scratch.all.add_merged(&scratch.fine);
                scratch.fine.quantiles([0.5, 0.99])
            }
            None => [0; 2],
        };
        let row = BackendRow {
            selections: narrow(self.now.selections - before.selections),
            attempts: narrow(self.now.attempts - before.attempts),
            errors: narrow(errors.total()),
            in_flight: narrow(standing.in_flight),
            p50_ns,
            p99_ns,
            state: standing.state,
        };
        if self.rows.len() == ROWS {
            self.rows.pop_front();
        }
        self.rows.push_back(row);
        let kept = second.as_ref().map_or(0, |second| second.heap_bytes());
        self.seconds.push_back(second);
        (row.attempts, errors, kept)
    }

    /// Brings `now` up to date, and gives what is new.
    fn read(&mut self, scratch: &mut Scratch) -> Box<Second> {
        let Scratch {
            fine, coarse, bytes, ..
        } = scratch;
        let mut second = Box::<Second>::default();
        fine.clear();
        let mut now = BackendNow::default();
        for cells in self.counts.by_worker() {
            now.selections += cells.selections.get();
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
        for (phase, (seen, delta)) in self.phases.iter_mut().zip(&mut second.phases).enumerate() {
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

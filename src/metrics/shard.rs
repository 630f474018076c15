//! One worker's counters.
//!
//! # The single-writer rule
//! Every method of [`Shard`] that records may be called by **one thread only**: the worker that the shard belongs to.
//! They take `&self` because the control thread reads the same object through its own `Arc`; a second writer would lose
//! counts silently. Recording is a handful of loads and stores to lines that no other writer touches, plus, the first
//! time that a latency or a status falls into a new range, one allocation.
//!
//! What is counted by backend stands with the backend ([`BackendCounts`]), a line for each worker, so that backends may
//! come and go while the shards stay.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::cell::Counter;
use super::exemplar::{Exemplar, Exemplars};
use super::histogram::{Coarse, Fine};
use super::process;
use super::status::StatusCodes;
use crate::clock::Span;
use crate::reason::Reason;
use crate::sys;

/// What one worker counted. See the module's documentation for who may write.
#[derive(Debug)]
pub struct Shard {
    worker: CachePadded<WorkerCells>,
    /// The number of the worker.
    number: usize,
    /// The kernel's id of its thread; 0: it has not begun.
    thread: AtomicU64,
    /// The descriptor of its ring; −1: it has none.
    ring: AtomicI32,
    /// Bytes of its buffers in use, a moment ago.
    buffer_bytes: AtomicU64,
}

/// The counters of one backend, a line for each worker. They live as long as the backend, over every reload.
#[derive(Debug)]
pub struct BackendCounts(Box<[CachePadded<BackendCells>]>);

impl BackendCounts {
    pub fn new(workers: usize) -> BackendCounts {
        BackendCounts((0..workers).map(|_| CachePadded::default()).collect())
    }

    pub(super) fn by_worker(&self) -> impl Iterator<Item = &BackendCells> {
        self.0.iter().map(|cells| &**cells)
    }

    /// A number that changes with whatever is recorded, and costs a few loads to know: nothing happened while it stays.
    pub(super) fn activity(&self) -> u64 {
        self.by_worker().fold(0, |sum: u64, cells| {
            let counted = [
                cells.selections.get(),
                cells.judged.get(),
                cells.connects.get(),
                cells.connect_failures.get(),
            ];
            let counted = counted.into_iter().fold(sum, u64::wrapping_add);
            let timed = cells.phases.iter().map(Coarse::total_ns);
            timed.fold(counted, u64::wrapping_add)
        })
    }

    /// Attempts that say something of the backend, over all workers: how many, how many of them failed, and the sum of
    /// their times in microseconds.
    pub fn tally(&self) -> Tally {
        self.by_worker().fold(Tally::default(), |sum, cells| Tally {
            // In the opposite order of counting: no part is ever larger than the whole.
            failed: sum.failed + cells.judged_failed.get(),
            silent: sum.silent + cells.failures.get(),
            attempts: sum.attempts + cells.judged.get(),
            micros: sum.micros + cells.judged_micros.get(),
        })
    }
}

/// What outlier detection compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub attempts: u64,
    pub failed: u64,
    /// Those of the failed ones that got no answer at all.
    pub silent: u64,
    pub micros: u64,
}

/// What belongs to the worker as such.
#[derive(Debug)]
pub(super) struct WorkerCells {
    pub(super) exchanges: Counter,
    pub(super) connections_opened: Counter,
    pub(super) connections_closed: Counter,
    pub(super) panics: Counter,
    pub(super) accept_errors: Counter,
    pub(super) client_aborts: Counter,
    pub(super) connections_refused: Counter,
    /// Own answers, by `Reason as usize`.
    pub(super) reasons: [Counter; Reason::ALL.len()],
}

/// What belongs to one backend.
#[derive(Debug, Default)]
pub(super) struct BackendCells {
    pub(super) selections: Counter,
    pub(super) failures: Counter,
    pub(super) connects: Counter,
    pub(super) connect_failures: Counter,
    /// Attempts after the first of their exchange.
    pub(super) retries: Counter,
    /// Attempts that say something of the backend, those of them that failed, and the time of all of them.
    pub(super) judged: Counter,
    pub(super) judged_failed: Counter,
    pub(super) judged_micros: Counter,
    pub(super) statuses: StatusCodes,
    /// Of attempts that were answered, from their beginning to the last byte.
    pub(super) latency: Fine,
    /// By [`Series`] but for the total.
    pub(super) phases: [Coarse; Series::PHASES.len()],
    pub(super) exemplars: Exemplars,
}

/// What is measured of a backend's exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Series {
    /// From the beginning of an attempt to the answer's last byte.
    Total,
    /// From the beginning of an attempt to the head of its answer.
    FirstByte,
    /// Making a connection; exchanges on idle ones are no samples.
    Connect,
    /// Waiting for a slot of a backend.
    Queue,
    /// What weir itself took: the exchange without all that was waited for others.
    Weir,
    /// Waiting for the client to send its body.
    Upload,
    /// Waiting for the client to take the answer.
    Download,
}

impl Series {
    /// All but the total, in the order of their histograms.
    pub const PHASES: [Series; 6] = [
        Series::FirstByte,
        Series::Connect,
        Series::Queue,
        Series::Weir,
        Series::Upload,
        Series::Download,
    ];

    /// All, the total first.
    pub const ALL: [Series; 7] = [
        Series::Total,
        Series::FirstByte,
        Series::Connect,
        Series::Queue,
        Series::Weir,
        Series::Upload,
        Series::Download,
    ];

    /// The word in metrics and queries.
    pub const fn word(self) -> &'static str {
        match self {
            Series::Total => "total",
            Series::FirstByte => "first_byte",
            Series::Connect => "connect",
            Series::Queue => "queue",
            Series::Weir => "weir",
            Series::Upload => "upload",
            Series::Download => "download",
        }
    }
}

/// The parts of one exchange's time; none: it had no such part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    pub first_byte: Option<Span>,
    pub connect: Option<Span>,
    pub queue: Option<Span>,
    pub weir: Option<Span>,
    pub upload: Option<Span>,
    pub download: Option<Span>,
}

impl Shard {
    /// The shard of worker `number`.
    pub fn new(number: usize) -> Shard {
        Shard {
            worker: CachePadded::new(WorkerCells {
                exchanges: Counter::new(),
                connections_opened: Counter::new(),
                connections_closed: Counter::new(),
                panics: Counter::new(),
                accept_errors: Counter::new(),
                client_aborts: Counter::new(),
                connections_refused: Counter::new(),
                reasons: [const { Counter::new() }; Reason::ALL.len()],
            }),
            number,
            thread: AtomicU64::new(0),
            ring: AtomicI32::new(-1),
            buffer_bytes: AtomicU64::new(0),
        }
    }

    /// The worker's thread is the calling one: the kernel counts its time on a CPU under this id.
    pub fn runs_here(&self) {
        self.thread.store(sys::thread_id(), Ordering::Relaxed);
    }

    /// The worker's ring is this descriptor.
    pub fn has_ring(&self, descriptor: i32) {
        self.ring.store(descriptor, Ordering::Relaxed);
    }

    pub fn ring(&self) -> Option<i32> {
        Some(self.ring.load(Ordering::Relaxed)).filter(|ring| *ring >= 0)
    }

    /// The kernel's id of the worker's thread; 0 before it began.
    pub fn thread(&self) -> u64 {
        self.thread.load(Ordering::Relaxed)
    }

    /// So many bytes of the worker's buffers are in use now.
    pub fn set_buffer_bytes(&self, bytes: usize) {
        self.buffer_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    pub fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes.load(Ordering::Relaxed)
    }

    /// What the worker's thread spent on a CPU; 0 before it began.
    pub fn busy_seconds(&self) -> f64 {
        process::thread_cpu_seconds(self.thread.load(Ordering::Relaxed)).unwrap_or(0.0)
    }

    /// A request was received (requests for weir's own metrics aside).
    #[inline]
    pub fn exchange_received(&self) {
        self.worker.exchanges.add(1);
    }

    /// `backend` was picked; `retry`: after another attempt of the same exchange.
    #[inline]
    pub fn selection(&self, backend: &BackendCounts, retry: bool) {
        if let Some(cells) = self.cells(backend) {
            cells.selections.add(1);
            if retry {
                cells.retries.add(1);
            }
        }
    }

    /// An attempt at `backend` ended `elapsed` after it began: answered with `status`, or failed before there was one.
    ///
    /// Only an answer is a latency sample. A refused connection takes microseconds and would make a dying backend look
    /// fast; failures are counted as such instead. A status that is no three-digit code counts as a failure.
    #[inline]
    pub fn attempt(&self, backend: &BackendCounts, status: Option<u16>, elapsed: Duration) {
        let Some(cells) = self.cells(backend) else {
            return;
        };
        cells.judged.add(1);
        match status {
            Some(status) if cells.statuses.count(status) => cells.latency.record(elapsed),
            _ => cells.failures.add(1),
        }
        cells.judged_micros.add(elapsed.as_micros() as u64);
        if status.is_none_or(|status| status >= 500) {
            cells.judged_failed.add(1);
        }
    }

    /// An exchange is over whose client got `backend`'s answer.
    #[inline]
    pub fn phases(&self, backend: &BackendCounts, phases: &Phases) {
        let Some(cells) = self.cells(backend) else {
            return;
        };
        // One by one: a loop over an array of them costs more than what it counts.
        let record = |series: usize, elapsed: Option<Span>| {
            if let Some(elapsed) = elapsed {
                cells.phases[series].record_nanos(elapsed.as_nanos());
            }
        };
        record(0, phases.first_byte);
        record(1, phases.connect);
        record(2, phases.queue);
        record(3, phases.weir);
        record(4, phases.upload);
        record(5, phases.download);
    }

    /// Keeps a traced exchange as an example of its latency.
    pub fn exemplar(&self, backend: &BackendCounts, exemplar: &Exemplar) {
        if let Some(cells) = self.cells(backend) {
            cells.exemplars.keep(exemplar);
        }
    }

    /// weir answered by itself; the status code follows from `reason`.
    #[inline]
    pub fn own_answer(&self, reason: Reason) {
        self.worker.reasons[reason as usize].add(1);
    }

    /// A client connection was accepted.
    #[inline]
    pub fn connection_opened(&self) {
        self.worker.connections_opened.add(1);
    }

    /// A client connection that was counted as opened is gone.
    #[inline]
    pub fn connection_closed(&self) {
        self.worker.connections_closed.add(1);
    }

    /// A connection's task panicked and was ended.
    pub fn panic_caught(&self) {
        self.worker.panics.add(1);
    }

    /// `accept` failed.
    pub fn accept_error(&self) {
        self.worker.accept_errors.add(1);
    }

    /// A connection was closed at once: its client had as many as it may.
    pub fn connection_refused(&self) {
        self.worker.connections_refused.add(1);
    }

    /// A client went away before its exchange was complete.
    pub fn client_abort(&self) {
        self.worker.client_aborts.add(1);
    }

    /// A connection to `backend` was made, or could not be.
    #[inline]
    pub fn backend_connect(&self, backend: &BackendCounts, ok: bool) {
        if let Some(cells) = self.cells(backend) {
            if ok {
                cells.connects.add(1);
            } else {
                cells.connect_failures.add(1);
            }
        }
    }

    pub(super) fn worker_cells(&self) -> &WorkerCells {
        &self.worker
    }

    /// The number of the worker.
    pub fn number(&self) -> usize {
        self.number
    }

    /// This worker's line of a backend's counters; none if they were made for fewer workers.
    #[inline]
    fn cells<'a>(&self, backend: &'a BackendCounts) -> Option<&'a BackendCells> {
        backend.0.get(self.number).map(|cells| &**cells)
    }
}

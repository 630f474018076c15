//! One worker's counters.
//!
//! # The single-writer rule
//! Every method of [`Shard`] that records may be called by **one thread only**: the worker that the shard belongs to.
//! They take `&self` because the control thread reads the same object through its own `Arc`; a second writer would lose
//! counts silently. Recording is a handful of loads and stores to lines that no other writer touches, plus, the first
//! time that a latency or a status falls into a new range, one allocation.
//!
//! An index past the number of backends is a mistake of the caller; it is asserted in debug builds and ignored in
//! release builds, because counting is not worth a worker.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::cell::Counter;
use super::histogram::Fine;
use super::status::StatusCodes;
use crate::reason::Reason;

/// What one worker counted. See the module's documentation for who may write.
#[derive(Debug)]
pub struct Shard {
    worker: CachePadded<WorkerCells>,
    backends: Box<[CachePadded<BackendCells>]>,
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
    pub(super) statuses: StatusCodes,
    pub(super) latency: Fine,
}

impl Shard {
    /// A shard for one worker and `backends` backends, which are named by their index from here on.
    pub fn new(backends: usize) -> Shard {
        Shard {
            worker: CachePadded::new(WorkerCells {
                exchanges: Counter::new(),
                connections_opened: Counter::new(),
                connections_closed: Counter::new(),
                panics: Counter::new(),
                accept_errors: Counter::new(),
                client_aborts: Counter::new(),
                reasons: [const { Counter::new() }; Reason::ALL.len()],
            }),
            backends: (0..backends).map(|_| CachePadded::default()).collect(),
        }
    }

    /// A request was received (requests for weir's own metrics aside).
    #[inline]
    pub fn exchange_received(&self) {
        self.worker.exchanges.add(1);
    }

    /// `backend` was picked.
    #[inline]
    pub fn selection(&self, backend: usize) {
        if let Some(cells) = self.backend(backend) {
            cells.selections.add(1);
        }
    }

    /// An attempt at `backend` ended `elapsed` after it began: answered with `status`, or failed before there was one.
    ///
    /// Only an answer is a latency sample. A refused connection takes microseconds and would make a dying backend look
    /// fast; failures are counted as such instead. A status that is no three-digit code counts as a failure.
    #[inline]
    pub fn attempt(&self, backend: usize, status: Option<u16>, elapsed: Duration) {
        let Some(cells) = self.backend(backend) else {
            return;
        };
        match status {
            Some(status) if cells.statuses.count(status) => cells.latency.record(elapsed),
            _ => cells.failures.add(1),
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

    /// A client went away before its exchange was complete.
    pub fn client_abort(&self) {
        self.worker.client_aborts.add(1);
    }

    /// A connection to `backend` was made, or could not be.
    #[inline]
    pub fn backend_connect(&self, backend: usize, ok: bool) {
        if let Some(cells) = self.backend(backend) {
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

    /// The cells of one backend; none if this shard was made for fewer.
    pub(super) fn backend_cells(&self, backend: usize) -> Option<&BackendCells> {
        self.backends.get(backend).map(|cells| &**cells)
    }

    #[inline]
    fn backend(&self, backend: usize) -> Option<&BackendCells> {
        debug_assert!(
            backend < self.backends.len(),
            "backend {backend} of {}",
            self.backends.len()
        );
        self.backend_cells(backend)
    }
}

//! Connections to one backend by worker: gauges that only their worker writes, for the admin API.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// One worker's gauges of one backend.
#[derive(Debug, Default)]
struct Gauge {
    open: AtomicU64,
    idle: AtomicU64,
}

/// Every worker's gauges of one backend.
#[derive(Debug)]
pub struct Gauges(Box<[CachePadded<Gauge>]>);

impl Gauges {
    pub fn new(workers: usize) -> Self {
        Gauges((0..workers).map(|_| CachePadded::default()).collect())
    }

    /// A connection was opened (or closed). Called by that worker alone.
    pub fn opened(&self, worker: usize, by: i64) {
        if let Some(gauge) = self.0.get(worker) {
            let open = gauge.open.load(Ordering::Relaxed).saturating_add_signed(by);
            gauge.open.store(open, Ordering::Relaxed);
        }
    }

    /// So many wait for an exchange. Called by that worker alone, now and then.
    pub fn set_idle(&self, worker: usize, idle: usize) {
        if let Some(gauge) = self.0.get(worker) {
            gauge.idle.store(idle as u64, Ordering::Relaxed);
        }
    }

    /// Open and idle connections, worker 0 first.
    pub fn by_worker(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|gauge| {
            (
                gauge.open.load(Ordering::Relaxed),
                gauge.idle.load(Ordering::Relaxed),
            )
        })
    }
}

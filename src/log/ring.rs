//! What the threads that log and the writer share: a ring per thread, the levels, the count of drops, and the bell.
//!
//! Rings and bell are those of [`super::lane`].

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use tracing::Metadata;
use tracing::level_filters::LevelFilter;

use super::lane::{Bell, Lane};
use super::levels::{Filter, Levels};
use super::line::{Line, Style};
use crate::config::model::Level;

/// Lines that a thread may be ahead of the writer: at its pace of looking, 200,000 a second.
pub(super) const CAPACITY: usize = 2048;
/// Empty buffers kept for a thread.
const SPARE: usize = 512;
/// A buffer that a long line made larger than this is not kept.
const SPARE_BYTES: usize = 1024;

/// Identifies a [`Shared`] among those of one process: tests have several.
static NEXT_ID: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static WORKER: Cell<Option<usize>> = const { Cell::new(None) };
    /// This thread's ring, and the id of the log that it belongs to.
    static RING: RefCell<Option<(usize, Arc<Ring>)>> = const { RefCell::new(None) };
}

/// A line on its way. `text` lacks its end, see [`Line::end`].
pub(super) struct Entry {
    pub(super) at: SystemTime,
    pub(super) text: Vec<u8>,
    /// Unresolved: finding the symbols takes milliseconds, which the writer has and a worker has not.
    pub(super) backtrace: Option<Box<Backtrace>>,
}

/// One thread's lines.
pub(super) type Ring = Lane<Entry>;

/// One log: see the module's documentation.
pub(super) struct Shared {
    id: usize,
    pub(super) style: Style,
    filter: Filter,
    rings: Mutex<Vec<Arc<Ring>>>,
    dropped: AtomicU64,
    pub(super) bell: Bell,
}

/// Names the calling thread as worker `worker` in what it logs, and makes its ring, so that the first line costs no
/// lock. To be called once, when the thread starts.
pub fn register_worker(worker: usize) {
    WORKER.set(Some(worker));
    if let Some(shared) = super::GLOBAL.get() {
        let _ = RING.try_with(|ring| *ring.borrow_mut() = Some((shared.id, shared.new_ring())));
    }
}

impl Shared {
    pub(super) fn new(levels: &Levels, style: Style) -> Shared {
        Shared {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            style,
            filter: Filter::new(levels),
            rings: Mutex::new(Vec::new()),
            dropped: AtomicU64::new(0),
            bell: Bell::default(),
        }
    }

    /// Whether lines of this level and origin are wanted.
    pub(super) fn wants(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.wants(metadata.target(), level_of(metadata.level()))
    }

    pub(super) fn level_filter(&self) -> LevelFilter {
        match self.filter.most() {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        }
    }

    pub(super) fn levels(&self) -> Levels {
        self.filter.get()
    }

    /// Places that logged before notice it only after `tracing::callsite::rebuild_interest_cache`.
    pub(super) fn set_levels(&self, levels: &Levels) {
        self.filter.set(levels);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn count_dropped(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// Puts a line into the calling thread's ring, or counts it as dropped; never waits. `fill` adds message and fields.
    pub(super) fn log(
        self: &Arc<Self>,
        level: Level,
        target: &str,
        backtrace: Option<Box<Backtrace>>,
        fill: impl FnOnce(&mut Line<'_>),
    ) {
        let Some(ring) = self.ring() else {
            return self.count_dropped(1);
        };
        // Before formatting: what is dropped should cost nothing.
        if ring.is_full() {
            return self.count_dropped(1);
        }
        let at = SystemTime::now();
        let mut text = ring.buffer();
        let mut line = Line::begin(&mut text, &self.style, at, level, target);
        fill(&mut line);
        let worker = WORKER.try_with(Cell::get).ok().flatten();
        line.labels(worker, thread::current().name());
        if !ring.push(Entry { at, text, backtrace }) {
            self.count_dropped(1);
        }
        self.bell.ring();
    }

    /// The calling thread's ring, made on first use. None while the thread's locals are being destroyed.
    fn ring(&self) -> Option<Arc<Ring>> {
        RING.try_with(|slot| {
            if let Some((id, ring)) = &*slot.borrow()
                && *id == self.id
            {
                return Arc::clone(ring);
            }
            let ring = self.new_ring();
            *slot.borrow_mut() = Some((self.id, Arc::clone(&ring)));
            ring
        })
        .ok()
    }

    fn new_ring(&self) -> Arc<Ring> {
        let ring = Arc::new(Ring::new(CAPACITY, SPARE, SPARE_BYTES));
        self.rings().push(Arc::clone(&ring));
        ring
    }

    /// The rings of all threads. Held by the writer while it collects, and by a thread once, for its first line.
    pub(super) fn rings(&self) -> MutexGuard<'_, Vec<Arc<Ring>>> {
        // Nothing that holds the lock can leave the list half changed.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn level_of(level: &tracing::Level) -> Level {
    match *level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

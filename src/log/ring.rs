//! What the threads that log and the writer share: a ring per thread, the level, the count of drops, and the bell.
//!
//! A ring has one producer, the thread that it belongs to, and one consumer, the writer. Buffers go round: the writer
//! puts an emptied one back for the next line, so that a thread that keeps logging does not keep allocating.
//!
//! # The bell
//! While lines keep coming the writer looks by itself every few milliseconds and nobody wakes it. Only before a longer
//! sleep it raises `asleep`; the first line after that finds the flag, takes it down and unparks the writer: one system
//! call for a transition from silence, none per line. Flag and rings are accessed with sequential consistency, so either
//! the writer sees the line before it sleeps or the thread sees the flag.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::SystemTime;

use crossbeam_queue::ArrayQueue;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;

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
pub(super) struct Ring {
    entries: ArrayQueue<Entry>,
    spare: ArrayQueue<Vec<u8>>,
}

/// One log: see the module's documentation.
pub(super) struct Shared {
    id: usize,
    pub(super) style: Style,
    level: AtomicU8,
    rings: Mutex<Vec<Arc<Ring>>>,
    dropped: AtomicU64,
    asleep: AtomicBool,
    stop: AtomicBool,
    writer: OnceLock<Thread>,
}

/// Names the calling thread as worker `worker` in what it logs, and makes its ring, so that the first line costs no
/// lock. To be called once, when the thread starts.
pub fn register_worker(worker: usize) {
    WORKER.set(Some(worker));
    if let Some(shared) = super::GLOBAL.get() {
        let _ = RING.try_with(|ring| *ring.borrow_mut() = Some((shared.id, shared.new_ring())));
    }
}

impl Ring {
    fn new() -> Ring {
        Ring {
            entries: ArrayQueue::new(CAPACITY),
            spare: ArrayQueue::new(SPARE),
        }
    }

    pub(super) fn pop(&self) -> Option<Entry> {
        self.entries.pop()
    }

    /// Takes a buffer back for the next line.
    pub(super) fn recycle(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= SPARE_BYTES {
            buffer.clear();
            // One too many is freed.
            let _ = self.spare.push(buffer);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Shared {
    pub(super) fn new(level: Level, style: Style) -> Shared {
        Shared {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            style,
            level: AtomicU8::new(rank(level)),
            rings: Mutex::new(Vec::new()),
            dropped: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            writer: OnceLock::new(),
        }
    }

    /// Whether lines of this level and origin are wanted. Other crates are heard from `warn` on only.
    pub(super) fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target == "weir" || target.starts_with("weir::");
        let rank = rank(level_of(metadata.level()));
        rank <= self.level.load(Ordering::Relaxed) && (ours || rank <= self::rank(Level::Warn))
    }

    pub(super) fn level_filter(&self) -> LevelFilter {
        match self.level.load(Ordering::Relaxed) {
            0 => LevelFilter::ERROR,
            1 => LevelFilter::WARN,
            2 => LevelFilter::INFO,
            3 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }

    pub(super) fn set_level(&self, level: Level) {
        self.level.store(rank(level), Ordering::Relaxed);
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
        if ring.entries.is_full() {
            return self.count_dropped(1);
        }
        let at = SystemTime::now();
        let mut text = ring.spare.pop().unwrap_or_default();
        let mut line = Line::begin(&mut text, &self.style, at, level, target);
        fill(&mut line);
        let worker = WORKER.try_with(Cell::get).ok().flatten();
        line.labels(worker, thread::current().name());
        if ring.entries.push(Entry { at, text, backtrace }).is_err() {
            self.count_dropped(1);
        }
        self.ring_bell();
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
        let ring = Arc::new(Ring::new());
        self.rings().push(Arc::clone(&ring));
        ring
    }

    /// The rings of all threads. Held by the writer while it collects, and by a thread once, for its first line.
    pub(super) fn rings(&self) -> MutexGuard<'_, Vec<Arc<Ring>>> {
        // Nothing that holds the lock can leave the list half changed.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring_bell(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Says which thread to wake. Called by the writer, first.
    pub(super) fn set_writer(&self, writer: Thread) {
        let _ = self.writer.set(writer);
    }

    /// The writer announces that it will sleep until called; it must look at the rings once more after this.
    pub(super) fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// Tells the writer to write what is there and to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// The worse, the lower.
const fn rank(level: Level) -> u8 {
    match level {
        Level::Error => 0,
        Level::Warn => 1,
        Level::Info => 2,
        Level::Debug => 3,
        Level::Trace => 4,
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

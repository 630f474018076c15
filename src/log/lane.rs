//! What a thread that must not wait and a writer that may share: a bounded lane of entries for each producer, and a bell.
//!
//! A lane has one producer, the thread that it belongs to, and one consumer, the writer. Buffers go round: the writer
//! puts an emptied one back for the next line, so that a thread that keeps logging does not keep allocating.
//!
//! # The bell
//! While lines keep coming the writer looks by itself every few milliseconds and nobody wakes it. Only before a longer
//! sleep it raises `asleep`; the first line after that finds the flag, takes it down and unparks the writer: one system
//! call for a transition from silence, none per line. Flag and lanes are accessed with sequential consistency, so either
//! the writer sees the line before it sleeps or the thread sees the flag.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

/// How often a writer looks while lines keep coming.
const POLL: Duration = Duration::from_millis(10);
/// After so many looks that found nothing it waits to be called.
const QUIET_POLLS: u32 = 20;
/// How long it then sleeps at most.
const SLEEP: Duration = Duration::from_secs(1);

/// One thread's entries.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    entries: ArrayQueue<T>,
    spare: ArrayQueue<Vec<u8>>,
    /// A buffer that a long line made larger than this is not kept.
    spare_bytes: usize,
}

impl<T> Lane<T> {
    /// For `capacity` entries. `spare` buffers of up to `spare_bytes` are kept for further ones: as many as there are lines
    /// between two looks of the writer, or a busy thread allocates.
    pub(crate) fn new(capacity: usize, spare: usize, spare_bytes: usize) -> Lane<T> {
        Lane {
            entries: ArrayQueue::new(capacity),
            spare: ArrayQueue::new(spare),
            spare_bytes,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.is_full()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An empty buffer for the next line.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        // An ordinary line fits at once.
        self.spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(self.spare_bytes / 4))
    }

    /// False: there is no room.
    pub(crate) fn push(&self, entry: T) -> bool {
        self.entries.push(entry).is_ok()
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.entries.pop()
    }

    /// Takes a buffer back for the next line.
    pub(crate) fn recycle(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= self.spare_bytes {
            buffer.clear();
            // One too many is freed.
            let _ = self.spare.push(buffer);
        }
    }
}

/// Wakes the writer, seldom.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    asleep: AtomicBool,
    stop: AtomicBool,
    writer: OnceLock<Thread>,
}

impl Bell {
    /// After an entry was pushed.
    #[inline]
    pub(crate) fn ring(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    pub(crate) fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Says which thread to wake. Called once, when there is one.
    pub(crate) fn set_writer(&self, writer: Thread) {
        let _ = self.writer.set(writer);
    }

    /// Tells the writer to write what is there and to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    /// The writer's life: `turn` collects and writes, and says whether there was anything; `nothing_waits` looks again
    /// before a sleep. Returns when it was told to stop and has collected once more.
    pub(crate) fn serve(&self, mut turn: impl FnMut() -> bool, nothing_waits: impl Fn() -> bool) {
        let mut quiet = 0;
        loop {
            // Read before collecting, so that what was logged before the stop is collected.
            let stopped = self.stopped();
            let busy = turn();
            if stopped {
                return;
            }
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet < QUIET_POLLS {
                thread::park_timeout(POLL);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            if nothing_waits() && !self.stopped() {
                thread::park_timeout(SLEEP);
            }
            self.asleep.store(false, Ordering::SeqCst);
        }
    }
}

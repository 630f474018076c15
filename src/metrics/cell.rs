//! The single-writer cell that everything in a shard is made of.
//!
//! A cell has exactly one writing thread, so adding is a load and a store, never a read-modify-write: no locked
//! instruction, no cache line fought for. Any thread may read. A second writer would lose counts (never memory safety);
//! that is the rule which [`super::shard`] states once for all of its methods.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that only grows. 2⁶⁴ is out of reach for events and for microseconds of sums.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at zero.
    pub const fn new() -> Counter {
        Counter(AtomicU64::new(0))
    }

    /// Adds `n`. Only the thread that owns the cell may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        // Release costs nothing on x86 and lets a reader order two counters of one writer, as the gauge of open
        // connections needs.
        self.0
            .store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    /// Raises the value to `n` if it is below. Only the thread that owns the cell may call this.
    #[inline]
    pub fn raise_to(&self, n: u64) {
        if n > self.0.load(Ordering::Relaxed) {
            self.0.store(n, Ordering::Release);
        }
    }

    /// The value now. A thread that reads repeatedly never sees it go back.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

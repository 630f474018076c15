//! How many attempts of late failed: a sliding window that all workers count in.
//!
//! Ten buckets of a tenth of the window each, so that what is counted is between nine tenths of the window and all of
//! it. A bucket is one word: which tenth it is of (24 bits), attempts (20), failures (20). A bucket that is full counts
//! no more, which keeps its share. Whoever comes first in a new tenth replaces what the bucket held.

use std::time::Duration;

use super::sync::{AtomicU64, Ordering};
use crate::clock::Millis;

const BUCKETS: u64 = 10;
const COUNT_BITS: u32 = 20;
const COUNTS: u64 = (1 << COUNT_BITS) - 1;
const STAMP_AT: u32 = 2 * COUNT_BITS;
const STAMPS: u64 = (1 << (u64::BITS - STAMP_AT)) - 1;

/// Attempts and failures within one window. All callers must name the same window; after a change of it (a reload) the
/// counts are wrong for as long as a window.
#[derive(Debug, Default)]
pub(super) struct Window {
    buckets: [AtomicU64; BUCKETS as usize],
}

/// What a window held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub attempts: u64,
    pub failures: u64,
}

impl Window {
    /// Counts one attempt.
    pub fn record(&self, failed: bool, now: Millis, window: Duration) {
        let tenth = Self::tenth(now, window);
        let Some(bucket) = self.buckets.get((tenth % BUCKETS) as usize) else {
            return;
        };
        let failed = u64::from(failed);
        let _full = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            if word >> STAMP_AT != tenth & STAMPS {
                return Some((tenth & STAMPS) << STAMP_AT | 1 << COUNT_BITS | failed);
            }
            (word >> COUNT_BITS & COUNTS < COUNTS).then_some(word + (1 << COUNT_BITS) + failed)
        });
    }

    /// What was counted within the window that ends now.
    pub fn read(&self, now: Millis, window: Duration) -> Counted {
        let tenth = Self::tenth(now, window);
        let mut counted = Counted::default();
        for bucket in &self.buckets {
            let word = bucket.load(Ordering::Relaxed);
            let age = tenth.wrapping_sub(word >> STAMP_AT) & STAMPS;
            if age < BUCKETS {
                counted.attempts += word >> COUNT_BITS & COUNTS;
                counted.failures += word & COUNTS;
            }
        }
        counted
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    fn tenth(now: Millis, window: Duration) -> u64 {
        let width = u64::try_from(window.as_millis() / u128::from(BUCKETS)).unwrap_or(u64::MAX);
        now.0 / width.max(1)
    }
}

//! Round robin: one cursor that all workers share, one step a pick.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::pick::{Local, Pick};

/// Exact while the same backends are eligible: any window of n × k first attempts gives each of n backends k, give or
/// take one a worker.
#[derive(Debug, Default)]
pub struct RoundRobin {
    cursor: CachePadded<AtomicUsize>,
}

impl RoundRobin {
    /// The next candidate in turn. A retry takes nobody's turn: it is drawn.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        let count = pick.candidates.count();
        if count == 0 {
            return None;
        }
        let turn = if pick.candidates.is_retry() {
            local.random.usize(..count)
        } else {
            self.cursor.fetch_add(1, Ordering::Relaxed) % count
        };
        // Between the count and the look at the bits somebody may have left.
        pick.candidates.nth(turn).or_else(|| pick.candidates.nth(0))
    }
}

//! Round robin: one cursor that all workers share, one step a pick.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// Exact while everybody is eligible: any window of n × k picks gives each of n backends k, give or take one a worker.
#[derive(Debug, Default)]
pub struct RoundRobin {
    cursor: CachePadded<AtomicUsize>,
}

impl RoundRobin {
    /// The next backend in turn; one that is not eligible leaves its turn to the next that is.
    pub fn pick(&self, backends: usize, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        if backends == 0 {
            return None;
        }
        let turn = self.cursor.fetch_add(1, Ordering::Relaxed) % backends;
        (turn..backends).chain(0..turn).find(|&index| eligible(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_is_exact() {
        let strategy = RoundRobin::default();
        let mut counts = [0; 3];
        for _ in 0..3 * 7 {
            counts[strategy.pick(3, |_| true).expect("all are eligible")] += 1;
        }
        assert_eq!(counts, [7; 3]);
    }

    #[test]
    fn who_is_not_eligible_is_passed_over() {
        let strategy = RoundRobin::default();
        let picks: Vec<_> = (0..4).map(|_| strategy.pick(3, |index| index != 1)).collect();
        assert_eq!(picks, [Some(0), Some(2), Some(2), Some(0)]);
        assert_eq!(strategy.pick(3, |_| false), None);
        assert_eq!(strategy.pick(0, |_| true), None);
    }

    #[test]
    fn two_threads_share_the_turns() {
        let strategy = RoundRobin::default();
        let counts: [AtomicUsize; 4] = Default::default();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..4000 {
                        let index = strategy.pick(4, |_| true).expect("all are eligible");
                        counts[index].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 2000));
    }
}

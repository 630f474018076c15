//! Round robin: one cursor that all workers share, one step a pick.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::explain::Outlook;
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

    /// What [`Self::pick`] would come to.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let order: Vec<usize> = pick.candidates.iter().collect();
        let outlook = Outlook::new(pick, "those that may be chosen take turns, over all workers");
        if pick.candidates.is_retry() {
            outlook.draw_alike(pick, &order)
        } else {
            outlook.take_turns(pick, &order, self.cursor.load(Ordering::Relaxed))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::super::liveness::{Bitmap, Candidates};
    use super::super::testing::{Bench, chi_square, members};
    use super::*;
    use crate::clock::Millis;

    #[test]
    fn a_retry_is_drawn_and_takes_nobodys_turn() {
        let mut bench = Bench::new(&[1; 4]);
        let strategy = RoundRobin::default();
        assert_eq!(bench.picks(2, |pick, local| strategy.pick(pick, local)), [0, 1]);
        bench.tried = vec![1];
        let counts = bench.counts(30_000, |pick, local| strategy.pick(pick, local));
        chi_square(&counts, &[1.0, 0.0, 1.0, 1.0]);
        bench.tried.clear();
        assert_eq!(
            bench.picks(3, |pick, local| strategy.pick(pick, local)),
            [2, 3, 0]
        );
    }

    /// The picks of two workers at once, while another thread may take the last backend out and in.
    fn two_workers(eligible: &Bitmap, picks: usize, flips: usize) -> Vec<usize> {
        let members = members(&vec![1; eligible.len()]);
        let strategy = RoundRobin::default();
        let start = Barrier::new(3);
        let worker = || {
            start.wait();
            let mut local = Local::new(1);
            let choose = |_| {
                let pick = Pick {
                    members: &members,
                    candidates: Candidates::new(eligible, &[]),
                    now: Millis(0),
                    key: None,
                    slow_start: None,
                };
                strategy
                    .pick(&pick, &mut local)
                    .expect("somebody is eligible all the time")
            };
            (0..picks).map(choose).collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let workers = [scope.spawn(worker), scope.spawn(worker)];
            start.wait();
            (0..flips).for_each(|at| eligible.set(eligible.len() - 1, at % 3 == 0));
            let mut counts = vec![0; eligible.len()];
            for worker in workers {
                worker
                    .join()
                    .unwrap()
                    .into_iter()
                    .for_each(|index| counts[index] += 1);
            }
            counts
        })
    }

    #[test]
    fn workers_share_the_turns_exactly() {
        let eligible = Bitmap::new(8, true);
        eligible.set(3, false);
        let counts = two_workers(&eligible, 35_000, 0);
        assert_eq!(
            counts,
            [10_000, 10_000, 10_000, 0, 10_000, 10_000, 10_000, 10_000]
        );
    }

    #[test]
    fn somebody_is_chosen_at_every_pick_while_others_come_and_go() {
        let eligible = Bitmap::new(130, false);
        [2, 129].into_iter().for_each(|at| eligible.set(at, true));
        let counts = two_workers(&eligible, 100_000, 300_000);
        assert_eq!(counts.iter().sum::<usize>(), 200_000);
        assert_eq!(counts[2] + counts[129], 200_000);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_window_is_exact_over_those_eligible(
            up in prop::collection::vec(any::<bool>(), 1..200),
            skip in 0usize..500,
            rounds in 1usize..5,
        ) {
            let n = up.iter().filter(|up| **up).count();
            prop_assume!(n > 0);
            let mut bench = Bench::new(&vec![1; up.len()]);
            up.iter().enumerate().for_each(|(at, up)| bench.eligible.set(at, *up));
            let strategy = RoundRobin::default();
            bench.picks(skip, |pick, local| strategy.pick(pick, local));
            let counts = bench.counts(n * rounds, |pick, local| strategy.pick(pick, local));
            for (count, up) in counts.into_iter().zip(up) {
                prop_assert_eq!(count, if up { rounds } else { 0 });
            }
        }
    }
}

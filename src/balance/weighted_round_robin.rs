//! Weighted round robin: turns in proportion to the weights, without bursts.
//!
//! Take it where backends are of different and known sizes. The schedule is worked out when the pool is made and only read
//! by picks: a weight that picks change, as in nginx's smooth variant, cannot be shared by workers without a lock. At no
//! point of a cycle has anybody had a turn more or less than its share so far, so 5:1:1 comes as A A A B A A C, and no
//! order of these has shorter runs of A.
//!
//! A cycle is as long as the sum of the weights after division by their greatest common divisor. Beyond 65,536 turns it is
//! rounded to that, by largest remainders, at least one turn each.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::draw::Weights;
use super::explain::{Figure, Outlook};
use super::pick::{Local, Member, Pick};
use super::schedule::{quantise, spread};

/// Turns of one cycle.
const MAX_TURNS: usize = 65_536;

/// Turns of others that one pick may pass over; after that it is drawn.
const MAX_SKIPS: usize = 32;

/// Exact over a cycle while the same backends are eligible. The turn of one that is not is passed over, so that the others
/// share it by weight.
#[derive(Debug)]
pub struct WeightedRoundRobin {
    cursor: CachePadded<AtomicUsize>,
    turns: Box<[u16]>,
    weights: Weights,
}

impl WeightedRoundRobin {
    pub fn new(members: &[Member]) -> Self {
        let weights: Vec<u16> = members.iter().map(|member| member.weight).collect();
        let divisor = weights.iter().copied().fold(0, gcd).max(1);
        let sum: usize = weights.iter().map(|&weight| usize::from(weight / divisor)).sum();
        let counts = if sum <= MAX_TURNS {
            weights
                .iter()
                .map(|&weight| u32::from(weight / divisor))
                .collect()
        } else {
            quantise(&weights, MAX_TURNS)
        };
        WeightedRoundRobin {
            cursor: CachePadded::default(),
            turns: spread(&counts).into(),
            weights: Weights::new(members),
        }
    }

    /// The next candidate in turn. A retry takes nobody's turn: it is drawn by weight.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        if !pick.candidates.is_retry() && !self.turns.is_empty() {
            for _ in 0..MAX_SKIPS {
                let turn = self.cursor.fetch_add(1, Ordering::Relaxed) % self.turns.len();
                let index = usize::from(*self.turns.get(turn)?);
                if pick.candidates.contains(index) {
                    return Some(index);
                }
            }
        }
        self.weights.draw(&pick.candidates, &mut local.random)
    }

    /// What [`Self::pick`] would come to.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let mut outlook = Outlook::new(
            pick,
            "turns as many as the weights say, spread evenly, over all workers",
        );
        let cursor = self.cursor.load(Ordering::Relaxed);
        let mut away = vec![None; pick.members.len()];
        let mut left = pick.candidates.count();
        let turns = self.turns.iter().cycle().skip(cursor % self.turns.len().max(1));
        for (turn, &index) in turns.take(self.turns.len()).enumerate() {
            let Some(slot) = away.get_mut(usize::from(index)) else {
                continue;
            };
            if slot.is_none() && pick.candidates.contains(usize::from(index)) {
                *slot = Some(turn);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        let turns = away.iter().enumerate();
        let turns = turns.filter_map(|(index, away)| Some(((*away)?, index)));
        turns.clone().for_each(|(away, index)| {
            outlook.figure(index, "turns_away", Figure::Count(away as u64));
        });
        match turns.min().filter(|(away, _)| *away < MAX_SKIPS) {
            Some((_, next)) if !pick.candidates.is_retry() => {
                outlook.add(next, 1.0);
                outlook.because(
                    pick,
                    ["its turn is the next", "", "others have their turn before"],
                )
            }
            _ => {
                "drawn by weight: it is a retry, or so many of those before are out that the turn is given up"
                    .clone_into(&mut outlook.how);
                outlook.share(1.0, &self.weights.shares(&pick.candidates));
                outlook.because(
                    pick,
                    ["nobody else is left", "drawn by weight", "it has no weight"],
                )
            }
        }
    }
}

fn gcd(one: u16, other: u16) -> u16 {
    if other == 0 { one } else { gcd(other, one % other) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::Bench;
    use super::*;

    fn order(weights: &[u16], picks: usize) -> Vec<usize> {
        let mut bench = Bench::new(weights);
        let strategy = WeightedRoundRobin::new(&bench.members);
        bench.picks(picks, |pick, local| strategy.pick(pick, local))
    }

    #[test]
    fn a_heavy_one_comes_without_bursts() {
        assert_eq!(order(&[5, 1, 1], 14), [0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(order(&[10, 10, 10], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(order(&[0, 3], 3), [1, 1, 1]);
        for weights in [[5, 1, 1], [7, 2, 1], [65_535, 65_535, 1], [1000, 3, 500]] {
            let order = order(&weights, 140_000);
            for (at, &weight) in weights.iter().enumerate() {
                let runs = order.split(|&index| index != at).map(<[_]>::len);
                let others = weights.iter().map(|&weight| f64::from(weight)).sum::<f64>() - f64::from(weight);
                let forced = f64::from(weight) / others;
                let longest = runs.max().unwrap_or(0) as f64;
                assert!(
                    longest <= forced.ceil() + 2.0,
                    "{weights:?}: {longest} of {at} in a row"
                );
            }
        }
    }

    #[test]
    fn who_is_out_is_passed_over_and_the_others_share_its_turns_by_weight() {
        let mut bench = Bench::new(&[5, 1, 3, 2]);
        let strategy = WeightedRoundRobin::new(&bench.members);
        bench.eligible.set(0, false);
        let counts = bench.counts(600, |pick, local| strategy.pick(pick, local));
        assert_eq!(counts, [0, 100, 300, 200]);
    }

    #[test]
    fn the_last_one_is_found_behind_any_number_of_others_turns() {
        let mut bench = Bench::new(&[65_535, 1]);
        let strategy = WeightedRoundRobin::new(&bench.members);
        bench.eligible.set(0, false);
        let counts = bench.counts(100, |pick, local| strategy.pick(pick, local));
        assert_eq!(counts, [0, 100]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn cycles_are_exact_and_windows_are_near(
            weights in prop::collection::vec(prop_oneof![0u16..8, 0u16..500], 1..20),
            skip in 0usize..1_000,
            window in 1usize..1_000,
        ) {
            let sum: usize = weights.iter().map(|&weight| usize::from(weight)).sum();
            prop_assume!(sum > 0);
            let order = order(&weights, (sum + skip).max(skip + window));
            for (at, &weight) in weights.iter().enumerate() {
                let count = |picks: &[usize]| picks.iter().filter(|&&index| index == at).count();
                prop_assert_eq!(count(&order[skip..skip + sum]), usize::from(weight));
                let ideal = window as f64 * f64::from(weight) / sum as f64;
                let had = count(&order[skip..skip + window]) as f64;
                prop_assert!((had - ideal).abs() < 2.0, "{had} of {ideal} for {at} of {weights:?}");
            }
        }
    }
}

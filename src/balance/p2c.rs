//! Power of two choices (Mitzenmacher 2001): two different backends are drawn, and the one with less in flight over its
//! weight is taken.
//!
//! Nearly as even as looking at all, in constant time, and without the herds that form where many balancers all see the
//! same least loaded backend. Take it for large pools and wherever in doubt.
//!
//! The first is drawn by weight, the second uniformly among the others. With both drawn uniformly a backend would be seen
//! by two picks of n at most, and one of ten that should have half of the traffic could never get it. While both are idle
//! there is nothing to compare, and the first stays: so light traffic is spread by weight.

use super::draw::Weights;
use super::pick::{Local, Member, Pick};

#[derive(Debug)]
pub struct P2c {
    weights: Weights,
}

impl P2c {
    pub fn new(members: &[Member]) -> Self {
        P2c {
            weights: Weights::new(members),
        }
    }

    /// The lighter of two candidates; the only one if there is one.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        let first = self.weights.draw(&pick.candidates, &mut local.random)?;
        let Some(second) = self
            .weights
            .draw_other(&pick.candidates, first, &mut local.random)
        else {
            return Some(first);
        };
        if pick.in_flight(first) == 0 && pick.in_flight(second) == 0 {
            let stays = pick.slow_start.is_none() || local.random.f32() < pick.ramp(first);
            return Some(if stays { first } else { second });
        }
        Some(if pick.load(second) < pick.load(first) {
            second
        } else {
            first
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::testing::{Bench, chi_square};
    use super::*;

    #[test]
    fn two_different_ones_are_compared() {
        let mut bench = Bench::new(&[1; 3]);
        let p2c = P2c::new(&bench.members);
        // With three, whoever has the most in flight loses against any other.
        bench.begin(1, 5);
        let counts = bench.counts(10_000, |pick, local| p2c.pick(pick, local));
        assert_eq!(counts[1], 0);
        // With two, it is always the lighter one.
        bench.eligible.set(0, false);
        let counts = bench.counts(1_000, |pick, local| p2c.pick(pick, local));
        assert_eq!(counts, [0, 0, 1_000]);
        // The only one is taken, whatever it has.
        bench.eligible.set(2, false);
        assert_eq!(bench.pick(|pick, local| p2c.pick(pick, local)), Some(1));
    }

    #[test]
    fn every_pair_comes_as_often() {
        let mut bench = Bench::new(&[1; 70]);
        let p2c = P2c::new(&bench.members);
        let busy: HashSet<usize> = (0..35).collect();
        busy.iter().for_each(|&at| bench.begin(at, 1));
        let counts = bench.counts(70_000, |pick, local| p2c.pick(pick, local));
        // A busy one is chosen when both are: 35 × 34 of 70 × 69 pairs.
        let both = 35.0 * 34.0 / (70.0 * 69.0);
        let expected: Vec<f64> = (0..70)
            .map(|at| if busy.contains(&at) { both } else { 1.0 - both })
            .collect();
        chi_square(&counts, &expected);
    }

    #[test]
    fn idle_or_busy_shares_follow_the_weights() {
        let weights = [10, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        let mut bench = Bench::new(&weights);
        let p2c = P2c::new(&bench.members);
        let idle = bench.counts(100_000, |pick, local| p2c.pick(pick, local));
        chi_square(&idle, &weights.map(f64::from));
        // 57 under way, each ending at random: the heavy one holds about its 10 of 19.
        let held = bench.closed_loop(57, 100_000, |pick, local| p2c.pick(pick, local));
        assert!((0.45..0.6).contains(&held[0]), "{held:?}");
    }
}

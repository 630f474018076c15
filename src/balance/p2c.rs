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
use super::explain::{Figure, Outlook};
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

    /// What [`Self::pick`] would come to.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let mut outlook = Outlook::new(
            pick,
            "two are drawn, the first by weight, and the one with less in flight over its weight is taken; \
             the first where both are idle",
        );
        let shares = self.weights.shares(&pick.candidates);
        let total: f64 = shares.iter().map(|(_, share)| share).sum();
        let drawn: Vec<Drawn> = shares
            .iter()
            .map(|&(index, share)| Drawn {
                index,
                first: share / total,
                load: pick.load(index),
                idle: pick.in_flight(index) == 0,
                stays: f64::from(pick.ramp(index)),
            })
            .collect();
        let (all, busy) = (Field::new(&drawn, |_| true), Field::new(&drawn, |one| !one.idle));
        let idle = drawn.iter().filter(|one| one.idle);
        let (idle_count, gives_way) = idle.fold((0.0, 0.0), |(count, sum), one| {
            (count + 1.0, sum + one.first * (1.0 - one.stays))
        });
        let others = (drawn.len() as f64 - 1.0).max(1.0);
        for one in &drawn {
            // Whom it beats as the first, and with which probability a first that it beats as the second is drawn.
            let (beaten, beats) = if drawn.len() == 1 {
                (1.0, 0.0)
            } else if one.idle {
                let busy_beaten = busy.as_heavy(one.load);
                let own = one.first * (1.0 - one.stays);
                (
                    busy_beaten + (idle_count - 1.0) * one.stays,
                    busy.heavier(one.load) + gives_way - own,
                )
            } else {
                (all.as_heavy(one.load) - 1.0, all.heavier(one.load))
            };
            outlook.figure(one.index, "load", Figure::Number(one.load.into()));
            outlook.figure(one.index, "drawn_first", Figure::Number(one.first));
            outlook.figure(
                one.index,
                "lighter_than",
                Figure::Count(all.lighter_than(one.load)),
            );
            outlook.add(one.index, (one.first * beaten + beats) / others);
        }
        outlook.because(
            pick,
            [
                "it wins against any other",
                "it may be one of the two that are drawn",
                "it loses against any other",
            ],
        )
    }
}

/// One candidate, as the first that is drawn.
struct Drawn {
    index: usize,
    first: f64,
    load: f32,
    idle: bool,
    /// With which probability it stays the choice against another idle one.
    stays: f64,
}

/// Loads in order, with what lies above each.
struct Field {
    loads: Vec<f32>,
    /// The sum of the chances to be drawn first, from each position on.
    above: Vec<f64>,
}

impl Field {
    fn new(drawn: &[Drawn], belongs: impl Fn(&Drawn) -> bool) -> Field {
        let mut sorted: Vec<(f32, f64)> = drawn
            .iter()
            .filter(|one| belongs(one))
            .map(|one| (one.load, one.first))
            .collect();
        sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut above = vec![0.0; sorted.len() + 1];
        for at in (0..sorted.len()).rev() {
            above[at] = above[at + 1] + sorted[at].1;
        }
        Field {
            loads: sorted.into_iter().map(|(load, _)| load).collect(),
            above,
        }
    }

    /// How many have that load or more.
    fn as_heavy(&self, load: f32) -> f64 {
        (self.loads.len() - self.loads.partition_point(|&other| other < load)) as f64
    }

    /// How many have more.
    fn lighter_than(&self, load: f32) -> u64 {
        (self.loads.len() - self.loads.partition_point(|&other| other <= load)) as u64
    }

    /// With which probability the first that is drawn has more.
    fn heavier(&self, load: f32) -> f64 {
        self.above[self.loads.partition_point(|&other| other <= load)]
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

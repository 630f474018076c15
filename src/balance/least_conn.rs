//! Least connections: the backend with the least in flight over its weight, counted over all workers, is taken.
//!
//! Take it where requests differ much in length, or backends in speed, and the pool is not large: it looks at every
//! backend. Of equals one is drawn, not the first, or a quiet pool would send everything there. While the lightest is idle,
//! all that are idle share by weight.

use super::draw::{Lightest, Weights, by_weight, each_member};
use super::explain::{Figure, Outlook, lightest};
use super::pick::{Local, Member, Pick};

#[derive(Debug)]
pub struct LeastConn {
    equal: bool,
}

impl LeastConn {
    pub fn new(members: &[Member]) -> Self {
        LeastConn {
            equal: Weights::new(members).are_equal(),
        }
    }

    /// The candidate with the least load.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        if self.equal && pick.slow_start.is_none() {
            let mut lightest = Lightest::new(u32::MAX);
            each_member(pick, |at, member| {
                lightest.offer(at, member.shared.in_flight(), &mut local.random);
            });
            return lightest.index();
        }
        let mut lightest = Lightest::new(f32::INFINITY);
        each_member(pick, |at, member| {
            lightest.offer(at, pick.load_of(member), &mut local.random);
        });
        let index = lightest.index()?;
        if pick.in_flight(index) > 0 {
            return Some(index);
        }
        by_weight(&pick.candidates, &mut local.random, |at| {
            if pick.in_flight(at) == 0 {
                f64::from(pick.weight(at))
            } else {
                0.0
            }
        })
    }

    /// What [`Self::pick`] would come to.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let mut outlook = Outlook::new(
            pick,
            "the least in flight over its weight; of equals one is drawn, and of idle ones one by weight",
        );
        let loads: Vec<(usize, f32)> = pick.candidates.iter().map(|at| (at, pick.load(at))).collect();
        for &(at, load) in &loads {
            outlook.figure(at, "load", Figure::Number(load.into()));
        }
        let plain = self.equal && pick.slow_start.is_none();
        let idle: Vec<(usize, f64)> = loads
            .iter()
            .filter(|(at, _)| pick.in_flight(*at) == 0)
            .map(|&(at, _)| (at, f64::from(pick.weight(at))))
            .collect();
        let least = lightest(&loads);
        for &at in &least {
            let chance = 1.0 / least.len() as f64;
            if plain || pick.in_flight(at) > 0 {
                outlook.add(at, chance);
            } else {
                outlook.share(chance, &idle);
            }
        }
        outlook.because(
            pick,
            [
                "it has the least in flight over its weight",
                "it is one of the least loaded, and one of these is drawn",
                "it has more in flight over its weight",
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::testing::{Bench, chi_square};
    use super::*;
    use crate::clock::Millis;

    #[test]
    fn equals_share_alike() {
        let mut bench = Bench::new(&[3; 5]);
        let strategy = LeastConn::new(&bench.members);
        let idle = bench.counts(50_000, |pick, local| strategy.pick(pick, local));
        chi_square(&idle, &[1.0; 5]);
        [0, 2, 3].into_iter().for_each(|at| bench.begin(at, 1));
        let counts = bench.counts(50_000, |pick, local| strategy.pick(pick, local));
        chi_square(&counts, &[0.0, 1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn idle_or_busy_shares_follow_the_weights() {
        let weights = [8, 4, 2, 2];
        let mut bench = Bench::new(&weights);
        let strategy = LeastConn::new(&bench.members);
        let idle = bench.counts(50_000, |pick, local| strategy.pick(pick, local));
        chi_square(&idle, &weights.map(f64::from));
        let held = bench.closed_loop(64, 50_000, |pick, local| strategy.pick(pick, local));
        for (held, weight) in held.iter().zip(weights) {
            assert!(
                (held * 16.0 - f64::from(weight)).abs() < 0.3,
                "{held} for {weight} of 16"
            );
        }
    }

    #[test]
    fn who_comes_back_with_nothing_in_flight_does_not_get_everything() {
        let mut bench = Bench::new(&[1; 4]);
        let strategy = LeastConn::new(&bench.members);
        (0..3).for_each(|at| bench.begin(at, 4));
        bench.members[3].shared.set_ramp(Some(Millis(1_000)));
        bench.slow_start = Some(Duration::from_secs(10));
        bench.now = Millis(2_000);
        let at_a_tenth = bench.counts(1_000, |pick, local| strategy.pick(pick, local));
        assert_eq!(at_a_tenth[3], 0);
        bench.now = Millis(9_000);
        let at_eight_tenths = bench.counts(1_000, |pick, local| strategy.pick(pick, local));
        assert_eq!(at_eight_tenths[3], 1_000);
        // All idle: by the ramp.
        bench.all_idle();
        bench.now = Millis(6_000);
        let idle = bench.counts(50_000, |pick, local| strategy.pick(pick, local));
        chi_square(&idle, &[1.0, 1.0, 1.0, 0.5]);
    }

    proptest! {
        #[test]
        fn nobody_is_lighter_than_who_is_chosen(
            backends in prop::collection::vec((1u16..50, 0u32..40, any::<bool>()), 1..150),
        ) {
            let weights: Vec<u16> = backends.iter().map(|(weight, ..)| *weight).collect();
            let mut bench = Bench::new(&weights);
            for (at, (_, busy, up)) in backends.iter().enumerate() {
                bench.begin(at, *busy);
                bench.eligible.set(at, *up);
            }
            let strategy = LeastConn::new(&bench.members);
            let chosen = bench.pick(|pick, local| strategy.pick(pick, local));
            prop_assert_eq!(chosen.is_some(), backends.iter().any(|(.., up)| *up));
            let load = |at: usize| f64::from(backends[at].1 + 1) / f64::from(backends[at].0);
            if let Some(chosen) = chosen {
                prop_assert!(backends[chosen].2);
                // Where one that is idle is the lightest, any that is idle may be chosen.
                let idle = backends[chosen].1 == 0;
                let stands_for = (0..backends.len())
                    .filter(|&at| at == chosen || (idle && backends[at].1 == 0 && backends[at].2))
                    .map(load)
                    .fold(f64::INFINITY, f64::min);
                for (at, (_, _, up)) in backends.iter().enumerate() {
                    prop_assert!(!up || load(at) >= stands_for * 0.9999);
                }
            }
        }
    }
}

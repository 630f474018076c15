//! Random: each pick is drawn by weight and knows nothing of the others.
//!
//! Take it where many balancers share the backends and must not move in step, or as a yardstick. Chance makes heaps: over
//! n requests a backend's count varies by about the square root of its share of n.

use super::draw::Weights;
use super::explain::Outlook;
use super::pick::{Local, Member, Pick};

#[derive(Debug)]
pub struct Random {
    weights: Weights,
}

impl Random {
    pub fn new(members: &[Member]) -> Self {
        Random {
            weights: Weights::new(members),
        }
    }

    /// A candidate by weight.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        self.weights.draw(&pick.candidates, &mut local.random)
    }

    /// What [`Self::pick`] would come to.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let mut outlook = Outlook::new(pick, "drawn by weight");
        outlook.share(1.0, &self.weights.shares(&pick.candidates));
        outlook.because(
            pick,
            ["nobody else is left", "drawn by weight", "it has no weight"],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, chi_square};
    use super::*;

    #[test]
    fn shares_follow_the_weights_of_whoever_is_eligible() {
        let weights = [1, 2, 3, 10, 100, 4];
        let mut bench = Bench::new(&weights);
        let random = Random::new(&bench.members);
        for down in [None, Some(4), Some(0)] {
            bench.all_up();
            down.iter().for_each(|&at| bench.eligible.set(at, false));
            let counts = bench.counts(120_000, |pick, local| random.pick(pick, local));
            let mut expected = weights.map(f64::from);
            down.iter().for_each(|&at| expected[at] = 0.0);
            chi_square(&counts, &expected);
        }
    }
}

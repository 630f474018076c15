//! What becomes of a request apart from its route: a delay, an error, silence, a broken connection.

use std::time::Duration;

use super::settings::Settings;

/// The lot of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fate {
    pub delay: Duration,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answer,
    Fail,
    /// No answer, ever.
    Hang,
    /// A reset instead of an answer.
    Abort,
    /// A reset behind the answer's head.
    Reset,
}

/// Draws fates. Each connection has its own, forked from the backend's in accept order, so that one seed gives the
/// same draws however the connections interleave.
#[derive(Debug)]
pub(super) struct Dice {
    random: fastrand::Rng,
}

impl Dice {
    /// With a seed the draws are the same in every run.
    pub fn new(seed: Option<u64>) -> Dice {
        Dice {
            random: seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
        }
    }

    pub fn fork(&mut self) -> Dice {
        Dice {
            random: self.random.fork(),
        }
    }

    pub fn roll(&mut self, settings: &Settings) -> Fate {
        let delay = if settings.jitter.is_zero() {
            settings.delay
        } else {
            settings.delay + settings.jitter.mul_f64(self.random.f64())
        };
        let outcome = if self.happens(settings.hang_rate) {
            Outcome::Hang
        } else if self.happens(settings.abort_rate) {
            Outcome::Abort
        } else if self.happens(settings.error_rate) {
            Outcome::Fail
        } else if self.happens(settings.reset_rate) {
            Outcome::Reset
        } else {
            Outcome::Answer
        };
        Fate { delay, outcome }
    }

    fn happens(&mut self, rate: f64) -> bool {
        rate > 0.0 && self.random.f64() < rate
    }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;

    fn settings() -> Settings {
        Settings::new(&Options {
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(2),
            error_rate: 0.2,
            hang_rate: 0.1,
            ..Options::default()
        })
    }

    #[test]
    fn one_seed_gives_the_same_fates_on_each_connection() {
        let (mut first, mut second) = (Dice::new(Some(7)), Dice::new(Some(7)));
        for _ in 0..3 {
            let (mut a, mut b) = (first.fork(), second.fork());
            for _ in 0..100 {
                assert_eq!(a.roll(&settings()), b.roll(&settings()));
            }
        }
    }

    #[test]
    fn shares_and_delays_are_as_told() {
        let mut dice = Dice::new(Some(7));
        let fates: Vec<Fate> = (0..10_000).map(|_| dice.roll(&settings())).collect();
        let count = |outcome| fates.iter().filter(|fate| fate.outcome == outcome).count();
        assert!(
            (900..1100).contains(&count(Outcome::Hang)),
            "{}",
            count(Outcome::Hang)
        );
        // 0.2 of the 0.9 that do not hang.
        assert!(
            (1650..1950).contains(&count(Outcome::Fail)),
            "{}",
            count(Outcome::Fail)
        );
        let allowed = Duration::from_millis(5)..=Duration::from_millis(7);
        assert!(fates.iter().all(|fate| allowed.contains(&fate.delay)));
    }

    #[test]
    fn the_default_answers_everything_at_once() {
        let (mut dice, settings) = (Dice::new(None), Settings::new(&Options::default()));
        let expected = Fate {
            delay: Duration::ZERO,
            outcome: Outcome::Answer,
        };
        assert!((0..1000).all(|_| dice.roll(&settings) == expected));
    }
}

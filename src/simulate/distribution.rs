//! How long things take: the distributions of service times and delays, in nanoseconds.

use std::f64::consts::{PI, SQRT_2, TAU};

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use super::scenario::values::{Fraction, Positive, Span};

/// A distribution of times that are never negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    Constant(f64),
    Exponential {
        mean: f64,
    },
    /// `mu` is the logarithm of the median in nanoseconds.
    Lognormal {
        mu: f64,
        sigma: f64,
    },
    /// `slow` for a share of the requests, else `fast`.
    Bimodal {
        fast: f64,
        slow: f64,
        share: f64,
    },
    Pareto {
        least: f64,
        shape: f64,
    },
    /// What would be negative is 0.
    Normal {
        mean: f64,
        deviation: f64,
    },
}

impl Distribution {
    #[inline]
    pub fn sample(&self, random: &mut fastrand::Rng) -> f64 {
        match *self {
            Distribution::Constant(value) => value,
            Distribution::Exponential { mean } => mean * exponential(random),
            Distribution::Lognormal { mu, sigma } => (mu + sigma * normal(random)).exp(),
            Distribution::Bimodal { fast, slow, share } => {
                if random.f64() < share {
                    slow
                } else {
                    fast
                }
            }
            Distribution::Pareto { least, shape } => least * (1.0 - random.f64()).powf(-1.0 / shape),
            Distribution::Normal { mean, deviation } => (mean + deviation * normal(random)).max(0.0),
        }
    }

    pub fn mean(&self) -> f64 {
        match *self {
            Distribution::Constant(value) => value,
            Distribution::Exponential { mean } => mean,
            Distribution::Lognormal { mu, sigma } => (mu + sigma * sigma / 2.0).exp(),
            Distribution::Bimodal { fast, slow, share } => fast * (1.0 - share) + slow * share,
            Distribution::Pareto { least, shape } => least * shape / (shape - 1.0),
            Distribution::Normal { mean, deviation } => {
                let ratio = mean / deviation;
                let density = (-ratio * ratio / 2.0).exp() / TAU.sqrt();
                mean * normal_below(ratio) + deviation * density
            }
        }
    }
}

/// Exponential with mean 1.
#[inline]
pub fn exponential(random: &mut fastrand::Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

/// Normal with mean 0 and deviation 1 (Box and Muller).
#[inline]
fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (TAU * random.f64()).cos()
}

/// The share of a standard normal distribution below `x`, to 1e-7 (Abramowitz and Stegun, 7.1.26 and the like would do;
/// this integrates the density, which needs no table).
fn normal_below(x: f64) -> f64 {
    const STEPS: u32 = 2000;
    let far = x.clamp(-8.0, 8.0);
    let step = far / f64::from(STEPS);
    let density = |at: f64| (-(at / SQRT_2) * (at / SQRT_2)).exp() / (2.0 * PI).sqrt();
    let inner: f64 = (1..STEPS).map(|n| density(f64::from(n) * step)).sum();
    0.5 + step * (inner + (density(0.0) + density(far)) / 2.0)
}

/// As a scenario writes it: `"5ms"`, or a table with a `type`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    r#type: Type,
    value: Option<Span>,
    mean: Option<Span>,
    median: Option<Span>,
    sigma: Option<Positive>,
    fast: Option<Span>,
    slow: Option<Span>,
    slow_share: Option<Fraction>,
    least: Option<Span>,
    shape: Option<Positive>,
    deviation: Option<Span>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Constant,
    Exponential,
    Lognormal,
    Bimodal,
    Pareto,
    Normal,
}

impl Written {
    fn judge(self) -> Result<Distribution, &'static str> {
        let given = [
            self.value.is_some(),
            self.mean.is_some(),
            self.median.is_some(),
            self.sigma.is_some(),
            self.fast.is_some(),
            self.slow.is_some(),
            self.slow_share.is_some(),
            self.least.is_some(),
            self.shape.is_some(),
            self.deviation.is_some(),
        ];
        let given = given.into_iter().filter(|given| *given).count();
        let nanos = |span: Option<Span>| span.map(|span| span.nanos() as f64);
        let positive = |span: Option<Span>| nanos(span).filter(|nanos| *nanos > 0.0);
        let number = |number: Option<Positive>| number.map(|number| number.0);
        let found =
            match self.r#type {
                Type::Constant => nanos(self.value).map(Distribution::Constant),
                Type::Exponential => positive(self.mean).map(|mean| Distribution::Exponential { mean }),
                Type::Lognormal => match (positive(self.mean), positive(self.median), number(self.sigma)) {
                    (None, Some(median), Some(sigma)) => Some(Distribution::Lognormal {
                        mu: median.ln(),
                        sigma,
                    }),
                    (Some(mean), None, Some(sigma)) => Some(Distribution::Lognormal {
                        mu: mean.ln() - sigma * sigma / 2.0,
                        sigma,
                    }),
                    _ => None,
                },
                Type::Bimodal => nanos(self.fast).zip(nanos(self.slow)).zip(self.slow_share).map(
                    |((fast, slow), share)| Distribution::Bimodal {
                        fast,
                        slow,
                        share: share.0,
                    },
                ),
                Type::Pareto => positive(self.least)
                    .zip(number(self.shape).filter(|shape| *shape > 1.0))
                    .map(|(least, shape)| Distribution::Pareto { least, shape }),
                Type::Normal => positive(self.mean)
                    .zip(positive(self.deviation))
                    .map(|(mean, deviation)| Distribution::Normal { mean, deviation }),
            };
        let (keys, needs) = match self.r#type {
            Type::Constant => (1, "a constant time needs value and nothing else"),
            Type::Exponential => (1, "exponential times need mean (above 0) and nothing else"),
            Type::Lognormal => (2, "lognormal times need median or mean, sigma, and nothing else"),
            Type::Bimodal => (3, "bimodal times need fast, slow, slow_share and nothing else"),
            Type::Pareto => (
                2,
                "pareto times need least (above 0), shape (above 1) and nothing else",
            ),
            Type::Normal => (
                2,
                "normal times need mean and deviation (above 0) and nothing else",
            ),
        };
        found.filter(|_| given == keys).ok_or(needs)
    }
}

impl<'de> Deserialize<'de> for Distribution {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Distribution;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(
                    "a time as in \"5ms\" or a table as in { type = \"exponential\", mean = \"5ms\" }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Distribution, E> {
                let span = Span::parse(text).map_err(E::custom)?;
                Ok(Distribution::Constant(span.nanos() as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Distribution, A::Error> {
                let written = Written::deserialize(MapAccessDeserializer::new(map))?;
                written.judge().map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        time: Distribution,
    }

    fn read(text: &str) -> Result<Distribution, String> {
        toml::from_str::<File>(&format!("time = {text}"))
            .map(|file| file.time)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn samples_have_the_mean_that_is_said() {
        for text in [
            "'5ms'",
            "{ type = 'exponential', mean = '5ms' }",
            "{ type = 'lognormal', median = '5ms', sigma = 1 }",
            "{ type = 'lognormal', mean = '5ms', sigma = 0.5 }",
            "{ type = 'bimodal', fast = '1ms', slow = '100ms', slow_share = 0.05 }",
            "{ type = 'pareto', least = '1ms', shape = 3.0 }",
            "{ type = 'normal', mean = '5ms', deviation = '5ms' }",
        ] {
            let time = read(text).expect(text);
            let mut random = fastrand::Rng::with_seed(7);
            let samples = 400_000;
            let sum: f64 = (0..samples).map(|_| time.sample(&mut random)).sum();
            let ratio = sum / f64::from(samples) / time.mean();
            assert!((0.98..1.02).contains(&ratio), "{text}: {ratio} of its mean");
        }
        let mean = read("{ type = 'lognormal', mean = '5ms', sigma = 0.5 }").map(|time| time.mean());
        assert!((mean.expect("a distribution") - 5e6).abs() < 1.0);
    }

    #[test]
    fn what_is_missing_or_too_much_is_said() {
        for (text, needs) in [
            ("{ type = 'exponential' }", "need mean"),
            (
                "{ type = 'exponential', mean = '5ms', sigma = 1 }",
                "nothing else",
            ),
            ("{ type = 'pareto', least = '1ms', shape = 1 }", "above 1"),
            ("{ type = 'gamma', mean = '5ms' }", "exponential"),
            ("{ type = 'exponential', men = '5ms' }", "mean"),
            ("'5'", "unit"),
            ("5", "as in \"5ms\""),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(needs), "{text}: {error}");
        }
    }
}

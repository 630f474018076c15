//! The values that a scenario is written in; each says what is allowed where it is not.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::config::parse_duration;
use crate::simulate::Nanos;

/// The longest time that a scenario may name: a virtual month. What is added to such times stays far below 2⁶⁴ ns.
const LONGEST: Duration = Duration::from_secs(31 * 24 * 3600);

/// A time as the configuration writes it, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(Nanos);

impl Span {
    pub const fn of(span: Duration) -> Span {
        Span(span.as_nanos() as Nanos)
    }

    pub fn parse(text: &str) -> Result<Span, String> {
        let duration = parse_duration(text).map_err(|refusal| format!("\"{text}\" {refusal}"))?;
        if duration > LONGEST {
            return Err(format!("\"{text}\" is longer than 31d"));
        }
        Ok(Span::of(duration))
    }

    pub fn nanos(self) -> Nanos {
        self.0
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Span, String> {
        Span::parse(&text)
    }
}

/// A time that is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Lasting(Span);

impl Lasting {
    pub fn nanos(self) -> Nanos {
        self.0.nanos()
    }
}

impl TryFrom<String> for Lasting {
    type Error = String;

    fn try_from(text: String) -> Result<Lasting, String> {
        match Span::parse(&text)? {
            Span(0) => Err(format!("\"{text}\" where a time above 0 is needed")),
            span => Ok(Lasting(span)),
        }
    }
}

/// A finite number above 0.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Positive(pub f64);

impl TryFrom<f64> for Positive {
    type Error = String;

    fn try_from(number: f64) -> Result<Positive, String> {
        if number > 0.0 && number.is_finite() {
            Ok(Positive(number))
        } else {
            Err(format!("{number} where a number above 0 is needed"))
        }
    }
}

/// An exponent of Zipf's distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Skew(pub f64);

impl TryFrom<f64> for Skew {
    type Error = String;

    fn try_from(number: f64) -> Result<Skew, String> {
        if (0.0..=10.0).contains(&number) {
            Ok(Skew(number))
        } else {
            Err(format!("{number} where a number from 0 to 10 is needed"))
        }
    }
}

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Fraction(pub f64);

impl TryFrom<f64> for Fraction {
    type Error = String;

    fn try_from(number: f64) -> Result<Fraction, String> {
        if (0.0..=1.0).contains(&number) {
            Ok(Fraction(number))
        } else {
            Err(format!("{number} where a number from 0 to 1 is needed"))
        }
    }
}

/// A whole number from 1 to `MOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct Count<const MOST: i64>(pub usize);

impl<const MOST: i64> TryFrom<i64> for Count<MOST> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        if (1..=MOST).contains(&number) {
            Ok(Count(number as usize))
        } else {
            Err(format!("{number} where a number from 1 to {MOST} is needed"))
        }
    }
}

/// Some of the backends, by position from 0: `3`, `"0,4-7"` or `"all"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Positions {
    All,
    /// First and last of each run.
    Some(Vec<(usize, usize)>),
}

impl Positions {
    fn parse(text: &str) -> Option<Positions> {
        if text == "all" {
            return Some(Positions::All);
        }
        let run = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some((first, last))
        };
        text.split(',')
            .map(run)
            .collect::<Option<Vec<_>>>()
            .map(Positions::Some)
    }

    pub fn contains(&self, position: usize) -> bool {
        match self {
            Positions::All => true,
            Positions::Some(runs) => runs
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&position)),
        }
    }

    /// The largest position that is named.
    pub fn last(&self) -> Option<usize> {
        match self {
            Positions::All => None,
            Positions::Some(runs) => runs.iter().map(|(_, last)| *last).max(),
        }
    }
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Positions;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("positions of backends from 0, as in 3, \"0,4-7\" or \"all\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Positions, E> {
                let position = usize::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
                Ok(Positions::Some(vec![(position, position)]))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Positions, E> {
                Positions::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

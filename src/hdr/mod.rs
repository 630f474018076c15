//! Exports of histograms, read and put together: what `weir hdr` is made of.
//!
//! [`read`] takes a text apart, line by line, [`decode`] a single histogram, [`merge`] adds them up, [`table`] and
//! [`picture`] show the sum. All of it is exact: counts of the same cells are added, and what has other cells is refused.
//! The texts may come from anybody; what they hold is an error at worst.

pub mod decode;
pub mod merge;
pub mod picture;
pub mod read;
pub mod table;

/// What the values of a histogram are. The format does not say; weir's exports do, in a comment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// As `weir load` measures.
    Nanos,
    /// As weir exports.
    #[default]
    Micros,
    Millis,
}

impl Unit {
    pub const ALL: [Unit; 3] = [Unit::Nanos, Unit::Micros, Unit::Millis];

    pub const fn word(self) -> &'static str {
        match self {
            Unit::Nanos => "ns",
            Unit::Micros => "us",
            Unit::Millis => "ms",
        }
    }

    /// How many make a millisecond.
    pub const fn per_milli(self) -> f64 {
        match self {
            Unit::Nanos => 1e6,
            Unit::Micros => 1e3,
            Unit::Millis => 1.0,
        }
    }

    /// The unit of which so many make a millisecond.
    fn of_divisor(divisor: f64) -> Option<Unit> {
        let close = |unit: &Unit| (unit.per_milli() - divisor).abs() < 0.5;
        Unit::ALL.into_iter().find(close)
    }
}

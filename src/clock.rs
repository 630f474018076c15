//! Time as deadlines need it: milliseconds, read from the kernel's coarse clock.
//!
//! The data path asks for the time several times an exchange; the coarse clock costs a few nanoseconds, is at most a
//! timer tick (4 ms) behind, and deadlines fire up to 0.1 s late anyway. What is measured of an exchange is measured by
//! [`Moment`]s; whatever decides by time takes the time as an argument.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use crate::sys;

/// A point in time, in milliseconds since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// Later than everything.
    pub const NEVER: Millis = Millis(u64::MAX);
}

impl Add<Duration> for Millis {
    type Output = Millis;

    fn add(self, span: Duration) -> Millis {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Millis(self.0.saturating_add(span))
    }
}

impl Sub for Millis {
    type Output = Duration;

    /// Zero if `earlier` is later.
    fn sub(self, earlier: Millis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A point in time to measure from, in nanoseconds of the monotonic clock. One number where `std::time::Instant` is two:
/// an exchange takes half a dozen differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    #[inline]
    pub fn now() -> Moment {
        Moment(sys::monotonic_nanos())
    }

    /// The moment so much later.
    pub fn after(self, span: Span) -> Moment {
        Moment(self.0.saturating_add(span.0))
    }

    #[inline]
    pub fn elapsed(self) -> Span {
        Moment::now() - self
    }
}

impl Sub for Moment {
    type Output = Span;

    /// Zero if `earlier` is later.
    #[inline]
    fn sub(self, earlier: Moment) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// What lies between two moments, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

impl Span {
    pub const ZERO: Span = Span(0);

    pub const fn from_micros(micros: u64) -> Span {
        Span(micros * 1_000)
    }

    pub const fn from_millis(millis: u64) -> Span {
        Span(millis * 1_000_000)
    }

    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    #[inline]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl From<Span> for Duration {
    #[inline]
    fn from(span: Span) -> Duration {
        Duration::from_nanos(span.0)
    }
}

impl Add for Span {
    type Output = Span;

    #[inline]
    fn add(self, more: Span) -> Span {
        Span(self.0.saturating_add(more.0))
    }
}

impl AddAssign for Span {
    #[inline]
    fn add_assign(&mut self, more: Span) {
        *self = *self + more;
    }
}

impl Sub for Span {
    type Output = Span;

    /// Zero if `less` is more.
    #[inline]
    fn sub(self, less: Span) -> Span {
        Span(self.0.saturating_sub(less.0))
    }
}

impl Sum for Span {
    fn sum<I: Iterator<Item = Span>>(spans: I) -> Span {
        spans.fold(Span::ZERO, Add::add)
    }
}

/// The time now.
pub fn now() -> Millis {
    Millis(sys::coarse_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_advances_and_never_overflows() {
        let before = now();
        std::thread::sleep(Duration::from_millis(30));
        let passed = now() - before;
        assert!((20..5000).contains(&passed.as_millis()), "{passed:?}");
        assert_eq!(Millis::NEVER + Duration::from_secs(1), Millis::NEVER);
        assert_eq!(Millis(1) - Millis(2), Duration::ZERO);
    }
}

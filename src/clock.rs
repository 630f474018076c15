//! Time as deadlines need it: milliseconds, read from the kernel's coarse clock.
//!
//! The data path asks for the time several times an exchange; the coarse clock costs a few nanoseconds, is at most a
//! timer tick (4 ms) behind, and deadlines fire up to 0.1 s late anyway. What is measured of an exchange is measured by
//! [`Moment`]s; whatever decides by time takes the time as an argument.

use std::ops::{Add, Sub};
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

    #[inline]
    pub fn elapsed(self) -> Duration {
        Moment::now() - self
    }
}

impl Sub for Moment {
    type Output = Duration;

    /// Zero if `earlier` is later.
    #[inline]
    fn sub(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
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

//! Time as the data path uses it: milliseconds since the process started, for deadlines that fire 0.1 s late anyway.
//!
//! Latencies are measured with `std::time::Instant`; whatever decides by time takes the time as an argument.

use std::ops::{Add, Sub};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A point in time, in milliseconds since the process first asked.
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

/// The instant that [`Millis`] counts from.
pub fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// `instant` in milliseconds since the epoch.
pub fn millis(instant: Instant) -> Millis {
    let span = instant.saturating_duration_since(epoch());
    Millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// The time now; one `clock_gettime` in user space.
pub fn now() -> Millis {
    millis(Instant::now())
}

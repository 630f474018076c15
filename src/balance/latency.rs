//! How slow a backend is: a moving average that forgets with time, in one word that all workers share.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::clock::Millis;

/// The average of one backend's response times.
#[derive(Debug, Default)]
pub struct Latency {
    word: AtomicU64,
}

impl Latency {
    /// Counts one response time.
    pub fn record(&self, _took: Duration, _now: Millis) {}

    pub fn record_failure(&self, _took: Duration, _now: Millis) {}

    /// Microseconds as of `now`; none without a sample.
    pub fn read(&self, _now: Millis) -> Option<f32> {
        let _ = &self.word;
        None
    }
}

//! What probes found at one backend, for people: written by the health thread, read by the control thread. No worker looks
//! here, so a lock will do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Millis;

/// One probe that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastProbe {
    /// When it ended.
    pub at: Millis,
    pub took: Duration,
    /// Of the answer's head, if one came.
    pub status: Option<u16>,
    /// What was wrong, in words; none: it was good.
    pub error: Option<String>,
}

/// The probes of one backend since weir started.
#[derive(Debug, Default)]
pub struct Probes {
    last: Mutex<Option<LastProbe>>,
    good: AtomicU64,
    bad: AtomicU64,
}

impl Probes {
    /// The last one; none before the first.
    pub fn last(&self) -> Option<LastProbe> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn good(&self) -> u64 {
        self.good.load(Ordering::Relaxed)
    }

    /// Those that said something bad about the backend.
    pub fn bad(&self) -> u64 {
        self.bad.load(Ordering::Relaxed)
    }

    /// `good`: what it said of the backend; none: it could not be made.
    pub fn record(&self, probe: LastProbe, good: Option<bool>) {
        match good {
            Some(true) => drop(self.good.fetch_add(1, Ordering::Relaxed)),
            Some(false) => drop(self.bad.fetch_add(1, Ordering::Relaxed)),
            None => {}
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(probe);
    }
}

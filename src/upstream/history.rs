//! What last changed about a backend, and when: for people. Written by whoever changed it, as plain atomics, because that
//! may be a worker.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::clock::{self, Millis};

/// What put a backend into the state it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    Start,
    ProbeUp,
    ProbeDown,
    Refused,
    BreakerOpened,
    BreakerHalfOpen,
    BreakerClosed,
    Ejected,
    Trial,
    Returned,
    Operator,
}

impl Why {
    const ALL: [Why; 11] = [
        Why::Start,
        Why::ProbeUp,
        Why::ProbeDown,
        Why::Refused,
        Why::BreakerOpened,
        Why::BreakerHalfOpen,
        Why::BreakerClosed,
        Why::Ejected,
        Why::Trial,
        Why::Returned,
        Why::Operator,
    ];

    pub const fn phrase(self) -> &'static str {
        match self {
            Why::Start => "since it was configured",
            Why::ProbeUp => "its probes are good",
            Why::ProbeDown => "its probes fail",
            Why::Refused => "it refused a connect",
            Why::BreakerOpened => "its circuit breaker opened",
            Why::BreakerHalfOpen => "its circuit breaker is half-open",
            Why::BreakerClosed => "its circuit breaker closed",
            Why::Ejected => "ejected for what its traffic showed",
            Why::Trial => "its ejection is over and a trial is due",
            Why::Returned => "its trial succeeded",
            Why::Operator => "set by the operator",
        }
    }
}

/// The last change.
#[derive(Debug)]
pub struct History {
    /// In milliseconds of the coarse clock.
    at: AtomicU64,
    why: AtomicU8,
    breaker_openings: AtomicU64,
}

impl Default for History {
    fn default() -> Self {
        History {
            at: AtomicU64::new(clock::now().0),
            why: AtomicU8::new(Why::Start as u8),
            breaker_openings: AtomicU64::new(0),
        }
    }
}

impl History {
    /// Something changed just now.
    pub fn note(&self, why: Why) {
        self.at.store(clock::now().0, Ordering::Relaxed);
        self.why.store(why as u8, Ordering::Relaxed);
        if why == Why::BreakerOpened {
            self.breaker_openings.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The last change. Two that come at the same moment may show the time of the one and the reason of the other.
    pub fn last(&self) -> (Millis, Why) {
        let stored = usize::from(self.why.load(Ordering::Relaxed));
        let why = Why::ALL.get(stored).copied().unwrap_or(Why::Start);
        (Millis(self.at.load(Ordering::Relaxed)), why)
    }

    /// How often its breaker has opened.
    pub fn breaker_openings(&self) -> u64 {
        self.breaker_openings.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_the_order_of_the_discriminants() {
        for (index, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
            let history = History::default();
            history.note(why);
            assert_eq!(history.last().1, why);
        }
    }
}

//! What a pool is told and asked, and what it says.

use std::time::Duration;

use crate::balance::breaker;
use crate::balance::ejection::EjectReason;
use crate::balance::outcome::FailureSet;
use crate::clock::Millis;
use crate::config::model::{self, Config, HealthCheckKind, StrategyKind};

/// What of the configuration decides about a pool.
#[derive(Clone, Debug)]
pub struct Settings {
    pub strategy: model::Strategy,
    /// None: off.
    pub breaker: Option<breaker::Settings>,
    /// What counts against the breaker.
    pub failures: FailureSet,
    pub ignore_panic: bool,
    /// Per cent.
    pub panic_threshold: u8,
    pub outlier: model::Outlier,
    /// Whether probes find out when a dead backend is back.
    pub probed: bool,
}

impl Settings {
    pub fn of(config: &Config) -> Self {
        let breaker = &config.circuit_breaker;
        Settings {
            strategy: config.strategy.clone(),
            breaker: breaker.enabled.then_some(breaker::Settings {
                failure_threshold: breaker.failure_threshold,
                reset_timeout: breaker.reset_timeout,
                half_open_requests: breaker.half_open_requests,
                success_threshold: breaker.success_threshold,
                error_rate: breaker.error_rate,
                window: breaker.window,
                min_volume: breaker.min_volume,
            }),
            failures: FailureSet::new(&breaker.failures),
            ignore_panic: breaker.ignore_panic,
            panic_threshold: config.health_check.panic_threshold,
            outlier: config.outlier.clone(),
            probed: config.health_check.kind != HealthCheckKind::Off,
        }
    }

    /// Whether requests belong to certain backends, so that a trial waits for one of its own.
    pub fn hashes(&self) -> bool {
        matches!(
            self.strategy.kind,
            StrategyKind::ConsistentHash | StrategyKind::Maglev
        )
    }
}

/// What an exchange asks a pool for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub now: Millis,
    /// The hash of what the request is known by.
    pub key: Option<u64>,
    /// The position that the request sticks to.
    pub sticky: Option<usize>,
    /// Positions that this exchange has tried, or that have no slot free.
    pub tried: &'a [u16],
    /// The request could be sent again if its backend fails, so it may be the one that tries a backend out.
    pub may_try: bool,
}

/// Who was chosen, and by what right; to be given back by [`Pool::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Choice {
    pub index: usize,
    pub(super) breaker: breaker::Permit,
    pub(super) ejection: breaker::Permit,
}

/// What the health thread found of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Up,
    /// The probe failed in another way than at the connect.
    Sick,
    /// The connect was refused, or timed out.
    Dead,
}

impl Verdict {
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Up => "up",
            Verdict::Sick => "sick",
            Verdict::Dead => "dead",
        }
    }
}

/// What changed, to be logged once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    BreakerOpened {
        index: usize,
    },
    BreakerHalfOpen {
        index: usize,
    },
    BreakerClosed {
        index: usize,
    },
    /// A trial failed.
    BreakerReopened {
        index: usize,
    },
    Ejected {
        index: usize,
        reason: EjectReason,
        lasts: Duration,
    },
    EjectionTrial {
        index: usize,
    },
    Returned {
        index: usize,
    },
    /// Opening or ejecting would have left too few.
    Held {
        index: usize,
        what: &'static str,
    },
    Dead {
        index: usize,
    },
    /// The health thread is to look at once.
    ProbeWanted {
        index: usize,
    },
    /// So many of so many are well: the others are used too.
    PanicBegan {
        well: usize,
        of: usize,
    },
    PanicEnded {
        well: usize,
        of: usize,
    },
}

/// Where events go.
pub type Events<'a> = &'a mut dyn FnMut(Event);

//! Choosing a backend: pure functions over shared atomics. No I/O, no clock and no randomness of its own, no lock, so that
//! the same code runs in the data path, in tests and in benches.

pub mod liveness;
pub mod round_robin;

use round_robin::RoundRobin;

use crate::config::model::StrategyKind;

/// What chooses within one pool of backends.
#[derive(Debug)]
pub enum Strategy {
    RoundRobin(RoundRobin),
}

impl Strategy {
    pub fn new(kind: StrategyKind) -> Self {
        match kind {
            StrategyKind::RoundRobin => Strategy::RoundRobin(RoundRobin::default()),
        }
    }

    /// The index of the backend for the next attempt among `backends` of which `eligible` says who may be chosen; none
    /// if nobody is.
    pub fn pick(&self, backends: usize, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        match self {
            Strategy::RoundRobin(strategy) => strategy.pick(backends, eligible),
        }
    }

    /// The type's name as it stands in the metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Strategy::RoundRobin(_) => "round-robin",
        }
    }
}

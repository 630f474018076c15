//! Choosing a backend: pure functions over shared atomics. No I/O, no clock and no randomness of its own, no lock, so that
//! the same code runs in the data path, in tests, in benches and in the simulator.

pub mod breaker;
pub mod budget;
pub mod ejection;
mod gate;
pub mod latency;
pub mod liveness;
pub mod outcome;
pub mod outlier;
pub mod pick;
pub mod pool;
pub mod round_robin;
pub mod shared;
mod sync;
pub mod tail;
pub mod tried;
mod window;

#[cfg(test)]
mod tests;

use round_robin::RoundRobin;

use crate::config::model::{self, StrategyKind};
use pick::{Local, Member, Pick};

/// What chooses within one pool of backends.
#[derive(Debug)]
pub enum Strategy {
    RoundRobin(RoundRobin),
}

impl Strategy {
    /// What `settings` asks for, prepared for these backends.
    pub fn new(settings: &model::Strategy, _members: &[Member]) -> Self {
        match settings.kind {
            StrategyKind::RoundRobin => Strategy::RoundRobin(RoundRobin::default()),
            _ => Strategy::RoundRobin(RoundRobin::default()),
        }
    }

    /// The position of the backend for the next attempt; none if there is no candidate.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        match self {
            Strategy::RoundRobin(strategy) => strategy.pick(pick, local),
        }
    }
}

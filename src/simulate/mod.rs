//! `weir simulate`: the code of `balance` in virtual time, to see what a strategy does with a thousand backends, a year
//! of traffic or an outage before anybody pays for it.
//!
//! A [`scenario::Scenario`] is the world: arrivals, backends, what goes wrong and when. The configuration is weir's own and
//! means what it means in `weir run`. [`engine`] moves the requests and owns the virtual clock; all that chooses, learns
//! and shuts off is `balance`, which it calls through [`balancer`] and nothing else. Nothing here reads a clock, opens a
//! socket or runs in the data path; the same seed gives the same figures.

pub mod arrivals;
pub mod balancer;
pub mod distribution;
pub mod engine;
pub mod picture;
pub mod queue;
pub mod report;
pub mod scenario;
pub mod service;
pub mod tally;

#[cfg(test)]
mod tests;

use crate::config::model::{Config, StrategyKind};
use crate::config::strategy_name;

/// Nanoseconds of virtual time since the simulation began.
pub type Nanos = u64;

/// Nanoseconds of a second.
pub const SECOND: Nanos = 1_000_000_000;

/// One row of the table: a strategy, and where it has its knowledge from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    pub kind: StrategyKind,
    /// `prequal` asks backends for their load; all others know only what they count themselves.
    pub probing: bool,
}

/// `prequal` on weir's own counts, as it is without `strategy.probe_path`.
pub const PREQUAL_OWN: &str = "prequal-own";

impl Contender {
    pub fn name(self) -> &'static str {
        match (self.kind, self.probing) {
            (StrategyKind::Prequal, false) => PREQUAL_OWN,
            (kind, _) => strategy_name(kind),
        }
    }

    /// The contender of that name, written with either separator.
    pub fn by_name(name: &str) -> Option<Contender> {
        let plain = |name: &str| name.replace('_', "-");
        Contender::all().find(|contender| plain(contender.name()) == plain(name))
    }

    /// All there are, in the order of the table.
    pub fn all() -> impl Iterator<Item = Contender> {
        [
            (StrategyKind::RoundRobin, false),
            (StrategyKind::WeightedRoundRobin, false),
            (StrategyKind::Random, false),
            (StrategyKind::LeastConn, false),
            (StrategyKind::P2c, false),
            (StrategyKind::LeastResponse, false),
            (StrategyKind::ConsistentHash, false),
            (StrategyKind::Maglev, false),
            (StrategyKind::Prequal, true),
            (StrategyKind::Prequal, false),
            (StrategyKind::Failover, false),
        ]
        .into_iter()
        .map(|(kind, probing)| Contender { kind, probing })
    }

    /// `config` with this strategy.
    fn configured(self, config: &Config) -> Config {
        let mut config = config.clone();
        config.strategy.kind = self.kind;
        if !self.probing {
            config.strategy.probe_path = None;
        } else if config.strategy.probe_path.is_none() {
            config.strategy.probe_path = Some("/load".to_owned());
        }
        config
    }
}

/// A seed for one of several independent streams of random numbers (splitmix64).
fn stream_seed(seed: u64, stream: u64) -> u64 {
    let mut z = seed.wrapping_add(stream.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

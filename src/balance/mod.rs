//! Choosing a backend: pure functions over shared atomics. No I/O, no clock and no randomness of its own, no lock, so that
//! the same code runs in the data path, in tests, in benches and in the simulator.
//!
//! A strategy is a file here and a variant of [`Strategy`]; its module says what it does and when to take it. All of them
//! choose among the candidates of one [`Pick`], and the set of those may change while they look.

pub mod breaker;
pub mod budget;
mod draw;
pub mod ejection;
pub mod explain;
pub mod failover;
mod gate;
pub mod hash;
mod keyed;
pub mod latency;
pub mod least_conn;
pub mod least_response;
pub mod liveness;
pub mod maglev;
pub mod outcome;
pub mod outlier;
pub mod p2c;
pub mod pick;
pub mod pool;
pub mod prequal;
pub mod random;
pub mod ring;
pub mod round_robin;
mod schedule;
pub mod shared;
mod sync;
pub mod tail;
pub mod tried;
mod window;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod weighted_round_robin;

use explain::{Again, Effort, Outlook};
use failover::Failover;
use least_conn::LeastConn;
use least_response::LeastResponse;
use maglev::Maglev;
use p2c::P2c;
use prequal::{Due, Prequal};
use random::Random;
use ring::Ring;
use round_robin::RoundRobin;
use weighted_round_robin::WeightedRoundRobin;

use crate::config::model::{self, StrategyKind};
use pick::{Local, Member, Pick};

/// Choices that a ramp may turn down in one pick.
const RAMP_TRIES: usize = 4;

/// Positions tried by an exchange up to which ramps are looked at.
const RAMP_TRIED: usize = 12;

/// What chooses within one pool of backends.
#[derive(Debug)]
pub enum Strategy {
    RoundRobin(RoundRobin),
    WeightedRoundRobin(WeightedRoundRobin),
    Random(Random),
    LeastConn(LeastConn),
    P2c(P2c),
    LeastResponse(LeastResponse),
    ConsistentHash(Ring),
    Maglev(Maglev),
    Prequal(Prequal),
    Failover(Failover),
}

impl Strategy {
    /// What `settings` asks for, prepared for these backends.
    pub fn new(settings: &model::Strategy, members: &[Member]) -> Self {
        match settings.kind {
            StrategyKind::RoundRobin => Strategy::RoundRobin(RoundRobin::default()),
            StrategyKind::WeightedRoundRobin => {
                Strategy::WeightedRoundRobin(WeightedRoundRobin::new(members))
            }
            StrategyKind::Random => Strategy::Random(Random::new(members)),
            StrategyKind::LeastConn => Strategy::LeastConn(LeastConn::new(members)),
            StrategyKind::P2c => Strategy::P2c(P2c::new(members)),
            StrategyKind::LeastResponse => Strategy::LeastResponse(LeastResponse::new(members)),
            StrategyKind::ConsistentHash => {
                Strategy::ConsistentHash(Ring::new(members, settings.virtual_nodes, settings.max_load))
            }
            StrategyKind::Maglev => Strategy::Maglev(Maglev::new(members, settings.max_load)),
            StrategyKind::Prequal => Strategy::Prequal(Prequal::new(settings, members)),
            StrategyKind::Failover => Strategy::Failover(Failover::new(members, settings.tier_min)),
        }
    }

    /// The position of the backend for the next attempt; none if there is no candidate.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        let chosen = self.choose(pick, local)?;
        if pick.slow_start.is_none() || self.knows_ramps() {
            return Some(chosen);
        }
        Some(self.ramped(chosen, pick, local))
    }

    /// The backends to probe at this pick: none but under `prequal` with a `probe_path`. Each that is named here is to be
    /// reported by [`prequal::ProbePool::add`] or [`prequal::ProbePool::failed`], or it is not named again.
    #[inline]
    pub fn probes_due(&self, pick: &Pick<'_>, local: &mut Local) -> Due {
        match self {
            Strategy::Prequal(strategy) => strategy.due(pick, local),
            _ => Due::default(),
        }
    }

    #[inline]
    fn choose(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        match self {
            Strategy::RoundRobin(strategy) => strategy.pick(pick, local),
            Strategy::WeightedRoundRobin(strategy) => strategy.pick(pick, local),
            Strategy::Random(strategy) => strategy.pick(pick, local),
            Strategy::LeastConn(strategy) => strategy.pick(pick, local),
            Strategy::P2c(strategy) => strategy.pick(pick, local),
            Strategy::LeastResponse(strategy) => strategy.pick(pick, local),
            Strategy::ConsistentHash(strategy) => strategy.pick(pick, local),
            Strategy::Maglev(strategy) => strategy.pick(pick, local),
            Strategy::Prequal(strategy) => strategy.pick(pick, local),
            Strategy::Failover(strategy) => strategy.pick(pick, local),
        }
    }

    /// What one explanation of this strategy may take, in a pool of so many.
    pub fn effort(&self, members: usize) -> Effort {
        Effort::new(match self {
            Strategy::LeastResponse(_) => least_response::looks(members),
            Strategy::Prequal(_) => prequal::looks(members),
            _ => members,
        })
    }

    /// What [`Self::pick`] would come to now, without doing it. For people.
    pub fn explain(&self, pick: &Pick<'_>, effort: &Effort) -> Outlook {
        let mut outlook = self.explain_choice(pick);
        if pick.slow_start.is_none() || self.knows_ramps() || pick.candidates.tried().len() > RAMP_TRIED {
            return outlook;
        }
        let by_key = pick.key.map(ramp_draw);
        let again = Again {
            effort,
            tries: RAMP_TRIES,
            choose: &mut |tried| {
                let others = Pick {
                    candidates: pick.candidates.with_tried(tried),
                    ..*pick
                };
                self.explain_choice(&others).chances()
            },
            refusal: &|index| match (by_key, pick.ramp(index)) {
                (_, ramp) if ramp >= 1.0 => 0.0,
                (Some(draw), ramp) => f64::from(u8::from(draw >= ramp)),
                (None, ramp) => f64::from(1.0 - ramp),
            },
            last: &|first| first,
        };
        let chances = again.settle(pick.candidates.tried(), &outlook.chances());
        outlook.replace_chances(&chances);
        outlook
            .how
            .push_str("; who ramps up takes only that share of what falls to it");
        outlook
    }

    fn explain_choice(&self, pick: &Pick<'_>) -> Outlook {
        match self {
            Strategy::RoundRobin(strategy) => strategy.explain(pick),
            Strategy::WeightedRoundRobin(strategy) => strategy.explain(pick),
            Strategy::Random(strategy) => strategy.explain(pick),
            Strategy::LeastConn(strategy) => strategy.explain(pick),
            Strategy::P2c(strategy) => strategy.explain(pick),
            Strategy::LeastResponse(strategy) => strategy.explain(pick),
            Strategy::ConsistentHash(strategy) => strategy.explain(pick),
            Strategy::Maglev(strategy) => strategy.explain(pick),
            Strategy::Prequal(strategy) => strategy.explain(pick),
            Strategy::Failover(strategy) => strategy.explain(pick),
        }
    }

    /// Whether ramps are part of the loads that it compares.
    fn knows_ramps(&self) -> bool {
        matches!(
            self,
            Strategy::LeastConn(_) | Strategy::P2c(_) | Strategy::LeastResponse(_)
        )
    }

    /// Slow start where weights are baked in: a backend that ramps up takes that share of what falls to it, and what it
    /// does not take is chosen anew among the others. The same keys stay with it as the share grows: each moves once.
    #[cold]
    fn ramped(&self, first: usize, pick: &Pick<'_>, local: &mut Local) -> usize {
        let mut tried = [0; RAMP_TRIED + RAMP_TRIES];
        let mut len = pick.candidates.tried().len();
        if len > RAMP_TRIED {
            return first;
        }
        for (to, from) in tried.iter_mut().zip(pick.candidates.tried()) {
            *to = *from;
        }
        let by_key = pick.key.map(ramp_draw);
        let mut chosen = first;
        for _ in 0..RAMP_TRIES {
            let ramp = pick.ramp(chosen);
            if ramp >= 1.0 || by_key.unwrap_or_else(|| local.random.f32()) < ramp {
                return chosen;
            }
            let (Some(slot), Ok(index)) = (tried.get_mut(len), u16::try_from(chosen)) else {
                return first;
            };
            *slot = index;
            len += 1;
            let others = Pick {
                candidates: pick.candidates.with_tried(tried.get(..len).unwrap_or_default()),
                ..*pick
            };
            match self.choose(&others, local) {
                Some(other) => chosen = other,
                None => return first,
            }
        }
        first
    }
}

/// What decides for a key whether it goes to a backend that ramps up: 0 to 1, the same for all backends.
fn ramp_draw(key: u64) -> f32 {
    (hash::mix(!key) >> 40) as f32 / (1 << 24) as f32
}

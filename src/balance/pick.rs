//! What a strategy may look at for one pick, and what a worker keeps for its picks.

use std::sync::Arc;
use std::time::Duration;

use super::budget::RetryBudget;
use super::liveness::Candidates;
use super::prequal::ProbePool;
use super::shared::Shared;
use super::tail::Tail;
use crate::clock::Millis;

/// The least share of its weight that a backend has at the start of its ramp.
const RAMP_FLOOR: f32 = 0.05;

/// One backend of a pool, by its position.
#[derive(Clone, Debug)]
pub struct Member {
    pub shared: Arc<Shared>,
    /// What hashing strategies know it by, whatever its position: its address as configured.
    pub identity: Box<str>,
    pub weight: u16,
    /// Tier under `failover`: lower ones first.
    pub priority: u16,
    /// Takes part only where too few of the others are left.
    pub backup: bool,
    inverse_weight: f32,
}

impl Member {
    pub fn new(shared: Arc<Shared>, identity: &str, weight: u16) -> Self {
        Member {
            shared,
            identity: identity.into(),
            weight,
            priority: 0,
            backup: false,
            inverse_weight: 1.0 / f32::from(weight.max(1)),
        }
    }

    /// [`Pick::load`] as if it was not ramping up.
    #[inline]
    pub fn load(&self) -> f32 {
        (self.shared.in_flight() + 1) as f32 * self.inverse_weight
    }

    pub fn in_tier(mut self, priority: u16, backup: bool) -> Self {
        self.priority = priority;
        self.backup = backup;
        self
    }
}

/// One pick.
#[derive(Debug)]
pub struct Pick<'a> {
    pub members: &'a [Member],
    pub candidates: Candidates<'a>,
    pub now: Millis,
    /// The hash of what the request is known by; none: it has no key.
    pub key: Option<u64>,
    /// The length of the ramp, while somebody is on it.
    pub slow_start: Option<Duration>,
}

impl Pick<'_> {
    /// The share of its weight that a backend has now: 1 unless it is ramping up.
    #[inline]
    pub fn ramp(&self, index: usize) -> f32 {
        self.members.get(index).map_or(1.0, |member| self.ramp_of(member))
    }

    /// [`Pick::ramp`] of a member.
    #[inline]
    pub fn ramp_of(&self, member: &Member) -> f32 {
        let Some(length) = self.slow_start else {
            return 1.0;
        };
        match member.shared.ramp_from() {
            None => 1.0,
            Some(from) => {
                let share = (self.now - from).as_secs_f32() / length.as_secs_f32().max(0.001);
                share.clamp(RAMP_FLOOR, 1.0)
            }
        }
    }

    /// Attempts of a backend under way, over all workers.
    #[inline]
    pub fn in_flight(&self, index: usize) -> u32 {
        self.members
            .get(index)
            .map_or(0, |member| member.shared.in_flight())
    }

    /// A backend's weight as it counts now: less while it ramps up.
    #[inline]
    pub fn weight(&self, index: usize) -> f32 {
        self.members
            .get(index)
            .map_or(0.0, |member| f32::from(member.weight) * self.ramp_of(member))
    }

    /// What one attempt more would make of a backend's attempts in flight over its weight.
    #[inline]
    pub fn load(&self, index: usize) -> f32 {
        self.members
            .get(index)
            .map_or(f32::INFINITY, |member| self.load_of(member))
    }

    /// [`Pick::load`] of a member.
    #[inline]
    pub fn load_of(&self, member: &Member) -> f32 {
        let load = member.load();
        if self.slow_start.is_none() {
            load
        } else {
            load / self.ramp_of(member)
        }
    }
}

/// What one worker (or one load balancer of the simulator) keeps for itself between picks.
#[derive(Debug)]
pub struct Local {
    pub random: fastrand::Rng,
    /// What retries may cost.
    pub budget: RetryBudget,
    /// How slow the slowest of twenty is, for hedging.
    pub tail: Tail,
    /// What backends answered to the probes of `prequal`.
    pub probes: ProbePool,
}

impl Local {
    /// Without a bound on retries other than the configuration's default for one worker.
    pub fn new(seed: u64) -> Self {
        Local {
            random: fastrand::Rng::with_seed(seed),
            budget: RetryBudget::new(20, 10.0, Millis(0)),
            tail: Tail::default(),
            probes: ProbePool::default(),
        }
    }

    /// With this worker's share of the retry budget: per cent of its requests, and its part of `min_per_second`.
    pub fn with_budget(mut self, percent: u8, min_per_second: u32, workers: usize) -> Self {
        self.set_budget(percent, min_per_second, workers);
        self
    }

    pub fn set_budget(&mut self, percent: u8, min_per_second: u32, workers: usize) {
        self.budget
            .set(percent, min_per_second as f32 / workers.max(1) as f32);
    }

    /// The pool has changed: what is known by position means nothing any more.
    pub fn forget_positions(&mut self) {
        self.probes.clear();
    }
}

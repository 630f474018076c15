//! A backend as `GET /backends` shows it. Plain data: whoever knows the backends fills it in, this module writes it.
//!
//! Moments are written as RFC 3339 in UTC, durations in nanoseconds as in the metrics.

use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::balance::breaker;
use crate::balance::shared::{Flag, Shared};

/// One backend, now.
#[derive(Clone, Debug, Serialize)]
pub struct BackendView {
    pub pool: String,
    /// Unique in its pool.
    pub name: String,
    /// As written in the configuration.
    pub url: String,
    pub state: Condition,
    /// Since when it is in `state`.
    #[serde(serialize_with = "moment")]
    pub since: SystemTime,
    /// What put it there, in a few words.
    pub why: String,
    /// Whether the health thread says up.
    pub healthy: bool,
    /// Whether a pick may choose it: under panic also one that is not healthy.
    pub eligible: bool,
    /// In force: the configuration's, or what was set at run time.
    pub weight: u16,
    pub priority: u16,
    pub backup: bool,
    /// Attempts under way, over all workers.
    pub in_flight: u64,
    /// Open connections, over all workers.
    pub connections_open: u64,
    /// The same by worker, as far as it is known: worker 0 first.
    pub connections: Vec<Connections>,
    pub breaker: BreakerView,
    /// The moving average of its response times; none without a sample.
    pub ewma_latency_ns: Option<u64>,
    pub ejections: Ejections,
    /// None before the first probe, and where nobody probes.
    pub last_probe: Option<Probe>,
    pub overrides: Overrides,
}

/// One word for what a backend is. Of several that hold, the first one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// By the operator: nothing goes there.
    Maintenance,
    /// By the operator: only what sticks to it goes there.
    Draining,
    /// Its weight is 0.
    Disabled,
    /// Nobody listens there.
    Dead,
    /// The probes say so.
    Down,
    /// Taken out by what its traffic showed.
    Ejected,
    /// Its breaker is open, or half-open with all trials given out.
    Broken,
    /// On its way to its whole weight.
    Ramping,
    Up,
}

impl Condition {
    /// All of them.
    pub const ALL: [Condition; 9] = [
        Condition::Maintenance,
        Condition::Draining,
        Condition::Disabled,
        Condition::Dead,
        Condition::Down,
        Condition::Ejected,
        Condition::Broken,
        Condition::Ramping,
        Condition::Up,
    ];

    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Condition::Maintenance => "maintenance",
            Condition::Draining => "draining",
            Condition::Disabled => "disabled",
            Condition::Dead => "dead",
            Condition::Down => "down",
            Condition::Ejected => "ejected",
            Condition::Broken => "broken",
            Condition::Ramping => "ramping",
            Condition::Up => "up",
        }
    }

    /// What the shared state says of a backend of this weight.
    pub fn of(shared: &Shared, weight: u16) -> Condition {
        let found = [
            (shared.has(Flag::Maintenance), Condition::Maintenance),
            (shared.has(Flag::Draining), Condition::Draining),
            (weight == 0, Condition::Disabled),
            (shared.has(Flag::Dead), Condition::Dead),
            (shared.has(Flag::ProbeDown), Condition::Down),
            (shared.has(Flag::Ejected), Condition::Ejected),
            (shared.has(Flag::Broken), Condition::Broken),
            (shared.ramp_from().is_some(), Condition::Ramping),
        ];
        let first = found.into_iter().find(|(holds, _)| *holds);
        first.map_or(Condition::Up, |(_, condition)| condition)
    }
}

/// One worker's connections to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Connections {
    pub open: u64,
    /// Of `open`.
    pub idle: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct BreakerView {
    #[serde(serialize_with = "breaker_word")]
    pub state: breaker::State,
    /// How often it opened.
    pub opened: u64,
    /// How often it was due to open but would have left too few of the pool.
    pub held: u64,
}

/// What was done to a backend for its traffic.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Ejections {
    pub count: u64,
    /// How often one was due but would have left too few of the pool.
    pub held: u64,
    /// When the present one ends in a trial.
    #[serde(serialize_with = "maybe_moment")]
    pub until: Option<SystemTime>,
}

/// One probe's result.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    #[serde(serialize_with = "moment")]
    pub at: SystemTime,
    pub good: bool,
    /// None where no answer came, and for a connect alone.
    pub status: Option<u16>,
    pub took_ns: u64,
    /// What was wrong with it.
    pub error: Option<String>,
}

/// What was set at run time, over the configuration and over reloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overrides {
    /// [`Condition::Draining`] or [`Condition::Maintenance`].
    pub state: Option<Condition>,
    pub weight: Option<u16>,
}

fn moment<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::log::timestamp(*at))
}

fn maybe_moment<S: Serializer>(at: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => moment(at, serializer),
        None => serializer.serialize_none(),
    }
}

fn breaker_word<S: Serializer>(state: &breaker::State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match state {
        breaker::State::Closed => "CLOSED",
        breaker::State::Open => "OPEN",
        breaker::State::HalfOpen => "HALF-OPEN",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;

    #[test]
    fn of_several_conditions_the_gravest_is_shown() {
        let shared = Shared::default();
        assert_eq!(Condition::of(&shared, 1), Condition::Up);
        shared.set_ramp(Some(Millis(5)));
        assert_eq!(Condition::of(&shared, 1), Condition::Ramping);
        for (flag, condition) in [
            (Flag::Broken, Condition::Broken),
            (Flag::Ejected, Condition::Ejected),
            (Flag::ProbeDown, Condition::Down),
            (Flag::Dead, Condition::Dead),
        ] {
            shared.set(flag, true);
            assert_eq!(Condition::of(&shared, 1), condition);
        }
        assert_eq!(Condition::of(&shared, 0), Condition::Disabled);
        shared.set(Flag::Draining, true);
        assert_eq!(Condition::of(&shared, 0), Condition::Draining);
        shared.set(Flag::Maintenance, true);
        assert_eq!(Condition::of(&shared, 1), Condition::Maintenance);
    }
}

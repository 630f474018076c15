//! A pool of backends as picks see it: who may be chosen now, by one table of precedence, and what attempts teach.

use super::Strategy;
use super::breaker::Permit;
use super::liveness::{Bitmap, Candidates};
use super::pick::{Local, Member, Pick};
use crate::clock::Millis;
use crate::config::model::{self, Config};

/// What of the configuration decides about a pool.
#[derive(Clone, Debug)]
pub struct Settings {
    pub strategy: model::Strategy,
}

impl Settings {
    pub fn of(config: &Config) -> Self {
        Settings {
            strategy: config.strategy.clone(),
        }
    }
}

/// What an exchange asks a pool for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub now: Millis,
    /// The hash of what the request is known by.
    pub key: Option<u64>,
    /// Positions that this exchange has tried.
    pub tried: &'a [u16],
}

/// Who was chosen, and by what right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub index: usize,
    pub permit: Permit,
}

#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    strategy: Strategy,
    settings: Settings,
    eligible: Bitmap,
}

impl Pool {
    pub fn new(settings: Settings, members: Vec<Member>) -> Self {
        let eligible = Bitmap::new(members.len(), false);
        for (index, member) in members.iter().enumerate() {
            eligible.set(index, member.weight > 0);
        }
        Pool {
            strategy: Strategy::new(&settings.strategy, &members),
            members,
            settings,
            eligible,
        }
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Who may be chosen now.
    pub fn eligible(&self) -> &Bitmap {
        &self.eligible
    }

    /// The backend for the next attempt; none if nobody is eligible.
    #[inline]
    pub fn pick(&self, ask: &Ask<'_>, local: &mut Local) -> Option<Choice> {
        let pick = Pick {
            members: &self.members,
            candidates: Candidates::new(&self.eligible, ask.tried),
            now: ask.now,
            key: ask.key,
            slow_start: None,
        };
        let index = self.strategy.pick(&pick, local)?;
        Some(Choice {
            index,
            permit: Permit::Free,
        })
    }
}

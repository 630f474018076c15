//! A load balancer of the simulation: one view of the pool that its workers share, and nothing shared with any other. The
//! only file of the simulator that calls `balance`.

use std::sync::Arc;
use std::time::Duration;

use super::{Nanos, SECOND, stream_seed};
use crate::balance::outcome::Outcome;
use crate::balance::pick::{Local, Member};
use crate::balance::pool::{Ask, Choice, Pool, Settings};
use crate::balance::shared::Shared;
use crate::clock::Millis;
use crate::config::model::Config;

/// What `balance` takes for the time when a simulation begins: 0 means "never" there.
const BEGINNING: u64 = 1_000_000;

/// `balance` counts in milliseconds.
#[inline]
pub fn millis(now: Nanos) -> Millis {
    Millis(BEGINNING + now / (SECOND / 1000))
}

#[derive(Debug)]
pub struct Balancer {
    pool: Pool,
    workers: Vec<Local>,
}

impl Balancer {
    pub fn new(config: &Config, workers: usize, seed: u64) -> Self {
        let member = |backend: &crate::config::model::Backend| {
            Member::new(Arc::new(Shared::default()), &backend.url, backend.weight)
                .in_tier(backend.priority, backend.backup)
        };
        let members = config.backends.iter().map(member).collect();
        let local = |worker: usize| Local::new(stream_seed(seed, worker as u64));
        Balancer {
            pool: Pool::new(Settings::of(config), members),
            workers: (0..workers).map(local).collect(),
        }
    }

    /// Chooses for one attempt, which begins by that; none if nobody is eligible.
    #[inline]
    pub fn begin(&mut self, now: Nanos, worker: usize, key: Option<u64>, tried: &[u16]) -> Option<Choice> {
        let now = millis(now);
        let ask = Ask { now, key, tried };
        let choice = self.pool.pick(&ask, &mut self.workers[worker])?;
        self.pool.members()[choice.index].shared.begin(now);
        Some(choice)
    }

    /// An attempt ended so, after `took`.
    #[inline]
    pub fn end(&mut self, _now: Nanos, choice: Choice, _outcome: Outcome, _took: Duration) {
        self.pool.members()[choice.index].shared.end();
    }
}

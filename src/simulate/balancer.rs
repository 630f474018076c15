//! A load balancer of the simulation: one view of the pool that its workers share, and nothing shared with any other. The
//! only file of the simulator that calls `balance` to choose and to learn; what happens around it is as in `proxy`.

use std::sync::Arc;
use std::time::Duration;

use super::{Nanos, SECOND, stream_seed};
use crate::balance::liveness::Candidates;
use crate::balance::outcome::Outcome;
use crate::balance::pick::{Local, Member};
use crate::balance::pool::{Ask, Choice, Event, Pool, Settings, Verdict};
use crate::balance::shared::Shared;
use crate::clock::Millis;
use crate::config::model::{Backend, Config, HealthCheck};

/// What `balance` takes for the time when a simulation begins: 0 means "never" there.
const BEGINNING: u64 = 1_000_000;

/// Probes of one backend that were asked for are at least so far apart.
const ASKED_SPACING: Nanos = SECOND / 10;

/// `balance` counts in milliseconds.
#[inline]
fn millis(now: Nanos) -> Millis {
    Millis(BEGINNING + now / (SECOND / 1000))
}

#[derive(Debug)]
pub struct Balancer {
    pool: Pool,
    workers: Vec<Local>,
    check: HealthCheck,
    /// By backend.
    health: Vec<Health>,
}

/// What probes have shown of one backend, and when the next one is due.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    good: u32,
    bad: u32,
    down: bool,
    /// The next probe: never while one is under way, or where nobody probes.
    pub next: Nanos,
    last: Nanos,
    asked: bool,
}

impl Health {
    const UNKNOWN: Health = Health {
        good: 0,
        bad: 0,
        down: false,
        next: Nanos::MAX,
        last: 0,
        asked: false,
    };
}

impl Balancer {
    pub fn new(config: &Config, workers: usize, seed: u64) -> Self {
        let member = |backend: &Backend| {
            Member::new(Arc::new(Shared::default()), &backend.url, backend.weight)
                .in_tier(backend.priority, backend.backup)
        };
        let retry = &config.retry;
        let local = |worker: usize| {
            let local = Local::new(stream_seed(seed, worker as u64));
            local.with_budget(retry.budget, retry.min_per_second, workers)
        };
        Balancer {
            pool: Pool::new(Settings::of(config), config.backends.iter().map(member).collect()),
            workers: (0..workers).map(local).collect(),
            check: config.health_check.clone(),
            health: vec![Health::UNKNOWN; config.backends.len()],
        }
    }

    /// A request has arrived.
    #[inline]
    pub fn request(&mut self, now: Nanos, worker: usize) {
        self.workers[worker].budget.request(millis(now));
    }

    /// Chooses for one attempt, which begins by that; none if nobody is eligible.
    #[inline]
    pub fn begin(&mut self, now: Nanos, worker: usize, key: Option<u64>, tried: &[u16]) -> Option<Choice> {
        let now = millis(now);
        let ask = Ask {
            now,
            key,
            sticky: None,
            tried,
            may_try: true,
        };
        let choice = self.pool.pick(&ask, &mut self.workers[worker])?;
        self.pool.members()[choice.index].shared.begin(now);
        Some(choice)
    }

    /// An attempt ended so, `took` after it began. `happened` is told the names of what came of it.
    #[inline]
    pub fn end(
        &mut self,
        now: Nanos,
        choice: Choice,
        outcome: Outcome,
        took: Duration,
        happened: &mut impl FnMut(&'static str),
    ) {
        let events = &mut |event| happened(name(event));
        self.pool.settle(choice, outcome, took, millis(now), events);
        self.pool.members()[choice.index].shared.end();
    }

    /// Whether the budget pays for another attempt.
    pub fn pay(&mut self, now: Nanos, worker: usize) -> bool {
        self.workers[worker].budget.take(millis(now))
    }

    /// An attempt that the budget had paid for went well.
    pub fn give_back(&mut self, now: Nanos, worker: usize) {
        self.workers[worker].budget.give_back(millis(now));
    }

    /// Whether somebody is left that was not tried.
    pub fn has_untried(&self, tried: &[u16]) -> bool {
        Candidates::new(self.pool.eligible(), tried).count() > 0
    }

    pub fn tick(&mut self, now: Nanos, happened: &mut impl FnMut(&'static str)) {
        self.pool.tick(millis(now), &mut |event| happened(name(event)));
    }

    /// What is known of a backend's health.
    pub fn health(&mut self, backend: usize) -> &mut Health {
        &mut self.health[backend]
    }

    /// When a probe that a failed connect has asked for is to begin; none if none was asked for, or one is under way.
    pub fn asked_probe(&mut self, now: Nanos, backend: usize) -> Option<Nanos> {
        let health = &mut self.health[backend];
        let asked = self.pool.members()[backend].shared.take_probe_request();
        if !asked || health.next == Nanos::MAX {
            return None;
        }
        health.asked = true;
        health.next = now.max(health.last + ASKED_SPACING);
        Some(health.next)
    }

    /// A probe of a backend begins.
    pub fn probe_begins(&mut self, now: Nanos, backend: usize) {
        let health = &mut self.health[backend];
        (health.last, health.next) = (now, Nanos::MAX);
    }

    /// What a probe found; gives the time of the next one.
    pub fn probed(
        &mut self,
        now: Nanos,
        backend: usize,
        outcome: Outcome,
        happened: &mut impl FnMut(&'static str),
    ) -> Nanos {
        let check = &self.check;
        let health = &mut self.health[backend];
        let good = match outcome {
            Outcome::Status(status) => check
                .expect_status
                .iter()
                .any(|range| (range.first..=range.last).contains(&status)),
            _ => false,
        };
        if good {
            (health.good, health.bad) = (health.good + 1, 0);
        } else {
            (health.good, health.bad) = (0, health.bad + 1);
        }
        let asked = std::mem::take(&mut health.asked);
        let unreached = matches!(outcome, Outcome::ConnectRefused | Outcome::ConnectTimeout);
        let verdict = match (good, unreached) {
            (true, _) if health.down && health.good >= check.rise => Some(Verdict::Up),
            (false, true) if health.bad >= check.fall || asked => Some(Verdict::Dead),
            (false, false) if !health.down && health.bad >= check.fall => Some(Verdict::Sick),
            _ => None,
        };
        let changing = if health.down {
            health.good > 0
        } else {
            health.bad > 0
        };
        if let Some(verdict) = verdict {
            let down = verdict != Verdict::Up;
            if std::mem::replace(&mut health.down, down) != down {
                let events = &mut |event| happened(name(event));
                self.pool.probe(backend, verdict, millis(now), events);
                happened(if down { "probes: down" } else { "probes: up" });
            }
        }
        let pace = match (changing, check.fast_interval) {
            (true, Some(fast)) => fast,
            (true, None) => check.interval / 4,
            (false, _) => check.interval,
        };
        self.health[backend].next = now + pace.as_nanos() as Nanos;
        self.health[backend].next
    }
}

/// What `weir simulate --json` calls an event.
fn name(event: Event) -> &'static str {
    match event {
        Event::BreakerOpened { .. } => "breaker: opened",
        Event::BreakerHalfOpen { .. } => "breaker: half-open",
        Event::BreakerClosed { .. } => "breaker: closed",
        Event::BreakerReopened { .. } => "breaker: opened again",
        Event::Ejected { .. } => "outlier: ejected",
        Event::EjectionTrial { .. } => "outlier: on trial",
        Event::Returned { .. } => "outlier: returned",
        Event::Held { .. } => "held",
        Event::Dead { .. } => "dead",
        Event::PanicBegan { .. } => "panic: began",
        Event::PanicEnded { .. } => "panic: ended",
    }
}

//! The circuit breaker of one backend: CLOSED, OPEN, HALF-OPEN, over all workers.
//!
//! It counts and says what is due; whether an opening takes effect is the caller's to decide ([`Effect::WantsToOpen`]),
//! because a breaker knows nothing of the rest of its pool. All that decides is one word ([`super::gate`]): while CLOSED it
//! holds the failures in a row, while OPEN since when, while HALF-OPEN the trials.
//!
//! Called by [`super::pool`] for every attempt, and by the health thread and the operator through it.

use std::time::Duration;

use super::gate::{Finish, Gate, Phase};
use super::sync::{AtomicU32, AtomicU64, Ordering};
use super::window::Window;
use crate::clock::Millis;

pub use super::gate::Permit;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

/// `[circuit_breaker]`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    pub reset_timeout: Duration,
    /// Trials out at once, over all workers; 0 counts as 1.
    pub half_open_requests: u32,
    /// Good trials that close it.
    pub success_threshold: u32,
    /// Per cent of failures within `window` that opens it too.
    pub error_rate: Option<u8>,
    pub window: Duration,
    /// Attempts within `window` below which `error_rate` is not judged.
    pub min_volume: u32,
}

/// What an attempt's end did to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    /// It is due to open: the caller decides, by [`Breaker::open`] or [`Breaker::hold`].
    WantsToOpen,
    /// HALF-OPEN to CLOSED.
    Closed,
    /// HALF-OPEN to OPEN: a trial failed.
    Reopened,
}

/// Shared by all workers; lives as long as its backend.
#[derive(Debug, Default)]
pub struct Breaker {
    gate: Gate,
    /// When it last opened, for showing; what decides is in the word.
    opened_at: AtomicU64,
    /// Openings that did not take effect.
    held: AtomicU32,
    /// Untouched without `error_rate`.
    window: Window,
}

impl Breaker {
    #[inline]
    pub fn state(&self) -> State {
        match self.gate.load().phase() {
            Phase::Passing => State::Closed,
            Phase::Shut => State::Open,
            Phase::Trial => State::HalfOpen,
        }
    }

    /// The right to one attempt: always while CLOSED, never while OPEN, and while HALF-OPEN for as many at once as the
    /// settings say. Each permit goes back once, by [`Self::settle`] or [`Self::give_back`].
    #[inline]
    pub fn admit(&self, settings: &Settings) -> Option<Permit> {
        self.gate.enter(settings.half_open_requests)
    }

    /// An attempt ended, well or not. Attempts that outlived the state they began in change nothing. While CLOSED a
    /// success after a success is one load.
    #[inline]
    pub fn settle(&self, permit: Permit, failed: bool, now: Millis, settings: &Settings) -> Effect {
        match permit {
            Permit::Free if !failed && settings.error_rate.is_none() && self.gate.load().is_untroubled() => {
                Effect::None
            }
            Permit::Free => self.count(failed, now, settings),
            Permit::Trial { generation } => self.end_trial(generation, failed, now, settings),
        }
    }

    fn count(&self, failed: bool, now: Millis, settings: &Settings) -> Effect {
        let word = self.gate.load();
        if word.phase() != Phase::Passing {
            return Effect::None;
        }
        if settings.error_rate.is_some() {
            self.window.record(failed, now, settings.window);
        }
        if !failed {
            if !word.is_untroubled() {
                self.gate
                    .change(|word| (word.phase() == Phase::Passing).then(|| word.passing(0)));
            }
            return Effect::None;
        }
        let before = self
            .gate
            .change(|word| (word.phase() == Phase::Passing).then(|| word.passing(word.low() + 1)));
        match before {
            Some(word) if word.low() + 1 >= u64::from(settings.failure_threshold) => Effect::WantsToOpen,
            Some(_) if self.fails_too_often(now, settings) => Effect::WantsToOpen,
            _ => Effect::None,
        }
    }

    fn fails_too_often(&self, now: Millis, settings: &Settings) -> bool {
        let Some(per_cent) = settings.error_rate else {
            return false;
        };
        let counted = self.window.read(now, settings.window);
        counted.attempts >= u64::from(settings.min_volume)
            && counted.failures * 100 >= counted.attempts * u64::from(per_cent)
    }

    fn end_trial(&self, generation: u32, failed: bool, now: Millis, settings: &Settings) -> Effect {
        let finish = self.gate.finish(
            generation,
            failed,
            settings.success_threshold,
            |word| word.shut(now),
            |word| word.passing(0),
        );
        match finish {
            Finish::Nothing => Effect::None,
            Finish::Passed => {
                self.window.clear();
                Effect::Closed
            }
            Finish::Failed => {
                self.opened_at.store(now.0, Ordering::Relaxed);
                Effect::Reopened
            }
        }
    }

    /// CLOSED to OPEN. True for the one caller that did it.
    pub fn open(&self, now: Millis) -> bool {
        let opened = self
            .gate
            .change(|word| (word.phase() == Phase::Passing).then(|| word.shut(now)))
            .is_some();
        if opened {
            self.opened_at.store(now.0, Ordering::Relaxed);
        }
        opened
    }

    /// An opening that was due does not take effect. Its failures stay counted, so that the next one asks again.
    pub fn hold(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// How often an opening did not take effect.
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// An attempt whose end says nothing about the backend: a trial's place is free again.
    #[inline]
    pub fn give_back(&self, permit: Permit) {
        if let Permit::Trial { generation } = permit {
            self.gate.leave(generation);
        }
    }

    /// OPEN to HALF-OPEN, once it has been open for `reset_timeout`. True for the one caller that did it.
    pub fn due(&self, now: Millis, settings: &Settings) -> bool {
        self.gate
            .begin_trials(|opened_at| now >= opened_at + settings.reset_timeout)
    }

    /// OPEN to HALF-OPEN at once. True for the one caller that did it.
    pub fn half_open(&self) -> bool {
        self.gate.begin_trials(|_| true)
    }

    /// To CLOSED without failures, whatever it was. True for the one caller that took it out of OPEN or HALF-OPEN.
    pub fn close(&self) -> bool {
        let before = self
            .gate
            .change(|word| (!word.is_untroubled()).then(|| word.passing(0)));
        let changed = before.is_some_and(|word| word.phase() != Phase::Passing);
        if changed {
            self.window.clear();
        }
        changed
    }

    /// Whether it is HALF-OPEN and has a place for another trial.
    pub fn trials_free(&self, settings: &Settings) -> bool {
        self.gate.has_trial_place(settings.half_open_requests)
    }

    /// When it last opened; zero if it never did.
    pub fn since(&self) -> Millis {
        let word = self.gate.load();
        match word.phase() {
            Phase::Shut => Millis(word.low()),
            Phase::Passing | Phase::Trial => Millis(self.opened_at.load(Ordering::Relaxed)),
        }
    }

    /// Failures in a row while CLOSED; 0 in the other states.
    pub fn failures(&self) -> u32 {
        let word = self.gate.load();
        match word.phase() {
            Phase::Passing => u32::try_from(word.low()).unwrap_or(u32::MAX),
            Phase::Shut | Phase::Trial => 0,
        }
    }
}

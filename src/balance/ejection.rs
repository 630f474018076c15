//! Taking a backend out by what its traffic showed, and letting it back by one trial.
//!
//! In, out until a time, or on trial: one word ([`super::gate`]) that all workers share. The n-th ejection lasts n times
//! the base, at most [`LONGEST`] times. What makes it the n-th is a step within the word: an ejection raises it by one, and
//! each base time spent in since the last return lowers it by one, so that a backend which stays in for as long as it was
//! out begins anew.
//!
//! Who is to be ejected is [`super::outlier`]'s to say; whether it takes effect is [`super::pool`]'s.

use std::time::Duration;

use super::breaker::Permit;
use super::gate::{Finish, Gate, Phase, Word};
use super::sync::{AtomicU8, AtomicU32, Ordering};
use crate::clock::Millis;

/// The longest ejection, in base times.
pub const LONGEST: u32 = 10;

/// Where a backend stands by its traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    In,
    Out,
    /// It may have one attempt at a time, until one of them ends.
    Trial,
}

/// What took a backend out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EjectReason {
    ConsecutiveGateway = 1,
    Consecutive5xx,
    SuccessRate,
    Latency,
    Silent,
    Refused,
}

impl EjectReason {
    pub const ALL: [EjectReason; 6] = [
        EjectReason::ConsecutiveGateway,
        EjectReason::Consecutive5xx,
        EjectReason::SuccessRate,
        EjectReason::Latency,
        EjectReason::Silent,
        EjectReason::Refused,
    ];

    /// As logs, metrics and the admin API show it.
    pub fn word(self) -> &'static str {
        match self {
            EjectReason::ConsecutiveGateway => "consecutive-gateway",
            EjectReason::Consecutive5xx => "consecutive-5xx",
            EjectReason::SuccessRate => "success-rate",
            EjectReason::Latency => "latency",
            EjectReason::Silent => "silent",
            EjectReason::Refused => "refused",
        }
    }
}

/// What an attempt's end did to an ejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionEffect {
    None,
    /// The trial was good: it is in.
    Returned,
    /// The trial failed: it is out again, for one base time longer than before.
    EjectedAgain,
}

/// Shared by all workers; lives as long as its backend.
#[derive(Debug, Default)]
pub struct Ejection {
    /// The owner's number is since when it is in, the owner's time until when it is out; in ms.
    gate: Gate,
    /// Ejections so far.
    count: AtomicU32,
    /// Ejections that did not take effect.
    held: AtomicU32,
    /// An [`EjectReason`]; 0: none yet.
    reason: AtomicU8,
}

/// Whole base times within `span`.
fn whole(span: Duration, base: Duration) -> u32 {
    let whole = span.as_millis() / base.as_millis().max(1);
    u32::try_from(whole).unwrap_or(u32::MAX)
}

/// Out for one step more than `step`.
fn out(word: Word, step: u32, now: Millis, base: Duration) -> Word {
    let step = (step + 1).min(LONGEST);
    word.shut(now + base.saturating_mul(step)).with_step(step)
}

impl Ejection {
    #[inline]
    pub fn standing(&self) -> Standing {
        match self.gate.load().phase() {
            Phase::Passing => Standing::In,
            Phase::Shut => Standing::Out,
            Phase::Trial => Standing::Trial,
        }
    }

    /// Takes it out; for how long. None if it was not in: of callers that see the same reason one does it.
    pub fn eject(&self, now: Millis, base: Duration) -> Option<Duration> {
        let mut length = Duration::ZERO;
        self.gate.change(|word| {
            if word.phase() != Phase::Passing {
                return None;
            }
            let spent_in = now - Millis(word.low());
            let next = out(word, word.step().saturating_sub(whole(spent_in, base)), now, base);
            length = base.saturating_mul(next.step());
            Some(next)
        })?;
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(length)
    }

    /// An ejection that was due does not take effect.
    pub fn hold(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// Out to trial once its time is over. True for the one caller that did it.
    pub fn due(&self, now: Millis) -> bool {
        self.gate.begin_trials(|until| now >= until)
    }

    /// Out to trial at once. True for the one caller that did it.
    pub fn trial_now(&self) -> bool {
        self.gate.begin_trials(|_| true)
    }

    /// The right to one attempt: always while in, never while out, and for one at a time while on trial. Each permit goes
    /// back once, by [`Self::settle`] or [`Self::give_back`].
    #[inline]
    pub fn admit(&self) -> Option<Permit> {
        self.gate.enter(1)
    }

    /// Whether it is on trial and the trial may go now.
    pub fn trial_free(&self) -> bool {
        self.gate.has_trial_place(1)
    }

    /// An attempt ended, well or not. Only the trial that is awaited changes anything.
    #[inline]
    pub fn settle(&self, permit: Permit, failed: bool, now: Millis, base: Duration) -> EjectionEffect {
        match permit {
            Permit::Free => EjectionEffect::None,
            Permit::Trial { generation } => self.end_trial(generation, failed, now, base),
        }
    }

    fn end_trial(&self, generation: u32, failed: bool, now: Millis, base: Duration) -> EjectionEffect {
        let finish = self.gate.finish(
            generation,
            failed,
            1,
            |word| out(word, word.step(), now, base),
            |word| word.passing(now.0),
        );
        match finish {
            Finish::Nothing => EjectionEffect::None,
            Finish::Passed => EjectionEffect::Returned,
            Finish::Failed => {
                self.count.fetch_add(1, Ordering::Relaxed);
                EjectionEffect::EjectedAgain
            }
        }
    }

    /// An attempt whose end says nothing about the backend: the trial may go again.
    #[inline]
    pub fn give_back(&self, permit: Permit) {
        if let Permit::Trial { generation } = permit {
            self.gate.leave(generation);
        }
    }

    /// In, as if it had never been out (by the operator). True for the one caller that took it out of another state.
    pub fn clear(&self, now: Millis) -> bool {
        self.gate
            .change(|word| Some(word.passing(now.0).with_step(0)))
            .is_some_and(|word| word.phase() != Phase::Passing)
    }

    /// For showing: why it was last ejected. To be set by whoever ejected it.
    pub fn set_reason(&self, reason: EjectReason) {
        self.reason.store(reason as u8, Ordering::Relaxed);
    }

    /// Why it was last ejected; none if it never was.
    pub fn reason(&self) -> Option<EjectReason> {
        let stored = self.reason.load(Ordering::Relaxed);
        EjectReason::ALL
            .into_iter()
            .find(|reason| *reason as u8 == stored)
    }

    /// How often it was ejected, failed trials included.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// How often an ejection did not take effect.
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// Until when it is out; none if it is not.
    pub fn until(&self) -> Option<Millis> {
        let word = self.gate.load();
        (word.phase() == Phase::Shut).then(|| Millis(word.low()))
    }
}

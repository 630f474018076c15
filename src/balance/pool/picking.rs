//! Choosing: who sticks, who is on trial, what the strategy says, and what is left when nobody else is.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::precedence::{UNWELL, is_ejection_on_trial, is_well};
use super::{Ask, Choice, Pool};
use crate::balance::breaker;
use crate::balance::liveness::Candidates;
use crate::balance::pick::{Local, Pick};
use crate::balance::prequal::Due;
use crate::balance::shared::{Flag, Shared};
use crate::balance::tried::TRIED_MAX;

/// How long a trial waits for a request that may be sent again if it fails; then any will do.
const TRIAL_PATIENCE: Duration = Duration::from_secs(5);

/// Picks that may be thrown away, because the trial was taken meanwhile, before an exchange does without.
pub(super) const REPICKS_MAX: usize = 4;

impl Pool {
    /// The backend for the next attempt; none if nobody is eligible.
    #[inline]
    pub fn pick(&self, ask: &Ask<'_>, local: &mut Local) -> Option<Choice> {
        if let Some(choice) = ask.sticky.and_then(|index| self.stick(index, ask)) {
            return Some(choice);
        }
        if self.state.trials.load(Ordering::Relaxed) > 0
            && let Some(choice) = self.pick_trial(ask)
        {
            return Some(choice);
        }
        let Some(index) = self.strategy.pick(&self.scene(ask), local) else {
            return self.pick_spare(ask);
        };
        if !ask.may_try
            && self
                .members
                .get(index)
                .is_some_and(|member| member.shared.is_doubtful(ask.now))
        {
            return self.pick_again(index, ask, local);
        }
        match self.admit(index, ask) {
            Some(choice) => Some(choice),
            None => self.pick_again(index, ask, local),
        }
    }

    /// A retry may cross into the backup tier, also while enough of the others are well.
    #[cold]
    pub(super) fn pick_spare(&self, ask: &Ask<'_>) -> Option<Choice> {
        self.admit(self.spare(ask.tried)?, ask)
    }

    pub(super) fn spare(&self, tried: &[u16]) -> Option<usize> {
        let is_untried = |index: usize| !tried.iter().any(|&tried| usize::from(tried) == index);
        let members = self.members.iter().enumerate();
        members
            .filter(|_| !tried.is_empty())
            .find(|&(index, member)| member.backup && is_well(member) && is_untried(index))
            .map(|(index, _)| index)
    }

    /// Whether somebody is left whom a retry that has tried these may ask.
    pub fn has_untried(&self, tried: &[u16]) -> bool {
        Candidates::new(&self.eligible, tried).count() > 0 || self.spare(tried).is_some()
    }

    /// The backends to ask for their load now that one more request has come: see [`Strategy::probes_due`].
    pub fn probes_due(&self, ask: &Ask<'_>, local: &mut Local) -> Due {
        self.strategy.probes_due(&self.scene(ask), local)
    }

    pub(super) fn scene<'a>(&'a self, ask: &Ask<'a>) -> Pick<'a> {
        let ramping = ask.now.0 < self.state.ramp_until.load(Ordering::Relaxed);
        Pick {
            members: &self.members,
            candidates: Candidates::new(&self.eligible, ask.tried),
            now: ask.now,
            key: ask.key,
            slow_start: ramping.then_some(self.settings.strategy.slow_start),
        }
    }

    /// The one that the request sticks to, also while it drains.
    pub(super) fn stick(&self, index: usize, ask: &Ask<'_>) -> Option<Choice> {
        let flags = self.members.get(index)?.shared.flags();
        let well = flags & (UNWELL | Flag::Maintenance as u32) == 0;
        let tried = ask.tried.iter().any(|&tried| usize::from(tried) == index);
        if tried || !(well || self.eligible.get(index)) {
            return None;
        }
        self.admit(index, ask)
    }

    /// A backend on trial that has a place free: asked for by whoever can be sent again, before any strategy, because a
    /// strategy may have every reason to avoid it. A hashing strategy's trials wait for requests of their own.
    #[cold]
    pub(super) fn pick_trial(&self, ask: &Ask<'_>) -> Option<Choice> {
        if self.settings.hashes() {
            return None;
        }
        Candidates::new(&self.eligible, ask.tried)
            .iter()
            .filter(|&index| self.members[index].shared.has(Flag::OnTrial))
            .find_map(|index| self.admit(index, ask))
    }

    /// Another one than `refused`, whose trial was taken.
    #[cold]
    pub(super) fn pick_again(&self, refused: usize, ask: &Ask<'_>, local: &mut Local) -> Option<Choice> {
        let mut tried = [0; TRIED_MAX + REPICKS_MAX];
        let before = ask.tried.len().min(TRIED_MAX);
        tried[..before].copy_from_slice(&ask.tried[..before]);
        let mut refused = refused;
        for count in before..before + REPICKS_MAX {
            tried[count] = u16::try_from(refused).unwrap_or(u16::MAX);
            let again = Ask {
                tried: &tried[..=count],
                sticky: None,
                ..*ask
            };
            let Some(index) = self.strategy.pick(&self.scene(&again), local) else {
                break;
            };
            let doubtful = !ask.may_try && self.members[index].shared.is_doubtful(ask.now);
            let admitted = if doubtful { None } else { self.admit(index, ask) };
            match admitted {
                Some(choice) => return Some(choice),
                None => refused = index,
            }
        }
        // Nobody else is left: better a request that cannot be sent again on trial than none served.
        let last = Ask {
            may_try: true,
            ..*ask
        };
        Candidates::new(&self.eligible, ask.tried)
            .iter()
            .find_map(|index| self.admit(index, &last))
    }

    /// The right to an attempt at this backend; none if it is on trial and this is not the request for it.
    #[inline]
    pub fn admit(&self, index: usize, ask: &Ask<'_>) -> Option<Choice> {
        let shared = &self.members.get(index)?.shared;
        if shared.flags() & Flag::OnTrial as u32 == 0 {
            return Some(Choice {
                index,
                breaker: breaker::Permit::Free,
                ejection: breaker::Permit::Free,
            });
        }
        self.admit_on_trial(index, shared, ask)
    }

    #[cold]
    pub(super) fn admit_on_trial(&self, index: usize, shared: &Shared, ask: &Ask<'_>) -> Option<Choice> {
        if !self.is_the_one_to_try(shared, ask) {
            return None;
        }
        let mut choice = Choice {
            index,
            breaker: breaker::Permit::Free,
            ejection: breaker::Permit::Free,
        };
        let admitted = match &self.settings.breaker {
            Some(settings) => shared
                .breaker
                .admit(settings)
                .map(|permit| choice.breaker = permit),
            None => Some(()),
        };
        let admitted = admitted.is_some()
            && match shared.ejection.admit() {
                Some(permit) => {
                    choice.ejection = permit;
                    true
                }
                None => {
                    shared.breaker.give_back(choice.breaker);
                    false
                }
            };
        if !admitted {
            // In panic nothing is held back.
            return self.is_panicking().then_some(Choice {
                index,
                breaker: breaker::Permit::Free,
                ejection: breaker::Permit::Free,
            });
        }
        if !self.has_trial_place(shared) {
            self.publish(&mut |_| {});
        }
        Some(choice)
    }

    /// Whether a request may try somebody out: it can be sent again, or a trial has waited long enough for one that can.
    pub(super) fn is_the_one_to_try(&self, shared: &Shared, ask: &Ask<'_>) -> bool {
        ask.may_try || ask.now - shared.trial_since() >= TRIAL_PATIENCE
    }

    pub(super) fn has_trial_place(&self, shared: &Shared) -> bool {
        let breaker_has = self.settings.breaker.as_ref().is_none_or(|settings| {
            shared.breaker.state() != breaker::State::HalfOpen || shared.breaker.trials_free(settings)
        });
        breaker_has && (!is_ejection_on_trial(shared) || shared.ejection.trial_free())
    }
}

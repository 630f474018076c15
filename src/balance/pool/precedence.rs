//! The table: who is eligible, given what is known of everybody, and how that changes with probes, operators and time.

use std::sync::atomic::Ordering;

use super::{Event, Events, Pool, Verdict};
use crate::balance::breaker;
use crate::balance::ejection::Standing;
use crate::balance::pick::Member;
use crate::balance::shared::{Flag, Shared};
use crate::clock::Millis;

/// Reasons that panic brings nobody back from.
const BY_OPERATOR: u32 = Flag::Draining as u32 | Flag::Maintenance as u32;
/// Reasons to be left out although the operator wants the backend in.
pub(super) const UNWELL: u32 =
    Flag::ProbeDown as u32 | Flag::Dead as u32 | Flag::Ejected as u32 | Flag::Broken as u32;

/// How many of a pool's backends are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    /// In service, backups aside.
    pub(super) primaries: usize,
    pub(super) well: usize,
    pub(super) ejected: usize,
    pub(super) backups_well: usize,
    /// In service and not dead, backups aside.
    pub(super) not_dead: usize,
}

/// Who is eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Who is well, backups aside.
    Well,
    /// Who is well, backups included.
    WellAndBackups,
    /// Panic: who is not dead.
    NotDead,
    /// Panic, and all are dead.
    Anybody,
}

impl Pool {
    /// Whether enough are well without this one.
    pub(super) fn leaves_enough(&self, index: usize) -> bool {
        let census = self.census();
        let member = &self.members[index];
        let counted = !member.backup && is_well(member) && !member.shared.has(Flag::OnTrial);
        self.is_enough(
            census.well - usize::from(counted && census.well > 0),
            census.primaries,
        )
    }

    pub(super) fn has_enough(&self) -> bool {
        let census = self.census();
        self.is_enough(census.well, census.primaries)
    }

    fn is_enough(&self, well: usize, of: usize) -> bool {
        well * 100 >= usize::from(self.settings.panic_threshold) * of
    }

    pub(super) fn census(&self) -> Census {
        let mut census = Census::default();
        for member in &self.members {
            let flags = member.shared.flags();
            if member.weight == 0 || flags & BY_OPERATOR != 0 {
                continue;
            }
            let well = flags & (UNWELL | Flag::OnTrial as u32) == 0;
            if member.backup {
                census.backups_well += usize::from(well);
                continue;
            }
            census.primaries += 1;
            census.well += usize::from(well);
            census.ejected += usize::from(flags & Flag::Ejected as u32 != 0);
            census.not_dead += usize::from(flags & Flag::Dead as u32 == 0);
        }
        census
    }

    /// Works the bitmap out anew after a change. Whoever is overtaken by another change meanwhile does it again, so that
    /// the last word is never an old one.
    pub fn publish(&self, events: Events<'_>) {
        self.state.changes.fetch_add(1, Ordering::SeqCst);
        loop {
            let before = self.state.changes.load(Ordering::SeqCst);
            self.publish_once(events);
            if self.state.changes.load(Ordering::SeqCst) == before {
                return;
            }
        }
    }

    fn publish_once(&self, events: Events<'_>) {
        let census = self.census();
        let rule = self.rule(&census);
        let panic = matches!(rule, Rule::NotDead | Rule::Anybody);
        if self.state.panic.swap(panic, Ordering::Relaxed) != panic {
            let (well, of) = (census.well, census.primaries);
            events(if panic {
                Event::PanicBegan { well, of }
            } else {
                Event::PanicEnded { well, of }
            });
        }
        let mut trials = 0;
        for word in 0..self.eligible.words() {
            let mut bits = 0;
            for (bit, member) in self.members.iter().skip(word * 64).take(64).enumerate() {
                let eligible = self.allows(rule, member);
                bits |= u64::from(eligible) << bit;
                trials += u32::from(eligible && member.shared.has(Flag::OnTrial));
            }
            self.eligible.store_word(word, bits);
        }
        self.state.trials.store(trials, Ordering::Relaxed);
    }

    /// By which rule the bitmap is made.
    fn rule(&self, census: &Census) -> Rule {
        let enough = census.well > 0 && self.is_enough(census.well, census.primaries);
        if enough {
            Rule::Well
        } else if census.backups_well > 0 {
            Rule::WellAndBackups
        } else if self.settings.panic_threshold == 0 || census.primaries == 0 {
            Rule::Well
        } else if census.not_dead > 0 {
            Rule::NotDead
        } else {
            Rule::Anybody
        }
    }

    /// By which rule backends may be chosen now, for people.
    pub(super) fn rule_words(&self) -> &'static str {
        match self.rule(&self.census()) {
            Rule::Well => "who is well; backups stand by",
            Rule::WellAndBackups => "who is well, backups included: too few of the others are",
            Rule::NotDead => "panic: too few are well, so everybody who is not dead",
            Rule::Anybody => "panic: all are dead, so everybody",
        }
    }

    fn allows(&self, rule: Rule, member: &Member) -> bool {
        let flags = member.shared.flags();
        if member.weight == 0 || flags & BY_OPERATOR != 0 {
            return false;
        }
        let well = flags & UNWELL == 0
            && (flags & Flag::OnTrial as u32 == 0 || self.has_trial_place(&member.shared));
        let broken = self.settings.ignore_panic && flags & Flag::Broken as u32 != 0;
        match rule {
            Rule::Well => well && !member.backup,
            Rule::WellAndBackups => well,
            Rule::NotDead => flags & Flag::Dead as u32 == 0 && !member.backup && !broken,
            Rule::Anybody => !broken,
        }
    }

    /// Takes in what the health thread found; to be called where it changed.
    pub fn probe(&self, index: usize, verdict: Verdict, now: Millis, events: Events<'_>) {
        let Some(member) = self.members.get(index) else {
            return;
        };
        let shared = &*member.shared;
        let changed = shared.set(Flag::ProbeDown, verdict != Verdict::Up);
        let revived = shared.set(Flag::Dead, verdict == Verdict::Dead);
        if verdict == Verdict::Up && (changed || revived) {
            if shared.breaker.half_open() {
                shared.set(Flag::Broken, false);
                events(Event::BreakerHalfOpen { index });
            }
            if shared.ejection.trial_now() {
                shared.set(Flag::Ejected, false);
                events(Event::EjectionTrial { index });
            }
            self.refresh_trial(shared, now);
            if !shared.has(Flag::OnTrial) {
                self.begin_ramp(index, now);
            }
        }
        self.publish(events);
    }

    /// Sets or clears what the operator said of a backend.
    pub fn set_by_operator(&self, index: usize, flag: Flag, value: bool, events: Events<'_>) {
        if let Some(member) = self.members.get(index) {
            member.shared.set(flag, value);
            self.publish(events);
        }
    }

    /// Lets time pass: open breakers and ejections whose time is over get their trial, ramps end. To be called some ten
    /// times a second, by one thread.
    pub fn tick(&self, now: Millis, events: Events<'_>) {
        for (index, member) in self.members.iter().enumerate() {
            let shared = &*member.shared;
            if let Some(settings) = &self.settings.breaker
                && shared.breaker.due(now, settings)
            {
                shared.set(Flag::Broken, false);
                events(Event::BreakerHalfOpen { index });
            }
            if shared.ejection.due(now) {
                shared.set(Flag::Ejected, false);
                // Nobody probes it: the trial finds out.
                if !self.settings.probed {
                    shared.set(Flag::Dead, false);
                }
                events(Event::EjectionTrial { index });
            }
            self.refresh_trial(shared, now);
            if let Some(from) = shared.ramp_from()
                && now - from >= self.settings.strategy.slow_start
            {
                shared.set_ramp(None);
            }
        }
        // Always: a change made through a snapshot that was just replaced shows here at the latest.
        self.publish(events);
    }

    /// Keeps the flag that sends picks to the permits true.
    pub(super) fn refresh_trial(&self, shared: &Shared, now: Millis) {
        let on_trial = shared.breaker.state() == breaker::State::HalfOpen || is_ejection_on_trial(shared);
        if shared.set(Flag::OnTrial, on_trial) && on_trial {
            shared.set_trial_since(now);
        }
    }

    /// A backend takes traffic again, or for the first time: from little to its whole weight over `slow_start`, unless
    /// half of the pool or more comes back together and there is nobody to carry the rest.
    pub fn begin_ramp(&self, index: usize, now: Millis) {
        let length = self.settings.strategy.slow_start;
        let Some(member) = self.members.get(index).filter(|_| !length.is_zero()) else {
            return;
        };
        member.shared.set_ramp(Some(now));
        let ramping = self
            .members
            .iter()
            .filter(|member| member.shared.ramp_from().is_some())
            .count();
        let in_service = self.census().primaries;
        if in_service == 1 || (ramping > 1 && ramping * 2 >= in_service) {
            self.members
                .iter()
                .for_each(|member| member.shared.set_ramp(None));
            return;
        }
        self.state
            .ramp_until
            .fetch_max((now + length).0, Ordering::Relaxed);
    }
}

pub(super) fn is_ejection_on_trial(shared: &Shared) -> bool {
    shared.ejection.standing() == Standing::Trial
}

pub(super) fn is_well(member: &Member) -> bool {
    member.weight > 0 && member.shared.flags() & (UNWELL | BY_OPERATOR) == 0
}

//! A pool of backends as picks see it: who may be chosen now, by one table of precedence, and what attempts teach.
//!
//! # The table
//! Every reason to leave a backend out is a [`Flag`] on its [`Shared`] state. Whoever changes one (a worker, the health
//! thread, the control thread) publishes anew who is eligible, as a bitmap that picks read. From strongest to weakest:
//!
//! | reason | who says so | overruled by |
//! | --- | --- | --- |
//! | weight 0, draining, maintenance | the operator | nothing |
//! | dead: nobody listens | a refused connect; a probe | nobody else being left |
//! | sick: probe down | the health thread | panic |
//! | ejected, breaker open | traffic | panic; not even begun where it would leave too few (*held*) |
//! | on trial | the end of an ejection or of an open breaker's time | its one free place |
//!
//! Backups join where fewer than `panic_threshold` per cent of the others are well; panic is what comes where no backup is
//! well either. docs/resilience.md says the same for people, and a test walks through every row.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::Strategy;
use super::breaker::{self, Effect};
use super::ejection::{EjectReason, EjectionEffect, Standing};
use super::liveness::{Bitmap, Candidates};
use super::outcome::{FailureSet, Outcome};
use super::outlier::{self, Sample, Seen, SilenceWatch};
use super::pick::{Local, Member, Pick};
use super::prequal::Due;
use super::shared::{Flag, Shared};
use super::tried::TRIED_MAX;
use crate::clock::Millis;
use crate::config::model::{self, Config, HealthCheckKind, StrategyKind};

/// Reasons that panic brings nobody back from.
const BY_OPERATOR: u32 = Flag::Draining as u32 | Flag::Maintenance as u32;
/// Reasons to be left out although the operator wants the backend in.
const UNWELL: u32 = Flag::ProbeDown as u32 | Flag::Dead as u32 | Flag::Ejected as u32 | Flag::Broken as u32;

/// How long a trial waits for a request that may be sent again if it fails; then any will do.
const TRIAL_PATIENCE: Duration = Duration::from_secs(5);

/// How long a backend that gave no answer is spared what can be sent only once, unless it answers before. A run of failures
/// takes it out altogether; this is for the first few, each of which would be a request lost.
const DOUBT: Duration = Duration::from_secs(1);

/// The first ejection of a backend that refused a connect where no probe would find out when it is back.
const REFUSED_EJECTION: Duration = Duration::from_secs(1);

/// Picks that may be thrown away, because the trial was taken meanwhile, before an exchange does without.
const REPICKS_MAX: usize = 4;

/// What of the configuration decides about a pool.
#[derive(Clone, Debug)]
pub struct Settings {
    pub strategy: model::Strategy,
    /// None: off.
    pub breaker: Option<breaker::Settings>,
    /// What counts against the breaker.
    pub failures: FailureSet,
    pub ignore_panic: bool,
    /// Per cent.
    pub panic_threshold: u8,
    pub outlier: model::Outlier,
    /// Whether probes find out when a dead backend is back.
    pub probed: bool,
}

impl Settings {
    pub fn of(config: &Config) -> Self {
        let breaker = &config.circuit_breaker;
        Settings {
            strategy: config.strategy.clone(),
            breaker: breaker.enabled.then(|| breaker::Settings {
                failure_threshold: breaker.failure_threshold,
                reset_timeout: breaker.reset_timeout,
                half_open_requests: breaker.half_open_requests,
                success_threshold: breaker.success_threshold,
                error_rate: breaker.error_rate,
                window: breaker.window,
                min_volume: breaker.min_volume,
            }),
            failures: FailureSet::new(&breaker.failures),
            ignore_panic: breaker.ignore_panic,
            panic_threshold: config.health_check.panic_threshold,
            outlier: config.outlier.clone(),
            probed: config.health_check.kind != HealthCheckKind::Off,
        }
    }

    /// Whether requests belong to certain backends, so that a trial waits for one of its own.
    pub fn hashes(&self) -> bool {
        matches!(
            self.strategy.kind,
            StrategyKind::ConsistentHash | StrategyKind::Maglev
        )
    }
}

/// What an exchange asks a pool for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub now: Millis,
    /// The hash of what the request is known by.
    pub key: Option<u64>,
    /// The position that the request sticks to.
    pub sticky: Option<usize>,
    /// Positions that this exchange has tried, or that have no slot free.
    pub tried: &'a [u16],
    /// The request could be sent again if its backend fails, so it may be the one that tries a backend out.
    pub may_try: bool,
}

/// Who was chosen, and by what right; to be given back by [`Pool::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Choice {
    pub index: usize,
    breaker: breaker::Permit,
    ejection: breaker::Permit,
}

/// What the health thread found of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Up,
    /// The probe failed in another way than at the connect.
    Sick,
    /// The connect was refused, or timed out.
    Dead,
}

impl Verdict {
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Up => "up",
            Verdict::Sick => "sick",
            Verdict::Dead => "dead",
        }
    }
}

/// What changed, to be logged once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    BreakerOpened {
        index: usize,
    },
    BreakerHalfOpen {
        index: usize,
    },
    BreakerClosed {
        index: usize,
    },
    /// A trial failed.
    BreakerReopened {
        index: usize,
    },
    Ejected {
        index: usize,
        reason: EjectReason,
        lasts: Duration,
    },
    EjectionTrial {
        index: usize,
    },
    Returned {
        index: usize,
    },
    /// Opening or ejecting would have left too few.
    Held {
        index: usize,
        what: &'static str,
    },
    Dead {
        index: usize,
    },
    /// The health thread is to look at once.
    ProbeWanted {
        index: usize,
    },
    /// So many of so many are well: the others are used too.
    PanicBegan {
        well: usize,
        of: usize,
    },
    PanicEnded {
        well: usize,
        of: usize,
    },
}

/// Where events go.
pub type Events<'a> = &'a mut dyn FnMut(Event);

#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    strategy: Strategy,
    settings: Settings,
    eligible: Bitmap,
    state: CachePadded<State>,
}

/// Read by every pick, written when something changes.
#[derive(Debug, Default)]
struct State {
    /// Grows with every change that the bitmap must show.
    changes: AtomicU64,
    panic: AtomicBool,
    /// Backends on trial that have a place free.
    trials: AtomicU32,
    /// When the last ramp ends, in milliseconds.
    ramp_until: AtomicU64,
}

/// How many of a pool's backends are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Census {
    /// In service, backups aside.
    primaries: usize,
    well: usize,
    ejected: usize,
    backups_well: usize,
    /// In service and not dead, backups aside.
    not_dead: usize,
}

impl Pool {
    pub fn new(settings: Settings, members: Vec<Member>) -> Self {
        let pool = Pool {
            strategy: Strategy::new(&settings.strategy, &members),
            eligible: Bitmap::new(members.len(), false),
            members,
            settings,
            state: CachePadded::default(),
        };
        pool.publish(&mut |_| {});
        pool
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// Who may be chosen now.
    pub fn eligible(&self) -> &Bitmap {
        &self.eligible
    }

    /// Whether liveness is ignored because too few are well.
    pub fn is_panicking(&self) -> bool {
        self.state.panic.load(Ordering::Relaxed)
    }

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
    fn pick_spare(&self, ask: &Ask<'_>) -> Option<Choice> {
        self.admit(self.spare(ask.tried)?, ask)
    }

    fn spare(&self, tried: &[u16]) -> Option<usize> {
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

    fn scene<'a>(&'a self, ask: &Ask<'a>) -> Pick<'a> {
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
    fn stick(&self, index: usize, ask: &Ask<'_>) -> Option<Choice> {
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
    fn pick_trial(&self, ask: &Ask<'_>) -> Option<Choice> {
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
    fn pick_again(&self, refused: usize, ask: &Ask<'_>, local: &mut Local) -> Option<Choice> {
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
    fn admit_on_trial(&self, index: usize, shared: &Shared, ask: &Ask<'_>) -> Option<Choice> {
        if !ask.may_try && ask.now - shared.trial_since() < TRIAL_PATIENCE {
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

    fn has_trial_place(&self, shared: &Shared) -> bool {
        let breaker_has = self.settings.breaker.as_ref().is_none_or(|settings| {
            shared.breaker.state() != breaker::State::HalfOpen || shared.breaker.trials_free(settings)
        });
        breaker_has && (!is_ejection_on_trial(shared) || shared.ejection.trial_free())
    }

    /// An attempt is over: everything that learns from it does.
    #[inline]
    pub fn settle(&self, choice: Choice, outcome: Outcome, took: Duration, now: Millis, events: Events<'_>) {
        let Some(member) = self.members.get(choice.index) else {
            return;
        };
        let shared = &*member.shared;
        let on_trial = choice.breaker != breaker::Permit::Free || choice.ejection != breaker::Permit::Free;
        if !outcome.says_something() {
            if on_trial {
                shared.breaker.give_back(choice.breaker);
                shared.ejection.give_back(choice.ejection);
                self.publish(events);
            }
            return;
        }
        if outcome.is_failure() {
            shared.latency().record_failure(took, now);
        } else {
            shared.latency().record(took, now);
        }
        match outcome {
            Outcome::Status(_) => {
                shared.set_answered(now);
                shared.trust();
            }
            _ => shared.doubt(now + DOUBT),
        }
        match outcome {
            Outcome::ConnectRefused => self.refused(choice.index, now, events),
            // Dead if the probe finds the same.
            Outcome::ConnectTimeout => self.want_probe(choice.index, events),
            _ => {}
        }
        let mut effect = Effect::None;
        if let Some(settings) = &self.settings.breaker {
            let failed = self.settings.failures.contains(outcome);
            effect = shared.breaker.settle(choice.breaker, failed, now, settings);
        }
        let wants_out = shared.streak.record(outcome, &self.settings.outlier);
        if effect != Effect::None || wants_out.is_some() || on_trial {
            self.after_attempt(choice, outcome, effect, wants_out, now, events);
        }
    }

    /// What follows where an attempt changed more than a count.
    #[cold]
    fn after_attempt(
        &self,
        choice: Choice,
        outcome: Outcome,
        effect: Effect,
        wants_out: Option<EjectReason>,
        now: Millis,
        events: Events<'_>,
    ) {
        let index = choice.index;
        let shared = &*self.members[index].shared;
        if choice.ejection != breaker::Permit::Free {
            let base = self.settings.outlier.base_ejection;
            match shared
                .ejection
                .settle(choice.ejection, outcome.is_failure(), now, base)
            {
                EjectionEffect::None => {}
                EjectionEffect::Returned => {
                    shared.streak.reset();
                    shared.set(Flag::Dead, false);
                    events(Event::Returned { index });
                    self.begin_ramp(index, now);
                }
                EjectionEffect::EjectedAgain => {
                    shared.set(Flag::Ejected, true);
                    let reason = shared.ejection.reason().unwrap_or(EjectReason::Refused);
                    let lasts = shared
                        .ejection
                        .until()
                        .map_or(Duration::ZERO, |until| until - now);
                    events(Event::Ejected { index, reason, lasts });
                }
            }
        }
        match effect {
            Effect::None => {}
            Effect::WantsToOpen => self.open_breaker(index, now, events),
            Effect::Closed => {
                events(Event::BreakerClosed { index });
                self.begin_ramp(index, now);
            }
            Effect::Reopened => {
                shared.set(Flag::Broken, true);
                events(Event::BreakerReopened { index });
            }
        }
        // One of the two is enough: an open breaker says when the next trial is.
        if let Some(reason) = wants_out
            && shared.breaker.state() == breaker::State::Closed
            && !shared.has(Flag::Dead)
        {
            self.eject(index, reason, now, events);
        }
        self.refresh_trial(shared, now);
        self.publish(events);
    }

    /// Keeps the flag that sends picks to the permits true.
    fn refresh_trial(&self, shared: &Shared, now: Millis) {
        let on_trial = shared.breaker.state() == breaker::State::HalfOpen || is_ejection_on_trial(shared);
        if shared.set(Flag::OnTrial, on_trial) && on_trial {
            shared.set_trial_since(now);
        }
    }

    /// A connect was refused: nobody listens there. A probe, or a trial, will tell when somebody does again.
    #[cold]
    fn refused(&self, index: usize, now: Millis, events: Events<'_>) {
        let shared = &*self.members[index].shared;
        if self.settings.probed {
            self.want_probe(index, events);
        } else if shared.ejection.eject(now, REFUSED_EJECTION).is_some() {
            shared.ejection.set_reason(EjectReason::Refused);
            shared.set(Flag::Ejected, true);
        }
        if shared.set(Flag::Dead, true) {
            events(Event::Dead { index });
            self.publish(events);
        }
    }

    fn want_probe(&self, index: usize, events: Events<'_>) {
        if self.settings.probed && self.members[index].shared.ask_probe() {
            events(Event::ProbeWanted { index });
        }
    }

    fn open_breaker(&self, index: usize, now: Millis, events: Events<'_>) {
        let shared = &*self.members[index].shared;
        if self.settings.ignore_panic || self.leaves_enough(index) {
            if !shared.breaker.open(now) {
                return;
            }
            shared.set(Flag::Broken, true);
            // Another worker may have taken out another one at the same time.
            if self.settings.ignore_panic || self.has_enough() {
                shared.set(Flag::Held, false);
                events(Event::BreakerOpened { index });
                return;
            }
            shared.breaker.close();
            shared.set(Flag::Broken, false);
        }
        shared.breaker.hold();
        self.hold(index, "circuit breaker", events);
    }

    fn hold(&self, index: usize, what: &'static str, events: Events<'_>) {
        let shared = &*self.members[index].shared;
        shared.count_held();
        if shared.set(Flag::Held, true) {
            events(Event::Held { index, what });
        }
    }

    /// Takes a backend out for a while by what its traffic showed, unless that leaves too few.
    pub fn eject(&self, index: usize, reason: EjectReason, now: Millis, events: Events<'_>) {
        let Some(member) = self.members.get(index) else {
            return;
        };
        let shared = &*member.shared;
        if shared.flags() & (Flag::Ejected as u32 | Flag::Dead as u32) != 0 || is_ejection_on_trial(shared) {
            return;
        }
        let census = self.census();
        let most = usize::from(self.settings.outlier.max_ejection_percent) * census.primaries / 100;
        if census.ejected + 1 > most.max(1) || !self.leaves_enough(index) {
            return self.hold(index, reason.word(), events);
        }
        let base = self.settings.outlier.base_ejection;
        if let Some(lasts) = shared.ejection.eject(now, base) {
            shared.ejection.set_reason(reason);
            shared.set(Flag::Ejected, true);
            if self.has_enough() {
                shared.set(Flag::Held, false);
                events(Event::Ejected { index, reason, lasts });
            } else {
                shared.ejection.clear(now);
                shared.set(Flag::Ejected, false);
                self.hold(index, reason.word(), events);
            }
            self.publish(events);
        }
    }

    /// Whether enough are well without this one.
    fn leaves_enough(&self, index: usize) -> bool {
        let census = self.census();
        let member = &self.members[index];
        let counted = !member.backup && is_well(member) && !member.shared.has(Flag::OnTrial);
        self.is_enough(
            census.well - usize::from(counted && census.well > 0),
            census.primaries,
        )
    }

    fn has_enough(&self) -> bool {
        let census = self.census();
        self.is_enough(census.well, census.primaries)
    }

    fn is_enough(&self, well: usize, of: usize) -> bool {
        well * 100 >= usize::from(self.settings.panic_threshold) * of
    }

    fn census(&self) -> Census {
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

    /// Compares what the backends did within an interval (about a second), and ejects who does worse than the rest. To be
    /// called by the thread that calls [`Pool::tick`]; `samples` by position.
    pub fn judge(&self, mut samples: Vec<Option<Sample>>, now: Millis, events: Events<'_>) {
        for (sample, member) in samples.iter_mut().zip(&self.members) {
            // Whoever is out already, or not wanted, is no measure for the others.
            if !is_well(member) {
                *sample = None;
            }
        }
        let outlier = &self.settings.outlier;
        if outlier.success_rate {
            for index in outlier::judge_success_rate(&samples, outlier.min_volume) {
                self.eject(index, EjectReason::SuccessRate, now, events);
            }
        }
        if let Some(factor) = outlier.latency_factor {
            for index in outlier::judge_latency(&samples, factor) {
                self.eject(index, EjectReason::Latency, now, events);
            }
        }
    }

    /// Ejects who hangs: from whom nothing comes back while the others answer. `answers` by position, since the start.
    pub fn listen_for_silence(
        &self,
        watch: &mut SilenceWatch,
        answers: &[u64],
        now: Millis,
        events: Events<'_>,
    ) {
        let mut latencies = Vec::with_capacity(self.members.len());
        let seen: Vec<_> = self
            .members
            .iter()
            .zip(answers)
            .map(|(member, &answers)| {
                let shared = &member.shared;
                is_well(member).then(|| {
                    latencies.extend(shared.latency().read(now));
                    Seen {
                        waiting: shared.waiting(),
                        answered: shared.answered(),
                        answers,
                    }
                })
            })
            .collect();
        latencies.sort_by(f32::total_cmp);
        let median = latencies.get(latencies.len() / 2).copied().unwrap_or(0.0);
        let median = Duration::from_micros(median as u64);
        for index in watch.look(&seen, median, now) {
            self.eject(index, EjectReason::Silent, now, events);
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

fn is_ejection_on_trial(shared: &Shared) -> bool {
    shared.ejection.standing() == Standing::Trial
}

fn is_well(member: &Member) -> bool {
    member.weight > 0 && member.shared.flags() & (UNWELL | BY_OPERATOR) == 0
}

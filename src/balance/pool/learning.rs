//! What attempts teach: response times, runs of failures, breaker and ejection, and what statistics show.

use std::time::Duration;

use super::precedence::{is_ejection_on_trial, is_well};
use super::{Choice, Event, Events, Pool};
use crate::balance::breaker::{self, Effect};
use crate::balance::ejection::{EjectReason, EjectionEffect};
use crate::balance::outcome::Outcome;
use crate::balance::outlier::{self, LEAST_WAITING, Sample, Seen, SilenceWatch};
use crate::balance::shared::Flag;
use crate::clock::Millis;

/// How long a backend that gave no answer is spared what can be sent only once, unless it answers before. A run of failures
/// takes it out altogether; this is for the first few, each of which would be a request lost.
const DOUBT: Duration = Duration::from_secs(1);

/// The first ejection of a backend that refused a connect where no probe would find out when it is back.
const REFUSED_EJECTION: Duration = Duration::from_secs(1);

impl Pool {
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
    pub(super) fn after_attempt(
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

    /// A connect was refused: nobody listens there. A probe, or a trial, will tell when somebody does again.
    #[cold]
    pub(super) fn refused(&self, index: usize, now: Millis, events: Events<'_>) {
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

    pub(super) fn want_probe(&self, index: usize, events: Events<'_>) {
        if self.settings.probed && self.members[index].shared.ask_probe() {
            events(Event::ProbeWanted { index });
        }
    }

    pub(super) fn open_breaker(&self, index: usize, now: Millis, events: Events<'_>) {
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

    pub(super) fn hold(&self, index: usize, what: &'static str, events: Events<'_>) {
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
        let seen: Vec<_> = self
            .members
            .iter()
            .zip(answers)
            .map(|(member, &answers)| {
                let shared = &member.shared;
                is_well(member).then(|| Seen {
                    waiting: shared.waiting(),
                    answered: shared.answered(),
                    answers,
                })
            })
            .collect();
        let somebody_waits = seen.iter().flatten().any(|seen| seen.waiting >= LEAST_WAITING);
        let median = if somebody_waits {
            self.median_latency(now)
        } else {
            Duration::ZERO
        };
        for index in watch.look(&seen, median, now) {
            self.eject(index, EjectReason::Silent, now, events);
        }
    }

    /// Of those that are well; zero if nothing is known.
    fn median_latency(&self, now: Millis) -> Duration {
        let well = self.members.iter().filter(|member| is_well(member));
        let mut latencies: Vec<f32> = well
            .filter_map(|member| member.shared.latency().read(now))
            .collect();
        if latencies.is_empty() {
            return Duration::ZERO;
        }
        let middle = latencies.len() / 2;
        let (_, median, _) = latencies.select_nth_unstable_by(middle, f32::total_cmp);
        Duration::from_micros(*median as u64)
    }
}

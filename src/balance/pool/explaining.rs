//! What [`Pool::pick`] would come to now, and why each backend may or may not be chosen. Reads what picks read and changes
//! nothing: no cursor moves, no trial's place is taken. For people.

use std::sync::atomic::Ordering;

use super::picking::REPICKS_MAX;
use super::precedence::{UNWELL, is_ejection_on_trial};
use super::{Ask, Pool};
use crate::balance::breaker;
use crate::balance::ejection::EjectReason;
use crate::balance::explain::{Again, Effort, Outlook};
use crate::balance::liveness::Candidates;
use crate::balance::shared::Flag;
use crate::balance::tried::TRIED_MAX;
use crate::clock::Millis;

/// What decides about a pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The request's cookie.
    Sticky,
    /// A backend on trial, which whoever can be sent again is asked for.
    Trial,
    Strategy,
    /// Nobody may be chosen.
    Nobody,
}

impl By {
    pub const fn word(self) -> &'static str {
        match self {
            By::Sticky => "sticky",
            By::Trial => "trial",
            By::Strategy => "strategy",
            By::Nobody => "nobody",
        }
    }
}

/// What would come of one request.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub by: By,
    /// The chances add up to 1; less where all that may be chosen are full, so that the request would wait.
    pub outlook: Outlook,
    /// Why the backend that the cookie names is not taken; none: it is, or the cookie names none.
    pub unstuck: Option<&'static str>,
    /// The rule by which backends may be chosen now.
    pub rule: &'static str,
}

/// Whether one backend may be chosen, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub eligible: bool,
    /// Why not, or why although it is not well; empty for who is well.
    pub why: &'static str,
    /// What ejected it, if that is why.
    pub ejected_for: Option<EjectReason>,
    /// Until when that is so at least, if that is known.
    pub until: Option<Millis>,
}

impl Standing {
    /// Why not, in full.
    pub fn words(&self) -> String {
        match self.ejected_for {
            Some(reason) => format!("{}: {}", self.why, reason.word()),
            None => self.why.to_owned(),
        }
    }
}

const EJECTED: &str = "ejected for what its traffic showed";
const BROKEN: &str = "its breaker is open";
const FULL: &str = "it is full (limits.max_inflight)";

impl Pool {
    /// What `ask` would come to where a backend has room for `max_in_flight` attempts; none: for any number.
    pub fn explain(&self, ask: &Ask<'_>, max_in_flight: Option<u32>) -> Explanation {
        let effort = self.strategy.effort(self.members.len());
        let (mut by, mut outlook) = self.explain_pick(ask, &effort);
        let mut unstuck = ask
            .sticky
            .filter(|_| by != By::Sticky)
            .map(|index| self.why_unstuck(index, ask));
        let has_room = |index: usize| {
            let member = self.members.get(index);
            max_in_flight.is_none_or(|max| member.is_some_and(|member| member.shared.in_flight() < max))
        };
        let first = outlook.chances();
        if (0..first.len()).any(|index| first[index] > 0.0 && !has_room(index)) {
            // What falls to the next in line may be decided by another.
            let mut then = None;
            let again = Again {
                effort: &effort,
                tries: TRIED_MAX - ask.tried.len().min(TRIED_MAX - 1),
                choose: &mut |tried| {
                    let (by, outlook) = self.explain_pick(&Ask { tried, ..*ask }, &effort);
                    then = (by != By::Nobody).then_some(by).or(then);
                    outlook.chances()
                },
                refusal: &|index| f64::from(u8::from(!has_room(index))),
                last: &|_| {
                    Candidates::new(&self.eligible, ask.tried)
                        .iter()
                        .find(|&index| has_room(index) && self.would_admit(index, ask))
                },
            };
            let anybody = Candidates::new(&self.eligible, ask.tried).iter().any(has_room);
            let chances = if anybody {
                again.settle(ask.tried, &first)
            } else {
                vec![0.0; first.len()]
            };
            if by == By::Sticky {
                unstuck = Some(FULL);
            }
            if matches!(by, By::Sticky | By::Trial) {
                by = then.unwrap_or(By::Strategy);
                outlook.how.push_str(", but it is full");
            }
            for index in 0..self.members.len() {
                if !has_room(index) && (first[index] > 0.0 || self.eligible.get(index)) {
                    outlook.say(index, FULL);
                } else if chances[index] > outlook.seats[index].chance {
                    outlook.say(index, "chosen where another one is full");
                }
            }
            outlook.replace_chances(&chances);
        }
        Explanation {
            by,
            outlook,
            unstuck,
            rule: self.rule_words(),
        }
    }

    /// Whether a backend may be chosen. The first reason of the table of precedence that holds is given.
    pub fn standing(&self, index: usize) -> Standing {
        let eligible = self.eligible.get(index);
        let Some(member) = self.members.get(index) else {
            return Standing {
                eligible: false,
                why: "it is not there",
                ejected_for: None,
                until: None,
            };
        };
        let shared = &*member.shared;
        let reasons = [
            (member.weight == 0, "its weight is 0"),
            (
                shared.has(Flag::Maintenance),
                "the operator has it in maintenance",
            ),
            (
                shared.has(Flag::Draining),
                "the operator drains it: only what sticks to it goes there",
            ),
            (shared.has(Flag::Dead), "nobody listens there"),
            (shared.has(Flag::ProbeDown), "its probes say down"),
            (shared.has(Flag::Ejected), EJECTED),
            (shared.has(Flag::Broken), BROKEN),
            (
                shared.has(Flag::OnTrial) && eligible,
                "on trial: a request that may be sent again goes there first",
            ),
            (
                shared.has(Flag::OnTrial) && !eligible,
                "on trial, and as many are out as may be",
            ),
            (
                member.backup && !eligible,
                "a backup: enough of the others are well",
            ),
            (member.backup, "a backup: too few of the others are well"),
        ];
        let first = reasons.into_iter().find(|(holds, _)| *holds);
        let why = first.map_or("", |(_, why)| why);
        let until = match (why, &self.settings.breaker) {
            (EJECTED, _) => shared.ejection.until(),
            (BROKEN, Some(settings)) if shared.breaker.state() == breaker::State::Open => {
                Some(shared.breaker.since() + settings.reset_timeout)
            }
            _ => None,
        };
        Standing {
            eligible,
            why,
            ejected_for: shared.ejection.reason().filter(|_| why == EJECTED),
            until,
        }
    }

    /// The share of its weight that a backend has now.
    pub fn ramp(&self, index: usize, now: Millis) -> f32 {
        let ask = Ask {
            now,
            key: None,
            sticky: None,
            tried: &[],
            may_try: true,
        };
        self.scene(&ask).ramp(index)
    }

    /// [`Pool::pick`] as an outlook.
    fn explain_pick(&self, ask: &Ask<'_>, effort: &Effort) -> (By, Outlook) {
        let scene = self.scene(ask);
        if let Some(index) = ask.sticky.filter(|&index| self.would_stick(index, ask)) {
            let mut outlook = Outlook::new(&scene, "the request's cookie names its backend");
            outlook.add(index, 1.0);
            outlook.say(index, "the cookie names it");
            return (
                By::Sticky,
                outlook.because(&scene, ["", "", "the cookie names another"]),
            );
        }
        if let Some(index) = self.would_try(ask) {
            let mut outlook = Outlook::new(
                &scene,
                "a backend on trial is asked before any strategy, by a request that may be sent again",
            );
            outlook.add(index, 1.0);
            outlook.say(index, "it is on trial and has a place free");
            return (
                By::Trial,
                outlook.because(&scene, ["", "", "another one is on trial"]),
            );
        }
        let mut outlook = self.strategy.explain(&scene, effort);
        let turned_down = |index: usize| {
            let member = self.members.get(index);
            let doubtful = member.is_some_and(|member| member.shared.is_doubtful(ask.now));
            (!ask.may_try && doubtful) || !self.would_admit(index, ask)
        };
        let first = outlook.chances();
        if first.iter().sum::<f64>() <= 0.0 {
            // A retry may still have a backup to go to.
            let spare = self
                .spare(ask.tried)
                .filter(|&index| self.would_admit(index, ask));
            if let Some(index) = spare {
                outlook.add(index, 1.0);
                outlook.say(index, "a backup that was not tried, for a retry");
            }
            let by = if spare.is_some() { By::Strategy } else { By::Nobody };
            return (by, outlook);
        }
        let refused: Vec<usize> = (0..first.len())
            .filter(|&index| first[index] > 0.0 && turned_down(index))
            .collect();
        if !refused.is_empty() {
            let last = Ask {
                may_try: true,
                ..*ask
            };
            let again = Again {
                effort,
                tries: 1 + REPICKS_MAX,
                choose: &mut |tried| {
                    let others = Ask { tried, ..*ask };
                    self.strategy.explain(&self.scene(&others), effort).chances()
                },
                refusal: &|index| f64::from(u8::from(turned_down(index))),
                last: &|_| {
                    Candidates::new(&self.eligible, ask.tried)
                        .iter()
                        .find(|&index| self.would_admit(index, &last))
                },
            };
            let chances = again.settle(ask.tried, &first);
            for index in refused {
                outlook.say(
                    index,
                    "turned down: it is on trial or has just failed, and this request could not be sent again",
                );
            }
            outlook.replace_chances(&chances);
            if chances.iter().all(|chance| *chance <= 0.0) {
                return (By::Nobody, outlook);
            }
        }
        (By::Strategy, outlook)
    }

    /// [`Pool::stick`] without taking anything.
    fn would_stick(&self, index: usize, ask: &Ask<'_>) -> bool {
        let Some(member) = self.members.get(index) else {
            return false;
        };
        let well = member.shared.flags() & (UNWELL | Flag::Maintenance as u32) == 0;
        let tried = ask.tried.iter().any(|&tried| usize::from(tried) == index);
        !tried && (well || self.eligible.get(index)) && self.would_admit(index, ask)
    }

    fn why_unstuck(&self, index: usize, ask: &Ask<'_>) -> &'static str {
        let standing = self.standing(index);
        if !self.would_admit(index, ask) {
            "on trial, and this is not the request for it"
        } else if standing.why.is_empty() {
            "it was tried, or is full"
        } else {
            standing.why
        }
    }

    /// [`Pool::pick_trial`] without taking anything.
    fn would_try(&self, ask: &Ask<'_>) -> Option<usize> {
        if self.settings.hashes() || self.state.trials.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Candidates::new(&self.eligible, ask.tried)
            .iter()
            .filter(|&index| self.members[index].shared.has(Flag::OnTrial))
            .find(|&index| self.would_admit(index, ask))
    }

    /// [`Pool::admit`] without taking anything.
    fn would_admit(&self, index: usize, ask: &Ask<'_>) -> bool {
        let Some(member) = self.members.get(index) else {
            return false;
        };
        let shared = &*member.shared;
        if !shared.has(Flag::OnTrial) {
            return true;
        }
        if !self.is_the_one_to_try(shared, ask) {
            return false;
        }
        let breaker_admits = match (&self.settings.breaker, shared.breaker.state()) {
            (None, _) | (_, breaker::State::Closed) => true,
            (Some(_), breaker::State::Open) => false,
            (Some(settings), breaker::State::HalfOpen) => shared.breaker.trials_free(settings),
        };
        let out = shared.ejection.until().is_some();
        let ejection_admits = !out && (!is_ejection_on_trial(shared) || shared.ejection.trial_free());
        (breaker_admits && ejection_admits) || self.is_panicking()
    }
}

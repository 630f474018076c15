//! Who may pass to a backend: everybody, nobody, or a few trials at a time. One word that all workers share, which the
//! breaker and the ejection are both made of.
//!
//! # The word
//! | bits | what |
//! | --- | --- |
//! | 62–63 | phase |
//! | 58–61 | step: left to the owner, kept by every change that does not name it |
//! | 40–57 | generation: counts the times that trials began |
//! | 0–39 | passing: the owner's number; shut: the owner's time, in ms; trial: trials that were good (20 bits), trials out (20) |
//!
//! Every change is one compare-and-exchange of the whole, so that of several workers that see the same reason one makes
//! it, and a trial that ends late cannot touch a later round. The generation repeats after 262,144 rounds of trials: a
//! trial would have to stay out for all of them to be taken for one of the last.

use super::sync::{AtomicU64, Ordering};
use crate::clock::Millis;

const LOW_BITS: u32 = 40;
const LOW: u64 = (1 << LOW_BITS) - 1;
const TRIAL_BITS: u32 = 20;
const TRIALS: u64 = (1 << TRIAL_BITS) - 1;
const GENERATION_BITS: u32 = 18;
const GENERATIONS: u64 = (1 << GENERATION_BITS) - 1;
const STEP_AT: u32 = LOW_BITS + GENERATION_BITS;
const STEPS: u64 = 15;
const PHASE_AT: u32 = 62;

/// The right to one attempt. It goes back to whoever gave it, once: with how the attempt ended, or unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Everybody may pass (or nobody was asked): nothing to give back.
    Free,
    /// One of a few trials.
    Trial { generation: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Passing,
    Shut,
    Trial,
}

/// What the end of a trial came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// It was of an earlier round, or more good ones are wanted.
    Nothing,
    Passed,
    Failed,
}

/// The word as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    #[inline]
    pub fn phase(self) -> Phase {
        match self.0 >> PHASE_AT {
            0 => Phase::Passing,
            1 => Phase::Shut,
            _ => Phase::Trial,
        }
    }

    /// Passing with the owner's number at 0.
    #[inline]
    pub fn is_untroubled(self) -> bool {
        self.0 & (LOW | 3 << PHASE_AT) == 0
    }

    pub fn step(self) -> u32 {
        (self.0 >> STEP_AT & STEPS) as u32
    }

    fn generation(self) -> u32 {
        (self.0 >> LOW_BITS & GENERATIONS) as u32
    }

    /// The owner's number or time; of a trial nothing that means anything.
    #[inline]
    pub fn low(self) -> u64 {
        self.0 & LOW
    }

    fn trials_out(self) -> u64 {
        self.0 & TRIALS
    }

    fn trials_good(self) -> u64 {
        self.0 >> TRIAL_BITS & TRIALS
    }

    /// Everybody passes. The owner's number is held at the highest that there is room for.
    pub fn passing(self, number: u64) -> Word {
        self.in_phase(0, number)
    }

    /// Nobody passes. A time past the year 34 after the machine's start counts as that.
    pub fn shut(self, time: Millis) -> Word {
        self.in_phase(1, time.0)
    }

    /// A new round of trials, none out and none good.
    fn trial(self) -> Word {
        let generation = (u64::from(self.generation()) + 1) & GENERATIONS;
        let cleared = Word(self.0 & !(GENERATIONS << LOW_BITS));
        Word(cleared.in_phase(2, 0).0 | generation << LOW_BITS)
    }

    pub fn with_step(self, step: u32) -> Word {
        Word(self.0 & !(STEPS << STEP_AT) | u64::from(step).min(STEPS) << STEP_AT)
    }

    fn with_trials(self, out: u64, good: u64) -> Word {
        Word(self.0 & !LOW | good.min(TRIALS) << TRIAL_BITS | out.min(TRIALS))
    }

    fn in_phase(self, phase: u64, low: u64) -> Word {
        Word(self.0 & !(LOW | 3 << PHASE_AT) | phase << PHASE_AT | low.min(LOW))
    }

    /// Whether a trial of `generation` is one of those that are out.
    fn awaits(self, generation: u32) -> bool {
        self.phase() == Phase::Trial && self.generation() == generation && self.trials_out() > 0
    }
}

/// The word, and what may become of it.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicU64);

impl Gate {
    #[inline]
    pub fn load(&self) -> Word {
        Word(self.0.load(Ordering::Acquire))
    }

    /// Makes of the word what `next` says, as often as others come in between; returns what was there before. None if
    /// `next` wants no change.
    pub fn change(&self, mut next: impl FnMut(Word) -> Option<Word>) -> Option<Word> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                next(Word(word)).map(|word| word.0)
            })
            .ok()
            .map(Word)
    }

    /// The right to pass, with at most `at_once` trials out.
    #[inline]
    pub fn enter(&self, at_once: u32) -> Option<Permit> {
        match self.load().phase() {
            Phase::Passing => Some(Permit::Free),
            Phase::Shut => None,
            Phase::Trial => self.enter_trial(at_once),
        }
    }

    #[cold]
    fn enter_trial(&self, at_once: u32) -> Option<Permit> {
        let before = self.change(|word| {
            Self::has_place(word, at_once)
                .then(|| word.with_trials(word.trials_out() + 1, word.trials_good()))
        });
        match before {
            Some(word) => Some(Permit::Trial {
                generation: word.generation(),
            }),
            // The trials may have ended well meanwhile.
            None => (self.load().phase() == Phase::Passing).then_some(Permit::Free),
        }
    }

    /// Whether a trial may go now.
    pub fn has_trial_place(&self, at_once: u32) -> bool {
        Self::has_place(self.load(), at_once)
    }

    fn has_place(word: Word, at_once: u32) -> bool {
        word.phase() == Phase::Trial && word.trials_out() < u64::from(at_once.max(1)).min(TRIALS)
    }

    /// A trial that says nothing gives its place back.
    #[cold]
    pub fn leave(&self, generation: u32) {
        self.change(|word| {
            word.awaits(generation)
                .then(|| word.with_trials(word.trials_out() - 1, word.trials_good()))
        });
    }

    /// A trial ended: a failure makes of the word what `shut` says, the `wanted`-th good one what `pass` says.
    #[cold]
    pub fn finish(
        &self,
        generation: u32,
        failed: bool,
        wanted: u32,
        shut: impl Fn(Word) -> Word,
        pass: impl Fn(Word) -> Word,
    ) -> Finish {
        let mut finish = Finish::Nothing;
        self.change(|word| {
            finish = Finish::Nothing;
            if !word.awaits(generation) {
                return None;
            }
            if failed {
                finish = Finish::Failed;
                return Some(shut(word));
            }
            let good = word.trials_good() + 1;
            if good >= u64::from(wanted).min(TRIALS) {
                finish = Finish::Passed;
                return Some(pass(word));
            }
            Some(word.with_trials(word.trials_out() - 1, good))
        });
        finish
    }

    /// Shut to trial, if `due` says so of the owner's time. True for the one caller that did it.
    pub fn begin_trials(&self, due: impl Fn(Millis) -> bool) -> bool {
        self.change(|word| (word.phase() == Phase::Shut && due(Millis(word.low()))).then(|| word.trial()))
            .is_some()
    }
}

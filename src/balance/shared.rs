//! What all workers know of one backend together. It lives as long as the backend, over every reload.
//!
//! Lines are apart by who writes them: what every attempt writes, what only changes of state write.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::breaker::Breaker;
use super::ejection::Ejection;
use super::latency::Latency;
use super::outlier::Streak;
use crate::clock::Millis;

/// The atomics of one backend.
#[derive(Debug, Default)]
pub struct Shared {
    hot: CachePadded<Hot>,
    condition: CachePadded<Condition>,
    pub breaker: CachePadded<Breaker>,
    pub ejection: CachePadded<Ejection>,
    pub streak: CachePadded<Streak>,
}

/// Written by every attempt.
#[derive(Debug, Default)]
struct Hot {
    in_flight: AtomicU32,
    /// Those of them whose head has come and whose body, or tunnel, goes on.
    streaming: AtomicU32,
    /// When an attempt last began, in milliseconds; 0: never.
    asked: AtomicU64,
    /// When something last came back.
    answered: AtomicU64,
    latency: Latency,
}

/// Written when a backend's state changes.
#[derive(Debug, Default)]
struct Condition {
    flags: AtomicU32,
    /// When it began to take traffic again, in milliseconds; 0: it is not ramping up.
    ramp_from: AtomicU64,
    /// When it was last put on trial, in milliseconds.
    trial_since: AtomicU64,
    /// How often opening or ejecting did not take effect.
    held: AtomicU64,
    /// Until when it is doubtful, in milliseconds; 0: it is not.
    doubtful_until: AtomicU64,
    /// A worker asks for a probe at once.
    probe_asked: AtomicBool,
}

/// One reason why a backend may be left out; a set of them is a `u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Flag {
    /// The health thread says down.
    ProbeDown = 1,
    /// Nobody listens there: a refused connect, or a connect time-out that a probe confirmed.
    Dead = 2,
    /// Out by what its traffic showed, until a trial.
    Ejected = 4,
    /// Its breaker is open and no trial may go.
    Broken = 8,
    /// By the operator: what sticks to it may go on.
    Draining = 16,
    /// By the operator: nothing goes there.
    Maintenance = 32,
    /// Its breaker is half-open or its ejection is over: attempts need a permit.
    OnTrial = 64,
    /// Opening its breaker or ejecting it did not take effect. No reason to leave it out.
    Held = 128,
}

impl Shared {
    /// Attempts under way, over all workers.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.hot.in_flight.load(Ordering::Relaxed)
    }

    /// An attempt begins. To be followed by one [`Shared::end`].
    #[inline]
    pub fn begin(&self, now: Millis) {
        self.hot.in_flight.fetch_add(1, Ordering::Relaxed);
        self.hot.asked.store(now.0, Ordering::Relaxed);
    }

    /// [`begin`](Self::begin), if fewer than `max` attempts are under way.
    #[inline]
    #[must_use]
    pub fn try_begin(&self, now: Millis, max: u32) -> bool {
        let more = |count| (count < max).then_some(count + 1);
        let begun = self
            .hot
            .in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, more)
            .is_ok();
        if begun {
            self.hot.asked.store(now.0, Ordering::Relaxed);
        }
        begun
    }

    #[inline]
    pub fn end(&self) {
        self.hot.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Attempts whose response head is awaited.
    pub fn waiting(&self) -> u32 {
        let streaming = self.hot.streaming.load(Ordering::Relaxed);
        self.in_flight().saturating_sub(streaming)
    }

    /// A body or a tunnel goes on, until the result drops.
    pub fn stream(&self) -> Streaming<'_> {
        self.hot.streaming.fetch_add(1, Ordering::Relaxed);
        Streaming(self)
    }

    /// When an attempt last began; zero if never.
    #[inline]
    pub fn asked(&self) -> Millis {
        Millis(self.hot.asked.load(Ordering::Relaxed))
    }

    /// Something came back.
    #[inline]
    pub fn set_answered(&self, now: Millis) {
        self.hot.answered.store(now.0, Ordering::Relaxed);
    }

    /// When something last came back; zero if never.
    pub fn answered(&self) -> Millis {
        Millis(self.hot.answered.load(Ordering::Relaxed))
    }

    #[inline]
    pub fn latency(&self) -> &Latency {
        &self.hot.latency
    }

    /// Reasons to leave it out, as bits of [`Flag`].
    #[inline]
    pub fn flags(&self) -> u32 {
        self.condition.flags.load(Ordering::Acquire)
    }

    #[inline]
    pub fn has(&self, flag: Flag) -> bool {
        self.flags() & flag as u32 != 0
    }

    /// Sets or clears a flag; says whether that changed it.
    pub fn set(&self, flag: Flag, value: bool) -> bool {
        let bit = flag as u32;
        let before = if value {
            self.condition.flags.fetch_or(bit, Ordering::AcqRel)
        } else {
            self.condition.flags.fetch_and(!bit, Ordering::AcqRel)
        };
        (before & bit != 0) != value
    }

    /// When it began to take traffic again; none: it has its whole weight.
    #[inline]
    pub fn ramp_from(&self) -> Option<Millis> {
        match self.condition.ramp_from.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Millis(since)),
        }
    }

    /// Asks for a probe at once; says whether nobody had. Whoever was the first wakes the health thread.
    #[inline]
    pub fn ask_probe(&self) -> bool {
        // Looking first keeps the line shared among workers that all see the same backend fail.
        !self.condition.probe_asked.load(Ordering::Relaxed)
            && !self.condition.probe_asked.swap(true, Ordering::AcqRel)
    }

    /// Whether somebody asked since the last call. The health thread's.
    pub fn take_probe_request(&self) -> bool {
        self.condition.probe_asked.load(Ordering::Relaxed)
            && self.condition.probe_asked.swap(false, Ordering::AcqRel)
    }

    pub fn set_ramp(&self, from: Option<Millis>) {
        let since = from.map_or(0, |from| from.0.max(1));
        self.condition.ramp_from.store(since, Ordering::Relaxed);
    }

    /// An attempt got no answer: until then, what can be sent only once goes elsewhere.
    pub fn doubt(&self, until: Millis) {
        self.condition.doubtful_until.store(until.0, Ordering::Relaxed);
    }

    /// An attempt was answered.
    #[inline]
    pub fn trust(&self) {
        // Looking first keeps the line shared.
        if self.condition.doubtful_until.load(Ordering::Relaxed) != 0 {
            self.condition.doubtful_until.store(0, Ordering::Relaxed);
        }
    }

    #[inline]
    pub fn is_doubtful(&self, now: Millis) -> bool {
        now.0 < self.condition.doubtful_until.load(Ordering::Relaxed)
    }

    pub fn trial_since(&self) -> Millis {
        Millis(self.condition.trial_since.load(Ordering::Relaxed))
    }

    pub fn set_trial_since(&self, now: Millis) {
        self.condition.trial_since.store(now.0, Ordering::Relaxed);
    }

    /// How often an opening or an ejection did not take effect.
    pub fn held(&self) -> u64 {
        self.condition.held.load(Ordering::Relaxed)
    }

    pub fn count_held(&self) {
        self.condition.held.fetch_add(1, Ordering::Relaxed);
    }
}

/// One attempt whose head has come and whose body, or tunnel, goes on.
#[derive(Debug)]
pub struct Streaming<'a>(&'a Shared);

impl Drop for Streaming<'_> {
    fn drop(&mut self) {
        self.0.hot.streaming.fetch_sub(1, Ordering::Relaxed);
    }
}

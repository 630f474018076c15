//! What the hashing strategies have in common: bounded loads, and the last resort.
//!
//! **Bounded loads** (Mirrokni, Thorup and Zadimoghaddam 2018): a backend is passed over while it has its share of all that
//! is in flight, times `max_load`, rounded up. So one hot key cannot drown its backend. A backend with two or fewer in
//! flight is never passed over: at such loads the bound would only move keys about.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::draw::each;
use super::liveness::Candidates;
use super::pick::{Member, Pick};

/// So many in flight are never too many.
const ALWAYS_ALLOWED: u32 = 2;

/// In pools larger than this the sum of what is in flight is taken once per tick of the clock, not at each pick.
const EXACT_MEMBERS: usize = 64;

/// The bound on a backend's share of what is in flight.
#[derive(Debug)]
pub struct Bound {
    /// Below 1: no bound.
    max_load: f64,
    /// The last sum over weight, an `f32`, above the 32 lowest bits of the tick that it was taken at.
    last: CachePadded<AtomicU64>,
}

impl Bound {
    pub fn new(max_load: f32) -> Self {
        Bound {
            max_load: f64::from(max_load),
            last: CachePadded::default(),
        }
    }

    /// Whether a backend has all that it may have. `per_weight` is worked out at most once in a pick.
    #[inline]
    pub fn is_full(&self, index: usize, pick: &Pick<'_>, per_weight: &mut Option<f64>) -> bool {
        if self.max_load < 1.0 {
            return false;
        }
        self.is_over(index, pick, || {
            *per_weight.get_or_insert_with(|| self.per_weight(pick))
        })
    }

    /// As [`Self::is_full`] for somebody who explains: keeps nothing for other picks.
    pub fn explain_full(&self, index: usize, pick: &Pick<'_>, per_weight: &mut Option<f64>) -> bool {
        let sum = || self.last_sum(pick).unwrap_or_else(|| total(pick));
        self.max_load >= 1.0 && self.is_over(index, pick, || *per_weight.get_or_insert_with(sum))
    }

    /// The bound, for people; empty without one.
    pub fn words(&self) -> String {
        if self.max_load < 1.0 {
            return String::new();
        }
        format!(
            "; who has {} times its share in flight is passed over",
            self.max_load
        )
    }

    #[inline]
    fn is_over(&self, index: usize, pick: &Pick<'_>, per_weight: impl FnOnce() -> f64) -> bool {
        let Some(member) = pick.members.get(index) else {
            return false;
        };
        let in_flight = member.shared.in_flight();
        if in_flight <= ALWAYS_ALLOWED {
            return false;
        }
        // What is a whole number but for rounding is that number.
        let most = (self.max_load * per_weight() * f64::from(member.weight) - 1e-6).ceil();
        f64::from(in_flight) >= most
    }

    /// What is in flight at all candidates and this request, over their weight.
    fn per_weight(&self, pick: &Pick<'_>) -> f64 {
        if pick.members.len() <= EXACT_MEMBERS {
            return total(pick);
        }
        if let Some(last) = self.last_sum(pick) {
            return last;
        }
        let total = total(pick);
        let (bits, tick) = (u64::from((total as f32).to_bits()), pick.now.0 as u32);
        self.last.store(bits << 32 | u64::from(tick), Ordering::Relaxed);
        total
    }

    /// The sum of this tick, in pools where it is taken once.
    fn last_sum(&self, pick: &Pick<'_>) -> Option<f64> {
        let last = self.last.load(Ordering::Relaxed);
        let kept = pick.members.len() > EXACT_MEMBERS && last as u32 == pick.now.0 as u32 && last >> 32 != 0;
        kept.then(|| f64::from(f32::from_bits((last >> 32) as u32)))
    }
}

fn total(pick: &Pick<'_>) -> f64 {
    let (mut in_flight, mut weight) = (1u64, 0u64);
    each(&pick.candidates, |at| {
        if let Some(member) = pick.members.get(at) {
            in_flight += u64::from(member.shared.in_flight());
            weight += u64::from(member.weight);
        }
    });
    in_flight as f64 / weight.max(1) as f64
}

/// The candidate whose hash with the key is the highest, weights counted (rendezvous hashing, Thaler and Ravishankar
/// 1998): consistent like the strategies themselves, but it looks at every candidate. For keys that found nobody in a
/// bounded number of steps, because most of the pool is out. Full ones only where all are.
#[cold]
pub fn rendezvous(
    key: u64,
    identities: &[u64],
    members: &[Member],
    candidates: &Candidates<'_>,
    mut is_full: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let mut best = None;
    each(candidates, |at| {
        let (Some(identity), Some(member)) = (identities.get(at), members.get(at)) else {
            return;
        };
        let hash = super::hash::mix(key ^ identity);
        // Uniform in (0, 1); −w / ln u is highest for each in proportion to its w.
        let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let score = f64::from(member.weight.max(1)) / -uniform.ln();
        let rank = (!is_full(at), score);
        if best.is_none_or(|(_, before)| rank > before) {
            best = Some((at, rank));
        }
    });
    best.map(|(at, _)| at)
}

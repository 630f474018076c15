//! Failover: the eligible backends of the lowest `priority` share all traffic, and those of the next one stand by.
//!
//! Take it for a primary and its replacements, or a near zone and a far one. A tier joins in when fewer than `tier_min`
//! backends are eligible in the tiers before it; those that take part take turns, as under `round-robin`. A retry goes to
//! whoever of these is untried, and then to the next tier: that one exchange has tried a backend brings no tier in for it
//! as long as another is left.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::explain::Outlook;
use super::pick::{Local, Member, Pick};

#[derive(Debug)]
pub struct Failover {
    cursor: CachePadded<AtomicUsize>,
    /// Ranges of `parts`, lowest priority first.
    tiers: Box<[Range<usize>]>,
    parts: Box<[Part]>,
    tier_min: usize,
}

/// The members of one tier among 64 positions.
#[derive(Debug)]
struct Part {
    word: usize,
    mask: u64,
}

impl Failover {
    pub fn new(members: &[Member], tier_min: u32) -> Self {
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by_key(|&at| members[at].priority);
        let mut parts: Vec<Part> = Vec::new();
        let mut tiers = Vec::new();
        for tier in order.chunk_by(|&one, &other| members[one].priority == members[other].priority) {
            let from = parts.len();
            for part in tier.chunk_by(|&one, &other| one / 64 == other / 64) {
                parts.push(Part {
                    word: part[0] / 64,
                    mask: part.iter().fold(0, |mask, &at| mask | 1 << (at % 64)),
                });
            }
            tiers.push(from..parts.len());
        }
        Failover {
            cursor: CachePadded::default(),
            tiers: tiers.into(),
            parts: parts.into(),
            tier_min: tier_min.max(1) as usize,
        }
    }

    /// The next in turn of those that take part. A retry takes nobody's turn: it is drawn.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        let (candidates, end) = self.taking_part(pick);
        if candidates == 0 {
            return None;
        }
        let turn = if pick.candidates.is_retry() {
            local.random.usize(..candidates)
        } else {
            self.cursor.fetch_add(1, Ordering::Relaxed) % candidates
        };
        // Between the count and the look at the bits somebody may have left, or another tier be needed.
        self.nth(pick, end, turn)
            .or_else(|| self.nth(pick, end, 0))
            .or_else(|| self.nth(pick, self.parts.len(), 0))
    }

    /// What [`Self::pick`] would come to.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let (candidates, end) = self.taking_part(pick);
        let order: Vec<usize> = (0..candidates)
            .filter_map(|turn| self.nth(pick, end, turn))
            .collect();
        let outlook = Outlook::new(
            pick,
            format!(
                "the lowest priorities with {} that may be chosen take turns, over all workers",
                self.tier_min
            ),
        );
        let mut outlook = if pick.candidates.is_retry() {
            outlook.draw_alike(pick, &order)
        } else {
            outlook.take_turns(pick, &order, self.cursor.load(Ordering::Relaxed))
        };
        for index in pick.candidates.iter().filter(|index| !order.contains(index)) {
            outlook.say(index, "its tier stands by");
        }
        outlook
    }

    /// How many candidates take part, and where their tiers end among the parts.
    #[inline]
    fn taking_part(&self, pick: &Pick<'_>) -> (usize, usize) {
        let (mut eligible, mut candidates, mut end) = (0, 0, 0);
        for tier in &self.tiers {
            if eligible >= self.tier_min && candidates > 0 {
                break;
            }
            for part in self.parts.get(tier.clone()).unwrap_or_default() {
                let bits = pick.candidates.word(part.word) & part.mask;
                candidates += bits.count_ones() as usize;
                eligible += if pick.candidates.is_retry() {
                    (pick.candidates.eligible_word(part.word) & part.mask).count_ones() as usize
                } else {
                    bits.count_ones() as usize
                };
            }
            end = tier.end;
        }
        (candidates, end)
    }

    /// The candidate with `n` others before it in the first parts.
    fn nth(&self, pick: &Pick<'_>, parts: usize, mut n: usize) -> Option<usize> {
        for part in self.parts.get(..parts)? {
            let mut bits = pick.candidates.word(part.word) & part.mask;
            let here = bits.count_ones() as usize;
            if n >= here {
                n -= here;
                continue;
            }
            (0..n).for_each(|_| bits &= bits - 1);
            return Some(part.word * 64 + bits.trailing_zeros() as usize);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Bench, members};
    use super::*;

    fn bench(priorities: &[u16]) -> Bench {
        let members = members(&vec![1; priorities.len()]).into_iter();
        Bench::of(
            members
                .zip(priorities)
                .map(|(member, tier)| member.in_tier(*tier, false))
                .collect(),
        )
    }

    #[test]
    fn the_first_tier_has_everything_until_too_few_are_left() {
        let mut bench = bench(&[20, 10, 10, 20, 30]);
        let failover = Failover::new(&bench.members, 1);
        let mut counts = |down: &[usize]| {
            bench.all_up();
            down.iter().for_each(|&at| bench.eligible.set(at, false));
            bench.counts(120, |pick, local| failover.pick(pick, local))
        };
        assert_eq!(counts(&[]), [0, 60, 60, 0, 0]);
        assert_eq!(counts(&[1]), [0, 0, 120, 0, 0]);
        assert_eq!(counts(&[1, 2]), [60, 0, 0, 60, 0]);
        assert_eq!(counts(&[0, 1, 2, 3]), [0, 0, 0, 0, 120]);
    }

    #[test]
    fn the_next_tier_joins_those_that_are_left() {
        let mut bench = bench(&[0, 0, 1, 1, 2]);
        let failover = Failover::new(&bench.members, 2);
        let mut counts = |down: &[usize]| {
            bench.all_up();
            down.iter().for_each(|&at| bench.eligible.set(at, false));
            bench.counts(120, |pick, local| failover.pick(pick, local))
        };
        assert_eq!(counts(&[]), [60, 60, 0, 0, 0]);
        assert_eq!(counts(&[1]), [40, 0, 40, 40, 0]);
        assert_eq!(counts(&[0, 1]), [0, 0, 60, 60, 0]);
        assert_eq!(counts(&[0, 2, 3]), [0, 60, 0, 0, 60]);
        assert_eq!(counts(&[0, 2, 3, 4]), [0, 120, 0, 0, 0]);
    }

    #[test]
    fn a_retry_stays_in_the_tier_while_somebody_is_untried() {
        let mut bench = bench(&[0, 0, 1]);
        let failover = Failover::new(&bench.members, 2);
        bench.tried = vec![0];
        assert_eq!(
            bench.counts(50, |pick, local| failover.pick(pick, local)),
            [0, 50, 0]
        );
        bench.tried = vec![0, 1];
        assert_eq!(
            bench.counts(50, |pick, local| failover.pick(pick, local)),
            [0, 0, 50]
        );
        bench.tried = vec![0, 1, 2];
        assert_eq!(bench.pick(|pick, local| failover.pick(pick, local)), None);
    }

    proptest! {
        #[test]
        fn who_is_chosen_takes_part(
            backends in prop::collection::vec((0u16..5, any::<bool>()), 1..150),
            tier_min in 0u32..5,
        ) {
            let tiers: Vec<u16> = backends.iter().map(|(tier, _)| *tier).collect();
            let mut bench = bench(&tiers);
            for (at, (_, up)) in backends.iter().enumerate() {
                bench.eligible.set(at, *up);
            }
            let failover = Failover::new(&bench.members, tier_min);
            let up = |below: u16| backends.iter().filter(|(tier, up)| *up && *tier < below).count();
            let part: Vec<usize> = (0..backends.len())
                .filter(|&at| backends[at].1 && up(backends[at].0) < tier_min.max(1) as usize)
                .collect();
            if part.is_empty() {
                prop_assert_eq!(bench.pick(|pick, local| failover.pick(pick, local)), None);
            } else {
                let counts = bench.counts(part.len() * 3, |pick, local| failover.pick(pick, local));
                for (at, count) in counts.into_iter().enumerate() {
                    prop_assert_eq!(count, if part.contains(&at) { 3 } else { 0 });
                }
            }
        }
    }
}

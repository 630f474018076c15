//! Turns in proportion to weights, spread as evenly as whole turns can be.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Divides `turns` among `weights`: each gets its share rounded down or up (largest remainders first), but one that has a
/// weight at all gets at least one turn. All zero: nobody gets any.
pub fn quantise(weights: &[u16], turns: usize) -> Vec<u32> {
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    if total == 0 {
        return vec![0; weights.len()];
    }
    let turns = turns as u64;
    let mut counts = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    for (at, &weight) in weights.iter().enumerate() {
        let share = u64::from(weight) * turns;
        let whole = share / total;
        if whole == 0 && weight > 0 {
            counts.push(1);
        } else {
            counts.push(whole as u32);
            remainders.push((share % total, Reverse(at)));
        }
    }
    let given: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    if given <= turns {
        remainders.sort_unstable_by(|one, other| other.cmp(one));
        let left = (turns - given) as usize;
        for (_, Reverse(at)) in remainders.into_iter().take(left) {
            counts[at] += 1;
        }
    } else {
        // The smallest got more than their share; whoever has most gives it.
        let mut most: BinaryHeap<(u32, usize)> = counts.iter().copied().zip(0..).collect();
        for _ in 0..given - turns {
            if let Some((count, at)) = most.pop().filter(|(count, _)| *count > 1) {
                counts[at] = count - 1;
                most.push((count - 1, at));
            }
        }
    }
    counts
}

/// A sequence in which each position comes as often as `counts` says, and at no point is more than one turn ahead of or
/// behind its share.
///
/// Turn k of somebody with c of t turns may be taken from ⌊k·t/c⌋ and must be taken before ⌈(k+1)·t/c⌉; of those that may,
/// the one whose end comes first is taken (proportionate fairness, Baruah et al. 1996: earliest deadline first meets all of
/// these on one processor).
pub fn spread(counts: &[u32]) -> Vec<u16> {
    let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
    let mut order = Vec::with_capacity(total as usize);
    // By when a turn may be taken, and by when it must be.
    let mut waiting = BinaryHeap::new();
    let mut ready = BinaryHeap::new();
    for (at, _) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        waiting.push(Reverse((0u64, at, 0u64)));
    }
    for now in 0..total {
        while let Some(&Reverse((_, at, turn))) = waiting.peek().filter(|Reverse((from, ..))| *from <= now) {
            waiting.pop();
            let end = ((turn + 1) * total).div_ceil(u64::from(counts[at]));
            ready.push(Reverse((end, at, turn)));
        }
        let Some(Reverse((_, at, turn))) = ready.pop() else {
            continue;
        };
        order.push(at as u16);
        let next = turn + 1;
        if next < u64::from(counts[at]) {
            waiting.push(Reverse((next * total / u64::from(counts[at]), at, next)));
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn shares_are_rounded_and_nobody_is_left_out(
            weights in prop::collection::vec(prop_oneof![Just(0), 1u16..20, any::<u16>()], 1..60),
            turns in 60usize..70_000,
        ) {
            let counts = quantise(&weights, turns);
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            prop_assume!(total > 0.0);
            prop_assert_eq!(counts.iter().map(|&count| count as usize).sum::<usize>(), turns);
            let raised = weights
                .iter()
                .filter(|&&weight| weight > 0 && f64::from(weight) * turns as f64 / total < 1.0)
                .count() as f64;
            for (&weight, &count) in weights.iter().zip(&counts) {
                let share = f64::from(weight) * turns as f64 / total;
                let count = f64::from(count);
                prop_assert_eq!(weight == 0, count == 0.0);
                prop_assert!(count < share.max(1.0) + 1.0 && count > share - 1.0 - raised);
            }
        }

        #[test]
        fn nobody_is_a_turn_ahead_or_behind(counts in prop::collection::vec(0u32..200, 1..40)) {
            let order = spread(&counts);
            let total = counts.iter().sum::<u32>();
            prop_assert_eq!(order.len(), total as usize);
            let mut had = vec![0.0; counts.len()];
            for (now, &at) in order.iter().enumerate() {
                had[usize::from(at)] += 1.0;
                for (&count, &had) in counts.iter().zip(&had) {
                    let share = f64::from(count) * (now + 1) as f64 / f64::from(total);
                    let ahead: f64 = had - share;
                    prop_assert!(ahead.abs() < 1.0, "{ahead} after {now} of {counts:?}");
                }
            }
        }
    }
}

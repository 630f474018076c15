//! How many attempts may be made a second time: a budget that one worker keeps for its own retries (and hedges).
//!
//! A retry takes a share and gives it back if it succeeds, so that only retries which failed too are paid, as in the retry
//! quota of the AWS SDKs. Two rules, both by this worker's requests and its part of the minimum:
//!
//! 1. Shares taken within the last 10 s, those of retries under way included, are at most `budget` per cent of the
//!    requests of these 10 s, and ten times the minimum per second. This bounds what is under way: when a backend dies,
//!    all that were in its hands may be tried again at once.
//! 2. A retry that fails costs a credit. Each request earns `budget` per cent of one and each second the minimum, but no
//!    more is ever saved than a quarter of a second of requests earns (or two seconds of the minimum). Without a credit
//!    there is no retry. This bounds what a total outage makes of itself from its first second on: what ten good
//!    seconds before it have saved by rule 1 is not for failures to spend.
//!
//! Thus over any time, of n requests, failed retries are at most `budget` per cent of n, and the minimum, and what was saved,
//! and those that were under way together when the credit ran out (they are paid back before the next one goes).

use crate::clock::Millis;

const SECONDS: usize = 10;
/// What is saved at most: what this part of the window's requests earns...
const SAVED_PART: f64 = 1.0 / (SECONDS as f64 * 4.0);
/// ... or the minimum of so many seconds.
const SAVED_SECONDS: f64 = 2.0;

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    requests: u32,
    /// Shares taken and not given back.
    taken: u32,
}

/// See the module's documentation. Not shared: a worker has one for each pool.
#[derive(Debug)]
pub struct RetryBudget {
    /// Credits that a request earns.
    share: f64,
    min_per_second: f64,
    seconds: [Second; SECONDS],
    /// The second that `seconds[second % SECONDS]` counts.
    second: u64,
    /// Sums over `seconds`.
    requests: u64,
    taken: u64,
    credit: f64,
    most_credit: f64,
    /// Until when the minimum was added to `credit`.
    earned_until: Millis,
}

impl RetryBudget {
    /// `budget` in per cent of the requests; `min_per_second` is this worker's part of it.
    pub fn new(budget: u8, min_per_second: f32, now: Millis) -> Self {
        let min_per_second = f64::from(min_per_second.max(0.0));
        let mut made = RetryBudget {
            share: f64::from(budget) / 100.0,
            min_per_second,
            seconds: [Second::default(); SECONDS],
            second: now.0 / 1_000,
            requests: 0,
            taken: 0,
            credit: 0.0,
            most_credit: 0.0,
            earned_until: now,
        };
        made.limit_credit();
        made.credit = made.most_credit;
        made
    }

    /// Other settings from now on; what was counted stays counted.
    pub fn set(&mut self, budget: u8, min_per_second: f32) {
        self.share = f64::from(budget) / 100.0;
        self.min_per_second = f64::from(min_per_second.max(0.0));
        self.limit_credit();
    }

    /// A request came (not its retries).
    #[inline]
    pub fn request(&mut self, now: Millis) {
        self.advance(now);
        self.requests += 1;
        self.this_second().requests += 1;
        self.credit = (self.credit + self.share).min(self.most_credit);
    }

    /// Takes a share for a retry, if there is one. It goes back by one call of [`Self::give_back`] or [`Self::lost`].
    pub fn take(&mut self, now: Millis) -> bool {
        self.advance(now);
        let allowed = self.share * self.requests as f64 + self.min_per_second * SECONDS as f64;
        if self.credit <= 0.0 || (self.taken + 1) as f64 > allowed {
            return false;
        }
        self.taken += 1;
        self.this_second().taken += 1;
        true
    }

    /// The retry succeeded, or came to no end that says anything: it costs nothing.
    pub fn give_back(&mut self, now: Millis) {
        self.advance(now);
        // A retry is seldom under way for longer than a second, so the latest share is the likeliest to be its own.
        let latest = (0..SECONDS as u64).map(|back| slot(self.second.wrapping_sub(back)));
        for at in latest {
            if let Some(second) = self.seconds.get_mut(at).filter(|second| second.taken > 0) {
                second.taken -= 1;
                self.taken -= 1;
                return;
            }
        }
    }

    /// The retry failed too: it costs what it took.
    pub fn lost(&mut self) {
        self.credit -= 1.0;
    }

    #[inline]
    fn this_second(&mut self) -> &mut Second {
        // The remainder is always within the array; the compiler sees it too.
        &mut self.seconds[slot(self.second)]
    }

    #[inline]
    fn advance(&mut self, now: Millis) {
        if now.0 != self.earned_until.0 {
            self.advance_to(now);
        }
    }

    fn advance_to(&mut self, now: Millis) {
        let earned = (now - self.earned_until).as_secs_f64() * self.min_per_second;
        self.credit = (self.credit + earned).min(self.most_credit);
        self.earned_until = self.earned_until.max(now);
        let second = now.0 / 1_000;
        if second <= self.second {
            return;
        }
        // Seconds that have left the window since the last call, and this one, begin empty.
        for passed in 1..=(second - self.second).min(SECONDS as u64) {
            let at = slot(self.second + passed);
            let left = std::mem::take(&mut self.seconds[at]);
            self.requests -= u64::from(left.requests);
            self.taken -= u64::from(left.taken);
        }
        self.second = second;
        self.limit_credit();
    }

    fn limit_credit(&mut self) {
        self.most_credit = (self.requests as f64 * self.share * SAVED_PART)
            .max(self.min_per_second * SAVED_SECONDS)
            .max(1.0);
        self.credit = self.credit.min(self.most_credit);
    }
}

#[inline]
fn slot(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    const MAX_RETRIES: u32 = 2;

    /// What one worker sees: requests that come evenly, attempts that take `took` ms.
    struct Load {
        per_second: u64,
        took: u64,
        budget: u8,
        min_per_second: f32,
    }

    #[derive(Debug, Default)]
    struct Seen {
        requests: u64,
        attempts: u64,
        failed: u64,
    }

    impl Seen {
        fn share_failed(&self) -> f64 {
            self.failed as f64 / self.requests as f64
        }
    }

    impl Load {
        /// Runs from 0 to `until` ms; an attempt that ends at some time fails as `failure` says of that time. Counted is
        /// what begins at `from` or later.
        fn run(&self, from: u64, until: u64, mut failure: impl FnMut(u64) -> bool) -> Seen {
            let mut budget = RetryBudget::new(self.budget, self.min_per_second, Millis(0));
            let mut seen = Seen::default();
            // (when the attempt ends, its number among equals, which of its request's attempts it is)
            let mut under_way: BinaryHeap<Reverse<(u64, u64, u32)>> = BinaryHeap::new();
            let mut number = 0_u64;
            let mut arrivals = 0;
            loop {
                let arrival = arrivals * 1_000 / self.per_second;
                let end = under_way.peek().map(|Reverse((end, ..))| *end);
                if arrival < until && end.is_none_or(|end| arrival <= end) {
                    arrivals += 1;
                    budget.request(Millis(arrival));
                    seen.requests += u64::from(arrival >= from);
                    seen.attempts += u64::from(arrival >= from);
                    under_way.push(Reverse((arrival + self.took, number, 0)));
                    number += 1;
                    continue;
                }
                let Some(Reverse((now, _, retries))) = under_way.pop() else {
                    return seen;
                };
                let failed = failure(now);
                if retries > 0 {
                    if failed {
                        budget.lost();
                    } else {
                        budget.give_back(Millis(now));
                    }
                }
                if !failed {
                    continue;
                }
                if retries < MAX_RETRIES && budget.take(Millis(now)) {
                    seen.attempts += u64::from(now >= from);
                    under_way.push(Reverse((now + self.took, number, retries + 1)));
                    number += 1;
                } else {
                    seen.failed += u64::from(now >= from);
                }
            }
        }
    }

    #[test]
    fn thirty_per_cent_of_random_failures_are_hidden() {
        for (per_second, took) in [(20, 5), (100, 200), (500, 1_000), (5_000, 1), (5_000, 100)] {
            let load = Load {
                per_second,
                took,
                budget: 20,
                min_per_second: 5.0,
            };
            let mut random = fastrand::Rng::with_seed(per_second + took);
            let seen = load.run(0, 300_000_000 / per_second, |_| random.f32() < 0.3);
            // With both retries always: 0.3³ = 2.7 %.
            let failed = seen.share_failed();
            assert!(
                failed <= 0.032,
                "{failed} of {per_second}/s of {took} ms: {seen:?}"
            );
        }
    }

    /// Ten good seconds and more, then everything fails: the outage by itself, from its first second on.
    #[test]
    fn a_total_outage_is_not_amplified() {
        for (per_second, took) in [(20, 1), (1_000, 1), (1_000, 20), (10_000, 1)] {
            for length in [1, 5, 30, 120] {
                let load = Load {
                    per_second,
                    took,
                    budget: 20,
                    min_per_second: 5.0,
                };
                let outage = 30_000 + took;
                let seen = load.run(outage, outage + length * 1_000, |now| now >= outage);
                let saved = (per_second as f64 * 0.2 / 4.0).max(10.0);
                let at_once = (per_second * took).div_ceil(1_000) as f64;
                let most = 1.2 * seen.requests as f64 + 5.0 * length as f64 + saved + at_once + 1.0;
                assert!(
                    seen.attempts as f64 <= most,
                    "{per_second}/s of {took} ms, {length} s: {seen:?}, at most {most}"
                );
                // Nor is it a budget that gives nothing.
                assert!(seen.attempts as f64 >= 1.19 * seen.requests as f64, "{seen:?}");
            }
        }
    }

    /// Failures that take as long as a time-out are known late: what is tried meanwhile is bounded by the last 10 s.
    #[test]
    fn a_total_outage_of_time_outs_is_not_amplified_either() {
        for took in [500, 1_000, 5_000] {
            let load = Load {
                per_second: 1_000,
                took,
                budget: 20,
                min_per_second: 5.0,
            };
            let seen = load.run(20_000, 60_000, |now| now >= 30_000);
            let most = 1.2 * seen.requests as f64 + 5.0 * 50.0;
            assert!(
                seen.attempts as f64 <= most,
                "{took} ms: {seen:?}, at most {most}"
            );
        }
    }

    #[test]
    fn all_that_was_in_the_hands_of_a_dead_backend_is_tried_again() {
        for (per_second, in_its_hands) in [(64, 22), (1_000, 333), (20_000, 64)] {
            let mut budget = RetryBudget::new(20, 5.0, Millis(0));
            for n in 0..per_second * 10 {
                budget.request(Millis(n * 1_000 / per_second));
            }
            for _ in 0..in_its_hands {
                assert!(budget.take(Millis(10_000)));
            }
            for _ in 0..in_its_hands {
                budget.give_back(Millis(10_050));
            }
            assert_eq!(budget.taken, 0);
        }
    }

    #[test]
    fn the_minimum_is_there_without_any_share() {
        let mut budget = RetryBudget::new(0, 2.0, Millis(0));
        let mut taken = 0;
        for now in 0..60_000 {
            budget.request(Millis(now));
            if budget.take(Millis(now)) {
                taken += 1;
                budget.lost();
            }
        }
        assert!((115..=125).contains(&taken), "{taken} in 60 s at 2 per second");
    }

    #[test]
    fn nothing_is_allowed_where_nothing_is_configured() {
        let mut budget = RetryBudget::new(0, 0.0, Millis(0));
        for now in 0..20_000 {
            budget.request(Millis(now));
            assert!(!budget.take(Millis(now)));
        }
        budget.set(20, 0.0);
        assert!(budget.take(Millis(20_000)));
    }

    #[test]
    fn shares_leave_the_window_with_the_requests_that_gave_them() {
        let mut budget = RetryBudget::new(20, 0.0, Millis(0));
        for _ in 0..100 {
            budget.request(Millis(500));
        }
        let take_all =
            |budget: &mut RetryBudget, now| (0..1_000).filter(|_| budget.take(Millis(now))).count();
        assert_eq!(take_all(&mut budget, 600), 20);
        assert_eq!(take_all(&mut budget, 9_999), 0);
        assert_eq!((budget.requests, budget.taken), (100, 20));
        budget.request(Millis(10_000));
        assert_eq!((budget.requests, budget.taken), (1, 0));
        // Far later, and given back too late: nothing is left to go wrong.
        budget.give_back(Millis(1_000_000));
        assert_eq!((budget.requests, budget.taken), (0, 0));
        // A clock that is a moment behind.
        budget.request(Millis(999_000));
        assert_eq!(budget.requests, 1);
    }
}

//! The slow end of a pool's response times as one worker sees it: when a hedge is worth a second attempt.
//!
//! A histogram of sixteen buckets to each power of two of microseconds, so that what it says is at most 1/16 too long
//! and never too short. It forgets by halving whenever it is full: what it knows are the last one to two thousand
//! responses or so, whatever time they took. No clock, nothing shared; 1 KiB.

use std::time::Duration;

const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
/// The longest that has a bucket of its own: some 71 minutes, in µs.
const LONGEST: u64 = u32::MAX as u64;
const BUCKETS: usize = (32 - SUB_BITS as usize + 1) * SUBS;

/// Responses below which nothing is said.
const LEAST: u32 = 100;
/// Responses at which all counts are halved.
const FULL: u32 = 2_048;
/// Responses after which the percentile is worked out anew.
const REFRESH: u32 = 64;

/// See the module's documentation.
#[derive(Debug)]
pub struct Tail {
    buckets: [u16; BUCKETS],
    total: u32,
    until_refresh: u32,
    p95: Option<Duration>,
}

impl Default for Tail {
    fn default() -> Self {
        Self::new()
    }
}

impl Tail {
    pub fn new() -> Self {
        Tail {
            buckets: [0; BUCKETS],
            total: 0,
            until_refresh: LEAST,
            p95: None,
        }
    }

    /// Counts one response time.
    #[inline]
    pub fn record(&mut self, took: Duration) {
        if let Some(count) = self.buckets.get_mut(bucket(micros(took))) {
            *count += 1;
            self.total += 1;
        }
        self.until_refresh -= 1;
        if self.until_refresh == 0 {
            self.refresh();
        }
    }

    /// What 95 of 100 responses do not exceed; none below 100 responses. Up to 64 responses old.
    #[inline]
    pub fn p95(&self) -> Option<Duration> {
        self.p95
    }

    #[cold]
    fn refresh(&mut self) {
        self.until_refresh = REFRESH;
        // Whatever is above the percentile: one of twenty.
        let mut above = self.total / 20;
        for (at, &count) in self.buckets.iter().enumerate().rev() {
            let count = u32::from(count);
            if count > above {
                self.p95 = Some(Duration::from_micros(upper_edge(at)));
                break;
            }
            above -= count;
        }
        if self.total >= FULL {
            self.halve();
        }
    }

    fn halve(&mut self) {
        // What is left over of one bucket goes to the next, or all that is rare would be forgotten at once (or never).
        let mut left = 0;
        self.total = 0;
        for count in &mut self.buckets {
            let sum = *count + left;
            *count = sum / 2;
            left = sum % 2;
            self.total += u32::from(*count);
        }
    }
}

#[inline]
fn micros(took: Duration) -> u64 {
    took.as_secs().min(LONGEST) * 1_000_000 + u64::from(took.subsec_micros())
}

/// Values below 16 have a bucket each; above, each power of two is cut into 16.
#[inline]
fn bucket(us: u64) -> usize {
    let us = us.min(LONGEST);
    let halvings = (u64::BITS - 1 - (us | (2 * SUBS as u64 - 1)).leading_zeros()) - SUB_BITS;
    let scaled = (us >> halvings) as usize;
    halvings as usize * SUBS + scaled
}

/// The largest value of a bucket.
fn upper_edge(bucket: usize) -> u64 {
    match (bucket / SUBS).checked_sub(1) {
        None => bucket as u64,
        Some(halvings) => (((SUBS + bucket % SUBS + 1) as u64) << halvings) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Response times with a long end: most near 10 ms, an exponential tail of 20 ms.
    fn drawn(random: &mut fastrand::Rng) -> Duration {
        Duration::from_secs_f64(0.010 - 0.020 * random.f64().max(1e-12).ln())
    }

    #[test]
    fn every_value_is_in_a_bucket_whose_edge_is_at_most_a_sixteenth_above() {
        let edges = (0..32).flat_map(|bits| {
            let edge = 1_u64 << bits;
            [edge - 1, edge, edge + 1, edge + edge / 3, edge + edge / 2]
        });
        let mut last = 0;
        for us in (0..10_000).chain(edges.filter(|us| *us <= LONGEST && *us >= 10_000)) {
            let at = bucket(us);
            assert!(at < BUCKETS && at >= last, "{us}");
            let edge = upper_edge(at);
            assert!(edge >= us && edge - us <= us / 16, "{us} in {at} up to {edge}");
            last = at;
        }
        assert_eq!(bucket(micros(Duration::MAX)), BUCKETS - 1);
    }

    #[test]
    fn nothing_is_said_below_a_hundred_responses() {
        let mut tail = Tail::new();
        for _ in 0..99 {
            tail.record(ms(10));
            assert_eq!(tail.p95(), None);
        }
        tail.record(ms(10));
        let p95 = tail.p95().unwrap();
        assert!(p95 >= ms(10) && p95 <= ms(10) + ms(10) / 16, "{p95:?}");
    }

    #[test]
    fn at_most_one_of_twenty_is_slower_and_not_many_fewer() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut tail = Tail::new();
            let mut slower = 0;
            for n in 0..110_000 {
                let took = drawn(&mut random);
                if n >= 10_000 && took > tail.p95().unwrap() {
                    slower += 1;
                }
                tail.record(took);
            }
            assert!(
                (4_000..=4_800).contains(&slower),
                "{slower} of 100,000, seed {seed}"
            );
        }
    }

    #[test]
    fn it_follows_a_pool_that_becomes_slower_and_faster_again() {
        let mut tail = Tail::new();
        let mut feed = |millis, times| {
            (0..times).for_each(|_| tail.record(ms(millis)));
            tail.p95().unwrap()
        };
        assert!(feed(10, 50_000) < ms(11));
        assert!(feed(300, 250) >= ms(300));
        let after = feed(10, 12_000);
        assert!(after < ms(11), "{after:?}");
    }

    #[test]
    fn what_is_rare_is_forgotten_and_what_is_steady_is_not() {
        let mut tail = Tail::new();
        for _ in 0..30 {
            tail.record(ms(5_000));
        }
        for _ in 0..40_000 {
            tail.record(ms(1));
        }
        let old: u32 = tail.buckets[bucket(4_000_000)..]
            .iter()
            .copied()
            .map(u32::from)
            .sum();
        assert!(old <= 1, "{old} are left of 30");
        assert!(tail.total <= FULL + REFRESH);
    }
}

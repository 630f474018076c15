//! How slow a backend is: a moving average that forgets with time, shared by all workers.
//!
//! It is fed at the end of every attempt, whatever the strategy, so feeding it is a load, a store and a compare-and-swap.
//! Two words, each a pair: the average with the time of its last sample, and the two samples before.
//!
//! - **One slow answer condemns nobody.** What enters the average is the least of the last three samples: it takes three
//!   slow ones in a row to raise it, and five to double it, however slow they are: each counts as four times the average
//!   at most. It falls with the first that is fast.
//! - **It rises faster than it falls**, and a sample counts the more the longer ago the last one was.
//! - **It forgets.** Without samples it halves every twenty seconds, so that a backend which nobody asks because it was slow
//!   is compared again with the others some day. All of a quiet pool fade alike.
//! - **A failure is slow**, however fast it came: a second at least. From the third in a row on each makes the average two
//!   and a half times as high. One now and then changes nothing: backends that all fail at times are still equals, and
//!   traffic does not run from one to the next.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Millis;

/// Time in which an average without samples halves, in milliseconds.
const HALF_LIFE_MS: u32 = 20_000;

/// The least that a failure counts as, in microseconds.
const FAILURE_US: f32 = 1_000_000.0;

/// The share of a sample in the average, above and below it.
const RISE: f32 = 0.125;
const FALL: f32 = 0.0625;

/// The same for one that failed.
const FAILURE_RISE: f32 = 0.5;

/// A sample above the average counts as so many times the average at most.
const MAX_RISE: f32 = 4.0;

/// Without samples for so long, the average counts as much as the next sample, in milliseconds.
const GAP_MS: f32 = 1_000.0;

/// The bits of an average that count its samples, up to as many. What they cost in precision is nothing.
const COUNT: u32 = 15;

/// With fewer samples chance may have made the average what it is.
const SETTLED: u32 = 4;

/// Attempts to write while others do; then the sample is lost.
const TRIES: usize = 3;

/// The average of one backend's response times.
#[derive(Debug, Default)]
pub struct Latency {
    /// An `f32` in microseconds, of which the lowest bits are a count of samples, above milliseconds that wrap; 0: no
    /// sample yet.
    average: AtomicU64,
    /// The last sample in the low half, the one before in the high half, as `f32` in microseconds; 0: none.
    recent: AtomicU64,
}

/// What is known of a backend's response times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// In microseconds, as of now.
    pub average: f32,
    /// Whether it rests on enough samples to be judged by.
    pub settled: bool,
}

impl Latency {
    /// Counts one response time.
    #[inline]
    pub fn record(&self, took: Duration, now: Millis) {
        self.feed(micros(took), RISE, now);
    }

    /// Counts an attempt that failed: as slow, however fast it was.
    pub fn record_failure(&self, took: Duration, now: Millis) {
        self.feed(micros(took).max(FAILURE_US), FAILURE_RISE, now);
    }

    #[inline]
    fn feed(&self, sample: f32, rise: f32, now: Millis) {
        let recent = self.recent.load(Ordering::Relaxed);
        // Of two workers at once one may overwrite the other's: a sample less.
        let pushed = recent << 32 | u64::from(sample.to_bits());
        self.recent.store(pushed, Ordering::Relaxed);
        let (newer, older) = (sample_of(recent as u32), sample_of((recent >> 32) as u32));
        let least = sample.min(newer.unwrap_or(sample)).min(older.unwrap_or(sample));
        let mut word = self.average.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let average = faded(word, now);
            let count = samples(word);
            let next = if word == 0 || older.is_none() {
                // Before there are three, the least is all there is to know.
                least
            } else {
                let (toward, share) = if least > average {
                    (least.min(average * MAX_RISE), rise)
                } else {
                    (least, FALL)
                };
                let gap = age(word, now) as f32;
                let mut share = share;
                // Hot backends pay no division.
                if gap > GAP_MS * FALL {
                    share = share.max(gap / (gap + GAP_MS));
                }
                if count < COUNT {
                    share = share.max(1.0 / (count + 1) as f32);
                }
                average + (toward - average) * share
            };
            let pair = next.to_bits() & !COUNT | (count + 1).min(COUNT);
            let new = u64::from(pair) << 32 | now.0 & 0xffff_ffff;
            match self
                .average
                .compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }

    /// Microseconds as of `now`; none without a sample.
    #[inline]
    pub fn read(&self, now: Millis) -> Option<f32> {
        self.reading(now).map(|reading| reading.average)
    }

    /// The average, and what it rests on; none without a sample.
    #[inline]
    pub fn reading(&self, now: Millis) -> Option<Reading> {
        let word = self.average.load(Ordering::Relaxed);
        (word != 0).then(|| Reading {
            average: faded(word, now),
            settled: samples(word) >= SETTLED,
        })
    }
}

/// In microseconds, more than 0.
#[inline]
fn micros(took: Duration) -> f32 {
    let micros = took.as_secs() as f32 * 1e6 + took.subsec_nanos() as f32 * 1e-3;
    micros.max(1.0)
}

#[inline]
fn sample_of(bits: u32) -> Option<f32> {
    (bits != 0).then(|| f32::from_bits(bits))
}

/// Milliseconds since the last sample; none of them if another worker's clock is ahead.
#[inline]
fn age(word: u64, now: Millis) -> u32 {
    let age = (now.0 as u32).wrapping_sub(word as u32);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// Samples that the average rests on, of the last few.
#[inline]
fn samples(word: u64) -> u32 {
    (word >> 32) as u32 & COUNT
}

/// The average of a word, halved for every half-life: less by one in the exponent, and linear between.
#[inline]
fn faded(word: u64, now: Millis) -> f32 {
    let per_ms = (1 << 23) / HALF_LIFE_MS;
    let bits = (word >> 32) as u32 & !COUNT;
    let faded = bits.saturating_sub(age(word, now).saturating_mul(per_ms));
    f32::from_bits(faded).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f32 = 1_000.0;

    fn fed(samples: &[u64]) -> Latency {
        let latency = Latency::default();
        for (at, sample) in samples.iter().enumerate() {
            latency.record(Duration::from_millis(*sample), Millis(at as u64));
        }
        latency
    }

    #[test]
    fn without_a_sample_there_is_nothing_to_read() {
        let latency = Latency::default();
        assert_eq!(latency.reading(Millis(5)), None);
        latency.record(Duration::ZERO, Millis(0));
        let reading = latency.reading(Millis(0)).unwrap();
        assert!(reading.average > 0.0 && !reading.settled);
        (1..4).for_each(|_| latency.record(Duration::from_millis(1), Millis(0)));
        assert!(latency.reading(Millis(0)).unwrap().settled);
    }

    #[test]
    fn one_or_two_slow_answers_condemn_nobody_five_do() {
        let steady = fed(&[5; 20]);
        let before = steady.read(Millis(20)).unwrap();
        for now in 20..22 {
            steady.record(Duration::from_millis(200), Millis(now));
            assert!(steady.read(Millis(now)).unwrap() <= before * 1.01);
        }
        steady.record(Duration::from_millis(200), Millis(22));
        assert!(steady.read(Millis(22)).unwrap() > before * 1.2);
        (23..25).for_each(|now| steady.record(Duration::from_millis(200), Millis(now)));
        assert!(steady.read(Millis(25)).unwrap() > before * 2.0);
        (25..43).for_each(|now| steady.record(Duration::from_millis(200), Millis(now)));
        assert!(steady.read(Millis(43)).unwrap() > 150.0 * MS);
    }

    #[test]
    fn the_first_answer_says_little_until_others_follow() {
        assert!(fed(&[300]).read(Millis(1)).unwrap() > 290.0 * MS);
        assert!(fed(&[300, 5]).read(Millis(2)).unwrap() < 6.0 * MS);
        assert!(fed(&[5, 300]).read(Millis(2)).unwrap() < 6.0 * MS);
    }

    #[test]
    fn it_forgets_with_time_and_learns_faster_after_a_gap() {
        let slow = fed(&[100; 20]);
        let at = |ms: u64| slow.read(Millis(19 + ms)).unwrap() / MS;
        assert!((at(0) - 100.0).abs() < 1.0);
        assert!((at(20_000) - 50.0).abs() < 2.0);
        assert!((at(60_000) - 12.5).abs() < 1.0);
        // Asked once a second, it is known to be fast again after a few.
        (1..=5).for_each(|second| slow.record(Duration::from_millis(5), Millis(19 + second * 1_000)));
        assert!(at(5_000) < 12.0, "{}", at(5_000));
        // Ages of any length are ages.
        assert!(slow.read(Millis(1 << 31)).unwrap() >= 1.0);
        assert!(slow.read(Millis(0)).unwrap() >= 1.0);
    }

    #[test]
    fn failing_fast_is_not_fast() {
        let failing = Latency::default();
        failing.record_failure(Duration::from_micros(50), Millis(0));
        assert!(failing.read(Millis(0)).unwrap() >= 999.0 * MS);

        // One or two may happen; a run of them is believed.
        let good = fed(&[5; 20]);
        let before = good.read(Millis(20)).unwrap();
        (20..22).for_each(|now| good.record_failure(Duration::from_micros(50), Millis(now)));
        assert!(good.read(Millis(21)).unwrap() <= before * 1.01);
        good.record_failure(Duration::from_micros(50), Millis(22));
        assert!(good.read(Millis(22)).unwrap() > before * 2.0);
        (23..30).for_each(|now| good.record_failure(Duration::from_micros(50), Millis(now)));
        assert!(good.read(Millis(30)).unwrap() >= 900.0 * MS);
    }

    #[test]
    fn who_fails_now_and_then_is_not_condemned() {
        let mut random = fastrand::Rng::with_seed(8);
        let latency = fed(&[5; 20]);
        for now in 20..20_000 {
            if random.f32() < 0.1 {
                latency.record_failure(Duration::from_micros(50), Millis(now));
            } else {
                latency.record(Duration::from_millis(5), Millis(now));
            }
            let read = latency.read(Millis(now)).unwrap() / MS;
            assert!((4.9..35.0).contains(&read), "{read}");
        }
    }

    #[test]
    fn time_wraps_without_a_jump() {
        let latency = Latency::default();
        let before = u64::from(u32::MAX) - 5;
        (0..20).for_each(|step| latency.record(Duration::from_millis(7), Millis(before + step)));
        let read = latency.read(Millis(before + 20)).unwrap();
        assert!((read / MS - 7.0).abs() < 0.1, "{read}");
    }
}

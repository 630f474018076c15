//! How slow a backend is: a moving average that forgets with time, shared by all workers.
//!
//! It is fed at the end of every attempt, whatever the strategy, so feeding it is a load, a store and a compare-and-swap.
//! Two words, each a pair: the average with the time of its last sample, and the two samples before.
//!
//! - **One slow answer condemns nobody.** What enters the average is the least of the last three samples: it takes three
//!   slow ones in a row to raise it. It falls with the first that is fast.
//! - **It rises faster than it falls**, and a sample counts the more the longer ago the last one was.
//! - **It forgets.** Without samples it halves every twenty seconds, so that a backend which nobody asks because it was slow
//!   is compared again with the others some day. All of a quiet pool fade alike.
//! - **A failure is slow**, however fast it came: a second at least, and two in a row are believed at once.

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

/// Without samples for so long, the average counts as much as the next sample, in milliseconds.
const GAP_MS: f32 = 1_000.0;

/// Attempts to write while others do; then the sample is lost.
const TRIES: usize = 3;

/// The average of one backend's response times.
#[derive(Debug, Default)]
pub struct Latency {
    /// An `f32` in microseconds above milliseconds that wrap; 0: no sample yet.
    average: AtomicU64,
    /// The last sample in the low half, the one before in the high half, as `f32` in microseconds; 0: none.
    recent: AtomicU64,
}

/// What is known of a backend's response times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// In microseconds, as of now.
    pub average: f32,
    /// Whether it rests on more than one sample.
    pub settled: bool,
}

impl Latency {
    /// Counts one response time.
    #[inline]
    pub fn record(&self, took: Duration, now: Millis) {
        let sample = micros(took);
        let (newer, older) = self.push(sample);
        // Before there are three, whatever was least is all there is to know.
        let first = newer.is_none() || older.is_none();
        let least = sample.min(newer.unwrap_or(sample)).min(older.unwrap_or(sample));
        self.blend(
            now,
            |average, gap| {
                let share = if first {
                    1.0
                } else if least > average {
                    RISE
                } else {
                    FALL
                };
                average + (least - average) * share.max(gap / (gap + GAP_MS))
            },
            least,
        );
    }

    /// Counts an attempt that failed: as slow, however fast it was.
    pub fn record_failure(&self, took: Duration, now: Millis) {
        let sample = micros(took).max(FAILURE_US);
        let (newer, _) = self.push(sample);
        let believed = sample.min(newer.unwrap_or(sample));
        self.blend(now, |average, _| believed.max(average), believed);
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
        let settled = self.recent.load(Ordering::Relaxed) >> 32 != 0;
        (word != 0).then(|| Reading {
            average: faded(word, now),
            settled,
        })
    }

    /// Remembers a sample and gives the two before. Of two workers at once one may overwrite the other's: a sample less.
    #[inline]
    fn push(&self, sample: f32) -> (Option<f32>, Option<f32>) {
        let recent = self.recent.load(Ordering::Relaxed);
        let pushed = recent << 32 | u64::from(sample.to_bits());
        self.recent.store(pushed, Ordering::Relaxed);
        (sample_of(recent as u32), sample_of((recent >> 32) as u32))
    }

    /// Replaces the average by what `next` makes of it and of the milliseconds since its last sample.
    #[inline]
    fn blend(&self, now: Millis, next: impl Fn(f32, f32) -> f32, first: f32) {
        let mut word = self.average.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let average = if word == 0 {
                first
            } else {
                next(faded(word, now), age(word, now) as f32)
            };
            let new = u64::from(average.to_bits()) << 32 | now.0 & 0xffff_ffff;
            match self
                .average
                .compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
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

/// The average of a word, halved for every half-life: less by one in the exponent, and linear between.
#[inline]
fn faded(word: u64, now: Millis) -> f32 {
    let per_ms = (1 << 23) / HALF_LIFE_MS;
    let bits = (word >> 32) as u32;
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
        latency.record(Duration::from_millis(1), Millis(0));
        assert!(latency.reading(Millis(0)).unwrap().settled);
    }

    #[test]
    fn one_or_two_slow_answers_condemn_nobody_three_do() {
        let steady = fed(&[5; 20]);
        let before = steady.read(Millis(20)).unwrap();
        for now in 20..22 {
            steady.record(Duration::from_millis(200), Millis(now));
            assert!(steady.read(Millis(now)).unwrap() <= before * 1.01);
        }
        steady.record(Duration::from_millis(200), Millis(22));
        assert!(steady.read(Millis(22)).unwrap() > before * 2.0);
        (23..43).for_each(|now| steady.record(Duration::from_millis(200), Millis(now)));
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

        // One of many may happen; two in a row are believed.
        let good = fed(&[5; 20]);
        good.record_failure(Duration::from_micros(50), Millis(20));
        assert!(good.read(Millis(20)).unwrap() < 6.0 * MS);
        good.record_failure(Duration::from_micros(50), Millis(21));
        assert!(good.read(Millis(21)).unwrap() >= 999.0 * MS);

        let hung = fed(&[5; 20]);
        (20..22).for_each(|now| hung.record_failure(Duration::from_secs(30), Millis(now)));
        assert!(hung.read(Millis(21)).unwrap() > 29_000.0 * MS);
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

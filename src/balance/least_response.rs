//! Least response time: the backend is taken whose response time × (in flight + 1) over its weight is the least.
//!
//! Take it where backends differ in speed or change it, as clouds do. It is built so that nobody starves and nobody slow
//! is asked much:
//!
//! - Response times within a band of the best, a factor of two, count as equal; then what is in flight decides, and of
//!   equals one is drawn. So noise does not choose.
//! - The band is drawn anew at each pick and wider than x with probability (2/x)⁴: there is no edge at which a backend
//!   loses everything. One ten times as slow is let in by one pick in a thousand.
//! - One pick in 512 goes to whoever has not been asked for longest, if that is more than a second. So who was slow, or
//!   idle, is found to be fast again by real requests, and one ten times as slow costs less than one in 200 of them.
//! - A backend without an average to rely on counts as one of the best, but has two attempts in flight at most.
//!
//! The average forgets with time, is not moved by one slow answer, and counts failures as slow (`latency.rs`). In pools of
//! more than eight each pick looks at eight that follow a random one. The best of so many is nearly as good as the best of
//! all, and where many load balancers know little of many backends, each from a few answers, they do not all run to the same
//! one (`weir simulate --scenario antagonist`).

use std::time::Duration;

use super::draw::{Lightest, Weights, window};
use super::explain::{Figure, Outlook, lightest};
use super::pick::{Local, Member, Pick};
use crate::clock::Millis;

/// Candidates that one pick compares.
const WINDOW: usize = 8;

/// Attempts in flight at a backend whose response time is not known yet.
const MAX_UNKNOWN: u32 = 2;

/// One pick in so many goes to whoever has not been asked for longest.
pub(super) const TRICKLE: u64 = 512;

/// Who was asked within this is not asked for the sake of asking.
const ASKED_LATELY: Duration = Duration::from_secs(1);

/// Response times closer than this are equal, in microseconds.
const SLACK_US: f32 = 200.0;

/// More than any load: for who is taken only where there is nobody else.
const LAST: f32 = 1e9;

/// Response times that count as equal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    best: f32,
    end: f32,
}

impl Band {
    /// A band whose width is drawn from `random`, above the least of the averages that `best` is.
    #[inline]
    pub fn new(best: f32, random: u64) -> Self {
        /// 2 × 2^(n/4), reached with probability 2^-n.
        const WIDTHS: [f32; 16] = [
            2.0, 2.38, 2.83, 3.36, 4.0, 4.76, 5.66, 6.73, 8.0, 9.51, 11.31, 13.45, 16.0, 19.03, 22.63, 26.91,
        ];
        let width = WIDTHS
            .get(random.leading_zeros() as usize)
            .copied()
            .unwrap_or(32.0);
        Band {
            best,
            end: (best * width).max(best + SLACK_US),
        }
    }

    /// Every width that may be drawn: its probability, and random bits that give it.
    pub fn widths() -> impl Iterator<Item = (f64, u64)> {
        (0..=16).map(|zeros: i32| (0.5f64.powi((zeros + 1).min(16)), u64::MAX >> zeros))
    }

    /// What a load counts more for the sake of a response time.
    #[inline]
    pub fn factor_of(self, member: &Member, now: Millis) -> f32 {
        match member.shared.latency().reading(now) {
            Some(reading) if reading.settled => {
                if reading.average <= self.end {
                    1.0
                } else {
                    reading.average / self.best
                }
            }
            _ if member.shared.in_flight() < MAX_UNKNOWN => 1.0,
            _ => LAST,
        }
    }
}

/// One look at all that a pick compares.
#[derive(Debug)]
pub(super) struct Survey {
    /// The least and the greatest average that can be relied on.
    pub best: f32,
    worst: f32,
    /// Whether somebody without such an average has as many in flight as it may.
    crowded: bool,
    /// By what is in flight over weight alone.
    pub lightest: Lightest<f32>,
}

impl Survey {
    #[inline]
    pub fn new() -> Self {
        Survey {
            best: f32::INFINITY,
            worst: 0.0,
            crowded: false,
            lightest: Lightest::new(f32::INFINITY),
        }
    }

    #[inline]
    pub fn see(&mut self, index: usize, load: f32, member: &Member, now: Millis, random: &mut fastrand::Rng) {
        match member.shared.latency().reading(now) {
            Some(reading) if reading.settled => {
                self.best = self.best.min(reading.average);
                self.worst = self.worst.max(reading.average);
            }
            _ => self.crowded |= member.shared.in_flight() >= MAX_UNKNOWN,
        }
        self.lightest.offer(index, load, random);
    }

    /// Whether nothing but what is in flight tells them apart: the lightest is the choice.
    #[inline]
    pub fn all_equal(&self, band: Band) -> bool {
        !self.crowded && self.worst <= band.end
    }
}

/// Whether this pick goes to whoever has not been asked for longest. A retry has had its bad luck already.
#[inline]
pub(super) fn is_trickle(random: u64, pick: &Pick<'_>) -> bool {
    random.is_multiple_of(TRICKLE) && !pick.candidates.is_retry()
}

/// Who has not been asked for longest, if this pick goes there and somebody was not asked lately.
#[cold]
pub(super) fn forgotten(pick: &Pick<'_>, start: usize, limit: usize) -> Option<usize> {
    let (mut index, mut longest) = (None, ASKED_LATELY);
    window(pick, start, limit, |at, member| {
        let since = pick.now - member.shared.asked();
        if since > longest && member.shared.in_flight() == 0 {
            (index, longest) = (Some(at), since);
        }
    });
    index
}

/// Where a window of so many begins, at random; 0 in a pool that it covers.
#[inline]
pub(super) fn start(pick: &Pick<'_>, limit: usize, random: &mut fastrand::Rng) -> usize {
    if pick.members.len() <= limit {
        0
    } else {
        random.usize(..pick.members.len())
    }
}

/// Where windows of so many may begin in a pool, each with the same probability.
pub(super) fn starts(members: usize, limit: usize) -> usize {
    if members <= limit { 1 } else { members }
}

/// Looks at backends that explaining one choice takes, from windows of so many.
pub(super) fn window_looks(members: usize, limit: usize) -> usize {
    starts(members, limit) * members.min(limit) * Band::widths().count()
}

pub(super) fn looks(members: usize) -> usize {
    window_looks(members, WINDOW)
}

/// What one window of a pick holds: loads, what `survey` makes of them, and who would be asked because nobody has for long.
pub(super) fn explain_window(
    pick: &Pick<'_>,
    start: usize,
    limit: usize,
    load: impl Fn(&Member) -> f32,
) -> (Vec<(usize, f32)>, Survey, Option<usize>) {
    let mut loads = Vec::new();
    let mut survey = Survey::new();
    // What it draws of equals is not asked for.
    let mut unused = fastrand::Rng::with_seed(0);
    window(pick, start, limit, |at, member| {
        loads.push((at, load(member)));
        survey.see(at, load(member), member, pick.now, &mut unused);
    });
    let forgotten = if pick.candidates.is_retry() {
        None
    } else {
        forgotten(pick, start, limit)
    };
    (loads, survey, forgotten)
}

/// The figures of everybody, as a pick with the narrowest band sees them that looks at all.
pub(super) fn explain_figures(outlook: &mut Outlook, pick: &Pick<'_>, load: impl Fn(&Member) -> f32) {
    let (loads, survey, _) = explain_window(pick, 0, pick.members.len(), &load);
    let band = Band::new(survey.best, u64::MAX);
    for (at, load) in loads {
        let Some(member) = pick.members.get(at) else {
            continue;
        };
        if let Some(reading) = member.shared.latency().reading(pick.now) {
            let millis = f64::from(reading.average) / 1e3;
            outlook.figure(at, "response_ms", Figure::Number(millis));
        }
        outlook.figure(at, "load", Figure::Number(load.into()));
        let score = load * band.factor_of(member, pick.now);
        outlook.figure(at, "score", Figure::Number(score.into()));
    }
}

#[derive(Debug)]
pub struct LeastResponse {
    equal: bool,
}

impl LeastResponse {
    pub fn new(members: &[Member]) -> Self {
        LeastResponse {
            equal: Weights::new(members).are_equal(),
        }
    }

    /// The candidate that is likely to answer first.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        let random = local.random.u64(..);
        let start = start(pick, WINDOW, &mut local.random);
        if is_trickle(random, pick) {
            let forgotten = forgotten(pick, start, WINDOW);
            if forgotten.is_some() {
                return forgotten;
            }
        }
        let mut survey = Survey::new();
        window(pick, start, WINDOW, |at, member| {
            survey.see(at, pick.load_of(member), member, pick.now, &mut local.random);
        });
        let band = Band::new(survey.best, random);
        let index = if survey.all_equal(band) {
            survey.lightest.index()?
        } else {
            let fast = light_and_fast(pick, band, start, &mut local.random);
            fast.or(survey.lightest.index())?
        };
        if (self.equal && pick.slow_start.is_none()) || pick.in_flight(index) > 0 {
            return Some(index);
        }
        idle_by_weight(pick, band, start, &mut local.random).or(Some(index))
    }

    /// What [`Self::pick`] would come to.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let mut outlook = Outlook::new(
            pick,
            "the least in flight over its weight among those about as fast as the fastest; now and then a slower \
             one, or one that nobody has asked for long",
        );
        explain_figures(&mut outlook, pick, |member| pick.load_of(member));
        let starts = starts(pick.members.len(), WINDOW);
        for start in 0..starts {
            let mut chance = 1.0 / starts as f64;
            let (loads, survey, forgotten) =
                explain_window(pick, start, WINDOW, |member| pick.load_of(member));
            if let Some(index) = forgotten {
                outlook.add(index, chance / TRICKLE as f64);
                chance -= chance / TRICKLE as f64;
            }
            for (part, random) in Band::widths() {
                let band = Band::new(survey.best, random);
                let factor = |at: usize| {
                    let member = pick.members.get(at);
                    member.map_or(LAST, |member| band.factor_of(member, pick.now))
                };
                let weighed: Vec<_> = loads.iter().map(|&(at, load)| (at, load * factor(at))).collect();
                let least = if survey.all_equal(band) {
                    lightest(&loads)
                } else {
                    lightest(&weighed)
                };
                let idle: Vec<(usize, f64)> = loads
                    .iter()
                    .filter(|&&(at, _)| pick.in_flight(at) == 0 && factor(at) <= 1.0 && pick.weight(at) > 0.0)
                    .map(|&(at, _)| (at, f64::from(pick.weight(at))))
                    .collect();
                for &at in &least {
                    let chance = chance * part / least.len() as f64;
                    let stays = (self.equal && pick.slow_start.is_none()) || pick.in_flight(at) > 0;
                    if stays || idle.is_empty() {
                        outlook.add(at, chance);
                    } else {
                        outlook.share(chance, &idle);
                    }
                }
            }
        }
        outlook.because(pick, WHY)
    }
}

/// Why a candidate has its chance here and under `prequal`.
pub(super) const WHY: [&str; 3] = [
    "nobody else is left",
    "by its score, drawn among equals",
    "it is too busy or too slow beside others",
];

/// The one with the least load, latencies beyond the band counted.
fn light_and_fast(pick: &Pick<'_>, band: Band, start: usize, random: &mut fastrand::Rng) -> Option<usize> {
    let mut lightest = Lightest::new(f32::INFINITY);
    window(pick, start, WINDOW, |at, member| {
        let load = pick.load_of(member) * band.factor_of(member, pick.now);
        lightest.offer(at, load, random);
    });
    lightest.index()
}

/// Of those within the band that are idle, one by weight.
fn idle_by_weight(pick: &Pick<'_>, band: Band, start: usize, random: &mut fastrand::Rng) -> Option<usize> {
    let mut lightest = Lightest::new(f32::INFINITY);
    window(pick, start, WINDOW, |at, member| {
        let weight = f32::from(member.weight) * pick.ramp_of(member);
        if member.shared.in_flight() == 0 && band.factor_of(member, pick.now) <= 1.0 && weight > 0.0 {
            // The least of exponential draws at these rates is each with probability in proportion to its weight.
            let draw = -(1.0 - random.f32()).ln() / weight;
            lightest.offer(at, draw, random);
        }
    });
    lightest.index()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bench, chi_square};
    use super::*;

    /// Sequential requests in virtual time: each begins when the one before has ended.
    fn sequential(
        bench: &mut Bench,
        requests: usize,
        mut answer: impl FnMut(usize, usize, &mut fastrand::Rng) -> Result<f64, f64>,
    ) -> (Vec<usize>, Vec<f64>) {
        let strategy = LeastResponse::new(&bench.members);
        let mut counts = vec![0; bench.members.len()];
        let mut took = Vec::new();
        let mut clock = bench.now.0 as f64;
        let mut random = fastrand::Rng::with_seed(9);
        for request in 0..requests {
            bench.now = Millis(clock as u64);
            let index = bench.pick(|pick, local| strategy.pick(pick, local)).unwrap();
            counts[index] += 1;
            bench.begin(index, 1);
            let answer = answer(request, index, &mut random);
            let ms = answer.unwrap_or_else(|ms| ms);
            clock += ms;
            took.push(ms);
            let shared = &bench.members[index].shared;
            shared.end();
            let (took, now) = (Duration::from_secs_f64(ms / 1e3), Millis(clock as u64));
            match answer {
                Ok(_) => shared.latency().record(took, now),
                Err(_) => shared.latency().record_failure(took, now),
            }
        }
        took.sort_by(f64::total_cmp);
        (counts, took)
    }

    fn normal(random: &mut fastrand::Rng) -> f64 {
        (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
    }

    #[test]
    fn five_equal_ones_share_alike_however_noisy_they_are() {
        for seed in 0..60 {
            let (median, noise, spikes) = [
                (0.2, 0.3, 0.01),
                (1.0, 0.5, 0.02),
                (1.0, 0.8, 0.05),
                (20.0, 0.5, 0.01),
            ][seed % 4];
            let mut bench = Bench::new(&[1; 5]);
            bench.local = Local::new(seed as u64);
            let (counts, _) = sequential(&mut bench, 1_500, |_, _, random| {
                let spike = if random.f64() < spikes { 20.0 } else { 1.0 };
                Ok(median * (noise * normal(random)).exp() * spike)
            });
            println!("seed {seed}: {counts:?}");
            assert!(
                counts.iter().all(|&count| count >= 225),
                "seed {seed}: {counts:?}"
            );
        }
    }

    #[test]
    fn one_ten_times_as_slow_hardly_gets_anything_and_is_found_again() {
        for (median, requests) in [(0.5, 40_000), (5.0, 10_000), (50.0, 10_000)] {
            let mut bench = Bench::new(&[1; 3]);
            let (counts, took) = sequential(&mut bench, requests, |_, at, random| {
                let slow = if at == 1 { 10.0 } else { 1.0 };
                Ok(median * slow * (0.3 * normal(random)).exp())
            });
            let share = counts[1] as f64 / requests as f64;
            println!("{median} ms: {counts:?}, {:.2} %", share * 100.0);
            assert!(share < 0.005, "{counts:?}");
            assert!(took[requests * 99 / 100] < 3.0 * median);
            // It has become like the others.
            let (counts, _) = sequential(&mut bench, requests, |_, _, random| {
                Ok(median * (0.3 * normal(random)).exp())
            });
            println!("{median} ms, all equal again: {counts:?}");
            assert!(counts[1] > requests / 6, "{counts:?}");
        }
    }

    #[test]
    fn failing_fast_does_not_draw_traffic() {
        let mut bench = Bench::new(&[1; 3]);
        let (counts, _) = sequential(&mut bench, 5_000, |_, at, random| {
            if at == 2 {
                Err(0.05)
            } else {
                Ok(2.0 * (0.3 * normal(random)).exp())
            }
        });
        assert!(counts[2] < 30, "{counts:?}");
    }

    #[test]
    fn at_64_at_once_a_slow_one_has_few_and_equals_share() {
        for slow in [1.0, 10.0] {
            let mut bench = Bench::new(&[1; 3]);
            let strategy = LeastResponse::new(&bench.members);
            let mut random = fastrand::Rng::with_seed(3);
            let mut counts = [0usize; 3];
            let mut most_unknown = 0;
            // What is under way, by its end in microseconds.
            let mut under_way = std::collections::BinaryHeap::new();
            let mut clock = 0u64;
            for _ in 0..100_000 {
                if under_way.len() >= 64 {
                    let std::cmp::Reverse((end, began, at)): std::cmp::Reverse<(u64, u64, usize)> =
                        under_way.pop().unwrap();
                    clock = end;
                    let shared = &bench.members[at].shared;
                    shared.end();
                    shared
                        .latency()
                        .record(Duration::from_micros(end - began), Millis(end / 1_000));
                }
                bench.now = Millis(clock / 1_000);
                let at = bench.pick(|pick, local| strategy.pick(pick, local)).unwrap();
                counts[at] += 1;
                bench.begin(at, 1);
                let known = bench.members[at].shared.latency().reading(bench.now).is_some();
                if !known
                    && bench
                        .members
                        .iter()
                        .any(|other| other.shared.latency().read(bench.now).is_some())
                {
                    most_unknown = most_unknown.max(bench.members[at].shared.in_flight());
                }
                let factor = if at == 0 { slow } else { 1.0 };
                let micros = 3_000.0 * factor * (0.3 * normal(&mut random)).exp();
                under_way.push(std::cmp::Reverse((clock + micros as u64, clock, at)));
            }
            println!("{slow} ×: {counts:?}");
            if slow > 1.0 {
                assert!(counts[0] < 600, "{counts:?}");
            } else {
                assert!(
                    counts.iter().all(|count| (30_000..37_000).contains(count)),
                    "{counts:?}"
                );
            }
        }
    }

    #[test]
    fn who_has_no_samples_is_asked_and_not_flooded() {
        let mut bench = Bench::new(&[1; 4]);
        let strategy = LeastResponse::new(&bench.members);
        for at in 0..3 {
            let latency = bench.members[at].shared.latency();
            (0..5).for_each(|_| latency.record(Duration::from_millis(3), bench.now));
            bench.begin(at, 10);
        }
        let picks: Vec<usize> = (0..20)
            .map(|_| {
                let index = bench.pick(|pick, local| strategy.pick(pick, local)).unwrap();
                bench.begin(index, 1);
                index
            })
            .collect();
        assert_eq!(picks[..2], [3, 3]);
        assert!(!picks[2..].contains(&3), "{picks:?}");
    }

    #[test]
    fn who_was_not_asked_for_a_while_is_asked_by_a_trickle() {
        let mut bench = Bench::new(&[1; 3]);
        let strategy = LeastResponse::new(&bench.members);
        for (at, ms) in [3, 3, 100_000].into_iter().enumerate() {
            let latency = bench.members[at].shared.latency();
            (0..50).for_each(|_| latency.record(Duration::from_millis(ms), bench.now));
            bench.begin(at, 1);
        }
        bench.all_idle();
        let picks = |bench: &mut Bench| bench.counts(5_000, |pick, local| strategy.pick(pick, local))[2];
        assert_eq!(picks(&mut bench), 0, "asked within the second");
        bench.now.0 += 1_001;
        (0..2).for_each(|at| bench.begin(at, 1));
        let asked = picks(&mut bench);
        assert!((3..30).contains(&asked), "{asked}");
        bench.begin(2, 1);
        bench.now.0 += 5_000;
        (0..2).for_each(|at| bench.begin(at, 1));
        assert_eq!(picks(&mut bench), 0, "it has not answered yet");
    }

    #[test]
    fn idle_shares_follow_the_weights() {
        let weights = [4, 2, 1];
        let mut bench = Bench::new(&weights);
        let strategy = LeastResponse::new(&bench.members);
        for member in &bench.members {
            (0..5).for_each(|_| {
                member
                    .shared
                    .latency()
                    .record(Duration::from_millis(3), bench.now)
            });
            member.shared.begin(bench.now);
            member.shared.end();
        }
        let counts = bench.counts(20_000, |pick, local| strategy.pick(pick, local));
        chi_square(&counts, &weights.map(f64::from));
    }

    #[test]
    fn in_a_large_pool_all_equal_ones_are_reached() {
        let mut bench = Bench::new(&[1; 300]);
        let strategy = LeastResponse::new(&bench.members);
        let counts = bench.counts(60_000, |pick, local| strategy.pick(pick, local));
        chi_square(&counts, &[1.0; 300]);
    }
}

//! Who does worse than the rest of a pool: runs of failures as they happen, and judgements over what an interval showed.
//!
//! Nothing here takes anybody out: it says who should go and why, and [`super::pool`] decides. The judges look at all
//! backends of a pool at once, are called by the health thread (and the simulator), and are plain functions of their
//! arguments. A backend that is out already, or that nothing is known of, is `None` in what they get.

use std::time::Duration;

use super::ejection::EjectReason;
use super::outcome::Outcome;
use super::sync::{AtomicU64, Ordering};
use crate::clock::Millis;
use crate::config::model::Outlier;

/// Standard deviations below the mean at which a success rate is an outlier.
const DEVIATIONS: f64 = 1.9;
/// A success rate nearer than this to the others' mean never is.
const LEAST_DIFFERENCE: f64 = 0.05;
/// Nor one that chance explains: standard errors of the difference. Five are passed once in three million intervals.
const STANDARD_ERRORS: f64 = 5.0;
/// Backends of enough volume below which success rates are not compared.
const LEAST_BACKENDS: usize = 3;

/// Answers of an interval below which a mean response time says nothing.
const LEAST_ANSWERS: u64 = 5;
/// A mean response time nearer than this to the pool's is no outlier, whatever the factor: schedulers do that.
const LEAST_SLOWNESS: Duration = Duration::from_millis(5);

/// Attempts that wait for a backend at once before its silence means anything.
pub const LEAST_WAITING: u32 = 3;
/// Answers of the others meanwhile.
const LEAST_OTHER_ANSWERS: u64 = 10;
/// How long silence must last at least...
const LEAST_SILENCE: Duration = Duration::from_millis(200);
/// ... and in median response times of the pool.
const SILENT_MEDIANS: u32 = 20;

/// Failures in a row of one backend, over all workers: of the gateway's kind in the upper half, of any kind in the lower.
#[derive(Debug, Default)]
pub struct Streak(AtomicU64);

impl Streak {
    /// Counts how an attempt ended. Some if the backend should be ejected; again at every further failure.
    #[inline]
    pub fn record(&self, outcome: Outcome, settings: &Outlier) -> Option<EjectReason> {
        if outcome.is_failure() {
            return self.fail(outcome.is_gateway_failure(), settings);
        }
        if outcome.says_something() {
            self.reset();
        }
        None
    }

    #[cold]
    fn fail(&self, gateway: bool, settings: &Outlier) -> Option<EjectReason> {
        let add = |word: u64| {
            let any = (word as u32).saturating_add(1);
            let gateways = if gateway {
                ((word >> 32) as u32).saturating_add(1)
            } else {
                0
            };
            (gateways, any)
        };
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let (gateways, any) = add(word);
                Some(u64::from(gateways) << 32 | u64::from(any))
            })
            .unwrap_or_else(|word| word);
        let (gateways, any) = add(before);
        let reaches = |count: u32, limit: Option<u32>| limit.is_some_and(|limit| count >= limit.max(1));
        if gateway && reaches(gateways, settings.consecutive_gateway) {
            Some(EjectReason::ConsecutiveGateway)
        } else if reaches(any, settings.consecutive_5xx) {
            Some(EjectReason::Consecutive5xx)
        } else {
            None
        }
    }

    /// The next failure is the first. One load if it would be anyway.
    #[inline]
    pub fn reset(&self) {
        if self.0.load(Ordering::Relaxed) != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

/// What one backend did within an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Attempts that ended and say something about it.
    pub attempts: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// Attempts whose response time is known.
    pub answers: u64,
    /// The sum of those response times.
    pub response_time: Duration,
}

impl Sample {
    /// The share of attempts that went well, from 0 to 1.
    fn success_rate(&self) -> f64 {
        1.0 - self.failures.min(self.attempts) as f64 / self.attempts.max(1) as f64
    }

    fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.response_time.as_secs_f64() / self.answers.max(1) as f64)
    }
}

/// Who succeeds less often than the rest, by position.
///
/// A backend is an outlier if its success rate is below the mean of the *others* less 1.9 of their standard deviations,
/// and by more than five points, and by more than chance makes of as many attempts. It is left out of the mean that it is
/// held against because a single outlier of n can never be further than (n − 1)/√n deviations from a mean with itself in
/// it: below six backends that is less than 1.9, and nobody would ever be one. Compared are backends with at least
/// `min_volume` attempts, if there are three of them.
pub fn judge_success_rate(samples: &[Option<Sample>], min_volume: u32) -> Vec<usize> {
    let judged = || {
        let samples = samples.iter().enumerate();
        samples
            .filter_map(|(index, sample)| sample.map(|sample| (index, sample)))
            .filter(|(_, sample)| sample.attempts >= u64::from(min_volume.max(1)))
    };
    let count = judged().count();
    if count < LEAST_BACKENDS {
        return Vec::new();
    }
    let sum: f64 = judged().map(|(_, sample)| sample.success_rate()).sum();
    let squares: f64 = judged().map(|(_, sample)| sample.success_rate().powi(2)).sum();
    let attempts: u64 = judged().map(|(_, sample)| sample.attempts).sum();
    let failures: u64 = judged()
        .map(|(_, sample)| sample.failures.min(sample.attempts))
        .sum();
    // What failing costs everybody, and with it how much chance alone spreads the rates.
    let failing = failures as f64 / attempts as f64;
    let others = (count - 1) as f64;
    judged()
        .filter(|(_, sample)| {
            let rate = sample.success_rate();
            let mean = (sum - rate) / others;
            let deviation = ((squares - rate * rate) / others - mean * mean).max(0.0).sqrt();
            let theirs = (attempts - sample.attempts) as f64;
            let chance = (failing * (1.0 - failing) * (1.0 / sample.attempts as f64 + 1.0 / theirs)).sqrt();
            let below = mean - rate;
            below > DEVIATIONS * deviation && below >= LEAST_DIFFERENCE && below > STANDARD_ERRORS * chance
        })
        .map(|(index, _)| index)
        .collect()
}

/// Who answers slower than `factor` times the pool's median, by position.
///
/// Compared are mean response times of backends with at least five answers, with the median of those means (of two, the
/// lower one: two are compared with each other). The fewer answers a mean is of, the further away it must be, since one
/// slow answer moves a mean of few: by two standard errors of response times that vary as much as they are long. And by
/// 5 ms at least.
pub fn judge_latency(samples: &[Option<Sample>], factor: f32) -> Vec<usize> {
    let judged: Vec<(usize, Sample)> = samples
        .iter()
        .enumerate()
        .filter_map(|(index, sample)| sample.map(|sample| (index, sample)))
        .filter(|(_, sample)| sample.answers >= LEAST_ANSWERS)
        .collect();
    let mut means: Vec<Duration> = judged.iter().map(|(_, sample)| sample.mean()).collect();
    means.sort_unstable();
    let Some(&median) = means.get(means.len().saturating_sub(1) / 2) else {
        return Vec::new();
    };
    judged
        .into_iter()
        .filter(|(_, sample)| {
            let uncertain = 1.0 + 2.0 / (sample.answers as f64).sqrt();
            let limit = median.as_secs_f64() * f64::from(factor.max(1.0)) * uncertain;
            let mean = sample.mean();
            mean.as_secs_f64() > limit && mean >= median + LEAST_SLOWNESS
        })
        .map(|(index, _)| index)
        .collect()
}

/// What one look at a backend shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Attempts whose response head is awaited. Not those whose body or tunnel goes on: they may be silent for good reason.
    pub waiting: u32,
    /// When something last came back from it.
    pub answered: Millis,
    /// Answers so far.
    pub answers: u64,
}

/// One backend as silence is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Attempts whose response head is awaited.
    pub waiting: u32,
    /// When something last came back from it.
    pub answered: Millis,
    /// Since when enough attempts have waited without anything coming back.
    pub since: Millis,
    /// What came back from the others since then.
    pub other_answers: u64,
}

/// Whose silence means that it hangs, by position: at least three attempts wait for it, nothing has come back for longer
/// than 200 ms and than 20 times the pool's median response time, and meanwhile the others answered: ten times in all,
/// and somebody within that time.
pub fn judge_silence(backends: &[Option<Waiting>], median: Duration, now: Millis) -> Vec<usize> {
    let patience = LEAST_SILENCE.max(median.saturating_mul(SILENT_MEDIANS));
    let somebody_else_answered = |silent: usize| {
        let others = backends.iter().enumerate().filter(|(index, _)| *index != silent);
        others
            .filter_map(|(_, other)| other.as_ref())
            .any(|other| now - other.answered <= patience)
    };
    let backends = backends.iter().enumerate();
    backends
        .filter_map(|(index, backend)| backend.map(|backend| (index, backend)))
        .filter(|&(index, backend)| {
            backend.waiting >= LEAST_WAITING
                && now - backend.since > patience
                && backend.other_answers >= LEAST_OTHER_ANSWERS
                && somebody_else_answered(index)
        })
        .map(|(index, _)| index)
        .collect()
}

/// Looks at a pool now and then (every 50 ms or so) and finds out since when nothing comes back from whom. A backend's
/// last answer alone does not tell: it may have been idle until a moment ago.
#[derive(Debug, Default)]
pub struct SilenceWatch {
    backends: Vec<Option<Watched>>,
    /// Answers of all backends between the looks that saw them.
    answers: u64,
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    seen: Seen,
    since: Millis,
    /// The watch's count at `since`. Its own answers add nothing to it while it is silent.
    answers_before: u64,
}

impl SilenceWatch {
    /// One look at all backends of the pool; who hangs, by position. `median` is the pool's median response time, zero
    /// if it is not known.
    pub fn look(&mut self, seen: &[Option<Seen>], median: Duration, now: Millis) -> Vec<usize> {
        self.backends.resize(seen.len(), None);
        let before = self.backends.iter().zip(seen);
        let answers: u64 = before
            .filter_map(|(before, seen)| {
                Some(
                    seen.as_ref()?
                        .answers
                        .saturating_sub(before.as_ref()?.seen.answers),
                )
            })
            .sum();
        self.answers = self.answers.wrapping_add(answers);
        for (watched, seen) in self.backends.iter_mut().zip(seen) {
            *watched = seen.map(|seen| {
                let silent = watched.filter(|watched| {
                    seen.waiting >= LEAST_WAITING
                        && watched.seen.waiting >= LEAST_WAITING
                        && seen.answered == watched.seen.answered
                });
                Watched {
                    seen,
                    since: silent.map_or(now, |watched| watched.since),
                    answers_before: silent.map_or(self.answers, |watched| watched.answers_before),
                }
            });
        }
        let waiting: Vec<Option<Waiting>> = self
            .backends
            .iter()
            .map(|watched| {
                watched.map(|watched| Waiting {
                    waiting: watched.seen.waiting,
                    answered: watched.seen.answered,
                    since: watched.since,
                    other_answers: self.answers.wrapping_sub(watched.answers_before),
                })
            })
            .collect();
        judge_silence(&waiting, median, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Outlier {
        Outlier {
            consecutive_gateway: Some(5),
            consecutive_5xx: Some(8),
            ..Outlier::default()
        }
    }

    #[test]
    fn a_run_of_gateway_failures_asks_at_its_fifth_and_at_each_after_it() {
        let (streak, settings) = (Streak::default(), settings());
        let kinds = [
            Outcome::Status(503),
            Outcome::Reset,
            Outcome::Timeout,
            Outcome::ConnectRefused,
            Outcome::ConnectTimeout,
            Outcome::Status(502),
        ];
        let asked: Vec<_> = kinds
            .iter()
            .map(|outcome| streak.record(*outcome, &settings))
            .collect();
        let gateway = Some(EjectReason::ConsecutiveGateway);
        assert_eq!(asked, [None, None, None, None, gateway, gateway]);
        assert_eq!(streak.record(Outcome::Status(404), &settings), None);
        assert_eq!(streak.record(Outcome::Status(503), &settings), None);
    }

    #[test]
    fn failures_of_any_kind_are_counted_apart() {
        let (streak, settings) = (Streak::default(), settings());
        // 500 is no gateway failure: it ends a run of those, and goes on in the other.
        for outcome in [503, 503, 503, 503, 500, 503, 503] {
            assert_eq!(streak.record(Outcome::Status(outcome), &settings), None);
        }
        assert_eq!(
            streak.record(Outcome::Status(500), &settings),
            Some(EjectReason::Consecutive5xx)
        );
        let off = Outlier {
            consecutive_gateway: None,
            consecutive_5xx: None,
            ..settings
        };
        assert_eq!(streak.record(Outcome::Status(500), &off), None);
    }

    #[test]
    fn a_client_that_goes_away_neither_counts_nor_ends_a_run() {
        let (streak, settings) = (Streak::default(), settings());
        for _ in 0..4 {
            assert_eq!(streak.record(Outcome::Reset, &settings), None);
            assert_eq!(streak.record(Outcome::Nothing, &settings), None);
            assert_eq!(streak.record(Outcome::Stale, &settings), None);
        }
        assert!(streak.record(Outcome::Reset, &settings).is_some());
    }

    #[test]
    fn threads_count_one_run_together() {
        let (streak, settings) = (Streak::default(), settings());
        let asked = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        if streak.record(Outcome::Status(503), &settings).is_some() {
                            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(asked.into_inner(), 4 * 1_000 - 4);
    }

    fn tried(attempts: u64, failures: u64) -> Option<Sample> {
        Some(Sample {
            attempts,
            failures,
            ..Sample::default()
        })
    }

    #[test]
    fn who_fails_more_than_the_others_is_an_outlier_also_of_three() {
        assert_eq!(
            judge_success_rate(&[tried(1_000, 0), tried(1_000, 300), tried(1_000, 0)], 100),
            [1]
        );
        assert_eq!(
            judge_success_rate(
                &[
                    tried(500, 5),
                    tried(500, 2),
                    None,
                    tried(500, 4),
                    tried(500, 90),
                    tried(99, 99)
                ],
                100
            ),
            [4]
        );
        let mut pool = vec![tried(1_000, 20); 20];
        pool[3] = tried(1_000, 400);
        pool[17] = tried(1_000, 500);
        assert_eq!(judge_success_rate(&pool, 100), [3, 17]);
    }

    #[test]
    fn too_few_to_compare_are_not_compared() {
        assert!(judge_success_rate(&[tried(1_000, 0), tried(1_000, 900)], 100).is_empty());
        assert!(judge_success_rate(&[tried(1_000, 0), tried(1_000, 900), tried(99, 0)], 100).is_empty());
        assert!(judge_success_rate(&[], 100).is_empty());
        assert!(judge_success_rate(&[tried(0, 0), tried(0, 0), tried(0, 0)], 0).is_empty());
    }

    #[test]
    fn four_points_are_noise() {
        let pool = [tried(100_000, 0), tried(100_000, 4_000), tried(100_000, 0)];
        assert!(judge_success_rate(&pool, 100).is_empty());
        let pool = [tried(100_000, 0), tried(100_000, 6_000), tried(100_000, 0)];
        assert_eq!(judge_success_rate(&pool, 100), [1]);
    }

    #[test]
    fn who_is_worse_in_a_pool_of_many_kinds_is_none() {
        // Ten points below the mean of the others, whose rates lie as far apart.
        let pool = [0, 20_000, 0, 20_000, 20_000].map(|failures| tried(100_000, failures));
        assert!(judge_success_rate(&pool, 100).is_empty());
    }

    /// All fail alike, by chance: a day of seconds, and nobody is an outlier.
    #[test]
    fn chance_ejects_nobody() {
        let mut random = fastrand::Rng::with_seed(4);
        for (backends, failing) in [(3, 0.3), (3, 0.02), (5, 0.5), (10, 0.3)] {
            for _ in 0..86_400 / 8 {
                let pool: Vec<_> = (0..backends)
                    .map(|_| {
                        let attempts = random.u64(100..160);
                        let failures = (0..attempts).filter(|_| random.f64() < failing).count();
                        tried(attempts, failures as u64)
                    })
                    .collect();
                assert!(judge_success_rate(&pool, 100).is_empty(), "{pool:?}");
            }
        }
    }

    fn answered(answers: u64, millis: u64) -> Option<Sample> {
        Some(Sample {
            answers,
            response_time: Duration::from_millis(millis) * answers as u32,
            ..Sample::default()
        })
    }

    #[test]
    fn who_is_slower_by_the_factor_is_an_outlier_with_few_answers_too() {
        let fast = answered(5_000, 2);
        assert_eq!(judge_latency(&[fast, answered(5, 302), fast], 3.0), [1]);
        assert_eq!(judge_latency(&[fast, answered(5, 302)], 3.0), [1]);
        assert!(judge_latency(&[fast, answered(4, 302), fast], 3.0).is_empty());
        assert!(judge_latency(&[answered(100, 302)], 3.0).is_empty());
        assert!(judge_latency(&[None, None], 3.0).is_empty());
        // Two of three: the median is theirs, and nobody is slow against it.
        assert!(judge_latency(&[answered(5, 302), answered(5, 302), fast], 3.0).is_empty());
        // Two of four: the pool's median is that of the faster half.
        assert_eq!(
            judge_latency(&[answered(50, 302), answered(50, 302), fast, fast], 3.0),
            [0, 1]
        );
    }

    #[test]
    fn what_is_near_or_short_is_not_slow() {
        let fast = answered(1_000, 100);
        assert!(judge_latency(&[fast, answered(1_000, 290), fast], 3.0).is_empty());
        assert_eq!(judge_latency(&[fast, answered(1_000, 350), fast], 3.0), [1]);
        // Five answers whose mean one slow answer makes.
        assert!(judge_latency(&[fast, answered(5, 500), fast], 3.0).is_empty());
        // Milliseconds are the scheduler's.
        let quick = answered(1_000, 0);
        assert!(judge_latency(&[quick, answered(1_000, 4), quick], 3.0).is_empty());
    }

    /// Response times that vary as much as they are long, few of them: seconds of a day, and nobody is slow by chance more
    /// than now and then.
    #[test]
    fn chance_makes_hardly_anybody_slow() {
        let mut random = fastrand::Rng::with_seed(9);
        let mut ejected = 0;
        for _ in 0..20_000 {
            let pool: Vec<_> = (0..3)
                .map(|_| {
                    let answers = random.u64(5..40);
                    let total: f64 = (0..answers).map(|_| -0.1 * random.f64().max(1e-12).ln()).sum();
                    Some(Sample {
                        answers,
                        response_time: Duration::from_secs_f64(total),
                        ..Sample::default()
                    })
                })
                .collect();
            ejected += judge_latency(&pool, 3.0).len();
        }
        assert!(ejected <= 2, "{ejected} of 20,000 intervals");
    }

    fn waiting(waiting: u32, answered: u64, since: u64, other_answers: u64) -> Option<Waiting> {
        Some(Waiting {
            waiting,
            answered: Millis(answered),
            since: Millis(since),
            other_answers,
        })
    }

    #[test]
    fn silence_while_the_others_answer_is_a_hang() {
        let now = Millis(10_000);
        let busy = waiting(20, 9_999, 10_000, 0);
        let judge =
            |backend, median| judge_silence(&[busy, backend, busy], Duration::from_millis(median), now);
        assert_eq!(judge(waiting(3, 9_799, 9_799, 10), 1), [1]);
        assert!(judge(waiting(2, 9_799, 9_799, 10), 1).is_empty(), "too few wait");
        assert!(
            judge(waiting(3, 9_799, 9_800, 10), 1).is_empty(),
            "not long enough"
        );
        assert!(
            judge(waiting(3, 9_799, 9_799, 9), 1).is_empty(),
            "the others are slow too"
        );
        assert!(
            judge(waiting(3, 9_000, 9_000, 10), 50).is_empty(),
            "the pool is slow"
        );
        assert_eq!(judge(waiting(3, 8_990, 8_990, 10), 50), [1]);
    }

    #[test]
    fn nobody_hangs_alone_or_when_all_are_silent() {
        let now = Millis(10_000);
        let silent = waiting(20, 9_000, 9_000, 1_000);
        assert!(judge_silence(&[silent], Duration::ZERO, now).is_empty());
        assert!(judge_silence(&[silent, silent, None], Duration::ZERO, now).is_empty());
        let fresh = waiting(1, 9_900, 10_000, 0);
        assert_eq!(judge_silence(&[silent, fresh], Duration::ZERO, now), [0]);
    }

    /// Looks every 50 ms at three backends of which `hangs` stops to answer at 1,000 ms; when it was noticed.
    fn noticed(
        hangs: impl Fn(usize, u64) -> bool,
        waiting: impl Fn(usize, u64) -> u32,
    ) -> Option<(u64, Vec<usize>)> {
        let mut watch = SilenceWatch::default();
        let mut seen = [(0_u64, 0_u64); 3];
        for now in (0..3_000).step_by(50) {
            for (index, (answered, answers)) in seen.iter_mut().enumerate() {
                if !hangs(index, now) {
                    *answered = now;
                    *answers += 5;
                }
            }
            let looks: Vec<_> = seen
                .iter()
                .enumerate()
                .map(|(index, &(answered, answers))| {
                    Some(Seen {
                        waiting: waiting(index, now),
                        answered: Millis(answered),
                        answers,
                    })
                })
                .collect();
            let hang = watch.look(&looks, Duration::from_millis(2), Millis(now));
            if !hang.is_empty() {
                return Some((now, hang));
            }
        }
        None
    }

    #[test]
    fn a_hang_is_noticed_within_a_quarter_of_a_second() {
        let hang = noticed(|index, now| index == 1 && now >= 1_000, |_, _| 8);
        assert_eq!(hang, Some((1_200, vec![1])));
    }

    #[test]
    fn who_was_idle_is_given_time_from_its_first_requests_on() {
        // Nothing is asked of backend 1 until 2,000 ms; its last answer is then long ago.
        let idle = |index: usize, now: u64| index == 1 && (200..2_150).contains(&now);
        let asked = |index: usize, now: u64| if index == 1 && now < 2_000 { 0 } else { 8 };
        assert_eq!(noticed(idle, asked), None);
        let hang = noticed(|index, now| index == 1 && now >= 200, asked);
        assert_eq!(hang, Some((2_250, vec![1])));
    }

    #[test]
    fn all_silent_is_an_outage_and_nobody_s_hang() {
        assert_eq!(noticed(|_, now| now >= 1_000, |_, _| 8), None);
        assert_eq!(noticed(|_, _| false, |_, _| 8), None);
    }

    #[test]
    fn who_is_not_looked_at_for_a_while_does_not_confuse_the_count() {
        let mut watch = SilenceWatch::default();
        let look = |answered, answers| {
            Some(Seen {
                waiting: 8,
                answered: Millis(answered),
                answers,
            })
        };
        let mut hang = Vec::new();
        for turn in 0..20 {
            let now = turn * 50;
            // Backend 0, of a million answers, is out from the fifth look on; backend 1 hangs.
            let first = if turn < 5 {
                look(now, 1_000_000 + turn)
            } else {
                None
            };
            hang = watch.look(
                &[first, look(0, 7), look(now, 10 + turn * 5)],
                Duration::ZERO,
                Millis(now),
            );
            if !hang.is_empty() {
                break;
            }
        }
        assert_eq!(hang, [1]);
    }

    #[test]
    fn answers_of_who_is_no_longer_looked_at_are_no_answers() {
        let mut watch = SilenceWatch::default();
        for turn in 0..20 {
            let now = turn * 50;
            let look = |answered, answers| {
                Some(Seen {
                    waiting: 8,
                    answered: Millis(answered),
                    answers,
                })
            };
            // Of the others only one is left, and answers four times in all.
            let first = if turn < 2 { look(now, 1_000) } else { None };
            let hang = watch.look(
                &[first, look(0, 7), look(now, turn / 5)],
                Duration::ZERO,
                Millis(now),
            );
            assert!(hang.is_empty(), "{hang:?} at {now} ms");
        }
    }
}

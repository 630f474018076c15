//! Prequal: "Load is not what you should balance" (Wydrowski et al., NSDI 2024): backends say by probes what they have in
//! flight and how long they take, and a request goes where it is likely to be answered soonest.
//!
//! Take it where many balancers share backends, or where backends have other work than what comes from here: in flight as
//! the backend sees it counts everybody's requests, and its latency says what its neighbours on the machine do to it.
//!
//! Probes are sent at the pace of the requests, `probe_rate` each on average, and answered in their own time: a request
//! never waits for one. A worker keeps the last 16 answers ([`ProbePool`]). A pick divides them: *hot* are those with more
//! in flight than 84 % of the recent answers. Of the cold ones the one with the lowest latency is taken; where all are
//! hot, the one with the least in flight. Each use adds one to what that answer says is in flight, and after some uses, or
//! a second, or when it is the oldest or worst in its turn, an answer is dropped.
//!
//! With fewer than two usable answers, where the limit allows less than one probe for two requests (what is so old is worse
//! than what weir counts itself: `weir simulate --scenario steady`), or without a `probe_path`, the same rule looks at weir's
//! own counts of up to 16 backends in a row from a random one: in flight over weight, and the average response time. As those averages are not
//! new, what `least-response` does against starving is done here too: latencies within a band are equal, and a
//! trickle goes to whoever has not been asked.
//!
//! Weights count only in weir's own counts: a backend's answers tell its size better than a figure in a file.

use std::time::Duration;

use super::draw::{Lightest, Weights, window};
use super::explain::{Outlook, lightest};
use super::least_response::{
    Band, Survey, TRICKLE, WHY, explain_figures, explain_window, forgotten, is_trickle, start, starts,
    window_looks,
};
use super::liveness::Candidates;
use super::pick::{Local, Member, Pick};
use crate::clock::Millis;
use crate::config::model;

/// Answers that a worker keeps.
const POOL: usize = 16;

/// Answers of which the quantile is taken.
const RECENT: usize = 64;

/// Answers older than this are not used.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Out of 100 recent answers so many have no more in flight than a cold one may: 2^-0.25, as in the paper.
const COLD_PERCENT: usize = 84;

/// Fewer usable answers than this, and weir's own counts decide.
const MIN_ANSWERS: usize = 2;

/// With fewer probes for each pick than this, answers are too old by the time they are used, and weir's own counts decide.
const LEAST_PER_PICK: f32 = 0.5;

/// Uses of one answer, at most: weir's own counts are better than what was added up so often.
const MAX_USES: f32 = 16.0;

/// Probes of one pick.
const MAX_DUE: usize = 8;

/// Seconds' worth of probes that may be sent at once after a quiet time.
const BURST_SECONDS: f32 = 0.1;

/// Draws for a target that has no probe under way.
const TARGET_TRIES: usize = 4;

/// The backends to probe now, by position.
#[derive(Clone, Copy, Debug, Default)]
pub struct Due {
    targets: [u16; MAX_DUE],
    len: usize,
}

impl Due {
    fn push(&mut self, index: u16) {
        if let Some(slot) = self.targets.get_mut(self.len) {
            *slot = index;
            self.len += 1;
        }
    }
}

impl std::ops::Deref for Due {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        self.targets.get(..self.len).unwrap_or_default()
    }
}

/// What a backend answered to a probe.
#[derive(Clone, Copy, Debug)]
struct Answer {
    index: u16,
    uses: u16,
    in_flight: u32,
    /// Microseconds.
    latency: f32,
    at: Millis,
}

impl Answer {
    const NONE: Answer = Answer {
        index: 0,
        uses: 0,
        in_flight: 0,
        latency: 0.0,
        at: Millis(0),
    };
}

/// One worker's probes: answers, those under way, and what it may send.
#[derive(Debug)]
pub struct ProbePool {
    answers: [Answer; POOL],
    len: usize,
    /// In flight by the last answers, in a circle.
    recent: [u32; RECENT],
    seen: usize,
    /// More than this in flight is hot.
    cold_most: u32,
    /// One bit for each backend that has not answered yet.
    under_way: Vec<u64>,
    /// Probes that the picks so far ask for.
    owed: f32,
    /// Probes that the limit per second allows, as of `refilled`.
    allowed: f32,
    refilled: Millis,
    /// Probes for each pick, on average over the last hundred.
    per_pick: f32,
    /// Answers to be dropped.
    to_drop: f32,
    drop_oldest: bool,
}

impl Default for ProbePool {
    fn default() -> Self {
        ProbePool {
            answers: [Answer::NONE; POOL],
            len: 0,
            recent: [0; RECENT],
            seen: 0,
            cold_most: 0,
            under_way: Vec::new(),
            owed: 0.0,
            allowed: 0.0,
            refilled: Millis(0),
            // As long as nobody knows: just enough.
            per_pick: LEAST_PER_PICK,
            to_drop: 0.0,
            drop_oldest: false,
        }
    }
}

impl ProbePool {
    /// A backend has answered a probe: requests in flight there, and how long they take, in microseconds. Replaces what it
    /// answered before.
    pub fn add(&mut self, index: usize, in_flight: u32, latency: f32, now: Millis) {
        self.end(index);
        let Ok(index) = u16::try_from(index) else {
            return;
        };
        if let Some(slot) = self.recent.get_mut(self.seen % RECENT) {
            *slot = in_flight;
        }
        self.seen += 1;
        self.cold_most = self.quantile();
        if self.len == POOL {
            self.drop_at(self.oldest());
        }
        if let Some(slot) = self.answers.get_mut(self.len) {
            *slot = Answer {
                index,
                uses: 0,
                in_flight,
                latency: if latency.is_finite() {
                    latency.max(0.0)
                } else {
                    f32::MAX
                },
                at: now,
            };
            self.len += 1;
        }
        // The paper drops one for each request, at three probes a request.
        self.to_drop += 1.0 / 3.0;
        if self.to_drop >= 1.0 {
            self.to_drop -= 1.0;
            if self.len > MIN_ANSWERS {
                let at = if self.drop_oldest {
                    self.oldest()
                } else {
                    self.worst()
                };
                self.drop_at(at);
                self.drop_oldest = !self.drop_oldest;
            }
        }
    }

    /// A probe came to nothing: the backend may be probed again, and what it said before is forgotten.
    pub fn failed(&mut self, index: usize) {
        self.end(index);
    }

    fn end(&mut self, index: usize) {
        if let Some(word) = self.under_way.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
        self.forget(index);
    }

    /// Forgets what a backend answered.
    pub fn forget(&mut self, index: usize) {
        let mut at = 0;
        while let Some(answer) = self.answers().get(at) {
            if usize::from(answer.index) == index {
                self.drop_at(at);
            } else {
                at += 1;
            }
        }
    }

    /// Forgets everything: positions mean other backends now. Answers to probes sent before must not be added after.
    pub fn clear(&mut self) {
        *self = ProbePool {
            allowed: self.allowed,
            refilled: self.refilled,
            per_pick: self.per_pick,
            ..ProbePool::default()
        };
    }

    /// Answers that are kept.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn answers(&self) -> &[Answer] {
        self.answers.get(..self.len).unwrap_or_default()
    }

    fn drop_at(&mut self, at: usize) {
        if at < self.len {
            self.len -= 1;
            self.answers.swap(at, self.len);
        }
    }

    fn oldest(&self) -> usize {
        let answers = self.answers().iter().enumerate();
        answers
            .min_by_key(|(_, answer)| answer.at.0)
            .map_or(0, |(at, _)| at)
    }

    /// The hot one with the most in flight, or else the cold one with the highest latency.
    fn worst(&self) -> usize {
        let rank = |answer: &Answer| {
            let hot = answer.in_flight > self.cold_most;
            if hot {
                (1, answer.in_flight as f32)
            } else {
                (0, answer.latency)
            }
        };
        let answers = self.answers().iter().enumerate();
        answers
            .max_by(|(_, one), (_, other)| {
                rank(one)
                    .partial_cmp(&rank(other))
                    .unwrap_or(std::cmp::Ordering::Equal)
            })
            .map_or(0, |(at, _)| at)
    }

    fn quantile(&self) -> u32 {
        let mut sorted = self.recent;
        let Some(sorted) = sorted
            .get_mut(..self.seen.min(RECENT))
            .filter(|seen| !seen.is_empty())
        else {
            return 0;
        };
        sorted.sort_unstable();
        let rank = (sorted.len() * COLD_PERCENT).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }

    /// The choice among the answers of candidates; none if there are too few.
    fn choose(&mut self, pick: &Pick<'_>, max_uses: u16) -> Option<usize> {
        let mut at = 0;
        let mut usable = 0;
        let mut best: Option<(usize, (u32, f32))> = None;
        while let Some(answer) = self.answers().get(at) {
            if pick.now - answer.at > MAX_AGE {
                self.drop_at(at);
                continue;
            }
            if pick.candidates.contains(usize::from(answer.index)) {
                usable += 1;
                let rank = if answer.in_flight > self.cold_most {
                    (answer.in_flight, answer.latency)
                } else {
                    (0, answer.latency)
                };
                if best.is_none_or(|(_, before)| rank < before) {
                    best = Some((at, rank));
                }
            }
            at += 1;
        }
        let (at, _) = best.filter(|_| usable >= MIN_ANSWERS)?;
        let answer = self.answers.get_mut(at)?;
        answer.in_flight = answer.in_flight.saturating_add(1);
        answer.uses += 1;
        let (index, used_up) = (usize::from(answer.index), answer.uses >= max_uses);
        if used_up {
            self.drop_at(at);
        }
        Some(index)
    }

    /// How many picks in a row one answer may serve: (1 + δ) / ((1 − m/n) · r_probe − r_remove), at least 1, with δ = 1 and
    /// a third of the probes removed, at the pace that probes are really sent.
    fn max_uses(&self, members: usize) -> u16 {
        let fresh = 1.0 - POOL as f32 / members.max(1) as f32;
        let gain = (fresh - 1.0 / 3.0) * self.per_pick;
        let uses = if gain > 0.0 {
            2.0 / gain
        } else {
            // So few backends that most answers replace another: new ones come at the pace that probes are sent.
            1.0 / self.per_pick
        };
        uses.clamp(1.0, MAX_USES).round() as u16
    }
}

#[derive(Debug)]
pub struct Prequal {
    /// Probes for each pick; 0: backends are not probed.
    rate: f32,
    /// Of one worker.
    max_per_second: f32,
    weights: Weights,
}

impl Prequal {
    pub fn new(settings: &model::Strategy, members: &[Member]) -> Self {
        let probes = settings.probe_path.is_some();
        Prequal {
            rate: if probes { settings.probe_rate.max(0.0) } else { 0.0 },
            max_per_second: settings.probes_max_per_second as f32,
            weights: Weights::new(members),
        }
    }

    /// The candidate that is likely to answer first, by what backends answered to probes or else by weir's own counts.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        if local.probes.per_pick >= LEAST_PER_PICK && !local.probes.is_empty() {
            let max_uses = local.probes.max_uses(pick.members.len());
            if let Some(index) = local.probes.choose(pick, max_uses) {
                return Some(index);
            }
        }
        self.by_own_counts(pick, local)
    }

    /// Backends to probe now, drawn among the candidates, each without a probe under way. To be asked once per request.
    pub fn due(&self, pick: &Pick<'_>, local: &mut Local) -> Due {
        let mut due = Due::default();
        let Local { probes, random, .. } = local;
        if self.rate <= 0.0 {
            return due;
        }
        let passed = (pick.now - probes.refilled).as_secs_f32();
        probes.refilled = probes.refilled.max(pick.now);
        let most = (self.max_per_second * BURST_SECONDS).max(1.0);
        probes.allowed = (probes.allowed + passed * self.max_per_second).min(most);
        // What cannot be sent now is not made up for later.
        probes.owed = (probes.owed + self.rate).min(self.rate.max(1.0) + 1.0);
        while probes.owed >= 1.0 && probes.allowed >= 1.0 && due.len < MAX_DUE {
            let Some(target) = self.target(&pick.candidates, &mut probes.under_way, random) else {
                break;
            };
            due.push(target);
            probes.owed -= 1.0;
            probes.allowed -= 1.0;
        }
        probes.per_pick += (due.len as f32 - probes.per_pick) / 100.0;
        due
    }

    fn target(
        &self,
        candidates: &Candidates<'_>,
        under_way: &mut Vec<u64>,
        random: &mut fastrand::Rng,
    ) -> Option<u16> {
        if under_way.len() < candidates.words() {
            under_way.resize(candidates.words(), 0);
        }
        for _ in 0..TARGET_TRIES {
            let index = self.weights.draw_uniform(candidates, random)?;
            let word = under_way.get_mut(index / 64)?;
            let bit = 1 << (index % 64);
            if *word & bit == 0 {
                *word |= bit;
                return u16::try_from(index).ok();
            }
        }
        None
    }

    #[inline]
    fn by_own_counts(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        let random = local.random.u64(..);
        let start = start(pick, POOL, &mut local.random);
        if is_trickle(random, pick) {
            let forgotten = forgotten(pick, start, POOL);
            if forgotten.is_some() {
                return forgotten;
            }
        }
        let mut survey = Survey::new();
        window(pick, start, POOL, |at, member| {
            survey.see(at, member.load(), member, pick.now, &mut local.random);
        });
        let band = Band::new(survey.best, random);
        if survey.all_equal(band) {
            return survey.lightest.index();
        }
        cold_and_fast(pick, band, start, &mut local.random).or(survey.lightest.index())
    }

    /// What [`Self::pick`] would come to by weir's own counts. What backends answered to a worker's probes is that
    /// worker's alone.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let how = if self.rate > 0.0 {
            "each worker goes by what backends answered to its own probes within the last second, which it alone \
             knows; the chances are those by weir's own counts, where it has too few answers"
        } else {
            "by weir's own counts: the least in flight among those that are neither hot nor slow"
        };
        let mut outlook = Outlook::new(pick, how);
        explain_figures(&mut outlook, pick, Member::load);
        let starts = starts(pick.members.len(), POOL);
        for start in 0..starts {
            let mut chance = 1.0 / starts as f64;
            let (loads, survey, forgotten) = explain_window(pick, start, POOL, Member::load);
            if let Some(index) = forgotten {
                outlook.add(index, chance / TRICKLE as f64);
                chance -= chance / TRICKLE as f64;
            }
            let cold_most = cold_most(pick, start);
            for (part, random) in Band::widths() {
                let band = Band::new(survey.best, random);
                let weighed: Vec<_> = loads
                    .iter()
                    .filter(|(_, load)| *load <= cold_most)
                    .filter_map(|&(at, load)| {
                        Some((at, load * band.factor_of(pick.members.get(at)?, pick.now)))
                    })
                    .collect();
                let least = if survey.all_equal(band) || weighed.is_empty() {
                    lightest(&loads)
                } else {
                    lightest(&weighed)
                };
                for &at in &least {
                    outlook.add(at, chance * part / least.len() as f64);
                }
            }
        }
        outlook.because(pick, WHY)
    }
}

/// Looks at backends that explaining one choice takes.
pub(super) fn looks(members: usize) -> usize {
    window_looks(members, POOL)
}

/// Of those that are cold by weir's own counts the one with the least load, latencies beyond the band counted.
fn cold_and_fast(pick: &Pick<'_>, band: Band, start: usize, random: &mut fastrand::Rng) -> Option<usize> {
    let cold_most = cold_most(pick, start);
    let mut lightest = Lightest::new(f32::INFINITY);
    window(pick, start, POOL, |at, member| {
        let load = member.load();
        if load <= cold_most {
            lightest.offer(at, load * band.factor_of(member, pick.now), random);
        }
    });
    lightest.index()
}

/// The greatest load that is cold.
#[inline]
fn cold_most(pick: &Pick<'_>, start: usize) -> f32 {
    // The three highest loads: the 0.84 quantile of 16 or fewer is one of them.
    let (mut highest, mut seen) = ([0.0f32; 3], 0);
    window(pick, start, POOL, |_, member| {
        let load = member.load();
        let [first, second, third] = highest;
        highest = [
            first.max(load),
            second.max(load.min(first)),
            third.max(load.min(second)),
        ];
        seen += 1;
    });
    let hot: usize = seen - (seen * COLD_PERCENT).div_ceil(100);
    highest.get(hot).copied().unwrap_or(f32::INFINITY)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Bench, chi_square};
    use super::*;

    fn prequal(bench: &Bench, rate: f32, most: u32) -> Prequal {
        let settings = model::Strategy {
            probe_path: Some("/_load".to_owned()),
            probe_rate: rate,
            probes_max_per_second: most,
            ..model::Strategy::default()
        };
        Prequal::new(&settings, &bench.members)
    }

    fn due(bench: &mut Bench, prequal: &Prequal) -> Vec<usize> {
        let mut due = Due::default();
        bench.pick(|pick, local| {
            due = prequal.due(pick, local);
            None
        });
        due.iter().map(|&index| usize::from(index)).collect()
    }

    #[test]
    fn of_the_cold_the_fastest_and_of_the_hot_the_least_loaded() {
        let mut bench = Bench::new(&[1; 20]);
        let prequal = prequal(&bench, 3.0, 500);
        let now = bench.now;
        // What was usual: nothing above 10 in flight.
        (0..60).for_each(|step| bench.local.probes.add(19, step % 11, 1.0, now));
        bench.local.probes.forget(19);
        // None of these is dropped in its turn.
        bench.local.probes.to_drop = -10.0;
        for (index, in_flight, latency) in [(3, 50, 1.0), (4, 5, 900.0), (5, 9, 400.0)] {
            bench.local.probes.add(index, in_flight, latency, now);
        }
        assert_eq!(bench.pick(|pick, local| prequal.pick(pick, local)), Some(5));
        bench.eligible.set(5, false);
        assert_eq!(bench.pick(|pick, local| prequal.pick(pick, local)), Some(4));
        bench.local.probes.add(4, 60, 1.0, now);
        assert_eq!(
            bench.pick(|pick, local| prequal.pick(pick, local)),
            Some(3),
            "all are hot"
        );
    }

    #[test]
    fn a_use_counts_as_one_in_flight_and_many_use_an_answer_up() {
        let mut bench = Bench::new(&[1; 4]);
        let prequal = prequal(&bench, 3.0, 500);
        let now = bench.now;
        bench.local.probes.add(0, 0, 10.0, now);
        bench.local.probes.add(1, 0, 20.0, now);
        let first = bench.pick(|pick, local| prequal.pick(pick, local));
        assert_eq!(first, Some(0));
        // One in flight is above the quantile of zeros: hot.
        assert_eq!(bench.pick(|pick, local| prequal.pick(pick, local)), Some(1));
        let served = (0..100).take_while(|_| {
            bench.pick(|pick, local| prequal.pick(pick, local)).unwrap();
            bench.local.probes.len() == 2
        });
        assert!(served.count() < 2 * MAX_USES as usize);
    }

    #[test]
    fn old_answers_and_those_of_others_than_candidates_are_not_used() {
        let mut bench = Bench::new(&[1; 3]);
        let prequal = prequal(&bench, 3.0, 500);
        let now = bench.now;
        (0..3).for_each(|index| bench.local.probes.add(index, 7, 10.0, now));
        // Weir itself knows that the last one is idle.
        (0..2).for_each(|index| bench.begin(index, 3));
        bench.now = now + Duration::from_millis(1_001);
        assert_eq!(bench.pick(|pick, local| prequal.pick(pick, local)), Some(2));
        assert!(bench.local.probes.is_empty());
        let now = bench.now;
        (0..2).for_each(|index| bench.local.probes.add(index, 7, 10.0, now));
        bench.tried = vec![0];
        assert_eq!(bench.pick(|pick, local| prequal.pick(pick, local)), Some(2));
        bench.local.probes.clear();
        assert!(bench.local.probes.is_empty());
    }

    #[test]
    fn without_probes_the_own_counts_decide_and_nobody_starves() {
        let mut bench = Bench::new(&[1; 5]);
        let prequal = Prequal::new(&model::Strategy::default(), &bench.members);
        assert!(due(&mut bench, &prequal).is_empty());
        let counts = bench.counts(20_000, |pick, local| prequal.pick(pick, local));
        chi_square(&counts, &[1.0; 5]);
        for (at, ms) in [4, 5, 6, 100, 5].into_iter().enumerate() {
            let latency = bench.members[at].shared.latency();
            (0..5).for_each(|_| latency.record(Duration::from_millis(ms), bench.now));
            bench.begin(at, 1);
        }
        bench.begin(0, 30);
        let counts = bench.counts(20_000, |pick, local| prequal.pick(pick, local));
        assert!(counts[0] == 0 && counts[3] < 60, "hot, slow: {counts:?}");
        let held = bench.closed_loop(50, 20_000, |pick, local| prequal.pick(pick, local));
        assert!(
            held.iter().enumerate().all(|(at, held)| *held > 0.2 || at == 3),
            "{held:?}"
        );
    }

    #[test]
    fn probes_follow_the_requests_up_to_the_limit() {
        let mut bench = Bench::new(&[1; 50]);
        bench.eligible.set(7, false);
        let prequal = prequal(&bench, 3.0, 500);
        // (requests a millisecond, probes in a second)
        for (requests, expected) in [(0.05, 150), (0.1, 300), (2.0, 500), (40.0, 500)] {
            let mut sent = 0;
            let mut asked = 0.0;
            let mut counts = vec![0; 50];
            for _ in 0..5_000 {
                bench.now.0 += 1;
                asked += requests;
                while asked >= 1.0 {
                    asked -= 1.0;
                    for index in due(&mut bench, &prequal) {
                        counts[index] += 1;
                        sent += 1;
                        let now = bench.now;
                        bench.local.probes.add(index, 1, 1.0, now);
                    }
                }
            }
            let per_second = sent / 5;
            assert!(
                (expected - 15..=expected + 15).contains(&per_second),
                "{per_second} at {requests}"
            );
            let expected: Vec<f64> = (0..50).map(|at| f64::from(u8::from(at != 7))).collect();
            chi_square(&counts, &expected);
        }
    }

    #[test]
    fn a_backend_has_one_probe_under_way_at_most() {
        let mut bench = Bench::new(&[1; 3]);
        let prequal = prequal(&bench, 3.0, 500);
        let mut under_way = Vec::new();
        for _ in 0..20 {
            bench.now.0 += 100;
            under_way.extend(due(&mut bench, &prequal));
        }
        under_way.sort_unstable();
        assert_eq!(under_way, [0, 1, 2]);
        bench.local.probes.failed(1);
        let again: Vec<usize> = (0..20).flat_map(|_| due(&mut bench, &prequal)).collect();
        assert_eq!(again, [1]);
    }

    #[test]
    fn uses_follow_the_formula_of_the_paper() {
        let mut pool = ProbePool {
            per_pick: 3.0,
            ..ProbePool::default()
        };
        // n = 100: 2 / ((1 - 0.16) 3 - 1) = 1.3; the more backends, the nearer to one.
        assert_eq!(pool.max_uses(100), 1);
        pool.per_pick = 1.0;
        assert_eq!(pool.max_uses(100), 4);
        pool.per_pick = 0.01;
        assert_eq!(pool.max_uses(100), 16);
        assert_eq!(pool.max_uses(10), 16);
    }

    proptest! {
        #[test]
        fn whatever_is_added_a_candidate_is_chosen(
            answers in prop::collection::vec((0usize..40, 0u32..30, 0.0f32..1e6, 0u64..1_500), 0..100),
            up in prop::collection::vec(any::<bool>(), 40),
        ) {
            let mut bench = Bench::new(&[1; 40]);
            up.iter().enumerate().for_each(|(at, up)| bench.eligible.set(at, *up));
            let prequal = prequal(&bench, 3.0, 500);
            for (index, in_flight, latency, passed) in answers {
                bench.now.0 += passed;
                let now = bench.now;
                bench.local.probes.add(index, in_flight, latency, now);
                prop_assert!(bench.local.probes.len() <= POOL);
                let chosen = bench.pick(|pick, local| prequal.pick(pick, local));
                prop_assert_eq!(chosen.is_some(), up.contains(&true));
                prop_assert!(chosen.is_none_or(|index| up[index]));
            }
        }
    }
}

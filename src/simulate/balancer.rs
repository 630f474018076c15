//! A load balancer of the simulation: one view of the pool that its workers share, and nothing shared with any other. The
//! only file of the simulator that calls `balance` to choose and to learn; what happens around it is as in `proxy`.

use std::sync::Arc;
use std::time::Duration;

use super::{Nanos, SECOND, stream_seed};
use crate::balance::liveness::Candidates;
use crate::balance::outcome::Outcome;
use crate::balance::outlier::{Sample, SilenceWatch};
use crate::balance::pick::{Local, Member, Pick};
use crate::balance::pool::{Ask, Choice, Event, Pool, Settings};
use crate::balance::prequal::Due;
use crate::balance::shared::Shared;
use crate::clock::Millis;
use crate::config::model::{Backend, Config, HealthCheck};
use crate::health::schedule::ASKED_SPACING;
use crate::health::verdict::{Finding, Machine, Rules};

/// What `balance` takes for the time when a simulation begins: 0 means "never" there.
const BEGINNING: u64 = 1_000_000;

/// Between two looks at what the traffic of the last interval showed, as the health thread has it.
const JUDGE_INTERVAL: Nanos = SECOND;

/// `balance` counts in milliseconds.
#[inline]
fn millis(now: Nanos) -> Millis {
    Millis(BEGINNING + now / (SECOND / 1000))
}

#[derive(Debug)]
pub struct Balancer {
    pool: Pool,
    workers: Vec<Local>,
    check: HealthCheck,
    max_retries: u32,
    /// By backend.
    health: Vec<Health>,
    seen: Vec<Seen>,
    silence: SilenceWatch,
    answers: Vec<u64>,
    judged: Nanos,
    /// Backends that a probe is wanted of at once.
    wanted: Vec<usize>,
}

/// What probes have shown of one backend, and when the next one is due.
#[derive(Debug)]
pub struct Health {
    machine: Machine,
    /// The next probe: never while one is under way, or where nobody probes.
    pub next: Nanos,
    asked: bool,
    asked_last: Option<Nanos>,
}

/// What the attempts at one backend came to.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    attempts: u64,
    failed: u64,
    /// Those of the failed ones that got no answer at all.
    silent: u64,
    took: Duration,
    /// The same at the last judgement.
    judged: (u64, u64, Duration),
}

impl Balancer {
    pub fn new(config: &Config, workers: usize, seed: u64) -> Self {
        let member = |backend: &Backend| {
            Member::new(Arc::new(Shared::default()), &backend.url, backend.weight)
                .in_tier(backend.priority, backend.backup)
        };
        let retry = &config.retry;
        let local = |worker: usize| {
            let local = Local::new(stream_seed(seed, worker as u64));
            local.with_budget(retry.budget, retry.min_per_second, workers)
        };
        let health = |_: &Backend| Health {
            machine: Machine::new(config.health_check.start),
            next: Nanos::MAX,
            asked: false,
            asked_last: None,
        };
        let members: Vec<Member> = config.backends.iter().map(member).collect();
        Balancer {
            workers: (0..workers).map(local).collect(),
            check: config.health_check.clone(),
            max_retries: config.retry.max_retries,
            health: config.backends.iter().map(health).collect(),
            seen: vec![Seen::default(); members.len()],
            silence: SilenceWatch::default(),
            answers: vec![0; members.len()],
            judged: 0,
            wanted: Vec::new(),
            pool: Pool::new(Settings::of(config), members),
        }
    }

    /// A request has arrived.
    #[inline]
    pub fn request(&mut self, now: Nanos, worker: usize) {
        self.workers[worker].budget.request(millis(now));
    }

    /// Chooses for the attempt after `retries` others, which begins by that; none if nobody is eligible.
    #[inline]
    pub fn begin(
        &mut self,
        now: Nanos,
        worker: usize,
        key: Option<u64>,
        tried: &[u16],
        retries: u32,
    ) -> Option<Choice> {
        let now = millis(now);
        let ask = Ask {
            now,
            key,
            sticky: None,
            tried,
            may_try: retries < self.max_retries,
        };
        let choice = self.pool.pick(&ask, &mut self.workers[worker])?;
        self.pool.members()[choice.index].shared.begin(now);
        Some(choice)
    }

    /// The backends that this worker is to ask for their load after a pick.
    #[inline]
    pub fn probes_due(&mut self, now: Nanos, worker: usize) -> Due {
        let pick = Pick {
            members: self.pool.members(),
            candidates: Candidates::new(self.pool.eligible(), &[]),
            now: millis(now),
            key: None,
            slow_start: None,
        };
        self.pool.strategy().probes_due(&pick, &mut self.workers[worker])
    }

    /// What a backend said of its load: requests in flight, and nanoseconds that one may expect to take; none: nothing
    /// came back.
    #[inline]
    pub fn told(&mut self, now: Nanos, worker: usize, backend: usize, load: Option<(u32, Nanos)>) {
        let probes = &mut self.workers[worker].probes;
        match load {
            Some((in_flight, latency)) => {
                probes.add(backend, in_flight, latency as f32 / 1000.0, millis(now));
            }
            None => probes.failed(backend),
        }
    }

    /// An attempt ended so, `took` after it began. `happened` is told the names of what came of it.
    #[inline]
    pub fn end(
        &mut self,
        now: Nanos,
        choice: Choice,
        outcome: Outcome,
        took: Duration,
        happened: &mut impl FnMut(&'static str),
    ) {
        let index = choice.index;
        let seen = &mut self.seen[index];
        seen.attempts += 1;
        seen.failed += u64::from(outcome.is_failure());
        seen.silent += u64::from(!matches!(outcome, Outcome::Status(_)));
        seen.took += took;
        let wanted = &mut self.wanted;
        let events = &mut |event| note(event, wanted, happened);
        self.pool.settle(choice, outcome, took, millis(now), events);
        self.pool.members()[index].shared.end();
    }

    /// Whether the budget pays for another attempt.
    pub fn pay(&mut self, now: Nanos, worker: usize) -> bool {
        self.workers[worker].budget.take(millis(now))
    }

    /// An attempt that the budget had paid for ended.
    pub fn paid_attempt_ended(&mut self, now: Nanos, worker: usize, failed: bool) {
        let budget = &mut self.workers[worker].budget;
        if failed {
            budget.lost();
        } else {
            budget.give_back(millis(now));
        }
    }

    /// Whether somebody is left that was not tried.
    pub fn has_untried(&self, tried: &[u16]) -> bool {
        Candidates::new(self.pool.eligible(), tried).count() > 0
    }

    /// What the health thread does at its tick.
    pub fn tick(&mut self, now: Nanos, happened: &mut impl FnMut(&'static str)) {
        let wanted = &mut self.wanted;
        let events = &mut |event| note(event, wanted, happened);
        self.pool.tick(millis(now), events);
        for (answers, seen) in self.answers.iter_mut().zip(&self.seen) {
            *answers = seen.attempts - seen.silent;
        }
        self.pool
            .listen_for_silence(&mut self.silence, &self.answers, millis(now), events);
        if now - self.judged >= JUDGE_INTERVAL {
            self.judged = now;
            let samples = self.seen.iter_mut().map(Seen::sample).map(Some).collect();
            self.pool.judge(samples, millis(now), events);
        }
    }

    /// What is known of a backend's health.
    pub fn health(&mut self, backend: usize) -> &mut Health {
        &mut self.health[backend]
    }

    /// A backend that is to be probed at once, and when; to be asked until there is none.
    #[inline]
    pub fn wanted_probe(&mut self, now: Nanos) -> Option<(usize, Nanos)> {
        while let Some(backend) = self.wanted.pop() {
            let health = &mut self.health[backend];
            let asked = self.pool.members()[backend].shared.take_probe_request();
            if asked && health.next != Nanos::MAX {
                let spacing = ASKED_SPACING.as_nanos() as Nanos;
                health.asked = true;
                health.next = health.asked_last.map_or(now, |last| now.max(last + spacing));
                return Some((backend, health.next));
            }
        }
        None
    }

    /// A probe of a backend begins.
    pub fn probe_begins(&mut self, now: Nanos, backend: usize) {
        let health = &mut self.health[backend];
        health.next = Nanos::MAX;
        if health.asked {
            health.asked_last = Some(now);
        }
    }

    /// What a probe found; gives the time of the next one.
    pub fn probed(
        &mut self,
        now: Nanos,
        backend: usize,
        outcome: Outcome,
        happened: &mut impl FnMut(&'static str),
    ) -> Nanos {
        let check = &self.check;
        let rules = Rules {
            rise: check.rise,
            fall: check.fall,
        };
        let is_good = |status: &u16| {
            let mut ranges = check.expect_status.iter();
            ranges.any(|range| (range.first..=range.last).contains(status))
        };
        let finding = match outcome {
            Outcome::Status(status) if is_good(&status) => Finding::Good,
            Outcome::ConnectRefused => Finding::Refused,
            Outcome::ConnectTimeout => Finding::Unreached,
            _ => Finding::Bad,
        };
        let health = &mut self.health[backend];
        let asked = std::mem::take(&mut health.asked);
        let change = health.machine.observe(finding, asked, rules);
        let pace = match (health.machine.is_changing(), check.fast_interval) {
            (true, Some(fast)) => fast,
            (true, None) => check.interval / 4,
            (false, _) => check.interval,
        };
        let next = now + pace.as_nanos() as Nanos;
        health.next = next;
        if let Some(change) = change.filter(|change| change.from.is_some()) {
            happened(change.to.word());
        }
        if let Some(verdict) = health.machine.verdict().filter(|_| change.is_some() || asked) {
            let wanted = &mut self.wanted;
            let events = &mut |event| note(event, wanted, happened);
            self.pool.probe(backend, verdict, millis(now), events);
        }
        next
    }
}

impl Seen {
    /// What happened since the last judgement.
    fn sample(&mut self) -> Sample {
        let (attempts, failed, took) = self.judged;
        self.judged = (self.attempts, self.failed, self.took);
        Sample {
            attempts: self.attempts - attempts,
            failures: self.failed - failed,
            answers: self.attempts - attempts,
            response_time: self.took - took,
        }
    }
}

/// Keeps what the engine has to act on, and tells the rest by name.
fn note(event: Event, wanted: &mut Vec<usize>, happened: &mut impl FnMut(&'static str)) {
    match event {
        Event::ProbeWanted { index } => wanted.push(index),
        event => happened(name(event)),
    }
}

/// What `weir simulate --json` calls an event.
fn name(event: Event) -> &'static str {
    match event {
        Event::BreakerOpened { .. } => "breaker: opened",
        Event::BreakerHalfOpen { .. } => "breaker: half-open",
        Event::BreakerClosed { .. } => "breaker: closed",
        Event::BreakerReopened { .. } => "breaker: opened again",
        Event::Ejected { .. } => "outlier: ejected",
        Event::EjectionTrial { .. } => "outlier: on trial",
        Event::Returned { .. } => "outlier: returned",
        Event::Held { .. } => "held",
        Event::Dead { .. } => "refused a connect",
        Event::ProbeWanted { .. } => "probe wanted",
        Event::PanicBegan { .. } => "panic: began",
        Event::PanicEnded { .. } => "panic: ended",
    }
}

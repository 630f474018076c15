//! Requests on their way through virtual time.
//!
//! A request arrives at a load balancer, which picks; its attempt travels to the backend, is served there, and the answer
//! travels back; what failed may be tried again, as `[retry]` says. Nothing is allocated for an event: requests, attempts
//! and probes lie in slabs that grow to the most that were ever under way.
//!
//! What arrives, what it needs and where it arrives is drawn from streams of random numbers of their own, so that every
//! strategy meets the very same requests.

use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::arrivals::{Arrivals, Logged};
use super::balancer::Balancer;
use super::distribution::exponential;
use super::queue::{Event, Kind, Queue};
use super::scenario::{Incident, IncidentType, Scenario};
use super::service::{Backend, Condition};
use super::tally::Tally;
use super::{Contender, Nanos, SECOND, stream_seed};
use crate::balance::outcome::{FailureSet, Outcome};
use crate::balance::pool::Choice;
use crate::balance::tried::Tried;
use crate::config::model::{Config, HealthCheckKind};

/// Between two rounds of what load balancers do at times.
const TICK: Nanos = SECOND / 20;
/// Between two looks at deadlines, as in the data path.
const SWEEP: Nanos = SECOND / 10;

/// Streams of random numbers.
mod stream {
    pub const ARRIVALS: u64 = 1;
    pub const WORK: u64 = 2;
    pub const ROUTE: u64 = 3;
    pub const NETWORK: u64 = 4;
    pub const ANTAGONIST: u64 = 5;
    pub const FAULTS: u64 = 6;
    pub const HEALTH: u64 = 7;
    /// And following, one for each load balancer.
    pub const BALANCERS: u64 = 1000;
}

/// All that a run depends on.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    pub scenario: &'a Scenario,
    /// Its backends are those of the simulation.
    pub config: &'a Config,
    pub log: Option<Arc<[Logged]>>,
    pub seed: u64,
}

/// Runs one strategy to the end of the scenario.
pub fn run(plan: &Plan<'_>, contender: Contender) -> Tally {
    let config = contender.configured(plan.config);
    let mut engine = Engine::new(plan, &config);
    engine.run();
    engine.into_tally()
}

/// A request that is not finished.
#[derive(Clone, Copy, Debug)]
struct Exchange {
    arrived: Nanos,
    key: Option<u64>,
    /// Processor time that it needs, in nanoseconds.
    work: f64,
    balancer: u32,
    worker: u16,
    tried: Tried,
    attempts: u8,
    /// The budget has paid for the attempt under way, and gets it back if that goes well.
    on_budget: bool,
}

/// Whom an attempt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Exchange {
        index: usize,
        choice: Choice,
    },
    Health {
        balancer: usize,
    },
    /// It was given up; the backend does not know.
    Nobody,
}

/// One try at one backend.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    owner: Owner,
    backend: usize,
    work: f64,
    began: Nanos,
    deadline: Nanos,
    outcome: Outcome,
    /// No event will come for it.
    lost: bool,
}

/// One question for a backend's load.
#[derive(Clone, Copy, Debug)]
struct LoadProbe {
    balancer: usize,
    worker: usize,
    backend: usize,
    /// In flight, and the latency to be expected.
    load: Option<(u32, Nanos)>,
}

struct Engine<'a> {
    plan: &'a Plan<'a>,
    config: &'a Config,
    now: Nanos,
    /// When the last request arrives.
    last_arrival: Nanos,
    next_arrival: Nanos,
    next_key: Option<u64>,
    queue: Queue,
    exchanges: Slab<Exchange>,
    attempts: Slab<Attempt>,
    loads: Slab<LoadProbe>,
    /// Whether the strategy asks for loads.
    asks: bool,
    backends: Vec<Backend>,
    balancers: Vec<Balancer>,
    arrivals: Arrivals,
    work: fastrand::Rng,
    route: fastrand::Rng,
    network: fastrand::Rng,
    antagonist: fastrand::Rng,
    faults: fastrand::Rng,
    /// Which of the scenario's events are going on.
    active: Vec<bool>,
    /// The backends that the scenario names.
    named: Vec<bool>,
    retry_on: FailureSet,
    max_retries: u32,
    try_timeout: Nanos,
    overdue: Vec<usize>,
    tally: Tally,
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<'a> Engine<'a> {
    fn new(plan: &'a Plan<'a>, config: &'a Config) -> Self {
        let scenario = plan.scenario;
        let random = |stream| fastrand::Rng::with_seed(stream_seed(plan.seed, stream));
        let count = config.backends.len();
        let backends: Vec<Backend> = (0..count).map(|at| backend(scenario, at)).collect();
        let capacity = capacity(scenario, count);
        let balancer = |at: usize| {
            let seed = stream_seed(plan.seed, stream::BALANCERS + at as u64);
            Balancer::new(config, scenario.workers.0, seed)
        };
        let seed = stream_seed(plan.seed, stream::ARRIVALS);
        let timeouts = &config.timeouts;
        let per_try = config.retry.per_try_timeout.unwrap_or(Duration::MAX);
        Engine {
            plan,
            config,
            now: 0,
            last_arrival: scenario.duration.nanos(),
            next_arrival: Nanos::MAX,
            next_key: None,
            queue: Queue::default(),
            exchanges: Slab::with_capacity(1024),
            attempts: Slab::with_capacity(1024),
            loads: Slab::new(),
            asks: config.strategy.probe_path.is_some(),
            balancers: (0..scenario.load_balancers.0).map(balancer).collect(),
            arrivals: Arrivals::new(scenario, capacity, plan.log.clone(), seed),
            work: random(stream::WORK),
            route: random(stream::ROUTE),
            network: random(stream::NETWORK),
            antagonist: random(stream::ANTAGONIST),
            faults: random(stream::FAULTS),
            active: vec![false; scenario.events.len()],
            named: (0..count).map(|at| is_named(scenario, at)).collect(),
            retry_on: FailureSet::new(&config.retry.on),
            max_retries: config.retry.max_retries,
            try_timeout: nanos(timeouts.response_head.min(per_try)),
            overdue: Vec::new(),
            tally: Tally::new(count, scenario.duration.nanos()),
            backends,
        }
    }

    fn into_tally(mut self) -> Tally {
        self.tally.in_flight = self.exchanges.len() as u64;
        let peak = self.backends.iter().map(|backend| backend.peak).max();
        self.tally.queue_peak = peak.unwrap_or_default();
        self.tally
    }

    fn run(&mut self) {
        self.schedule_first();
        let end = self.last_arrival.saturating_add(self.plan.scenario.drain.nanos());
        loop {
            if self.next_arrival <= self.queue.next_at() {
                if self.next_arrival == Nanos::MAX {
                    break;
                }
                self.now = self.next_arrival;
                self.arrive();
                continue;
            }
            let Some(event) = self.queue.pop() else { break };
            if event.at > end {
                break;
            }
            self.now = event.at;
            self.handle(event);
            if self.next_arrival == Nanos::MAX && self.exchanges.is_empty() && self.now >= self.last_arrival {
                break;
            }
        }
    }

    fn schedule_first(&mut self) {
        self.prepare_arrival();
        self.queue.push(TICK, Kind::Tick, 0);
        self.queue.push(SWEEP, Kind::Sweep, 0);
        self.queue.push(self.tally.slice_length, Kind::Slice, 0);
        for (at, incident) in self.plan.scenario.events.iter().enumerate() {
            let incident: &Incident = incident.as_ref();
            self.queue.push(incident.at.nanos(), Kind::Change, at * 2);
            if incident.end() != Nanos::MAX {
                self.queue.push(incident.end(), Kind::Change, at * 2 + 1);
            }
        }
        let check = &self.config.health_check;
        if check.kind != HealthCheckKind::Off {
            // Spread over the interval.
            let interval = nanos(check.interval).max(1);
            let mut random = fastrand::Rng::with_seed(stream_seed(self.plan.seed, stream::HEALTH));
            for pair in 0..self.balancers.len() * self.backends.len() {
                let (balancer, backend) = (pair / self.backends.len(), pair % self.backends.len());
                let first = random.u64(..interval);
                self.balancers[balancer].health(backend).next = first;
                self.queue.push(first, Kind::Health, pair);
            }
        }
        if self.plan.scenario.antagonist.is_some() {
            (0..self.backends.len()).for_each(|at| self.disturb(at));
        }
    }

    /// Draws the next arrival.
    #[inline]
    fn prepare_arrival(&mut self) {
        match self.arrivals.advance() {
            Some((at, key)) if at < self.last_arrival => (self.next_arrival, self.next_key) = (at, key),
            _ => self.next_arrival = Nanos::MAX,
        }
    }

    #[inline]
    fn handle(&mut self, event: Event) {
        match event.kind {
            Kind::Reach => self.reach(event.index),
            Kind::Finish => self.serve(event.index),
            Kind::Answer => self.answer(event.index),
            Kind::Tick => self.tick(),
            Kind::Sweep => self.sweep(),
            Kind::Change => self.change(event.index),
            Kind::Antagonist => self.disturb(event.index),
            Kind::Slice => self.slice(),
            Kind::Health => self.probe(event.index),
            Kind::Ask => self.ask(event.index),
            Kind::Told => self.told(event.index),
        }
    }

    #[inline]
    fn arrive(&mut self) {
        let key = self.next_key;
        let scenario = self.plan.scenario;
        let exchange = Exchange {
            arrived: self.now,
            key,
            work: scenario.service.time.as_ref().sample(&mut self.work),
            balancer: self.route.u32(..self.balancers.len() as u32),
            worker: match scenario.workers.0 {
                1 => 0,
                workers => self.route.u16(..workers as u16),
            },
            tried: Tried::default(),
            attempts: 0,
            on_budget: false,
        };
        self.prepare_arrival();
        self.tally.arrived += 1;
        let (balancer, worker) = (exchange.balancer as usize, usize::from(exchange.worker));
        self.balancers[balancer].request(self.now, worker);
        let index = self.exchanges.insert(exchange);
        self.attempt(index);
        if self.asks {
            self.ask_for_loads(balancer, worker);
        }
    }

    /// The next attempt of an exchange, or its end if there is nobody to try.
    #[inline]
    fn attempt(&mut self, index: usize) {
        let now = self.now;
        let exchange = &mut self.exchanges[index];
        let tried = exchange.tried.as_slice();
        let balancer = &mut self.balancers[exchange.balancer as usize];
        let retries = u32::from(exchange.attempts);
        let picked = balancer.begin(now, usize::from(exchange.worker), exchange.key, tried, retries);
        let Some(choice) = picked else {
            self.tally.nobody += 1;
            self.finish(index, true);
            return;
        };
        exchange.attempts = exchange.attempts.saturating_add(1);
        let counts = exchange.arrived >= self.plan.scenario.warm_up();
        let work = exchange.work;
        let named = self.named[choice.index];
        self.tally.attempt(counts, choice.index, retries > 0, named);
        let whole = self.config.timeouts.exchange.map_or(Nanos::MAX, nanos);
        let deadline = now
            .saturating_add(self.try_timeout)
            .min(exchange.arrived.saturating_add(whole));
        self.send(Attempt {
            owner: Owner::Exchange { index, choice },
            backend: choice.index,
            work,
            began: now,
            deadline,
            outcome: Outcome::Timeout,
            lost: false,
        });
    }

    #[inline]
    fn send(&mut self, attempt: Attempt) {
        let at = self.now + self.delay();
        let index = self.attempts.insert(attempt);
        self.queue.push(at, Kind::Reach, index);
    }

    #[inline]
    fn delay(&mut self) -> Nanos {
        self.plan.scenario.network.delay.sample(&mut self.network) as Nanos
    }

    /// `outcome` sets out for the load balancer after `served`.
    #[inline]
    fn send_back(&mut self, index: usize, outcome: Outcome, served: Nanos) {
        self.attempts[index].outcome = outcome;
        let at = self.now + served + self.delay();
        self.queue.push(at, Kind::Answer, index);
    }

    /// An attempt arrives at its backend.
    #[inline]
    fn reach(&mut self, index: usize) {
        let attempt = self.attempts[index];
        let backend = &mut self.backends[attempt.backend];
        let probe = matches!(attempt.owner, Owner::Health { .. });
        match (backend.condition, backend.health) {
            (Condition::Crashed, _) => return self.send_back(index, Outcome::ConnectRefused, 0),
            (Condition::Gone, _) => return self.lose(index),
            (_, Some(good)) if probe => {
                let status = if good { 200 } else { 503 };
                return self.send_back(index, Outcome::Status(status), 0);
            }
            (Condition::Failing { share, status, after }, _) if self.faults.f64() < share => {
                return self.send_back(index, Outcome::Status(status), after);
            }
            _ => {}
        }
        let work = match &backend.time {
            Some(time) if !probe => time.sample(&mut self.faults),
            _ => attempt.work,
        };
        if backend.take(self.now, index, work) {
            self.rearm(attempt.backend);
        } else {
            self.send_back(index, Outcome::Status(503), 0);
        }
    }

    /// Nothing will come back for this attempt.
    fn lose(&mut self, index: usize) {
        let connect = nanos(self.config.timeouts.connect);
        let attempt = &mut self.attempts[index];
        if attempt.owner == Owner::Nobody {
            self.attempts.remove(index);
            return;
        }
        attempt.lost = true;
        attempt.outcome = Outcome::ConnectTimeout;
        attempt.deadline = attempt.deadline.min(attempt.began.saturating_add(connect));
    }

    /// Sets a backend's alarm to its next finish, if that is earlier.
    #[inline]
    fn rearm(&mut self, at: usize) {
        let backend = &mut self.backends[at];
        let due = backend.next_finish();
        if due < backend.alarm {
            backend.alarm = due;
            self.queue.push(due, Kind::Finish, at);
        }
    }

    /// A backend's alarm.
    #[inline]
    fn serve(&mut self, at: usize) {
        let backend = &mut self.backends[at];
        if backend.alarm != self.now {
            return;
        }
        backend.alarm = Nanos::MAX;
        while let Some(index) = self.backends[at].finished(self.now) {
            if self.attempts[index].owner == Owner::Nobody {
                self.attempts.remove(index);
            } else {
                self.send_back(index, Outcome::Status(200), 0);
            }
        }
        self.rearm(at);
    }

    /// An answer arrives at its load balancer.
    #[inline]
    fn answer(&mut self, index: usize) {
        let attempt = self.attempts.remove(index);
        self.settle(attempt);
    }

    /// What an attempt's end means for whom it was for.
    #[inline]
    fn settle(&mut self, attempt: Attempt) {
        let outcome = attempt.outcome;
        let (index, choice) = match attempt.owner {
            Owner::Exchange { index, choice } => (index, choice),
            Owner::Health { balancer } => return self.probed(balancer, attempt.backend, outcome),
            Owner::Nobody => return,
        };
        let exchange = &mut self.exchanges[index];
        let (at, worker) = (exchange.balancer as usize, usize::from(exchange.worker));
        let balancer = &mut self.balancers[at];
        let took = Duration::from_nanos(self.now - attempt.began);
        let tally = &mut self.tally;
        balancer.end(self.now, choice, outcome, took, &mut |name| tally.happened(name));
        let failed = outcome.is_failure();
        if std::mem::take(&mut exchange.on_budget) {
            balancer.paid_attempt_ended(self.now, worker, failed);
        }
        let covered = failed && self.retry_on.contains(outcome);
        if covered && u32::from(exchange.attempts) <= self.max_retries {
            if balancer.pay(self.now, worker) {
                exchange.on_budget = true;
                exchange.tried.push(choice.index);
                if !balancer.has_untried(exchange.tried.as_slice()) {
                    // Better the same one once more than none.
                    exchange.tried.clear();
                }
                self.send_wanted_probes(at);
                self.attempt(index);
                return;
            }
            self.tally.refused_retries += 1;
        }
        if failed {
            self.send_wanted_probes(at);
        }
        self.finish(index, failed);
    }

    #[inline]
    fn finish(&mut self, index: usize, failed: bool) {
        let exchange = self.exchanges.remove(index);
        let counts = exchange.arrived >= self.plan.scenario.warm_up();
        self.tally.end(counts, failed, self.now - exchange.arrived);
    }

    /// Gives up what is past its deadline.
    fn sweep(&mut self) {
        self.queue.push(self.now + SWEEP, Kind::Sweep, 0);
        let mut overdue = std::mem::take(&mut self.overdue);
        let late = |attempt: &Attempt| attempt.deadline <= self.now && attempt.owner != Owner::Nobody;
        overdue.extend(
            self.attempts
                .iter()
                .filter(|(_, attempt)| late(attempt))
                .map(|(at, _)| at),
        );
        for index in overdue.drain(..) {
            let mut attempt = self.attempts[index];
            if attempt.lost {
                self.attempts.remove(index);
            } else {
                self.attempts[index].owner = Owner::Nobody;
                attempt.outcome = Outcome::Timeout;
            }
            self.settle(attempt);
        }
        self.overdue = overdue;
    }

    fn tick(&mut self) {
        self.queue.push(self.now + TICK, Kind::Tick, 0);
        for at in 0..self.balancers.len() {
            let tally = &mut self.tally;
            self.balancers[at].tick(self.now, &mut |name| tally.happened(name));
            self.send_wanted_probes(at);
        }
    }

    /// Sends a health probe, if the one that is due is this.
    fn probe(&mut self, pair: usize) {
        let (balancer, backend) = (pair / self.backends.len(), pair % self.backends.len());
        if self.balancers[balancer].health(backend).next != self.now {
            return;
        }
        self.balancers[balancer].probe_begins(self.now, backend);
        self.tally.health_probes += 1;
        self.send(Attempt {
            owner: Owner::Health { balancer },
            backend,
            work: 0.0,
            began: self.now,
            deadline: self.now.saturating_add(nanos(self.config.health_check.timeout)),
            outcome: Outcome::Timeout,
            lost: false,
        });
    }

    /// A health probe ended so.
    fn probed(&mut self, balancer: usize, backend: usize, outcome: Outcome) {
        let tally = &mut self.tally;
        let next =
            self.balancers[balancer].probed(self.now, backend, outcome, &mut |name| tally.happened(name));
        self.queue
            .push(next, Kind::Health, balancer * self.backends.len() + backend);
    }

    /// Lets health probes begin that a load balancer wants at once.
    fn send_wanted_probes(&mut self, balancer: usize) {
        while let Some((backend, at)) = self.balancers[balancer].wanted_probe(self.now) {
            self.queue
                .push(at, Kind::Health, balancer * self.backends.len() + backend);
        }
    }

    /// Asks backends for their load, as the strategy wants it after a pick.
    #[inline]
    fn ask_for_loads(&mut self, balancer: usize, worker: usize) {
        let due = self.balancers[balancer].probes_due(self.now, worker);
        for &backend in due.iter() {
            self.tally.load_probes += 1;
            let index = self.loads.insert(LoadProbe {
                balancer,
                worker,
                backend: usize::from(backend),
                load: None,
            });
            let at = self.now + self.delay();
            self.queue.push(at, Kind::Ask, index);
        }
    }

    /// A load probe is at its backend.
    #[inline]
    fn ask(&mut self, index: usize) {
        let probe = &mut self.loads[index];
        let backend = &self.backends[probe.backend];
        let mut wait = 0;
        match backend.condition {
            Condition::Crashed => {}
            Condition::Gone => wait = nanos(self.config.timeouts.connect),
            Condition::Well | Condition::Failing { .. } => {
                probe.load = Some(backend.own_view(self.now));
            }
        }
        let at = self.now + wait + self.delay();
        self.queue.push(at, Kind::Told, index);
    }

    /// A load probe's answer is at its load balancer.
    #[inline]
    fn told(&mut self, index: usize) {
        let probe = self.loads.remove(index);
        self.balancers[probe.balancer].told(self.now, probe.worker, probe.backend, probe.load);
    }

    /// Something of the scenario begins (even) or ends (odd): every backend becomes what all that goes on makes of it.
    fn change(&mut self, change: usize) {
        self.active[change / 2] = change.is_multiple_of(2);
        let scenario = self.plan.scenario;
        let active = || {
            let events = scenario.events.iter().zip(&self.active);
            events
                .filter(|(_, active)| **active)
                .map(|(event, _)| event.as_ref())
        };
        let traffic = active().filter(|incident| incident.r#type == IncidentType::Traffic);
        self.arrivals.factor = traffic
            .filter_map(|incident| incident.factor)
            .map(|factor| factor.0)
            .product();
        let fates: Vec<Fate> = (0..self.backends.len())
            .map(|at| {
                let concerns = |incident: &&Incident| {
                    let backends = incident.backends.as_ref();
                    backends.is_some_and(|backends| backends.as_ref().contains(at))
                };
                active().filter(concerns).fold(Fate::default(), Fate::and)
            })
            .collect();
        for (at, fate) in fates.into_iter().enumerate() {
            self.befall(at, fate);
        }
    }

    fn befall(&mut self, at: usize, fate: Fate) {
        let backend = &mut self.backends[at];
        let before = std::mem::replace(&mut backend.condition, fate.condition);
        backend.health = fate.health;
        backend.set_slowness(self.now, fate.slowness);
        match fate.condition {
            Condition::Crashed if before != Condition::Crashed => {
                for index in backend.drop_all(self.now) {
                    if self.attempts[index].owner == Owner::Nobody {
                        self.attempts.remove(index);
                    } else {
                        self.send_back(index, Outcome::Reset, 0);
                    }
                }
            }
            Condition::Gone if before != Condition::Gone => {
                for index in backend.drop_all(self.now) {
                    self.strand(index);
                }
            }
            _ => {}
        }
        self.rearm(at);
    }

    /// Its backend is gone while it was there: its connection stands, and nothing comes.
    fn strand(&mut self, index: usize) {
        let attempt = &mut self.attempts[index];
        if attempt.owner == Owner::Nobody {
            self.attempts.remove(index);
        } else {
            attempt.lost = true;
            attempt.outcome = Outcome::Timeout;
        }
    }

    /// A backend's antagonist draws another level, and when it will do so again.
    fn disturb(&mut self, at: usize) {
        let Some(antagonist) = &self.plan.scenario.antagonist else {
            return;
        };
        let levels = antagonist.levels.as_ref();
        let all: f64 = levels.iter().map(|level| level.share.0).sum();
        let mut drawn = self.antagonist.f64() * all;
        let found = levels.iter().find(|level| {
            drawn -= level.share.0;
            drawn < 0.0
        });
        if let Some(level) = found.or(levels.last()) {
            self.backends[at].set_antagonist(self.now, level.capacity.0, level.speed.0);
        }
        let wait = antagonist.every.nanos() as f64 * exponential(&mut self.antagonist);
        self.queue
            .push(self.now + wait as Nanos + 1, Kind::Antagonist, at);
        self.rearm(at);
    }

    fn slice(&mut self) {
        self.queue
            .push(self.now + self.tally.slice_length, Kind::Slice, 0);
        let peaks = self.backends.iter_mut();
        let longest = peaks.map(|backend| std::mem::take(&mut backend.slice_peak)).max();
        if self.now <= self.last_arrival {
            self.tally.cut(longest.unwrap_or_default());
        }
    }
}

/// What all that goes on makes of one backend.
struct Fate {
    condition: Condition,
    health: Option<bool>,
    slowness: f64,
}

impl Default for Fate {
    fn default() -> Self {
        Fate {
            condition: Condition::Well,
            health: None,
            slowness: 1.0,
        }
    }
}

impl Fate {
    fn and(mut self, incident: &Incident) -> Fate {
        match incident.r#type {
            IncidentType::Crash => self.condition = Condition::Crashed,
            IncidentType::Gone if self.condition != Condition::Crashed => self.condition = Condition::Gone,
            IncidentType::Fail if self.condition == Condition::Well => {
                self.condition = Condition::Failing {
                    share: incident.share.map_or(1.0, |share| share.0),
                    status: incident.status.unwrap_or(503),
                    after: incident.time.map_or(0, |time| time.nanos()),
                };
                self.health = Some(incident.health.unwrap_or(true));
            }
            IncidentType::Hang => {
                self.slowness = f64::INFINITY;
                self.health = Some(incident.health.unwrap_or(true));
            }
            IncidentType::Slow => self.slowness *= incident.factor.map_or(1.0, |factor| factor.0),
            IncidentType::Sick => self.health = Some(false),
            IncidentType::Gone | IncidentType::Fail | IncidentType::Traffic => {}
        }
        self
    }
}

/// The backend at this position as the scenario describes it.
fn backend(scenario: &Scenario, at: usize) -> Backend {
    let service = &scenario.service;
    let mut cores = service.cores.0;
    let mut speed = 1.0;
    let mut time = None;
    for special in scenario
        .special
        .iter()
        .filter(|special| special.backends.as_ref().contains(at))
    {
        cores = special.cores.map_or(cores, |cores| cores.0);
        speed = special.speed.map_or(speed, |speed| speed.0);
        time = special.time.or(time);
    }
    let concurrency = service.concurrency.map(|concurrency| concurrency.0);
    let mut backend = Backend::new(cores, service.discipline, concurrency, service.queue.0, speed);
    backend.time = time;
    backend
}

/// Requests per second that the first `count` backends can serve together while nothing is wrong with them.
pub fn capacity(scenario: &Scenario, count: usize) -> f64 {
    let service = &scenario.service;
    let one = |at: usize| {
        let special = || {
            scenario
                .special
                .iter()
                .filter(|special| special.backends.as_ref().contains(at))
        };
        let cores = special()
            .filter_map(|special| special.cores)
            .next_back()
            .unwrap_or(service.cores);
        let time = special().filter_map(|special| special.time).next_back();
        let time = time.unwrap_or(*service.time.as_ref());
        let speed = special().filter_map(|special| special.speed).next_back();
        cores.0 as f64 * speed.map_or(1.0, |speed| speed.0) / time.mean() * SECOND as f64
    };
    (0..count).map(one).sum()
}

/// Whether the scenario says something of the backend at this position.
pub fn is_named(scenario: &Scenario, at: usize) -> bool {
    let special = scenario.special.iter().map(|special| &special.backends);
    let events = scenario
        .events
        .iter()
        .filter_map(|event| event.as_ref().backends.as_ref());
    special
        .chain(events)
        .any(|backends| backends.as_ref().contains(at))
}

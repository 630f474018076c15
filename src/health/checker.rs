//! The health thread's loop: starts what is due, judges what is over, tells the pools, looks after the control thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;
use tokio::sync::watch;

use super::probe::{Check, Failure, Report, probe};
use super::schedule::{Id, Schedule, Started};
use super::verdict::{Change, Finding, Machine, Rules, Verdict};
use super::{Inbox, Plan, ProbeTarget, Rounds, TICK};
use crate::buffer;
use crate::clock::{self, Millis};
use crate::config::model::{HealthCheckKind, HealthStart};
use crate::event::Event;
use crate::events::{self, Tone};
use crate::server::wake::WakeStream;
use crate::upstream::backend::Backend;
use crate::upstream::probes::LastProbe;

/// Probes under way at once: with 4,096 backends of which one in ten hangs, still one probe of each in two seconds. Each
/// takes a socket and, once it is connected, a buffer of 16 KiB.
pub const IN_FLIGHT_MAX: usize = 256;
/// How much later than one time-out the first round is given up, so that probes that time out count in it.
const ROUND_GRACE: Duration = Duration::from_millis(100);
/// The least time between two lines about probes that could not be made: without descriptors none can.
const COMPLAINT_SPACING: Duration = Duration::from_secs(1);
/// Ticks between two trims of the buffer pool.
const TICKS_PER_TRIM: u32 = 20;

/// One backend.
struct Entry {
    target: ProbeTarget,
    machine: Machine,
}

/// A round of first probes that somebody waits for.
struct Round {
    /// The plan's number.
    plan: u64,
    until: Millis,
}

/// What other tasks of the thread tell the loop.
#[derive(Default)]
struct News {
    woken: Cell<bool>,
    over: RefCell<Vec<(Started, Report)>>,
    event: Event,
}

impl News {
    fn is_any(&self) -> bool {
        self.woken.get() || !self.over.borrow().is_empty()
    }
}

/// The thread's state.
pub(super) struct Checker {
    check: Rc<Check>,
    rules: Rules,
    entries: HashMap<Id, Entry>,
    schedule: Schedule,
    random: Rng,
    next_id: u64,
    under_way: usize,
    round: Option<Round>,
    rounds: watch::Sender<Rounds>,
    news: Rc<News>,
    nonblocking: bool,
    complained: Option<Millis>,
}

impl Checker {
    pub(super) fn new(plan: Plan, rounds: watch::Sender<Rounds>, nonblocking: bool) -> Self {
        let mut random = Rng::new();
        let now = clock::now();
        let schedule = Schedule::new(plan.pace, &mut random);
        let mut checker = Checker {
            check: Rc::new(plan.check),
            rules: plan.rules,
            entries: HashMap::new(),
            schedule,
            random,
            next_id: 0,
            under_way: 0,
            round: None,
            rounds,
            news: Rc::default(),
            nonblocking,
            complained: None,
        };
        checker.enlist(plan.start, plan.targets, 1, now);
        checker
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// The eventfd cannot be read any more.
    pub(super) async fn run(
        mut self,
        wake: WakeStream,
        inbox: &Mutex<Inbox>,
        mut tick: Box<dyn FnMut(Millis) + Send>,
    ) -> io::Result<()> {
        let news = self.news.clone();
        let watch = monoio::spawn(watch_wake(wake, news.clone()));
        let mut next_tick = clock::now();
        let mut ticks = 0u32;
        loop {
            let now = clock::now();
            if news.woken.take() {
                let Inbox { plan, stop } =
                    std::mem::take(&mut *inbox.lock().unwrap_or_else(PoisonError::into_inner));
                if stop {
                    return Ok(());
                }
                if let Some((number, plan)) = plan {
                    self.replace(number, plan, now);
                }
                self.take_requests(now);
            }
            for (started, report) in news.over.take() {
                self.under_way -= 1;
                self.judge(started, &report, now);
            }
            self.start_due(now);
            self.end_round(now);
            if now >= next_tick {
                tick(now);
                next_tick = now + TICK;
                ticks = ticks.wrapping_add(1);
                if ticks.is_multiple_of(TICKS_PER_TRIM) {
                    buffer::trim();
                }
            }
            if watch.is_finished() {
                return watch.await;
            }
            // The coarse clock may not have moved on yet when a wait is over: never a wait of nothing.
            let wait = (self.next_at(next_tick) - now).max(Duration::from_millis(1));
            let _ = monoio::time::timeout(wait, news.event.until(|| news.is_any())).await;
        }
    }

    /// When the loop has something to do, if nothing happens before.
    fn next_at(&self, next_tick: Millis) -> Millis {
        let due = self
            .schedule
            .next_due()
            .filter(|_| self.under_way < IN_FLIGHT_MAX);
        let round = self.round.as_ref().map(|round| round.until);
        [Some(next_tick), due, round]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(next_tick)
    }

    fn replace(&mut self, number: u64, plan: Plan, now: Millis) {
        self.check = Rc::new(plan.check);
        self.rules = plan.rules;
        self.schedule.set_pace(plan.pace, now, &mut self.random);
        self.enlist(plan.start, plan.targets, number, now);
    }

    /// Probes these from now on and nobody else.
    fn enlist(&mut self, start: HealthStart, targets: Vec<ProbeTarget>, plan: u64, now: Millis) {
        let off = self.check.kind == HealthCheckKind::Off;
        let mut before: HashMap<*const Backend, (Id, Entry)> = self
            .entries
            .drain()
            .map(|(id, entry)| (Arc::as_ptr(&entry.target.backend), (id, entry)))
            .collect();
        for target in targets {
            let (id, mut entry) = match before.remove(&Arc::as_ptr(&target.backend)) {
                Some((id, Entry { machine, .. })) => (id, Entry { target, machine }),
                None => {
                    let machine = Machine::new(start);
                    self.next_id += 1;
                    (Id(self.next_id), Entry { target, machine })
                }
            };
            if off {
                entry.stop_checking();
                self.schedule.remove(id);
            } else if !self.schedule.contains(id) {
                self.schedule.add(id, now);
            }
            if let Some(verdict) = entry.machine.verdict() {
                entry.tell(verdict, now);
            }
            self.entries.insert(id, entry);
        }
        for (id, _) in before.into_values() {
            self.schedule.remove(id);
        }
        self.round = Some(Round {
            plan,
            until: now + self.check.timeout + ROUND_GRACE,
        });
        self.end_round(now);
    }

    /// Who was asked for by a worker.
    fn take_requests(&mut self, now: Millis) {
        for (id, entry) in &self.entries {
            if entry.target.backend.shared.take_probe_request() {
                self.schedule.ask(*id, now);
            }
        }
    }

    fn start_due(&mut self, now: Millis) {
        while self.under_way < IN_FLIGHT_MAX {
            let Some(started) = self.schedule.start(now) else {
                return;
            };
            let Some(entry) = self.entries.get(&started.id) else {
                self.schedule.remove(started.id);
                continue;
            };
            self.under_way += 1;
            let (check, backend) = (self.check.clone(), entry.target.backend.clone());
            let (news, nonblocking) = (self.news.clone(), self.nonblocking);
            monoio::spawn(async move {
                // What a panic may leave half done belongs to this probe alone.
                let report = AssertUnwindSafe(probe(&check, &backend, nonblocking))
                    .catch_unwind()
                    .await
                    .unwrap_or(Report {
                        took: Duration::ZERO,
                        status: None,
                        failure: Some(Failure::Panicked),
                    });
                news.over.borrow_mut().push((started, report));
                news.event.ring();
            });
        }
    }

    fn judge(&mut self, started: Started, report: &Report, now: Millis) {
        let Some(entry) = self.entries.get_mut(&started.id) else {
            return;
        };
        if !self.schedule.contains(started.id) {
            return;
        }
        let finding = report.finding();
        let error = report.failure.as_ref().map(ToString::to_string);
        entry.target.backend.probes.record(
            LastProbe {
                at: now,
                took: report.took,
                status: report.status,
                error: error.clone(),
            },
            (finding != Finding::Nothing).then_some(finding == Finding::Good),
        );
        let why = error.unwrap_or_else(|| self.check.praise(report.status));
        let name = &entry.target.backend.name;
        if finding != Finding::Nothing {
            let took_us = report.took.as_micros() as u64;
            tracing::debug!(backend = name, why, asked = started.asked, took_us, "probe");
        } else if self.complained.is_none_or(|last| now - last >= COMPLAINT_SPACING) {
            self.complained = Some(now);
            tracing::warn!(backend = name, why, "probes cannot be made");
        }
        let change = entry.machine.observe(finding, started.asked, self.rules);
        if let Some(verdict) = entry
            .machine
            .verdict()
            .filter(|_| change.is_some() || started.asked)
        {
            entry.tell(verdict, now);
        }
        // Whoever reads the line finds it true.
        if let Some(change) = change {
            log(name, change, &why);
        }
        let changing = entry.machine.is_changing();
        self.schedule.finish(started.id, now, changing, &mut self.random);
    }

    /// Says that the first round is over, once it is.
    fn end_round(&mut self, now: Millis) {
        let verdicts = || self.entries.values().map(|entry| entry.machine.verdict());
        let Some(round) = self
            .round
            .take_if(|round| now >= round.until || verdicts().all(|v| v.is_some()))
        else {
            return;
        };
        let count = |wanted: Option<Verdict>| verdicts().filter(|verdict| *verdict == wanted).count();
        if self.check.kind != HealthCheckKind::Off {
            tracing::info!(
                up = count(Some(Verdict::Up)),
                sick = count(Some(Verdict::Sick)),
                dead = count(Some(Verdict::Dead)),
                unknown = count(None),
                "backends are known"
            );
        }
        // Nobody waits any more: weir is stopping.
        let _ = self.rounds.send(Ok(round.plan));
    }
}

impl Entry {
    /// Nobody says any more that it is down.
    fn stop_checking(&mut self) {
        let before = self.machine.verdict();
        self.machine = Machine::new(HealthStart::Up);
        if before.is_some_and(|verdict| verdict != Verdict::Up) {
            let change = Change {
                from: before,
                to: Verdict::Up,
                probes: 0,
            };
            log(&self.target.backend.name, change, "health checks are off");
        }
    }

    fn tell(&self, verdict: Verdict, now: Millis) {
        self.target.pool.probe_verdict(self.target.index, verdict, now);
    }
}

/// One line for each change.
fn log(backend: &str, change: Change, why: &str) {
    let Change { from, to, probes } = change;
    let from = from.map_or("unknown", Verdict::word);
    let to = to.word();
    if change.to != Verdict::Up {
        events::note(Tone::Bad, backend, format!("health checks say {to}: {why}"));
    }
    match change.to {
        Verdict::Up if change.from.is_none() => {
            tracing::debug!(backend, from, to, probes, why, "health: backend is up");
        }
        Verdict::Up => tracing::info!(backend, from, to, probes, why, "health: backend is up"),
        Verdict::Sick => tracing::warn!(backend, from, to, probes, why, "health: backend is sick"),
        Verdict::Dead => tracing::warn!(backend, from, to, probes, why, "health: backend is dead"),
    }
}

/// Notes every wake for the loop.
async fn watch_wake(mut wake: WakeStream, news: Rc<News>) -> io::Result<()> {
    loop {
        let woken = wake.wait().await;
        news.woken.set(true);
        news.event.ring();
        woken?;
    }
}

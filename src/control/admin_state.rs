//! What the admin API is told and asked, from the snapshot in force.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;

use crate::admin::{
    BackendView, BreakerView, Command, Condition, Connections, Ejections, Guard, Live, Overrides, Phase,
    Probe, Refused, State,
};
use crate::balance::breaker;
use crate::balance::shared::Flag;
use crate::clock::{self, Millis};
use crate::config::{model, strategy_name};
use crate::control::explain::explain;
use crate::control::operator::{Change, Mode, Operator, Refusal};
use crate::log;
use crate::metrics::{BackendInfo, BackendState, Dropped, Info, Shard};
use crate::profile::rings;
use crate::proxy::context::Observers;
use crate::server::lifecycle::{Lifecycle, Stage};
use crate::snapshot::{Published, Snapshot};

/// The admin API's view of everything.
pub fn make(
    operator: &Arc<Operator>,
    published: &Arc<Published>,
    lifecycle: &Arc<Lifecycle>,
    shards: Vec<Arc<Shard>>,
    drivers: Vec<String>,
    observers: Observers,
    guard: Guard,
) -> State {
    let started = Instant::now();
    let (lifecycle, guard) = (lifecycle.clone(), Arc::new(guard));
    let (informed, asked, viewed) = (published.clone(), published.clone(), published.clone());
    let explained = published.clone();
    let (commanded, known) = (operator.clone(), operator.clone());
    let rings = {
        let (shards, drivers) = (shards.clone(), drivers.clone());
        move || {
            let each = shards.iter().zip(&drivers).enumerate();
            each.map(|(worker, (shard, driver))| {
                rings::describe(worker, driver, shard.ring(), shard.thread(), shard.buffer_bytes())
            })
            .collect()
        }
    };
    State {
        shards,
        info: Box::new(move || info(&informed.current(), &drivers, started)),
        phase: Box::new(move || match lifecycle.stage() {
            Stage::Starting => Phase::Starting,
            Stage::Serving => Phase::Ready,
            Stage::Draining | Stage::Closing => Phase::Draining,
        }),
        backend: Box::new(move |index| state(&asked.current(), index)),
        views: Box::new(move || views(&viewed.current(), &known)),
        explain: Box::new(move |asked| explain(&explained.current(), asked)),
        rings: Box::new(rings),
        kept: observers.kept.clone(),
        history: Arc::default(),
        live: Live::default(),
        dropped: Box::new(move || Dropped {
            log_lines: log::dropped(),
            access_log_lines: observers.access_log.as_ref().map_or(0, |log| log.dropped()),
            spans: observers.spans.as_ref().map_or(0, |spans| spans.dropped()),
        }),
        command: Box::new(move |command| {
            let operator = commanded.clone();
            Box::pin(async move { carry_out(&operator, command).await })
        }),
        guard: Box::new(move || guard.clone()),
    }
}

/// Who may use the admin API, by the token in its file.
///
/// # Errors
/// In words: the file cannot be read, or what it holds is no token.
pub fn guard(settings: &model::Admin) -> Result<Guard, String> {
    let token = match &settings.token_file {
        Some(path) => {
            let refused = |why: String| format!("admin.token_file: {} {why}", path.display());
            let text =
                std::fs::read_to_string(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
            Some(Guard::token_of(&text).map_err(refused)?)
        }
        None => None,
    };
    Ok(Guard::new(token, settings.hosts.clone()))
}

fn info(snapshot: &Snapshot, drivers: &[String], started: Instant) -> Info {
    let backends = snapshot.pool.backends.iter();
    Info {
        backends: backends
            .map(|backend| BackendInfo {
                url: backend.url.clone(),
                name: backend.name.clone(),
                counts: backend.counts.clone(),
            })
            .collect(),
        pool: snapshot.pool.name.clone(),
        drivers: drivers.to_vec(),
        algorithm: strategy_name(snapshot.config.strategy.kind).to_owned(),
        started,
    }
}

fn state(snapshot: &Snapshot, index: usize) -> BackendState {
    let backend = snapshot.pool.backends.get(index);
    let weight = snapshot
        .config
        .backends
        .get(index)
        .map_or(0, |settings| settings.weight);
    let shared = backend.map(|backend| &backend.shared);
    BackendState {
        condition: shared.map_or("gone", |shared| Condition::of(shared, weight).word()),
        breaker: shared.map_or(breaker::State::Closed, |shared| shared.breaker.state()),
        breaker_openings: backend.map_or(0, |backend| backend.history.breaker_openings()),
        ejections: shared.map_or(0, |shared| shared.ejection.count().into()),
        healthy: backend
            .is_some_and(|backend| !backend.shared.has(Flag::ProbeDown) && !backend.shared.has(Flag::Dead)),
        eligible: snapshot.pool.is_eligible(index),
        in_flight: backend.map_or(0, |backend| backend.in_flight() as u64),
    }
}

async fn carry_out(operator: &Operator, command: Command) -> Result<serde_json::Value, Refused> {
    let result = match command {
        Command::Reload => operator.reload().await,
        Command::Levels(change) => Ok(operator.set_levels(&change)),
        Command::Drain { pool, name } => operator.change(&pool, &name, Change::Mode(Mode::Draining)),
        Command::Maintenance { pool, name } => operator.change(&pool, &name, Change::Mode(Mode::Maintenance)),
        Command::Ready { pool, name } => operator.change(&pool, &name, Change::Ready),
        Command::Weight { pool, name, weight } => operator.change(&pool, &name, Change::Weight(weight)),
        Command::ClearOverride { pool, name } => operator.change(&pool, &name, Change::Clear),
    };
    result.map_err(|refusal| {
        let status = match refusal {
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::Bad(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Refused::new(status, refusal.to_string())
    })
}

/// All backends as the admin API shows them.
fn views(snapshot: &Snapshot, operator: &Operator) -> Vec<BackendView> {
    let pool = &snapshot.pool;
    let clocks = Clocks::now();
    let configured = pool.backends.iter().zip(&snapshot.config.backends).enumerate();
    configured
        .map(|(index, (backend, settings))| {
            let shared = &backend.shared;
            let (since, why) = backend.history.last();
            let set = operator.override_of(&backend.name).unwrap_or_default();
            BackendView {
                pool: pool.name.clone(),
                name: backend.name.clone(),
                url: backend.url.clone(),
                state: Condition::of(shared, settings.weight),
                since: clocks.moment(since),
                why: why.phrase().to_owned(),
                healthy: !shared.has(Flag::ProbeDown) && !shared.has(Flag::Dead),
                eligible: pool.is_eligible(index),
                weight: settings.weight,
                priority: settings.priority,
                backup: settings.backup,
                in_flight: backend.in_flight() as u64,
                connections_open: backend.sockets() as u64,
                connections: backend
                    .gauges
                    .by_worker()
                    .map(|(open, idle)| Connections { open, idle })
                    .collect(),
                breaker: BreakerView {
                    state: shared.breaker.state(),
                    opened: backend.history.breaker_openings(),
                    held: u64::from(shared.breaker.held()),
                },
                ewma_latency_ns: shared
                    .latency()
                    .read(clocks.coarse)
                    .map(|micros| (micros * 1000.0) as u64),
                ejections: Ejections {
                    count: u64::from(shared.ejection.count()),
                    held: u64::from(shared.ejection.held()),
                    until: shared.ejection.until().map(|until| clocks.moment(until)),
                },
                last_probe: backend.probes.last().map(|probe| Probe {
                    at: clocks.moment(probe.at),
                    good: probe.error.is_none(),
                    status: probe.status,
                    took_ns: probe.took.as_nanos() as u64,
                    error: probe.error,
                }),
                overrides: Overrides {
                    state: set.mode.map(|mode| match mode {
                        Mode::Draining => Condition::Draining,
                        Mode::Maintenance => Condition::Maintenance,
                    }),
                    weight: set.weight,
                },
            }
        })
        .collect()
}

/// The two clocks at one moment, to turn what was noted by the one into what people read.
pub(super) struct Clocks {
    pub(super) coarse: Millis,
    wall: SystemTime,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Clocks {
            coarse: clock::now(),
            wall: SystemTime::now(),
        }
    }

    pub(super) fn moment(&self, at: Millis) -> SystemTime {
        let ahead: Duration = at - self.coarse;
        if ahead > Duration::ZERO {
            self.wall + ahead
        } else {
            self.wall - (self.coarse - at)
        }
    }
}

//! What an operator changes while weir runs: the configuration as a whole (reload), and single backends (drain,
//! maintenance, weight).
//!
//! Everything ends in a new snapshot or in a flag of a backend's shared state. What was set at run time is kept by the
//! backend's name and put on again after every reload, until it is deleted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::admin::log_level;
use crate::balance::shared::Flag;
use crate::config::{Config, changed_keys};
use crate::control::resolve::{check_source, resolve_all};
use crate::control::snapshots::{Maker, sticky_secret};
use crate::events::{self, Tone};
use crate::log::{self, levels};
use crate::snapshot::{Published, Snapshot};
use crate::upstream::backend::{Address, Backend};
use crate::upstream::history::Why;

/// Reads the configuration again from where it came; an error is the text that `weir check` would print.
pub type Reread = Box<dyn Fn() -> Result<(Config, Vec<String>), String> + Send + Sync>;

/// Is told of every snapshot that comes into force.
pub type Changed = Box<dyn Fn(&Arc<Snapshot>) + Send + Sync>;

/// What was said at run time of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Override {
    pub mode: Option<Mode>,
    pub weight: Option<u16>,
}

/// Out of service by the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// New work goes elsewhere; what sticks to it may go on.
    Draining,
    /// Nothing goes there.
    Maintenance,
}

impl Mode {
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Draining => "draining",
            Mode::Maintenance => "maintenance",
        }
    }
}

/// One change to one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Mode(Mode),
    Ready,
    Weight(u16),
    /// Back to what the configuration says.
    Clear,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such pool or backend.
    Unknown(String),
    /// The configuration is bad, or cannot be read again.
    Bad(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unknown(text) | Refusal::Bad(text) => f.write_str(text),
        }
    }
}

/// The one who changes things. On the control thread.
pub struct Operator {
    published: Arc<Published>,
    maker: Maker,
    /// None: the configuration is in no file.
    reread: Option<Reread>,
    /// What workers and listeners were started with.
    started_with: Config,
    overrides: Mutex<BTreeMap<String, Override>>,
    /// One reload after the other.
    reloading: tokio::sync::Mutex<()>,
    /// Told of every new snapshot.
    changed: Changed,
}

impl Operator {
    /// `changed` is called with every snapshot that comes into force after the first.
    pub fn new(published: Arc<Published>, maker: Maker, reread: Option<Reread>, changed: Changed) -> Self {
        Operator {
            started_with: published.current().config.clone(),
            published,
            maker,
            reread,
            overrides: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            changed,
        }
    }

    /// Reads the configuration again and puts it in force. A bad one changes nothing.
    ///
    /// # Errors
    /// What is wrong with it, in the words of `weir check`.
    pub async fn reload(&self) -> Result<Value, Refusal> {
        let _one_at_a_time = self.reloading.lock().await;
        let result = self.try_reload().await;
        match &result {
            Ok(report) => {
                events::note(Tone::Neutral, "", reloaded(report));
                tracing::info!(%report, "configuration reloaded");
            }
            Err(refusal) => {
                events::note(
                    Tone::Bad,
                    "",
                    "a bad configuration was not reloaded; nothing has changed",
                );
                tracing::error!(error = %refusal, "the configuration was not reloaded; nothing has changed")
            }
        }
        result
    }

    async fn try_reload(&self) -> Result<Value, Refusal> {
        let Some(reread) = &self.reread else {
            return Err(Refusal::Bad(
                "this configuration is in no file and cannot be read again".to_owned(),
            ));
        };
        let (config, notices) = reread().map_err(Refusal::Bad)?;
        for notice in &notices {
            tracing::warn!("{notice}");
        }
        let addresses = resolve_all(&config.backends).await.map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Refusal::Bad(lines.join("\n"))
        })?;
        check_source(config.upstream.source_address, &addresses).map_err(Refusal::Bad)?;
        let secret = sticky_secret(&config).map_err(Refusal::Bad)?;
        let restart = needs_restart(&self.started_with, &config);
        if !restart.is_empty() {
            tracing::warn!(keys = restart.join(", "), "these changes need a restart");
        }
        let before = self.published.current();
        let names = |snapshot: &Snapshot| -> Vec<String> {
            snapshot
                .pool
                .backends
                .iter()
                .map(|backend| backend.name.clone())
                .collect()
        };
        let (old, new) = (
            names(&before),
            config.backends.iter().map(|b| b.name.clone()).collect::<Vec<_>>(),
        );
        let levels = config.logging.levels();
        let changed = levels != before.written.logging.levels();
        self.publish(config, addresses, secret);
        // What was asked for at run time lasts until somebody asks for something else, here or there.
        if changed {
            log::set_levels(&levels);
        }
        Ok(json!({
            "reloaded": true,
            "added": new.iter().filter(|name| !old.contains(name)).collect::<Vec<_>>(),
            "removed": old.iter().filter(|name| !new.contains(name)).collect::<Vec<_>>(),
            "needs_restart": restart,
        }))
    }

    /// Makes the snapshot of `config`, with what was set at run time, and puts it in force.
    fn publish(&self, mut config: Config, addresses: Vec<Vec<Address>>, secret: Option<Vec<u8>>) {
        let before = self.published.current();
        let overrides = self.overrides().clone();
        let written = config.clone();
        for backend in &mut config.backends {
            if let Some(weight) = overrides.get(&backend.name).and_then(|set| set.weight) {
                backend.weight = weight;
            }
        }
        let snapshot = self
            .maker
            .make(config, addresses, secret.as_deref(), Some(&before));
        for backend in &snapshot.pool.backends {
            apply_mode(backend, overrides.get(&backend.name).and_then(|set| set.mode));
        }
        self.published.replace(snapshot.with_written(written));
        let now = self.published.current();
        for backend in &before.pool.backends {
            if !now.pool.backends.iter().any(|other| Arc::ptr_eq(other, backend)) {
                backend.retire();
            }
        }
        (self.changed)(&self.published.current());
    }

    /// Changes one backend.
    ///
    /// # Errors
    /// There is no such pool or backend.
    pub fn change(&self, pool: &str, name: &str, change: Change) -> Result<Value, Refusal> {
        let snapshot = self.published.current();
        if snapshot.pool.name != pool {
            return Err(Refusal::Unknown(format!(
                "no pool is called {pool:?}; there is: {}",
                snapshot.pool.name
            )));
        }
        let Some(index) = snapshot
            .pool
            .backends
            .iter()
            .position(|backend| backend.name == name)
        else {
            let known: Vec<_> = snapshot
                .pool
                .backends
                .iter()
                .map(|backend| &*backend.name)
                .collect();
            return Err(Refusal::Unknown(format!(
                "no backend of pool {pool} is called {name:?}; there are: {}",
                known.join(", ")
            )));
        };
        let now = {
            let mut overrides = self.overrides();
            let entry = overrides.entry(name.to_owned()).or_default();
            match change {
                Change::Mode(mode) => entry.mode = Some(mode),
                Change::Ready => entry.mode = None,
                Change::Weight(weight) => entry.weight = Some(weight),
                Change::Clear => *entry = Override::default(),
            }
            let now = *entry;
            if now == Override::default() {
                overrides.remove(name);
            }
            now
        };
        if matches!(change, Change::Weight(_) | Change::Clear) {
            let addresses = snapshot
                .pool
                .backends
                .iter()
                .map(|backend| backend.addresses.clone())
                .collect();
            let secret = sticky_secret(&snapshot.written).map_err(Refusal::Bad)?;
            self.publish(snapshot.written.clone(), addresses, secret);
        } else {
            apply_mode(&snapshot.pool.backends[index], now.mode);
            snapshot.pool.backends[index].history.note(Why::Operator);
            snapshot
                .pool
                .balance
                .publish(&mut |event| snapshot.pool.log(event));
        }
        let (mode, weight) = (now.mode.map(Mode::word), now.weight);
        let said = match (mode, weight) {
            (Some(mode), _) => format!("{mode}, by the operator"),
            (None, Some(weight)) => format!("weight {weight}, by the operator"),
            (None, None) => "as configured again, by the operator".to_owned(),
        };
        events::note(Tone::Neutral, name, said);
        tracing::info!(pool, backend = name, mode, weight, "set by the operator");
        Ok(json!({ "backend": name, "mode": mode, "weight": weight }))
    }

    /// Changes what is logged; the levels in force then.
    pub fn set_levels(&self, change: &levels::Change) -> Value {
        let configured = self.published.current().written.logging.levels();
        let now = log::levels().unwrap_or_else(|| configured.clone());
        let levels = change.of(now, &configured);
        let shown = log_level::show(&levels);
        // Before it is in force, as afterwards nothing but errors may be wanted.
        tracing::info!(levels = %shown, "log levels set by the operator");
        log::set_levels(&levels);
        shown
    }

    /// What was set at run time of one backend.
    pub fn override_of(&self, name: &str) -> Option<Override> {
        self.overrides().get(name).copied()
    }

    fn overrides(&self) -> MutexGuard<'_, BTreeMap<String, Override>> {
        self.overrides.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reload's report in a line.
fn reloaded(report: &Value) -> String {
    let listed = |key: &str| {
        let names = report[key].as_array().into_iter().flatten();
        let names: Vec<&str> = names.filter_map(Value::as_str).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let parts = [
        ("added", "added"),
        ("removed", "removed"),
        ("needs_restart", "waiting for a restart"),
    ];
    let said = parts
        .iter()
        .filter_map(|(key, words)| Some(format!("; {words}: {}", listed(key)?)));
    format!("configuration reloaded{}", said.collect::<String>())
}

fn apply_mode(backend: &Backend, mode: Option<Mode>) {
    backend.shared.set(Flag::Draining, mode == Some(Mode::Draining));
    backend
        .shared
        .set(Flag::Maintenance, mode == Some(Mode::Maintenance));
}

/// The keys, or sections, whose new values wait for the next start.
const AT_START: &[&str] = &[
    "server.address",
    "server.backlog",
    "server.max_connections",
    "runtime.",
    "limits.buffer_memory",
    "limits.max_connections_per_ip",
    "logging.format",
    "access_log.output",
    "access_log.socket",
    "admin.",
    "observe.",
    "tracing.",
    "debug.keep",
    "profiling.",
];

fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let at_start = |key: &String| {
        AT_START
            .iter()
            .any(|known| key == known || (known.ends_with('.') && key.starts_with(known)))
    };
    changed_keys(old, new).into_iter().filter(at_start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_change_while_weir_runs_is_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.strategy.virtual_nodes = 7;
        new.retry.max_retries = 0;
        assert!(needs_restart(&old, &new).is_empty());
        new.runtime.workers = 9;
        new.server.address.clear();
        assert_eq!(needs_restart(&old, &new), ["server.address", "runtime.workers"]);
    }
}

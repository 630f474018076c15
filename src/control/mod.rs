//! The control thread: brings weir up, answers the admin API, hears signals, and brings weir down.
//!
//! It runs tokio on the process's main thread and is the only place that waits for names, files and signals. Workers
//! never wait for it.

mod admin_state;
mod explain;
mod facts;
mod health;
mod operator;
mod resolve;
mod signals;
mod snapshots;
mod stop;
mod workers;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use crate::access_log;
use crate::admin;
use crate::admin::Surface;
use crate::cli::{exit, ready_file};
use crate::config::model::{Config, ListenAddress};
use crate::control::operator::Operator;
use crate::events::{self, Tone};
use crate::exchanges::Kept;
use crate::metrics::Shard;
use crate::metrics::history::TICK;
use crate::profile;
use crate::proxy::context::Observers;
use crate::server::lifecycle::{Lifecycle, Stage};
use crate::server::listener::{self, BindError, BoundAddress, Listener, ListenerSet};
use crate::snapshot::Published;
use crate::sys;
use crate::trace::{self, spans::Spans};

pub use operator::Reread;
pub use resolve::{ResolveError, resolve_all};

/// What `run` takes besides the configuration.
#[derive(Default)]
pub struct Options {
    /// Gets pid and actual addresses as JSON once weir serves.
    pub ready_file: Option<PathBuf>,
    /// Said in the log at start: values that were ignored, with the reason.
    pub notices: Vec<String>,
    /// Where the configuration came from, for the log.
    pub source: Option<String>,
    /// Reads the configuration again; none: it is in no file.
    pub reread: Option<Reread>,
}

/// Why weir did not come up.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("{0}")]
    Configuration(String),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl StartError {
    fn exit_code(&self) -> u8 {
        match self {
            StartError::Bind(_) => exit::CANNOT_BIND,
            StartError::Configuration(_) | StartError::System(_) => exit::BAD_CONFIGURATION,
        }
    }
}

/// Runs the load balancer until it is told to stop, on the calling thread and those it starts.
pub fn serve(config: Config, options: Options) -> ExitCode {
    sys::disable_huge_pages();
    let log = match crate::log::init(
        &config.logging.levels(),
        config.logging.format,
        &config.server.environment,
    ) {
        Ok(log) => log,
        Err(error) => return exit::because(exit::BAD_CONFIGURATION, error),
    };
    crate::log::install_panic_hook();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::because(exit::BAD_CONFIGURATION, format_args!("cannot start: {error}")),
    };
    let result = runtime.block_on(run(config, options));
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    drop(log);
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => exit::because(error.exit_code(), error),
    }
}

async fn run(config: Config, mut options: Options) -> Result<u8, StartError> {
    let mut signals = signals::Signals::new()?;
    let open_files = sys::raise_open_files()?;
    let cores = workers::cores(&config.runtime).map_err(StartError::Configuration)?;
    let guard = admin_state::guard(&config.admin).map_err(StartError::Configuration)?;
    facts::log_process(&config, &options, open_files);

    let addresses = tokio::select! {
        addresses = resolve_all(&config.backends) => {
            addresses.map_err(|errors| StartError::Configuration(join_lines(&errors)))?
        }
        signal = signals.next() => {
            tracing::info!(signal, "stopped while names were looked up");
            return Ok(exit::ANSWERED);
        }
    };
    resolve::check_source(config.upstream.source_address, &addresses).map_err(StartError::Configuration)?;
    let sticky = snapshots::sticky_secret(&config).map_err(StartError::Configuration)?;
    if let Some(mean) = config.profiling.heap_sample {
        profile::heap::start(mean);
    }
    let mut access_log = access_log::writer::Running::start(&config.access_log, cores.len())
        .map_err(StartError::Configuration)?;
    let sets = listener::open_all(&config.server, cores.len())?;
    let side = SideListeners::open(&config)?;
    let (internal_listener, internal_name) = admin::internal::bind()?;
    let secret = sys::random_secret()?;
    let maker = snapshots::Maker::new(cores.len(), internal_name.into_bytes(), secret);
    let published = Arc::new(Published::new(maker.make(
        config,
        addresses,
        sticky.as_deref(),
        None,
    )));
    let snapshot = published.current();
    let shards: Vec<_> = (0..cores.len())
        .map(|number| Arc::new(Shard::new(number)))
        .collect();
    let lifecycle = Arc::new(Lifecycle::default());

    let bound: Vec<BoundAddress> = sets.iter().map(|set| set.address.clone()).collect();
    let (admin_address, observe_address) = (side.admin_address(), side.observe_address());
    let profiling_address = side.profiling_address();
    let side_addresses = [&admin_address, &observe_address, &profiling_address];
    let socket_files = || bound.iter().chain(side_addresses.into_iter().flatten());
    let mut health = health::start(&published)?;
    maker.set_health(health.waker());
    // Whoever connects meanwhile waits in the listeners' queues: nobody is refused, and nobody meets a dead backend.
    tokio::select! {
        known = health.first_round() => known?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped while backends were probed for the first time");
            remove_socket_files(socket_files());
            return Ok(exit::ANSWERED);
        }
    }
    let observers = Observers {
        access_log: access_log.log.clone(),
        kept: (snapshot.config.debug.keep > 0).then(|| Kept::new(cores.len(), snapshot.config.debug.keep)),
        spans: snapshot.config.tracing.otlp.is_some().then(Spans::new),
    };
    let mut crew = workers::start(
        &published,
        &lifecycle,
        &shards,
        &cores,
        per_worker(sets, cores.len()),
        open_files,
        secret,
        observers.clone(),
    )?;
    crew.wait_until_ready().await?;
    lifecycle.advance(Stage::Serving);

    let health = Mutex::new(health);
    let operator = Arc::new(Operator::new(
        published.clone(),
        maker,
        options.reread.take(),
        Box::new(move |snapshot| {
            let mut health = health.lock().unwrap_or_else(PoisonError::into_inner);
            health.replace(health::plan(snapshot));
        }),
    ));
    let drivers = crew.members.iter().map(|member| member.driver.clone()).collect();
    let state = Arc::new(admin_state::make(
        &operator,
        &published,
        &lifecycle,
        shards,
        drivers,
        observers.clone(),
        guard,
    ));
    let (closing, closed) = tokio::sync::watch::channel(());
    let exporting = observers.spans.clone().map(|spans| {
        let settings = snapshot.config.tracing.clone();
        tokio::spawn(trace::export::run(spans, settings, until_closed(closed.clone())))
    });
    let remembering = tokio::spawn(remember(state.clone()));
    events::note(Tone::Good, "", "weir serves");
    let mut side_servers = side.serve(&state, &closed);
    side_servers.spawn(admin::serve(
        admin::Listener::Internal(internal_listener),
        Surface::Metrics,
        state.clone(),
        until_closed(closed),
    ));
    facts::log_serving(
        &snapshot,
        &bound,
        admin_address.as_ref(),
        observe_address.as_ref(),
        profiling_address.as_ref(),
        &crew,
    );
    if let Some(path) = &options.ready_file {
        let names = |address: &Option<BoundAddress>| address.as_ref().map(ToString::to_string);
        let content = serde_json::json!({
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "listeners": bound.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "admin": names(&admin_address),
            "observe": names(&observe_address),
            "profiling": names(&profiling_address),
        });
        ready_file::write(path, &content)?;
    }

    let reload = || {
        let operator = operator.clone();
        // The answer is in the log.
        tokio::spawn(async move { operator.reload().await.is_ok() });
    };
    let stopped = stop::wait(&mut signals, &mut crew, &lifecycle, &published, reload, || {
        access_log.reopen()
    })
    .await;
    remembering.abort();
    state.live.close();
    drop(closing);
    // Whoever asked twice does not wait for the admin API's last answers either.
    if let Some(exporting) = exporting
        && !stopped.at_once
    {
        // It was told to end and bounds itself.
        let _ = exporting.await;
    }
    access_log.end();
    while !stopped.at_once && side_servers.join_next().await.is_some() {}
    remove_socket_files(socket_files());
    Ok(stopped.code)
}

fn join_lines(errors: &[ResolveError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Turns "one socket per worker for each address" into "one socket per address for each worker".
fn per_worker(sets: Vec<ListenerSet>, workers: usize) -> Vec<Vec<Listener>> {
    let mut result: Vec<Vec<Listener>> = (0..workers).map(|_| Vec::new()).collect();
    for set in sets {
        for (worker, listener) in result.iter_mut().zip(set.per_worker) {
            worker.push(listener);
        }
    }
    result
}

/// The listeners of `[admin]`, `[observe]` and `[profiling]`.
struct SideListeners {
    admin: Option<ListenerSet>,
    observe: Option<ListenerSet>,
    profiling: Option<ListenerSet>,
}

impl SideListeners {
    fn open(config: &Config) -> Result<Self, BindError> {
        let open = |address: &Option<ListenAddress>| {
            address
                .as_ref()
                .map(|address| listener::open(address, 64, 1))
                .transpose()
        };
        Ok(SideListeners {
            admin: open(&config.admin.address)?,
            observe: open(&config.observe.address)?,
            profiling: open(&config.profiling.address)?,
        })
    }

    fn admin_address(&self) -> Option<BoundAddress> {
        self.admin.as_ref().map(|set| set.address.clone())
    }

    fn observe_address(&self) -> Option<BoundAddress> {
        self.observe.as_ref().map(|set| set.address.clone())
    }

    fn profiling_address(&self) -> Option<BoundAddress> {
        self.profiling.as_ref().map(|set| set.address.clone())
    }

    fn serve(
        self,
        state: &Arc<admin::State>,
        closed: &tokio::sync::watch::Receiver<()>,
    ) -> tokio::task::JoinSet<io::Result<()>> {
        let mut servers = tokio::task::JoinSet::new();
        let admin = self.admin.into_iter().map(|set| (set, Surface::Admin));
        let observe = self.observe.into_iter().map(|set| (set, Surface::Observe));
        let profiling = self.profiling.into_iter().map(|set| (set, Surface::Profiling));
        for (set, surface) in admin.chain(observe).chain(profiling) {
            for listener in set.per_worker {
                let listener = match listener {
                    Listener::Tcp(listener) => admin::Listener::Tcp(listener),
                    Listener::Unix(listener) => admin::Listener::Unix(listener),
                };
                servers.spawn(admin::serve(
                    listener,
                    surface,
                    state.clone(),
                    until_closed(closed.clone()),
                ));
            }
        }
        servers
    }
}

/// Takes a look at everything once a second, for the history.
async fn remember(state: Arc<admin::State>) {
    let mut second = tokio::time::interval(TICK);
    // A second that was missed is part of the next one, which says how long it was.
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    // The first one comes at once.
    second.tick().await;
    loop {
        second.tick().await;
        state.tick();
    }
}

async fn until_closed(mut closed: tokio::sync::watch::Receiver<()>) {
    // The sender going away is the signal.
    let _ = closed.changed().await;
}

fn remove_socket_files<'a>(addresses: impl Iterator<Item = &'a BoundAddress>) {
    for address in addresses {
        if let BoundAddress::Unix(path) = address {
            // Whoever removed it before had their reasons.
            let _ = std::fs::remove_file(path);
        }
    }
}

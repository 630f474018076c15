//! The control thread: brings weir up, answers the admin API, hears signals, and brings weir down.
//!
//! It runs tokio on the process's main thread and is the only place that waits for names, files and signals. Workers
//! never wait for it.

mod facts;
mod resolve;
mod signals;
mod stop;
mod workers;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::admin;
use crate::admin::{Phase, Surface};
use crate::balance::breaker;
use crate::balance::shared::Flag;
use crate::cli::{exit, ready_file};
use crate::config::model::{self, BackendAddress, Config, ListenAddress};
use crate::metrics::{BackendInfo, BackendState, Info, Shard};
use crate::server::lifecycle::{Lifecycle, Stage};
use crate::server::listener::{self, BindError, BoundAddress, Listener, ListenerSet};
use crate::snapshot::{Pool, Snapshot};
use crate::sys;
use crate::upstream::backend::{Address, Backend};

pub use resolve::{ResolveError, resolve_all};

/// What `run` takes besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Gets pid and actual addresses as JSON once weir serves.
    pub ready_file: Option<PathBuf>,
    /// Said in the log at start: values that were ignored, with the reason.
    pub notices: Vec<String>,
    /// Where the configuration came from, for the log.
    pub source: Option<String>,
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
        config.logging.level,
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

async fn run(config: Config, options: Options) -> Result<u8, StartError> {
    let mut signals = signals::Signals::new()?;
    let open_files = sys::raise_open_files()?;
    let cores = workers::cores(&config.runtime).map_err(StartError::Configuration)?;
    let guard = admin_guard(&config.admin).map_err(StartError::Configuration)?;
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
    let sets = listener::open_all(&config.server, cores.len())?;
    let side = SideListeners::open(&config)?;
    let (internal_listener, internal_name) = admin::internal::bind()?;
    let snapshot = Arc::new(snapshot(config, addresses, internal_name.into_bytes()));
    let slots = snapshot.backend_slots();
    let shards: Vec<_> = cores.iter().map(|_| Arc::new(Shard::new(slots))).collect();
    let lifecycle = Arc::new(Lifecycle::default());

    let bound: Vec<BoundAddress> = sets.iter().map(|set| set.address.clone()).collect();
    let mut crew = workers::start(
        &snapshot,
        &lifecycle,
        &shards,
        &cores,
        per_worker(sets, cores.len()),
        open_files,
    )?;
    crew.wait_until_ready().await?;
    lifecycle.advance(Stage::Serving);

    let state = Arc::new(admin_state(&snapshot, &lifecycle, shards, Arc::new(guard)));
    let (admin_address, observe_address) = (side.admin_address(), side.observe_address());
    let (closing, closed) = tokio::sync::watch::channel(());
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
        });
        ready_file::write(path, &content)?;
    }

    let stopped = stop::wait(&mut signals, &mut crew, &lifecycle, &snapshot.config.shutdown).await;
    drop(closing);
    // Whoever asked twice does not wait for the admin API's last answers either.
    while !stopped.at_once && side_servers.join_next().await.is_some() {}
    remove_socket_files(bound.iter().chain(&admin_address).chain(&observe_address));
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

fn snapshot(config: Config, addresses: Vec<Vec<Address>>, internal: Vec<u8>) -> Snapshot {
    let backends: Vec<_> = config
        .backends
        .iter()
        .zip(addresses)
        .enumerate()
        .map(|(index, (backend, addresses))| {
            let authority = match &backend.address {
                BackendAddress::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
                BackendAddress::Tcp { host, port } => format!("{host}:{port}"),
                BackendAddress::Unix(_) => "localhost".to_owned(),
            };
            let (name, url) = (backend.name.clone(), backend.url.clone());
            (
                Arc::new(Backend::new(index, name, url, authority, addresses)),
                backend.weight,
            )
        })
        .collect();
    let internal = Backend::new(
        backends.len(),
        "weir".to_owned(),
        "internal".to_owned(),
        "localhost".to_owned(),
        vec![Address::Abstract(internal)],
    );
    Snapshot {
        pool: Pool::new(admin::DEFAULT_POOL, &config, backends),
        internal: config.metrics.path.is_some().then(|| Arc::new(internal)),
        config,
    }
}

fn admin_state(
    snapshot: &Arc<Snapshot>,
    lifecycle: &Arc<Lifecycle>,
    shards: Vec<Arc<Shard>>,
    guard: Arc<admin::Guard>,
) -> admin::State {
    let backends = snapshot.pool.backends.iter();
    let info = Info {
        backends: backends
            .map(|b| BackendInfo {
                url: b.url.clone(),
                name: b.name.clone(),
            })
            .collect(),
        algorithm: crate::config::strategy_name(snapshot.config.strategy.kind).to_owned(),
        started: Instant::now(),
    };
    let lifecycle = lifecycle.clone();
    let snapshot = snapshot.clone();
    let (viewed, started) = (snapshot.clone(), SystemTime::now());
    admin::State {
        shards,
        info,
        phase: Box::new(move || match lifecycle.stage() {
            Stage::Starting => Phase::Starting,
            Stage::Serving => Phase::Ready,
            Stage::Draining | Stage::Closing => Phase::Draining,
        }),
        backend: Box::new(move |index| BackendState {
            healthy: snapshot.pool.is_eligible(index),
            eligible: snapshot.pool.is_eligible(index),
            in_flight: snapshot
                .pool
                .backends
                .get(index)
                .map_or(0, |backend| backend.in_flight() as u64),
        }),
        views: Box::new(move || views(&viewed, started)),
        command: Box::new(|command| {
            let refused = format!("this version cannot carry out \"{}\"", command.word());
            Box::pin(async move { Err(admin::Refused::new(hyper::StatusCode::NOT_IMPLEMENTED, refused)) })
        }),
        guard: Box::new(move || guard.clone()),
    }
}

/// Who may use the admin API, by the token in its file.
fn admin_guard(settings: &model::Admin) -> Result<admin::Guard, String> {
    let token = match &settings.token_file {
        Some(path) => {
            let refused = |why: String| format!("admin.token_file: {} {why}", path.display());
            let text =
                std::fs::read_to_string(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
            Some(admin::Guard::token_of(&text).map_err(refused)?)
        }
        None => None,
    };
    Ok(admin::Guard::new(token, settings.hosts.clone()))
}

/// All backends as the admin API shows them.
fn views(snapshot: &Snapshot, started: SystemTime) -> Vec<admin::BackendView> {
    let pool = &snapshot.pool;
    let configured = pool.backends.iter().zip(&snapshot.config.backends);
    configured
        .map(|(backend, settings)| {
            let shared = &backend.shared;
            let state = admin::Condition::of(shared, settings.weight);
            admin::BackendView {
                pool: pool.name.clone(),
                name: backend.name.clone(),
                url: backend.url.clone(),
                state,
                since: started,
                why: "since the start".to_owned(),
                healthy: !shared.has(Flag::ProbeDown) && !shared.has(Flag::Dead),
                eligible: pool.is_eligible(backend.index),
                weight: settings.weight,
                priority: settings.priority,
                backup: settings.backup,
                in_flight: backend.in_flight() as u64,
                connections_open: backend.sockets() as u64,
                connections: Vec::new(),
                breaker: admin::BreakerView {
                    state: breaker::State::Closed,
                    opened: 0,
                    held: 0,
                },
                ewma_latency_ns: shared
                    .latency()
                    .read(crate::clock::now())
                    .map(|micros| (micros * 1000.0) as u64),
                ejections: admin::Ejections::default(),
                last_probe: None,
                overrides: admin::Overrides::default(),
            }
        })
        .collect()
}

/// The listeners of `[admin]` and `[observe]`.
struct SideListeners {
    admin: Option<ListenerSet>,
    observe: Option<ListenerSet>,
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
        })
    }

    fn admin_address(&self) -> Option<BoundAddress> {
        self.admin.as_ref().map(|set| set.address.clone())
    }

    fn observe_address(&self) -> Option<BoundAddress> {
        self.observe.as_ref().map(|set| set.address.clone())
    }

    fn serve(
        self,
        state: &Arc<admin::State>,
        closed: &tokio::sync::watch::Receiver<()>,
    ) -> tokio::task::JoinSet<io::Result<()>> {
        let mut servers = tokio::task::JoinSet::new();
        let admin = self.admin.into_iter().map(|set| (set, Surface::Admin));
        let observe = self.observe.into_iter().map(|set| (set, Surface::Observe));
        for (set, surface) in admin.chain(observe) {
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

//! What weir says of itself when it starts: one line per fact.

use crate::config::model::{Config, DriverChoice};
use crate::control::Options;
use crate::control::workers::Crew;
use crate::server::listener::BoundAddress;
use crate::snapshot::Snapshot;

/// Before anything is open.
pub fn log_process(config: &Config, options: &Options, open_files: u64) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        environment = config.server.environment,
        "weir starts"
    );
    tracing::info!(kernel = kernel(), open_files, "the system");
    if let Some(source) = &options.source {
        tracing::info!(source, "configuration");
    }
    for notice in &options.notices {
        tracing::warn!("{notice}");
    }
}

/// Once everything is open.
pub fn log_serving(
    snapshot: &Snapshot,
    bound: &[BoundAddress],
    admin: Option<&BoundAddress>,
    observe: Option<&BoundAddress>,
    profiling: Option<&BoundAddress>,
    crew: &Crew,
) {
    for member in &crew.members {
        let core = member
            .core
            .map_or_else(|| "not pinned".to_owned(), |core| core.to_string());
        let chosen = if snapshot.config.runtime.driver == DriverChoice::Auto {
            "auto"
        } else {
            "runtime.driver"
        };
        tracing::info!(
            worker = member.worker,
            core,
            driver = member.driver,
            chosen,
            "worker"
        );
    }
    if let Some(member) = crew.members.iter().find(|member| !member.why.is_empty()) {
        tracing::warn!(
            driver = member.driver,
            refused = member.why,
            "not the fastest driver: the kernel, or a sandbox around this process, refused it"
        );
    }
    for address in bound {
        tracing::info!(%address, "listening");
    }
    if let Some(address) = admin {
        tracing::info!(%address, "admin API");
    }
    if let Some(address) = observe {
        tracing::info!(%address, "observe API");
    }
    if let Some(address) = profiling {
        tracing::info!(%address, "profiles");
    }
    let pool = &snapshot.pool;
    tracing::info!(
        pool = pool.name,
        strategy = crate::config::strategy_name(snapshot.config.strategy.kind),
        backends = pool.backends.len(),
        "pool"
    );
    for backend in &pool.backends {
        let addresses = backend
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        tracing::info!(backend = backend.name, url = backend.url, addresses, "backend");
    }
}

/// The kernel's release, as uname(2) gives it.
fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

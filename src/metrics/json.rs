//! The metrics as JSON: the field names and units that users of the original know, and what weir adds to them.
//!
//! Durations are whole nanoseconds. `requests` are attempts that were answered or failed, `selections` are picks,
//! `total_requests` are exchanges that were received. What weir answered by itself is under `weir`, so that
//! `backends.*.status_codes` holds only what backends said.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::snapshot::{BackendTotals, Snapshot, WorkerTotals};
use crate::reason::Reason;

#[derive(Serialize)]
struct Document<'a> {
    total_requests: u64,
    uptime: u64,
    algorithm: &'a str,
    backends: Map<String, Value>,
    weir: Weir,
}

#[derive(Serialize)]
struct Backend<'a> {
    requests: u64,
    selections: u64,
    healthy: bool,
    avg_response: u64,
    p50_response: u64,
    p95_response: u64,
    p99_response: u64,
    status_codes: BTreeMap<u16, u64>,
    name: &'a str,
    eligible: bool,
    in_flight: u64,
    failures: u64,
    max_response: u64,
    clamped_responses: u64,
    connects: u64,
    connect_failures: u64,
}

#[derive(Serialize)]
struct Weir {
    version: &'static str,
    status_codes: BTreeMap<u16, u64>,
    reasons: BTreeMap<&'static str, u64>,
    connections: Connections,
    client_aborts: u64,
    accept_errors: u64,
    panics: u64,
    log_lines_dropped: u64,
    workers: Vec<Worker>,
}

#[derive(Serialize)]
struct Connections {
    open: u64,
    accepted: u64,
}

#[derive(Serialize)]
struct Worker {
    worker: usize,
    requests: u64,
    connections: Connections,
}

/// One line of JSON, with its newline. `log_lines_dropped` is the log's own count, which no shard holds.
pub fn render(snapshot: &Snapshot, log_lines_dropped: u64) -> serde_json::Result<Vec<u8>> {
    let document = Document {
        total_requests: snapshot.total(|worker| worker.exchanges),
        uptime: u64::try_from(snapshot.uptime.as_nanos()).unwrap_or(u64::MAX),
        algorithm: &snapshot.algorithm,
        backends: backends(&snapshot.backends)?,
        weir: weir(snapshot, log_lines_dropped),
    };
    let mut out = serde_json::to_vec(&document)?;
    out.push(b'\n');
    Ok(out)
}

/// By url; where several backends share one, each of them by `url (name)`, so that none hides another.
fn backends(totals: &[BackendTotals]) -> serde_json::Result<Map<String, Value>> {
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for backend in totals {
        *uses.entry(&backend.info.url).or_default() += 1;
    }
    totals
        .iter()
        .map(|backend| {
            let url = &backend.info.url;
            let key = match uses.get(url.as_str()) {
                Some(1) => url.clone(),
                _ => format!("{url} ({})", backend.info.name),
            };
            Ok((key, serde_json::to_value(one_backend(backend))?))
        })
        .collect()
}

fn one_backend(totals: &BackendTotals) -> Backend<'_> {
    Backend {
        requests: totals.attempts(),
        selections: totals.selections,
        healthy: totals.state.healthy,
        avg_response: totals.latency.mean_ns,
        p50_response: totals.latency.p50_ns,
        p95_response: totals.latency.p95_ns,
        p99_response: totals.latency.p99_ns,
        status_codes: totals.statuses.clone(),
        name: &totals.info.name,
        eligible: totals.state.eligible,
        in_flight: totals.state.in_flight,
        failures: totals.failures,
        max_response: totals.latency.max_ns,
        clamped_responses: totals.latency.clamped,
        connects: totals.connects,
        connect_failures: totals.connect_failures,
    }
}

fn weir(snapshot: &Snapshot, log_lines_dropped: u64) -> Weir {
    let connections = |worker: &WorkerTotals| Connections {
        open: worker.connections_open,
        accepted: worker.connections_accepted,
    };
    Weir {
        version: env!("CARGO_PKG_VERSION"),
        status_codes: snapshot.own_statuses(),
        reasons: Reason::ALL
            .iter()
            .zip(snapshot.reasons)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.word(), count))
            .collect(),
        connections: Connections {
            open: snapshot.total(|worker| worker.connections_open),
            accepted: snapshot.total(|worker| worker.connections_accepted),
        },
        client_aborts: snapshot.total(|worker| worker.client_aborts),
        accept_errors: snapshot.total(|worker| worker.accept_errors),
        panics: snapshot.total(|worker| worker.panics),
        log_lines_dropped,
        workers: snapshot
            .workers
            .iter()
            .enumerate()
            .map(|(index, worker)| Worker {
                worker: index,
                requests: worker.exchanges,
                connections: connections(worker),
            })
            .collect(),
    }
}

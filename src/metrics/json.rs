//! The metrics as JSON: the field names and units that users of the original know, and what weir adds to them.
//!
//! Durations are whole nanoseconds. `requests` are attempts that were answered or failed, `selections` are picks,
//! `total_requests` are exchanges that were received. What weir answered by itself is under `weir`, so that
//! `backends.*.status_codes` holds only what backends said.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::shard::Series;
use super::snapshot::{BackendTotals, Dropped, Latency, Snapshot, WorkerTotals};
use crate::balance::breaker;
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
    /// Selections after another attempt of the same exchange.
    retries: u64,
    /// Those that came to an end.
    attempts: u64,
    state: &'static str,
    breaker: Breaker,
    ejections: u64,
    p90_response: u64,
    p999_response: u64,
    /// By series, but for the total, which the fields above are of.
    phases: BTreeMap<&'static str, Phase>,
}

#[derive(Serialize)]
struct Breaker {
    state: &'static str,
    opened: u64,
}

#[derive(Serialize)]
struct Phase {
    count: u64,
    avg: u64,
    p50: u64,
    p95: u64,
    p99: u64,
    max: u64,
    clamped: u64,
}

#[derive(Serialize)]
struct Weir {
    version: &'static str,
    status_codes: BTreeMap<u16, u64>,
    reasons: BTreeMap<&'static str, u64>,
    connections: Connections,
    client_aborts: u64,
    connections_refused: u64,
    accept_errors: u64,
    panics: u64,
    log_lines_dropped: u64,
    access_log_lines_dropped: u64,
    spans_dropped: u64,
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
    /// What its thread spent on a CPU, in nanoseconds.
    busy: u64,
    /// The share of the last second that it spent there, in per cent; none in the first second.
    busy_percent: Option<u64>,
}

/// One line of JSON, with its newline. `dropped` is in no shard, nor are the workers' busy shares of the last second, in per
/// cent, worker 0 first.
pub fn render(snapshot: &Snapshot, dropped: Dropped, busy: &[u64]) -> serde_json::Result<Vec<u8>> {
    let document = Document {
        total_requests: snapshot.total(|worker| worker.exchanges),
        uptime: u64::try_from(snapshot.uptime.as_nanos()).unwrap_or(u64::MAX),
        algorithm: &snapshot.algorithm,
        backends: backends(&snapshot.backends)?,
        weir: weir(snapshot, dropped, busy),
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
        retries: totals.retries,
        attempts: totals.attempts(),
        state: totals.state.condition,
        breaker: Breaker {
            state: match totals.state.breaker {
                breaker::State::Closed => "closed",
                breaker::State::Open => "open",
                breaker::State::HalfOpen => "half_open",
            },
            opened: totals.state.breaker_openings,
        },
        ejections: totals.state.ejections,
        p90_response: totals.latency.p90_ns,
        p999_response: totals.latency.p999_ns,
        phases: Series::ALL
            .iter()
            .zip(&totals.series)
            .skip(1)
            .map(|(series, distribution)| (series.word(), phase(&Latency::of(distribution))))
            .collect(),
    }
}

fn phase(latency: &Latency) -> Phase {
    Phase {
        count: latency.count,
        avg: latency.mean_ns,
        p50: latency.p50_ns,
        p95: latency.p95_ns,
        p99: latency.p99_ns,
        max: latency.max_ns,
        clamped: latency.clamped,
    }
}

fn weir(snapshot: &Snapshot, dropped: Dropped, busy: &[u64]) -> Weir {
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
        connections_refused: snapshot.total(|worker| worker.connections_refused),
        accept_errors: snapshot.total(|worker| worker.accept_errors),
        panics: snapshot.total(|worker| worker.panics),
        log_lines_dropped: dropped.log_lines,
        access_log_lines_dropped: dropped.access_log_lines,
        spans_dropped: dropped.spans,
        workers: snapshot
            .workers
            .iter()
            .enumerate()
            .map(|(index, worker)| Worker {
                worker: index,
                requests: worker.exchanges,
                connections: connections(worker),
                busy: (worker.busy_seconds * 1e9) as u64,
                busy_percent: busy.get(index).copied(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::render;
    use crate::balance::breaker;
    use crate::metrics::BackendCounts;
    use crate::metrics::snapshot::{
        BackendInfo, BackendState, BackendTotals, Dropped, Latency, Snapshot, WorkerTotals,
    };
    use crate::reason::Reason;
    use std::sync::Arc;

    const DROPPED: Dropped = Dropped {
        log_lines: 7,
        access_log_lines: 8,
        spans: 9,
    };

    fn backend(url: &str, name: &str) -> BackendTotals {
        BackendTotals {
            info: BackendInfo {
                url: url.to_owned(),
                name: name.to_owned(),
                counts: Arc::new(BackendCounts::new(1)),
            },
            state: BackendState {
                healthy: true,
                eligible: false,
                in_flight: 2,
                condition: "down",
                breaker: breaker::State::Open,
                breaker_openings: 5,
                ejections: 6,
            },
            selections: 0,
            retries: 0,
            failures: 0,
            connects: 0,
            connect_failures: 0,
            statuses: BTreeMap::new(),
            latency: Latency::default(),
            series: Default::default(),
            exemplars: Vec::new(),
        }
    }

    fn snapshot(backends: Vec<BackendTotals>) -> Snapshot {
        let mut reasons = [0; Reason::ALL.len()];
        reasons[Reason::NoBackend as usize] = 2;
        reasons[Reason::ConnectRefused as usize] = 1;
        Snapshot {
            uptime: Duration::new(61, 5),
            algorithm: "round-robin".to_owned(),
            pool: "default".to_owned(),
            drivers: Vec::new(),
            at: std::time::SystemTime::UNIX_EPOCH,
            backends,
            workers: vec![
                WorkerTotals {
                    exchanges: 10,
                    connections_accepted: 4,
                    connections_open: 1,
                    panics: 0,
                    accept_errors: 1,
                    client_aborts: 2,
                    connections_refused: 0,
                    busy_seconds: 1.5,
                },
                WorkerTotals {
                    exchanges: 3,
                    connections_accepted: 2,
                    ..WorkerTotals::default()
                },
            ],
            reasons,
        }
    }

    #[test]
    fn the_document_is_the_original_s_and_what_weir_adds() {
        let mut first = backend("http://127.0.0.1:8081", "a");
        first.selections = 11;
        first.failures = 1;
        first.connects = 3;
        first.connect_failures = 1;
        first.statuses = BTreeMap::from([(200, 8), (404, 2)]);
        first.latency = Latency {
            count: 10,
            mean_ns: 1_500_250,
            max_ns: 9_000_001,
            p50_ns: 1_200_000,
            p90_ns: 8_000_000,
            p95_ns: 8_990_000,
            p99_ns: 9_000_001,
            p999_ns: 9_000_001,
            clamped: 0,
        };
        let out = render(
            &snapshot(vec![first, backend("unix:/run/b.sock", "b")]),
            DROPPED,
            &[37],
        )
        .unwrap();
        let expected = concat!(
            r#"{"total_requests":13,"uptime":61000000005,"algorithm":"round-robin","backends":{"#,
            r#""http://127.0.0.1:8081":{"requests":11,"selections":11,"healthy":true,"avg_response":1500250,"#,
            r#""p50_response":1200000,"p95_response":8990000,"p99_response":9000001,"#,
            r#""status_codes":{"200":8,"404":2},"name":"a","eligible":false,"in_flight":2,"failures":1,"#,
            r#""max_response":9000001,"clamped_responses":0,"connects":3,"connect_failures":1,"retries":0,"#,
            r#""attempts":11,"state":"down","breaker":{"state":"open","opened":5},"ejections":6,"#,
            r#""p90_response":8000000,"p999_response":9000001,"phases":PHASES},"#,
            r#""unix:/run/b.sock":{"requests":0,"selections":0,"healthy":true,"avg_response":0,"#,
            r#""p50_response":0,"p95_response":0,"p99_response":0,"#,
            r#""status_codes":{},"name":"b","eligible":false,"in_flight":2,"failures":0,"#,
            r#""max_response":0,"clamped_responses":0,"connects":0,"connect_failures":0,"retries":0,"#,
            r#""attempts":0,"state":"down","breaker":{"state":"open","opened":5},"ejections":6,"#,
            r#""p90_response":0,"p999_response":0,"phases":PHASES}},"#,
            r#""weir":{"version":"VERSION","status_codes":{"502":1,"503":2},"#,
            r#""reasons":{"connect_refused":1,"no_backend":2},"connections":{"open":1,"accepted":6},"#,
            r#""client_aborts":2,"connections_refused":0,"accept_errors":1,"panics":0,"log_lines_dropped":7,"access_log_lines_dropped":8,"spans_dropped":9,"workers":["#,
            r#"{"worker":0,"requests":10,"connections":{"open":1,"accepted":4},"busy":1500000000,"busy_percent":37},"#,
            r#"{"worker":1,"requests":3,"connections":{"open":0,"accepted":2},"busy":0,"busy_percent":null}]}}"#,
            "\n"
        );
        let none = r#"{"count":0,"avg":0,"p50":0,"p95":0,"p99":0,"max":0,"clamped":0}"#;
        let series = ["connect", "download", "first_byte", "queue", "upload", "weir"];
        let phases = series.map(|word| format!("\"{word}\":{none}")).join(",");
        let phases = format!("{{{phases}}}");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expected
                .replace("VERSION", env!("CARGO_PKG_VERSION"))
                .replace("PHASES", &phases)
        );
    }

    #[test]
    fn backends_that_share_a_url_are_told_apart_by_name() {
        let backends = [("http://h:1", "a"), ("http://h:2", "b"), ("http://h:1", "c")];
        let backends = backends.map(|(url, name)| backend(url, name)).to_vec();
        let out = render(&snapshot(backends), DROPPED, &[]).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let keys: Vec<_> = document["backends"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["http://h:1 (a)", "http://h:2", "http://h:1 (c)"]);
    }
}

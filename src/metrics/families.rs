//! Everything that the metrics say, as Prometheus thinks of it: families of samples with labels. What is written from it,
//! and how, is [`super::text`]'s and [`super::protobuf`]'s.
//!
//! Names and units follow Prometheus' conventions: base units (seconds, bytes), `_total` for counters. Labels have bounded
//! values: what strangers choose (paths, methods, headers) is in none of them, and a status code that is not registered
//! counts under its class.

use std::borrow::Cow;

use super::distribution::Distribution;
use super::exemplar::Exemplar;
use super::process::Process;
use super::shard::Series;
use super::snapshot::{BackendTotals, Dropped, Snapshot};
use crate::balance::breaker;
use crate::reason::Reason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric with all of its label sets.
#[derive(Debug)]
pub struct Family<'a> {
    /// Without the `_total` of a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<Sample<'a>>,
}

#[derive(Debug)]
pub struct Sample<'a> {
    pub labels: Vec<(&'static str, Cow<'a, str>)>,
    pub value: Value<'a>,
}

#[derive(Debug)]
pub enum Value<'a> {
    Whole(u64),
    Real(f64),
    Histogram {
        distribution: &'a Distribution,
        /// By bucket; empty: there are none.
        exemplars: &'a [Option<Exemplar>],
    },
}

/// All families, in the order in which they are documented.
pub fn families(snapshot: &Snapshot, dropped: Dropped, process: Process) -> Vec<Family<'_>> {
    let mut all = Vec::new();
    exchanges(&mut all, snapshot);
    latencies(&mut all, snapshot);
    backends(&mut all, snapshot);
    own(&mut all, snapshot, dropped);
    workers(&mut all, snapshot);
    about(&mut all, snapshot, process);
    all
}

fn exchanges<'a>(all: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    let received = snapshot.total(|worker| worker.exchanges);
    all.push(single(
        "weir_exchanges",
        "Requests received from clients.",
        Kind::Counter,
        Value::Whole(received),
    ));
    let mut samples = Vec::new();
    for backend in &snapshot.backends {
        let mut codes: Vec<(Cow<'static, str>, u64)> = Vec::new();
        for (&status, &count) in &backend.statuses {
            let code = code(status);
            match codes.iter_mut().find(|(known, _)| *known == code) {
                Some((_, sum)) => *sum += count,
                None => codes.push((code, count)),
            }
        }
        for (code, count) in codes {
            let mut labels = labels_of(snapshot, backend);
            labels.push(("code", code));
            samples.push(Sample {
                labels,
                value: Value::Whole(count),
            });
        }
    }
    all.push(Family {
        name: "weir_requests",
        help: "Attempts that a backend answered, by status code; unregistered codes count under their class.",
        kind: Kind::Counter,
        samples,
    });
}

fn latencies<'a>(all: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    const NAMES: [(&str, &str); Series::ALL.len()] = [
        (
            "weir_request_duration_seconds",
            "From the beginning of an attempt to the last byte of its answer.",
        ),
        (
            "weir_request_first_byte_seconds",
            "From the beginning of an attempt to the head of its answer.",
        ),
        (
            "weir_connect_duration_seconds",
            "Making a connection to a backend; exchanges on idle connections are no samples.",
        ),
        (
            "weir_queue_duration_seconds",
            "Waiting for a slot of a backend; exchanges that did not wait are no samples.",
        ),
        (
            "weir_overhead_seconds",
            "What weir itself took: an exchange without all that was waited for others.",
        ),
        (
            "weir_client_upload_seconds",
            "Waiting for a client to send its body; bodies that came with the head are no samples.",
        ),
        (
            "weir_client_download_seconds",
            "Waiting for a client to take an answer; answers that went out at once are no samples.",
        ),
    ];
    for (index, (name, help)) in NAMES.into_iter().enumerate() {
        let of = |backend: &'a BackendTotals| Value::Histogram {
            distribution: &backend.series[index],
            exemplars: if index == 0 { &backend.exemplars } else { &[] },
        };
        all.push(by_backend(snapshot, name, help, Kind::Histogram, of));
    }
    let mut samples = Vec::new();
    for (index, series) in Series::ALL.iter().enumerate() {
        let clamped = snapshot
            .backends
            .iter()
            .map(|backend| backend.series[index].clamped);
        samples.push(Sample {
            labels: vec![("series", Cow::Borrowed(series.word()))],
            value: Value::Whole(clamped.sum()),
        });
    }
    all.push(Family {
        name: "weir_durations_clamped",
        help: "Durations past an hour, which the histograms count as an hour.",
        kind: Kind::Counter,
        samples,
    });
}

fn backends<'a>(all: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    type Read = fn(&BackendTotals) -> u64;
    const FAMILIES: [(&str, &str, Kind, Read); 11] = [
        (
            "weir_backend_selections",
            "Picks of a backend.",
            Kind::Counter,
            |backend| backend.selections,
        ),
        (
            "weir_backend_attempts",
            "Attempts that came to an end: answered or failed.",
            Kind::Counter,
            |backend| backend.attempts(),
        ),
        (
            "weir_backend_retries",
            "Picks after another attempt of the same exchange.",
            Kind::Counter,
            |backend| backend.retries,
        ),
        (
            "weir_backend_failures",
            "Attempts that got no answer.",
            Kind::Counter,
            |backend| backend.failures,
        ),
        (
            "weir_backend_connects",
            "Connections made.",
            Kind::Counter,
            |backend| backend.connects,
        ),
        (
            "weir_backend_connect_failures",
            "Connections that could not be made.",
            Kind::Counter,
            |backend| backend.connect_failures,
        ),
        (
            "weir_backend_in_flight",
            "Attempts under way.",
            Kind::Gauge,
            |backend| backend.state.in_flight,
        ),
        (
            "weir_backend_up",
            "Whether the health checks say up.",
            Kind::Gauge,
            |backend| backend.state.healthy.into(),
        ),
        (
            "weir_backend_eligible",
            "Whether a pick may choose it.",
            Kind::Gauge,
            |backend| backend.state.eligible.into(),
        ),
        (
            "weir_backend_breaker_openings",
            "Times that the circuit breaker opened.",
            Kind::Counter,
            |backend| backend.state.breaker_openings,
        ),
        (
            "weir_backend_ejections",
            "Times that outlier detection ejected it.",
            Kind::Counter,
            |backend| backend.state.ejections,
        ),
    ];
    for (name, help, kind, read) in FAMILIES {
        all.push(by_backend(snapshot, name, help, kind, |backend| {
            Value::Whole(read(backend))
        }));
    }
    let states = [
        ("closed", breaker::State::Closed),
        ("open", breaker::State::Open),
        ("half_open", breaker::State::HalfOpen),
    ];
    let mut samples = Vec::new();
    for backend in &snapshot.backends {
        for (word, state) in states {
            let mut labels = labels_of(snapshot, backend);
            labels.push(("state", Cow::Borrowed(word)));
            samples.push(Sample {
                labels,
                value: Value::Whole((backend.state.breaker == state).into()),
            });
        }
    }
    all.push(Family {
        name: "weir_backend_breaker_state",
        help: "1 for the state that the circuit breaker is in, 0 for the others.",
        kind: Kind::Gauge,
        samples,
    });
}

fn own<'a>(all: &mut Vec<Family<'a>>, snapshot: &Snapshot, dropped: Dropped) {
    let samples = Reason::ALL
        .iter()
        .zip(snapshot.reasons)
        .map(|(reason, count)| Sample {
            labels: vec![
                ("reason", Cow::Borrowed(reason.word())),
                ("code", Cow::Owned(reason.status().to_string())),
            ],
            value: Value::Whole(count),
        });
    all.push(Family {
        name: "weir_own_answers",
        help: "Answers that weir gave instead of a backend, by reason.",
        kind: Kind::Counter,
        samples: samples.collect(),
    });
    for (name, help, count) in [
        (
            "weir_client_aborts",
            "Clients that went away before their exchange was complete.",
            snapshot.total(|worker| worker.client_aborts),
        ),
        (
            "weir_connections_refused",
            "Connections closed at once: their client had as many as it may.",
            snapshot.total(|worker| worker.connections_refused),
        ),
        (
            "weir_accept_errors",
            "Connections that could not be accepted.",
            snapshot.total(|worker| worker.accept_errors),
        ),
        (
            "weir_panics",
            "Connections whose task panicked and was ended.",
            snapshot.total(|worker| worker.panics),
        ),
        (
            "weir_log_lines_dropped",
            "Log lines that nobody took in time.",
            dropped.log_lines,
        ),
        (
            "weir_access_log_lines_dropped",
            "Access log lines that nobody took in time.",
            dropped.access_log_lines,
        ),
        (
            "weir_spans_dropped",
            "Spans that the collector did not take in time.",
            dropped.spans,
        ),
    ] {
        all.push(single(name, help, Kind::Counter, Value::Whole(count)));
    }
}

fn workers<'a>(all: &mut Vec<Family<'a>>, snapshot: &Snapshot) {
    type Read = fn(&super::snapshot::WorkerTotals) -> Value<'static>;
    const FAMILIES: [(&str, &str, Kind, Read); 4] = [
        (
            "weir_worker_connections",
            "Client connections open now.",
            Kind::Gauge,
            |worker| Value::Whole(worker.connections_open),
        ),
        (
            "weir_worker_connections_accepted",
            "Client connections accepted.",
            Kind::Counter,
            |worker| Value::Whole(worker.connections_accepted),
        ),
        (
            "weir_worker_requests",
            "Requests received.",
            Kind::Counter,
            |worker| Value::Whole(worker.exchanges),
        ),
        (
            "weir_worker_busy_seconds",
            "What the worker's thread spent on a CPU; its rate is the busy share of the loop.",
            Kind::Counter,
            |worker| Value::Real(worker.busy_seconds),
        ),
    ];
    for (name, help, kind, read) in FAMILIES {
        let samples = snapshot
            .workers
            .iter()
            .enumerate()
            .map(|(number, worker)| Sample {
                labels: vec![("worker", Cow::Owned(number.to_string()))],
                value: read(worker),
            });
        all.push(Family {
            name,
            help,
            kind,
            samples: samples.collect(),
        });
    }
}

fn about<'a>(all: &mut Vec<Family<'a>>, snapshot: &'a Snapshot, process: Process) {
    let info = |name, help, labels| Family {
        name,
        help,
        kind: Kind::Gauge,
        samples: vec![Sample {
            labels,
            value: Value::Whole(1),
        }],
    };
    all.push(info(
        "weir_build_info",
        "What runs: always 1.",
        vec![
            ("version", Cow::Borrowed(env!("CARGO_PKG_VERSION"))),
            (
                "commit",
                Cow::Borrowed(option_env!("WEIR_COMMIT").unwrap_or("unknown")),
            ),
            ("arch", Cow::Borrowed(std::env::consts::ARCH)),
        ],
    ));
    let driver = snapshot.drivers.first().map_or("unknown", String::as_str);
    all.push(info(
        "weir_runtime_info",
        "How it runs: always 1.",
        vec![
            ("driver", Cow::Borrowed(driver)),
            ("workers", Cow::Owned(snapshot.workers.len().to_string())),
            ("strategy", Cow::Borrowed(&snapshot.algorithm)),
        ],
    ));
    all.push(single(
        "weir_uptime_seconds",
        "Since weir began to serve.",
        Kind::Gauge,
        Value::Real(snapshot.uptime.as_secs_f64()),
    ));
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Resident memory.",
            process.resident_bytes as f64,
        ),
        (
            "process_virtual_memory_bytes",
            "Virtual memory.",
            process.virtual_bytes as f64,
        ),
        (
            "process_open_fds",
            "Open file descriptors.",
            process.open_fds as f64,
        ),
        (
            "process_max_fds",
            "File descriptors that may be open.",
            process.max_fds.map_or(f64::INFINITY, |max| max as f64),
        ),
        (
            "process_start_time_seconds",
            "When the process began, since 1970.",
            process.start_unix_seconds,
        ),
        (
            "process_threads",
            "Threads of the process.",
            process.threads as f64,
        ),
    ];
    all.push(single(
        "process_cpu_seconds",
        "What all threads spent on CPUs.",
        Kind::Counter,
        Value::Real(process.cpu_seconds),
    ));
    for (name, help, value) in gauges {
        all.push(single(name, help, Kind::Gauge, Value::Real(value)));
    }
}

fn single<'a>(name: &'static str, help: &'static str, kind: Kind, value: Value<'a>) -> Family<'a> {
    Family {
        name,
        help,
        kind,
        samples: vec![Sample {
            labels: Vec::new(),
            value,
        }],
    }
}

fn by_backend<'a>(
    snapshot: &'a Snapshot,
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: impl Fn(&'a BackendTotals) -> Value<'a>,
) -> Family<'a> {
    let samples = snapshot.backends.iter().map(|backend| Sample {
        labels: labels_of(snapshot, backend),
        value: value(backend),
    });
    Family {
        name,
        help,
        kind,
        samples: samples.collect(),
    }
}

fn labels_of<'a>(snapshot: &'a Snapshot, backend: &'a BackendTotals) -> Vec<(&'static str, Cow<'a, str>)> {
    vec![
        ("pool", Cow::Borrowed(&snapshot.pool)),
        ("backend", Cow::Borrowed(&backend.info.name)),
    ]
}

/// A registered status code (IANA, HTTP Status Code Registry) as it is, any other one by its class.
fn code(status: u16) -> Cow<'static, str> {
    let registered = matches!(
        status,
        100..=104 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=417 | 421..=426 | 428 | 429 | 431 | 451
            | 500..=508 | 511
    );
    if registered {
        Cow::Owned(status.to_string())
    } else {
        Cow::Owned(format!("{}xx", status / 100))
    }
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn codes_are_bounded() {
        let codes: std::collections::BTreeSet<_> = (100..1000).map(code).collect();
        assert!(codes.len() < 80, "{}", codes.len());
        assert!(codes.contains("200") && codes.contains("9xx") && !codes.contains("299"));
    }
}

//! What is said of this weir as a whole: its own answers, its workers, its process.

use std::borrow::Cow;

use super::{Family, Kind, Sample, Value, single};
use crate::metrics::process::Process;
use crate::metrics::snapshot::{Dropped, Snapshot, WorkerTotals};
use crate::reason::Reason;

pub(super) fn put<'a>(all: &mut Vec<Family<'a>>, snapshot: &'a Snapshot, dropped: Dropped, process: Process) {
    own(all, snapshot, dropped);
    workers(all, snapshot);
    about(all, snapshot, process);
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
    type Read = fn(&WorkerTotals) -> Value<'static>;
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

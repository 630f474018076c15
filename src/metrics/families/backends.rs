//! What is said of each backend: its answers, their times, and what it is.

use std::borrow::Cow;

use super::{Family, Kind, Sample, Value, by_backend, labels_of, single};
use crate::admin::Condition;
use crate::balance::breaker;
use crate::metrics::shard::Series;
use crate::metrics::snapshot::{BackendTotals, Snapshot};

pub(super) fn put<'a>(all: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    exchanges(all, snapshot);
    latencies(all, snapshot);
    counts(all, snapshot);
    states(all, snapshot);
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

fn counts<'a>(all: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
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
}

fn states<'a>(all: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    all.push(one_of(
        snapshot,
        "weir_backend_state",
        "1 for what the backend is, as GET /backends says it, 0 for everything else.",
        Condition::ALL.map(|condition| (condition.word(), condition.word())),
        |backend| backend.state.condition,
    ));
    all.push(one_of(
        snapshot,
        "weir_backend_breaker_state",
        "1 for the state that the circuit breaker is in, 0 for the others.",
        [
            ("closed", breaker::State::Closed),
            ("open", breaker::State::Open),
            ("half_open", breaker::State::HalfOpen),
        ],
        |backend| backend.state.breaker,
    ));
}

/// A state that is one of a few: a sample for each of them, 1 for the one that holds. So no series ever goes away, and a
/// change is seen as one going down while another goes up.
fn one_of<'a, T: PartialEq, const STATES: usize>(
    snapshot: &'a Snapshot,
    name: &'static str,
    help: &'static str,
    states: [(&'static str, T); STATES],
    now: impl Fn(&BackendTotals) -> T,
) -> Family<'a> {
    let mut samples = Vec::with_capacity(snapshot.backends.len() * STATES);
    for backend in &snapshot.backends {
        let now = now(backend);
        for (word, state) in &states {
            let mut labels = labels_of(snapshot, backend);
            labels.push(("state", Cow::Borrowed(*word)));
            samples.push(Sample {
                labels,
                value: Value::Whole((*state == now).into()),
            });
        }
    }
    Family {
        name,
        help,
        kind: Kind::Gauge,
        samples,
    }
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

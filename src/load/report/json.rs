//! The summary as JSON: the names of the original's `summary.json`, and what this tester knows besides.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::load::{ErrorKind, Outcome, Plan, Tally, quantile_of};

pub(super) fn summary(plan: &Plan, outcome: &Outcome) -> Value {
    let total = &outcome.total;
    let seconds = outcome.took.as_secs_f64().max(1e-9);
    let mut summary = json!({
        "requests": total.requests(),
        "requests_per_second": total.requests() as f64 / seconds,
        "errors": total.failures(),
        "status_codes": counts(total.statuses.iter().map(|(status, count)| (status.to_string(), *count))),
        "latency_ns": latency(&total.response, total.response_mean()),
        "backends": counts(total.backends.iter().map(|(name, count)| (name.to_string(), *count))),
        "duration_ns": outcome.took.as_nanos() as u64,
        "connections": plan.connections,
        "workers": plan.workers,
        "loop": if plan.rate.is_some() { "open" } else { "closed" },
        "rate": plan.rate,
        "bytes": total.bytes,
        "errors_by_kind": by_kind(total),
        "reconnects": total.reconnects,
        "stopped": outcome.stopped,
        "targets": targets(plan, total),
    });
    if plan.rate.is_some() {
        summary["unsent"] = total.unsent.into();
        summary["service_time_ns"] = latency(&total.service, total.service_mean());
    }
    summary
}

pub(super) fn by_kind(tally: &Tally) -> Value {
    let kinds = ErrorKind::ALL.iter().zip(tally.errors);
    counts(kinds.map(|(kind, count)| (kind.word().to_owned(), count)))
}

fn counts(pairs: impl Iterator<Item = (String, u64)>) -> Value {
    Value::Object(
        pairs
            .map(|(name, count)| (name, count.into()))
            .collect::<Map<_, _>>(),
    )
}

/// A list and no map: one url may be there twice.
fn targets(plan: &Plan, total: &Tally) -> Value {
    let each = plan.targets.iter().zip(&total.targets).map(|(target, tally)| {
        let (response, mut times) = (&tally.response, Map::new());
        for (name, quantile) in [("p50", 0.50), ("p90", 0.90), ("p99", 0.99), ("max", 1.0)] {
            times.insert(name.to_owned(), quantile_of(response, quantile).into());
        }
        json!({
            "url": target.url,
            "requests": tally.requests,
            "errors": tally.errors,
            "latency_ns": times,
        })
    });
    each.collect()
}

fn latency(histogram: &Histogram<u64>, mean: u64) -> Value {
    let at = |quantile| quantile_of(histogram, quantile);
    json!({
        "min": if histogram.is_empty() { 0 } else { histogram.min() },
        "mean": mean,
        "p50": at(0.50),
        "p90": at(0.90),
        "p95": at(0.95),
        "p99": at(0.99),
        "p99_9": at(0.999),
        "max": histogram.max(),
    })
}

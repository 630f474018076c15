//! The report on the terminal.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::{ErrorKind, Interval, Outcome, Plan, Tally};

/// The line that is shown while a run goes on.
pub fn live(interval: &Interval, total: &Tally, share_done: f64) -> String {
    const WIDTH: usize = 20;
    let filled = ((share_done * WIDTH as f64) as usize).min(WIDTH);
    let seconds = interval.length.as_secs_f64().max(1e-9);
    let at = |quantile| span(value(&interval.tally.response, quantile));
    format!(
        "[{}{}] {:>3.0} % | {:.0} requests/s | p50 {} p99 {} | {} requests, {} errors",
        "#".repeat(filled),
        "-".repeat(WIDTH - filled),
        share_done * 100.0,
        interval.tally.requests() as f64 / seconds,
        at(0.50),
        at(0.99),
        total.requests(),
        total.failures()
    )
}

/// Everything, for people.
pub fn table(plan: &Plan, outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_table(&mut out, plan, outcome);
    out
}

fn write_table(out: &mut String, plan: &Plan, outcome: &Outcome) -> std::fmt::Result {
    let total = &outcome.total;
    let seconds = outcome.took.as_secs_f64().max(1e-9);
    let urls: Vec<&str> = plan.targets.iter().map(|target| &*target.url).collect();
    writeln!(out, "{}", urls.join(" "))?;
    writeln!(
        out,
        "{} connections, {} workers, {}",
        plan.connections,
        plan.workers,
        match plan.rate {
            Some(rate) => format!("open loop: {rate} requests/s, whatever the server does"),
            None =>
                "closed loop: the next request waits for the answer, so a stall is one slow answer (-R for an open loop)"
                    .to_owned(),
        }
    )?;
    writeln!(out)?;
    writeln!(
        out,
        "requests   {} in {:.2} s, {:.1}/s",
        total.requests(),
        seconds,
        total.requests() as f64 / seconds
    )?;
    writeln!(
        out,
        "received   {:.1} MiB, {:.1} MiB/s",
        total.bytes as f64 / 1_048_576.0,
        total.bytes as f64 / 1_048_576.0 / seconds
    )?;
    let statuses: Vec<String> = total
        .statuses
        .iter()
        .map(|(status, count)| format!("{status}: {count}"))
        .collect();
    writeln!(out, "statuses   {}", or_none(&statuses))?;
    let kinds = ErrorKind::ALL
        .iter()
        .zip(total.errors)
        .filter(|(_, count)| *count > 0);
    let errors: Vec<String> = kinds
        .map(|(kind, count)| format!("{}: {count}", kind.word()))
        .collect();
    writeln!(out, "errors     {}", or_none(&errors))?;
    writeln!(out)?;
    write_latency(out, plan, total)?;
    write_histogram(out, &total.response)?;
    write_shares(
        out,
        "backend",
        total.backends.iter().map(|(name, count)| (&**name, *count)),
    )?;
    if plan.targets.len() > 1 {
        let targets = urls.iter().copied().zip(total.targets.iter().copied());
        write_shares(out, "target", targets)?;
    }
    Ok(())
}

fn write_latency(out: &mut String, plan: &Plan, total: &Tally) -> std::fmt::Result {
    let mut series = vec![("latency", &total.response, total.response_mean())];
    if plan.rate.is_some() {
        series = vec![
            (
                "response, from when it was due",
                &total.response,
                total.response_mean(),
            ),
            (
                "service, from when it was sent",
                &total.service,
                total.service_mean(),
            ),
        ];
    }
    let columns = ["mean", "p50", "p90", "p95", "p99", "p99.9", "max"];
    write!(out, "{:<32}", "")?;
    for column in columns {
        write!(out, "{column:>10}")?;
    }
    writeln!(out)?;
    for (name, histogram, mean) in series {
        write!(out, "{name:<32}{:>10}", span(mean))?;
        for quantile in [0.50, 0.90, 0.95, 0.99, 0.999, 1.0] {
            write!(out, "{:>10}", span(value(histogram, quantile)))?;
        }
        writeln!(out)?;
    }
    writeln!(out)
}

/// Answers by powers of two of a microsecond.
fn write_histogram(out: &mut String, histogram: &Histogram<u64>) -> std::fmt::Result {
    if histogram.is_empty() {
        return Ok(());
    }
    let mut buckets: Vec<(u64, u64)> = Vec::new();
    for cell in histogram.iter_recorded() {
        let upper = (cell.value_iterated_to() / 1_000).max(1).next_power_of_two();
        match buckets.last_mut() {
            Some((last, count)) if *last == upper => *count += cell.count_at_value(),
            _ => buckets.push((upper, cell.count_at_value())),
        }
    }
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1);
    for (upper, count) in buckets {
        let bar = "#".repeat((count * 40).div_ceil(most) as usize);
        let share = count as f64 * 100.0 / histogram.len() as f64;
        writeln!(out, "up to {:>9} {share:>6.2} % {bar}", span(upper * 1_000))?;
    }
    writeln!(out)
}

fn write_shares<'a>(
    out: &mut String,
    what: &str,
    counts: impl Iterator<Item = (&'a str, u64)>,
) -> std::fmt::Result {
    let mut counts: Vec<_> = counts.collect();
    let sum: u64 = counts.iter().map(|(_, count)| count).sum();
    if sum == 0 {
        return Ok(());
    }
    counts.sort();
    for (name, count) in counts {
        writeln!(
            out,
            "{what} {name:<24} {count:>10} {:>6.2} %",
            count as f64 * 100.0 / sum as f64
        )?;
    }
    writeln!(out)
}

fn or_none(parts: &[String]) -> String {
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

pub(super) fn value(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    if histogram.is_empty() {
        return 0;
    }
    histogram.value_at_quantile(quantile).min(histogram.max())
}

/// Nanoseconds for people.
pub(super) fn span(nanos: u64) -> String {
    let time = Duration::from_nanos(nanos);
    match nanos {
        0 => "-".to_owned(),
        ..1_000 => format!("{nanos} ns"),
        ..1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        ..1_000_000_000 => format!("{:.2} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

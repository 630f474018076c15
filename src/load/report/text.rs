//! The report on the terminal.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::load::{ErrorKind, Interval, Outcome, Plan, Tally, TargetTally, quantile_of};

/// The line that is shown while a run goes on.
pub fn live(interval: &Interval, total: &Tally, share_done: f64) -> String {
    const WIDTH: usize = 20;
    let filled = ((share_done * WIDTH as f64) as usize).min(WIDTH);
    let seconds = interval.length.as_secs_f64().max(1e-9);
    let at = |quantile| span(quantile_of(&interval.tally.response, quantile));
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
        "{}, {}, {}",
        counted(plan.connections, "connection"),
        counted(plan.workers, "worker"),
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
    write_troubles(out, outcome)?;
    writeln!(out)?;
    write_latency(out, plan, total)?;
    write_histogram(out, &total.response)?;
    write_backends(out, total)?;
    write_targets(out, urls.into_iter().zip(&total.targets))
}

/// What went wrong, and what makes figures less than they seem.
fn write_troubles(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let total = &outcome.total;
    let kinds = ErrorKind::ALL
        .iter()
        .zip(total.errors)
        .filter(|(_, count)| *count > 0);
    let errors: Vec<String> = kinds
        .map(|(kind, count)| format!("{}: {count}", kind.word()))
        .collect();
    writeln!(out, "errors     {}", or_none(&errors))?;
    if total.unanswered() > 0 {
        writeln!(
            out,
            "           {} got no answer; the times below are those of the others",
            counted(total.unanswered(), "request")
        )?;
    }
    if total.unsent > 0 {
        writeln!(
            out,
            "unsent     {} due before the end and still waiting for a connection: the rate was not kept, \
             and the times below leave them out",
            counted(total.unsent, "request")
        )?;
    }
    if total.reconnects > 0 {
        writeln!(
            out,
            "reconnects {}: a kept connection had been closed, and the request was sent again",
            total.reconnects
        )?;
    }
    if outcome.stopped {
        writeln!(
            out,
            "stopped    before the end; requests under way were not counted"
        )?;
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
            write!(out, "{:>10}", span(quantile_of(histogram, quantile)))?;
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

fn write_backends(out: &mut String, total: &Tally) -> std::fmt::Result {
    let sum: u64 = total.backends.values().sum();
    if sum == 0 {
        return Ok(());
    }
    writeln!(out, "{:<32}{:>10}{:>10}", "backend", "answers", "share")?;
    for (name, &count) in &total.backends {
        let share = count as f64 * 100.0 / sum as f64;
        writeln!(out, "{:<32}{count:>10}{share:>8.2} %", printable(name))?;
    }
    writeln!(out)
}

fn write_targets<'a>(
    out: &mut String,
    targets: impl Iterator<Item = (&'a str, &'a TargetTally)>,
) -> std::fmt::Result {
    let mut targets = targets.peekable();
    if targets.peek().is_none() {
        return Ok(());
    }
    write!(out, "{:<32}", "target")?;
    for column in ["requests", "errors", "p50", "p90", "p99", "max"] {
        write!(out, "{column:>10}")?;
    }
    writeln!(out)?;
    for (url, target) in targets {
        write!(out, "{url:<32}{:>10}{:>10}", target.requests, target.errors)?;
        for quantile in [0.50, 0.90, 0.99, 1.0] {
            write!(out, "{:>10}", span(quantile_of(&target.response, quantile)))?;
        }
        writeln!(out)?;
    }
    writeln!(out)
}

/// A stranger's text on a terminal.
fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

fn counted(count: impl TryInto<u64>, what: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn or_none(parts: &[String]) -> String {
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Nanoseconds for people.
pub(super) fn span(nanos: u64) -> String {
    let time = Duration::from_nanos(nanos);
    match nanos {
        0 => "-".to_owned(),
        1..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}

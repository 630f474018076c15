//! What a simulation found, as a table for people and as JSON for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::scenario::Scenario;
use super::tally::Tally;
use super::{Contender, SECOND};

/// One row: a strategy and its figures.
#[derive(Debug)]
pub struct Row {
    pub contender: Contender,
    pub tally: Tally,
    /// How long the simulation itself took.
    pub wall: Duration,
}

impl Row {
    pub fn requests_per_wall_second(&self) -> f64 {
        self.tally.arrived as f64 / self.wall.as_secs_f64().max(1e-9)
    }

    /// Least and most that a backend got, in per cent of the attempts.
    fn spread(&self) -> (f64, f64) {
        let shares = self.tally.shares();
        shares.fold((100.0, 0.0), |(least, most), share| {
            (share.min(least), share.max(most))
        })
    }

    /// What the named backends got together, in per cent of the attempts.
    fn named(&self, named: &[bool]) -> f64 {
        let shares = self.tally.shares().zip(named);
        shares.filter(|(_, named)| **named).map(|(share, _)| share).sum()
    }
}

/// Everything that was found.
#[derive(Debug)]
pub struct Report<'a> {
    /// The preset's name, or the file's.
    pub name: &'a str,
    pub scenario: &'a Scenario,
    pub seed: u64,
    /// Names of the backends, and which of them the scenario names.
    pub backends: Vec<String>,
    pub named: Vec<bool>,
    /// Requests per second that all of them can serve.
    pub capacity: f64,
    pub rows: Vec<Row>,
}

impl Report<'_> {
    /// The table; `timed` adds how fast the simulation was.
    pub fn table(&self, timed: bool) -> String {
        let any_named = self.named.contains(&true);
        let mut header = vec![
            "strategy", "p50 ms", "p99 ms", "p99.9 ms", "failed", "retries", "share %",
        ];
        if any_named {
            header.push("named %");
        }
        header.push("queue");
        if timed {
            header.push("requests/s");
        }
        let mut lines = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
        for row in &self.rows {
            let tally = &row.tally;
            let (least, most) = row.spread();
            let mut line = vec![
                row.contender.name().to_owned(),
                figure(tally.millis_at(0.5)),
                figure(tally.millis_at(0.99)),
                figure(tally.millis_at(0.999)),
                per_cent(tally.measured_failed, tally.measured),
                per_cent(tally.retries, tally.measured),
                format!("{least:.1}-{most:.1}"),
            ];
            if any_named {
                line.push(format!("{:.1}", row.named(&self.named)));
            }
            line.push(tally.queue_peak.to_string());
            if timed {
                line.push(format!("{:.0}", row.requests_per_wall_second()));
            }
            lines.push(line);
        }
        let columns = lines.first().map_or(0, Vec::len);
        let width = |column: usize| {
            lines
                .iter()
                .map(|line| line[column].len())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = self.heading();
        for line in &lines {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Writing to a String cannot fail.
                let _ = match column {
                    0 => write!(text, "{cell:width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }

    fn heading(&self) -> String {
        let scenario = self.scenario;
        let about = if scenario.about.is_empty() {
            String::new()
        } else {
            format!(": {}", scenario.about)
        };
        let requests = self.rows.first().map_or(0, |row| row.tally.measured);
        let seconds = (scenario.duration.nanos() - scenario.warm_up()) as f64 / SECOND as f64;
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let (balancers, backends) = (scenario.load_balancers.0, self.backends.len());
        format!(
            "{}{about}\n{requests} requests in {seconds} s, {balancers} load balancer{} before {backends} backend{}, seed {}\n\n",
            self.name,
            plural(balancers),
            plural(backends),
            self.seed,
        )
    }

    /// The same and more for programs. Without `timed` it is the same for the same seed, byte by byte.
    pub fn json(&self, timed: bool) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row, timed)).collect();
        json!({
            "scenario": self.name,
            "about": self.scenario.about,
            "seed": self.seed,
            "load_balancers": self.scenario.load_balancers.0,
            "workers": self.scenario.workers.0,
            "backends": self.backends,
            "named": self.named_names(),
            "capacity_per_second": rounded(self.capacity),
            "strategies": rows,
        })
    }

    fn named_names(&self) -> Vec<&str> {
        let names = self.backends.iter().zip(&self.named);
        names
            .filter(|(_, named)| **named)
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn row_json(&self, row: &Row, timed: bool) -> Value {
        let tally = &row.tally;
        let latency = json!({
            "mean": rounded(tally.latency.mean() / 1e6),
            "p50": rounded(tally.millis_at(0.5)),
            "p90": rounded(tally.millis_at(0.9)),
            "p99": rounded(tally.millis_at(0.99)),
            "p99_9": rounded(tally.millis_at(0.999)),
            "p99_99": rounded(tally.millis_at(0.9999)),
            "max": rounded(tally.millis_at(1.0)),
        });
        let happened: Map<String, Value> = tally
            .happened
            .iter()
            .map(|(name, count)| ((*name).to_owned(), json!(count)))
            .collect();
        let mut value = json!({
            "strategy": row.contender.name(),
            "arrived": tally.arrived,
            "done": tally.done,
            "failed": tally.failed,
            "in_flight": tally.in_flight,
            "measured": {
                "requests": tally.measured,
                "failed": tally.measured_failed,
                "attempts": tally.attempts,
                "retries": tally.retries,
                "latency_ms": latency,
                "share_percent": tally.shares().map(rounded).collect::<Vec<_>>(),
                "share_percent_named": rounded(row.named(&self.named)),
            },
            "retries_refused": tally.refused_retries,
            "nobody_eligible": tally.nobody,
            "queue_peak": tally.queue_peak,
            "load_probes": tally.load_probes,
            "health_probes": tally.health_probes,
            "happened": happened,
        });
        if timed {
            value["requests_per_wall_second"] = json!(row.requests_per_wall_second().round());
        }
        value
    }
}

/// Three digits or more, as few behind the point as that takes.
fn figure(number: f64) -> String {
    match number {
        0.0..10.0 => format!("{number:.2}"),
        10.0..100.0 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

fn per_cent(part: u64, whole: u64) -> String {
    if part == 0 {
        return "0".to_owned();
    }
    let share = part as f64 / whole.max(1) as f64 * 100.0;
    if share < 0.01 {
        format!("{part}")
    } else {
        format!("{share:.2}%")
    }
}

/// To a millionth, so that JSON is not longer than what it says.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

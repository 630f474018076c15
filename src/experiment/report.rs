//! Figures out of samples, and the texts made of figures.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Outcome, Sample};

/// What an experiment found: for people and for programs.
#[derive(Clone, Debug)]
pub struct Report {
    /// Markdown.
    pub text: String,
    pub json: Value,
}

/// How an experiment was called and with what, for its report.
#[derive(Clone, Debug)]
pub struct Called {
    pub command: String,
    pub version: String,
}

/// What a load came to.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub requests: usize,
    pub failed: usize,
    /// How many failed in which way.
    pub failures: BTreeMap<String, usize>,
    /// Good answers by backend.
    pub answered: BTreeMap<String, usize>,
    /// Latencies of all requests, failed ones included, shortest first.
    latencies: Vec<Duration>,
}

impl Figures {
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Figures {
        let mut figures = Figures {
            requests: 0,
            failed: 0,
            failures: BTreeMap::new(),
            answered: BTreeMap::new(),
            latencies: Vec::new(),
        };
        for sample in samples {
            figures.requests += 1;
            figures.latencies.push(sample.took);
            match &sample.outcome {
                Outcome::Good(backend) => *figures.answered.entry(backend.clone()).or_default() += 1,
                Outcome::Failed(how) => {
                    figures.failed += 1;
                    *figures.failures.entry(how.clone()).or_default() += 1;
                }
            }
        }
        figures.latencies.sort_unstable();
        figures
    }

    /// The least latency that `percent` per cent of the requests did not exceed (nearest rank); none without requests.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let rank = (percent / 100.0 * self.latencies.len() as f64).ceil().max(1.0) as usize;
        self.latencies.get(rank - 1).copied()
    }

    /// The share of requests that got a good answer from `backend`.
    pub fn share(&self, backend: &str) -> f64 {
        ratio(self.answered.get(backend).copied().unwrap_or(0), self.requests)
    }

    /// The share of requests that got a good answer.
    pub fn success(&self) -> f64 {
        ratio(self.requests - self.failed, self.requests)
    }

    pub fn json(&self) -> Value {
        let ms = |percent| self.percentile(percent).map(milliseconds);
        json!({
            "requests": self.requests,
            "failed": self.failed,
            "success": self.success(),
            "failures": self.failures,
            "answered": self.answered,
            "latency_ms": { "p50": ms(50.0), "p90": ms(90.0), "p99": ms(99.0), "max": ms(100.0) },
        })
    }
}

pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// `12.3 ms`.
pub(super) fn shown(duration: Option<Duration>) -> String {
    duration.map_or_else(
        || "—".to_owned(),
        |duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3),
    )
}

/// `97.5 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A Markdown table whose columns line up on a terminal too.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column).map(String::as_str));
        cells
            .chain(head.get(column).copied())
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let mut text = line(&mut head.iter().copied());
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    text.push_str(&format!("|{}|\n", rules.join("|")));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(took_ms: u64, outcome: Outcome) -> Sample {
        Sample {
            at: Duration::ZERO,
            took: Duration::from_millis(took_ms),
            outcome,
        }
    }

    #[test]
    fn figures_of_a_load() {
        let mut samples: Vec<Sample> = (1..=98)
            .map(|ms| sample(ms, Outcome::Good(if ms % 2 == 0 { "a" } else { "b" }.to_owned())))
            .collect();
        samples.extend((99..=100).map(|ms| sample(ms, Outcome::Failed("502 x".to_owned()))));
        let figures = Figures::of(&samples);
        assert_eq!((figures.requests, figures.failed), (100, 2));
        assert_eq!(
            (figures.success(), figures.share("a"), figures.share("c")),
            (0.98, 0.49, 0.0)
        );
        assert_eq!(figures.failures["502 x"], 2);
        for (percent, ms) in [(0.0, 1), (50.0, 50), (99.0, 99), (99.1, 100), (100.0, 100)] {
            assert_eq!(
                figures.percentile(percent),
                Some(Duration::from_millis(ms)),
                "{percent}"
            );
        }
        assert_eq!(Figures::of(&[]).percentile(50.0), None);
        assert_eq!(Figures::of(&[]).success(), 0.0);
    }

    #[test]
    fn tables_line_up() {
        let rows = [
            vec!["é".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), String::new()],
        ];
        let expected = "| a    | bb |\n|------|----|\n| é    | 1  |\n| long |    |\n";
        assert_eq!(table(&["a", "bb"], &rows), expected);
    }
}

//! The same trouble for every strategy: one backend slow, one killed, one restarted.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Plan, Progress, Sample, load};
use super::report::{Called, Figures, Report, milliseconds, percent, ratio, shown, table};
use super::stand::{Blueprint, Stand};
use super::{Error, Stop};

/// The longest that a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the restarted backend is away.
const AWAY: Duration = Duration::from_millis(200);

/// Between two looks whether the experiment shall end.
const TURN: Duration = Duration::from_millis(20);

/// Different keys for the strategies that hash.
const KEYS: usize = 1000;

const BACKENDS: [&str; 5] = ["killed", "restarted", "slow", "good-1", "good-2"];
const KILLED: usize = 0;
const RESTARTED: usize = 1;
const SLOW: usize = 2;

/// What happens at the start of each phase, in the order of the phases.
const PHASES: [(&str, &str); 5] = [
    ("steady", "all five are well"),
    ("slow", "`slow` takes longer"),
    ("killed", "`killed` is killed (SIGKILL) and stays away"),
    (
        "restarted",
        "`restarted` is stopped (SIGTERM) and started again on its port",
    ),
    ("well again", "`slow` is as fast as before"),
];
/// The phases in which `slow` is slow.
const WHILE_SLOW: [usize; 3] = [1, 2, 3];
const LAST: usize = PHASES.len() - 1;

const STRATEGIES: [&str; 10] = [
    "round-robin",
    "weighted-round-robin",
    "random",
    "least-conn",
    "p2c",
    "least-response",
    "consistent_hash",
    "maglev",
    "prequal",
    "failover",
];

/// The experiment's measures.
#[derive(Clone, Debug)]
pub struct Strategies {
    /// Those to run; empty: all.
    pub only: Vec<String>,
    /// Each phase.
    pub phase: Duration,
    pub concurrency: usize,
    /// What each backend takes for a request.
    pub delay: Duration,
    /// What the slow one takes.
    pub slow: Duration,
    pub called: Called,
}

#[derive(Debug)]
struct Found {
    name: &'static str,
    whole: Figures,
    phases: Vec<Figures>,
    attempts: u64,
}

impl Found {
    fn while_slow(&self, figure: impl Fn(&Figures) -> f64) -> f64 {
        let figures = WHILE_SLOW.iter().filter_map(|phase| self.phases.get(*phase));
        let (sum, weight) = figures.fold((0.0, 0.0), |(sum, weight), figures| {
            let requests = figures.requests as f64;
            (sum + figure(figures) * requests, weight + requests)
        });
        if weight > 0.0 { sum / weight } else { 0.0 }
    }
}

impl Strategies {
    /// The names that `only` may hold.
    pub const NAMES: &'static [&'static str] = &STRATEGIES;

    /// Runs one strategy after the other.
    pub fn run(&self, stop: &Stop) -> Result<Report, Error> {
        let chosen = STRATEGIES
            .iter()
            .filter(|name| self.only.is_empty() || self.only.iter().any(|only| only == *name));
        let found = chosen
            .map(|name| self.one(name, stop))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Report {
            text: self.text(&found),
            json: self.json(&found),
        })
    }

    fn one(&self, name: &'static str, stop: &Stop) -> Result<Found, Error> {
        let further = match name {
            "consistent_hash" | "maglev" => "key = \"header:x-key\"\n",
            "prequal" => "probe_path = \"/load\"\n",
            _ => "",
        };
        let delay = ["--delay".to_owned(), micros(self.delay)];
        let mut stand = Stand::start(
            &Blueprint {
                backends: &BACKENDS,
                arguments: &delay,
                configuration: &format!("[strategy]\ntype = \"{name}\"\n{further}"),
                with_priorities: name == "failover",
            },
            stop,
        )?;
        let plan = Plan {
            address: stand.address,
            concurrency: self.concurrency,
            pause: Duration::ZERO,
            timeout: TIMEOUT,
            requests: None,
            keys: KEYS,
        };
        let (samples, begun) = load(&plan, stop, &|_| {}, |start, progress| {
            self.trouble(&mut stand, start, progress, stop)
        });
        let begun = begun?;
        let attempts = stand.counts().selections()?;
        Ok(Found {
            name,
            whole: Figures::of(&samples),
            phases: by_phase(&samples, &begun),
            attempts: attempts.iter().map(|(_, count)| count).sum(),
        })
    }

    /// Brings the phases about; gives when each began.
    fn trouble(
        &self,
        stand: &mut Stand,
        start: Instant,
        progress: &Progress,
        stop: &Stop,
    ) -> Result<Vec<Duration>, Error> {
        let mut begun = Vec::with_capacity(PHASES.len());
        for phase in 0..PHASES.len() {
            let began = Instant::now();
            begun.push(began - start);
            match phase {
                1 => stand.backends[SLOW].set(&format!("delay={}", micros(self.slow)))?,
                2 => stand.backends[KILLED].kill(),
                3 => {
                    stand.backends[RESTARTED].terminate();
                    rest(Instant::now() + AWAY, progress, stop)?;
                    stand.backends[RESTARTED].start_again(&stand.directory, stop)?;
                }
                4 => stand.backends[SLOW].set(&format!("delay={}", micros(self.delay)))?,
                _ => {}
            }
            rest(began + self.phase, progress, stop)?;
        }
        Ok(begun)
    }

    fn text(&self, found: &[Found]) -> String {
        let head = [
            "strategy",
            "requests",
            "success",
            "failed",
            "attempts/request",
            "p50",
            "p99",
            "p99 steady",
            "p99 while one is slow",
        ];
        let rows: Vec<Vec<String>> = found
            .iter()
            .map(|found| {
                let worst = WHILE_SLOW
                    .iter()
                    .filter_map(|phase| found.phases.get(*phase)?.percentile(99.0))
                    .max();
                let steady = found.phases.first().and_then(|steady| steady.percentile(99.0));
                vec![
                    found.name.to_owned(),
                    found.whole.requests.to_string(),
                    format!("{:.3} %", found.whole.success() * 100.0),
                    found.whole.failed.to_string(),
                    format!("{:.3}", ratio(found.attempts as usize, found.whole.requests)),
                    shown(found.whole.percentile(50.0)),
                    shown(found.whole.percentile(99.0)),
                    shown(steady),
                    shown(worst),
                ]
            })
            .collect();
        let mut share_head = vec!["strategy"];
        share_head.extend(BACKENDS);
        share_head.extend([
            "slow, steady",
            "slow, while slow",
            "slow, well again",
            "restarted, at the end",
        ]);
        let shares: Vec<Vec<String>> = found
            .iter()
            .map(|found| {
                let in_phase = |phase: usize, backend: usize| {
                    percent(
                        found
                            .phases
                            .get(phase)
                            .map_or(0.0, |figures| figures.share(BACKENDS[backend])),
                    )
                };
                let mut row = vec![found.name.to_owned()];
                row.extend(BACKENDS.iter().map(|backend| percent(found.whole.share(backend))));
                row.push(in_phase(0, SLOW));
                row.push(percent(found.while_slow(|figures| figures.share(BACKENDS[SLOW]))));
                row.push(in_phase(LAST, SLOW));
                row.push(in_phase(LAST, RESTARTED));
                row
            })
            .collect();
        let phases: String = PHASES
            .iter()
            .enumerate()
            .map(|(number, (name, what))| format!("{}. *{name}*: {what}\n", number + 1))
            .collect();
        format!(
            "# Strategies in trouble\n\n`{}`, weir {}.\n\n\
             Five backends that take {} ms a request (the slow one {} ms, while it is slow), {} clients that send one \
             request after the other, weir with its defaults but for the strategy (hashing by one of {KEYS} keys, \
             `failover` with the order of the columns below as priorities, `prequal` with the backends' own load). Five \
             phases of {:.1} s each:\n\n{phases}\n{}\n## Who answered\n\nThe shares of the requests: over all phases, \
             then in some of them.\n\n{}",
            self.called.command,
            self.called.version,
            milliseconds(self.delay),
            milliseconds(self.slow),
            self.concurrency,
            self.phase.as_secs_f64(),
            table(&head, &rows),
            table(&share_head, &shares),
        )
    }

    fn json(&self, found: &[Found]) -> Value {
        let strategies: Vec<Value> = found
            .iter()
            .map(|found| {
                let mut json = found.whole.json();
                json["strategy"] = found.name.into();
                json["attempts"] = found.attempts.into();
                let phases = found.phases.iter().zip(PHASES);
                json["phases"] = phases
                    .map(|(figures, (name, _))| {
                        let mut json = figures.json();
                        json["phase"] = name.into();
                        json
                    })
                    .collect();
                json
            })
            .collect();
        json!({
            "experiment": "strategies",
            "command": self.called.command,
            "version": self.called.version,
            "phase_ms": milliseconds(self.phase),
            "concurrency": self.concurrency,
            "delay_ms": milliseconds(self.delay),
            "slow_ms": milliseconds(self.slow),
            "backends": BACKENDS,
            "strategies": strategies,
        })
    }
}

fn micros(duration: Duration) -> String {
    format!("{}us", duration.as_micros())
}

/// Waits until `until`, and not longer than there are clients.
fn rest(until: Instant, progress: &Progress, stop: &Stop) -> Result<(), Error> {
    while progress.is_running() {
        stop.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        thread::sleep(left.min(TURN));
    }
    Ok(())
}

/// The figures of each phase: of the requests that were sent in it.
fn by_phase(samples: &[Sample], begun: &[Duration]) -> Vec<Figures> {
    begun
        .iter()
        .enumerate()
        .map(|(phase, begin)| {
            let end = begun.get(phase + 1).copied().unwrap_or(Duration::MAX);
            Figures::of(samples.iter().filter(|sample| (*begin..end).contains(&sample.at)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::client::Outcome;
    use super::*;
    use crate::config;

    #[test]
    fn requests_count_for_the_phase_in_which_they_were_sent() {
        let at = |ms| Sample {
            at: Duration::from_millis(ms),
            took: Duration::from_secs(1),
            outcome: Outcome::Good("good-1".to_owned()),
        };
        let samples = [at(0), at(9), at(10), at(500)];
        let phases = by_phase(&samples, &[Duration::ZERO, Duration::from_millis(10)]);
        let counts: Vec<usize> = phases.iter().map(|figures| figures.requests).collect();
        assert_eq!(counts, [2, 2]);
    }

    #[test]
    fn every_strategy_that_is_named_exists() {
        for name in STRATEGIES {
            let toml = format!("[strategy]\ntype = \"{name}\"\n[[backends]]\nurl = \"http://127.0.0.1:1\"\n");
            let loaded = config::load_str("a test", &toml, &[], &[]);
            assert!(loaded.is_ok(), "{name}");
        }
    }
}

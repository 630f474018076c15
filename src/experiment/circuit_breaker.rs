//! A backend dies, or only answers 503, in the middle of a load: with and without the circuit breaker and retries.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Plan, Progress, Sample, load};
use super::report::{Called, Figures, Report, milliseconds, percent, ratio, shown, table};
use super::stand::{Backend, Blueprint, Counts, Stand};
use super::{Error, Stop};

/// Between two looks at weir's counts.
const LOOK: Duration = Duration::from_millis(5);

/// The longest that a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

const BACKENDS: [&str; 3] = ["backend-1", "backend-2", "backend-3"];
const VICTIM: usize = 1;

/// Only what is to be seen is on: probes and ejection would end the trouble too.
const ALONE: &str =
    "[health_check]\ntype = \"off\"\n\n[outlier]\nconsecutive_gateway = \"off\"\nsuccess_rate = false\n\n";

/// One way to run weir: its name and its configuration.
const VARIANTS: [(&str, &str, bool); 5] = [
    (
        "neither",
        "[circuit_breaker]\nenabled = false\n\n[retry]\nmax_retries = 0\n",
        true,
    ),
    (
        "breaker",
        "[circuit_breaker]\nenabled = true\n\n[retry]\nmax_retries = 0\n",
        true,
    ),
    (
        "retries",
        "[circuit_breaker]\nenabled = false\n\n[retry]\nmax_retries = 2\n",
        true,
    ),
    (
        "breaker and retries",
        "[circuit_breaker]\nenabled = true\n\n[retry]\nmax_retries = 2\n",
        true,
    ),
    ("all defaults", "", false),
];

/// What befalls the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Killed,
    Failing,
}

const TROUBLES: [Trouble; 2] = [Trouble::Killed, Trouble::Failing];

impl Trouble {
    fn word(self) -> &'static str {
        match self {
            Trouble::Killed => "killed",
            Trouble::Failing => "failing",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Trouble::Killed => "is killed (SIGKILL)",
            Trouble::Failing => "answers 503 to everything, at once",
        }
    }

    fn befall(self, victim: &mut Backend) -> Result<(), Error> {
        match self {
            Trouble::Killed => {
                victim.kill();
                Ok(())
            }
            Trouble::Failing => victim.set("error_rate=1&error_status=503"),
        }
    }
}

/// The experiment's measures.
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    pub requests: usize,
    /// The trouble comes before this one, counted from 0; less than `requests`.
    pub kill_after: usize,
    pub concurrency: usize,
    /// What a client waits for between an answer and its next request.
    pub pause: Duration,
    pub called: Called,
}

/// What came of one variant.
#[derive(Debug)]
struct Found {
    trouble: Trouble,
    name: &'static str,
    figures: Figures,
    attempts: u64,
    victim: Victim,
}

/// What became of the requests for the backend in trouble.
#[derive(Clone, Copy, Debug, Default)]
struct Victim {
    since: Duration,
    attempts_before: u64,
    attempts: u64,
    /// When weir's count of its attempts last grew after that, seen by a look every [`LOOK`].
    last: Option<Duration>,
}

impl CircuitBreaker {
    /// Runs all variants in each trouble, one after the other.
    pub fn run(&self, stop: &Stop) -> Result<Report, Error> {
        let mut found = Vec::with_capacity(TROUBLES.len() * VARIANTS.len());
        for trouble in TROUBLES {
            for (name, configuration, alone) in VARIANTS {
                let alone = if alone { ALONE } else { "" };
                found.push(self.one(trouble, name, &format!("{alone}{configuration}"), stop)?);
            }
        }
        Ok(Report {
            text: self.text(&found),
            json: self.json(&found),
        })
    }

    fn one(
        &self,
        trouble: Trouble,
        name: &'static str,
        configuration: &str,
        stop: &Stop,
    ) -> Result<Found, Error> {
        let mut stand = Stand::start(
            &Blueprint {
                backends: &BACKENDS,
                arguments: &[],
                configuration: &format!("[strategy]\ntype = \"round-robin\"\n\n{configuration}"),
                with_priorities: false,
            },
            stop,
        )?;
        let plan = Plan {
            address: stand.address,
            concurrency: self.concurrency,
            pause: self.pause,
            timeout: TIMEOUT,
            requests: Some(self.requests),
            keys: 1,
        };
        let mut counts = stand.counts();
        let victim = Mutex::new(stand.backends.swap_remove(VICTIM));
        let befallen: Mutex<Option<Result<(Instant, u64), Error>>> = Mutex::new(None);
        let before = |number: usize| {
            if number == self.kill_after {
                let count = stand.counts().selections_of(BACKENDS[VICTIM]);
                let done = trouble.befall(&mut victim.lock().unwrap_or_else(PoisonError::into_inner));
                *befallen.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(done.and(count).map(|count| (Instant::now(), count)));
            }
        };
        let (samples, (start, grown)) = load(&plan, stop, &before, |start, progress| {
            (start, watch(&mut counts, start, progress))
        });
        let befallen = befallen.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Only a signal ends the load before it.
        let (since, attempts_before) = befallen.ok_or(Error::Stopped)??;
        stop.check()?;
        let attempts = counts.selections()?;
        let since = since - start;
        let of_victim = attempts.iter().find(|(name, _)| name == BACKENDS[VICTIM]);
        let victim = Victim {
            since,
            attempts_before,
            attempts: of_victim.map_or(0, |(_, count)| *count),
            last: grown.filter(|at| *at > since),
        };
        Ok(Found {
            trouble,
            name,
            figures: Figures::of(&samples),
            attempts: attempts.iter().map(|(_, count)| count).sum(),
            victim: victim.judged(&samples),
        })
    }

    fn text(&self, found: &[Found]) -> String {
        let mut text = format!(
            "# A backend in trouble: with and without circuit breaker and retries\n\n`{}`, weir {}.\n\n\
             {} requests (GET) by {} client{} with a pause of {} ms between them, round robin over {} backends, \
             each a process of its own. The trouble comes before request {}. In all rows but the last of each table \
             health checks and ejection are off, so that only the circuit breaker and retries are seen (a backend that \
             refuses connections is left out all the same); the last row is weir without any configuration but \
             addresses.\n\n\
             *Attempts* are all that weir made at backends; *its last after* is the time from the trouble until the last \
             attempt at the backend in trouble, by weir's own count (to {} ms).\n",
            self.called.command,
            self.called.version,
            self.requests,
            self.concurrency,
            if self.concurrency == 1 { "" } else { "s" },
            self.pause.as_millis(),
            BACKENDS.len(),
            self.kill_after,
            LOOK.as_millis(),
        );
        for trouble in TROUBLES {
            let found: Vec<&Found> = found.iter().filter(|found| found.trouble == trouble).collect();
            text.push_str(&format!("\n## {} {}\n\n", BACKENDS[VICTIM], trouble.title()));
            text.push_str(&one_table(&found));
            text.push_str(&failures(&found));
        }
        text
    }

    fn json(&self, found: &[Found]) -> Value {
        let variants: Vec<Value> = found
            .iter()
            .map(|found| {
                let mut json = found.figures.json();
                json["trouble"] = found.trouble.word().into();
                json["variant"] = found.name.into();
                json["attempts"] = found.attempts.into();
                json["attempts_per_request"] = ratio(found.attempts as usize, found.figures.requests).into();
                json["troubled_backend"] = json!({
                    "since_ms": milliseconds(found.victim.since),
                    "attempts_after": found.victim.attempts_after(),
                    "last_attempt_after_ms": found.victim.last_after().map(milliseconds),
                });
                json
            })
            .collect();
        json!({
            "experiment": "circuit-breaker",
            "command": self.called.command,
            "version": self.called.version,
            "requests": self.requests,
            "kill_after": self.kill_after,
            "concurrency": self.concurrency,
            "pause_ms": milliseconds(self.pause),
            "backends": BACKENDS.len(),
            "variants": variants,
        })
    }
}

fn one_table(found: &[&Found]) -> String {
    let head = [
        "weir with",
        "success",
        "failed",
        "attempts",
        "p50",
        "p99",
        "max",
        "attempts at the troubled one",
        "its last after",
    ];
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|found| {
            let Figures { requests, failed, .. } = found.figures;
            vec![
                found.name.to_owned(),
                percent(found.figures.success()),
                format!("{failed} of {requests}"),
                found.attempts.to_string(),
                shown(found.figures.percentile(50.0)),
                shown(found.figures.percentile(99.0)),
                shown(found.figures.percentile(100.0)),
                found.victim.attempts_after().to_string(),
                found.victim.last_shown(),
            ]
        })
        .collect();
    table(&head, &rows)
}

/// How requests failed, a line for each variant and way.
fn failures(found: &[&Found]) -> String {
    let lines: String = found
        .iter()
        .flat_map(|found| {
            let line = move |(how, count): (&String, &usize)| format!("- {}: {count} × {how}\n", found.name);
            found.figures.failures.iter().map(line)
        })
        .collect();
    if lines.is_empty() {
        lines
    } else {
        format!("\nWhat failed:\n\n{lines}")
    }
}

impl Victim {
    fn attempts_after(&self) -> u64 {
        self.attempts.saturating_sub(self.attempts_before)
    }

    fn last_after(&self) -> Option<Duration> {
        self.last.map(|last| last - self.since)
    }

    /// Growth that was counted before the trouble and seen behind it is none.
    fn judged(mut self, samples: &[Sample]) -> Victim {
        if self.attempts_after() == 0 {
            self.last = None;
        } else if self.last.is_none() {
            // All of it came after the last look.
            self.last = samples.last().map(|sample| sample.at.max(self.since));
        }
        self
    }

    fn last_shown(&self) -> String {
        self.last_after()
            .map_or_else(|| "none".to_owned(), |after| format!("{} ms", after.as_millis()))
    }
}

/// Looks at the victim's count until the load is over; gives when it last grew, from the load's start.
fn watch(counts: &mut Counts, start: Instant, progress: &Progress) -> Option<Duration> {
    let (mut known, mut grown) = (0, None);
    while progress.is_running() {
        if let Ok(count) = counts.selections_of(BACKENDS[VICTIM])
            && count > known
        {
            (known, grown) = (count, Some(start.elapsed()));
        }
        thread::sleep(LOOK);
    }
    grown
}

//! A backend is killed in the middle of a load: with and without the circuit breaker and retries.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Plan, Progress, Sample, load};
use super::report::{Called, Figures, Report, milliseconds, percent, ratio, shown, table};
use super::stand::{Blueprint, Counts, Stand};
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

/// The experiment's measures.
#[derive(Clone, Debug)]
pub struct CircuitBreaker {
    pub requests: usize,
    /// The backend is killed before this one, counted from 0.
    pub kill_after: usize,
    pub concurrency: usize,
    /// What a client waits for between an answer and its next request.
    pub pause: Duration,
    pub called: Called,
}

/// What came of one variant.
#[derive(Debug)]
struct Found {
    name: &'static str,
    figures: Figures,
    attempts: u64,
    victim: Victim,
}

/// What became of the requests for the dead backend.
#[derive(Clone, Copy, Debug, Default)]
struct Victim {
    killed_at: Duration,
    attempts_before: u64,
    attempts: u64,
    /// When weir's count of its attempts last grew after its end, seen by a look every [`LOOK`].
    last: Option<Duration>,
}

impl CircuitBreaker {
    /// Runs all variants, one after the other.
    pub fn run(&self, stop: &Stop) -> Result<Report, Error> {
        let found = VARIANTS
            .iter()
            .map(|(name, configuration, alone)| {
                let alone = if *alone { ALONE } else { "" };
                self.one(name, &format!("{alone}{configuration}"), stop)
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Report {
            text: self.text(&found),
            json: self.json(&found),
        })
    }

    fn one(&self, name: &'static str, configuration: &str, stop: &Stop) -> Result<Found, Error> {
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
        let victim_process = Mutex::new(stand.backends.swap_remove(VICTIM));
        let killed: Mutex<Option<Result<(Instant, u64), Error>>> = Mutex::new(None);
        let before = |number: usize| {
            if number == self.kill_after {
                let count = stand.counts().selections_of(BACKENDS[VICTIM]);
                victim_process
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .kill();
                *killed.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(count.map(|count| (Instant::now(), count)));
            }
        };
        let (samples, (start, grown)) = load(&plan, stop, &before, |start, progress| {
            (start, watch(&mut counts, start, progress))
        });
        stop.check()?;
        let killed = killed.into_inner().unwrap_or_else(PoisonError::into_inner);
        // Without a kill all requests were before it.
        let (killed_at, attempts_before) = match killed {
            Some(killed) => killed?,
            None => (Instant::now(), counts.selections_of(BACKENDS[VICTIM])?),
        };
        let attempts = counts.selections()?;
        let killed_at = killed_at - start;
        let of_victim = attempts.iter().find(|(name, _)| name == BACKENDS[VICTIM]);
        let victim = Victim {
            killed_at,
            attempts_before,
            attempts: of_victim.map_or(0, |(_, count)| *count),
            last: grown.filter(|at| *at > killed_at),
        };
        Ok(Found {
            name,
            figures: Figures::of(&samples),
            attempts: attempts.iter().map(|(_, count)| count).sum(),
            victim: victim.judged(&samples),
        })
    }

    fn text(&self, found: &[Found]) -> String {
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
        let head = [
            "weir with",
            "success",
            "failed",
            "attempts",
            "p50",
            "p99",
            "max",
            "attempts at the dead one",
            "its last after",
        ];
        let failures: String = found
            .iter()
            .flat_map(|found| {
                let of =
                    move |(how, count): (&String, &usize)| format!("- {}: {count} × {how}\n", found.name);
                found.figures.failures.iter().map(of)
            })
            .collect();
        let failures = if failures.is_empty() {
            "- none\n".to_owned()
        } else {
            failures
        };
        format!(
            "# A backend is killed\n\n`{}`, weir {}.\n\n\
             {} requests (GET) by {} client{} with a pause of {} ms between them, round robin over {} backends, \
             each a process of its own. {} is killed (SIGKILL) before request {}. In all rows but the last, health \
             checks and ejection are off, so that only the circuit breaker and retries are seen; the last one is weir \
             without any configuration but addresses.\n\n{}\n\
             *Attempts* are all that weir made at backends, *its last after* is the time from the kill until the last \
             attempt at the dead backend, by weir's own count (to {} ms).\n\n## Failures\n\n{failures}",
            self.called.command,
            self.called.version,
            self.requests,
            self.concurrency,
            if self.concurrency == 1 { "" } else { "s" },
            self.pause.as_millis(),
            BACKENDS.len(),
            BACKENDS[VICTIM],
            self.kill_after,
            table(&head, &rows),
            LOOK.as_millis(),
        )
    }

    fn json(&self, found: &[Found]) -> Value {
        let variants: Vec<Value> = found
            .iter()
            .map(|found| {
                let mut json = found.figures.json();
                json["variant"] = found.name.into();
                json["attempts"] = found.attempts.into();
                json["attempts_per_request"] = ratio(found.attempts as usize, found.figures.requests).into();
                json["dead_backend"] = json!({
                    "killed_at_ms": milliseconds(found.victim.killed_at),
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

impl Victim {
    fn attempts_after(&self) -> u64 {
        self.attempts.saturating_sub(self.attempts_before)
    }

    fn last_after(&self) -> Option<Duration> {
        self.last.map(|last| last - self.killed_at)
    }

    /// Growth that was counted before the kill and seen behind it is none.
    fn judged(mut self, samples: &[Sample]) -> Victim {
        if self.attempts_after() == 0 {
            self.last = None;
        } else if self.last.is_none() {
            // All of it came after the last look.
            self.last = samples.last().map(|sample| sample.at.max(self.killed_at));
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

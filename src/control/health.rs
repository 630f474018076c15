//! The health thread as this process has it: what it probes, and what it does at each tick.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::outlier::{Sample, SilenceWatch};
use crate::clock::Millis;
use crate::health::verdict::Verdict;
use crate::health::{self, HealthHandle, Plan, ProbeTarget, Target};
use crate::metrics::Tally;
use crate::snapshot::{Published, Snapshot};

/// Between two looks at what the traffic of the last interval showed.
const JUDGE_INTERVAL: Duration = Duration::from_secs(1);

impl Target for Snapshot {
    fn probe_verdict(&self, index: usize, verdict: Verdict, now: Millis) {
        self.pool.probe(index, verdict, now);
    }
}

/// All backends of `snapshot`, as the health thread wants them.
pub fn plan(snapshot: &Arc<Snapshot>) -> Plan {
    let targets = snapshot.pool.backends.iter().enumerate();
    let targets = targets.map(|(index, backend)| ProbeTarget {
        backend: backend.clone(),
        pool: snapshot.clone(),
        index,
    });
    Plan::new(&snapshot.config, targets.collect())
}

/// Starts the thread.
///
/// # Errors
/// The system refuses a thread or an eventfd.
pub fn start(published: &Arc<Published>) -> io::Result<HealthHandle> {
    let snapshot = published.current();
    let driver = snapshot.config.runtime.driver;
    let mut judge = Judge::new(snapshot.clone());
    let published = published.clone();
    health::start(
        plan(&snapshot),
        driver,
        Box::new(move |now| judge.tick(&published, now)),
    )
}

/// What the ticks remember of a snapshot's backends.
struct Judge {
    snapshot: Arc<Snapshot>,
    /// When the traffic was last judged, and what had been counted by then.
    judged: Option<Millis>,
    before: Vec<Tally>,
    silence: SilenceWatch,
}

impl Judge {
    fn new(snapshot: Arc<Snapshot>) -> Self {
        Judge {
            snapshot,
            judged: None,
            before: Vec::new(),
            silence: SilenceWatch::default(),
        }
    }

    fn tick(&mut self, published: &Published, now: Millis) {
        let current = published.current();
        if !Arc::ptr_eq(&current, &self.snapshot) {
            *self = Judge::new(current);
        }
        let pool = &self.snapshot.pool;
        pool.tick(now);
        let tallies: Vec<Tally> = pool
            .backends
            .iter()
            .map(|backend| backend.counts.tally())
            .collect();
        let answers: Vec<u64> = tallies
            .iter()
            .map(|tally| tally.attempts - tally.silent)
            .collect();
        pool.balance
            .listen_for_silence(&mut self.silence, &answers, now, &mut |event| pool.log(event));
        if self.judged.is_some_and(|judged| now - judged < JUDGE_INTERVAL) {
            return;
        }
        if self.judged.replace(now).is_some() {
            let samples = tallies
                .iter()
                .zip(&self.before)
                .map(|(now, before)| Some(sample(now, before)))
                .collect();
            pool.balance.judge(samples, now, &mut |event| pool.log(event));
        }
        self.before = tallies;
    }
}

fn sample(now: &Tally, before: &Tally) -> Sample {
    let attempts = now.attempts - before.attempts;
    Sample {
        attempts,
        failures: now.failed - before.failed,
        answers: attempts,
        response_time: Duration::from_micros(now.micros - before.micros),
    }
}

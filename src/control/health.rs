//! Starting the health thread for a snapshot.

use std::io;
use std::sync::Arc;

use crate::clock::Millis;
use crate::health::verdict::Verdict;
use crate::health::{self, HealthHandle, Plan, ProbeTarget, Target};
use crate::snapshot::Snapshot;

impl Target for Snapshot {
    fn probe_verdict(&self, index: usize, verdict: Verdict, _now: Millis) {
        let balance = &self.pool.balance;
        let in_service = balance
            .members()
            .get(index)
            .is_some_and(|member| member.weight > 0);
        balance
            .eligible()
            .set(index, in_service && verdict == Verdict::Up);
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
pub fn start(snapshot: &Arc<Snapshot>) -> io::Result<HealthHandle> {
    let driver = snapshot.config.runtime.driver;
    health::start(plan(snapshot), driver, Box::new(|_| {}))
}

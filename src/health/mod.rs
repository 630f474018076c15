//! The health thread: probes every backend over connections of its own, says what it finds, and gives the pools their
//! tick.
//!
//! It has a thread and a runtime to itself, so that a probe never waits behind traffic. [`start`] starts it; the control
//! thread holds its [`HealthHandle`]. Verdicts go out through [`Target`], which stores them where workers look. Workers
//! ask for a probe at once by [`ask_probe`](crate::balance::shared::Shared::ask_probe) and [`WakeHandle::wake`].
//!
//! [`verdict`] and [`schedule`] decide and know neither sockets nor clocks; [`probe`] is one probe's I/O; [`checker`] is
//! the loop that joins them.

pub mod checker;
pub mod probe;
pub mod schedule;
pub mod verdict;

#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Millis;
use crate::config::Config;
use crate::config::model::{DriverChoice, HealthStart};
use crate::server::driver::{Runtime, climb};
use crate::server::wake::{WakeHandle, WakeReceiver, wake_pair};
use crate::upstream::backend::Backend;
use checker::Checker;
use probe::Check;
use schedule::Pace;
use verdict::{Rules, Verdict};

/// How often the tick is called.
pub const TICK: Duration = Duration::from_millis(50);
/// Submission queue entries of the thread's ring.
const RING_ENTRIES: u32 = 256;

/// Where verdicts go: one pool, in which a backend is known by its position.
pub trait Target: Send + Sync {
    /// Called on the health thread: at the start and after a [`HealthHandle::replace`] once for whoever has a verdict,
    /// when one changes, and after every probe that was asked for (whoever asked may have acted already). So the same
    /// verdict may come again; only one that is another than the last is a change.
    fn probe_verdict(&self, index: usize, verdict: Verdict, now: Millis);
}

/// One backend to probe.
#[derive(Clone)]
pub struct ProbeTarget {
    /// Who stays, over a [`HealthHandle::replace`], is the same `Arc`.
    pub backend: Arc<Backend>,
    pub pool: Arc<dyn Target>,
    /// Its position in the pool.
    pub index: usize,
}

/// Whom to probe, and how.
pub struct Plan {
    check: Check,
    rules: Rules,
    pace: Pace,
    start: HealthStart,
    targets: Vec<ProbeTarget>,
}

impl Plan {
    pub fn new(config: &Config, targets: Vec<ProbeTarget>) -> Self {
        let check = &config.health_check;
        Plan {
            check: Check::new(config),
            rules: Rules {
                rise: check.rise,
                fall: check.fall,
            },
            pace: Pace {
                interval: check.interval,
                fast: check.fast_interval.unwrap_or(check.interval / 4),
            },
            start: check.start,
            targets,
        }
    }
}

/// What the control thread wants of the health thread.
#[derive(Default)]
struct Inbox {
    /// The newest plan and its number.
    plan: Option<(u64, Plan)>,
    stop: bool,
}

/// The control thread's end. Stops the thread, and waits for it, when dropped.
pub struct HealthHandle {
    inbox: Arc<Mutex<Inbox>>,
    wake: Arc<WakeHandle>,
    rounds: watch::Receiver<Rounds>,
    plans: u64,
    thread: Option<JoinHandle<()>>,
}

/// The number of the last plan whose first round is over; or why the thread has ended.
type Rounds = Result<u64, String>;

/// Everything that the thread takes with it.
struct Setup {
    plan: Plan,
    driver: DriverChoice,
    inbox: Arc<Mutex<Inbox>>,
    wake: WakeReceiver,
    rounds: watch::Sender<Rounds>,
    tick: Box<dyn FnMut(Millis) + Send>,
}

/// Starts the thread. `tick` is called there every [`TICK`], also when nothing is probed.
///
/// # Errors
/// The system refuses a thread or an eventfd. A driver that is refused ends the thread, which
/// [`HealthHandle::first_round`] says.
pub fn start(
    plan: Plan,
    driver: DriverChoice,
    tick: Box<dyn FnMut(Millis) + Send>,
) -> io::Result<HealthHandle> {
    let (handle, receiver) = wake_pair()?;
    let (sender, rounds) = watch::channel(Ok(0));
    let inbox = Arc::new(Mutex::new(Inbox::default()));
    let setup = Setup {
        plan,
        driver,
        inbox: inbox.clone(),
        wake: receiver,
        rounds: sender.clone(),
        tick,
    };
    let thread = thread::Builder::new()
        .name("weir-health".to_owned())
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| run(setup)))
                .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")));
            if let Err(error) = result {
                tracing::error!(%error, "the health thread ended; what it said last stays");
                // The control thread may have gone as well.
                let _ = sender.send(Err(error.to_string()));
            }
        })?;
    Ok(HealthHandle {
        inbox,
        wake: Arc::new(handle),
        rounds,
        plans: 1,
        thread: Some(thread),
    })
}

/// The thread, from its first to its last line.
fn run(setup: Setup) -> io::Result<()> {
    let mut climbed = climb(setup.driver, |step| Runtime::build(step, RING_ENTRIES))?;
    let nonblocking = !climbed.step.is_ring();
    climbed.runtime.block_on(async move {
        let wake = setup.wake.into_stream()?;
        let checker = Checker::new(setup.plan, setup.rounds, nonblocking);
        checker.run(wake, &setup.inbox, setup.tick).await
    })
}

impl HealthHandle {
    /// What wakes the thread, for workers that asked for a probe.
    pub fn waker(&self) -> Arc<WakeHandle> {
        self.wake.clone()
    }

    /// From now on this plan. Who stays keeps verdict, counts and place in the schedule; who is new is probed at once;
    /// what is still to come of who is gone is ignored.
    pub fn replace(&mut self, plan: Plan) {
        self.plans += 1;
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).plan = Some((self.plans, plan));
        self.wake.wake();
    }

    /// Waits until everybody in the last plan has a first result, under `start = "check"`; no longer than one time-out.
    ///
    /// # Errors
    /// The thread has ended, with the reason.
    pub async fn first_round(&mut self) -> io::Result<()> {
        let wanted = self.plans;
        let over = |rounds: &Rounds| rounds.as_ref().map_or(true, |over| *over >= wanted);
        match self.rounds.wait_for(over).await.as_deref() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(io::Error::other(format!("health thread: {error}"))),
            Err(_) => Err(io::Error::other("the health thread ended")),
        }
    }
}

impl Drop for HealthHandle {
    fn drop(&mut self) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            // Whatever ended it, it has said so.
            let _ = thread.join();
        }
    }
}

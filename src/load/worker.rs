//! The threads of a run, and what their connections share.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::tally::{Sample, Tally};
use super::{End, Plan, connection};
use crate::buffer;
use crate::clock::{self, Moment, Span};
use crate::config::model::{DriverChoice, Upstream};
use crate::server::driver::{Runtime, climb};
use crate::wire::Wires;

/// Entries of each worker's submission queue.
const RING_ENTRIES: u32 = 1024;
/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(50);
/// How often counts are handed in.
const HAND_IN: Duration = Duration::from_millis(250);
/// Rows that are handed on at once.
const ROWS: usize = 1024;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) plan: Plan,
    pub(super) began: Moment,
    /// The id of the next request.
    next: AtomicU64,
    stop: AtomicBool,
}

impl Common {
    /// The id of one more request; none: there is none.
    pub(super) fn next_id(&self) -> Option<u64> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        match self.plan.end {
            End::After(time) => {
                let over = Duration::from(self.began.elapsed()) >= time;
                (!over).then(|| self.next.fetch_add(1, Ordering::Relaxed))
            }
            End::Requests(max) => {
                let id = self.next.fetch_add(1, Ordering::Relaxed);
                (id < max).then_some(id)
            }
        }
    }

    /// When everything has to be over: no new request, and no wait for one.
    pub(super) fn ends_at(&self) -> Option<Span> {
        match self.plan.end {
            End::After(time) => Some(Span(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))),
            End::Requests(_) => None,
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One worker, as its connections see it.
pub(super) struct Local {
    pub(super) common: Arc<Common>,
    pub(super) wires: Rc<Wires>,
    pub(super) tally: RefCell<Tally>,
    pub(super) settings: Upstream,
    pub(super) nonblocking: bool,
    rows: RefCell<Vec<Sample>>,
    sender: Option<SyncSender<Vec<Sample>>>,
    running: Cell<usize>,
}

impl Local {
    pub(super) fn wants_rows(&self) -> bool {
        self.sender.is_some()
    }

    /// Keeps a row; waits where whoever writes them is slower.
    pub(super) fn row(&self, sample: Sample) {
        let mut rows = self.rows.borrow_mut();
        rows.push(sample);
        if rows.len() >= ROWS
            && let Some(sender) = &self.sender
        {
            let full = std::mem::replace(&mut *rows, Vec::with_capacity(ROWS));
            // Whoever is gone has said why.
            let _ = sender.send(full);
        }
    }
}

/// Running workers.
pub(super) struct Crew {
    common: Arc<Common>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Crew {
    pub(super) fn stop(&self) {
        self.common.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn join(self) -> io::Result<()> {
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| io::Error::other("a worker of the load tester panicked"))??;
        }
        Ok(())
    }
}

/// Starts the workers; each hands its counts to `tallies` and drops it at its end.
pub(super) fn start(
    plan: &Plan,
    tallies: Sender<Tally>,
    rows: Option<SyncSender<Vec<Sample>>>,
) -> io::Result<Crew> {
    let common = Arc::new(Common {
        plan: plan.clone(),
        began: Moment::now(),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let threads = (0..plan.workers).map(|worker| {
        let (common, tallies, rows) = (common.clone(), tallies.clone(), rows.clone());
        thread::Builder::new()
            .name(format!("weir-load-{worker}"))
            .spawn(move || run(worker, common, &tallies, rows))
    });
    let threads = threads.collect::<io::Result<Vec<_>>>()?;
    Ok(Crew { common, threads })
}

fn run(
    worker: usize,
    common: Arc<Common>,
    tallies: &Sender<Tally>,
    rows: Option<SyncSender<Vec<Sample>>>,
) -> io::Result<()> {
    if let Some(&core) = common.plan.cores.get(worker)
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        return Err(io::Error::other(format!(
            "cannot pin worker {worker} to core {core}"
        )));
    }
    let mut climbed = climb(DriverChoice::Auto, |step| Runtime::build(step, RING_ENTRIES))?;
    let local = Rc::new(Local {
        wires: Rc::default(),
        tally: RefCell::default(),
        settings: Upstream::default(),
        nonblocking: !climbed.step.is_ring(),
        rows: RefCell::default(),
        sender: rows,
        running: Cell::new(0),
        common,
    });
    buffer::set_budget(usize::MAX);
    climbed.runtime.block_on(async {
        let plan = &local.common.plan;
        for number in (worker..plan.connections).step_by(plan.workers) {
            local.running.set(local.running.get() + 1);
            let local = local.clone();
            monoio::spawn(async move {
                connection::run(&local, number).await;
                local.running.set(local.running.get() - 1);
            });
        }
        let mut handed_in = Moment::now();
        while local.running.get() > 0 {
            monoio::time::sleep(SWEEP).await;
            local.wires.sweep(clock::now());
            if Duration::from(handed_in.elapsed()) >= HAND_IN {
                handed_in = Moment::now();
                let _ = tallies.send(local.tally.borrow_mut().take());
            }
        }
    });
    let _ = tallies.send(local.tally.borrow_mut().take());
    let rest = local.rows.take();
    if let (Some(sender), false) = (&local.sender, rest.is_empty()) {
        let _ = sender.send(rest);
    }
    Ok(())
}

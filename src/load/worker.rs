//! The threads of a run, and what their connections share.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::pacer::Pacer;
use super::tally::{Names, Sample, Tally};
use super::{End, Plan, connection};
use crate::buffer;
use crate::clock::{self, Moment, Span};
use crate::config::model::{DriverChoice, Upstream};
use crate::proxy::join;
use crate::server::driver::{Runtime, climb};
use crate::wire::Wires;

/// Entries of each worker's submission queue.
const RING_ENTRIES: u32 = 1024;
/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(50);
/// How often counts are handed in.
const HAND_IN: Span = Span::from_millis(1_000);
/// Rows that are handed on at once.
const ROWS: usize = 1024;
/// How long after its start a run begins: until then every worker has its runtime.
const HEAD_START: Span = Span::from_millis(20);
/// How long a request may still take once the run was stopped.
const STOP_GRACE: Span = Span::from_millis(1_000);
/// Bytes of large buffers that a worker may hold.
const LARGE_BYTES: usize = 64 * 1024 * 1024;

/// What all workers share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) plan: Plan,
    pub(super) began: Moment,
    /// The id of the next request.
    next: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl Common {
    /// The id of one more request, asked for at `now`; none: there is none.
    pub(super) fn next_id(&self, now: Moment) -> Option<u64> {
        if self.stopped() {
            return None;
        }
        match self.plan.end {
            End::After(_) => {
                let over = now - self.began >= self.ends_at();
                (!over).then(|| self.next.fetch_add(1, Ordering::Relaxed))
            }
            End::Requests(max) => {
                let id = self.next.fetch_add(1, Ordering::Relaxed);
                (id < max).then_some(id)
            }
        }
    }

    /// When no further request is due, after the beginning.
    pub(super) fn ends_at(&self) -> Span {
        match self.plan.end {
            End::After(time) => Span(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
            End::Requests(_) => Span(u64::MAX),
        }
    }

    /// Whether time ends the run, so that what was due and not sent by then is a finding.
    pub(super) fn counts_time(&self) -> bool {
        matches!(self.plan.end, End::After(_))
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// One worker, as its connections see it.
pub(super) struct Local {
    pub(super) common: Arc<Common>,
    pub(super) wires: Rc<Wires>,
    pub(super) pacer: Pacer,
    pub(super) tally: RefCell<Tally>,
    pub(super) names: RefCell<Names>,
    pub(super) settings: Upstream,
    pub(super) nonblocking: bool,
    rows: RefCell<Vec<Sample>>,
    sender: Option<SyncSender<Vec<Sample>>>,
    last_answer: Cell<Moment>,
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

    /// Notes that a request was over then.
    pub(super) fn answered_at(&self, moment: Moment) {
        self.last_answer.set(moment);
    }

    fn hand_in(&self, to: &Sender<HandIn>, until: Span) {
        let tally = self.tally.borrow_mut().take(&self.names.borrow());
        // Nobody is there any more only where the run has failed.
        let _ = to.send(HandIn {
            until,
            last_answer: self.last_answer.get() - self.common.began,
            tally,
        });
    }
}

/// What a worker counted since it last handed in.
#[derive(Debug)]
pub(super) struct HandIn {
    /// Both after the beginning; the last one of a worker ends with its last answer.
    pub(super) until: Span,
    pub(super) last_answer: Span,
    pub(super) tally: Tally,
}

/// Running workers.
pub(super) struct Crew {
    /// One for each worker: a tally for each second, and one at the end.
    pub(super) tallies: Vec<Receiver<HandIn>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Crew {
    pub(super) fn join(self) -> io::Result<()> {
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| io::Error::other("a worker of the load tester panicked"))??;
        }
        Ok(())
    }
}

/// Starts the workers.
pub(super) fn start(
    plan: &Plan,
    rows: Option<&SyncSender<Vec<Sample>>>,
    stop: &Arc<AtomicBool>,
) -> io::Result<Crew> {
    let common = Arc::new(Common {
        plan: plan.clone(),
        began: Moment::now().after(HEAD_START),
        next: AtomicU64::new(0),
        stop: stop.clone(),
    });
    let mut crew = Crew {
        tallies: Vec::new(),
        threads: Vec::new(),
    };
    for worker in 0..plan.workers {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (common, rows) = (common.clone(), rows.cloned());
        let thread = thread::Builder::new().name(format!("weir-load-{worker}"));
        crew.threads
            .push(thread.spawn(move || run(worker, common, &sender, rows))?);
        crew.tallies.push(receiver);
    }
    Ok(crew)
}

fn run(
    worker: usize,
    common: Arc<Common>,
    tallies: &Sender<HandIn>,
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
    let numbers: Vec<usize> = (worker..common.plan.connections)
        .step_by(common.plan.workers)
        .collect();
    buffer::set_budget(numbers.len() * buffer::SMALL + LARGE_BYTES);
    let nonblocking = !climbed.step.is_ring();
    let local = climbed.runtime.block_on(async {
        let local = Rc::new(Local {
            wires: Rc::default(),
            pacer: Pacer::new()?,
            tally: RefCell::new(Tally::new(common.plan.targets.len())),
            names: RefCell::default(),
            settings: Upstream::default(),
            nonblocking,
            rows: RefCell::default(),
            sender: rows,
            last_answer: Cell::new(common.began),
            running: Cell::new(numbers.len()),
            common,
        });
        for number in numbers {
            let local = local.clone();
            monoio::spawn(async move {
                connection::run(&local, number).await;
                local.running.set(local.running.get() - 1);
            });
        }
        let overseen = oversee(&local, tallies);
        let (paced, _) = join::until_second(local.pacer.run(), overseen, |_| true).await;
        paced.unwrap_or(Ok(()))?;
        io::Result::Ok(local)
    })?;
    local.hand_in(tallies, local.last_answer.get() - local.common.began);
    let rest = local.rows.take();
    if let (Some(sender), false) = (&local.sender, rest.is_empty()) {
        let _ = sender.send(rest);
    }
    Ok(())
}

/// Ends what is overdue and hands in counts, until the last connection is done or a stopped run has had its grace.
async fn oversee(local: &Local, tallies: &Sender<HandIn>) {
    let mut next = HAND_IN;
    let mut stopped: Option<Moment> = None;
    while local.running.get() > 0 {
        monoio::time::sleep(SWEEP).await;
        local.wires.sweep(clock::now());
        let now = Moment::now();
        // One for each second, also for those that a slow writer of rows took.
        while now - local.common.began >= next {
            local.hand_in(tallies, now - local.common.began);
            next += HAND_IN;
        }
        if local.common.stopped() {
            local.pacer.wake_all();
            if now - *stopped.get_or_insert(now) >= STOP_GRACE {
                return;
            }
        }
    }
}

//! What all exchanges of one worker share: the snapshot they serve by, the shard they count in, the wires, the backend
//! connections, and the tables they borrow. One thread only; `server` makes one for each worker.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::access_log::{self, AccessLog};
use crate::balance::pick::Local;
use crate::exchanges::Kept;
use crate::limits::admission::Admission;
use crate::limits::connections::ConnectionTable;
use crate::limits::queue::{Queue, QueueShared};
use crate::metrics::Shard;
use crate::metrics::exemplar::Exemplar;
use crate::proxy::tables::HeadTables;
use crate::record::{Finished, Outcome};
use crate::server::wake::WakeHandle;
use crate::snapshot::{Published, View};
use crate::sys;
use crate::trace::Traced;
use crate::trace::spans::Spans;
use crate::upstream::backend::Backend;
use crate::upstream::pool::Upstream;
use crate::wire::Wires;

/// Who is told of exchanges that are over, besides the metrics.
#[derive(Clone, Debug, Default)]
pub struct Observers {
    /// None: off.
    pub access_log: Option<Arc<AccessLog>>,
    /// None: none is kept.
    pub kept: Option<Arc<Kept>>,
    /// None: off.
    pub spans: Option<Arc<Spans>>,
}

/// What all workers share.
pub struct Common {
    pub published: Arc<Published>,
    /// Exchanges that wait for a slot of a backend.
    pub queue: Arc<QueueShared>,
    /// Connections by client; none: no limit.
    pub connections: Option<Arc<ConnectionTable>>,
    /// By worker.
    pub wakes: Box<[WakeHandle]>,
    /// Who is told of exchanges that are over.
    pub observers: Observers,
    /// What rate limits count time from.
    pub began: Instant,
}

/// One worker, as its exchanges see it.
pub struct Context {
    common: Arc<Common>,
    view: RefCell<Rc<View>>,
    /// How many workers there are.
    workers: usize,
    pub shard: Arc<Shard>,
    pub wires: Rc<Wires>,
    pub upstream: Upstream,
    pub heads: HeadTables,
    pub local: RefCell<Local>,
    /// This worker's line of those who wait for a slot.
    pub queue: Queue,
    pub admission: RefCell<Option<Admission>>,
    access_log: Option<access_log::Handle>,
    closing: Cell<bool>,
    scratch: RefCell<Vec<u8>>,
}

impl Context {
    /// The context of the worker of `shard`, one of `workers`.
    pub fn new(
        common: Arc<Common>,
        shard: Arc<Shard>,
        wires: Rc<Wires>,
        upstream: Upstream,
        workers: usize,
    ) -> Self {
        let view = Rc::new(common.published.view());
        let retry = &view.config.retry;
        let local = Local::new(fastrand::u64(..)).with_budget(retry.budget, retry.min_per_second, workers);
        let (waker, number) = (common.clone(), shard.number());
        let wake = move |worker: usize| {
            if let Some(handle) = waker.wakes.get(worker) {
                handle.wake();
            }
        };
        let admission = Admission::new(&view.config.admission);
        Context {
            queue: Queue::new(common.queue.clone(), number, wake),
            admission: RefCell::new(admission),
            access_log: common
                .observers
                .access_log
                .as_ref()
                .and_then(|log| access_log::Handle::new(log, number)),
            common,
            view: RefCell::new(view),
            workers,
            shard,
            wires,
            upstream,
            heads: HeadTables::default(),
            local: RefCell::new(local),
            closing: Cell::new(false),
            scratch: RefCell::default(),
        }
    }

    /// What is shared with the other workers.
    pub fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// The snapshot in force, for one exchange; asks whether there is a newer one.
    #[inline]
    pub fn view(&self) -> Rc<View> {
        let newer = self.view.borrow().newer(&self.common.published);
        if let Some(newer) = newer {
            self.change_view(newer);
        }
        self.view.borrow().clone()
    }

    #[cold]
    fn change_view(&self, newer: Rc<View>) {
        let retry = &newer.config.retry;
        let mut local = self.local.borrow_mut();
        local.forget_positions();
        local.set_budget(retry.budget, retry.min_per_second, self.workers);
        drop(local);
        self.common.queue.set_max(newer.config.limits.queue);
        self.admission.replace(Admission::new(&newer.config.admission));
        let max_idle = share(newer.config.upstream.max_idle, self.shard.number(), self.workers);
        self.upstream.set_max_idle(max_idle);
        // Connections to who is gone have nobody to serve any more.
        let stays = |backend: &Arc<Backend>| {
            newer
                .pool
                .backends
                .iter()
                .chain(&newer.internal)
                .any(|other| Arc::ptr_eq(other, backend))
        };
        self.upstream.close_idle(|backend| !stays(backend));
        self.view.replace(newer);
    }

    /// Whether every answer from now on is the last of its connection.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// From now on every answer is the last of its connection.
    pub fn close(&self) {
        self.closing.set(true);
    }

    /// Tells of an exchange that is over.
    pub fn tell(&self, finished: &Finished<'_>, view: &View) {
        let record = finished.record;
        if let Some(deciding) = record.deciding()
            && matches!(deciding.outcome, Outcome::Status(_))
            && let Some(backend) = finished.backend_of(deciding)
        {
            self.shard.phases(&backend.counts, &record.phases(deciding));
        }
        if record.logged
            && let (Some(log), Some(settings)) = (&self.access_log, &view.access_log)
        {
            log.tell(finished, settings);
        }
        if let Some(traced) = record.trace.filter(|traced| traced.context.sampled) {
            self.tell_traced(finished, view, traced);
        }
        if let Some(kept) = &self.common.observers.kept {
            kept.tell(finished, view.slow, &view.redaction);
        }
    }

    /// A sampled exchange has spans, and is an example of its latency.
    #[cold]
    fn tell_traced(&self, finished: &Finished<'_>, view: &View, traced: Traced) {
        if let Some(spans) = &self.common.observers.spans {
            spans.tell(finished, &view.redaction);
        }
        let Some(deciding) = finished.record.deciding() else {
            return;
        };
        if let (Outcome::Status(_), Some(backend)) = (deciding.outcome, finished.backend_of(deciding)) {
            let exemplar = Exemplar {
                trace_id: traced.context.trace_id,
                elapsed_ns: deciding.took.as_nanos(),
                unix_millis: sys::coarse_unix_millis(),
            };
            self.shard.exemplar(&backend.counts, &exemplar);
        }
    }

    /// Lets `write` fill an empty vector that the worker keeps for this purpose.
    pub fn rewrite_into_scratch(&self, write: impl FnOnce(&mut Vec<u8>)) -> Scratch<'_> {
        let mut bytes = self.scratch.take();
        bytes.clear();
        write(&mut bytes);
        Scratch {
            bytes,
            home: &self.scratch,
        }
    }
}

/// What worker number `worker` gets of `total` things that `workers` workers share.
pub fn share(total: usize, worker: usize, workers: usize) -> usize {
    let workers = workers.max(1);
    total / workers + usize::from(worker < total % workers)
}

/// Bytes in a vector that goes back to its worker.
pub struct Scratch<'a> {
    bytes: Vec<u8>,
    home: &'a RefCell<Vec<u8>>,
}

impl Deref for Scratch<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        self.home.replace(std::mem::take(&mut self.bytes));
    }
}

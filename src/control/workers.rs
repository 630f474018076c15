//! Starting the workers' threads: how many, on which cores, with what share of everything.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::config::Config;
use crate::config::model::Runtime as RuntimeSettings;
use crate::limits::Secret;
use crate::limits::connections::ConnectionTable;
use crate::limits::queue::QueueShared;
use crate::metrics::Shard;
use crate::profile::rings::noticing;
use crate::proxy::context::{Common, Observers, share};
use crate::server::driver::{Runtime, climb};
use crate::server::lifecycle::Lifecycle;
use crate::server::listener::Listener;
use crate::server::wake::{WakeHandle, WakeReceiver, wake_pair};
use crate::server::worker::{Capacity, Worker, WorkerEnd};
use crate::snapshot::Published;

/// Descriptors that are neither clients nor backends: rings, eventfds, listeners, the admin API, files.
const DESCRIPTORS_KEPT: u64 = 64;
/// Of the rest, one in this many is kept back for backends.
const BACKEND_SHARE: u64 = 4;

/// The core of each worker; none: not pinned.
pub type Cores = Vec<Option<usize>>;

/// Which workers there will be.
///
/// # Errors
/// A configured core that this process may not use, in words.
pub fn cores(settings: &RuntimeSettings) -> Result<Cores, String> {
    let allowed: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .iter()
        .map(|core| core.id)
        .collect();
    if let Some(missing) = settings.cores.iter().find(|core| !allowed.contains(core)) {
        return Err(format!(
            "runtime.cores: core {missing} is not available to this process; available: {allowed:?}"
        ));
    }
    let candidates = if settings.cores.is_empty() {
        &allowed
    } else {
        &settings.cores
    };
    let workers = match (settings.workers, settings.cores.len()) {
        (0, 0) => default_workers(candidates.len()),
        (0, listed) => listed,
        (workers, _) => workers,
    };
    let pinned = settings.pin && !candidates.is_empty();
    Ok((0..workers)
        .map(|worker| pinned.then(|| candidates[worker % candidates.len()]))
        .collect())
}

/// One worker per CPU that the affinity mask and the cgroup's quota allow together (both are in what std counts).
fn default_workers(cores: usize) -> usize {
    let parallelism = thread::available_parallelism().map_or(1, usize::from);
    if cores == 0 {
        parallelism
    } else {
        parallelism.min(cores)
    }
}

/// How one worker ended.
#[derive(Debug)]
pub struct WorkerReport {
    pub worker: usize,
    pub result: io::Result<WorkerEnd>,
}

impl WorkerReport {
    pub fn error(&self) -> String {
        self.result
            .as_ref()
            .err()
            .map_or_else(|| "none".to_owned(), ToString::to_string)
    }
}

enum Message {
    Ready {
        worker: usize,
        driver: String,
        why: String,
    },
    Ended(WorkerReport),
}

/// A worker that serves.
#[derive(Clone, Debug)]
pub struct Member {
    pub worker: usize,
    pub core: Option<usize>,
    /// The driver in use, as people name it.
    pub driver: String,
    /// Why no better driver is in use; empty for the best.
    pub why: String,
}

/// All workers.
pub struct Crew {
    pub members: Vec<Member>,
    common: Arc<Common>,
    messages: mpsc::UnboundedReceiver<Message>,
    running: usize,
}

/// Everything that one worker's thread takes with it.
struct Setup {
    worker: usize,
    core: Option<usize>,
    common: Arc<Common>,
    lifecycle: Arc<Lifecycle>,
    shard: Arc<Shard>,
    listeners: Vec<Listener>,
    wake: WakeReceiver,
    capacity: Capacity,
}

/// Starts a thread for each worker.
///
/// # Errors
/// The system refuses a thread or an eventfd.
#[expect(
    clippy::too_many_arguments,
    reason = "all that workers share, and no struct would be used twice"
)]
pub fn start(
    published: &Arc<Published>,
    lifecycle: &Arc<Lifecycle>,
    shards: &[Arc<Shard>],
    cores: &[Option<usize>],
    listeners: Vec<Vec<Listener>>,
    open_files: u64,
    secret: Secret,
    observers: Observers,
) -> io::Result<Crew> {
    let (sender, messages) = mpsc::unbounded_channel();
    let config = published.current().config.clone();
    let pairs = cores
        .iter()
        .map(|_| wake_pair())
        .collect::<io::Result<Vec<_>>>()?;
    let (wakes, receivers): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let common = Arc::new(Common {
        published: published.clone(),
        queue: QueueShared::new(cores.len(), config.limits.queue),
        connections: config.limits.max_connections_per_ip.map(|max| {
            Arc::new(ConnectionTable::new(
                max,
                expected_clients(&config, open_files),
                secret,
            ))
        }),
        wakes: wakes.into(),
        observers,
        began: Instant::now(),
    });
    for (worker, ((listeners, shard), wake)) in listeners.into_iter().zip(shards).zip(receivers).enumerate() {
        let setup = Setup {
            worker,
            core: cores[worker],
            common: common.clone(),
            lifecycle: lifecycle.clone(),
            shard: shard.clone(),
            listeners,
            wake,
            capacity: capacity(&config, worker, cores.len(), open_files),
        };
        let sender = sender.clone();
        thread::Builder::new()
            .name(format!("weir-worker-{worker}"))
            .spawn(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(setup, &sender)))
                    .unwrap_or_else(|_| Err(io::Error::other("the worker's thread panicked")));
                // The control thread outlives the workers; without it there is nobody to tell.
                let _ = sender.send(Message::Ended(WorkerReport { worker, result }));
            })?;
    }
    let members = cores
        .iter()
        .enumerate()
        .map(|(worker, &core)| Member {
            worker,
            core,
            driver: String::new(),
            why: String::new(),
        })
        .collect();
    Ok(Crew {
        members,
        running: cores.len(),
        common,
        messages,
    })
}

/// Client connections that there may be at once.
fn expected_clients(config: &Config, open_files: u64) -> usize {
    let by_descriptors = usize::try_from(open_files).unwrap_or(usize::MAX);
    config
        .server
        .max_connections
        .unwrap_or(usize::MAX)
        .min(by_descriptors)
}

/// What one of `workers` workers may hold of what there is.
fn capacity(config: &Config, worker: usize, workers: usize, open_files: u64) -> Capacity {
    let descriptors = open_files.saturating_sub(DESCRIPTORS_KEPT);
    let for_clients = (descriptors - descriptors / BACKEND_SHARE).max(1);
    let buffer_memory = config
        .limits
        .buffer_memory
        .unwrap_or_else(|| crate::sys::usable_memory() / 2);
    Capacity {
        max_connections: config.server.max_connections.unwrap_or(usize::MAX),
        client_descriptors: usize::try_from(for_clients).unwrap_or(usize::MAX),
        buffer_bytes: usize::try_from(buffer_memory).unwrap_or(usize::MAX) / workers.max(1),
        max_idle: share(config.upstream.max_idle, worker, workers),
        workers,
    }
}

/// A worker's thread, from its first to its last line.
fn work(setup: Setup, messages: &mpsc::UnboundedSender<Message>) -> io::Result<WorkerEnd> {
    let Setup {
        worker,
        core,
        common,
        lifecycle,
        shard,
        listeners,
        wake,
        capacity,
    } = setup;
    if let Some(core) = core
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        return Err(io::Error::other(format!(
            "cannot pin worker {worker} to core {core}"
        )));
    }
    crate::log::register_worker(worker);
    shard.runs_here();
    let settings = common.published.current().config.runtime.clone();
    let (climbed, ring) = noticing(|| {
        climb(settings.driver, |step| {
            Runtime::build(step, settings.ring_entries)
        })
    });
    let mut climbed = climbed?;
    if let Some(ring) = ring.filter(|_| climbed.step.is_ring()) {
        shard.has_ring(ring);
    }
    let ready = Message::Ready {
        worker,
        driver: climbed.step.to_string(),
        why: climbed.why(),
    };
    let nonblocking = !climbed.step.is_ring();
    climbed.runtime.block_on(async move {
        let wake = wake.into_stream()?;
        let state = Worker::new(common, shard, lifecycle, capacity, nonblocking);
        // The control thread outlives the workers.
        state.run(listeners, wake, || drop(messages.send(ready))).await
    })
}

impl Crew {
    /// Waits until every worker accepts.
    ///
    /// # Errors
    /// The first worker that could not.
    pub async fn wait_until_ready(&mut self) -> io::Result<()> {
        let mut waiting = self.members.len();
        while waiting > 0 {
            match self.messages.recv().await {
                Some(Message::Ready { worker, driver, why }) => {
                    self.members[worker].driver = driver;
                    self.members[worker].why = why;
                    waiting -= 1;
                }
                Some(Message::Ended(report)) => {
                    self.running -= 1;
                    let error = report.error();
                    return Err(io::Error::other(format!("worker {}: {error}", report.worker)));
                }
                None => return Err(io::Error::other("the workers are gone")),
            }
        }
        Ok(())
    }

    /// Makes every worker look at the life cycle's stage.
    pub fn wake_all(&self) {
        self.common.wakes.iter().for_each(WakeHandle::wake);
    }

    /// Workers that have not ended.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Waits for the next worker to end.
    pub async fn next_end(&mut self) -> WorkerReport {
        loop {
            match self.messages.recv().await {
                Some(Message::Ended(report)) => {
                    self.running -= 1;
                    return report;
                }
                Some(Message::Ready { .. }) => {}
                // Every sender is gone, so every worker has reported and been counted.
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for total in [0, 1, 7, 256] {
            assert_eq!((0..3).map(|worker| share(total, worker, 3)).sum::<usize>(), total);
        }
    }

    #[test]
    fn cores_are_counted_named_and_checked() {
        let mut settings = RuntimeSettings::default();
        assert!(!cores(&settings).expect("the default").is_empty());
        settings.workers = 3;
        settings.pin = false;
        assert_eq!(cores(&settings).expect("unpinned workers"), [None; 3]);
        settings.cores = vec![9999];
        let error = cores(&settings).expect_err("no such core");
        assert!(error.contains("9999") && error.contains("available"), "{error}");
    }
}

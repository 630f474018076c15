//! One worker: what all connections of one thread share, and the loops that accept, sweep and stop.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use crate::buffer;
use crate::clock;
use crate::event::Event;
use crate::limits::connections::ConnectionSlot;
use crate::metrics::Shard;
use crate::proxy::context::{Common, Context};
use crate::proxy::{connection, join};
use crate::server::lifecycle::{Lifecycle, Stage};
use crate::server::listener::{Accepted, Listener};
use crate::server::wake::WakeStream;
use crate::transport::Peer;
use crate::upstream::pool::Upstream;
use crate::wire::{SWEEP_INTERVAL, Wires};

/// Connections accepted in one turn before the loop looks after the others.
const ACCEPT_BURST: usize = 64;
/// Pause after accept(2) failed for want of descriptors or memory: short at first, then longer.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Attempts to accept what waits at a closing listener while descriptors have run out.
const CLOSING_TRIES: u32 = 10;
/// Idle connections closed at once when descriptors run out.
const EVICT_BATCH: usize = 16;
/// How often a worker that waits for room, or for its last exchanges, looks again without being told.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Sweeps between two trims of the buffer pool.
const SWEEPS_PER_TRIM: u32 = 10;

/// What a worker may hold.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Client connections over all workers by configuration (`server.max_connections`): reached, accepting stops.
    pub max_connections: usize,
    /// Client connections over all workers by descriptors: reached, the longest idle one makes room.
    pub client_descriptors: usize,
    /// Bytes of this worker's buffers.
    pub buffer_bytes: usize,
    /// Idle connections per backend on this worker.
    pub max_idle: usize,
    /// Workers that share with this one.
    pub workers: usize,
}

/// The state of one worker, shared by its tasks.
pub struct Worker {
    context: Rc<Context>,
    lifecycle: Arc<Lifecycle>,
    capacity: Capacity,
    nonblocking: bool,
    clients: Cell<usize>,
    /// Rung when a client connection closes and when the worker begins to close.
    changed: Event,
}

/// What became of a worker's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerEnd {
    /// Client connections that were still open when the time was up.
    pub cut: usize,
}

impl Worker {
    /// `nonblocking` says how the driver of this thread's runtime wants sockets.
    pub fn new(
        common: Arc<Common>,
        shard: Arc<Shard>,
        lifecycle: Arc<Lifecycle>,
        capacity: Capacity,
        nonblocking: bool,
    ) -> Rc<Self> {
        buffer::set_budget(capacity.buffer_bytes);
        let wires = Rc::new(Wires::default());
        let upstream = Upstream::new(wires.clone(), shard.number(), capacity.max_idle, nonblocking);
        Rc::new(Worker {
            context: Rc::new(Context::new(common, shard, wires, upstream, capacity.workers)),
            lifecycle,
            capacity,
            nonblocking,
            clients: Cell::new(0),
            changed: Event::default(),
        })
    }

    /// Accepts and serves until told to stop, then until the last exchange is answered or the time is up.
    pub async fn run(
        self: Rc<Self>,
        listeners: Vec<Listener>,
        mut wake: WakeStream,
        ready: impl FnOnce(),
    ) -> io::Result<WorkerEnd> {
        let accepting = Rc::new(Cell::new(listeners.len()));
        for listener in listeners {
            let poll = ListenerPoll::new(&listener)?;
            let (worker, accepting) = (self.clone(), accepting.clone());
            monoio::spawn(async move {
                accept_until_closing(&worker, listener, poll).await;
                accepting.set(accepting.get() - 1);
                worker.changed.ring();
            });
        }
        monoio::spawn(sweep(self.clone()));
        ready();
        while self.lifecycle.stage() < Stage::Closing {
            wake.wait().await?;
            self.context.queue.serve();
        }
        self.context.close();
        self.changed.ring();
        self.changed.until(|| accepting.get() == 0).await;
        Ok(self.wait_for_clients().await)
    }

    /// Idle connections live `shutdown.idle_grace` more, exchanges up to `shutdown.timeout`.
    async fn wait_for_clients(&self) -> WorkerEnd {
        let view = self.context.view();
        let shutdown = &view.config.shutdown;
        let began = Instant::now();
        while self.clients.get() > 0 && began.elapsed() < shutdown.timeout {
            if began.elapsed() >= shutdown.idle_grace {
                self.context.wires.expire_idle();
            }
            // Nobody waits for wakes any more.
            self.context.queue.serve();
            monoio::time::sleep(POLL_INTERVAL).await;
        }
        self.context.upstream.close_idle(|_| true);
        WorkerEnd {
            cut: self.clients.get(),
        }
    }

    /// Waits until one more client connection may be open, or the worker closes.
    async fn wait_for_room(&self) {
        while !self.context.is_closing() {
            let clients = self.lifecycle.clients();
            if clients
                < self
                    .capacity
                    .max_connections
                    .min(self.capacity.client_descriptors)
            {
                return;
            }
            if clients < self.capacity.max_connections {
                self.context.wires.expire_longest_idle(EVICT_BATCH, clock::now());
            }
            let before = self.clients.get();
            let changed = self
                .changed
                .until(|| self.clients.get() < before || self.context.is_closing());
            // Another worker's connections count too, and their end rings no event here.
            let _ = monoio::time::timeout(POLL_INTERVAL, changed).await;
        }
    }

    /// A place among the connections of this client; none in it where nobody counts; an error: it has as many as it may.
    fn slot(&self, peer: Peer) -> Result<Option<ConnectionSlot>, ()> {
        match (&self.context.common().connections, peer) {
            (Some(table), Some(address)) => table.enter(address).map(Some).ok_or(()),
            _ => Ok(None),
        }
    }

    /// Starts serving one accepted connection.
    fn start(self: &Rc<Self>, accepted: Accepted, peer: Peer) {
        let Ok(slot) = self.slot(peer) else {
            self.context.shard.connection_refused();
            tracing::debug!(client = %connection::PeerName(peer), "limits.max_connections_per_ip: connection closed");
            return;
        };
        let transport = match accepted.into_transport(self.nonblocking) {
            Ok(transport) => transport,
            Err(error) => {
                self.context.shard.accept_error();
                tracing::warn!(%error, "an accepted connection could not be used");
                return;
            }
        };
        monoio::spawn(Served {
            connection: connection::serve(self.context.clone(), transport, peer),
            open: OpenClient::new(self.clone(), slot),
            peer,
        });
    }
}

/// Accepts from one listener; once the worker closes, takes what still waits and closes the listener.
async fn accept_until_closing(worker: &Rc<Worker>, listener: Listener, poll: ListenerPoll) {
    let closing = worker.changed.until(|| worker.context.is_closing());
    join::until_second(accept_loop(worker, &listener, &poll), closing, |()| true).await;
    let mut tries = 0;
    loop {
        match listener.accept() {
            Ok((accepted, peer)) => worker.start(accepted, peer),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Out of descriptors: whoever only keeps a connection warm makes room for whoever waits.
            Err(_) if tries < CLOSING_TRIES => {
                tries += 1;
                worker
                    .context
                    .wires
                    .expire_longest_idle(EVICT_BATCH, clock::now());
                monoio::time::sleep(ACCEPT_PAUSE_MIN).await;
            }
            Err(_) => break,
        }
    }
    listener.stop_listening();
}

async fn accept_loop(worker: &Rc<Worker>, listener: &Listener, poll: &ListenerPoll) {
    let mut pause = ACCEPT_PAUSE_MIN;
    loop {
        if poll.readable().await.is_err() {
            monoio::time::sleep(ACCEPT_PAUSE_MAX).await;
            continue;
        }
        // On epoll a listener with a full queue is readable at once, for as long as the flood lasts.
        join::yield_now().await;
        for _ in 0..ACCEPT_BURST {
            worker.wait_for_room().await;
            match listener.accept() {
                Ok((accepted, peer)) => {
                    pause = ACCEPT_PAUSE_MIN;
                    worker.start(accepted, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The client was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    worker.context.shard.accept_error();
                    tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "accept failed; pausing");
                    worker
                        .context
                        .wires
                        .expire_longest_idle(EVICT_BATCH, clock::now());
                    monoio::time::sleep(pause).await;
                    pause = (pause * 2).min(ACCEPT_PAUSE_MAX);
                    break;
                }
            }
        }
    }
}

/// Ends what is overdue, ten times a second, for as long as the worker runs.
async fn sweep(worker: Rc<Worker>) {
    let mut sweeps = 0;
    loop {
        monoio::time::sleep(SWEEP_INTERVAL).await;
        let now = clock::now();
        worker.context.wires.sweep(now);
        worker.context.queue.sweep(now);
        // Looks for a newer snapshot too, so that an idle worker lets go of the old one.
        let view = worker.context.view();
        worker.context.upstream.sweep(&view.config.upstream, now);
        drop(view);
        buffer::wake_waiting();
        worker.context.shard.set_buffer_bytes(buffer::bytes_in_use());
        sweeps += 1;
        if sweeps % SWEEPS_PER_TRIM == 0 {
            buffer::trim();
        }
    }
}

/// A listener's readiness in the worker's runtime, on a descriptor of its own.
enum ListenerPoll {
    Tcp(monoio::net::TcpListener),
    Unix(monoio::net::UnixListener),
}

impl ListenerPoll {
    fn new(listener: &Listener) -> io::Result<Self> {
        Ok(match listener.try_clone()? {
            Listener::Tcp(listener) => ListenerPoll::Tcp(monoio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener) => ListenerPoll::Unix(monoio::net::UnixListener::from_std(listener)?),
        })
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            ListenerPoll::Tcp(listener) => listener.readable(false).await,
            ListenerPoll::Unix(listener) => listener.readable(false).await,
        }
    }
}

/// Counts one client connection, on its worker and over all.
struct OpenClient(Rc<Worker>, Option<ConnectionSlot>);

impl OpenClient {
    fn new(worker: Rc<Worker>, slot: Option<ConnectionSlot>) -> Self {
        worker.clients.set(worker.clients.get() + 1);
        worker.lifecycle.client_opened();
        worker.context.shard.connection_opened();
        OpenClient(worker, slot)
    }
}

impl Drop for OpenClient {
    fn drop(&mut self) {
        self.1.take();
        self.0.clients.set(self.0.clients.get() - 1);
        self.0.lifecycle.client_closed();
        self.0.context.shard.connection_closed();
        self.0.changed.ring();
    }
}

/// A client connection as a task: a panic ends this connection and not the worker. Written by hand because an `async`
/// block would hold the connection's future twice.
struct Served<F> {
    connection: F,
    /// Dropped after the connection, so that it counts until it is closed.
    open: OpenClient,
    peer: Peer,
}

impl<F: Future<Output = ()>> Future for Served<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        // SAFETY: `connection` stays where it is until it drops with the task; the other fields are never pinned.
        let (connection, open, peer) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.connection), &this.open, this.peer)
        };
        // What a panic may leave half done belongs to this connection alone, which ends here.
        catch_unwind(AssertUnwindSafe(|| connection.poll(cx))).unwrap_or_else(|_| {
            open.0.context.shard.panic_caught();
            tracing::error!(client = %connection::PeerName(peer), "a connection was lost to a panic");
            Poll::Ready(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::model::DriverChoice;
    use crate::limits::queue::QueueShared;
    use crate::metrics::{Info, Snapshot};
    use crate::proxy::context::Observers;
    use crate::server::driver::{Runtime, climb};
    use crate::snapshot::{Pool, Published};

    fn info() -> Info {
        Info {
            backends: Vec::new(),
            pool: String::new(),
            drivers: Vec::new(),
            algorithm: String::new(),
            started: Instant::now(),
        }
    }

    fn worker() -> Rc<Worker> {
        let config = Config::default();
        let pool = Pool::new("default", &config, Vec::new());
        let snapshot = crate::snapshot::Snapshot::new(config, pool, None);
        let common = Common {
            published: Arc::new(Published::new(snapshot)),
            queue: QueueShared::new(1, 0),
            connections: None,
            wakes: Box::default(),
            observers: Observers::default(),
            began: Instant::now(),
        };
        let capacity = Capacity {
            max_connections: usize::MAX,
            client_descriptors: usize::MAX,
            buffer_bytes: usize::MAX,
            max_idle: 1,
            workers: 1,
        };
        let shard = Arc::new(Shard::new(0));
        Worker::new(Arc::new(common), shard, Arc::default(), capacity, true)
    }

    #[test]
    fn a_panic_ends_its_connection_and_is_counted() {
        let mut climbed = climb(DriverChoice::Epoll, |step| Runtime::build(step, 256)).expect("epoll");
        climbed.runtime.block_on(async {
            let worker = worker();
            let connection = async { panic!("a connection that panics, for a test") };
            let open = OpenClient::new(worker.clone(), None);
            assert_eq!(worker.lifecycle.clients(), 1);
            monoio::spawn(Served {
                connection,
                open,
                peer: None,
            })
            .await;
            assert_eq!(worker.lifecycle.clients(), 0);
            let totals = Snapshot::take(std::slice::from_ref(&worker.context.shard), &info(), |_| {
                unreachable!("no backends")
            });
            assert_eq!(totals.workers[0].panics, 1);
        });
    }
}

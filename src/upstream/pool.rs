//! One worker's connections to the backends: idle ones waiting for the next exchange, and the making of new ones.
//!
//! An idle connection is a wire without a task. The last one used is the first one taken, so that a few stay hot and the
//! rest age; [`Upstream::sweep`] closes what is too old, too many, or ended by the backend. One that has been idle for
//! more than [`QUIET_AFTER`], or that a request must not be lost on, is looked at before it is used: nothing may have
//! come from the backend in the meantime, not even its end.

use std::cell::RefCell;
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Millis;
use crate::config::model::Upstream as Settings;
use crate::reason::Reason;
use crate::upstream::backend::{Backend, SocketCount};
use crate::upstream::connect::{self, ConnectError};
use crate::wire::{SWEEP_INTERVAL, WatchedWire, Wire, Wires};

/// Idle time from which a connection is looked at before it is used again.
pub const QUIET_AFTER: Duration = Duration::from_millis(50);

/// How often an exchange that waits for a socket looks again.
const SOCKET_POLL: Duration = Duration::from_millis(5);

/// A connection to a backend; closes when dropped.
pub struct Connection {
    wire: WatchedWire,
    count: SocketCount,
    born: Millis,
    idle_since: Millis,
    reused: bool,
}

impl Connection {
    pub fn backend(&self) -> &Arc<Backend> {
        self.count.backend()
    }

    /// Its wire, for a client that waits for it.
    pub fn wire(&self) -> &WatchedWire {
        &self.wire
    }

    /// Whether an exchange went over it before this one.
    pub fn is_reused(&self) -> bool {
        self.reused
    }
}

impl Deref for Connection {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

/// One worker's backend connections.
pub struct Upstream {
    wires: Rc<Wires>,
    idle: RefCell<Vec<Vec<Connection>>>,
    /// Idle connections per backend that this worker may keep.
    max_idle: usize,
    nonblocking: bool,
}

impl Upstream {
    /// `max_idle` is this worker's share; `nonblocking` says how its driver wants sockets.
    pub fn new(wires: Rc<Wires>, backends: usize, max_idle: usize, nonblocking: bool) -> Self {
        Upstream {
            wires,
            idle: RefCell::new((0..backends).map(|_| Vec::new()).collect()),
            max_idle,
            nonblocking,
        }
    }

    /// An idle connection to `backend`, if there is one. `must_be_quiet`: look at it whatever its age.
    pub fn take_idle(&self, backend: &Backend, must_be_quiet: bool, now: Millis) -> Option<Connection> {
        loop {
            let mut connection = self.idle.borrow_mut().get_mut(backend.index)?.pop()?;
            let check = must_be_quiet || now - connection.idle_since >= QUIET_AFTER;
            if !check || connection.transport().is_quiet() {
                connection.reused = true;
                return Some(connection);
            }
        }
    }

    /// A new connection to `backend`.
    ///
    /// # Errors
    /// No address accepted, or `upstream.max_connections` sockets stayed taken, within `timeout`.
    pub async fn connect(
        &self,
        backend: &Arc<Backend>,
        settings: &Settings,
        timeout: Duration,
    ) -> Result<Connection, ConnectError> {
        let give_up = Instant::now() + timeout;
        let count = loop {
            if let Some(count) = backend.take_socket(settings.max_connections) {
                break count;
            }
            let _waiting = backend.want();
            if let Some(connection) = self.take_idle(backend, true, crate::clock::now()) {
                return Ok(connection);
            }
            if Instant::now() >= give_up {
                let error = io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "upstream.max_connections sockets are open",
                );
                return Err(ConnectError::new(Reason::QueueFull, error));
            }
            monoio::time::sleep(SOCKET_POLL).await;
        };
        let transport = loop {
            let left = give_up.saturating_duration_since(Instant::now());
            match connect::connect(backend, settings, left, self.nonblocking).await {
                Ok(transport) => break transport,
                // A client that only keeps its connection warm gives up its descriptor for one that asks.
                Err(error)
                    if error.error.raw_os_error() == Some(libc::EMFILE)
                        && Instant::now() < give_up
                        && self.wires.expire_longest_idle(1, crate::clock::now()) > 0 =>
                {
                    monoio::time::sleep(SOCKET_POLL).await;
                }
                Err(error) => return Err(error),
            }
        };
        let now = crate::clock::now();
        Ok(Connection {
            wire: self.wires.watch(transport),
            count,
            born: now,
            idle_since: now,
            reused: false,
        })
    }

    /// Keeps a connection for the next exchange. The caller vouches that the response ended where its framing said.
    pub fn keep(&self, mut connection: Connection, now: Millis) {
        // Somebody, perhaps on another worker, waits for a socket of this backend: closing this one lets them connect.
        if connection.backend().is_wanted() {
            return;
        }
        connection.set_read_deadline(Millis::NEVER);
        connection.set_write_deadline(Millis::NEVER);
        connection.idle_since = now;
        let index = connection.backend().index;
        if let Some(idle) = self.idle.borrow_mut().get_mut(index) {
            idle.push(connection);
        }
    }

    /// Closes idle connections that are past their time, too many, ended by the backend, or wanted by another worker.
    ///
    /// A connection counts against the maximum once it was idle for a whole sweep: what a burst hands back and takes
    /// again within that time is not idle.
    pub fn sweep(&self, settings: &Settings, now: Millis) {
        let mut closing = Vec::new();
        for idle in self.idle.borrow_mut().iter_mut() {
            // The oldest are in front: a connection that is used moves to the end.
            let resting = idle
                .iter()
                .take_while(|c| now - c.idle_since >= SWEEP_INTERVAL)
                .count();
            let surplus = resting.saturating_sub(self.max_idle);
            let mut position = 0;
            closing.extend(idle.extract_if(.., |connection| {
                position += 1;
                position <= surplus
                    || connection.backend().is_wanted()
                    || now - connection.idle_since >= settings.idle
                    || now - connection.born >= settings.max_age
                    || (now - connection.idle_since >= QUIET_AFTER && !connection.transport().is_quiet())
            }));
        }
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        let idle: Vec<_> = self
            .idle
            .borrow_mut()
            .iter_mut()
            .flat_map(std::mem::take)
            .collect();
        drop(idle);
    }

    /// Idle connections to one backend.
    pub fn idle(&self, backend: usize) -> usize {
        self.idle.borrow().get(backend).map_or(0, Vec::len)
    }
}

//! One worker's connections to the backends: idle ones waiting for the next exchange, and the making of new ones.
//!
//! An idle connection is a wire without a task. The last one used is the first one taken, so that a few stay hot and the
//! rest age; [`Upstream::sweep`] closes what is too old, too many, or ended by the backend. One that has been idle for
//! more than [`QUIET_AFTER`], or that a request must not be lost on, is looked at before it is used: nothing may have
//! come from the backend in the meantime, not even its end.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Millis;
use crate::config::model::Upstream as Settings;
use crate::event::Event;
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
    /// Its last response was one that a backend may have sent a body behind: it is looked at before it is used again.
    suspect: bool,
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

/// What an exchange that waited for a socket gets.
enum Free {
    Idle(Connection),
    Place(SocketCount),
}

/// What one worker has of one backend.
#[derive(Default)]
struct Place {
    idle: Vec<Connection>,
    /// Exchanges of this worker that wait for a socket.
    waiting: Rc<Cell<usize>>,
}

/// Counts one waiting exchange of this worker.
struct WaitingHere(Rc<Cell<usize>>);

impl WaitingHere {
    fn new(count: Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        WaitingHere(count)
    }
}

impl Drop for WaitingHere {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One worker's backend connections.
pub struct Upstream {
    wires: Rc<Wires>,
    /// The number of the worker.
    worker: usize,
    /// By the backends' slots.
    places: RefCell<Vec<Place>>,
    /// Rung when a connection becomes free while somebody here waits.
    freed: Event,
    /// Idle connections per backend that this worker may keep.
    max_idle: Cell<usize>,
    nonblocking: bool,
}

impl Upstream {
    /// `max_idle` is this worker's share; `nonblocking` says how its driver wants sockets.
    pub fn new(wires: Rc<Wires>, worker: usize, max_idle: usize, nonblocking: bool) -> Self {
        Upstream {
            wires,
            worker,
            places: RefCell::default(),
            freed: Event::default(),
            max_idle: Cell::new(max_idle),
            nonblocking,
        }
    }

    /// An idle connection to `backend`, if there is one. `must_be_quiet`: look at it whatever its age.
    pub fn take_idle(&self, backend: &Backend, must_be_quiet: bool, now: Millis) -> Option<Connection> {
        loop {
            let mut connection = self
                .places
                .borrow_mut()
                .get_mut(backend.slot.number())?
                .idle
                .pop()?;
            let check = must_be_quiet || connection.suspect || now - connection.idle_since >= QUIET_AFTER;
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
        let count = match backend.take_socket(self.worker, settings.max_connections) {
            Some(count) => count,
            None => match self.wait_for_socket(backend, settings, give_up).await? {
                Free::Idle(connection) => return Ok(connection),
                Free::Place(count) => count,
            },
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
            suspect: false,
            reused: false,
        })
    }

    /// Waits until an idle connection or the place for a new one is free.
    async fn wait_for_socket(
        &self,
        backend: &Arc<Backend>,
        settings: &Settings,
        give_up: Instant,
    ) -> Result<Free, ConnectError> {
        let _waiting = backend.want();
        let _waiting_here = WaitingHere::new(self.waiting(backend));
        loop {
            if let Some(connection) = self.take_idle(backend, true, crate::clock::now()) {
                return Ok(Free::Idle(connection));
            }
            if let Some(count) = backend.take_socket(self.worker, settings.max_connections) {
                return Ok(Free::Place(count));
            }
            if Instant::now() >= give_up {
                let error = io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "upstream.max_connections sockets stayed in use",
                );
                return Err(ConnectError::new(Reason::QueueTimeout, error));
            }
            // What another worker frees rings no event here.
            let _ = monoio::time::timeout(SOCKET_POLL, self.freed.until(|| self.idle(backend) > 0)).await;
        }
    }

    /// Whether exchanges of other workers wait for a socket of this backend.
    fn is_wanted_elsewhere(&self, backend: &Backend) -> bool {
        backend.waiting() > self.waiting_here(backend)
    }

    /// Keeps a connection for the next exchange. The caller vouches that the response ended where its framing said;
    /// `suspect`: look before it is used again, whatever its age.
    pub fn keep(&self, mut connection: Connection, suspect: bool, now: Millis) {
        let waiting_here = self.waiting_here(connection.backend());
        // One that the sweeper ended is dead, one that another worker waits for makes room by closing.
        if connection.expired()
            || connection.backend().is_retired()
            || (waiting_here == 0
                && (self.max_idle.get() == 0 || self.is_wanted_elsewhere(connection.backend())))
        {
            return;
        }
        connection.set_limit(Millis::NEVER);
        connection.idle_since = now;
        connection.suspect = suspect;
        self.with_place(connection.backend().slot.number(), |place| {
            place.idle.push(connection)
        });
        if waiting_here > 0 {
            self.freed.ring();
        }
    }

    /// Closes idle connections that are past their time, too many, ended by the backend, or wanted by another worker.
    ///
    /// A connection counts against the maximum once it was idle for a whole sweep: what a burst hands back and takes
    /// again within that time is not idle.
    pub fn sweep(&self, settings: &Settings, now: Millis) {
        let mut closing = Vec::new();
        for place in self.places.borrow_mut().iter_mut() {
            let here = place.waiting.get();
            if let Some(first) = place.idle.first() {
                first.backend().gauges.set_idle(self.worker, place.idle.len());
            }
            let idle = &mut place.idle;
            let wanted = idle
                .first()
                .is_some_and(|connection| connection.backend().waiting() > here);
            // The oldest are in front: a connection that is used moves to the end.
            let resting = idle
                .iter()
                .take_while(|c| now - c.idle_since >= SWEEP_INTERVAL)
                .count();
            let surplus = resting.saturating_sub(self.max_idle.get());
            let mut position = 0;
            closing.extend(idle.extract_if(.., |connection| {
                position += 1;
                position <= surplus
                    || wanted
                    || now - connection.idle_since >= settings.idle
                    || now - connection.born >= settings.max_age
                    || (now - connection.idle_since >= QUIET_AFTER && !connection.transport().is_quiet())
            }));
        }
    }

    /// Closes the idle connections to those backends that `leaves` says.
    pub fn close_idle(&self, leaves: impl Fn(&Arc<Backend>) -> bool) {
        let closing: Vec<_> = self
            .places
            .borrow_mut()
            .iter_mut()
            .filter(|place| place.idle.first().is_some_and(|first| leaves(first.backend())))
            .flat_map(|place| std::mem::take(&mut place.idle))
            .collect();
        drop(closing);
    }

    /// This worker's share of the idle connections per backend.
    pub fn set_max_idle(&self, max_idle: usize) {
        self.max_idle.set(max_idle);
    }

    /// Idle connections to one backend.
    pub fn idle(&self, backend: &Backend) -> usize {
        self.places
            .borrow()
            .get(backend.slot.number())
            .map_or(0, |place| place.idle.len())
    }

    fn waiting(&self, backend: &Backend) -> Rc<Cell<usize>> {
        self.with_place(backend.slot.number(), |place| place.waiting.clone())
    }

    fn waiting_here(&self, backend: &Backend) -> usize {
        self.places
            .borrow()
            .get(backend.slot.number())
            .map_or(0, |place| place.waiting.get())
    }

    /// The place of a slot, which is made when it is first needed.
    fn with_place<T>(&self, slot: usize, then: impl FnOnce(&mut Place) -> T) -> T {
        let mut places = self.places.borrow_mut();
        if slot >= places.len() {
            places.resize_with(slot + 1, Place::default);
        }
        then(&mut places[slot])
    }
}

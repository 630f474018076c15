//! A connection's transport under deadlines, and the list of all of a worker's wires that the sweeper walks.
//!
//! Setting a deadline is one store. Ten times a second the sweeper calls [`Wires::sweep`], which marks what is overdue as
//! [expired](Wire::expired) and aborts its transport; the operation that waits there then completes at once and its task
//! finds out why. So a deadline fires up to [`SWEEP_INTERVAL`] late, and early by no more than a tick of the coarse clock.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use crate::buffer::Buffer;
use crate::clock::{self, Millis};
use crate::transport::Transport;

/// How often the sweeper looks at deadlines.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// How often a client that waits for a slow backend is looked at, whether it is still there.
const RESET_LOOK_INTERVAL: Duration = Duration::from_millis(900);

/// How long a client connection must have waited for its next request before it may be closed to make room.
const IDLE_MIN: Duration = Duration::from_millis(100);

/// One connection's transport with its deadlines.
pub struct Wire {
    transport: Transport,
    read_deadline: Cell<Millis>,
    write_deadline: Cell<Millis>,
    /// The end of the whole exchange for this wire; see [`Wire::set_limit`].
    limit: Cell<Millis>,
    /// No write deadline is later than this; see [`Wire::set_write_limit`].
    write_limit: Cell<Millis>,
    expired: Cell<bool>,
    /// When this wire began to wait for a client's next request; none while it does anything else.
    idle_since: Cell<Option<Millis>>,
    /// The backend wire that works for this client, by its slot, and since when; see [`WatchedWire::wait_for`].
    waits_for: Cell<Option<(usize, Millis)>>,
    gone: Cell<bool>,
    /// Bytes of large bodies that came over it.
    bulk: Cell<u64>,
}

impl Wire {
    /// A wire that no sweeper knows: for tests and for connections that live shorter than a sweep.
    pub fn new(transport: impl Into<Transport>) -> Self {
        Wire {
            transport: transport.into(),
            read_deadline: Cell::new(Millis::NEVER),
            write_deadline: Cell::new(Millis::NEVER),
            limit: Cell::new(Millis::NEVER),
            write_limit: Cell::new(Millis::NEVER),
            expired: Cell::new(false),
            idle_since: Cell::new(None),
            waits_for: Cell::new(None),
            gone: Cell::new(false),
            bulk: Cell::new(0),
        }
    }

    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Reads must make progress before `at`.
    pub fn set_read_deadline(&self, at: Millis) {
        self.read_deadline.set(at);
    }

    /// Writes must make progress before `at`, or before the write limit if that is earlier.
    pub fn set_write_deadline(&self, at: Millis) {
        self.write_deadline.set(at.min(self.write_limit.get()));
    }

    /// At `at` this wire ends, whatever it does.
    pub fn set_limit(&self, at: Millis) {
        self.limit.set(at);
    }

    /// Writes must be over by `at` however well they progress; reading is not bounded.
    pub fn set_write_limit(&self, at: Millis) {
        self.write_limit.set(at);
    }

    /// Whether the sweeper ended this wire.
    pub fn expired(&self) -> bool {
        self.expired.get()
    }

    /// Whether the sweeper ended this wire's reads; from now on it counts as not ended.
    pub fn take_expired(&self) -> bool {
        self.expired.replace(false)
    }

    /// Whether the peer was found to have reset the connection while nobody read from it.
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// So many bytes of a large body came over it: gives how many had come before, over all bodies.
    pub fn came_in_bulk(&self, bytes: usize) -> u64 {
        self.bulk.replace(self.bulk.get().saturating_add(bytes as u64))
    }

    pub fn set_idle_since(&self, since: Option<Millis>) {
        self.idle_since.set(since);
    }

    /// Reads once into the free part of `buffer`; `Ok(0)` is the end. Dropped before it is done, it leaves
    /// [`Buffer::none`] in `buffer`.
    pub async fn read(&self, buffer: &mut Buffer) -> io::Result<usize> {
        let (result, back) = self
            .transport
            .read(std::mem::replace(buffer, Buffer::none()))
            .await;
        *buffer = back;
        result
    }

    /// As [`Wire::read`], within `patience`; no deadline is left behind.
    pub async fn read_within(&self, buffer: &mut Buffer, patience: Duration) -> io::Result<usize> {
        self.set_read_deadline(clock::now() + patience);
        let result = self.read(buffer).await;
        self.set_read_deadline(Millis::NEVER);
        result
    }

    /// Sends the whole filled part of `buffer`, which is empty then; each step must make progress within `stall`.
    /// Dropped before it is done, it leaves [`Buffer::none`] in `buffer`.
    pub async fn write_all(&self, buffer: &mut Buffer, stall: Duration) -> Sent {
        let mut sent = Sent {
            bytes: 0,
            in_parts: false,
            error: None,
        };
        while !buffer.is_empty() && sent.error.is_none() {
            self.set_write_deadline(clock::now() + stall);
            let (result, back) = self
                .transport
                .write(std::mem::replace(buffer, Buffer::none()))
                .await;
            *buffer = back;
            match result {
                Ok(0) => sent.error = Some(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    sent.bytes += count;
                    buffer.consume(count);
                    sent.in_parts |= !buffer.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => sent.error = Some(error),
            }
        }
        self.write_deadline.set(Millis::NEVER);
        sent
    }

    fn expire_if_overdue(&self, now: Millis) {
        if self.write_deadline.get().min(self.limit.get()) <= now {
            self.write_deadline.set(Millis::NEVER);
            self.limit.set(Millis::NEVER);
            self.read_deadline.set(Millis::NEVER);
            self.expired.set(true);
            self.transport.abort();
        } else if self.read_deadline.get() <= now {
            self.expire_reads();
        }
    }

    /// Ends what waits to read, as the sweeper does: marked expired, at its end. An answer can still be sent.
    fn expire_reads(&self) {
        self.read_deadline.set(Millis::NEVER);
        self.expired.set(true);
        self.transport.end_reads();
    }
}

/// What became of a [`Wire::write_all`].
#[derive(Debug)]
pub struct Sent {
    /// Bytes that the transport took.
    pub bytes: usize,
    /// It did not take all at once.
    pub in_parts: bool,
    pub error: Option<io::Error>,
}

impl Sent {
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }
}

/// All wires of one worker.
#[derive(Default)]
pub struct Wires {
    slab: RefCell<Slab<Rc<Wire>>>,
}

impl Wires {
    /// Puts a transport under the sweeper's eyes for as long as the result lives.
    pub fn watch(self: &Rc<Self>, transport: impl Into<Transport>) -> WatchedWire {
        let wire = Rc::new(Wire::new(transport));
        let slot = self.slab.borrow_mut().insert(wire.clone());
        WatchedWire {
            wire,
            slot,
            wires: self.clone(),
        }
    }

    /// Ends what is overdue, and what works for a client that is gone.
    pub fn sweep(&self, now: Millis) {
        let slab = self.slab.borrow();
        for (_, wire) in slab.iter() {
            wire.expire_if_overdue(now);
            let Some((slot, since)) = wire.waits_for.get() else {
                continue;
            };
            if now - since < SWEEP_INTERVAL {
                continue;
            }
            // Whoever waits long is looked at once a second.
            wire.waits_for.set(Some((slot, now + RESET_LOOK_INTERVAL)));
            if wire.transport.is_reset() {
                wire.waits_for.set(None);
                wire.gone.set(true);
                if let Some(backend) = slab.get(slot) {
                    backend.expire_reads();
                }
            }
        }
    }

    /// Ends every client connection that waits for its next request.
    pub fn expire_idle(&self) {
        for (_, wire) in self.slab.borrow().iter() {
            if wire.idle_since.take().is_some() {
                wire.expire_reads();
            }
        }
    }

    /// Ends up to `count` of the client connections that have waited longest for their next request; says how many. One
    /// that has only just begun to wait, or whose request is here, is left alone.
    pub fn expire_longest_idle(&self, count: usize, now: Millis) -> usize {
        let slab = self.slab.borrow();
        let mut idle: Vec<(Millis, usize)> = slab
            .iter()
            .filter_map(|(slot, wire)| Some((wire.idle_since.get()?, slot)))
            .filter(|(since, _)| now - *since >= IDLE_MIN)
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        idle.retain(|(_, slot)| !slab[*slot].transport.has_bytes());
        for (_, slot) in &idle {
            slab[*slot].idle_since.set(None);
            slab[*slot].expire_reads();
        }
        idle.len()
    }

    pub fn len(&self) -> usize {
        self.slab.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A [`Wire`] in its worker's list; leaves the list, and closes, when dropped.
pub struct WatchedWire {
    wire: Rc<Wire>,
    slot: usize,
    wires: Rc<Wires>,
}

impl WatchedWire {
    /// From now on the client of this wire waits for what `backend` gives it and nobody reads from the client: if it
    /// resets its connection, the sweeper ends the backend's reads and [`Wire::is_gone`] says why. (Its FIN says nothing:
    /// a client may close its sending side and wait, RFC 9112 §9.6.)
    pub fn wait_for(&self, backend: &WatchedWire, now: Millis) {
        self.wire.waits_for.set(Some((backend.slot, now)));
    }

    /// The client waits for nobody any more. To be called before the backend's wire goes its own way.
    pub fn wait_for_nobody(&self) {
        self.wire.waits_for.set(None);
    }
}

impl Deref for WatchedWire {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl Drop for WatchedWire {
    fn drop(&mut self) {
        self.wires.slab.borrow_mut().remove(self.slot);
    }
}

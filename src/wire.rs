//! A connection's transport under deadlines, and the list of all of a worker's wires that the sweeper walks.
//!
//! Setting a deadline is one store. Ten times a second the sweeper calls [`Wires::sweep`], which marks what is overdue as
//! [expired](Wire::expired) and aborts its transport; the operation that waits there then completes at once and its task
//! finds out why. So a deadline fires up to [`SWEEP_INTERVAL`] late, and never early.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use crate::buffer::Buffer;
use crate::clock::Millis;
use crate::transport::Transport;

/// How often the sweeper looks at deadlines.
pub const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

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

    pub fn set_idle_since(&self, since: Option<Millis>) {
        self.idle_since.set(since);
    }

    /// Reads once; see [`Transport::read`].
    pub async fn read(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        self.transport.read(buffer).await
    }

    /// Sends the whole filled part of `buffer`, which comes back empty; each step must make progress within `stall`.
    /// On failure says how many bytes went out before.
    pub async fn write_all(
        &self,
        mut buffer: Buffer,
        now: impl Fn() -> Millis,
        stall: Duration,
    ) -> (Sent, Buffer) {
        let mut sent = 0;
        self.set_write_deadline(now() + stall);
        while !buffer.is_empty() {
            let (result, back) = self.transport.write(buffer).await;
            buffer = back;
            match result {
                Ok(0) => return (Sent::failed(sent, io::ErrorKind::WriteZero.into()), buffer),
                Ok(count) => {
                    sent += count;
                    buffer.consume(count);
                    if !buffer.is_empty() {
                        self.set_write_deadline(now() + stall);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Sent::failed(sent, error), buffer),
            }
        }
        self.write_deadline.set(Millis::NEVER);
        (
            Sent {
                bytes: sent,
                error: None,
            },
            buffer,
        )
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
    pub error: Option<io::Error>,
}

impl Sent {
    fn failed(bytes: usize, error: io::Error) -> Self {
        Sent {
            bytes,
            error: Some(error),
        }
    }

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

    /// Ends what is overdue.
    pub fn sweep(&self, now: Millis) {
        for (_, wire) in self.slab.borrow().iter() {
            wire.expire_if_overdue(now);
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

    /// Ends up to `count` of the client connections that have waited longest for their next request; says how many.
    pub fn expire_longest_idle(&self, count: usize) -> usize {
        let slab = self.slab.borrow();
        let mut idle: Vec<(Millis, usize)> = slab
            .iter()
            .filter_map(|(slot, wire)| Some((wire.idle_since.get()?, slot)))
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
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

//! What all exchanges of one worker share: the snapshot they serve by, the shard they count in, the wires, the backend
//! connections, and the tables they borrow. One thread only; `server` makes one for each worker.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use crate::balance::pick::Local;
use crate::http1;
use crate::metrics::Shard;
use crate::proxy::tables::HeadTables;
use crate::snapshot::Snapshot;
use crate::upstream::pool::Upstream;
use crate::wire::Wires;

/// One worker, as its exchanges see it.
pub struct Context {
    pub snapshot: Arc<Snapshot>,
    pub shard: Arc<Shard>,
    pub wires: Rc<Wires>,
    pub upstream: Upstream,
    pub head_limits: http1::Limits,
    pub heads: HeadTables,
    pub local: RefCell<Local>,
    closing: Cell<bool>,
    scratch: RefCell<Vec<u8>>,
}

impl Context {
    pub fn new(snapshot: Arc<Snapshot>, shard: Arc<Shard>, wires: Rc<Wires>, upstream: Upstream) -> Self {
        let head_limits = http1::Limits {
            max_head_bytes: snapshot.config.http.max_head_bytes,
            max_headers: snapshot.config.http.max_headers,
        };
        Context {
            snapshot,
            shard,
            wires,
            upstream,
            head_limits,
            heads: HeadTables::default(),
            local: RefCell::new(Local::new(fastrand::u64(..))),
            closing: Cell::new(false),
            scratch: RefCell::default(),
        }
    }

    /// Whether every answer from now on is the last of its connection.
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// From now on every answer is the last of its connection.
    pub fn close(&self) {
        self.closing.set(true);
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

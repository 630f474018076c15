//! An in-memory byte stream with two [`End`]s, as a pair of connected sockets is: bounded, with half-close and reset.
//!
//! It exists so that the whole exchange can be tested, benched and fuzzed without a kernel in between. One thread only.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::buffer::Buffer;

/// Bytes that one direction holds before its writer waits.
const CAPACITY: usize = 64 * 1024;

/// One direction.
#[derive(Default)]
struct Lane {
    bytes: RefCell<VecDeque<u8>>,
    /// No more bytes will be written.
    ended: Cell<bool>,
    /// Nobody will read any more, or the stream was reset.
    broken: Cell<bool>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

impl Lane {
    fn wake(&self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.bytes.borrow().is_empty() || self.ended.get() || self.broken.get() {
            return Poll::Ready(());
        }
        self.reader.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken.get() || self.ended.get() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut held = self.bytes.borrow_mut();
        let count = bytes.len().min(CAPACITY - held.len());
        if count == 0 && !bytes.is_empty() {
            self.writer.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        held.extend(&bytes[..count]);
        drop(held);
        self.wake();
        Poll::Ready(Ok(count))
    }
}

/// One end of an in-memory stream.
pub struct End {
    incoming: Rc<Lane>,
    outgoing: Rc<Lane>,
    reset: Cell<bool>,
}

/// A connected pair.
pub fn pair() -> (End, End) {
    let (a, b) = (Rc::new(Lane::default()), Rc::new(Lane::default()));
    let end = |incoming: &Rc<Lane>, outgoing: &Rc<Lane>| End {
        incoming: incoming.clone(),
        outgoing: outgoing.clone(),
        reset: Cell::new(false),
    };
    (end(&a, &b), end(&b, &a))
}

impl End {
    /// Reads once into the free part of `buffer`: `Ok(0)` is the end.
    pub async fn read(&self, mut buffer: Buffer) -> (io::Result<usize>, Buffer) {
        poll_fn(|cx| self.incoming.poll_readable(cx)).await;
        if self.incoming.broken.get() {
            return (Err(io::ErrorKind::ConnectionReset.into()), buffer);
        }
        let mut held = self.incoming.bytes.borrow_mut();
        let count = held.len().min(buffer.spare());
        let (front, back) = held.as_slices();
        let first = buffer.append(&front[..count.min(front.len())]);
        buffer.append(&back[..count - first]);
        held.drain(..count);
        drop(held);
        self.incoming.wake();
        (Ok(count), buffer)
    }

    /// Writes some of `buffer` and says how much.
    pub async fn write(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let result = poll_fn(|cx| self.outgoing.poll_write(cx, buffer.filled())).await;
        (result, buffer)
    }

    /// Waits until a read would not wait.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.incoming.poll_readable(cx)).await;
        Ok(())
    }

    pub fn shutdown(&self, how: Shutdown) {
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.outgoing.ended.set(true);
            self.outgoing.wake();
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.incoming.ended.set(true);
            self.incoming.wake();
        }
    }

    /// The drop of this end breaks the stream instead of ending it.
    pub fn reset_on_close(&self) {
        self.reset.set(true);
    }

    pub fn has_bytes(&self) -> bool {
        !self.incoming.bytes.borrow().is_empty()
    }

    /// Whether the other end is gone or has reset the stream.
    pub fn is_broken(&self) -> bool {
        self.outgoing.broken.get()
    }

    pub fn is_quiet(&self) -> bool {
        self.incoming.bytes.borrow().is_empty() && !self.incoming.ended.get() && !self.incoming.broken.get()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.incoming.broken.set(true);
        self.incoming.wake();
        if self.reset.get() {
            self.outgoing.broken.set(true);
        } else {
            self.outgoing.ended.set(true);
        }
        self.outgoing.wake();
    }
}

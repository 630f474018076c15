//! Pooled buffers: every byte that weir reads or sends on the request path lives in one.
//!
//! Each worker thread owns one pool (a thread-local, so that a buffer that an io_uring operation still holds when its
//! future is dropped finds its way home whenever the kernel lets go of it). Buffers come in two sizes: [`SMALL`] for
//! heads and small bodies, [`LARGE`] once a body proves to be large.
//!
//! The pool has a budget. An exchange is [admitted](admit) only while [`SMALLS_PER_EXCHANGE`] small buffers are left for
//! it, so an admitted exchange never waits for memory and a full pool cannot deadlock; large buffers come from what
//! admissions leave over, and whoever gets none goes on with a small one.
//!
//! `unsafe` here: monoio's buffer traits are unsafe to implement. A [`Buffer`] is a `Vec<u8>` with a start offset; reads
//! append to it, writes send what is between start and end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Poll, Waker};

use monoio::buf::{IoBuf, IoBufMut};

/// Bytes of a small buffer: any usual head, and bodies up to about as much.
pub const SMALL: usize = 16 * 1024;
/// Bytes of a large buffer (what it saves is measured in `docs/architecture.md`).
pub const LARGE: usize = 256 * 1024;
/// Small buffers that one exchange may hold at once: the request, the outgoing head, the response.
pub const SMALLS_PER_EXCHANGE: usize = 3;
/// Free space kept in front of a response, so that its rewritten head fits where the received one was.
pub const HEADROOM: usize = 512;

/// Free buffers kept for reuse at the most, per size: beyond it they go back to the allocator at once.
const KEPT_SMALL_MAX: usize = 4096;
const KEPT_LARGE_MAX: usize = 64;

/// A pooled buffer: bytes `start..end` are filled, what follows is free.
///
/// As monoio's `IoBufMut` it is its free part (a read appends); as `IoBuf` its filled part (a write sends).
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new(bytes: Vec<u8>) -> Self {
        Buffer { bytes, start: 0 }
    }

    /// A buffer without memory: what stands in a place while its buffer is with the kernel.
    pub const fn none() -> Self {
        Buffer {
            bytes: Vec::new(),
            start: 0,
        }
    }

    /// The filled part.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Bytes filled.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that still fit behind the filled part.
    pub fn spare(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Drops `count` bytes at the front; all of them if there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.start += count.min(self.len());
        if self.start == self.bytes.len() {
            self.clear();
        }
    }

    /// Drops `count` bytes at the front and keeps their space for [`Buffer::prepend`] even if nothing is left.
    pub fn consume_front(&mut self, count: usize) {
        self.start += count.min(self.len());
    }

    /// Keeps the first `count` filled bytes.
    pub fn truncate(&mut self, count: usize) {
        self.bytes.truncate(self.start.saturating_add(count));
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// Empties the buffer and leaves `room` bytes free in front of what comes next.
    pub fn clear_with_headroom(&mut self, room: usize) {
        self.bytes.clear();
        self.bytes.resize(room, 0);
        self.start = room;
    }

    /// Appends `bytes` as far as they fit; says how many did.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.spare());
        self.bytes.extend_from_slice(&bytes[..count]);
        count
    }

    /// Puts `bytes` in front of the filled part if the free space there is large enough.
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        let Some(start) = self.start.checked_sub(bytes.len()) else {
            return false;
        };
        self.bytes[start..self.start].copy_from_slice(bytes);
        self.start = start;
        true
    }

    /// The vector behind the buffer, for writers that append to a `Vec` and know that [`Buffer::spare`] is enough.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Moves the filled part to the very front, so that all free space is behind it.
    pub fn compact(&mut self) {
        if self.start > 0 {
            let len = self.len();
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(len);
            self.start = 0;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() == 0 {
            return;
        }
        // During the thread's own teardown the pool is gone first; then the allocator takes the memory.
        let _ = POOL.try_with(|pool| pool.borrow_mut().give_back(bytes));
    }
}

// SAFETY: `read_ptr..read_ptr+bytes_init` is the initialised part `start..len` of a `Vec` whose heap block does not move
// when the `Buffer` does and is not reallocated while an operation owns the buffer.
unsafe impl IoBuf for Buffer {
    fn read_ptr(&self) -> *const u8 {
        self.filled().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.len()
    }
}

// SAFETY: `write_ptr..write_ptr+bytes_total` is the spare capacity of the same `Vec`; `set_init(n)` is called by monoio
// with the number of bytes that the kernel wrote there, never more than `bytes_total`.
unsafe impl IoBufMut for Buffer {
    fn write_ptr(&mut self) -> *mut u8 {
        self.bytes.spare_capacity_mut().as_mut_ptr().cast()
    }

    fn bytes_total(&mut self) -> usize {
        self.spare()
    }

    unsafe fn set_init(&mut self, count: usize) {
        // SAFETY: the kernel wrote `count` bytes into the spare capacity, right behind `len`.
        unsafe { self.bytes.set_len(self.bytes.len() + count) }
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::new()) };
}

struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    /// Bytes that this worker's buffers may take.
    budget: usize,
    admitted: usize,
    large_out: usize,
    small_out: usize,
    waiting: VecDeque<Waker>,
    /// The fewest free small buffers since the last trim: what was not needed for that long may go.
    small_low: usize,
}

impl Pool {
    const fn new() -> Self {
        Pool {
            small: Vec::new(),
            large: Vec::new(),
            budget: usize::MAX,
            admitted: 0,
            large_out: 0,
            small_out: 0,
            waiting: VecDeque::new(),
            small_low: 0,
        }
    }

    fn reserved(&self) -> usize {
        (self.admitted * SMALLS_PER_EXCHANGE).max(self.small_out) * SMALL + self.large_out * LARGE
    }

    fn small(&mut self) -> Buffer {
        self.small_out += 1;
        let bytes = self.small.pop().unwrap_or_else(|| Vec::with_capacity(SMALL));
        self.small_low = self.small_low.min(self.small.len());
        Buffer::new(bytes)
    }

    fn large(&mut self) -> Option<Buffer> {
        if self.reserved().saturating_add(LARGE) > self.budget {
            return None;
        }
        self.large_out += 1;
        Some(Buffer::new(
            self.large.pop().unwrap_or_else(|| Vec::with_capacity(LARGE)),
        ))
    }

    fn give_back(&mut self, mut bytes: Vec<u8>) {
        let (out, free, kept_max) = match bytes.capacity() {
            SMALL => (&mut self.small_out, &mut self.small, KEPT_SMALL_MAX),
            LARGE => (&mut self.large_out, &mut self.large, KEPT_LARGE_MAX),
            _ => return,
        };
        *out = out.saturating_sub(1);
        if free.len() < kept_max {
            bytes.clear();
            free.push(bytes);
        }
        self.wake_one();
    }

    fn wake_one(&mut self) {
        if let Some(waker) = self.waiting.pop_front() {
            waker.wake();
        }
    }
}

/// Sets the budget of this thread's pool, in bytes. At least one exchange is always admitted.
pub fn set_budget(bytes: usize) {
    POOL.with_borrow_mut(|pool| pool.budget = bytes.max(SMALLS_PER_EXCHANGE * SMALL));
}

/// The right to hold up to [`SMALLS_PER_EXCHANGE`] small buffers; given back when dropped.
#[derive(Debug)]
pub struct Admission(());

impl Drop for Admission {
    fn drop(&mut self) {
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.admitted -= 1;
            pool.wake_one();
        });
    }
}

/// Admits one exchange, unless the budget is used up.
pub fn admit() -> Option<Admission> {
    POOL.with_borrow_mut(|pool| {
        if pool.reserved().saturating_add(SMALLS_PER_EXCHANGE * SMALL) > pool.budget {
            return None;
        }
        pool.admitted += 1;
        Some(Admission(()))
    })
}

/// Waits until an exchange is admitted. The caller's deadline bounds the wait.
pub async fn admitted(given_up: impl Fn() -> bool) -> Option<Admission> {
    std::future::poll_fn(|cx| {
        if let Some(admission) = admit() {
            return Poll::Ready(Some(admission));
        }
        if given_up() {
            return Poll::Ready(None);
        }
        POOL.with_borrow_mut(|pool| pool.waiting.push_back(cx.waker().clone()));
        Poll::Pending
    })
    .await
}

/// Wakes everybody who waits for memory, so that they look at their deadlines.
pub fn wake_waiting() {
    let waiting = POOL.with_borrow_mut(|pool| std::mem::take(&mut pool.waiting));
    waiting.into_iter().for_each(Waker::wake);
}

/// A small buffer; the caller holds an [`Admission`] (or is one of the few that need none: a tunnel, an answer).
pub fn small() -> Buffer {
    POOL.with_borrow_mut(Pool::small)
}

/// A large buffer if the budget allows one.
pub fn large() -> Option<Buffer> {
    POOL.with_borrow_mut(Pool::large)
}

/// Gives half of the small buffers that nobody needed since the last call, and all free large ones, back to the
/// allocator. Called about once a second by the sweeper.
pub fn trim() {
    let (small, large) = POOL.with_borrow_mut(|pool| {
        let surplus = pool.small_low.div_ceil(2).min(pool.small.len());
        let keep = pool.small.len() - surplus;
        let small = pool.small.split_off(keep);
        pool.small_low = pool.small.len();
        (small, std::mem::take(&mut pool.large))
    });
    drop((small, large));
}

/// What this thread's pool has given out, in bytes.
pub fn bytes_in_use() -> usize {
    POOL.with_borrow(|pool| pool.small_out * SMALL + pool.large_out * LARGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_handed_out_again_and_empty() {
        let mut buffer = small();
        assert_eq!(buffer.append(b"left over"), 9);
        let address = buffer.filled().as_ptr();
        drop(buffer);
        let again = small();
        assert_eq!(again.filled().as_ptr(), address);
        assert!(again.is_empty());
        assert_eq!(again.capacity(), SMALL);
    }

    #[test]
    fn prepend_uses_the_headroom_and_no_more() {
        let mut buffer = small();
        buffer.clear_with_headroom(4);
        buffer.append(b"body");
        assert!(!buffer.prepend(b"12345"));
        assert!(buffer.prepend(b"1234"));
        assert_eq!(buffer.filled(), b"1234body");
        buffer.consume(6);
        assert_eq!(buffer.filled(), b"dy");
        buffer.compact();
        assert_eq!((buffer.filled(), buffer.spare()), (&b"dy"[..], SMALL - 2));
    }

    #[test]
    fn the_budget_bounds_admissions_and_large_buffers() {
        set_budget(LARGE + SMALLS_PER_EXCHANGE * SMALL);
        let first = admit().expect("an empty pool admits");
        let big = large().expect("what admissions leave over is for large buffers");
        assert!(large().is_none());
        assert!(admit().is_none());
        drop(big);
        let second = admit().expect("the large buffer's share is free again");
        assert!(large().is_none(), "two admissions leave less than a large buffer");
        drop((first, second));
        assert_eq!(bytes_in_use(), 0);
        set_budget(usize::MAX);
    }

    #[test]
    fn trimming_frees_what_was_not_needed() {
        let held: Vec<_> = (0..8).map(|_| small()).collect();
        drop(held);
        trim();
        trim();
        POOL.with_borrow(|pool| assert!(pool.small.len() <= 4, "{} kept", pool.small.len()));
    }
}

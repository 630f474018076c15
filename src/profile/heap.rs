//! `/debug/pprof/heap`: who allocates, by sampling; and the wrapper around the allocator that samples.
//!
//! Off, an allocation costs one load and one branch that is always the same. On, each thread counts down the bytes it
//! allocates, from a number that is drawn by chance with `heap_sample` as its mean (a Poisson process over bytes, as tcmalloc
//! and Go do it); the allocation that ends the count is a sample. Its stack and address are kept until it is freed. A
//! sample of *s* bytes was taken with probability 1 − e^(−s/mean) and stands for the reciprocal, so that the sums are
//! unbiased whatever the sizes.
//!
//! `unsafe` here: `GlobalAlloc` is an unsafe trait; each method hands its arguments on as they came.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::pprof_file::Builder;

/// Frames of a stack that are kept.
const FRAMES_MAX: usize = 48;
/// Samples whose memory may be in use at a time; more are counted as allocated only.
const LIVE_MAX: usize = 1 << 17;
/// Different stacks that are told apart.
const STACKS_MAX: usize = 1 << 15;
/// Counters of the filter that tells most addresses that were not sampled.
const FILTER: usize = 1 << 16;

/// The mean of bytes between two samples; 0: off.
static MEAN: AtomicU64 = AtomicU64::new(0);

/// How many live samples have an address of this hash: a free looks here first.
static LIVE: [AtomicU16; FILTER] = [const { AtomicU16::new(0) }; FILTER];

thread_local! {
    /// Bytes until the next sample; negative before the first draw.
    static LEFT: Cell<i64> = const { Cell::new(i64::MIN) };
    /// The thread is within the profiler, whose own allocations are none of its business.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// An allocator whose allocations are sampled.
pub struct Sampled<A>(pub A);

// SAFETY: every method passes its arguments on to the inner allocator unchanged and returns what that returns; what is done
// besides does not touch the memory.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Sampled<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on.
        let memory = unsafe { self.0.alloc(layout) };
        allocated(memory, layout.size());
        memory
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let memory = unsafe { self.0.alloc_zeroed(layout) };
        allocated(memory, layout.size());
        memory
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        freed(memory);
        // SAFETY: as above.
        unsafe { self.0.dealloc(memory, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Before: the old address may be another thread's right after.
        freed(memory);
        // SAFETY: as above.
        let moved = unsafe { self.0.realloc(memory, layout, size) };
        allocated(moved, size);
        moved
    }
}

#[inline]
fn allocated(memory: *mut u8, size: usize) {
    if MEAN.load(Ordering::Relaxed) != 0 {
        count(memory, size);
    }
}

#[inline]
fn freed(memory: *mut u8) {
    if MEAN.load(Ordering::Relaxed) != 0 && LIVE[slot(memory as usize)].load(Ordering::Acquire) != 0 {
        forget(memory as usize);
    }
}

/// Which counter of the filter an address has (Fibonacci hashing).
#[inline]
fn slot(address: usize) -> usize {
    (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> (64 - 16)
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    /// Estimates: what the samples stand for.
    alloc_objects: f64,
    alloc_space: f64,
    freed_objects: f64,
    freed_space: f64,
}

#[derive(Default)]
struct Table {
    stacks: HashMap<Vec<usize>, usize>,
    totals: Vec<Totals>,
    /// By address: the stack, and what the sample stands for.
    live: HashMap<usize, (usize, f64, f64)>,
    /// Samples that found no room.
    lost: u64,
}

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

/// Runs `work` unless the thread is within the profiler already, or is about to end.
fn outside<T>(work: impl FnOnce() -> T) -> Option<T> {
    let entered = WITHIN.try_with(|within| !within.replace(true)).unwrap_or(false);
    if !entered {
        return None;
    }
    let result = work();
    let _ = WITHIN.try_with(|within| within.set(false));
    Some(result)
}

#[inline]
fn count(memory: *mut u8, size: usize) {
    let due = LEFT.try_with(|left| {
        let now = left.get().saturating_sub(size as i64);
        left.set(now);
        now < 0
    });
    if due.unwrap_or(false) && !memory.is_null() {
        sample(memory as usize, size);
    }
}

#[cold]
fn sample(address: usize, size: usize) {
    outside(|| {
        let mean = MEAN.load(Ordering::Relaxed) as f64;
        let first = LEFT.replace(draw(mean)) < i64::MIN / 2;
        if first {
            // A thread's first allocation is no sample: its count had not been drawn.
            return;
        }
        let weight = 1.0 / (1.0 - (-(size as f64) / mean).exp());
        let mut stack = Vec::with_capacity(FRAMES_MAX);
        backtrace::trace(|frame| {
            stack.push(frame.ip() as usize);
            stack.len() < FRAMES_MAX
        });
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let table = &mut *table;
        let known = table.stacks.get(&stack).copied();
        let index = match known {
            Some(index) => index,
            None if table.totals.len() < STACKS_MAX => {
                table.totals.push(Totals::default());
                table.stacks.insert(stack, table.totals.len() - 1);
                table.totals.len() - 1
            }
            None => {
                table.lost += 1;
                return;
            }
        };
        let totals = &mut table.totals[index];
        let space = weight * size as f64;
        totals.alloc_objects += weight;
        totals.alloc_space += space;
        if table.live.len() < LIVE_MAX && table.live.insert(address, (index, weight, space)).is_none() {
            LIVE[slot(address)].fetch_add(1, Ordering::AcqRel);
        } else if table.live.len() >= LIVE_MAX {
            table.lost += 1;
            totals.freed_objects += weight;
            totals.freed_space += space;
        }
    });
}

#[cold]
fn forget(address: usize) {
    outside(|| {
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((index, objects, space)) = table.live.remove(&address) {
            LIVE[slot(address)].fetch_sub(1, Ordering::AcqRel);
            let totals = &mut table.totals[index];
            totals.freed_objects += objects;
            totals.freed_space += space;
        }
    });
}

/// Bytes until the next sample, exponentially distributed.
fn draw(mean: f64) -> i64 {
    let seed = SEED.get();
    let seed = if seed == 0 {
        // Any thread's own address is as good as any.
        SEED.with(|cell| std::ptr::from_ref(cell) as u64) | 1
    } else {
        seed
    };
    // xorshift64* (Marsaglia; Vigna).
    let mut next = seed;
    next ^= next >> 12;
    next ^= next << 25;
    next ^= next >> 27;
    SEED.set(next);
    let uniform = (next.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64;
    (-mean * (1.0 - uniform).ln()) as i64
}

/// Samples from now on, with so many bytes between two samples on average. To be called once, early.
pub fn start(mean: u64) {
    MEAN.store(mean, Ordering::Relaxed);
}

/// Whether allocations are sampled.
pub fn is_on() -> bool {
    MEAN.load(Ordering::Relaxed) != 0
}

/// The file, as it is now: `alloc_objects`, `alloc_space`, `inuse_objects`, `inuse_space`. Takes its time to find names.
///
/// # Errors
/// It cannot be compressed.
pub fn profile() -> std::io::Result<Vec<u8>> {
    let taken = outside(|| {
        let table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        let stacks: Vec<(Vec<usize>, Totals)> = table
            .stacks
            .iter()
            .map(|(stack, &index)| (stack.clone(), table.totals[index]))
            .collect();
        stacks
    });
    let mean = MEAN.load(Ordering::Relaxed) as i64;
    let types = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    let mut builder = Builder::new(&types, ("space", "bytes", mean));
    builder.default_type("inuse_space");
    for (stack, totals) in taken.unwrap_or_default() {
        let values = [
            totals.alloc_objects,
            totals.alloc_space,
            totals.alloc_objects - totals.freed_objects,
            totals.alloc_space - totals.freed_space,
        ];
        let values = values.map(|value| value.max(0.0).round() as i64).to_vec();
        // The innermost frames are the profiler's own.
        builder.sample(strip(&stack), values);
    }
    builder.finish()
}

/// A stack without the profiler's frames.
fn strip(stack: &[usize]) -> &[usize] {
    let own = stack.iter().position(|&address| {
        let mut ours = false;
        backtrace::resolve(address as *mut _, |symbol| {
            let name = symbol.name().map(|name| name.to_string()).unwrap_or_default();
            ours |= name.contains("profile::heap") || name.contains("backtrace::");
        });
        !ours
    });
    &stack[own.unwrap_or(0)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_mean_they_should() {
        let draws = 200_000;
        let sum: f64 = (0..draws).map(|_| draw(1000.0) as f64).sum();
        let mean = sum / f64::from(draws);
        assert!((970.0..1030.0).contains(&mean), "{mean}");
    }

    #[test]
    fn addresses_spread_over_the_filter() {
        let slots: std::collections::HashSet<usize> =
            (0..10_000).map(|n| slot(0x7f00_0000_0000 + n * 64)).collect();
        assert!(slots.len() > 8_500, "{}", slots.len());
        assert!(slots.iter().all(|slot| *slot < FILTER));
    }
}

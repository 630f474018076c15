//! A latency histogram that one worker writes and anybody reads, in the layout of HdrHistogram.
//!
//! # Layout
//! The unit is 1 µs, the range 1 µs to 1 h. Values below `CELLS` have a cell each; above, every power of two
//! `[2ⁿ, 2ⁿ⁺¹)` is cut into `CELLS` equal cells, so that a cell is never wider than its value divided by `CELLS`. With
//! 1,024 cells a block that is HdrHistogram with 3 significant digits, with 128 it is 2 digits. Block 0 holds
//! `[0, CELLS)`, block *b* ≥ 1 holds `[CELLS·2ᵇ⁻¹, CELLS·2ᵇ)`. The numbers of the cells are HdrHistogram's own, so counts
//! move into an [`hdrhistogram::Histogram`] without loss, and merging workers is adding cells: percentiles of a merge
//! are those of one histogram that saw every value.
//!
//! # Memory
//! All of it would be 184 KB at 3 digits. A block is allocated when the first value falls into it (8 KB at 3 digits,
//! 1 KB at 2) and lives as long as the histogram; latencies of one backend touch a handful.
//!
//! # Beside the cells
//! Sum and maximum are kept exactly, in nanoseconds. The sum is two counters, whole microseconds and the nanoseconds
//! beyond them: one counter of nanoseconds would overflow in three weeks where 10,000 slow exchanges are always in
//! flight. Values past the range are put into the last cell and counted apart.

use std::array;
use std::sync::OnceLock;
use std::time::Duration;

use super::cell::Counter;

/// The largest value that has a cell of its own: one hour, in µs.
pub const MAX_US: u64 = 3_600_000_000;

/// Blocks of the finest division that is used (128 cells: 2 digits) up to [`MAX_US`]; 1,024 cells need 23.
const BLOCKS: usize = 26;

/// 3 significant digits.
pub type Fine = Histogram<1024>;
/// 2 significant digits.
pub type Coarse = Histogram<128>;

/// See the module's documentation. `CELLS`, cells per block, is 1,024 or 128.
#[derive(Debug)]
pub struct Histogram<const CELLS: usize> {
    blocks: [OnceLock<Box<[Counter; CELLS]>>; BLOCKS],
    sum_us: Counter,
    /// What `sum_us` leaves out: at most 999 for each value.
    sum_ns_beyond_us: Counter,
    max_ns: Counter,
    clamped: Counter,
}

impl<const CELLS: usize> Default for Histogram<CELLS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const CELLS: usize> Histogram<CELLS> {
    /// The power of two that `CELLS` is. Refuses, at compile time, a division that is not HdrHistogram's.
    const MAGNITUDE: u32 = {
        assert!(CELLS == 1024 || CELLS == 128);
        CELLS.trailing_zeros()
    };

    /// Significant decimal digits, as HdrHistogram counts them.
    const DIGITS: u8 = if CELLS == 1024 { 3 } else { 2 };

    /// A histogram that holds no block yet.
    pub fn new() -> Self {
        Histogram {
            blocks: array::from_fn(|_| OnceLock::new()),
            sum_us: Counter::new(),
            sum_ns_beyond_us: Counter::new(),
            max_ns: Counter::new(),
            clamped: Counter::new(),
        }
    }

    /// Records one value. Only the worker that owns the histogram may call this.
    #[inline]
    pub fn record(&self, elapsed: Duration) {
        let nanos = u64::from(elapsed.subsec_nanos());
        let us = elapsed
            .as_secs()
            .saturating_mul(1_000_000)
            .saturating_add(nanos / 1_000);
        let (block, cell) = Self::place(us.min(MAX_US));
        if let Some(slot) = self.blocks.get(block) {
            slot.get_or_init(new_block)[cell].add(1);
        }
        if us > MAX_US {
            self.clamped.add(1);
        }
        self.sum_us.add(us);
        self.sum_ns_beyond_us.add(nanos % 1_000);
        self.max_ns.raise_to(
            elapsed
                .as_secs()
                .saturating_mul(1_000_000_000)
                .saturating_add(nanos),
        );
    }

    /// Adds every count to `to`, which must have this histogram's digits and reach [`MAX_US`] (as [`Self::empty_hdr`]).
    pub fn merge_into(&self, to: &mut hdrhistogram::Histogram<u64>) {
        let mut merged = Merged::new();
        merged.add(self);
        merged.merge_into(to);
    }

    /// An empty histogram of the same layout.
    pub fn empty_hdr() -> hdrhistogram::Histogram<u64> {
        hdrhistogram::Histogram::new_with_bounds(1, MAX_US, Self::DIGITS)
            .expect("constant bounds that are valid")
    }

    /// The block and the cell in it of a value; HdrHistogram's cell number is `block · CELLS + cell`.
    #[inline]
    fn place(us: u64) -> (usize, usize) {
        // How often the value must be halved to fit two blocks' worth of cells: the linear part, then its upper half.
        let halvings = (u64::BITS - 1 - (us | (2 * CELLS as u64 - 1)).leading_zeros()) - Self::MAGNITUDE;
        let scaled = (us >> halvings) as usize;
        (
            halvings as usize + (scaled >> Self::MAGNITUDE),
            scaled & (CELLS - 1),
        )
    }

    /// The smallest value that [`Self::place`] puts there.
    fn lowest(block: usize, cell: usize) -> u64 {
        match block.checked_sub(1) {
            None => cell as u64,
            Some(halvings) => ((CELLS + cell) as u64) << halvings,
        }
    }
}

#[cold]
fn new_block<const CELLS: usize>() -> Box<[Counter; CELLS]> {
    Box::new([const { Counter::new() }; CELLS])
}

/// The sum of several histograms of one layout, as plain numbers: what a scrape adds workers up in. Reusable.
#[derive(Debug)]
pub struct Merged<const CELLS: usize> {
    cells: Box<[[u64; CELLS]; BLOCKS]>,
    /// Which blocks hold anything, by bit.
    touched: u32,
    /// Values recorded.
    pub count: u64,
    /// Exact sum of all values.
    pub sum_ns: u128,
    /// The largest value, exact.
    pub max_ns: u64,
    /// Values that were past [`MAX_US`].
    pub clamped: u64,
}

impl<const CELLS: usize> Default for Merged<CELLS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const CELLS: usize> Merged<CELLS> {
    /// Nothing merged yet.
    pub fn new() -> Self {
        Merged {
            cells: Box::new([[0; CELLS]; BLOCKS]),
            touched: 0,
            count: 0,
            sum_ns: 0,
            max_ns: 0,
            clamped: 0,
        }
    }

    /// Adds what `from` holds now.
    pub fn add(&mut self, from: &Histogram<CELLS>) {
        for (index, (slot, cells)) in from.blocks.iter().zip(self.cells.iter_mut()).enumerate() {
            let Some(block) = slot.get() else { continue };
            self.touched |= 1 << index;
            let mut in_block = 0;
            for (cell, counter) in cells.iter_mut().zip(block.iter()) {
                let count = counter.get();
                *cell += count;
                in_block += count;
            }
            self.count += in_block;
        }
        self.sum_ns += u128::from(from.sum_us.get()) * 1_000 + u128::from(from.sum_ns_beyond_us.get());
        self.max_ns = self.max_ns.max(from.max_ns.get());
        self.clamped += from.clamped.get();
    }

    /// Adds every count to `to`, which must have this layout (as [`Histogram::empty_hdr`] gives it).
    pub fn merge_into(&self, to: &mut hdrhistogram::Histogram<u64>) {
        for (block, cells) in self.touched_blocks() {
            for (cell, &count) in cells.iter().enumerate().filter(|(_, count)| **count > 0) {
                to.saturating_record_n(Histogram::<CELLS>::lowest(block, cell), count);
            }
        }
    }

    /// Forgets everything, at the cost of the touched blocks only.
    pub fn clear(&mut self) {
        for (index, cells) in self.cells.iter_mut().enumerate() {
            if self.touched & (1 << index) != 0 {
                cells.fill(0);
            }
        }
        self.touched = 0;
        self.count = 0;
        self.sum_ns = 0;
        self.max_ns = 0;
        self.clamped = 0;
    }

    fn touched_blocks(&self) -> impl Iterator<Item = (usize, &[u64; CELLS])> {
        self.cells
            .iter()
            .enumerate()
            .filter(|(index, _)| self.touched & (1 << index) != 0)
    }
}

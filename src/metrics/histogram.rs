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
use super::distribution::Distribution;

/// The largest value that has a cell of its own: one hour, in µs.
pub const MAX_US: u64 = 3_600_000_000;

/// Blocks of the finest division that is used (128 cells: 2 digits) up to [`MAX_US`]; 1,024 cells need 23.
pub(super) const BLOCKS: usize = 26;

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
        let whole = elapsed.as_secs().saturating_mul(1_000_000_000);
        self.record_nanos(whole.saturating_add(u64::from(elapsed.subsec_nanos())));
    }

    /// As [`Self::record`].
    #[inline]
    pub fn record_nanos(&self, nanos: u64) {
        let us = nanos / 1_000;
        let (block, cell) = Self::place(us.min(MAX_US));
        if let Some(slot) = self.blocks.get(block) {
            slot.get_or_init(new_block)[cell].add(1);
        }
        if us > MAX_US {
            self.clamped.add(1);
        }
        self.sum_us.add(us);
        self.sum_ns_beyond_us.add(nanos % 1_000);
        self.max_ns.raise_to(nanos);
    }

    /// The sum of all values modulo 2⁶⁴, which changes with every value but 0.
    pub(super) fn total_ns(&self) -> u64 {
        self.sum_us
            .get()
            .wrapping_mul(1_000)
            .wrapping_add(self.sum_ns_beyond_us.get())
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
    pub(super) fn lowest(block: usize, cell: usize) -> u64 {
        match block.checked_sub(1) {
            None => cell as u64,
            Some(halvings) => ((CELLS + cell) as u64) << halvings,
        }
    }

    /// The largest value that [`Self::place`] puts there.
    pub(super) fn highest(block: usize, cell: usize) -> u64 {
        Self::lowest(block, cell) + (1 << block.saturating_sub(1)) - 1
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

    /// What is in it, as it is handed on.
    pub fn distribution(&self) -> Distribution {
        let mut cells = Vec::new();
        for (index, block) in self.cells.iter().enumerate() {
            if self.touched & (1 << index) == 0 {
                continue;
            }
            for (cell, &count) in block.iter().enumerate().filter(|(_, count)| **count > 0) {
                cells.push((Histogram::<CELLS>::lowest(index, cell), count));
            }
        }
        Distribution::new(
            Histogram::<CELLS>::DIGITS,
            cells,
            self.sum_ns,
            self.max_ns,
            self.clamped,
        )
    }

    /// Adds `count` values to the cell of this number, HdrHistogram's. A number that no cell has is left out.
    pub fn add_cell(&mut self, index: usize, count: u64) {
        let (block, cell) = (index / CELLS, index % CELLS);
        if let Some(cells) = self.cells.get_mut(block) {
            cells[cell] += count;
            self.touched |= 1 << block;
            self.count += count;
        }
    }

    /// Adds `count` values that are equal to `us`, without sum and maximum.
    pub fn add_values(&mut self, us: u64, count: u64) {
        let (block, cell) = Histogram::<CELLS>::place(us.min(MAX_US));
        self.add_cell(block * CELLS + cell, count);
    }

    /// Adds what another sum holds.
    pub fn add_merged(&mut self, from: &Merged<CELLS>) {
        for (block, cells) in from.touched_blocks() {
            self.touched |= 1 << block;
            for (to, from) in self.cells[block].iter_mut().zip(cells) {
                *to += from;
            }
        }
        self.count += from.count;
        self.sum_ns += from.sum_ns;
        self.max_ns = self.max_ns.max(from.max_ns);
        self.clamped += from.clamped;
    }

    /// Adds this to a sum of fewer digits. Every cell lies within one of the wider ones, so no count moves.
    pub fn fold_into<const FEWER: usize>(&self, to: &mut Merged<FEWER>) {
        const { assert!(FEWER <= CELLS) };
        for (block, cells) in self.touched_blocks() {
            for (cell, &count) in cells.iter().enumerate().filter(|(_, count)| **count > 0) {
                to.add_values(Histogram::<CELLS>::lowest(block, cell), count);
            }
        }
        to.sum_ns += self.sum_ns;
        to.max_ns = to.max_ns.max(self.max_ns);
        to.clamped += self.clamped;
    }

    /// The values, in ns, below or at which these shares of all lie: what HdrHistogram gives, but never past the largest.
    /// Shares above 0, up to 1, in ascending order. Zeros if there is nothing.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [u64; N] {
        let mut found = [0; N];
        // As HdrHistogram counts: at least the first value, and up to the one that completes the share.
        let mut wanted = shares
            .iter()
            .map(|share| ((share * self.count as f64).ceil() as u64).max(1))
            .enumerate()
            .peekable();
        let mut seen = 0;
        for (block, cells) in self.touched_blocks() {
            if wanted.peek().is_none() {
                break;
            }
            for (cell, count) in cells.iter().enumerate() {
                seen += count;
                while let Some((at, _)) = wanted.next_if(|(_, rank)| *count > 0 && *rank <= seen) {
                    found[at] = Histogram::<CELLS>::highest(block, cell)
                        .saturating_mul(1_000)
                        .min(self.max_ns);
                }
            }
        }
        found
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

    pub(super) fn touched_blocks(&self) -> impl Iterator<Item = (usize, &[u64; CELLS])> {
        self.cells
            .iter()
            .enumerate()
            .filter(|(index, _)| self.touched & (1 << index) != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{Coarse, Fine, Histogram, MAX_US, Merged};

    /// Values of every magnitude, some past the range.
    fn any_us() -> impl Strategy<Value = u64> {
        (0..33_u32, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
    }

    fn allocated<const CELLS: usize>(histogram: &Histogram<CELLS>) -> Vec<usize> {
        let blocks = histogram.blocks.iter().enumerate();
        blocks
            .filter_map(|(index, block)| block.get().map(|_| index))
            .collect()
    }

    /// Four shards that share the values against one HdrHistogram that saw them all.
    fn merge_is_exact<const CELLS: usize>(values: &[u64]) {
        let shards = [(); 4].map(|()| Histogram::<CELLS>::new());
        let mut expected = Histogram::<CELLS>::empty_hdr();
        let mut sum_ns = 0;
        for (index, &us) in values.iter().enumerate() {
            shards[index % 4].record(Duration::from_micros(us) + Duration::from_nanos(index as u64 % 1_000));
            expected.record(us.min(MAX_US)).unwrap();
            sum_ns += u128::from(us) * 1_000 + index as u128 % 1_000;
        }
        let mut merged = Merged::new();
        let mut actual = Histogram::<CELLS>::empty_hdr();
        for shard in &shards {
            merged.add(shard);
            shard.merge_into(&mut actual);
        }
        assert_eq!(actual, expected);
        for tenth_of_percent in 0..=1_000 {
            let quantile = f64::from(tenth_of_percent) / 1_000.0;
            assert_eq!(
                actual.value_at_quantile(quantile),
                expected.value_at_quantile(quantile)
            );
        }
        let shares = [0.001, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0];
        let read_off = merged.quantiles(shares);
        for (share, ns) in shares.into_iter().zip(read_off).filter(|_| !values.is_empty()) {
            let us = expected.value_at_quantile(share);
            assert_eq!(ns, us.saturating_mul(1_000).min(merged.max_ns), "{share}");
        }
        let mut at_once = Histogram::<CELLS>::empty_hdr();
        merged.merge_into(&mut at_once);
        assert_eq!(at_once, expected);
        assert_eq!(merged.count, values.len() as u64);
        assert_eq!(merged.sum_ns, sum_ns);
        let over = values.iter().filter(|us| **us > MAX_US).count();
        assert_eq!(merged.clamped, over as u64);
    }

    proptest! {
        #[test]
        fn merging_shards_gives_the_histogram_that_saw_everything(values in vec(any_us(), 0..2_000)) {
            merge_is_exact::<1024>(&values);
            merge_is_exact::<128>(&values);
        }
    }

    fn cells_are_those_of_hdrhistogram<const CELLS: usize>() {
        let hdr = Histogram::<CELLS>::empty_hdr();
        let edges = (0..32).map(|bits| 1_u64 << bits);
        let near = edges.flat_map(|edge| (edge.saturating_sub(3)..edge + 3).chain([edge + edge / 3]));
        for us in near
            .chain(0..5_000)
            .chain([MAX_US - 1, MAX_US])
            .filter(|us| *us <= MAX_US)
        {
            let (block, cell) = Histogram::<CELLS>::place(us);
            assert_eq!(
                Histogram::<CELLS>::lowest(block, cell),
                hdr.lowest_equivalent(us),
                "{us}"
            );
            assert!(block < super::BLOCKS, "{us}");
        }
    }

    #[test]
    fn every_value_falls_into_the_cell_that_hdrhistogram_has_for_it() {
        cells_are_those_of_hdrhistogram::<1024>();
        cells_are_those_of_hdrhistogram::<128>();
    }

    #[test]
    fn a_block_is_allocated_by_the_first_value_in_it() {
        let fine = Fine::new();
        assert!(allocated(&fine).is_empty());
        for (us, blocks) in [
            (1_023, vec![0]),
            (0, vec![0]),
            (1_024, vec![0, 1]),
            (2_047, vec![0, 1]),
            (2_048, vec![0, 1, 2]),
            (MAX_US, vec![0, 1, 2, 22]),
        ] {
            fine.record(Duration::from_micros(us));
            assert_eq!(allocated(&fine), blocks, "{us}");
        }
        let coarse = Coarse::new();
        coarse.record(Duration::from_micros(MAX_US));
        assert_eq!(allocated(&coarse), [25]);
    }

    #[test]
    fn sum_and_maximum_are_exact_to_the_nanosecond() {
        let histogram = Fine::new();
        histogram.record(Duration::from_nanos(1_999));
        histogram.record(Duration::from_nanos(999));
        histogram.record(Duration::from_nanos(5_000_000_007));
        let mut merged = Merged::new();
        merged.add(&histogram);
        assert_eq!(
            (merged.count, merged.sum_ns, merged.max_ns),
            (3, 5_000_003_005, 5_000_000_007)
        );
    }

    #[test]
    fn what_is_past_an_hour_counts_as_an_hour_and_is_counted_apart() {
        let histogram = Fine::new();
        histogram.record(Duration::from_secs(3_600));
        histogram.record(Duration::from_secs(7_200));
        histogram.record(Duration::MAX);
        let mut merged = Merged::new();
        merged.add(&histogram);
        assert_eq!((merged.count, merged.clamped, merged.max_ns), (3, 2, u64::MAX));
        let mut hdr = Fine::empty_hdr();
        merged.merge_into(&mut hdr);
        assert_eq!(hdr.value_at_quantile(0.0), hdr.lowest_equivalent(MAX_US));
    }

    #[test]
    fn a_cleared_merge_is_as_new() {
        let (first, second) = (Fine::new(), Fine::new());
        first.record(Duration::from_secs(7_200));
        second.record(Duration::from_micros(3));
        let mut merged = Merged::new();
        merged.add(&first);
        merged.clear();
        merged.add(&second);
        let mut hdr = Fine::empty_hdr();
        merged.merge_into(&mut hdr);
        assert_eq!((hdr.len(), hdr.max()), (1, 3));
        assert_eq!(
            (merged.count, merged.sum_ns, merged.max_ns, merged.clamped),
            (1, 3_000, 3_000, 0)
        );
    }
}

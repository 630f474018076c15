//! What a histogram grew by since somebody last looked, in few bytes: what the history of the last minutes is made of.
//!
//! A reader keeps a [`Baseline`] of each histogram and asks a [`Merged`] for its [`Delta`]: the cells that grew and by how
//! much. Adding deltas is adding cells, so that any span of them gives the very histogram of that span; nothing is averaged.

use super::histogram::{BLOCKS, Histogram, Merged};

/// Bytes of the longest variable-length number that [`Delta`] writes: 64 bits, 7 a byte.
const LONGEST_NUMBER: usize = 10;

/// What a reader saw of a histogram the last time. A block is allocated with the first value in it, at half the size of
/// the worker's own.
#[derive(Debug)]
pub struct Baseline<const CELLS: usize> {
    /// Counts modulo 2³²: no cell grows by as many between two looks.
    blocks: [Option<Box<[u32; CELLS]>>; BLOCKS],
    sum_ns: u128,
    max_ns: u64,
    clamped: u64,
}

impl<const CELLS: usize> Default for Baseline<CELLS> {
    fn default() -> Self {
        Baseline {
            blocks: [const { None }; BLOCKS],
            sum_ns: 0,
            max_ns: 0,
            clamped: 0,
        }
    }
}

impl<const CELLS: usize> Baseline<CELLS> {
    /// What `now` holds beyond this; from now on `now` is what was seen. `scratch` saves an allocation.
    pub fn advance(&mut self, now: &Merged<CELLS>, scratch: &mut Vec<u8>) -> Delta<CELLS> {
        scratch.clear();
        let mut count = 0;
        let mut next = 0;
        let mut highest = None;
        for (block, cells) in now.touched_blocks() {
            let seen = self.blocks[block].get_or_insert_with(|| Box::new([0; CELLS]));
            for (cell, (now, seen)) in cells.iter().zip(seen.iter_mut()).enumerate() {
                // Modulo 2³² on purpose.
                let total = *now as u32;
                let grown = total.wrapping_sub(*seen);
                if grown == 0 {
                    continue;
                }
                *seen = total;
                let index = block * CELLS + cell;
                write_number(scratch, (index - next) as u64);
                write_number(scratch, u64::from(grown));
                next = index + 1;
                count += u64::from(grown);
                highest = Some((block, cell));
            }
        }
        let delta = Delta {
            cells: scratch.as_slice().into(),
            count,
            sum_ns: now.sum_ns.saturating_sub(self.sum_ns),
            max_ns: match highest {
                None => 0,
                // Larger than ever before: it happened since. Past the range, nothing better is known.
                Some(_) if now.max_ns > self.max_ns || now.clamped > self.clamped => now.max_ns,
                Some((block, cell)) => Histogram::<CELLS>::highest(block, cell)
                    .saturating_mul(1_000)
                    .saturating_add(999)
                    .min(now.max_ns),
            },
            clamped: now.clamped.saturating_sub(self.clamped),
        };
        self.sum_ns = now.sum_ns;
        self.max_ns = now.max_ns;
        self.clamped = now.clamped;
        delta
    }
}

/// How much the cells of a histogram grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta<const CELLS: usize> {
    /// For each cell that grew, in ascending order: how many cells were left out before it, and by how much. 7 bits a byte,
    /// the lowest first, the highest bit set in all but a number's last byte.
    cells: Box<[u8]>,
    /// Values recorded.
    pub count: u64,
    /// Their exact sum; a value that was recorded while the histogram was read may be in the next delta's sum.
    pub sum_ns: u128,
    /// The largest: exact if it is the largest there ever was, else the upper end of its cell; past the range, the largest
    /// there ever was.
    pub max_ns: u64,
    /// Values past the histogram's range.
    pub clamped: u64,
}

impl<const CELLS: usize> Default for Delta<CELLS> {
    fn default() -> Self {
        Delta {
            cells: Box::default(),
            count: 0,
            sum_ns: 0,
            max_ns: 0,
            clamped: 0,
        }
    }
}

impl<const CELLS: usize> Delta<CELLS> {
    /// All that `merged` holds.
    pub fn of(merged: &Merged<CELLS>, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        let mut next = 0;
        for (block, cells) in merged.touched_blocks() {
            for (cell, &count) in cells.iter().enumerate().filter(|(_, count)| **count > 0) {
                let index = block * CELLS + cell;
                write_number(scratch, (index - next) as u64);
                write_number(scratch, count);
                next = index + 1;
            }
        }
        Delta {
            cells: scratch.as_slice().into(),
            count: merged.count,
            sum_ns: merged.sum_ns,
            max_ns: merged.max_ns,
            clamped: merged.clamped,
        }
    }

    /// Adds this to a sum of histograms.
    pub fn add_to(&self, merged: &mut Merged<CELLS>) {
        for (index, count) in self.cells() {
            merged.add_cell(index, count);
        }
        merged.sum_ns += self.sum_ns;
        merged.max_ns = merged.max_ns.max(self.max_ns);
        merged.clamped += self.clamped;
    }

    /// The smallest value, in µs, of each cell that grew, and by how much, in ascending order.
    pub fn values(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.cells()
            .map(|(index, count)| (Histogram::<CELLS>::lowest(index / CELLS, index % CELLS), count))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.cells.len()
    }

    fn cells(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let mut rest = &*self.cells;
        let mut next = 0;
        std::iter::from_fn(move || {
            let index = next + read_number(&mut rest)? as usize;
            next = index + 1;
            Some((index, read_number(&mut rest)?))
        })
    }
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The next number; none at the end.
fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..LONGEST_NUMBER {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            break;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::histogram::MAX_US;

    fn any_us() -> impl Strategy<Value = u64> {
        (0..33_u32, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
    }

    /// Seconds of values over two workers: the deltas of any run of seconds add up to the histogram of just those values.
    fn deltas_add_up<const CELLS: usize>(seconds: &[Vec<u64>], from: usize) {
        let workers = [Histogram::<CELLS>::new(), Histogram::<CELLS>::new()];
        let mut baseline = Baseline::default();
        let mut scratch = Vec::new();
        let mut deltas = Vec::new();
        for second in seconds {
            for (index, &us) in second.iter().enumerate() {
                workers[index % 2].record(Duration::from_micros(us));
            }
            let mut merged = Merged::new();
            workers.iter().for_each(|worker| merged.add(worker));
            deltas.push(baseline.advance(&merged, &mut scratch));
        }
        let from = from.min(seconds.len());
        let mut sum = Merged::new();
        deltas[from..].iter().for_each(|delta| delta.add_to(&mut sum));
        let mut expected = Histogram::<CELLS>::empty_hdr();
        let values: Vec<u64> = seconds[from..].concat();
        for us in &values {
            expected.record((*us).min(MAX_US)).unwrap();
        }
        let mut actual = Histogram::<CELLS>::empty_hdr();
        sum.merge_into(&mut actual);
        assert_eq!(actual, expected);
        assert_eq!(sum.count, values.len() as u64);
        assert_eq!(
            sum.sum_ns,
            values.iter().map(|us| u128::from(*us) * 1_000).sum::<u128>()
        );
        assert_eq!(
            sum.clamped,
            values.iter().filter(|us| **us > MAX_US).count() as u64
        );
        let largest = values.iter().max().copied().unwrap_or(0) * 1_000;
        assert!(sum.max_ns >= largest);
        // Within the range, at most a cell's width above it.
        let bound = largest / 1_000 * (CELLS as u64 + 1) / CELLS as u64 + 1;
        assert!(sum.clamped > 0 || sum.max_ns / 1_000 <= bound);
        let again = Delta::of(&sum, &mut scratch);
        let mut copy = Merged::new();
        again.add_to(&mut copy);
        let mut of_copy = Histogram::<CELLS>::empty_hdr();
        copy.merge_into(&mut of_copy);
        assert_eq!(of_copy, expected);
    }

    proptest! {
        #[test]
        fn any_run_of_deltas_is_the_histogram_of_what_happened_in_it(
            seconds in vec(vec(any_us(), 0..200), 0..8),
            from in 0..8_usize,
        ) {
            deltas_add_up::<1024>(&seconds, from);
            deltas_add_up::<128>(&seconds, from);
        }

        #[test]
        fn numbers_come_back(numbers in vec(any::<u64>().prop_flat_map(|n| (0..64_u32).prop_map(move |by| n >> by)), 0..50)) {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|number| write_number(&mut bytes, *number));
            let mut rest = bytes.as_slice();
            for number in numbers {
                prop_assert_eq!(read_number(&mut rest), Some(number));
            }
            prop_assert_eq!(read_number(&mut rest), None);
        }
    }

    #[test]
    fn nothing_new_is_no_bytes() {
        let histogram = Histogram::<1024>::new();
        histogram.record(Duration::from_millis(3));
        let mut merged = Merged::new();
        merged.add(&histogram);
        let (mut baseline, mut scratch) = (Baseline::default(), Vec::new());
        let first = baseline.advance(&merged, &mut scratch);
        assert_eq!(
            (first.count, first.max_ns, first.sum_ns),
            (1, 3_000_000, 3_000_000)
        );
        let second = baseline.advance(&merged, &mut scratch);
        assert_eq!(second, Delta::default());
        assert_eq!(second.heap_bytes(), 0);
    }

    #[test]
    fn a_count_that_passes_four_thousand_million_goes_on() {
        let mut merged = Merged::<128>::new();
        merged.add_cell(5, u64::from(u32::MAX) - 1);
        let (mut baseline, mut scratch) = (Baseline::default(), Vec::new());
        baseline.advance(&merged, &mut scratch);
        merged.add_cell(5, 10);
        assert_eq!(baseline.advance(&merged, &mut scratch).count, 10);
    }
}

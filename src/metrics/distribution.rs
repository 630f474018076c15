//! A latency distribution at one moment: the cells that hold anything, as plain numbers.
//!
//! Made by merging the histograms of all workers ([`super::histogram::Merged`]); what is read from it is what one
//! HdrHistogram that saw every value would say. Two of them can be added (backends to a pool) and subtracted (then and
//! now to what happened between), without any error: they are counts of the same cells.

use super::histogram::MAX_US;

/// Powers of two, in µs, at which classic histograms are cut: 64 µs to 67 s. All of them are edges of cells at 2 and at 3
/// digits, so that what is counted below them is exact.
pub const EDGES_US: [u64; 21] = {
    let mut edges = [0; 21];
    let mut index = 0;
    while index < edges.len() {
        edges[index] = 64 << index;
        index += 1;
    }
    edges
};

/// Sparse counts of the cells of a histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Significant digits, 2 or 3.
    digits: u8,
    /// The smallest value of a cell, in µs, and how many values lie in it; ascending, no zeros.
    cells: Vec<(u64, u64)>,
    pub count: u64,
    /// Exact sum of all values.
    pub sum_ns: u128,
    /// The largest value, exact; of a difference the largest value that it can have had.
    pub max_ns: u64,
    /// Values that were past [`MAX_US`].
    pub clamped: u64,
}

impl Distribution {
    /// `cells` are ascending and hold no zeros.
    pub(super) fn new(
        digits: u8,
        cells: Vec<(u64, u64)>,
        sum_ns: u128,
        max_ns: u64,
        clamped: u64,
    ) -> Distribution {
        Distribution {
            digits,
            count: cells.iter().map(|(_, count)| count).sum(),
            cells,
            sum_ns,
            max_ns,
            clamped,
        }
    }

    pub fn digits(&self) -> u8 {
        self.digits
    }

    /// The smallest value of each cell that holds anything, its largest, and how many values lie in it.
    pub fn cells(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.cells
            .iter()
            .map(|&(lowest, count)| (lowest, self.highest(lowest), count))
    }

    /// The largest value, in µs, of the cell that begins with `lowest`.
    fn highest(&self, lowest: u64) -> u64 {
        let magnitude = if self.digits == 3 { 10 } else { 7 };
        let halvings = (63 - (lowest | ((2 << magnitude) - 1)).leading_zeros()) - magnitude;
        lowest + (1 << halvings) - 1
    }

    /// Exact; zero without values.
    pub fn mean_ns(&self) -> u64 {
        match self.count {
            0 => 0,
            count => u64::try_from(self.sum_ns / u128::from(count)).unwrap_or(u64::MAX),
        }
    }

    /// The value that `quantile` (0 to 1) of the values do not exceed, to the cell's precision and never past the maximum;
    /// zero without values.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        let wanted = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0;
        for &(lowest, count) in &self.cells {
            below += count;
            if below >= wanted {
                return self.highest(lowest).saturating_mul(1_000).min(self.max_ns);
            }
        }
        0
    }

    /// How many values lie below `edge` µs, which is one of [`EDGES_US`].
    pub fn below(&self, edge: u64) -> u64 {
        let cells = self.cells.iter().take_while(|(lowest, _)| *lowest < edge);
        cells.map(|(_, count)| count).sum()
    }

    /// How many values lie below each of [`EDGES_US`].
    pub fn below_edges(&self) -> [u64; EDGES_US.len()] {
        let mut below = [0; EDGES_US.len()];
        let mut cells = self.cells.iter().peekable();
        let mut sum = 0;
        for (edge, below) in EDGES_US.iter().zip(&mut below) {
            while let Some((_, count)) = cells.next_if(|(lowest, _)| lowest < edge) {
                sum += count;
            }
            *below = sum;
        }
        below
    }

    /// Adds what `other` holds, which has the same digits, or is empty.
    pub fn add(&mut self, other: &Distribution) {
        if self.cells.is_empty() {
            self.digits = other.digits;
        }
        self.combine(other, |ours, theirs| ours + theirs);
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
        self.clamped += other.clamped;
    }

    /// What came since `earlier`, a state of the same histograms.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let mut between = self.clone();
        between.combine(earlier, |now, then| now.saturating_sub(then));
        between.cells.retain(|(_, count)| *count > 0);
        between.count = between.cells.iter().map(|(_, count)| count).sum();
        between.sum_ns = self.sum_ns.saturating_sub(earlier.sum_ns);
        between.clamped = self.clamped.saturating_sub(earlier.clamped);
        // Past the range a cell says nothing of the largest value in it.
        if self.max_ns == earlier.max_ns && between.clamped == 0 {
            let highest = between
                .cells
                .last()
                .map_or(0, |&(lowest, _)| self.highest(lowest));
            between.max_ns = self.max_ns.min(highest.saturating_mul(1_000) + 999);
        }
        between
    }

    fn combine(&mut self, other: &Distribution, join: impl Fn(u64, u64) -> u64) {
        let mut cells = Vec::with_capacity(self.cells.len().max(other.cells.len()));
        let (mut ours, mut theirs) = (self.cells.iter().peekable(), other.cells.iter().peekable());
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some(&&(at, count)), Some(&&(other_at, other_count))) if at == other_at => {
                    ours.next();
                    theirs.next();
                    (at, join(count, other_count))
                }
                (Some(&&(at, count)), Some(&&(other_at, _))) if at < other_at => {
                    ours.next();
                    (at, join(count, 0))
                }
                (Some(&&(at, count)), None) => {
                    ours.next();
                    (at, join(count, 0))
                }
                (_, Some(&&(other_at, other_count))) => {
                    theirs.next();
                    (other_at, join(0, other_count))
                }
                (None, None) => break,
            };
            cells.push(next);
        }
        self.cells = cells;
    }

    /// The same as an HdrHistogram in µs, of this many digits.
    pub fn to_hdr(&self) -> hdrhistogram::Histogram<u64> {
        let digits = if self.digits == 3 { 3 } else { 2 };
        let mut hdr = hdrhistogram::Histogram::new_with_bounds(1, MAX_US, digits)
            .expect("constant bounds that are valid");
        for &(lowest, count) in &self.cells {
            hdr.saturating_record_n(lowest, count);
        }
        hdr
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::histogram::{Coarse, Fine, Histogram, Merged};

    fn any_us() -> impl Strategy<Value = u64> {
        (0..33_u32, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
    }

    fn of<const CELLS: usize>(values: &[u64]) -> Distribution {
        let histogram = Histogram::<CELLS>::new();
        for &us in values {
            histogram.record(Duration::from_micros(us));
        }
        let mut merged = Merged::new();
        merged.add(&histogram);
        merged.distribution()
    }

    fn agrees<const CELLS: usize>(values: &[u64]) -> Result<(), TestCaseError> {
        let distribution = of::<CELLS>(values);
        let mut hdr = Histogram::<CELLS>::empty_hdr();
        for &us in values {
            hdr.record(us.min(MAX_US)).unwrap();
        }
        prop_assert_eq!(&distribution.to_hdr(), &hdr);
        prop_assert_eq!(distribution.count, values.len() as u64);
        for tenth_of_percent in 1..=1_000 {
            let quantile = f64::from(tenth_of_percent) / 1_000.0;
            let expected = (hdr.value_at_quantile(quantile) * 1_000).min(distribution.max_ns);
            prop_assert_eq!(distribution.quantile_ns(quantile), expected, "{}", quantile);
        }
        let below = distribution.below_edges();
        for (edge, below) in EDGES_US.iter().zip(below) {
            let exact = values.iter().filter(|us| *us < edge).count() as u64;
            prop_assert_eq!((below, distribution.below(*edge)), (exact, exact));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_says_what_one_histogram_of_all_values_says(values in vec(any_us(), 1..300)) {
            agrees::<1024>(&values)?;
            agrees::<128>(&values)?;
        }

        #[test]
        fn sums_and_differences_are_exact(
            first in vec(any_us(), 0..200),
            second in vec(any_us(), 0..200),
        ) {
            let both: Vec<u64> = first.iter().chain(&second).copied().collect();
            let (then, now) = (of::<1024>(&first), of::<1024>(&both));
            let expected = of::<1024>(&second);
            let between = now.since(&then);
            prop_assert_eq!(&between.cells, &expected.cells);
            prop_assert_eq!(between.sum_ns, expected.sum_ns);
            prop_assert!(between.max_ns >= expected.max_ns);
            prop_assert_eq!(between.clamped, expected.clamped);
            let mut sum = then.clone();
            sum.add(&expected);
            prop_assert_eq!(sum, now);
        }
    }

    #[test]
    fn without_values_there_is_nothing() {
        let empty = Distribution::default();
        assert_eq!((empty.quantile_ns(0.5), empty.mean_ns(), empty.count), (0, 0, 0));
        assert_eq!(of::<1024>(&[]).below_edges(), [0; EDGES_US.len()]);
        let (_, _): (Fine, Coarse) = Default::default();
    }
}

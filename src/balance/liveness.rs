//! Who may be chosen, as bits that are published at every change and that every worker reads at each pick.

use std::sync::atomic::{AtomicU64, Ordering};

/// One bit for each backend of a pool, by position.
#[derive(Debug)]
pub struct Bitmap {
    words: Box<[AtomicU64]>,
    len: usize,
}

impl Bitmap {
    /// `len` bits, all set to `value`.
    pub fn new(len: usize, value: bool) -> Self {
        let bitmap = Bitmap {
            words: (0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            len,
        };
        if value {
            (0..len).for_each(|index| bitmap.set(index, true));
        }
        bitmap
    }

    /// Bits, set or not.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the bit is set; an index past the end is not.
    #[inline]
    pub fn get(&self, index: usize) -> bool {
        self.word(index / 64) >> (index % 64) & 1 == 1
    }

    /// Sets or clears one bit; an index past the end changes nothing.
    pub fn set(&self, index: usize, value: bool) {
        let Some(word) = self.words.get(index / 64).filter(|_| index < self.len) else {
            return;
        };
        let bit = 1 << (index % 64);
        if value {
            word.fetch_or(bit, Ordering::Release);
        } else {
            word.fetch_and(!bit, Ordering::Release);
        }
    }

    /// Words of 64 bits each.
    #[inline]
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Bits `64 * index` and following; none past the end.
    #[inline]
    pub fn word(&self, index: usize) -> u64 {
        self.words
            .get(index)
            .map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Replaces 64 bits at once.
    pub fn store_word(&self, index: usize, bits: u64) {
        if let Some(word) = self.words.get(index) {
            word.store(bits, Ordering::Release);
        }
    }

    /// Bits that are set.
    pub fn count(&self) -> usize {
        (0..self.words.len())
            .map(|at| self.word(at).count_ones() as usize)
            .sum()
    }
}

/// The backends that one pick may choose from: those of a bitmap, less those that the exchange has tried.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    bitmap: &'a Bitmap,
    tried: &'a [u16],
}

impl<'a> Candidates<'a> {
    pub fn new(bitmap: &'a Bitmap, tried: &'a [u16]) -> Self {
        Candidates { bitmap, tried }
    }

    /// Whether something of the bitmap is left out: this is not the first attempt.
    #[inline]
    pub fn is_retry(&self) -> bool {
        !self.tried.is_empty()
    }

    /// Positions that the exchange has tried.
    #[inline]
    pub fn tried(&self) -> &'a [u16] {
        self.tried
    }

    /// The same with another list of those tried.
    #[inline]
    pub fn with_tried<'b>(&self, tried: &'b [u16]) -> Candidates<'b>
    where
        'a: 'b,
    {
        Candidates::new(self.bitmap, tried)
    }

    #[inline]
    pub fn words(&self) -> usize {
        self.bitmap.words()
    }

    /// 64 bits of the bitmap, those tried among them.
    #[inline]
    pub fn eligible_word(&self, at: usize) -> u64 {
        self.bitmap.word(at)
    }

    /// 64 candidates as bits.
    #[inline]
    pub fn word(&self, at: usize) -> u64 {
        let mut bits = self.bitmap.word(at);
        for &index in self.tried {
            if usize::from(index) / 64 == at {
                bits &= !(1 << (index % 64));
            }
        }
        bits
    }

    #[inline]
    pub fn contains(&self, index: usize) -> bool {
        self.bitmap.get(index) && !self.tried.iter().any(|&tried| usize::from(tried) == index)
    }

    #[inline]
    pub fn count(&self) -> usize {
        (0..self.words())
            .map(|at| self.word(at).count_ones() as usize)
            .sum()
    }

    /// The candidate with `n` others before it.
    #[inline]
    pub fn nth(&self, mut n: usize) -> Option<usize> {
        for at in 0..self.words() {
            let mut bits = self.word(at);
            let here = bits.count_ones() as usize;
            if n >= here {
                n -= here;
                continue;
            }
            for _ in 0..n {
                bits &= bits - 1;
            }
            return Some(at * 64 + bits.trailing_zeros() as usize);
        }
        None
    }

    /// All candidates in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.words()).flat_map(|at| {
            let mut bits = self.word(at);
            std::iter::from_fn(move || {
                (bits != 0).then(|| {
                    let index = at * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    index
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_independent_across_words() {
        let bits = Bitmap::new(130, true);
        bits.set(64, false);
        bits.set(500, true);
        let down: Vec<_> = (0..130).filter(|&index| !bits.get(index)).collect();
        assert_eq!(down, [64]);
        assert_eq!(bits.count(), 129);
        bits.set(64, true);
        assert!(bits.get(64));
        assert!(!Bitmap::new(3, false).get(0));
        assert!(!bits.get(1000));
    }

    #[test]
    fn candidates_are_the_bits_less_what_was_tried() {
        let bits = Bitmap::new(130, true);
        bits.set(3, false);
        let tried = [0, 65, 129];
        let candidates = Candidates::new(&bits, &tried);
        let expected: Vec<usize> = (0..130).filter(|at| ![0, 3, 65, 129].contains(at)).collect();
        assert_eq!(candidates.iter().collect::<Vec<_>>(), expected);
        assert_eq!(candidates.count(), expected.len());
        for (n, index) in expected.iter().enumerate() {
            assert_eq!(candidates.nth(n), Some(*index));
            assert!(candidates.contains(*index));
        }
        assert_eq!(candidates.nth(expected.len()), None);
        assert!(!candidates.contains(65) && !candidates.contains(3));
    }
}

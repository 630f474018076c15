//! Who is live, as bits that the health thread publishes and every worker reads at each pick.

use std::sync::atomic::{AtomicU64, Ordering};

/// One bit for each backend of a pool, by index.
#[derive(Debug)]
pub struct Bitmap {
    words: Box<[AtomicU64]>,
}

impl Bitmap {
    /// `len` bits, all set to `value`.
    pub fn new(len: usize, value: bool) -> Self {
        let word = if value { u64::MAX } else { 0 };
        Bitmap {
            words: (0..len.div_ceil(64)).map(|_| AtomicU64::new(word)).collect(),
        }
    }

    /// Whether the bit is set; an index past the end is not.
    pub fn get(&self, index: usize) -> bool {
        self.words
            .get(index / 64)
            .is_some_and(|word| word.load(Ordering::Acquire) >> (index % 64) & 1 == 1)
    }

    /// Sets or clears one bit; an index past the end changes nothing.
    pub fn set(&self, index: usize, value: bool) {
        let Some(word) = self.words.get(index / 64) else {
            return;
        };
        let bit = 1 << (index % 64);
        if value {
            word.fetch_or(bit, Ordering::Release);
        } else {
            word.fetch_and(!bit, Ordering::Release);
        }
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
        bits.set(64, true);
        assert!(bits.get(64));
        assert!(!Bitmap::new(3, false).get(0));
        assert!(!bits.get(1000));
    }
}

//! Exemplars: for each bucket of a backend's latency one trace that fell into it, to go from a figure to a reason.
//!
//! One worker writes, anybody reads. A slot is guarded by a sequence number (a seqlock): it is odd while the slot is
//! written, and a reader that sees it odd or changed takes nothing. Neither waits for the other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::distribution::EDGES_US;

const SLOTS: usize = EDGES_US.len() + 1;

/// One traced exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    pub trace_id: [u8; 16],
    pub elapsed_ns: u64,
    pub unix_millis: u64,
}

/// A worker's latest exemplars of one backend, by bucket; memory is taken with the first.
#[derive(Debug, Default)]
pub struct Exemplars(OnceLock<Box<[Slot; SLOTS]>>);

#[derive(Debug)]
struct Slot {
    sequence: AtomicU64,
    /// Trace id (high, low), duration, time.
    words: [AtomicU64; 4],
}

impl Exemplars {
    /// Keeps one for its bucket. Only the worker that owns this may call it.
    pub fn keep(&self, exemplar: &Exemplar) {
        let slots = self.0.get_or_init(|| {
            Box::new(
                [const {
                    Slot {
                        sequence: AtomicU64::new(0),
                        words: [const { AtomicU64::new(0) }; 4],
                    }
                }; SLOTS],
            )
        });
        if let Some(slot) = slots.get(bucket(exemplar.elapsed_ns)) {
            slot.write(exemplar);
        }
    }

    /// The latest one of bucket `index`: below `EDGES_US[index]`, or past all of them.
    pub fn get(&self, index: usize) -> Option<Exemplar> {
        self.0.get()?.get(index)?.read()
    }
}

/// Which bucket a duration falls into.
fn bucket(elapsed_ns: u64) -> usize {
    EDGES_US.partition_point(|edge| elapsed_ns / 1_000 >= *edge)
}

impl Slot {
    fn write(&self, exemplar: &Exemplar) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let trace = u128::from_be_bytes(exemplar.trace_id);
        let words = [
            (trace >> 64) as u64,
            trace as u64,
            exemplar.elapsed_ns,
            exemplar.unix_millis,
        ];
        for (word, value) in self.words.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        self.sequence
            .store((before | 1).wrapping_add(1), Ordering::Release);
    }

    fn read(&self) -> Option<Exemplar> {
        let before = self.sequence.load(Ordering::Acquire);
        let [high, low, elapsed_ns, unix_millis] =
            [0, 1, 2, 3].map(|index: usize| self.words[index].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let after = self.sequence.load(Ordering::Relaxed);
        (before == after && before != 0 && before.is_multiple_of(2)).then(|| Exemplar {
            trace_id: (u128::from(high) << 64 | u128::from(low)).to_be_bytes(),
            elapsed_ns,
            unix_millis,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn exemplar(number: u64, elapsed_ns: u64) -> Exemplar {
        Exemplar {
            trace_id: (u128::from(number) << 64 | u128::from(number)).to_be_bytes(),
            elapsed_ns,
            unix_millis: number,
        }
    }

    #[test]
    fn each_bucket_keeps_its_latest() {
        let exemplars = Exemplars::default();
        assert_eq!(exemplars.get(0), None);
        exemplars.keep(&exemplar(1, 63_999));
        exemplars.keep(&exemplar(2, 64_000));
        exemplars.keep(&exemplar(3, 64_001));
        exemplars.keep(&exemplar(4, u64::MAX));
        assert_eq!(exemplars.get(0), Some(exemplar(1, 63_999)));
        assert_eq!(exemplars.get(1), Some(exemplar(3, 64_001)));
        assert_eq!(exemplars.get(2), None);
        assert_eq!(exemplars.get(SLOTS - 1), Some(exemplar(4, u64::MAX)));
        assert_eq!(exemplars.get(SLOTS), None);
    }

    #[test]
    fn a_reader_never_sees_a_mixture() {
        let (exemplars, done) = (Exemplars::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..200_000 {
                    exemplars.keep(&exemplar(number, 1));
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                if let Some(found) = exemplars.get(0) {
                    assert_eq!(found, exemplar(found.unix_millis, 1));
                }
            }
        });
        assert_eq!(exemplars.get(0), Some(exemplar(199_999, 1)));
    }
}

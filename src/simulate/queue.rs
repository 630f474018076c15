//! What happens next: a heap of small events in virtual time. Of several at the same time, the one that was put in first
//! comes first, so that a run depends on nothing but its seed.

use super::Nanos;

/// Children of a node. Four lie in one cache line: half the levels of a binary heap.
const ARITY: usize = 4;

/// What is to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// An attempt arrives at its backend.
    Reach,
    /// A backend may have finished something.
    Finish,
    /// An answer arrives at its load balancer.
    Answer,
    /// A load probe arrives at its backend.
    Ask,
    /// A load probe's result arrives at its load balancer.
    Told,
    /// A load balancer probes the health of a backend.
    Health,
    /// Load balancers do what they do at times.
    Tick,
    /// Attempts past their deadline are given up.
    Sweep,
    /// Something of the scenario begins or ends.
    Change,
    /// A backend's antagonist changes its mind.
    Antagonist,
    /// One slice of the time line is over.
    Slice,
}

const KINDS: [Kind; 11] = [
    Kind::Reach,
    Kind::Finish,
    Kind::Answer,
    Kind::Ask,
    Kind::Told,
    Kind::Health,
    Kind::Tick,
    Kind::Sweep,
    Kind::Change,
    Kind::Antagonist,
    Kind::Slice,
];

/// Bits of an event's index.
const INDEX_BITS: u32 = 28;

/// One event: what is to happen, to whom (an index that `kind` gives its meaning), and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Nanos,
    pub kind: Kind,
    pub index: usize,
}

/// Events by time.
#[derive(Debug, Default)]
pub struct Queue {
    /// `time << 64 | order << 32 | kind << 28 | index`
    heap: Vec<u128>,
    order: u32,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// When the next event is due; none is due at the end of time.
    #[inline]
    pub fn next_at(&self) -> Nanos {
        self.heap
            .first()
            .map_or(Nanos::MAX, |event| (event >> 64) as Nanos)
    }

    #[inline]
    pub fn push(&mut self, at: Nanos, kind: Kind, index: usize) {
        debug_assert!(index < 1 << INDEX_BITS, "{index} things of a kind at once");
        let what = (kind as u32) << INDEX_BITS | index as u32;
        let event = u128::from(at) << 64 | u128::from(self.order) << 32 | u128::from(what);
        // Once in four thousand million events a tie may be the wrong way round: the same way in every run.
        self.order = self.order.wrapping_add(1);
        let mut hole = self.heap.len();
        self.heap.push(event);
        while hole > 0 {
            let parent = (hole - 1) / ARITY;
            if self.heap[parent] <= event {
                break;
            }
            self.heap[hole] = self.heap[parent];
            hole = parent;
        }
        self.heap[hole] = event;
    }

    #[inline]
    pub fn pop(&mut self) -> Option<Event> {
        let first = *self.heap.first()?;
        let last = self.heap.pop()?;
        if !self.heap.is_empty() {
            self.sink(last);
        }
        let what = first as u32;
        Some(Event {
            at: (first >> 64) as Nanos,
            kind: KINDS[(what >> INDEX_BITS) as usize],
            index: (what & ((1 << INDEX_BITS) - 1)) as usize,
        })
    }

    /// Puts `event` where it belongs, the first place being free.
    #[inline]
    fn sink(&mut self, event: u128) {
        let len = self.heap.len();
        let mut hole = 0;
        loop {
            let first = hole * ARITY + 1;
            if first >= len {
                break;
            }
            let mut least = first;
            for child in first + 1..(first + ARITY).min(len) {
                if self.heap[child] < self.heap[least] {
                    least = child;
                }
            }
            if self.heap[least] >= event {
                break;
            }
            self.heap[hole] = self.heap[least];
            hole = least;
        }
        self.heap[hole] = event;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_put_in() {
        let mut queue = Queue::default();
        let mut random = fastrand::Rng::with_seed(1);
        let mut expected: Vec<(Nanos, usize)> = (0..5000).map(|index| (random.u64(..500), index)).collect();
        for &(at, index) in &expected {
            queue.push(at, KINDS[index % KINDS.len()], index);
        }
        expected.sort();
        for (at, index) in expected {
            assert_eq!(queue.next_at(), at);
            let kind = KINDS[index % KINDS.len()];
            assert_eq!(queue.pop(), Some(Event { at, kind, index }));
        }
        assert_eq!((queue.pop(), queue.next_at()), (None, Nanos::MAX));
    }

    #[test]
    fn kinds_are_where_their_number_says() {
        for (number, kind) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, number);
        }
    }
}

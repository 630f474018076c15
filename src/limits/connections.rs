//! `limits.max_connections_per_ip`: client connections per address (IPv6: per /64) over all workers.
//!
//! A table of counts that all workers share: eight cells on one cache line are a set, and an address's hash, with a secret of
//! the process, says which set it may stand in. A cell is one atomic of 8 bytes, 40 bits of the hash and a count of 24, so
//! counting is one exchange and there is no lock. A cell whose count is zero is free for anybody.
//!
//! If all eight cells of a set count others, a connection is admitted uncounted: refusing it would let some addresses lock
//! out others. With a table twice as large as there may be connections at all, that happens to few even when every connection
//! comes from another address. Two addresses with the same 40 bits in the same set share a count. Two workers that count
//! an address's first connection at the same instant can give it two cells, which are added up from then on; so the limit
//! can be exceeded by a connection for each worker but one, and only then.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Secret, hash_subscriber};

/// Cells of a set: one cache line.
const WAYS: usize = 8;
/// Looks at a set; each that leads to nothing means that another worker changed it meanwhile.
const TRIES_MAX: usize = 64;
const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// How many connections each address has.
#[derive(Debug)]
pub struct ConnectionTable {
    sets: Box<[Set]>,
    max: u64,
    secret: Secret,
}

/// One counted (or uncounted) connection; counts back when dropped.
#[derive(Debug)]
pub struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    /// Set and cell; none: uncounted.
    place: Option<(usize, usize)>,
}

impl ConnectionTable {
    /// `max` connections of one address; at most `connections` at once are expected over all. Takes twice that, rounded up
    /// to a power of two, times 8 bytes.
    pub fn new(max: u32, connections: usize, secret: Secret) -> Self {
        let cells = connections.max(WAYS).saturating_mul(2);
        let sets = cells.checked_next_power_of_two().unwrap_or(cells) / WAYS;
        ConnectionTable {
            sets: std::iter::repeat_with(Set::default).take(sets).collect(),
            max: u64::from(max).min(COUNT_MASK),
            secret,
        }
    }

    /// Counts a connection of `address`; none if it has as many as it may.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionSlot> {
        let hash = hash_subscriber(address, self.secret);
        let index = (hash as usize) % self.sets.len();
        // The set is chosen by the low bits; these are the others.
        let tag = hash & !COUNT_MASK;
        self.count(index, tag).map(|cell| ConnectionSlot {
            table: self.clone(),
            place: cell.map(|cell| (index, cell)),
        })
    }

    /// The cell that counts one more of `tag`; the inner none: no cell is free.
    fn count(&self, index: usize, tag: u64) -> Option<Option<usize>> {
        let Set(cells) = &self.sets[index];
        for _ in 0..TRIES_MAX {
            let (mut sum, mut own, mut free) = (0, None, None);
            for (at, cell) in cells.iter().enumerate() {
                let word = cell.load(Ordering::Relaxed);
                if word & COUNT_MASK == 0 {
                    free = free.or(Some((at, word)));
                } else if word & !COUNT_MASK == tag {
                    sum += word & COUNT_MASK;
                    own = own.or(Some((at, word)));
                }
            }
            if sum >= self.max {
                return None;
            }
            let Some((at, word)) = own.or(free) else {
                return Some(None);
            };
            let counted = tag | ((word & COUNT_MASK) + 1);
            let cell = &cells[at];
            if cell
                .compare_exchange(word, counted, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return Some(Some(at));
            }
        }
        Some(None)
    }

    /// Connections of an address that are counted now.
    pub fn connections(&self, address: IpAddr) -> u64 {
        let hash = hash_subscriber(address, self.secret);
        let Set(cells) = &self.sets[(hash as usize) % self.sets.len()];
        cells
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .filter(|word| word & !COUNT_MASK == hash & !COUNT_MASK)
            .map(|word| word & COUNT_MASK)
            .sum()
    }
}

impl ConnectionSlot {
    /// A connection that no limit holds: one without an address, or where there is no limit.
    pub fn uncounted(table: &Arc<ConnectionTable>) -> Self {
        ConnectionSlot {
            table: table.clone(),
            place: None,
        }
    }

    pub fn is_counted(&self) -> bool {
        self.place.is_some()
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        if let Some((set, cell)) = self.place {
            // The count is in the low bits and above zero as long as this stands for one of it.
            self.table.sets[set].0[cell].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU64;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn table(max: u32, connections: usize) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable::new(max, connections, [5, 6]))
    }

    #[test]
    fn an_address_has_so_many_and_no_more() {
        let table = table(2, 100);
        let one = table.enter(address("192.0.2.1"));
        let two = table.enter(address("::ffff:192.0.2.1"));
        assert!(one.is_some() && two.is_some());
        assert!(table.enter(address("192.0.2.1")).is_none());
        assert!(table.enter(address("192.0.2.2")).is_some());
        drop(one);
        let three = table.enter(address("192.0.2.1"));
        assert!(three.is_some());
        assert!(table.enter(address("192.0.2.1")).is_none());
        drop((two, three));
        assert_eq!(table.connections(address("192.0.2.1")), 0);
    }

    #[test]
    fn ipv6_counts_by_its_64() {
        let table = table(1, 100);
        let _one = table.enter(address("2001:db8::1"));
        assert!(table.enter(address("2001:db8::2")).is_none());
        assert!(table.enter(address("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn a_full_set_admits_uncounted() {
        // Two sets of eight cells.
        let table = table(1, 1);
        assert_eq!(table.sets.len(), 2);
        let slots: Vec<_> = (0..=255)
            .map(|last| table.enter(IpAddr::from([192, 0, 2, last])).expect("admitted"))
            .collect();
        assert_eq!(slots.iter().filter(|slot| slot.is_counted()).count(), 16);
        // Who is counted is held to it all the same, and the places are free afterwards.
        let counted = slots.iter().position(ConnectionSlot::is_counted).expect("one");
        assert!(table.enter(IpAddr::from([192, 0, 2, counted as u8])).is_none());
        drop(slots);
        assert!(
            table
                .enter(address("198.51.100.1"))
                .is_some_and(|slot| slot.is_counted())
        );
        let words = table.sets.iter().flat_map(|set| &set.0);
        assert!(
            words
                .map(|word| word.load(Ordering::Relaxed))
                .all(|word| word & COUNT_MASK == 0)
        );
    }

    #[test]
    fn few_are_uncounted_when_everybody_is_somebody_else() {
        let table = table(1, 10_000);
        assert_eq!(table.sets.len() * size_of::<Set>(), 32_768 * 8);
        let slots: Vec<_> = (0..10_000u32)
            .map(|n| table.enter(IpAddr::from(n.to_be_bytes())).expect("admitted"))
            .collect();
        let uncounted = slots.iter().filter(|slot| !slot.is_counted()).count();
        assert!(uncounted < 20, "{uncounted}");
    }

    #[test]
    fn the_limit_holds_over_threads_and_everything_goes_back() {
        const THREADS: u64 = 4;
        const MAX: u32 = 3;
        let table = table(MAX, 64);
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let barrier = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for seed in 0..THREADS {
                let (table, held, most, barrier) = (&table, &held, &most, &barrier);
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let mut own = Vec::new();
                    barrier.wait();
                    for _ in 0..50_000 {
                        if rng.bool() {
                            if let Some(slot) = table.enter(IpAddr::from([192, 0, 2, 1])) {
                                most.fetch_max(held.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                                own.push(slot);
                            }
                        } else if let Some(slot) = own.pop() {
                            held.fetch_sub(1, Ordering::Relaxed);
                            drop(slot);
                        }
                        // Others come and go in the same sets.
                        drop(table.enter(IpAddr::from([198, 51, 100, rng.u8(..)])));
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!(
            (u64::from(MAX)..u64::from(MAX) + THREADS).contains(&most),
            "{most}"
        );
        assert_eq!(table.connections(address("192.0.2.1")), 0);
    }
}

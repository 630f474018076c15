//! A backend as all workers share it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_utils::CachePadded;

use crate::balance::shared::Shared;
use crate::metrics::BackendCounts;
use crate::upstream::gauges::Gauges;
use crate::upstream::history::{History, Why};
use crate::upstream::probes::Probes;

/// One address that a backend answers on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// A name in Linux's abstract namespace (unix(7)), without the leading NUL.
    Abstract(Vec<u8>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
        }
    }
}

/// Gives every backend a small number that no other one has while it lives.
#[derive(Clone, Debug, Default)]
pub struct Slots(Arc<Mutex<Vec<bool>>>);

impl Slots {
    /// The lowest number that is free. For the control thread.
    pub fn take(&self) -> Slot {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = taken.iter().position(|taken| !taken).unwrap_or(taken.len());
        match taken.get_mut(number) {
            Some(place) => *place = true,
            None => taken.push(true),
        }
        Slot {
            number,
            home: self.clone(),
        }
    }
}

/// A number that becomes free again when this drops, with the last connection of its backend.
#[derive(Debug)]
pub struct Slot {
    number: usize,
    home: Slots,
}

impl Slot {
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Slot {
    // A backend that left the configuration goes once in its life, with whoever held it last.
    fn drop(&mut self) {
        let mut taken = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = taken.get_mut(self.number) {
            *place = false;
        }
    }
}

/// One upstream server: what it is called, where it is, and the counts that all workers keep of it.
#[derive(Debug)]
pub struct Backend {
    /// Its place in every worker's idle lists.
    pub slot: Slot,
    pub name: String,
    /// As written in the configuration: the label in metrics.
    pub url: String,
    /// `host:port`, for requests that carry no `Host` of their own.
    pub authority: String,
    /// Tried in order, the last good one first.
    pub addresses: Vec<Address>,
    /// What was counted of it.
    pub counts: Arc<BackendCounts>,
    pub history: History,
    pub gauges: Gauges,
    last_good: AtomicUsize,
    /// No snapshot in force names it any more.
    retired: AtomicBool,
    /// What picks know of it.
    pub shared: Arc<Shared>,
    /// What the health thread saw.
    pub probes: Probes,
    sockets: CachePadded<AtomicUsize>,
    /// Exchanges, over all workers, that wait for a socket to become free.
    waiting: CachePadded<AtomicUsize>,
}

impl Backend {
    /// A backend that `workers` workers count.
    pub fn new(
        slot: Slot,
        name: String,
        url: String,
        authority: String,
        addresses: Vec<Address>,
        workers: usize,
    ) -> Self {
        Backend {
            slot,
            name,
            url,
            authority,
            addresses,
            counts: Arc::new(BackendCounts::new(workers)),
            history: History::default(),
            gauges: Gauges::new(workers),
            last_good: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            shared: Arc::default(),
            probes: Probes::default(),
            sockets: CachePadded::default(),
            waiting: CachePadded::default(),
        }
    }

    /// Exchanges under way, over all workers.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight() as usize
    }

    /// It has left the configuration: what it has in flight ends, and nothing is kept for it.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Notes why its state changed, if it did.
    pub fn note_if(&self, changed: bool, why: Why) {
        if changed {
            self.history.note(why);
        }
    }

    /// Open sockets, over all workers.
    pub fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    /// Takes a place for one more socket of this worker, if fewer than `max` are open.
    pub fn take_socket(self: &Arc<Self>, worker: usize, max: Option<usize>) -> Option<SocketCount> {
        let before = self.sockets.fetch_add(1, Ordering::AcqRel);
        self.gauges.opened(worker, 1);
        let count = SocketCount {
            backend: self.clone(),
            worker,
        };
        if max.is_some_and(|max| before >= max) {
            None
        } else {
            Some(count)
        }
    }

    /// Exchanges, over all workers, that wait for a socket.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Says that somebody waits for a socket until the result is dropped.
    pub fn want(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self.clone())
    }

    /// The addresses with their positions, the last good one first.
    pub fn addresses_to_try(&self) -> impl Iterator<Item = (usize, &Address)> {
        let first = self.last_good.load(Ordering::Relaxed).min(self.addresses.len());
        let (before, from) = self.addresses.split_at(first);
        from.iter()
            .enumerate()
            .map(move |(at, address)| (at + first, address))
            .chain(before.iter().enumerate())
    }

    /// Remembers the address that just accepted.
    pub fn set_last_good(&self, position: usize) {
        self.last_good.store(position, Ordering::Relaxed);
    }
}

/// One open socket of a backend.
#[derive(Debug)]
pub struct SocketCount {
    backend: Arc<Backend>,
    worker: usize,
}

impl SocketCount {
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for SocketCount {
    fn drop(&mut self) {
        self.backend.gauges.opened(self.worker, -1);
        self.backend.sockets.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One exchange that waits for a socket.
#[derive(Debug)]
pub struct Waiting(Arc<Backend>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend() -> Arc<Backend> {
        let address = |port| Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
        Arc::new(Backend::new(
            Slots::default().take(),
            "a".to_owned(),
            "http://a:1".to_owned(),
            "a:1".to_owned(),
            vec![address(1), address(2), address(3)],
            1,
        ))
    }

    #[test]
    fn counts_go_back_when_their_guards_drop() {
        let backend = backend();
        let first = backend.take_socket(0, Some(1)).expect("one is allowed");
        assert!(backend.take_socket(0, Some(1)).is_none());
        assert_eq!(backend.sockets(), 1);
        assert_eq!(backend.gauges.by_worker().next(), Some((1, 0)));
        drop(first);
        assert_eq!(backend.sockets(), 0);
    }

    #[test]
    fn a_slot_is_taken_again_once_it_is_free() {
        let slots = Slots::default();
        let (first, second) = (slots.take(), slots.take());
        assert_eq!((first.number(), second.number()), (0, 1));
        drop(first);
        assert_eq!(slots.take().number(), 0);
    }

    #[test]
    fn the_last_good_address_comes_first_and_none_is_left_out() {
        let backend = backend();
        backend.set_last_good(1);
        let order: Vec<_> = backend.addresses_to_try().map(|(position, _)| position).collect();
        assert_eq!(order, [1, 2, 0]);
        for (position, address) in backend.addresses_to_try() {
            assert_eq!(&backend.addresses[position], address);
        }
    }
}

//! Exchanges that wait until a backend has room (`limits.max_inflight`, `queue`, `queue_timeout`).
//!
//! One line per worker and pool, first come, first served; the lines of a pool know of one another only what is in
//! [`QueueShared`]. A slot itself is none of the queue's business: whoever waits brings a closure that tries to take one.
//!
//! Who comes later does not go first:
//! * A newcomer tries only while nobody waits and no freed slot is on its way to a waiter; otherwise it joins its line.
//! * Whoever frees a slot makes an *offer* to the worker whose first waiter has waited longest over all workers, by the
//!   numbers that waiters draw. An offer to another worker is a count where that worker looks, and a wake of it, at most one
//!   until it has looked ([`Queue::serve`]).
//! * If another line has an older waiter by the time the offer is looked at, the offer goes on to there. It went to where it is
//!   for somebody who has got another meanwhile, so this ends.
//! * The waiter that is offered a slot tries to take it, in its own task. Until then the slot is free, but nobody else tries.
//!
//! So a waiter can be passed over only by one that drew its number at the same moment on another worker, and then once.
//!
//! Nothing is left lying:
//! * A waiter makes itself seen before it tries, and a slot is free before its offer is made, with a fence between the two
//!   on either side: one of them sees the other.
//! * Who takes a slot without an offer cannot know whether another was freed with it, and makes an offer to the next, unless
//!   others are under way. Such an offer begets one more when it succeeds.
//! * A slot that is freed while everybody who waits has an offer already is kept for who joins next.
//! * A waiter that finds room that it cannot use (a retry has tried that backend) passes the offer on, and from then on no longer
//!   keeps newcomers from trying, but still is asked first. An offer is passed on [`ASKED_MAX`] times at most.
//! * [`Queue::sweep`] offers the longest waiting a try, in case room has come about without anybody freeing it (a
//!   backend is eligible again), or was missed.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::task::{Context, Poll, Waker};

use crossbeam_utils::CachePadded;

use crate::clock::Millis;

/// Waiters that are asked because of one freed slot, if one after the other cannot use it.
const ASKED_MAX: u8 = 8;
/// No waiter.
const NOBODY: u64 = u64::MAX;
/// What `bar` counts: waiters that newcomers must let go first, and above them the offers that are under way.
const WAITER: u64 = 1;
const OFFER: u64 = 1 << 32;

/// What came of trying to take a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take<T> {
    Taken(T),
    /// No backend that may be chosen has room.
    Full,
    /// There is room, but not for this exchange.
    Unfit,
}

/// Why nothing was waited for, or in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    #[error("limits.queue exchanges are waiting")]
    Full,
    #[error("limits.queue_timeout passed")]
    Timeout,
}

/// What the workers know of one another's lines in one pool. Lives as long as the pool, over reloads.
#[derive(Debug)]
pub struct QueueShared {
    workers: Box<[CachePadded<Line>]>,
    /// Waiters over all workers; at most `max`.
    total: CachePadded<AtomicU32>,
    /// Zero: a newcomer may try. See [`WAITER`] and [`OFFER`].
    bar: CachePadded<AtomicU64>,
    next_number: CachePadded<AtomicU64>,
    /// Slots that were freed while everybody who waited had an offer: for who joins next.
    spare: CachePadded<AtomicU32>,
    max: AtomicU32,
    /// Offers that nobody who was asked could use.
    lapses: AtomicU64,
}

/// One worker's line, as the others see it.
#[derive(Debug)]
struct Line {
    /// The number of its first waiter; that of its first who has no offer yet.
    front: AtomicU64,
    head: AtomicU64,
    /// Offers made to this worker, by kind.
    offers: [AtomicU32; Kind::ALL.len()],
    /// It was woken and has not looked yet.
    woken: AtomicBool,
}

/// How an offer came about. One that is *passed* comes from a waiter that could not use it, and stays with the worker it went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Freed,
    /// Somebody took a slot without an offer: there may be another.
    Found,
    FreedPassed,
    FoundPassed,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Freed, Kind::Found, Kind::FreedPassed, Kind::FoundPassed];

    fn is_passed(self) -> bool {
        matches!(self, Kind::FreedPassed | Kind::FoundPassed)
    }

    fn is_found(self) -> bool {
        matches!(self, Kind::Found | Kind::FoundPassed)
    }

    fn passed(self) -> Kind {
        if self.is_found() {
            Kind::FoundPassed
        } else {
            Kind::FreedPassed
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Offer {
    kind: Kind,
    /// Waiters of this worker that were asked before.
    asked: u8,
}

#[derive(Debug)]
enum State {
    Waiting,
    Offered(Offer),
    Expired,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    until: Millis,
    state: State,
    /// It has seen room that it could not use; it does not keep newcomers from trying.
    particular: bool,
    waker: Option<Waker>,
}

impl QueueShared {
    /// For `workers` workers, with at most `max` waiters over all of them.
    pub fn new(workers: usize, max: u32) -> Arc<Self> {
        let line = || {
            CachePadded::new(Line {
                front: AtomicU64::new(NOBODY),
                head: AtomicU64::new(NOBODY),
                offers: Default::default(),
                woken: AtomicBool::new(false),
            })
        };
        Arc::new(QueueShared {
            workers: std::iter::repeat_with(line).take(workers).collect(),
            total: CachePadded::default(),
            bar: CachePadded::default(),
            next_number: CachePadded::default(),
            spare: CachePadded::default(),
            max: AtomicU32::new(max),
            lapses: AtomicU64::new(0),
        })
    }

    /// Another maximum, after a reload. Those who wait go on waiting.
    pub fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Exchanges that wait, over all workers.
    pub fn waiting(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }

    /// The worker whose first waiter without an offer has waited longest, and that waiter's number.
    fn oldest(&self) -> Option<(usize, u64)> {
        let heads = self.workers.iter().map(|line| line.head.load(Ordering::SeqCst));
        heads
            .enumerate()
            .min_by_key(|&(_, number)| number)
            .filter(|&(_, number)| number != NOBODY)
    }

    fn is_oldest_of_all(&self, number: u64) -> bool {
        self.workers
            .iter()
            .all(|line| line.front.load(Ordering::SeqCst) >= number)
    }

    /// Whether a newcomer may try at once. Offers that are under way although nobody waits have found somebody gone.
    fn is_open(&self) -> bool {
        self.bar.load(Ordering::SeqCst) == 0 || self.total.load(Ordering::SeqCst) == 0
    }

    fn take_spare(&self) -> bool {
        let less = |spare: u32| spare.checked_sub(1);
        self.spare
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
    }

    fn offers_under_way(&self) -> bool {
        self.bar.load(Ordering::SeqCst) >= OFFER
    }
}

/// One worker's line of one pool.
pub struct Queue {
    shared: Arc<QueueShared>,
    index: usize,
    /// Sorted by number.
    line: RefCell<VecDeque<Waiter>>,
    wake: Box<dyn Fn(usize)>,
    lapses_seen: Cell<u64>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("index", &self.index)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// The line of worker `index`. `wake` wakes another worker, which then calls [`serve`](Self::serve) of its own line.
    pub fn new(shared: Arc<QueueShared>, index: usize, wake: impl Fn(usize) + 'static) -> Self {
        Queue {
            shared,
            index,
            line: RefCell::default(),
            wake: Box::new(wake),
            lapses_seen: Cell::new(0),
        }
    }

    /// Takes a slot, now or when it is this exchange's turn. `try_take` must count what it takes in the way that
    /// [`notify_freed`](Self::notify_freed) tells of: both are read-modify-writes of the same atomic.
    ///
    /// # Errors
    /// As many wait as may; or `until` has passed, which [`sweep`](Self::sweep) says.
    pub async fn wait<T>(
        &self,
        until: Millis,
        mut try_take: impl FnMut() -> Take<T>,
    ) -> Result<T, QueueError> {
        let mut particular = false;
        if self.shared.is_open() {
            match try_take() {
                Take::Taken(slot) => return Ok(slot),
                Take::Full => self.shared.spare.store(0, Ordering::SeqCst),
                Take::Unfit => particular = true,
            }
        }
        let place = self.join(until, particular)?;
        if self.shared.is_oldest_of_all(place.number) && !self.shared.offers_under_way() {
            match try_take() {
                Take::Taken(slot) => {
                    drop(place);
                    self.offer_found();
                    return Ok(slot);
                }
                Take::Full => {}
                Take::Unfit => {
                    self.mark_particular(place.number);
                    let kind = Kind::Found;
                    self.pass_on(place.number, Offer { kind, asked: 0 });
                }
            }
        }
        poll_fn(|cx| self.poll(place.number, &mut try_take, cx)).await
    }

    /// Takes a slot without waiting, if no waiter has a better right to it; else the caller is to [`wait`](Self::wait).
    #[inline]
    pub fn try_now<T>(&self, try_take: impl FnOnce() -> Take<T>) -> Option<T> {
        if !self.shared.is_open() {
            return None;
        }
        match try_take() {
            Take::Taken(slot) => Some(slot),
            Take::Full | Take::Unfit => None,
        }
    }

    /// A slot is free again. To be called after it was given back, by whichever worker did.
    #[inline]
    pub fn notify_freed(&self) {
        // Against the one in `join`: either the waiter is seen here or the slot is seen there.
        fence(Ordering::SeqCst);
        if self.shared.total.load(Ordering::SeqCst) > 0 {
            self.offer_freed();
        }
    }

    /// Looks at what other workers have offered. To be called whenever this worker was woken.
    pub fn serve(&self) {
        let Some(own) = self.shared.workers.get(self.index) else {
            return;
        };
        // Before looking: what is offered from now on wakes again.
        own.woken.store(false, Ordering::SeqCst);
        for (kind, offers) in Kind::ALL.into_iter().zip(&own.offers) {
            for _ in 0..offers.swap(0, Ordering::SeqCst) {
                self.receive(kind);
            }
        }
    }

    /// Ends the waiting of those whose time is up, and looks for room that nobody told of. To be called now and then.
    pub fn sweep(&self, now: Millis) {
        let mut expired = 0;
        for waiter in self.line.borrow_mut().iter_mut() {
            if matches!(waiter.state, State::Waiting) && waiter.until <= now {
                waiter.state = State::Expired;
                waiter.waker.take().inspect(Waker::wake_by_ref);
                expired += 1;
            }
        }
        if expired > 0 {
            self.publish();
        }
        let lapses = self.shared.lapses.load(Ordering::Relaxed);
        let lapsed = self.lapses_seen.replace(lapses) != lapses;
        match self.shared.oldest() {
            // In this worker's line somebody may be able to use what those who were asked could not.
            Some(_) if lapsed && self.waiting() > 0 => self.make(Kind::FoundPassed, self.index),
            Some((worker, _)) if worker == self.index => self.offer_found(),
            _ => {}
        }
    }

    /// Exchanges of this worker that wait.
    pub fn waiting(&self) -> usize {
        self.line.borrow().len()
    }

    fn join(&self, until: Millis, particular: bool) -> Result<Place<'_>, QueueError> {
        let shared = &*self.shared;
        if shared.total.fetch_add(1, Ordering::SeqCst) >= shared.max.load(Ordering::Relaxed) {
            shared.total.fetch_sub(1, Ordering::SeqCst);
            return Err(QueueError::Full);
        }
        if !particular {
            shared.bar.fetch_add(WAITER, Ordering::SeqCst);
        }
        let number = shared.next_number.fetch_add(1, Ordering::SeqCst);
        self.line.borrow_mut().push_back(Waiter {
            number,
            until,
            state: State::Waiting,
            particular,
            waker: None,
        });
        self.publish();
        fence(Ordering::SeqCst);
        let place = Place { queue: self, number };
        if shared.take_spare() {
            self.offer_freed();
        }
        Ok(place)
    }

    fn poll<T>(
        &self,
        number: u64,
        try_take: &mut impl FnMut() -> Take<T>,
        cx: &Context<'_>,
    ) -> Poll<Result<T, QueueError>> {
        let offer = match self.with(number, |waiter| {
            if let State::Offered(offer) = waiter.state {
                return Ok(offer);
            }
            let expired = matches!(waiter.state, State::Expired);
            waiter.waker = Some(cx.waker().clone());
            Err(expired)
        }) {
            Some(Ok(offer)) => offer,
            Some(Err(false)) => return Poll::Pending,
            Some(Err(true)) | None => return Poll::Ready(Err(QueueError::Timeout)),
        };
        let mut taken = try_take();
        self.with(number, |waiter| {
            waiter.state = State::Waiting;
            waiter.waker = Some(cx.waker().clone());
        });
        if matches!(taken, Take::Full) {
            // While it had an offer, others did not see it. What was freed meanwhile was perhaps offered to nobody.
            self.publish();
            fence(Ordering::SeqCst);
            taken = try_take();
        }
        self.shared.bar.fetch_sub(OFFER, Ordering::SeqCst);
        match taken {
            Take::Taken(slot) => {
                self.leave(number);
                if offer.kind.is_found() {
                    self.offer_found();
                }
                Poll::Ready(Ok(slot))
            }
            Take::Full => {
                self.shared.spare.store(0, Ordering::SeqCst);
                Poll::Pending
            }
            Take::Unfit => {
                self.publish();
                self.mark_particular(number);
                self.pass_on(number, offer);
                Poll::Pending
            }
        }
    }

    /// Offers a slot that was freed to whoever has waited longest without an offer. If all have one, it is for the next to
    /// come.
    fn offer_freed(&self) {
        loop {
            if let Some((worker, _)) = self.shared.oldest() {
                return self.make(Kind::Freed, worker);
            }
            if self.shared.total.load(Ordering::SeqCst) == 0 {
                return;
            }
            self.shared.spare.fetch_add(1, Ordering::SeqCst);
            // Somebody may have joined in between and not seen it.
            if self.shared.oldest().is_none() || !self.shared.take_spare() {
                return;
            }
        }
    }

    /// Offers a slot that is perhaps there. Not while other offers are under way: whoever has one of those is ahead, and must
    /// find its slot.
    fn offer_found(&self) {
        if !self.shared.offers_under_way()
            && let Some((worker, _)) = self.shared.oldest()
        {
            self.make(Kind::Found, worker);
        }
    }

    fn make(&self, kind: Kind, worker: usize) {
        self.shared.bar.fetch_add(OFFER, Ordering::SeqCst);
        self.hand(kind, worker);
    }

    /// Hands over an offer that is counted already.
    fn hand(&self, kind: Kind, worker: usize) {
        if worker == self.index {
            return self.receive(kind);
        }
        let Some(line) = self.shared.workers.get(worker) else {
            return;
        };
        if let Some(offers) = line.offers.get(kind as usize) {
            offers.fetch_add(1, Ordering::SeqCst);
        }
        if !line.woken.swap(true, Ordering::SeqCst) {
            (self.wake)(worker);
        }
    }

    /// An offer for this worker: to its first waiter, unless an older one waits elsewhere by now.
    fn receive(&self, kind: Kind) {
        let to = if kind.is_found() && self.shared.bar.load(Ordering::SeqCst) >= 2 * OFFER {
            None
        } else if kind.is_passed() {
            Some(self.index)
        } else {
            self.shared.oldest().map(|(worker, _)| worker)
        };
        match to {
            Some(worker) if worker != self.index => self.hand(kind, worker),
            Some(_) if self.grant(None, Offer { kind, asked: 0 }) => {}
            // Whoever it was meant for is gone, or others are ahead of a mere guess.
            _ => {
                self.shared.bar.fetch_sub(OFFER, Ordering::SeqCst);
                if !kind.is_found() {
                    self.offer_freed();
                }
            }
        }
    }

    /// Gives the offer to the first waiter, or the first behind `after`; false if there is none.
    fn grant(&self, after: Option<u64>, offer: Offer) -> bool {
        let waker = {
            let mut line = self.line.borrow_mut();
            let waiter = line.iter_mut().find(|waiter| {
                matches!(waiter.state, State::Waiting) && after.is_none_or(|after| waiter.number > after)
            });
            let Some(waiter) = waiter else {
                return false;
            };
            waiter.state = State::Offered(offer);
            waiter.waker.take()
        };
        self.publish();
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// After `number` could not use what there is: on to who has waited longest behind it.
    fn pass_on(&self, number: u64, Offer { kind, asked }: Offer) {
        if asked + 1 < ASKED_MAX {
            let next_here = {
                let line = self.line.borrow();
                let mut waiting = line.iter().filter(|w| matches!(w.state, State::Waiting));
                waiting.find(|w| w.number > number).map(|w| w.number)
            };
            let elsewhere = self
                .shared
                .workers
                .iter()
                .enumerate()
                .filter_map(|(worker, line)| {
                    let head = line.head.load(Ordering::SeqCst);
                    (worker != self.index && head != NOBODY && head > number).then_some((head, worker))
                });
            let elsewhere = if kind.is_passed() { None } else { elsewhere.min() };
            self.shared.bar.fetch_add(OFFER, Ordering::SeqCst);
            match (next_here, elsewhere) {
                (here, Some((head, worker))) if here.is_none_or(|here| head < here) => {
                    return self.hand(kind.passed(), worker);
                }
                _ if self.grant(
                    Some(number),
                    Offer {
                        kind,
                        asked: asked + 1,
                    },
                ) =>
                {
                    return;
                }
                _ => {}
            }
            self.shared.bar.fetch_sub(OFFER, Ordering::SeqCst);
        }
        self.shared.lapses.fetch_add(1, Ordering::Relaxed);
    }

    fn mark_particular(&self, number: u64) {
        let newly = self.with(number, |waiter| !std::mem::replace(&mut waiter.particular, true));
        if newly == Some(true) {
            self.shared.bar.fetch_sub(WAITER, Ordering::SeqCst);
        }
    }

    fn leave(&self, number: u64) {
        let waiter = {
            let mut line = self.line.borrow_mut();
            match line.binary_search_by_key(&number, |waiter| waiter.number) {
                Ok(at) => line.remove(at),
                Err(_) => None,
            }
        };
        let Some(waiter) = waiter else {
            return;
        };
        self.publish();
        if !waiter.particular {
            self.shared.bar.fetch_sub(WAITER, Ordering::SeqCst);
        }
        self.shared.total.fetch_sub(1, Ordering::SeqCst);
        if let State::Offered(offer) = waiter.state {
            // Its client went away before it tried.
            self.shared.bar.fetch_sub(OFFER, Ordering::SeqCst);
            if offer.kind.is_found() {
                self.offer_found();
            } else {
                self.offer_freed();
            }
        }
    }

    fn with<T>(&self, number: u64, change: impl FnOnce(&mut Waiter) -> T) -> Option<T> {
        let mut line = self.line.borrow_mut();
        let at = line.binary_search_by_key(&number, |waiter| waiter.number).ok()?;
        line.get_mut(at).map(change)
    }

    /// Tells the other workers who is first here.
    fn publish(&self) {
        let Some(own) = self.shared.workers.get(self.index) else {
            return;
        };
        let line = self.line.borrow();
        let front = line.front().map_or(NOBODY, |waiter| waiter.number);
        let head = line
            .iter()
            .find(|waiter| matches!(waiter.state, State::Waiting))
            .map_or(NOBODY, |waiter| waiter.number);
        own.front.store(front, Ordering::SeqCst);
        own.head.store(head, Ordering::SeqCst);
    }
}

/// A place in a line; left when dropped.
struct Place<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.leave(self.number);
    }
}

#[cfg(test)]
mod tests;

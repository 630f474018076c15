//! Before an attempt: may the client ask now, which backend shall it be, and is there a slot.

use std::sync::Arc;
use std::time::Duration;

use crate::balance::liveness::Candidates;
use crate::balance::outcome::Outcome;
use crate::balance::pool::{Ask, Choice};
use crate::balance::tried::{TRIED_MAX, Tried};
use crate::clock::{self, Moment};
use crate::limits::address::{self, Identity};
use crate::limits::cookie;
use crate::limits::queue::{QueueError, Take};
use crate::limits::rate::{self, Fields, Verdict};
use crate::proxy::exchange::{Exchange, Placed};
use crate::proxy::key::request_key;
use crate::proxy::load_probe;
use crate::reason::Reason;
use crate::record::Kind;

/// Why a request is refused before any backend is asked.
pub(super) struct Limited {
    pub(super) fields: Fields,
    /// Seconds.
    pub(super) retry_after: u64,
}

impl<'a> Exchange<'a> {
    /// Who asks, by the peer and by what trusted proxies say.
    pub(super) fn identity(&self) -> Identity {
        let trusted = &self.view.config.server.trusted_proxies;
        let bytes = self.request.inbound.buffer.filled();
        address::identify(&self.request.head.request, bytes, self.client.peer, trusted)
    }

    /// Counts the request against its client's rate.
    pub(super) fn is_limited(&self) -> Option<Limited> {
        let table = self.view.rate.as_ref()?;
        let bytes = self.request.inbound.buffer.filled();
        let head = &self.request.head.request;
        let key = table.key(self.identity().client, |name| head.field(bytes, name.as_bytes()))?;
        let now = rate::nanos(self.worker.common().began.elapsed());
        match table.check(key, now) {
            Verdict::Admitted { .. } => None,
            verdict @ Verdict::Limited { retry_after } => Some(Limited {
                fields: table.fields(verdict),
                retry_after: rate::seconds(retry_after),
            }),
        }
    }

    /// What is sticky or hashed of the request; found out once.
    pub(super) fn know_request(&mut self) {
        let (view, bytes) = (self.view, self.request.inbound.buffer.filled());
        let head = &self.request.head.request;
        if let Some(sticky) = &view.sticky {
            self.sticky = sticky.find(cookie::lines(head, bytes));
        }
        if view.pool.balance.settings().hashes() {
            self.key = request_key(&view.config.strategy.key, head, bytes, self.identity().client);
        }
    }

    fn ask<'b>(&self, tried: &'b [u16]) -> Ask<'b> {
        Ask {
            now: clock::now(),
            key: self.key,
            sticky: self.sticky,
            tried,
            // Where nothing is ever sent again, one request is as good as another.
            may_try: self.view.retry.max_retries == 0 || self.may_repeat(),
        }
    }

    /// A backend for the next attempt, with a slot of it.
    ///
    /// # Errors
    /// Nobody is eligible, or no slot became free in time.
    #[inline]
    pub(super) async fn place(&mut self) -> Result<Placed<'a>, Reason> {
        let kind = if self.retries > 0 {
            Kind::Retry
        } else {
            Kind::First
        };
        self.request.head.progress.begin(kind);
        let placed = match self.view.config.limits.max_inflight {
            None => self.place_at_once(),
            Some(max) => Box::pin(self.place_within(max)).await,
        };
        if self.view.asks_for_load {
            load_probe::send_due(self.worker, self.view, &self.ask(&[]));
        }
        if placed.is_err() {
            let heads = &mut *self.request.head;
            heads.record.queue += heads.progress.queue.get();
        }
        placed
    }

    /// A backend for an attempt beside one that is under way, none of those tried; only where a slot is free at once.
    pub(super) fn place_beside(&self, tried: Tried) -> Option<Placed<'a>> {
        let pool = &self.view.pool;
        let max = self.view.config.limits.max_inflight;
        let ask = Ask {
            sticky: None,
            ..self.ask(tried.as_slice())
        };
        let choice = pool.balance.pick(&ask, &mut self.worker.local.borrow_mut())?;
        let backend = pool.backends.get(choice.index)?;
        self.begin_at(choice, max.unwrap_or(u32::MAX))
            .then(|| Placed::new(Some(pool), backend, Some(choice), max.map(|_| &self.worker.queue)))
    }

    fn place_at_once(&self) -> Result<Placed<'a>, Reason> {
        let pool = &self.view.pool;
        let ask = self.ask(self.tried.as_slice());
        let choice = pool.balance.pick(&ask, &mut self.worker.local.borrow_mut());
        let choice = choice.ok_or(Reason::NoBackend)?;
        let backend = pool.backends.get(choice.index).ok_or(Reason::NoBackend)?;
        backend.shared.begin(ask.now);
        Ok(Placed::new(Some(pool), backend, Some(choice), None))
    }

    /// As [`Self::place_at_once`] among backends with fewer than `max` exchanges in flight; waits for one.
    async fn place_within(&self, max: u32) -> Result<Placed<'a>, Reason> {
        let queue = &self.worker.queue;
        let patience = self.view.config.limits.queue_timeout;
        let taken = match queue.try_now(|| self.take_slot(max)) {
            Some(taken) => {
                self.observe_delay(Duration::ZERO);
                taken
            }
            None => {
                let began = clock::now();
                if self
                    .worker
                    .admission
                    .borrow()
                    .as_ref()
                    .is_some_and(|admission| !admission.admit(began))
                {
                    return Err(Reason::Overload);
                }
                let waiting = Moment::now();
                let taken = queue.wait(began + patience, || self.take_slot(max)).await;
                self.request.head.progress.queue.set(waiting.elapsed());
                self.observe_delay(clock::now() - began);
                taken.map_err(|error| match error {
                    QueueError::Full => Reason::QueueFull,
                    QueueError::Timeout => Reason::QueueTimeout,
                })?
            }
        };
        let choice = taken.ok_or(Reason::NoBackend)?;
        let pool = &self.view.pool;
        let backend: &'a Arc<_> = pool.backends.get(choice.index).ok_or(Reason::NoBackend)?;
        Ok(Placed::new(Some(pool), backend, Some(choice), Some(queue)))
    }

    fn observe_delay(&self, delay: Duration) {
        if let Some(admission) = self.worker.admission.borrow().as_ref() {
            admission.observe(delay, clock::now());
        }
    }

    /// Takes a slot if a backend that may be chosen has one; none in what is taken: nobody may be chosen.
    fn take_slot(&self, max: u32) -> Take<Option<Choice>> {
        let balance = &self.view.pool.balance;
        let mut tried = self.tried;
        let mut full = false;
        while tried.as_slice().len() < TRIED_MAX {
            let ask = self.ask(tried.as_slice());
            let Some(choice) = balance.pick(&ask, &mut self.worker.local.borrow_mut()) else {
                return if full {
                    self.full_or_unfit(max)
                } else {
                    Take::Taken(None)
                };
            };
            if self.begin_at(choice, max) {
                return Take::Taken(Some(choice));
            }
            full = true;
            tried.push(choice.index);
        }
        // More are full than can be remembered: whoever has room will do.
        let ask = self.ask(self.tried.as_slice());
        Candidates::new(balance.eligible(), self.tried.as_slice())
            .iter()
            .filter(|&index| self.has_room(index, max))
            .filter_map(|index| balance.admit(index, &ask))
            .find(|&choice| self.begin_at(choice, max))
            .map_or(Take::Full, |choice| Take::Taken(Some(choice)))
    }

    /// Whether there is room, but only where this exchange was already.
    fn full_or_unfit(&self, max: u32) -> Take<Option<Choice>> {
        let tried = self.tried.as_slice().iter();
        if tried.clone().any(|&index| self.has_room(usize::from(index), max)) {
            Take::Unfit
        } else {
            Take::Full
        }
    }

    fn has_room(&self, index: usize, max: u32) -> bool {
        let members = self.view.pool.balance.members();
        members
            .get(index)
            .is_some_and(|member| member.shared.in_flight() < max)
    }

    /// Begins an attempt if there is room for it; a trial that cannot begin gives its place back.
    fn begin_at(&self, choice: Choice, max: u32) -> bool {
        let (pool, now) = (&self.view.pool, clock::now());
        let begun = pool
            .backends
            .get(choice.index)
            .is_some_and(|backend| backend.shared.try_begin(now, max));
        if !begun {
            let mut log = |event| pool.log(event);
            pool.balance
                .settle(choice, Outcome::Nothing, Duration::ZERO, now, &mut log);
        }
        begun
    }
}

//! `[hedge]`: a second attempt at another backend when the first one's answer takes longer than 95 of 100 do. The head that
//! comes first wins and its answer is passed on; the other attempt is cancelled, which closes its connection.
//!
//! Only requests that may be repeated are hedged, and only if all of them has gone out; a hedge is paid for like a retry.
//! (Dean & Barroso, "The Tail at Scale", 2013.)

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::buffer::{self, Buffer};
use crate::clock::{self, Moment};
use crate::proxy::attempt::AttemptEnd;
use crate::proxy::exchange::{Exchange, Placed};
use crate::proxy::response::{NoAnswer, Response, ResponseEnd};
use crate::record::{Kind, Outcome};
use crate::upstream::pool::Connection;

/// What the wait for a head came to.
type Head = Result<Option<usize>, NoAnswer>;

/// Who was first.
enum First<A, B> {
    Left(A),
    Right(B),
}

/// Waits for the one that is done first; both go on to be usable.
async fn first<A, B>(
    mut left: Pin<&mut impl Future<Output = A>>,
    mut right: Pin<&mut impl Future<Output = B>>,
) -> First<A, B> {
    poll_fn(|cx| {
        if let Poll::Ready(done) = left.as_mut().poll(cx) {
            return Poll::Ready(First::Left(done));
        }
        if let Poll::Ready(done) = right.as_mut().poll(cx) {
            return Poll::Ready(First::Right(done));
        }
        Poll::Pending
    })
    .await
}

impl<'a> Exchange<'a> {
    /// Reads the answer on `connection`, to which the whole request with `taken` bytes of body went, and asks a second
    /// backend if it is late.
    pub(super) async fn hedged(
        &mut self,
        connection: Connection,
        buffer: Buffer,
        taken: usize,
    ) -> AttemptEnd {
        let progress = self.request.head.progress.clone();
        progress.whole_request_sent();
        let mut heads = self.worker.heads.lend();
        let mut response = Response::new(
            self.worker,
            self.view,
            self.client,
            &connection,
            &mut heads.response,
            self.asked,
            &progress,
            buffer,
        );
        response.may_refuse = true;
        response.extra = self.cookie();
        let late = self.worker.local.borrow().tail.p95();
        let head = match late {
            None => response.head().await,
            Some(delay) => {
                let mut waiting = pin!(response.head());
                match self.race(waiting.as_mut(), delay).await {
                    Race::First(head) => head,
                    Race::Second(end) => return end,
                }
            }
        };
        let relayed = pass(&mut response, head).await;
        drop(response);
        self.end_of(relayed, connection, taken)
    }

    /// Waits for the first attempt's head; after `delay` a second attempt runs beside it.
    async fn race(&mut self, mut waiting: Pin<&mut impl Future<Output = Head>>, delay: Duration) -> Race {
        if let First::Left(head) = first(waiting.as_mut(), pin!(monoio::time::sleep(delay))).await {
            return Race::First(head);
        }
        let Some(placed) = self.second_place() else {
            return Race::First(waiting.await);
        };
        let (index, began) = (placed.index, placed.started());
        let race = self.race_second(waiting, placed).await;
        if matches!(race, Race::First(_)) {
            self.note_lost_hedge(index, began);
        }
        // Whoever won: a hedge whose exchange goes on costs nothing in the end.
        self.worker.local.borrow_mut().budget.give_back(clock::now());
        race
    }

    /// Both attempts under way: `waiting` for the first one's head, the second one from its connection on.
    async fn race_second(
        &mut self,
        mut waiting: Pin<&mut impl Future<Output = Head>>,
        placed: Placed<'a>,
    ) -> Race {
        let backend = placed.backend;
        let Ok(outgoing) = self.prepare(backend) else {
            return Race::First(waiting.await);
        };
        let mut heads = self.worker.heads.lend();
        let progress = heads.progress.clone();
        progress.begin(Kind::Hedge);
        let mut request = outgoing.buffer;
        let taken = outgoing.taken;
        let (worker, patience) = (self.worker, self.view.head_patience);
        let connecting = async {
            let connection = match worker.upstream.take_idle(backend, false, clock::now()) {
                Some(connection) => connection,
                None => self.connect(backend, &progress).await.ok()?,
            };
            connection
                .write_all(&mut request, patience)
                .await
                .is_ok()
                .then_some(connection)
        };
        let connection = match first(waiting.as_mut(), pin!(connecting)).await {
            First::Left(head) => return Race::First(head),
            First::Right(None) => return Race::First(waiting.await),
            First::Right(Some(connection)) => connection,
        };
        progress.whole_request_sent();
        let mut response = Response::new(
            self.worker,
            self.view,
            self.client,
            &connection,
            &mut heads.response,
            self.asked,
            &progress,
            buffer::small(),
        );
        let second = {
            let mut second = pin!(response.head());
            match first(waiting.as_mut(), second.as_mut()).await {
                First::Left(Ok(head)) => return Race::First(Ok(head)),
                // The first one failed while the second is under way: its answer is what is left.
                First::Left(Err(_)) => second.await,
                First::Right(Err(_)) => return Race::First(waiting.await),
                First::Right(head) => head,
            }
        };
        self.client.wire.wait_for_nobody();
        self.cancel_first(placed);
        self.request.head.progress = progress.clone();
        response.extra = self.cookie();
        let relayed = pass(&mut response, second).await;
        drop(response);
        Race::Second(self.end_of(relayed, connection, taken))
    }

    /// Another backend for the same request, if there is one and the budget pays for it.
    fn second_place(&mut self) -> Option<Placed<'a>> {
        let first = self.placed.as_ref()?.index;
        let mut tried = self.tried;
        tried.push(first);
        if !self.worker.local.borrow_mut().budget.take(clock::now()) {
            return None;
        }
        let placed = self.place_beside(tried);
        match &placed {
            Some(placed) => self.worker.shard.selection(&placed.backend.counts, true),
            None => self.worker.local.borrow_mut().budget.give_back(clock::now()),
        }
        placed
    }

    /// The second attempt takes the first one's place. How long the first one has taken by now is a lower bound of what it
    /// would have taken, and all that is known of it.
    fn cancel_first(&mut self, second: Placed<'a>) {
        self.note(Outcome::Abandoned, Moment::now());
        if let Some(first) = self.placed.replace(second) {
            let backend = first.backend;
            backend
                .shared
                .latency()
                .record(first.started().elapsed().into(), clock::now());
        }
    }
}

/// Which attempt's answer the client gets.
enum Race {
    First(Head),
    Second(AttemptEnd),
}

async fn pass(response: &mut Response<'_>, head: Head) -> Result<ResponseEnd, NoAnswer> {
    match head? {
        Some(head_len) => response.pass(head_len).await,
        None => Ok(ResponseEnd::ClientGone),
    }
}

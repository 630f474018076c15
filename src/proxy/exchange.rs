//! One request and its response: pick a backend, let it try, maybe pick another one, record what happened.
//!
//! The request stays in the buffer it came in until an answer begins, so that it can be sent again, to the same backend
//! when a connection turns out to have died while it was idle, to another one when `[retry]` says so. A request whose body
//! is all here goes out in one send and its exchange runs in one direction after the other; only a body that is still on
//! its way needs both at once. What one try does is in `attempt`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::outcome::Outcome;
use crate::balance::pool::Choice;
use crate::balance::tried::Tried;
use crate::buffer::Buffer;
use crate::clock::{self, Millis, Moment};
use crate::http1::Method;
use crate::http1::framing::BodyLength;
use crate::limits::queue::Queue;
use crate::proxy::attempt::{AttemptEnd, Failure};
use crate::proxy::body::BodyFollower;
use crate::proxy::connection::{After, Client, Inbound, PeerName, Request, answer, log_refusal};
use crate::proxy::context::Context;
use crate::proxy::placement::Limited;
use crate::proxy::request_body::PumpEnd;
use crate::proxy::response::{Asked, Complete, ResponseEnd};
use crate::proxy::tunnel;
use crate::reason::Reason;
use crate::record::{self, Kind, Termination};
use crate::snapshot::{Pool, View};
use crate::upstream::backend::Backend;
use crate::upstream::pool::Connection;

/// One request on its way; what it needs lives here and not in its futures, which then stay small.
pub struct Exchange<'a> {
    pub(super) worker: &'a Rc<Context>,
    pub(super) view: &'a Rc<View>,
    pub(super) client: &'a Client,
    pub(super) request: Request,
    pub(super) asked: Asked,
    /// weir's own `/metrics` is not part of what it measures.
    pub(super) counted: bool,
    /// Some of the body went to a backend as it came: the request is not here any more.
    pub(super) torn: bool,
    pub(super) tried: Tried,
    /// Attempts after the first.
    pub(super) retries: u32,
    /// The position of the backend that the client's cookie names.
    pub(super) sticky: Option<usize>,
    /// The hash of what a hashing strategy goes by.
    pub(super) key: Option<u64>,
    /// The last attempt failed in a way that may be over already.
    failed_in_passing: bool,
    /// The budget has paid for the attempt under way, and gets it back if that goes well.
    on_budget: bool,
    /// The attempt under way.
    pub(super) placed: Option<Placed<'a>>,
}

/// One attempt's place at a backend: counted in flight, and settled once with what it showed.
pub(super) struct Placed<'a> {
    pool: Option<&'a Pool>,
    pub(super) backend: &'a Arc<Backend>,
    choice: Option<Choice>,
    /// Its position in the pool; 0 for weir itself.
    pub(super) index: usize,
    /// Who is told that the slot is free again.
    queue: Option<&'a Queue>,
    started: Moment,
}

impl<'a> Placed<'a> {
    /// The attempt has begun: `backend` counts it in flight.
    pub(super) fn new(
        pool: Option<&'a Pool>,
        backend: &'a Arc<Backend>,
        choice: Option<Choice>,
        queue: Option<&'a Queue>,
    ) -> Self {
        Placed {
            pool,
            backend,
            index: choice.map_or(0, |choice| choice.index),
            choice,
            queue,
            started: Moment::now(),
        }
    }

    pub(super) fn started(&self) -> Moment {
        self.started
    }

    /// Teaches the pool how the attempt ended, `took` after it began.
    fn settle(&mut self, outcome: Outcome, took: Duration) {
        if let (Some(pool), Some(choice)) = (self.pool, self.choice.take()) {
            pool.balance
                .settle(choice, outcome, took, clock::now(), &mut |event| pool.log(event));
        }
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        self.settle(Outcome::Nothing, Duration::ZERO);
        self.backend.shared.end();
        if let Some(queue) = self.queue {
            queue.notify_freed();
        }
    }
}

impl<'a> Exchange<'a> {
    pub fn new(
        worker: &'a Rc<Context>,
        view: &'a Rc<View>,
        client: &'a Client,
        mut request: Request,
    ) -> Self {
        request.head.record.begin(Moment::now());
        let head = &request.head.request;
        let server = &view.config.server;
        let keep_alive = head.wants_keep_alive()
            && !worker.is_closing()
            && server
                .max_requests_per_connection
                .is_none_or(|max| client.requests < max);
        let asked = Asked::of(head, request.inbound.buffer.filled(), keep_alive);
        Exchange {
            worker,
            view,
            client,
            request,
            asked,
            counted: true,
            torn: false,
            tried: Tried::default(),
            retries: 0,
            sticky: None,
            key: None,
            failed_in_passing: false,
            on_budget: false,
            placed: None,
        }
    }

    /// Serves the request; see [`After`] for what becomes of the client connection.
    pub async fn run(&mut self) -> After {
        let view = self.view;
        let bytes = self.request.inbound.buffer.filled();
        if let Some(internal) = view.internal_for(&self.request.head.request, bytes, self.client.peer) {
            self.counted = false;
            internal.shared.begin(clock::now());
            self.placed = Some(Placed::new(None, internal, None, None));
            return match self.serve(internal).await {
                Ok(after) => after,
                Err(reason) => Box::pin(self.answer(reason)).await,
            };
        }
        self.worker.shard.exchange_received();
        self.introduce();
        if let (BodyLength::Length(length), Some(max)) =
            (self.request.head.request.body(), view.config.http.max_body_bytes)
            && length > max
        {
            return Box::pin(self.refuse(Reason::BodyTooLarge)).await;
        }
        if let Some(limited) = self.is_limited() {
            return Box::pin(self.refuse_limited(limited)).await;
        }
        self.know_request();
        self.worker.local.borrow_mut().budget.request(clock::now());
        loop {
            let placed = match self.place().await {
                Ok(placed) => placed,
                Err(reason) => return Box::pin(self.refuse(reason)).await,
            };
            let (backend, index) = (placed.backend, placed.index);
            self.placed = Some(placed);
            match self.serve(backend).await {
                Ok(after) => return after,
                Err(_) if self.goes_on(index) => {}
                Err(reason) => return Box::pin(self.answer(reason)).await,
            }
        }
    }

    /// Whether the request may be repeated although a backend may have seen it: by its method, and by what is kept of its
    /// body.
    pub(super) fn is_repeatable(&self) -> bool {
        let bytes = self.request.inbound.buffer.filled();
        self.view.retry.is_repeatable(&self.request.head.request, bytes)
    }

    /// Whether the attempt under way may be followed by another one even if its backend sees the request.
    pub(super) fn may_repeat(&self) -> bool {
        self.counted && self.retries < self.view.retry.max_retries && self.is_repeatable()
    }

    /// Makes the attempt and brings it to its end; an error: nothing of an answer went out. What only rare ends need is
    /// boxed: this future is part of every client connection's memory.
    async fn serve(&mut self, backend: &'a Arc<Backend>) -> Result<After, Reason> {
        if self.counted {
            self.worker.shard.selection(&backend.counts, self.retries > 0);
        }
        let mut end = self.attempt(backend, false).await;
        let stale = matches!(&end, AttemptEnd::Failed(failure) if failure.stale);
        let paid = stale && self.leaves_the_stale();
        if stale && !paid {
            // The dead connection's place in the list of wires is somebody else's by now.
            self.client.wire.wait_for_nobody();
            self.note(record::Outcome::Failed(Reason::BackendReset), Moment::now());
            self.request.head.progress.begin(Kind::Repeat);
            end = Box::pin(self.attempt(backend, true)).await;
        }
        self.client.wire.wait_for_nobody();
        let result = match end {
            AttemptEnd::Response {
                end,
                connection,
                request_done,
            } => match end {
                ResponseEnd::Complete(complete) => {
                    self.answered(complete.status, Termination::COMPLETE);
                    Ok(self.go_on(complete, connection, request_done))
                }
                ResponseEnd::Upgraded(behind) => {
                    self.answered(101, Termination::CUT);
                    Ok(Box::pin(self.tunnel(connection, behind)).await)
                }
                ResponseEnd::Refused { status, reusable } => {
                    self.record(record::Outcome::Status(status), Outcome::Status(status));
                    if reusable {
                        self.worker.upstream.keep(connection, false, clock::now());
                    }
                    self.on_budget = true;
                    tracing::debug!(status, backend = backend.name, "an answer gives way to a retry");
                    Err(Reason::BadResponse)
                }
                ResponseEnd::Cut { reason } => {
                    self.cut(reason);
                    self.log_failure(backend, reason, "failed in the middle of a response");
                    Ok(After::Abort)
                }
                ResponseEnd::ClientGone => Ok(Box::pin(self.end_by_client(PumpEnd::ClientGone)).await),
            },
            AttemptEnd::Client(end) => Ok(Box::pin(self.end_by_client(end)).await),
            AttemptEnd::Failed(failure) => {
                let outcome = if paid { Outcome::Stale } else { failure.outcome() };
                // What was just paid for is the next attempt.
                let next = paid && std::mem::take(&mut self.on_budget);
                self.record(record::Outcome::Failed(failure.reason), outcome);
                // Who speaks no HTTP will not do better at once.
                self.failed_in_passing &= failure.reason != Reason::BadResponse;
                self.log_failure(backend, failure.reason, &failure.detail);
                if next {
                    self.on_budget = true;
                } else {
                    self.pay_for_retry(&failure);
                }
                Err(failure.reason)
            }
        };
        self.placed = None;
        result
    }

    /// A connection died while it was idle: whether its backend has gone too by what others found, so that another one is
    /// the better choice, if the budget pays for it.
    fn leaves_the_stale(&mut self) -> bool {
        let gone = self
            .placed
            .as_ref()
            .is_some_and(|placed| self.counted && !self.view.pool.is_eligible(placed.index));
        if !gone || !self.may_repeat() {
            return false;
        }
        let mut local = self.worker.local.borrow_mut();
        let paid = local.budget.take(clock::now());
        // A retry that met a dead connection has failed nobody.
        if paid && std::mem::replace(&mut self.on_budget, true) {
            local.budget.give_back(clock::now());
        }
        paid
    }

    /// Whether the failed attempt is followed by another one, as far as rules and budget decide.
    fn pay_for_retry(&mut self, failure: &Failure) {
        let rules = &self.view.retry;
        let whole = self.view.config.timeouts.exchange;
        let in_time = whole.is_none_or(|whole| clock::now() < self.request.started + whole);
        self.on_budget = self.counted
            && !self.torn
            && in_time
            && self.retries < rules.max_retries
            && rules.covers(failure.outcome())
            && (failure.unsent || self.is_repeatable())
            && self.worker.local.borrow_mut().budget.take(clock::now());
    }

    /// Prepares the attempt after a failed one that the budget has paid for; false: there is none.
    fn goes_on(&mut self, failed: usize) -> bool {
        if !self.on_budget || self.torn {
            return false;
        }
        self.retries += 1;
        self.tried.push(failed);
        if self.view.pool.balance.has_untried(self.tried.as_slice()) {
            return true;
        }
        // The same one once more, if it may do better at once: not where nobody listens, or where time ran out.
        self.tried.clear();
        if !self.failed_in_passing && std::mem::take(&mut self.on_budget) {
            self.worker.local.borrow_mut().budget.give_back(clock::now());
        }
        self.failed_in_passing
    }

    /// After a whole response: keeps what can serve another exchange.
    fn go_on(&mut self, complete: Complete, connection: Connection, request_done: bool) -> After {
        if self.retries > 0 {
            let (status, attempts) = (complete.status, self.retries + 1);
            tracing::info!(
                status,
                attempts,
                backend = connection.backend().name,
                "answered after a retry"
            );
        }
        if complete.reusable && request_done {
            self.worker
                .upstream
                .keep(connection, complete.suspect, clock::now());
        }
        if request_done && complete.keep_alive {
            self.client.set_write_limit(Millis::NEVER);
            return self.next();
        }
        self.close(request_done)
    }

    /// Closes behind an answer. What the client has sent and nobody read would make the close a reset, and the reset
    /// would take the end of the answer with it.
    fn close(&self, request_read: bool) -> After {
        let unread = !self.request.inbound.buffer.is_empty() || self.client.transport().has_bytes();
        if request_read && !unread {
            After::Close
        } else {
            After::Linger
        }
    }

    async fn tunnel(&mut self, connection: Connection, behind: Buffer) -> After {
        connection.set_limit(Millis::NEVER);
        self.client.set_write_limit(Millis::NEVER);
        let _streaming = connection.backend().shared.stream();
        let from_client = std::mem::replace(&mut self.request.inbound.buffer, Buffer::none());
        // A tunnel lives long; it takes memory only while bytes move.
        self.request.inbound.admission = None;
        let end = tunnel::run(self.view, self.client, &connection, from_client, behind).await;
        self.end_tunnel(end);
        if end.broken.is_none() {
            return After::Close;
        }
        connection.transport().reset_on_close();
        After::Abort
    }

    async fn end_by_client(&mut self, end: PumpEnd) -> After {
        match end {
            PumpEnd::Refused(reason) => self.refuse(reason).await,
            _ => {
                if std::mem::take(&mut self.on_budget) {
                    self.worker.local.borrow_mut().budget.give_back(clock::now());
                }
                self.worker.shard.client_abort();
                self.client_left();
                After::Abort
            }
        }
    }

    /// Answers a request that no backend has failed.
    async fn refuse(&mut self, reason: Reason) -> After {
        log_refusal(self.client, reason, "");
        self.answer(reason).await
    }

    /// Answers a client that is past its rate.
    async fn refuse_limited(&mut self, limited: Limited) -> After {
        log_refusal(self.client, Reason::RateLimited, "");
        self.answer_with(Reason::RateLimited, Some(limited)).await
    }

    async fn answer(&mut self, reason: Reason) -> After {
        self.answer_with(reason, None).await
    }

    /// Answers instead of a backend. The connection goes on only if all of the request is here and can be passed over.
    async fn answer_with(&mut self, reason: Reason, limited: Option<Limited>) -> After {
        self.client.set_write_limit(Millis::NEVER);
        self.request.head.record.answered(reason);
        let passed_over = self.pass_over_request();
        let keep_alive = self.asked.keep_alive && passed_over && !self.worker.is_closing();
        let head_only = self.asked.method == Method::Head;
        let answered = answer(self.worker, self.client, reason, limited, !keep_alive, head_only).await;
        self.note_own_answer(&answered);
        if answered.is_err() {
            return After::Abort;
        }
        if keep_alive {
            self.next()
        } else {
            self.close(passed_over)
        }
    }

    /// Takes the request, of which nothing was used yet, out of the buffer; false if some of it is still to come.
    fn pass_over_request(&mut self) -> bool {
        if self.torn {
            return false;
        }
        let head_len = self.request.head_len;
        let mut follower = BodyFollower::new(self.request.head.request.body(), false);
        let Some(body) = self.request.inbound.buffer.filled_mut().get_mut(head_len..) else {
            return false;
        };
        match follower.follow(body) {
            Ok(step) if follower.is_done() => {
                self.request.inbound.buffer.consume(head_len + step.consumed);
                true
            }
            _ => false,
        }
    }

    /// On to the next request, of which some may be here already.
    fn next(&mut self) -> After {
        let inbound = &mut self.request.inbound;
        if inbound.buffer.is_empty() {
            return After::KeepAlive(None);
        }
        After::KeepAlive(Some(Inbound {
            buffer: std::mem::replace(&mut inbound.buffer, Buffer::none()),
            admission: inbound.admission.take(),
        }))
    }

    /// Puts both sides under `timeouts.exchange`.
    pub(super) fn limit(&self, connection: &Connection) {
        if let Some(whole) = self.view.config.timeouts.exchange {
            let until = self.request.started + whole;
            connection.set_limit(until);
            self.client.set_write_limit(until);
        }
    }

    /// Counts the end of an attempt, and lets the pool learn from it.
    pub(super) fn record(&mut self, ended: record::Outcome, outcome: Outcome) {
        let now = Moment::now();
        self.note(ended, now);
        let Some(placed) = self.placed.as_mut().filter(|_| self.counted) else {
            return;
        };
        self.failed_in_passing = matches!(outcome, Outcome::Reset | Outcome::Status(_));
        let took = Duration::from(now - placed.started);
        let status = match ended {
            record::Outcome::Status(status) => Some(status),
            record::Outcome::Failed(_) | record::Outcome::Abandoned => None,
        };
        self.worker.shard.attempt(&placed.backend.counts, status, took);
        // How long a client takes to read is not the backend's.
        let head_at = self.request.head.progress.head_at.get();
        let to_head = head_at.map_or(took, |at| Duration::from(at - placed.started));
        placed.settle(outcome, to_head);
        if self.view.config.hedge.enabled && !outcome.is_failure() {
            self.worker.local.borrow_mut().tail.record(to_head);
        }
        if std::mem::take(&mut self.on_budget) {
            let mut local = self.worker.local.borrow_mut();
            if outcome.is_failure() {
                local.budget.lost();
            } else {
                local.budget.give_back(clock::now());
            }
        }
    }

    fn log_failure(&self, backend: &Backend, reason: Reason, detail: &str) {
        tracing::warn!(
            reason = reason.word(),
            backend = backend.name,
            detail,
            attempt = self.retries + 1,
            client = %PeerName(self.client.peer),
            "attempt failed"
        );
    }
}

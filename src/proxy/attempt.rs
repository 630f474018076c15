//! One try of an exchange at one backend: a connection, the request out, the answer back.

use std::sync::Arc;

use crate::balance::outcome::Outcome;
use crate::buffer::{self, Buffer};
use crate::clock::{self, Millis, Moment};
use crate::config::model::HostMode;
use crate::http1::rewrite::{HostRewrite, RequestRewrite, request_bound, write_request};
use crate::limits::address;
use crate::proxy::body::BodyFollower;
use crate::proxy::connection::log_refusal;
use crate::proxy::exchange::Exchange;
use crate::proxy::join;
use crate::proxy::progress::Progress;
use crate::proxy::request_body::{self, Kept, PumpEnd};
use crate::proxy::response::{NoAnswer, Response, ResponseEnd};
use crate::reason::Reason;
use crate::record::Part;
use crate::upstream::backend::Backend;
use crate::upstream::pool::Connection;

/// The request as it goes out, and what of its body has not been received yet.
pub(super) struct Outgoing {
    pub(super) buffer: Buffer,
    follower: BodyFollower,
    /// Bytes behind the head that are in `buffer`.
    pub(super) taken: usize,
    payload: u64,
}

/// How one attempt ended.
pub(super) enum AttemptEnd {
    /// With an answer, whole or not; `request_done`: the backend got the whole request.
    Response {
        end: ResponseEnd,
        connection: Connection,
        request_done: bool,
    },
    /// Before anything of an answer.
    Failed(Failure),
    /// By the client, or by what it sent.
    Client(PumpEnd),
}

/// An attempt that got no answer.
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) detail: String,
    /// Nothing of the request went out.
    pub(super) unsent: bool,
    /// The connection died while it was idle and the backend did not act on this request: it may be sent again.
    pub(super) stale: bool,
}

impl Failure {
    fn from_no_answer(no_answer: &NoAnswer, stale: bool) -> Self {
        Failure {
            reason: no_answer.reason,
            detail: no_answer.detail.to_owned(),
            unsent: false,
            stale,
        }
    }

    /// What it says of the backend.
    pub(super) fn outcome(&self) -> Outcome {
        outcome_of(self.reason)
    }
}

/// What a failure says of the backend.
pub(super) fn outcome_of(reason: Reason) -> Outcome {
    match reason {
        Reason::ConnectRefused => Outcome::ConnectRefused,
        Reason::ConnectTimeout => Outcome::ConnectTimeout,
        Reason::BackendReset => Outcome::Reset,
        // What the client gets for it too.
        Reason::BadResponse => Outcome::Status(502),
        Reason::BackendTimeout => Outcome::Timeout,
        _ => Outcome::Nothing,
    }
}

impl<'a> Exchange<'a> {
    /// One try at one backend. `fresh`: no idle connection will do, unless `upstream.max_connections` leaves no other, and
    /// then only after a look at it.
    pub(super) async fn attempt(&mut self, backend: &Arc<Backend>, fresh: bool) -> AttemptEnd {
        self.begin_span();
        let mut outgoing = match self.prepare(backend) {
            Ok(outgoing) => outgoing,
            Err(reason) => return AttemptEnd::Client(PumpEnd::Refused(reason)),
        };
        if self.is_traced() {
            self.explain();
        }
        let must_be_quiet = !self.asked.method.is_idempotent();
        let idle = if fresh {
            None
        } else {
            self.worker
                .upstream
                .take_idle(backend, must_be_quiet, clock::now())
        };
        let connection = match idle {
            Some(connection) => connection,
            None => match Box::pin(self.connect(backend, &self.request.head.progress)).await {
                Ok(connection) => connection,
                Err(failure) => return AttemptEnd::Failed(failure),
            },
        };
        self.limit(&connection);
        self.client.wire.wait_for(connection.wire(), clock::now());
        let sent = connection
            .write_all(&mut outgoing.buffer, self.view.head_patience)
            .await;
        if let Some(error) = sent.error {
            let reason = if connection.expired() {
                Reason::BackendTimeout
            } else {
                Reason::BackendReset
            };
            return AttemptEnd::Failed(Failure {
                reason,
                detail: format!("sending the request: {error}"),
                unsent: sent.bytes == 0,
                stale: (sent.bytes == 0 || self.asked.method.is_idempotent())
                    && connection.is_reused()
                    && reason == Reason::BackendReset,
            });
        }
        if !outgoing.follower.is_done() {
            return Box::pin(self.both_ways(connection, outgoing)).await;
        }
        if self.view.config.hedge.enabled && self.may_repeat() {
            return Box::pin(self.hedged(connection, outgoing.buffer, outgoing.taken)).await;
        }
        let progress = self.request.head.progress.clone();
        progress.whole_request_sent();
        let relayed = self
            .response(&connection, &progress, outgoing.buffer)
            .relay()
            .await;
        self.end_of(relayed, connection, outgoing.taken)
    }

    /// How the attempt ended whose whole request, with `taken` bytes of body, had gone out before its answer was read.
    pub(super) fn end_of(
        &mut self,
        relayed: Result<ResponseEnd, NoAnswer>,
        connection: Connection,
        taken: usize,
    ) -> AttemptEnd {
        match relayed {
            Ok(end) => {
                if !matches!(end, ResponseEnd::Refused { .. }) {
                    let used = self.request.head_len + taken;
                    self.request.inbound.buffer.consume(used);
                }
                AttemptEnd::Response {
                    end,
                    connection,
                    request_done: true,
                }
            }
            Err(_) if self.client.is_gone() => AttemptEnd::Client(PumpEnd::ClientGone),
            Err(no_answer) => {
                let stale = no_answer.silent
                    && no_answer.reason == Reason::BackendReset
                    && connection.is_reused()
                    && self.asked.method.is_idempotent();
                AttemptEnd::Failed(Failure::from_no_answer(&no_answer, stale))
            }
        }
    }

    pub(super) async fn connect(
        &self,
        backend: &Arc<Backend>,
        progress: &Progress,
    ) -> Result<Connection, Failure> {
        let (settings, shard) = (&self.view.config.upstream, &self.worker.shard);
        let began = Moment::now();
        let connected = self
            .worker
            .upstream
            .connect(backend, settings, self.view.connect_patience)
            .await;
        progress.connect.set(Some(began.elapsed()));
        match connected {
            Ok(connection) => {
                // Under `upstream.max_connections` it may be one that somebody else gave back.
                if !connection.is_reused() {
                    shard.backend_connect(&backend.counts, true);
                }
                Ok(connection)
            }
            Err(error) => {
                shard.backend_connect(&backend.counts, false);
                Err(Failure {
                    reason: error.reason,
                    detail: error.error.to_string(),
                    unsent: true,
                    stale: false,
                })
            }
        }
    }

    /// The outgoing head with as much of the body as came with it.
    pub(super) fn prepare(&mut self, backend: &Backend) -> Result<Outgoing, Reason> {
        let http = &self.view.config.http;
        let head = &self.request.head.request;
        let rewrite = RequestRewrite {
            host: match &http.host {
                HostMode::Preserve => HostRewrite::Preserve {
                    fallback: backend.authority.as_bytes(),
                },
                HostMode::Backend => HostRewrite::Set(backend.authority.as_bytes()),
                HostMode::Name(name) => HostRewrite::Set(name.as_bytes()),
            },
            forwarded: http.forwarded,
            client: self.client.peer,
            trusted: self
                .client
                .peer
                .is_some_and(|peer| address::is_trusted(peer, &self.view.config.server.trusted_proxies)),
            scheme: "http",
            via: http.via,
            request_id: self.request.head.record.captured.part(Part::RequestId),
            trace_parent: self.request.head.record.captured.part(Part::TraceParent),
        };
        let bound = request_bound(head, &rewrite);
        let behind = self.request.inbound.buffer.len() - self.request.head_len;
        let mut buffer = buffer::small();
        if bound + behind > buffer.spare()
            && let Some(large) = buffer::large()
        {
            buffer = large;
        }
        if bound > buffer.spare() {
            return Err(Reason::OutOfMemory);
        }
        write_request(
            head,
            self.request.inbound.buffer.filled(),
            &rewrite,
            buffer.tail(),
        );
        let mut follower = BodyFollower::new(head.body(), false);
        let body = &mut self.request.inbound.buffer.filled_mut()[self.request.head_len..];
        let room = buffer.spare().min(body.len());
        let step = follower
            .follow(&mut body[..room])
            .map_err(|reject| reject.reason)?;
        buffer.append(&body[..step.consumed]);
        if http.max_body_bytes.is_some_and(|max| step.payload > max) {
            return Err(Reason::BodyTooLarge);
        }
        Ok(Outgoing {
            buffer,
            follower,
            taken: step.consumed,
            payload: step.payload,
        })
    }

    /// The line that brings the client back to this backend, unless it has it.
    pub(super) fn cookie(&self) -> &'a [u8] {
        match (&self.view.sticky, &self.placed) {
            (Some(sticky), Some(placed)) if self.counted && self.sticky != Some(placed.index) => {
                sticky.line(placed.index)
            }
            _ => &[],
        }
    }

    fn response<'b>(
        &'b mut self,
        connection: &'b Connection,
        progress: &'b Progress,
        buffer: Buffer,
    ) -> Response<'b> {
        let may_refuse = self.may_repeat();
        let cookie = self.cookie();
        let mut response = Response::new(
            self.worker,
            self.view,
            self.client,
            connection,
            &mut self.request.head.response,
            self.asked,
            progress,
            buffer,
        );
        response.may_refuse = may_refuse;
        response.extra = cookie;
        response
    }

    /// The rest of the request body and the response, at once.
    async fn both_ways(&mut self, connection: Connection, mut outgoing: Outgoing) -> AttemptEnd {
        let progress = self.request.head.progress.clone();
        let sent = self.request.head_len + outgoing.taken;
        let mut kept = if self.may_repeat() {
            Kept::new(
                &self.request.inbound.buffer,
                self.request.head_len,
                sent,
                self.view.retry.buffer,
            )
        } else {
            Kept::nothing()
        };
        progress.whole.set(kept.is_whole());
        self.torn = true;
        let (view, client) = (self.view, self.client);
        let mut inbound = std::mem::replace(&mut self.request.inbound.buffer, Buffer::none());
        inbound.consume(sent);
        let (pumped, end) = {
            let pump = request_body::pump(
                view,
                client,
                &connection,
                &progress,
                &mut outgoing.follower,
                inbound,
                outgoing.payload,
                &mut kept,
            );
            let mut response = self.response(&connection, &progress, outgoing.buffer);
            join::until_second(pump, response.relay(), |(end, _)| end.stops_the_exchange()).await
        };
        client.set_read_deadline(Millis::NEVER);
        let pumped = pumped.map(|(pump_end, rest)| {
            self.request.inbound.buffer = rest;
            pump_end
        });
        let whole = matches!(pumped, Some(PumpEnd::Done | PumpEnd::BackendClosed));
        match (end, pumped) {
            // A refusal can still be answered while nothing of a response went out.
            (None, Some(PumpEnd::Refused(reason))) if !progress.head_seen.get() => {
                AttemptEnd::Client(PumpEnd::Refused(reason))
            }
            (None, Some(PumpEnd::Refused(reason))) => {
                log_refusal(client, reason, "in the middle of a response");
                AttemptEnd::Client(PumpEnd::ClientGone)
            }
            (None, _) => AttemptEnd::Client(PumpEnd::ClientGone),
            (Some(Ok(end)), _) => {
                if whole && matches!(end, ResponseEnd::Refused { .. }) {
                    self.mend(kept);
                }
                let request_done = progress.request_done.get();
                AttemptEnd::Response {
                    end,
                    connection,
                    request_done,
                }
            }
            (Some(Err(_)), _) if client.is_gone() => AttemptEnd::Client(PumpEnd::ClientGone),
            (Some(Err(no_answer)), _) => {
                if whole {
                    self.mend(kept);
                }
                AttemptEnd::Failed(Failure::from_no_answer(&no_answer, false))
            }
        }
    }

    /// Puts what was kept of the request in front of what came behind it, so that it is whole again.
    fn mend(&mut self, kept: Kept) {
        let Some(mut whole) = kept.into_buffer() else {
            return;
        };
        let rest = self.request.inbound.buffer.filled();
        if whole.append(rest) == rest.len() {
            self.request.inbound.buffer = whole;
            self.torn = false;
        }
    }
}

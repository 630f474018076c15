//! One request and its response: pick a backend, send the request, pass the answer on, record what happened.
//!
//! The request stays in the buffer it came in until an answer begins, so that it can be sent again when a backend
//! connection turns out to have died while it was idle. A request whose body is all here goes out in one send and its
//! exchange runs in one direction after the other; only a body that is still on its way needs both at once.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::balance::pool::Ask;
use crate::buffer::{self, Buffer};
use crate::clock::{self, Millis};
use crate::config::model::HostMode;
use crate::http1::Method;
use crate::http1::framing::BodyLength;
use crate::http1::rewrite::{HostRewrite, RequestRewrite, request_bound, write_request};
use crate::limits::address;
use crate::proxy::body::BodyFollower;
use crate::proxy::connection::{After, Client, Inbound, PeerName, Request, answer, log_refusal};
use crate::proxy::context::Context;
use crate::proxy::join;
use crate::proxy::request_body::{self, Progress, PumpEnd};
use crate::proxy::response::{Asked, Complete, NoAnswer, Response, ResponseEnd};
use crate::proxy::tunnel::{self, TunnelEnd};
use crate::reason::Reason;
use crate::upstream::backend::Backend;
use crate::upstream::pool::Connection;

/// One request on its way; what it needs lives here and not in its futures, which then stay small.
pub struct Exchange<'a> {
    worker: &'a Rc<Context>,
    client: &'a Client,
    request: Request,
    asked: Asked,
    /// weir's own `/metrics` is not part of what it measures.
    counted: bool,
    /// Some of the body went to a backend as it came: the request is not here any more.
    torn: bool,
}

/// The request as it goes out, and what of its body has not been received yet.
struct Outgoing {
    buffer: Buffer,
    follower: BodyFollower,
    /// Bytes behind the head that are in `buffer`.
    taken: usize,
    payload: u64,
}

/// How one attempt ended.
enum AttemptEnd {
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
struct Failure {
    reason: Reason,
    detail: String,
    /// The connection died while it was idle and the backend did not act on this request: it may be sent again.
    resend: bool,
}

impl<'a> Exchange<'a> {
    pub fn new(worker: &'a Rc<Context>, client: &'a Client, request: Request) -> Self {
        let head = &request.head.request;
        let server = &worker.snapshot.config.server;
        let keep_alive = head.wants_keep_alive()
            && !worker.is_closing()
            && server
                .max_requests_per_connection
                .is_none_or(|max| client.requests < max);
        let asked = Asked::of(head, request.inbound.buffer.filled(), keep_alive);
        Exchange {
            worker,
            client,
            request,
            asked,
            counted: true,
            torn: false,
        }
    }

    /// Serves the request; see [`After`] for what becomes of the client connection.
    pub async fn run(&mut self) -> After {
        let snapshot = &self.worker.snapshot;
        let internal = snapshot.internal.as_ref().filter(|_| self.asks_for_metrics());
        self.counted = internal.is_none();
        if self.counted {
            self.worker.shard.exchange_received();
        }
        if let (BodyLength::Length(length), Some(max)) = (
            self.request.head.request.body(),
            snapshot.config.http.max_body_bytes,
        ) && length > max
        {
            return Box::pin(self.refuse(Reason::BodyTooLarge)).await;
        }
        let ask = Ask {
            now: clock::now(),
            key: None,
            tried: &[],
        };
        let picked = internal.or_else(|| snapshot.pool.pick(&ask, &mut self.worker.local.borrow_mut()));
        match picked {
            Some(backend) => self.serve(backend).await,
            None => Box::pin(self.refuse(Reason::NoBackend)).await,
        }
    }

    /// Whether weir itself answers: `metrics.path`, asked for by an allowed peer that speaks for nobody else.
    fn asks_for_metrics(&self) -> bool {
        let metrics = &self.worker.snapshot.config.metrics;
        let Some(path) = &metrics.path else {
            return false;
        };
        let head = &self.request.head.request;
        let asked = head.path(self.request.inbound.buffer.filled());
        let asked = asked.split(|&byte| byte == b'?').next().unwrap_or_default();
        asked == path.as_bytes()
            && matches!(head.method(), Method::Get | Method::Head)
            && !head.has_forwarding_fields()
            && self
                .client
                .peer
                .is_some_and(|peer| metrics.allow.iter().any(|network| network.contains(&peer)))
    }

    /// Makes the attempt and brings the exchange to its end. What only rare ends need is boxed: this future is part of
    /// every client connection's memory.
    async fn serve(&mut self, backend: &Arc<Backend>) -> After {
        let _in_flight = backend.enter();
        if self.counted {
            self.worker.shard.selection(backend.index);
        }
        let started = Instant::now();
        let mut end = self.attempt(backend, false).await;
        if matches!(&end, AttemptEnd::Failed(failure) if failure.resend) {
            // The dead connection's place in the list of wires is somebody else's by now.
            self.client.wire.wait_for_nobody();
            end = Box::pin(self.attempt(backend, true)).await;
        }
        self.client.wire.wait_for_nobody();
        match end {
            AttemptEnd::Response {
                end,
                connection,
                request_done,
            } => match end {
                ResponseEnd::Complete(complete) => {
                    self.record(backend, Some(complete.status), started);
                    self.go_on(complete, connection, request_done)
                }
                ResponseEnd::Upgraded(behind) => {
                    self.record(backend, Some(101), started);
                    Box::pin(self.tunnel(connection, behind)).await
                }
                ResponseEnd::Cut { reason } => {
                    self.record(backend, None, started);
                    self.log_failure(backend, reason, "failed in the middle of a response");
                    After::Abort
                }
                ResponseEnd::ClientGone => Box::pin(self.end_by_client(PumpEnd::ClientGone)).await,
            },
            AttemptEnd::Client(end) => Box::pin(self.end_by_client(end)).await,
            AttemptEnd::Failed(failure) => {
                self.record(backend, None, started);
                self.log_failure(backend, failure.reason, &failure.detail);
                Box::pin(self.answer(failure.reason)).await
            }
        }
    }

    /// One try at one backend. `fresh`: no idle connection will do, unless `upstream.max_connections` leaves no other, and
    /// then only after a look at it.
    async fn attempt(&mut self, backend: &Arc<Backend>, fresh: bool) -> AttemptEnd {
        let timeouts = &self.worker.snapshot.config.timeouts;
        let mut outgoing = match self.prepare(backend) {
            Ok(outgoing) => outgoing,
            Err(reason) => return AttemptEnd::Client(PumpEnd::Refused(reason)),
        };
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
            None => {
                let settings = &self.worker.snapshot.config.upstream;
                match Box::pin(self.worker.upstream.connect(backend, settings, timeouts.connect)).await {
                    Ok(connection) => {
                        // Under `upstream.max_connections` it may be one that somebody else gave back.
                        if !connection.is_reused() {
                            self.worker.shard.backend_connect(backend.index, true);
                        }
                        connection
                    }
                    Err(error) => {
                        self.worker.shard.backend_connect(backend.index, false);
                        return AttemptEnd::Failed(Failure {
                            reason: error.reason,
                            detail: error.error.to_string(),
                            resend: false,
                        });
                    }
                }
            }
        };
        self.limit(&connection);
        self.client.wire.wait_for(connection.wire(), clock::now());
        let sent = connection
            .write_all(&mut outgoing.buffer, timeouts.response_head)
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
                resend: (sent.bytes == 0 || self.asked.method.is_idempotent())
                    && connection.is_reused()
                    && reason == Reason::BackendReset,
            });
        }
        if !outgoing.follower.is_done() {
            return Box::pin(self.both_ways(connection, outgoing)).await;
        }
        let progress = Progress::default();
        progress.request_done.set(true);
        match self
            .response(&connection, &progress, outgoing.buffer)
            .relay()
            .await
        {
            Ok(end) => {
                let used = self.request.head_len + outgoing.taken;
                self.request.inbound.buffer.consume(used);
                AttemptEnd::Response {
                    end,
                    connection,
                    request_done: true,
                }
            }
            Err(_) if self.client.is_gone() => AttemptEnd::Client(PumpEnd::ClientGone),
            Err(no_answer) => {
                let resend = no_answer.silent
                    && no_answer.reason == Reason::BackendReset
                    && connection.is_reused()
                    && self.asked.method.is_idempotent();
                AttemptEnd::Failed(Failure::from_no_answer(&no_answer, resend))
            }
        }
    }

    /// The outgoing head with as much of the body as came with it.
    fn prepare(&mut self, backend: &Backend) -> Result<Outgoing, Reason> {
        let http = &self.worker.snapshot.config.http;
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
            trusted: self.client.peer.is_some_and(|peer| {
                address::is_trusted(peer, &self.worker.snapshot.config.server.trusted_proxies)
            }),
            scheme: "http",
            via: http.via,
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

    fn response<'b>(
        &'b mut self,
        connection: &'b Connection,
        progress: &'b Progress,
        buffer: Buffer,
    ) -> Response<'b> {
        let head = &mut self.request.head.response;
        Response::new(
            self.worker,
            self.client,
            connection,
            head,
            self.asked,
            progress,
            buffer,
        )
    }

    /// The rest of the request body and the response, at once.
    async fn both_ways(&mut self, connection: Connection, mut outgoing: Outgoing) -> AttemptEnd {
        let progress = Progress::default();
        self.torn = true;
        let (worker, client) = (self.worker.clone(), self.client);
        let mut inbound = std::mem::replace(&mut self.request.inbound.buffer, Buffer::none());
        inbound.consume(self.request.head_len + outgoing.taken);
        let (pumped, end) = {
            let pump = request_body::pump(
                &worker,
                client,
                &connection,
                &progress,
                &mut outgoing.follower,
                inbound,
                outgoing.payload,
            );
            let mut response = self.response(&connection, &progress, outgoing.buffer);
            join::until_second(pump, response.relay(), |(end, _)| end.stops_the_exchange()).await
        };
        client.set_read_deadline(Millis::NEVER);
        let pumped = pumped.map(|(pump_end, rest)| {
            self.request.inbound.buffer = rest;
            pump_end
        });
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
                let request_done = progress.request_done.get();
                AttemptEnd::Response {
                    end,
                    connection,
                    request_done,
                }
            }
            (Some(Err(_)), _) if client.is_gone() => AttemptEnd::Client(PumpEnd::ClientGone),
            (Some(Err(no_answer)), _) => AttemptEnd::Failed(Failure::from_no_answer(&no_answer, false)),
        }
    }

    /// After a whole response: keeps what can serve another exchange.
    fn go_on(&mut self, complete: Complete, connection: Connection, request_done: bool) -> After {
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
        let from_client = std::mem::replace(&mut self.request.inbound.buffer, Buffer::none());
        // A tunnel lives long; it takes memory only while bytes move.
        self.request.inbound.admission = None;
        match tunnel::run(self.worker, self.client, &connection, from_client, behind).await {
            TunnelEnd::Clean => After::Close,
            TunnelEnd::Broken => {
                connection.transport().reset_on_close();
                After::Abort
            }
        }
    }

    async fn end_by_client(&mut self, end: PumpEnd) -> After {
        match end {
            PumpEnd::Refused(reason) => self.refuse(reason).await,
            _ => {
                self.worker.shard.client_abort();
                After::Abort
            }
        }
    }

    /// Answers a request that no backend has failed.
    async fn refuse(&mut self, reason: Reason) -> After {
        log_refusal(self.client, reason, "");
        self.answer(reason).await
    }

    /// Answers instead of a backend. The connection goes on only if all of the request is here and can be passed over.
    async fn answer(&mut self, reason: Reason) -> After {
        self.client.set_write_limit(Millis::NEVER);
        let passed_over = self.pass_over_request();
        let keep_alive = self.asked.keep_alive && passed_over && !self.worker.is_closing();
        let head_only = self.asked.method == Method::Head;
        if answer(self.worker, self.client, reason, !keep_alive, head_only)
            .await
            .is_err()
        {
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
    fn limit(&self, connection: &Connection) {
        if let Some(whole) = self.worker.snapshot.config.timeouts.exchange {
            let until = self.request.started + whole;
            connection.set_limit(until);
            self.client.set_write_limit(until);
        }
    }

    fn record(&self, backend: &Backend, status: Option<u16>, started: Instant) {
        if self.counted {
            self.worker
                .shard
                .attempt(backend.index, status, started.elapsed());
        }
    }

    fn log_failure(&self, backend: &Backend, reason: Reason, detail: &str) {
        tracing::warn!(
            reason = reason.word(),
            backend = backend.name,
            detail,
            client = %PeerName(self.client.peer),
            "attempt failed"
        );
    }
}

impl Failure {
    fn from_no_answer(no_answer: &NoAnswer, resend: bool) -> Self {
        Failure {
            reason: no_answer.reason,
            detail: no_answer.detail.to_owned(),
            resend,
        }
    }
}

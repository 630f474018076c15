//! Reading a backend's response and passing it on.
//!
//! The buffer that is received into is the buffer that is sent from: the rewritten head is put in front of the body bytes
//! that came with it, into the space that the received head and some headroom leave.

use std::io;

use crate::balance::outcome::Outcome;
use crate::balance::shared::Streaming;
use crate::buffer::{self, Buffer, HEADROOM};
use crate::clock::{self, Millis};
use crate::http1::framing::BodyLength;
use crate::http1::request::RequestHead;
use crate::http1::response::{RequestFacts, ResponseHead};
use crate::http1::rewrite::{ResponseRewrite, response_bound, write_response};
use crate::http1::{Method, Reject, Version};
use crate::proxy::body::BodyFollower;
use crate::proxy::connection::{Client, grow};
use crate::proxy::context::{Context, Scratch};
use crate::proxy::explain;
use crate::proxy::progress::Progress;
use crate::reason::Reason;
use crate::snapshot::View;
use crate::transport::RECEIVE_BUFFER_FIRST;
use crate::upstream::pool::Connection;

/// Interim responses that are passed on before one exchange is given up: nobody sends more than a few.
const INTERIM_MAX: usize = 64;

/// A backend connection over which so many bytes of large bodies came has clients that take them: kernels alone hold less of
/// one body, though some megabytes if left to themselves.
const BULK_AFTER: u64 = 16 * 1024 * 1024;

/// What the response side knows of the request.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub method: Method,
    pub version: Version,
    pub upgrade: bool,
    /// The client may send another request on this connection.
    pub keep_alive: bool,
}

impl Asked {
    pub fn of(request: &RequestHead, bytes: &[u8], keep_alive: bool) -> Self {
        Asked {
            method: request.method(),
            version: request.version(),
            upgrade: request.upgrade(bytes).is_some(),
            keep_alive,
        }
    }

    fn facts(self) -> RequestFacts {
        RequestFacts {
            method: self.method,
            upgrade: self.upgrade,
        }
    }
}

/// How a response ended.
#[derive(Debug)]
pub enum ResponseEnd {
    /// All of it went to the client.
    Complete(Complete),
    /// A 101 went to the client; these bytes came right behind it.
    Upgraded(Buffer),
    /// Nothing of it went to the client: the request is to be sent again, and the budget has paid for it.
    Refused {
        status: u16,
        /// As in [`Complete`].
        reusable: bool,
    },
    /// The backend failed in the middle of the response.
    Cut { reason: Reason },
    /// The client is gone.
    ClientGone,
}

/// A whole response and what may follow it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Complete {
    pub status: u16,
    /// The backend connection is exactly behind the response and may serve another exchange.
    pub reusable: bool,
    /// It had no body by rule alone (RFC 9110 §6.4.1): a backend that thinks otherwise has more to say.
    pub suspect: bool,
    /// The client connection may carry another request.
    pub keep_alive: bool,
}

/// Why nothing of a final response went to the client.
#[derive(Debug)]
pub struct NoAnswer {
    pub reason: Reason,
    pub detail: &'static str,
    /// Not a single byte came: the connection may simply have been closed while it was idle.
    pub silent: bool,
}

impl NoAnswer {
    fn new(reason: Reason, detail: &'static str) -> Self {
        NoAnswer {
            reason,
            detail,
            silent: false,
        }
    }
}

impl From<Reject> for NoAnswer {
    fn from(reject: Reject) -> Self {
        NoAnswer::new(Reason::BadResponse, reject.detail)
    }
}

/// One response on its way; what it needs lives here and not in its futures, which then stay small.
pub struct Response<'a> {
    worker: &'a Context,
    view: &'a View,
    client: &'a Client,
    backend: &'a Connection,
    head: &'a mut ResponseHead,
    asked: Asked,
    progress: &'a Progress,
    buffer: Buffer,
    follower: BodyFollower,
    /// What will be said of it once its body is through.
    complete: Complete,
    /// The last read filled the whole buffer: more is likely to be waiting than one small buffer holds.
    filled_up: bool,
    /// The request can be sent again: a status that `[retry]` covers is not passed on if the budget allows.
    pub may_refuse: bool,
    /// Header lines of weir's own, with their ends.
    pub extra: &'a [u8],
    /// Once the body takes longer than the head.
    streaming: Option<Streaming<'a>>,
}

impl<'a> Response<'a> {
    /// `buffer` is whatever the caller can spare.
    #[expect(
        clippy::too_many_arguments,
        reason = "every field that has no first value of its own"
    )]
    pub fn new(
        worker: &'a Context,
        view: &'a View,
        client: &'a Client,
        backend: &'a Connection,
        head: &'a mut ResponseHead,
        asked: Asked,
        progress: &'a Progress,
        mut buffer: Buffer,
    ) -> Self {
        buffer.clear_with_headroom(HEADROOM);
        head.reset();
        Response {
            worker,
            view,
            client,
            backend,
            head,
            asked,
            progress,
            buffer,
            follower: BodyFollower::Done,
            complete: Complete::default(),
            filled_up: false,
            may_refuse: false,
            extra: &[],
            streaming: None,
        }
    }

    /// Moves the response from the backend to the client.
    pub async fn relay(&mut self) -> Result<ResponseEnd, NoAnswer> {
        match self.head().await? {
            Some(head_len) => self.pass(head_len).await,
            None => Ok(ResponseEnd::ClientGone),
        }
    }

    /// Reads until the final head is there, and says how long it is; none: the client is gone. Nothing of it goes to the
    /// client before [`Self::pass`]; interim responses do.
    pub async fn head(&mut self) -> Result<Option<usize>, NoAnswer> {
        if self.progress.request_done.get() {
            let patience = self.view.head_patience;
            self.backend.set_read_deadline(clock::now() + patience);
        }
        let mut interim = 0;
        let head_len = loop {
            let head_len = self.read_head(interim == 0).await?;
            if !self.head.is_interim() {
                break head_len;
            }
            interim += 1;
            if interim > INTERIM_MAX {
                return Err(NoAnswer::new(Reason::BadResponse, "too many interim responses"));
            }
            if self.asked.version == Version::Http11 && Box::pin(self.pass_interim()).await.is_err() {
                return Ok(None);
            }
            self.buffer.consume(head_len);
            self.head.reset();
        };
        self.progress.head_came(self.head.status());
        self.backend.set_read_deadline(Millis::NEVER);
        Ok(Some(head_len))
    }

    /// Passes the response on, whose final head is there.
    pub async fn pass(&mut self, head_len: usize) -> Result<ResponseEnd, NoAnswer> {
        if self.may_refuse && self.head.status() >= 400 && self.refuses() {
            return Ok(self.refuse(head_len));
        }
        let head = self.turn_to_final(head_len)?;
        if self.complete.status == 101 {
            return Ok(Box::pin(self.pass_upgrade(&head)).await);
        }
        self.progress.head_sent.set(head.len() as u64);
        if !self.buffer.prepend(&head) && !Box::pin(self.send_apart(&head)).await {
            return Ok(ResponseEnd::ClientGone);
        }
        drop(head);
        Ok(self.pass_body().await)
    }

    /// Whether this answer gives way to another attempt's.
    #[cold]
    fn refuses(&self) -> bool {
        self.progress.request_done.get()
            && self.progress.whole.get()
            && self.view.retry.covers(Outcome::Status(self.head.status()))
            && self.worker.local.borrow_mut().budget.take(clock::now())
    }

    /// Gives the answer up. Its connection can be used again only if all of it is here.
    #[cold]
    fn refuse(&mut self, head_len: usize) -> ResponseEnd {
        let status = self.head.status();
        self.follower = BodyFollower::new(self.head.body(), false);
        self.buffer.consume_front(head_len);
        let len = self.buffer.len();
        let at_its_end = self
            .follower
            .follow(self.buffer.filled_mut())
            .is_ok_and(|step| step.consumed == len);
        ResponseEnd::Refused {
            status,
            reusable: at_its_end && self.follower.is_done() && self.head.wants_keep_alive(),
        }
    }

    /// Reads until a head is complete at the front of the buffer; `silent`: nothing has come so far.
    async fn read_head(&mut self, mut silent: bool) -> Result<usize, NoAnswer> {
        loop {
            if !self.buffer.is_empty() {
                silent = false;
                let (bytes, facts) = (self.buffer.filled(), self.asked.facts());
                if let Some(head_len) = self.head.parse(bytes, &self.view.head_limits, facts)? {
                    return Ok(head_len);
                }
            }
            if self.buffer.spare() == 0 {
                let full = std::mem::replace(&mut self.buffer, Buffer::none());
                self.buffer =
                    grow(full).ok_or(NoAnswer::new(Reason::OutOfMemory, "no buffer for a large head"))?;
            }
            let (reason, detail) = match self.backend.read(&mut self.buffer).await {
                Ok(0) if self.backend.expired() => (Reason::BackendTimeout, "timeouts.response_head passed"),
                Ok(0) => (Reason::BackendReset, "closed before a response"),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    (Reason::BackendReset, "reset before a response")
                }
                Err(_) => (Reason::BackendReset, "failed before a response"),
                Ok(_) => continue,
            };
            return Err(NoAnswer {
                reason,
                detail,
                silent,
            });
        }
    }

    /// Passes a 1xx on, in a buffer of its own: more of the response may stand behind it.
    async fn pass_interim(&mut self) -> io::Result<()> {
        let rewrite = ResponseRewrite::default();
        let mut out = buffer::small();
        if response_bound(self.head, &rewrite) > out.spare() {
            // An interim response may always be left out (RFC 9110 §15.2).
            return Ok(());
        }
        write_response(self.head, self.buffer.filled(), &rewrite, out.tail());
        let stall = self.view.config.timeouts.response_body;
        self.client
            .write_all(&mut out, stall)
            .await
            .error
            .map_or(Ok(()), Err)
    }

    /// Judges the final head and gives it as it goes to the client. The buffer keeps what belongs to the body.
    fn turn_to_final(&mut self, head_len: usize) -> Result<Scratch<'a>, NoAnswer> {
        let status = self.head.status();
        let upgrade = status == 101;
        if upgrade && !self.progress.request_done.get() {
            return Err(NoAnswer::new(
                Reason::BadResponse,
                "a 101 before the end of the request's body",
            ));
        }
        let dechunk = self.asked.version == Version::Http10 && self.head.body() == BodyLength::Chunked;
        self.follower = BodyFollower::new(self.head.body(), dechunk);
        let ends_at_close = self.follower.ends_with_connection() || dechunk;
        // A client whose body is still on its way is told early that an error ends the connection.
        let cut_short = !self.progress.request_done.get() && status >= 300;
        let keep_alive =
            self.asked.keep_alive && !ends_at_close && !cut_short && !self.worker.is_closing() && !upgrade;
        let explained = self.explained(upgrade);
        let rewrite = ResponseRewrite {
            close: !keep_alive && !upgrade,
            keep_alive_http10: keep_alive && self.asked.version == Version::Http10,
            via: self.view.config.http.via,
            dechunk,
            upgrade,
            extra: match &explained {
                Some(lines) => lines,
                None if upgrade => &[],
                None => self.extra,
            },
        };
        let bytes = &self.buffer.filled()[..head_len];
        let head = self.worker.rewrite_into_scratch(|scratch| {
            scratch.reserve(response_bound(self.head, &rewrite));
            write_response(self.head, bytes, &rewrite, scratch);
        });
        self.buffer.consume_front(head_len);
        self.complete = Complete {
            status,
            reusable: self.head.wants_keep_alive() && !self.follower.ends_with_connection(),
            suspect: self.asked.method == Method::Head || matches!(status, 204 | 304),
            keep_alive,
        };
        if !upgrade {
            self.hold_to_body()?;
        }
        Ok(head)
    }

    /// The lines that are added where the client is told what happened to its request.
    fn explained(&self, upgrade: bool) -> Option<Vec<u8>> {
        let (begun, attempt_began) = self.progress.since.get()?;
        let mut lines = self.progress.explained.take();
        explain::finish(&mut lines, self.progress, begun, attempt_began);
        if !upgrade {
            lines.extend_from_slice(self.extra);
        }
        Some(lines)
    }

    /// Sends what is in the buffer, then the rest of the body.
    async fn pass_body(&mut self) -> ResponseEnd {
        let patience = self.view.config.timeouts.response_body;
        loop {
            if !self.buffer.is_empty() {
                let sent = self.client.write_all(&mut self.buffer, patience).await;
                self.progress.took(&sent);
                if !sent.is_ok() {
                    return ResponseEnd::ClientGone;
                }
            }
            if self.follower.is_done() {
                self.progress.all_taken();
                return ResponseEnd::Complete(self.complete);
            }
            if self.streaming.is_none() {
                self.streaming = Some(self.backend.backend().shared.stream());
            }
            self.progress.turn_to_backend();
            self.buffer.clear();
            self.grow_for_body();
            let read = self.backend.read_within(&mut self.buffer, patience).await;
            self.progress.turn_to_client();
            self.filled_up = self.buffer.spare() == 0;
            match read {
                Ok(0) | Err(_) if self.client.is_gone() => return ResponseEnd::ClientGone,
                Ok(0) if self.backend.expired() => {
                    return ResponseEnd::Cut {
                        reason: Reason::BackendTimeout,
                    };
                }
                Ok(0) if self.follower.ends_with_connection() => return ResponseEnd::Complete(self.complete),
                Ok(0) | Err(_) => {
                    return ResponseEnd::Cut {
                        reason: Reason::BackendReset,
                    };
                }
                Ok(_) if self.hold_to_body().is_err() => {
                    return ResponseEnd::Cut {
                        reason: Reason::BadResponse,
                    };
                }
                Ok(bytes) => self.bound_what_comes(bytes),
            }
        }
    }

    /// Tells the kernel how much to hold of what comes: little with the first large body, `upstream.receive_buffer` once such
    /// bodies flow. Left alone it would hold more and more, also for a client that takes nothing.
    fn bound_what_comes(&self, bytes: usize) {
        let most = self.view.config.upstream.receive_buffer;
        if self.buffer.capacity() == buffer::SMALL || most < RECEIVE_BUFFER_FIRST {
            return;
        }
        let before = self.backend.came_in_bulk(bytes);
        if before == 0 {
            self.backend.transport().hold_received(RECEIVE_BUFFER_FIRST);
        } else if before < BULK_AFTER && before + bytes as u64 >= BULK_AFTER {
            self.backend.transport().hold_received(most);
        }
    }

    /// Takes a large buffer, if there is one, once the body proves to be large.
    fn grow_for_body(&mut self) {
        let is_large = self.follower.remaining() > buffer::SMALL as u64 || self.filled_up;
        if is_large
            && self.buffer.capacity() == buffer::SMALL
            && let Some(large) = buffer::large()
        {
            self.buffer = large;
        }
    }

    /// Cuts the buffer down to what belongs to the body. If something stands behind the body, the connection that it
    /// came from is not used again.
    fn hold_to_body(&mut self) -> Result<(), Reject> {
        let step = self.follower.follow(self.buffer.filled_mut())?;
        self.complete.reusable &= step.consumed == self.buffer.len();
        self.buffer.truncate(step.forward);
        Ok(())
    }

    /// Sends a head that does not fit in front of its body.
    async fn send_apart(&self, head: &[u8]) -> bool {
        let mut out = buffer::small();
        if out.spare() < head.len() {
            match buffer::large() {
                Some(large) => out = large,
                None => return false,
            }
        }
        if out.append(head) < head.len() {
            return false;
        }
        let stall = self.view.config.timeouts.response_body;
        let sent = self.client.write_all(&mut out, stall).await;
        self.progress.took(&sent);
        sent.is_ok()
    }

    async fn pass_upgrade(&mut self, head: &[u8]) -> ResponseEnd {
        self.progress.head_sent.set(head.len() as u64);
        if self.send_apart(head).await {
            ResponseEnd::Upgraded(std::mem::replace(&mut self.buffer, Buffer::none()))
        } else {
            ResponseEnd::ClientGone
        }
    }
}

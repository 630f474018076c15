//! Reading a backend's response and passing it on.
//!
//! The buffer that is received into is the buffer that is sent from: the rewritten head is put in front of the body bytes
//! that came with it, into the space that the received head and some headroom leave.

use std::io;

use crate::buffer::{self, Buffer, HEADROOM};
use crate::clock::{self, Millis};
use crate::http1::framing::BodyLength;
use crate::http1::request::RequestHead;
use crate::http1::response::{RequestFacts, ResponseHead};
use crate::http1::rewrite::{ResponseRewrite, response_bound, write_response};
use crate::http1::{Method, Reject, Version};
use crate::proxy::body::BodyFollower;
use crate::proxy::connection::{Client, grow};
use crate::proxy::request_body::Progress;
use crate::reason::Reason;
use crate::server::worker::Worker;
use crate::upstream::pool::Connection;

/// Interim responses that are passed on before one exchange is given up: nobody sends more than a few.
const INTERIM_MAX: usize = 64;

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
    Complete {
        status: u16,
        /// The backend connection is exactly behind the response and may serve another exchange.
        reusable: bool,
        /// The client connection may carry another request.
        keep_alive: bool,
    },
    /// A 101 went to the client; these bytes came right behind it.
    Upgraded(Buffer),
    /// The backend failed in the middle of the response.
    Cut { status: u16, reason: Reason },
    /// The client is gone.
    ClientGone { status: u16 },
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

/// Everything one response needs while it is on its way.
pub struct Response<'a> {
    pub worker: &'a Worker,
    pub client: &'a Client,
    pub backend: &'a Connection,
    pub head: &'a mut ResponseHead,
    pub asked: Asked,
    pub progress: &'a Progress,
}

impl Response<'_> {
    /// Moves one response from the backend to the client; `buffer` is whatever the caller can spare.
    pub async fn relay(mut self, mut buffer: Buffer) -> Result<ResponseEnd, NoAnswer> {
        buffer.clear_with_headroom(HEADROOM);
        if self.progress.request_done.get() {
            let patience = self.worker.snapshot.config.timeouts.response_head;
            self.backend.set_read_deadline(clock::now() + patience);
        }
        let mut interim = 0;
        let head_len = loop {
            let head_len = self.read_head(&mut buffer).await?;
            if !self.head.is_interim() {
                break head_len;
            }
            interim += 1;
            if interim > INTERIM_MAX {
                return Err(NoAnswer::new(Reason::BadResponse, "too many interim responses"));
            }
            if self.asked.version == Version::Http11
                && Box::pin(self.pass_interim(buffer.filled())).await.is_err()
            {
                return Ok(ResponseEnd::ClientGone { status: 0 });
            }
            buffer.consume(head_len);
            self.head.reset();
        };
        self.progress.head_seen.set(true);
        self.backend.set_read_deadline(Millis::NEVER);
        self.pass_final(buffer, head_len).await
    }

    /// Reads until a head is complete at the front of `buffer`.
    async fn read_head(&mut self, buffer: &mut Buffer) -> Result<usize, NoAnswer> {
        let mut silent = true;
        loop {
            if !buffer.is_empty() {
                silent = false;
                let facts = self.asked.facts();
                if let Some(head_len) = self
                    .head
                    .parse(buffer.filled(), &self.worker.head_limits, facts)?
                {
                    return Ok(head_len);
                }
            }
            let mut room = std::mem::replace(buffer, Buffer::none());
            if room.spare() == 0 {
                room = grow(room).ok_or(NoAnswer::new(Reason::OutOfMemory, "no buffer for a large head"))?;
            }
            let (read, back) = self.backend.read(room).await;
            *buffer = back;
            let (reason, detail) = match read {
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
    async fn pass_interim(&mut self, bytes: &[u8]) -> io::Result<()> {
        let rewrite = ResponseRewrite::default();
        let mut out = buffer::small();
        if response_bound(self.head, &rewrite) > out.spare() {
            // An interim response may always be left out (RFC 9110 §15.2).
            return Ok(());
        }
        write_response(self.head, bytes, &rewrite, out.tail());
        let stall = self.worker.snapshot.config.timeouts.response_body;
        let (sent, _) = self.client.write_all(out, clock::now, stall).await;
        sent.error.map_or(Ok(()), Err)
    }

    /// Passes the final head on, and the body behind it.
    async fn pass_final(mut self, mut buffer: Buffer, head_len: usize) -> Result<ResponseEnd, NoAnswer> {
        let status = self.head.status();
        let upgraded = status == 101;
        let dechunk = self.asked.version == Version::Http10 && self.head.body() == BodyLength::Chunked;
        let mut follower = BodyFollower::new(self.head.body(), dechunk);
        let ends_at_close = follower.ends_with_connection() || dechunk;
        // A client whose body is still on its way is told early that an error ends the connection.
        let cut_short = !self.progress.request_done.get() && status >= 300;
        let keep_alive =
            self.asked.keep_alive && !ends_at_close && !cut_short && !self.worker.is_closing() && !upgraded;
        let rewrite = ResponseRewrite {
            close: !keep_alive && !upgraded,
            keep_alive_http10: keep_alive && self.asked.version == Version::Http10,
            via: self.worker.snapshot.config.http.via,
            dechunk,
            upgrade: upgraded,
        };
        let head = self.worker.rewrite_into_scratch(|scratch| {
            scratch.reserve(response_bound(self.head, &rewrite));
            write_response(self.head, &buffer.filled()[..head_len], &rewrite, scratch);
        });
        buffer.consume_front(head_len);
        if upgraded {
            return Ok(self.pass_upgrade(&head, buffer).await);
        }
        let behind = self.hold_to_body(&mut follower, &mut buffer)?;
        if !buffer.prepend(&head) && !self.send_apart(&head).await {
            return Ok(ResponseEnd::ClientGone { status });
        }
        drop(head);
        let reusable = self.head.wants_keep_alive() && !follower.ends_with_connection() && !behind;
        let end = BodyEnd {
            status,
            reusable,
            keep_alive,
            filled_up: false,
        };
        Ok(self.pass_body(buffer, follower, end).await)
    }

    /// Sends what is in `buffer`, then the rest of the body.
    async fn pass_body(
        &mut self,
        mut buffer: Buffer,
        mut follower: BodyFollower,
        mut end: BodyEnd,
    ) -> ResponseEnd {
        let timeouts = &self.worker.snapshot.config.timeouts;
        let status = end.status;
        loop {
            if !buffer.is_empty() {
                let (sent, back) = self
                    .client
                    .write_all(buffer, clock::now, timeouts.response_body)
                    .await;
                buffer = back;
                if !sent.is_ok() {
                    return ResponseEnd::ClientGone { status };
                }
            }
            if follower.is_done() {
                self.backend.set_read_deadline(Millis::NEVER);
                return end.complete();
            }
            buffer.clear();
            if buffer.capacity() == buffer::SMALL
                && (follower.remaining() > buffer::SMALL as u64 || end.filled_up)
            {
                buffer = buffer::large().unwrap_or(buffer);
            }
            self.backend
                .set_read_deadline(clock::now() + timeouts.response_body);
            let (read, back) = self.backend.read(buffer).await;
            buffer = back;
            end.filled_up = buffer.spare() == 0;
            match read {
                Ok(0) if self.backend.expired() => {
                    return ResponseEnd::Cut {
                        status,
                        reason: Reason::BackendTimeout,
                    };
                }
                Ok(0) if follower.ends_with_connection() => return end.complete(),
                Ok(0) | Err(_) => {
                    return ResponseEnd::Cut {
                        status,
                        reason: Reason::BackendReset,
                    };
                }
                Ok(_) => {}
            }
            match self.hold_to_body(&mut follower, &mut buffer) {
                Ok(behind) => end.reusable &= !behind,
                Err(_) => {
                    return ResponseEnd::Cut {
                        status,
                        reason: Reason::BadResponse,
                    };
                }
            }
        }
    }

    /// Cuts `buffer` down to what belongs to the body; says whether something stood behind it.
    fn hold_to_body(&self, follower: &mut BodyFollower, buffer: &mut Buffer) -> Result<bool, Reject> {
        let step = follower.follow(buffer.filled_mut())?;
        let behind = step.consumed < buffer.len();
        buffer.truncate(step.forward);
        Ok(behind)
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
        let stall = self.worker.snapshot.config.timeouts.response_body;
        self.client.write_all(out, clock::now, stall).await.0.is_ok()
    }

    async fn pass_upgrade(&self, head: &[u8], behind: Buffer) -> ResponseEnd {
        if self.send_apart(head).await {
            ResponseEnd::Upgraded(behind)
        } else {
            ResponseEnd::ClientGone { status: 101 }
        }
    }
}

/// What will be said of a response once its body is through.
struct BodyEnd {
    status: u16,
    reusable: bool,
    keep_alive: bool,
    /// The last read filled the whole buffer: more is likely to be waiting than one small buffer holds.
    filled_up: bool,
}

impl BodyEnd {
    fn complete(&self) -> ResponseEnd {
        ResponseEnd::Complete {
            status: self.status,
            reusable: self.reusable,
            keep_alive: self.keep_alive,
        }
    }
}

//! HTTP/1.0 and HTTP/1.1 (RFC 9112) as bytes: heads are found, judged and written anew, chunked bodies are followed.
//!
//! This is where bytes from strangers meet weir, so: no I/O, no panic, no allocation per message once the tables have
//! grown, no work that grows faster than the input. A parser takes bytes and gives a verdict: not yet, a head of so
//! many bytes, or a [`Reject`]. Whoever gets a `Reject` answers (or turns it into a 502 if a backend sent the bytes)
//! and closes that connection, always: where framing is in doubt, what follows cannot be told from another message.
//!
//! Nothing is repaired. What two servers could read in two ways is refused, and what goes out is written from what was
//! understood, so that a backend always gets exactly one request and a client exactly one response:
//!
//! * Lines end in CRLF; a bare CR or LF, NUL and other controls are refused (RFC 9112 §2.2 would let LF pass).
//! * Folded lines, and whitespace before a colon or before the first field, are refused (§5.1, §5.2).
//! * [`framing`] says what delimits a body, [`target`] what a target and an authority may look like, [`chunked`] how
//!   chunks are followed, [`rewrite`] what is removed and added on the way.
//! * `HTTP/1.0` and `HTTP/1.1` are spoken; another well-formed version is [`Reason::Version`], anything else in its
//!   place is [`Reason::BadRequest`]. `PRI * HTTP/2.0` is the former.
//! * One empty line before a request line is skipped (§2.2); none before a status line.
//!
//! `proxy` reads requests with [`RequestHead`] and responses with [`ResponseHead`], both reused from message to
//! message; they hold offsets into the caller's buffer and are meaningful only together with the same bytes.

pub mod chunked;
pub mod framing;
pub mod head;
pub mod known;
pub mod request;
pub mod response;
pub mod rewrite;
pub mod target;

#[cfg(test)]
mod tests;

pub use chunked::{ChunkMachine, Decoded, Followed};
pub use framing::BodyLength;
pub use head::{Limits, Method, Version};
pub use known::Known;
pub use request::RequestHead;
pub use response::{RequestFacts, ResponseHead};
pub use rewrite::{
    HostRewrite, RequestRewrite, ResponseRewrite, request_bound, response_bound, write_request,
    write_response,
};

use crate::reason::Reason;

/// Why bytes are not a message that weir passes on. The connection they came from is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.word())]
pub struct Reject {
    pub reason: Reason,
    /// What was found, for logs; never echoes the stranger's bytes.
    pub detail: &'static str,
}

impl Reject {
    pub(crate) const fn new(reason: Reason, detail: &'static str) -> Self {
        Reject { reason, detail }
    }

    /// The same finding about bytes that a backend sent: always [`Reason::BadResponse`].
    pub const fn from_backend(self) -> Self {
        Reject {
            reason: Reason::BadResponse,
            detail: self.detail,
        }
    }
}

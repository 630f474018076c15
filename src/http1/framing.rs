//! What delimits a message's body (RFC 9112 §6), and what is refused because two readers could disagree about it.
//!
//! * `Content-Length`: one field with one number of ASCII digits. A second one, even an equal one, a list, a sign, an
//!   empty value or one past 2^63 - 1 is refused (§6.3 would let equal ones pass; half of the world counts in signed
//!   64 bits).
//! * `Transfer-Encoding`: one field that says `chunked` and nothing else. Other codings get a 400 as well instead of
//!   the 501 of §6.1: the body cannot be delimited either way.
//! * Both together, and `Transfer-Encoding` in HTTP/1.0 (§6.1), are refused.
//!
//! Responses obey the same rules; [`super::response`] adds what follows from status and method.

use super::head::{Table, Version};
use super::known::Known;

/// What delimits a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// No byte follows the head. Also what `Content-Length: 0` means; the field itself is still passed on.
    None,
    /// Exactly so many bytes, at least one.
    Length(u64),
    /// Chunks, to be followed with [`super::ChunkMachine`].
    Chunked,
    /// Everything until the connection closes; only of responses.
    UntilClose,
}

/// The largest length taken from a stranger, whole or of one chunk.
pub const LENGTH_MAX: u64 = i64::MAX as u64;

/// What the framing fields say; `None` if there are none.
pub(super) fn declared(
    table: &Table,
    bytes: &[u8],
    version: Version,
) -> Result<Option<BodyLength>, &'static str> {
    let has_length = table.has(Known::ContentLength);
    if table.has(Known::TransferEncoding) {
        if has_length {
            return Err("Content-Length together with Transfer-Encoding");
        }
        if version == Version::Http10 {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        return match table.single(Known::TransferEncoding, bytes) {
            Some(value) if value.eq_ignore_ascii_case(b"chunked") => Ok(Some(BodyLength::Chunked)),
            Some(_) => Err("a Transfer-Encoding other than `chunked`"),
            None => Err("more than one Transfer-Encoding"),
        };
    }
    if !has_length {
        return Ok(None);
    }
    match table.single(Known::ContentLength, bytes).map(content_length) {
        Some(Some(0)) => Ok(Some(BodyLength::None)),
        Some(Some(length)) => Ok(Some(BodyLength::Length(length))),
        Some(None) => Err("a Content-Length that is not one decimal number below 2^63"),
        None => Err("more than one Content-Length"),
    }
}

/// `1*DIGIT`, at most [`LENGTH_MAX`].
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        length
            .checked_mul(10)?
            .checked_add(u64::from(digit))
            .filter(|&length| length <= LENGTH_MAX)
    })
}

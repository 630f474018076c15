//! Responses toward a client.
//!
//! `Content-Length` goes on as it came, except on 1xx and 204, where it must not stand (RFC 9110 §8.6). `Upgrade` stays on
//! the 101 that the client asked for and on a 426, which is nothing without it (RFC 9110 §15.5.22). Fields of the
//! response that merely look like the request's (`Forwarded`, `Host`) are carried as they came.

use super::{FIXED_BYTES, copy_fields, write_connection, write_upgrade, write_via};
use crate::http1::{Known, ResponseHead};

/// How a response is changed on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseRewrite<'a> {
    /// Say that the client's connection ends behind this response.
    pub close: bool,
    /// The client speaks HTTP/1.0 and its connection goes on: say so. `close` wins.
    pub keep_alive_http10: bool,
    /// Append a `Via`.
    pub via: bool,
    /// The client speaks HTTP/1.0 and gets the body without chunks: `Transfer-Encoding` and `Trailer` are dropped.
    pub dechunk: bool,
    /// This is the 101 of a tunnel: `Upgrade` and `Connection: upgrade` stay.
    pub upgrade: bool,
    /// Whole header lines of weir's own, each with its CRLF, that are added.
    pub extra: &'a [u8],
}

/// Never less than what [`write_response`] appends.
pub fn response_bound(head: &ResponseHead, rewrite: &ResponseRewrite<'_>) -> usize {
    let upgrade: usize = head
        .table
        .all(Known::Upgrade)
        .map(|field| field.value.len() + 2)
        .sum();
    head.head_len() + head.table.fields.len() + upgrade + rewrite.extra.len() + FIXED_BYTES
}

/// Appends the head to `out`; within [`response_bound`], so that a buffer with that much room does not grow.
pub fn write_response(head: &ResponseHead, bytes: &[u8], rewrite: &ResponseRewrite<'_>, out: &mut Vec<u8>) {
    let status = head.status();
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(head.reason_phrase(bytes));
    out.extend_from_slice(b"\r\n");

    let keep_length = !matches!(status, 100..=199 | 204);
    copy_fields(&head.table, bytes, out, |field| match field.known {
        Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::Te
        | Known::Upgrade
        | Known::Http2Settings => false,
        Known::ContentLength => keep_length,
        Known::TransferEncoding => !rewrite.dechunk,
        Known::Trailer => !rewrite.dechunk && !field.nominated,
        _ => !field.nominated,
    });
    let upgrade = (rewrite.upgrade || status == 426) && write_upgrade(out, head.upgrade_protocols(bytes));
    let keep_alive = rewrite.keep_alive_http10 && !rewrite.close;
    write_connection(
        out,
        &[
            ("upgrade", upgrade),
            ("close", rewrite.close),
            ("keep-alive", keep_alive),
        ],
    );
    if rewrite.via {
        write_via(out, head.version());
    }
    out.extend_from_slice(rewrite.extra);
    out.extend_from_slice(b"\r\n");
}

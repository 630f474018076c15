//! Requests toward a backend.
//!
//! * `METHOD origin-form HTTP/1.1`; an absolute-form target gives its authority to `Host` (RFC 9112 §3.2.2).
//! * `Host` stays where it is, or goes first if it is another than came.
//! * Framing fields and `Expect` stay as they came; `Expect` of HTTP/1.0 means nothing and is removed.
//! * `TE` is removed, unless it says `trailers`, which goes out as `TE: trailers` with `Connection: TE` (RFC 9110 §10.1.4):
//!   weir passes trailers on.
//! * `Upgrade` goes on with `Connection: upgrade` where [`RequestHead::upgrade`] gives something, without h2c.
//! * `Forwarded` and every `X-Forwarded-…` of the client is removed in every mode, and set anew as the mode says:
//!   `X-Forwarded-For`, `-Proto` and `-Host`, or RFC 7239's `for`, `host` and `proto`. No `-Port`: `-Host` has it. A
//!   client on a Unix socket is `unknown` in both (RFC 7239 §6.2). An IPv4 client of an IPv6 listener is written as IPv4.
//! * `x-request-id` and `traceparent` become what the exchange says, or go on as they came; `tracestate` goes on.
//! * From a trusted peer, what the mode writes is added to instead: `X-Forwarded-For` and `Forwarded` become one line of
//!   what came and the peer behind it; any other `X-Forwarded-…` goes on as it came, and `-Proto` and `-Host` are written if
//!   they did not come. What the mode does not write is removed as ever, since it would lack the peer; so are spellings with
//!   underscores, and a `Forwarded` line whose quotes do not pair, which would swallow what is added.

use std::io::Write;
use std::net::IpAddr;

use super::{FIXED_BYTES, copy_fields, write_connection, write_field, write_upgrade, write_via};
use crate::config::model::ForwardedMode;
use crate::http1::head::Version;
use crate::http1::known::{is_x_forwarded_for, is_x_forwarded_with_dashes};
use crate::http1::{Known, RequestHead};

/// What `Host` the backend gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRewrite<'a> {
    /// What the client asked for; `fallback` (the backend's authority) if an HTTP/1.0 request names none.
    Preserve {
        fallback: &'a [u8],
    },
    Set(&'a [u8]),
}

/// How a request is changed on its way. Everything here is weir's own or checked: it is written as it is.
#[derive(Clone, Copy, Debug)]
pub struct RequestRewrite<'a> {
    pub host: HostRewrite<'a>,
    pub forwarded: ForwardedMode,
    /// Who is connected: the client, or a proxy in front of weir. None: it came over a Unix socket.
    pub client: Option<IpAddr>,
    /// Whether what it says of where the request came from goes on.
    pub trusted: bool,
    /// What the client spoke: `http` or `https`.
    pub scheme: &'static str,
    /// Append a `Via`.
    pub via: bool,
    /// What `x-request-id` becomes; none: it goes on as it came.
    pub request_id: Option<&'a [u8]>,
    /// What `traceparent` becomes; none: it goes on as it came.
    pub trace_parent: Option<&'a [u8]>,
}

/// Never less than what [`write_request`] appends.
pub fn request_bound(head: &RequestHead, rewrite: &RequestRewrite<'_>) -> usize {
    let host = match rewrite.host {
        HostRewrite::Preserve { fallback } => fallback.len(),
        HostRewrite::Set(name) => name.len(),
    };
    // The authority, a part of the head, can go out up to three times: Host, X-Forwarded-Host, Forwarded. A value that no
    // space precedes gains one. Lines that are joined lose their names and gain a comma.
    3 * head.authority_len()
        + head.head_len()
        + head.table.fields.len()
        + upgrade_growth(head)
        + host
        + rewrite.request_id.map_or(0, <[u8]>::len)
        + rewrite.trace_parent.map_or(0, <[u8]>::len)
        + FIXED_BYTES
}

/// `a,b` goes out as `a, b`.
fn upgrade_growth(head: &RequestHead) -> usize {
    head.table
        .all(Known::Upgrade)
        .map(|field| field.value.len() + 2)
        .sum()
}

/// Appends the head to `out`; within [`request_bound`], so that a buffer with that much room does not grow.
pub fn write_request(head: &RequestHead, bytes: &[u8], rewrite: &RequestRewrite<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method_bytes(bytes));
    out.push(b' ');
    let path = head.path(bytes);
    if path.first() == Some(&b'?') {
        out.push(b'/');
    }
    out.extend_from_slice(path);
    out.extend_from_slice(b" HTTP/1.1\r\n");

    let replaced = match rewrite.host {
        HostRewrite::Set(name) => Some(name),
        HostRewrite::Preserve { fallback } => {
            let missing = (!head.has(Known::Host)).then_some(fallback);
            head.target_authority(bytes).or(missing)
        }
    };
    if let Some(host) = replaced {
        write_field(out, b"Host", host);
    }
    let keep_expect = head.version() == Version::Http11;
    let keep_x = rewrite.trusted && writes_x(rewrite);
    copy_fields(&head.table, bytes, out, |field| match field.known {
        Known::Other => !field.nominated,
        Known::Host => replaced.is_none(),
        Known::Expect => keep_expect && !field.nominated,
        Known::Connection
        | Known::KeepAlive
        | Known::ProxyConnection
        | Known::Te
        | Known::Upgrade
        | Known::Http2Settings
        | Known::Forwarded => false,
        Known::XForwarded => keep_x && stays_from_trusted(field.name.of(bytes)),
        Known::RequestId => rewrite.request_id.is_none() && !field.nominated,
        Known::TraceParent => rewrite.trace_parent.is_none() && !field.nominated,
        Known::TransferEncoding
        | Known::ContentLength
        | Known::WeirTrace
        | Known::Trailer
        | Known::Via
        | Known::Date
        | Known::Server => !field.nominated,
    });
    if head.has(Known::Upgrade) || head.has(Known::Te) {
        let upgrade = write_upgrade(out, head.upgrade_protocols(bytes));
        let trailers = head.takes_trailers(bytes);
        if trailers {
            out.extend_from_slice(b"TE: trailers\r\n");
        }
        write_connection(out, &[("upgrade", upgrade), ("TE", trailers)]);
    }
    write_origin(head, bytes, rewrite, out);
    if rewrite.via {
        write_via(out, head.version());
    }
    if let Some(id) = rewrite.request_id {
        write_field(out, b"X-Request-Id", id);
    }
    if let Some(parent) = rewrite.trace_parent {
        write_field(out, b"traceparent", parent);
    }
    out.extend_from_slice(b"\r\n");
}

fn writes_x(rewrite: &RequestRewrite<'_>) -> bool {
    matches!(rewrite.forwarded, ForwardedMode::XForwarded | ForwardedMode::Both)
}

/// Whether an `X-Forwarded-…` of a trusted peer goes on as it came.
fn stays_from_trusted(name: &[u8]) -> bool {
    is_x_forwarded_with_dashes(name) && !is_x_forwarded_for(name)
}

/// The fields that say where the request came from.
fn write_origin(head: &RequestHead, bytes: &[u8], rewrite: &RequestRewrite<'_>, out: &mut Vec<u8>) {
    let client = rewrite.client.map(|address| address.to_canonical());
    let authority = head.authority(bytes).filter(|authority| !authority.is_empty());
    let came = |known| {
        let fields = rewrite.trusted.then(|| head.table.all(known));
        let parts = move |field: &super::Field| (field.name.of(bytes), field.value.of(bytes));
        fields.into_iter().flatten().map(parts)
    };
    if writes_x(rewrite) {
        let has = |wanted: &[u8]| came(Known::XForwarded).any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        out.extend_from_slice(b"X-Forwarded-For: ");
        for (name, value) in came(Known::XForwarded) {
            if is_x_forwarded_for(name) {
                write_member(out, value);
            }
        }
        write_address(client, out);
        out.extend_from_slice(b"\r\n");
        if !has(b"x-forwarded-proto") {
            write_field(out, b"X-Forwarded-Proto", rewrite.scheme.as_bytes());
        }
        if let Some(authority) = authority.filter(|_| !has(b"x-forwarded-host")) {
            write_field(out, b"X-Forwarded-Host", authority);
        }
    }
    if matches!(rewrite.forwarded, ForwardedMode::Rfc7239 | ForwardedMode::Both) {
        out.extend_from_slice(b"Forwarded: ");
        for (_, value) in came(Known::Forwarded) {
            if quotes_pair(value) {
                write_member(out, value);
            }
        }
        let bracketed = matches!(client, Some(IpAddr::V6(_)));
        out.extend_from_slice(if bracketed { b"for=\"[" } else { b"for=" });
        write_address(client, out);
        out.extend_from_slice(if bracketed { b"]\"" } else { b"" });
        if let Some(authority) = authority {
            // An authority was checked to have no quote or backslash; a colon or bracket wants a quoted-string.
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(authority);
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(rewrite.scheme.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// The members of a list that came, with a comma behind them.
fn write_member(out: &mut Vec<u8>, value: &[u8]) {
    if !value.is_empty() {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// Whether every quoted string ends (RFC 9110 §5.6.4).
fn quotes_pair(value: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in value {
        match byte {
            _ if escaped => escaped = false,
            b'"' => quoted = !quoted,
            b'\\' => escaped = quoted,
            _ => {}
        }
    }
    !quoted
}

fn write_address(client: Option<IpAddr>, out: &mut Vec<u8>) {
    match client {
        None => out.extend_from_slice(b"unknown"),
        Some(IpAddr::V4(address)) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                if octet >= 100 {
                    out.push(b'0' + octet / 100);
                }
                if octet >= 10 {
                    out.push(b'0' + octet / 10 % 10);
                }
                out.push(b'0' + octet % 10);
            }
        }
        // Writing to a `Vec` cannot fail.
        Some(IpAddr::V6(address)) => {
            let _ = write!(out, "{address}");
        }
    }
}

//! The fields that a proxy must know by name; everything else is carried as it came.

/// What a field is to weir, decided once when the head is parsed.
///
/// `Proxy-Authenticate` and `Proxy-Authorization` are not here: RFC 9110 §7.6.1 no longer lists them as hop-by-hop, and
/// §11.7 lets only a proxy that asked for credentials consume them. weir never asks, so they pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    Connection,
    KeepAlive,
    ProxyConnection,
    TransferEncoding,
    ContentLength,
    Host,
    Te,
    Trailer,
    Upgrade,
    /// `HTTP2-Settings`: part of the h2c upgrade, which is never passed on.
    Http2Settings,
    Expect,
    Forwarded,
    /// Any `X-Forwarded-…`, also spelled with underscores: CGI and WSGI backends cannot tell the two apart.
    XForwarded,
    Via,
    Date,
    Server,
    /// `x-request-id`
    RequestId,
    /// `traceparent` (W3C Trace Context)
    TraceParent,
    /// `x-weir-trace`
    WeirTrace,
    Other,
}

const X_FORWARDED: &[u8; 12] = b"x-forwarded-";

impl Known {
    /// Finds out what a field name (any case) is.
    pub fn classify(name: &[u8]) -> Known {
        let is = |candidate: &str, known: Known| {
            if name.eq_ignore_ascii_case(candidate.as_bytes()) {
                known
            } else {
                Known::Other
            }
        };
        let Some(first) = name.first().map(u8::to_ascii_lowercase) else {
            return Known::Other;
        };
        match (name.len(), first) {
            (2, b't') => is("te", Known::Te),
            (3, b'v') => is("via", Known::Via),
            (4, b'h') => is("host", Known::Host),
            (4, b'd') => is("date", Known::Date),
            (6, b'e') => is("expect", Known::Expect),
            (6, b's') => is("server", Known::Server),
            (7, b't') => is("trailer", Known::Trailer),
            (7, b'u') => is("upgrade", Known::Upgrade),
            (9, b'f') => is("forwarded", Known::Forwarded),
            (10, b'c') => is("connection", Known::Connection),
            (10, b'k') => is("keep-alive", Known::KeepAlive),
            (11, b't') => is("traceparent", Known::TraceParent),
            (12, b'x') if name.eq_ignore_ascii_case(b"x-request-id") => Known::RequestId,
            (12, b'x') if name.eq_ignore_ascii_case(b"x-weir-trace") => Known::WeirTrace,
            (14, b'c') => is("content-length", Known::ContentLength),
            (14, b'h') => is("http2-settings", Known::Http2Settings),
            (16, b'p') => is("proxy-connection", Known::ProxyConnection),
            (17, b't') => is("transfer-encoding", Known::TransferEncoding),
            (12.., b'x') if is_x_forwarded(name) => Known::XForwarded,
            _ => Known::Other,
        }
    }

    /// Whether a `Connection` option of this name removes the field (RFC 9110 §7.6.1). Never what routes or frames the
    /// message or says where it came from: a stranger could otherwise have those taken off.
    pub(super) const fn may_be_nominated(self) -> bool {
        !matches!(
            self,
            Known::Host
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::Forwarded
                | Known::XForwarded
                | Known::Via
        )
    }

    /// This value's bit in a set of `Known`.
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// `X-Forwarded-For` as proxies spell it: with dashes.
pub(crate) fn is_x_forwarded_for(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"x-forwarded-for")
}

/// `X-Forwarded-…` without an underscore in that part.
pub(crate) fn is_x_forwarded_with_dashes(name: &[u8]) -> bool {
    name.get(..X_FORWARDED.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(X_FORWARDED))
}

fn is_x_forwarded(name: &[u8]) -> bool {
    let dashed = |byte: u8| {
        if byte == b'_' {
            b'-'
        } else {
            byte.to_ascii_lowercase()
        }
    };
    name.len() >= X_FORWARDED.len()
        && name
            .iter()
            .zip(X_FORWARDED)
            .all(|(&byte, &want)| dashed(byte) == want)
}

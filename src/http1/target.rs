//! Request targets (RFC 9112 §3.2) and authorities (`Host`, RFC 9110 §7.2).
//!
//! Targets go to the backend byte for byte, so only what could be read in two ways is refused: controls and spaces (the
//! tokeniser does), `#`, and bytes ≥ 0x80 that are not UTF-8. Raw UTF-8 is let through although RFC 3986 knows only
//! ASCII: `curl` sends it when a person types it, and nothing in framing or routing hangs on it. Characters such as `|`
//! or `"`, which browsers send, pass too.
//!
//! Forms: origin-form; `*` with OPTIONS only; absolute-form with `http` or `https`, whose authority then replaces
//! `Host` (§3.2.2). Authority-form belongs to CONNECT, which is refused before.
//!
//! An authority is a name, an IPv4 address or a bracketed IPv6 address, and maybe a port from 1 to 65535 (an empty port
//! is legal). Names are of letters, digits, `-._~` and percent-encoded bytes: RFC 3986's `sub-delims` are refused, since
//! no resolvable name has them and a quote or comma there is read differently by every server. So are userinfo, IPvFuture and
//! zone identifiers.

use std::net::Ipv6Addr;

use super::head::{Method, Span};

/// Where a target's parts lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub path: Path,
    /// Of absolute-form.
    pub authority: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// As it stands in the target; starts with `/`, or with `?` if an absolute-form has a query and no path.
    At(Span),
    /// Absolute-form with neither: `/`.
    Root,
    /// `*`, also what OPTIONS with an absolute-form that has neither means (RFC 9112 §3.2.4).
    Asterisk,
}

/// Judges the target at `span` of `bytes`; the tokeniser has checked that it is printable UTF-8 without spaces.
pub(super) fn judge(bytes: &[u8], span: Span, method: Method) -> Result<Target, &'static str> {
    let target = span.of(bytes);
    if memchr::memchr(b'#', target).is_some() {
        return Err("a fragment in the request target");
    }
    if target.first() == Some(&b'/') {
        return Ok(Target {
            path: Path::At(span),
            authority: None,
        });
    }
    if target == b"*" {
        return match method {
            Method::Options => Ok(Target {
                path: Path::Asterisk,
                authority: None,
            }),
            _ => Err("the target `*` with a method other than OPTIONS"),
        };
    }
    let Some(scheme) = scheme_length(target) else {
        return Err("a request target that is neither a path nor an http URL");
    };
    let rest = &target[scheme..];
    let length = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    if length == 0 {
        return Err("a request target without an authority");
    }
    check_authority(&rest[..length])?;
    let start = span.start as usize + scheme;
    let path = match (length < rest.len(), method) {
        (true, _) => Path::At(Span::new(start + length, span.end as usize)),
        (false, Method::Options) => Path::Asterisk,
        (false, _) => Path::Root,
    };
    Ok(Target {
        path,
        authority: Some(Span::new(start, start + length)),
    })
}

/// The length of `http://` or `https://` in front.
fn scheme_length(target: &[u8]) -> Option<usize> {
    ["http://", "https://"]
        .into_iter()
        .map(str::as_bytes)
        .find_map(|scheme| {
            let found = target.get(..scheme.len())?;
            found.eq_ignore_ascii_case(scheme).then_some(scheme.len())
        })
}

/// `uri-host [ ":" port ]`, not empty.
pub(super) fn check_authority(authority: &[u8]) -> Result<(), &'static str> {
    let port = if authority.first() == Some(&b'[') {
        let Some(close) = memchr::memchr(b']', authority) else {
            return Err("a host with an unclosed bracket");
        };
        let address = std::str::from_utf8(&authority[1..close])
            .ok()
            .and_then(|text| text.parse::<Ipv6Addr>().ok());
        if address.is_none() {
            return Err("a bracketed host that is no IPv6 address");
        }
        &authority[close + 1..]
    } else {
        let length = memchr::memchr(b':', authority).unwrap_or(authority.len());
        if !is_name(&authority[..length]) {
            return Err("a host with characters that no name has");
        }
        &authority[length..]
    };
    match port {
        [] => Ok(()),
        [b':', digits @ ..] if is_port(digits) => Ok(()),
        _ => Err("a host with an invalid port"),
    }
}

/// `*DIGIT` from 1 to 65535.
fn is_port(digits: &[u8]) -> bool {
    if digits.is_empty() {
        return true;
    }
    let number = digits.iter().try_fold(0u32, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit <= 9 && number <= 65_535).then(|| number * 10 + u32::from(digit))
    });
    matches!(number, Some(1..=65_535))
}

fn is_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [byte, tail @ ..] = rest {
        rest = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => tail,
            b'%' => match tail {
                [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => tail,
                _ => return false,
            },
            _ => return false,
        };
    }
    !name.is_empty()
}

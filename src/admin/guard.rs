//! Who may use the admin surface: who knows the token, and who asked for weir by a name that is weir's.
//!
//! A page in an operator's browser can make that browser send requests here. The check of `Host` keeps out pages whose own
//! name was made to lead here (DNS rebinding), whatever they send; all others cannot read answers, and cannot change
//! anything, as a content type of JSON needs a leave (CORS preflight) that weir does not give.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode, Version};

use super::command::Refused;

/// What requests of the admin surface are held to.
#[derive(Default)]
pub struct Guard {
    token: Option<String>,
    hosts: Vec<String>,
}

/// The shortest token that is taken, in bytes.
const MIN_TOKEN: usize = 16;

impl Guard {
    /// Without a `token` anybody may ask who reaches the address. `hosts` are names without ports, in lower case, that
    /// `Host` may carry besides addresses and localhost.
    pub fn new(token: Option<String>, hosts: Vec<String>) -> Guard {
        Guard { token, hosts }
    }

    /// The token in the text of a token file, without the blanks and line ends around it.
    ///
    /// # Errors
    /// What is wrong with it, as a predicate; never the token.
    pub fn token_of(text: &str) -> Result<String, String> {
        let token = text.trim();
        if token.is_empty() {
            return Err("is empty".to_owned());
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("holds something else than one word of visible ASCII".to_owned());
        }
        if token.len() < MIN_TOKEN {
            return Err(format!("holds fewer than {MIN_TOKEN} characters"));
        }
        Ok(token.to_owned())
    }

    /// Whether a request may be answered at all.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        self.check_host(request)?;
        self.check_token(request.headers())
    }

    pub(super) fn check_host<B>(&self, request: &Request<B>) -> Result<(), Refused> {
        let mut fields = request.headers().get_all(HOST).iter();
        let host = match (fields.next(), fields.next()) {
            (Some(host), None) => Some(host.to_str().unwrap_or_default()),
            (None, _) if request.version() == Version::HTTP_10 => None,
            (None, _) => return Err(Refused::new(StatusCode::BAD_REQUEST, "no Host")),
            (Some(_), Some(_)) => return Err(Refused::new(StatusCode::BAD_REQUEST, "more than one Host")),
        };
        // A target in absolute form has an authority of its own, which counts before Host (RFC 9112 §3.2.2).
        let target = request.uri().authority().map(|authority| authority.as_str());
        for name in host.into_iter().chain(target) {
            if !self.is_ours(name) {
                return Err(Refused::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    format!("the host {name:?} is neither an address, nor localhost, nor one of admin.hosts"),
                ));
            }
        }
        Ok(())
    }

    /// Whether `authority`, a host and perhaps a port, is an address, localhost or a configured name.
    fn is_ours(&self, authority: &str) -> bool {
        if let Some(rest) = authority.strip_prefix('[') {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port));
        }
        let (host, port) = match authority.find(':') {
            Some(at) => authority.split_at(at),
            None => (authority, ":"),
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        let known = |known: &str| name.eq_ignore_ascii_case(known);
        let ours = host.parse::<Ipv4Addr>().is_ok()
            || known("localhost")
            || self.hosts.iter().any(|ours| known(ours));
        ours && is_port(port)
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let given = match (fields.next(), fields.next()) {
            (Some(field), None) => bearer(field),
            _ => None,
        };
        if given.is_some_and(|given| same(given, token.as_bytes())) {
            return Ok(());
        }
        Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "the request needs \"Authorization: Bearer …\" with the token of admin.token_file",
        ))
    }
}

/// `:` and digits; the digits may be missing (RFC 3986 §3.2.3).
fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|digits| digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The token of `Bearer TOKEN` (RFC 6750 §2.1).
fn bearer(field: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = field.as_bytes().split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then_some(token.trim_ascii())
}

/// Whether the two are equal, in a time that depends on their lengths alone.
fn same(given: &[u8], token: &[u8]) -> bool {
    let differences = given
        .iter()
        .zip(token)
        .fold(0, |found, (a, b)| black_box(found | (a ^ b)));
    given.len() == token.len() && differences == 0
}

/// Whether a request says that its body is JSON, which a page cannot say without asking first.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Refused> {
    let mut fields = headers.get_all(CONTENT_TYPE).iter();
    let field = match (fields.next(), fields.next()) {
        (Some(field), None) => field.to_str().unwrap_or_default(),
        _ => "",
    };
    let essence = field.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a call that changes something needs \"Content-Type: application/json\", also without a body",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_ours_and_others() {
        let guard = Guard::new(None, vec!["weir.example".to_owned()]);
        for ours in [
            "127.0.0.1",
            "127.0.0.1:9070",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9070",
            "localhost",
            "LocalHost:9070",
            "localhost.:1",
            "weir.example",
            "WEIR.example.:9070",
            "localhost:",
        ] {
            assert!(guard.is_ours(ours), "{ours}");
        }
        for other in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil-weir.example",
            "weir.example.evil",
            "[::1",
            "[::1]evil",
            "[evil]",
            "::1",
            "localhost:80:80",
            "localhost:x",
            "user@localhost",
            "127.1",
            "localhost ",
        ] {
            assert!(!guard.is_ours(other), "{other}");
        }
    }

    #[test]
    fn tokens_are_equal_or_not() {
        for (given, token, equal) in [
            ("abc", "abc", true),
            ("abd", "abc", false),
            ("ab", "abc", false),
            ("abcd", "abc", false),
            ("", "abc", false),
        ] {
            assert_eq!(same(given.as_bytes(), token.as_bytes()), equal, "{given}");
        }
        let field = HeaderValue::from_static("bearer  abc ");
        assert_eq!(bearer(&field), Some(&b"abc"[..]));
        for other in ["Bearer", "Basic abc", "abc", "Bearerabc"] {
            assert_eq!(bearer(&HeaderValue::from_static(other)), None, "{other}");
        }
    }

    #[test]
    fn token_files() {
        let token = "0123456789abcdef";
        assert_eq!(Guard::token_of(&format!(" {token}\n")), Ok(token.to_owned()));
        for bad in ["", "\n", "short", "0123456789 abcdef", "0123456789abcdé\u{1}"] {
            let error = Guard::token_of(bad).expect_err(bad);
            assert!(bad.trim().is_empty() || !error.contains(bad.trim()), "{error}");
        }
    }
}

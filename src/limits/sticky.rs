//! `[sticky]`: a cookie that brings a client back to the backend that served it.
//!
//! The cookie's value stands for a backend by name and says nothing of it: the first 128 bits of HMAC-SHA-256 (RFC 2104) of the
//! name under the operator's secret, in hexadecimal. It is the same over restarts and on every instance with that secret, and
//! does not hang on the order or number of backends. A value that is none of these is ignored, so without the secret nobody
//! can choose his backend; without a `secret_file` the key is a fixed one, which anybody can look up.
//!
//! All values and lines are made at start.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::cookie;
use crate::config::model;

/// Cookies of that name that are looked at: a client has one for each path and domain that set one.
const CANDIDATES_MAX: usize = 8;
/// What the key is if no secret was given.
const FIXED_SECRET: &[u8] = b"weir: no sticky.secret_file";
/// Sets these hashes apart from any other use of the same secret.
const PURPOSE: &[u8] = b"weir sticky 1\0";

/// The values of one pool's cookie.
#[derive(Debug)]
pub struct Sticky {
    cookie: Vec<u8>,
    /// Value and backend's index, sorted by value.
    known: Vec<(u128, usize)>,
    /// By index: the whole header line.
    lines: Vec<Vec<u8>>,
}

const NAME: &[u8] = b"Set-Cookie: ";

impl Sticky {
    /// None if there is to be no cookie. `names` are those of the backends by index. The cookie's name and path have been
    /// checked with the configuration: they go out as they are.
    pub fn new(settings: &model::Sticky, secret: Option<&[u8]>, names: &[&str]) -> Option<Self> {
        let cookie = settings.cookie.as_deref()?;
        let secret = secret.unwrap_or(FIXED_SECRET);
        let values: Vec<_> = names.iter().map(|name| value(secret, name)).collect();
        let mut known: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(index, &value)| (value, index))
            .collect();
        known.sort_unstable();
        let mut attributes = format!("; Path={}; HttpOnly; SameSite=Lax", settings.path);
        if settings.secure {
            attributes.push_str("; Secure");
        }
        if let Some(age) = settings.max_age {
            attributes.push_str(&format!("; Max-Age={}", age.as_secs()));
        }
        let lines = values
            .iter()
            .map(|value| format!("Set-Cookie: {cookie}={value:032x}{attributes}\r\n").into_bytes())
            .collect();
        Some(Sticky {
            cookie: cookie.as_bytes().to_vec(),
            known,
            lines,
        })
    }

    /// The index of the backend that a request's cookies name, given the values of its `Cookie` lines. The first value that
    /// is one of the pool's counts.
    pub fn find<'a>(&self, lines: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
        cookie::values(lines, &self.cookie)
            .take(CANDIDATES_MAX)
            .filter_map(parse)
            .find_map(|value| {
                let at = self
                    .known
                    .binary_search_by_key(&value, |&(known, _)| known)
                    .ok()?;
                self.known.get(at).map(|&(_, index)| index)
            })
    }

    /// The whole `Set-Cookie` line, with its CRLF, for [`ResponseRewrite::extra`](crate::http1::ResponseRewrite::extra);
    /// empty if there is no such backend.
    pub fn line(&self, index: usize) -> &[u8] {
        self.lines.get(index).map_or(&[], Vec::as_slice)
    }

    /// The value of that line.
    pub fn set_cookie(&self, index: usize) -> &[u8] {
        let line = self.line(index);
        line.get(NAME.len()..line.len().saturating_sub(2))
            .unwrap_or_default()
    }
}

fn value(secret: &[u8], name: &str) -> u128 {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(PURPOSE);
    mac.update(name.as_bytes());
    let hash = mac.finalize().into_bytes();
    let (first, _) = hash.split_first_chunk::<16>().expect("SHA-256 gives 32 bytes");
    u128::from_be_bytes(*first)
}

/// 32 lower-case hexadecimal digits.
fn parse(value: &[u8]) -> Option<u128> {
    if value.len() != 32 {
        return None;
    }
    value.iter().try_fold(0u128, |number, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NAMES: [&str; 3] = ["a:80", "b:80", "c:80"];

    fn settings() -> model::Sticky {
        model::Sticky {
            cookie: Some("weir".to_owned()),
            ..model::Sticky::default()
        }
    }

    fn sticky(secret: &[u8], names: &[&str]) -> Sticky {
        Sticky::new(&settings(), Some(secret), names).expect("there is a cookie")
    }

    /// `weir=…` of a backend.
    fn pair(sticky: &Sticky, index: usize) -> Vec<u8> {
        sticky
            .set_cookie(index)
            .split(|&byte| byte == b';')
            .next()
            .expect("a pair")
            .to_vec()
    }

    fn find(sticky: &Sticky, lines: &[&[u8]]) -> Option<usize> {
        sticky.find(lines.iter().copied())
    }

    #[test]
    fn without_a_cookie_there_is_nothing() {
        assert!(Sticky::new(&model::Sticky::default(), None, &NAMES).is_none());
    }

    #[test]
    fn each_backend_is_found_by_its_own_cookie() {
        let sticky = sticky(b"secret", &NAMES);
        for index in 0..NAMES.len() {
            let pair = pair(&sticky, index);
            assert_eq!(find(&sticky, &[&pair]), Some(index));
            let among = [b"x=y; ", &pair[..], b"; z"].concat();
            assert_eq!(find(&sticky, &[b"a=b", &among]), Some(index));
        }
        assert_eq!(find(&sticky, &[]), None);
        // A stale or forged one beside it does no harm.
        let both = [b"weir=0123456789abcdef0123456789abcdef; ", &pair(&sticky, 1)[..]].concat();
        assert_eq!(find(&sticky, &[&both]), Some(1));
        assert_eq!(sticky.line(3), b"");
        assert_eq!(sticky.set_cookie(3), b"");
    }

    #[test]
    fn the_value_is_the_same_everywhere_and_hangs_on_name_and_secret_only() {
        let one = sticky(b"secret", &NAMES);
        let other = sticky(b"secret", &["c:80", "x:80", "a:80"]);
        assert_eq!(find(&other, &[&pair(&one, 0)]), Some(2));
        assert_eq!(find(&other, &[&pair(&one, 1)]), None);
        assert_eq!(find(&sticky(b"another", &NAMES), &[&pair(&one, 0)]), None);
        // Computed with Python's hmac; it must not change from release to release.
        assert_eq!(
            one.set_cookie(0),
            b"weir=b84ab619fa31a9af5f58bfa79a371753; Path=/; HttpOnly; SameSite=Lax"
        );
        let fixed = Sticky::new(&settings(), None, &NAMES).expect("there is a cookie");
        assert_eq!(find(&fixed, &[&pair(&one, 0)]), None);
    }

    #[test]
    fn attributes_are_as_asked() {
        let settings = model::Sticky {
            secure: true,
            max_age: Some(Duration::from_secs(3600)),
            path: "/app".to_owned(),
            ..settings()
        };
        let sticky = Sticky::new(&settings, Some(b"secret"), &NAMES).expect("there is a cookie");
        let line = std::str::from_utf8(sticky.line(0)).expect("ASCII");
        assert!(line.starts_with("Set-Cookie: weir="), "{line}");
        assert!(
            line.ends_with("; Path=/app; HttpOnly; SameSite=Lax; Secure; Max-Age=3600\r\n"),
            "{line}"
        );
    }

    #[test]
    fn what_is_forged_is_ignored() {
        let sticky = sticky(b"secret", &NAMES);
        let real = pair(&sticky, 0);
        let upper = real.to_ascii_uppercase();
        let mut changed = real.clone();
        *changed.last_mut().expect("not empty") ^= 1;
        for forged in [
            &b"weir="[..],
            b"weir=a:80",
            b"weir=00000000000000000000000000000000",
            &real[..real.len() - 1],
            &[&real[..], b"0"].concat(),
            &[b"weir=\"", &real[5..], b"\""].concat(),
            &upper,
            &changed,
            &[b"Weir", &real[4..]].concat(),
        ] {
            assert_eq!(find(&sticky, &[forged]), None, "{}", forged.escape_ascii());
        }
        // Not more than a few are looked at.
        let many = [b"weir=x; ".repeat(CANDIDATES_MAX), real].concat();
        assert_eq!(find(&sticky, &[&many]), None);
    }
}

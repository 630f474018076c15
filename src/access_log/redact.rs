//! What must not be read in a log: the values of certain query parameters and headers.

/// Stands where a value stood.
pub const REDACTED: &[u8] = b"[redacted]";

/// Which values are not shown. Names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redaction {
    pub query: Vec<String>,
    pub headers: Vec<String>,
}

impl Redaction {
    /// Whether a header's value is not shown.
    pub fn hides_header(&self, name: &[u8]) -> bool {
        let is = |known: &String| name.eq_ignore_ascii_case(known.as_bytes());
        self.headers.iter().any(is)
    }

    /// Gives the parts of a request target to `show` one after the other, with [`REDACTED`] for values that must not be
    /// seen. A name counts whatever its case and however it is percent-encoded.
    pub fn target<'a>(&self, target: &'a [u8], mut show: impl FnMut(&'a [u8])) {
        let query = match memchr::memchr(b'?', target) {
            Some(at) if !self.query.is_empty() => at + 1,
            _ => return show(target),
        };
        // What is shown as it is, is shown in one go.
        let mut shown = 0;
        let mut at = query;
        for parameter in target[query..].split(|&byte| byte == b'&' || byte == b';') {
            if let Some(equals) = memchr::memchr(b'=', parameter)
                && self.hides_parameter(&parameter[..equals])
            {
                show(&target[shown..=at + equals]);
                show(REDACTED);
                shown = at + parameter.len();
            }
            at += parameter.len() + 1;
        }
        show(&target[shown..]);
    }

    fn hides_parameter(&self, name: &[u8]) -> bool {
        self.query.iter().any(|hidden| decoded(name).eq(hidden.bytes()))
    }
}

/// The bytes of a parameter's name in lower case, percent-encoding undone (RFC 3986 §2.1).
fn decoded(name: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *name.get(at)?;
        at += 1;
        let encoded = digit(name.get(at)).zip(digit(name.get(at + 1)));
        Some(match (byte, encoded) {
            (b'%', Some((high, low))) => {
                at += 2;
                ((high * 16 + low) as u8).to_ascii_lowercase()
            }
            _ => byte.to_ascii_lowercase(),
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redaction() -> Redaction {
        Redaction {
            query: vec!["token".to_owned(), "password".to_owned()],
            headers: vec!["cookie".to_owned()],
        }
    }

    fn shown(target: &str) -> String {
        let mut out = Vec::new();
        redaction().target(target.as_bytes(), |part| out.extend_from_slice(part));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn listed_parameters_lose_their_values() {
        for (target, expected) in [
            ("/a", "/a"),
            ("/token=1", "/token=1"),
            ("/a?token=1", "/a?token=[redacted]"),
            ("/a?x=1&TOKEN=secret&y=2", "/a?x=1&TOKEN=[redacted]&y=2"),
            (
                "/a?t%6Fken=secret;password=p=q",
                "/a?t%6Fken=[redacted];password=[redacted]",
            ),
            ("/a?tokens=1&token&b=token=1", "/a?tokens=1&token&b=token=1"),
            ("/a?token=", "/a?token=[redacted]"),
            ("?%74oken=1%", "?%74oken=[redacted]"),
        ] {
            assert_eq!(shown(target), expected);
        }
        assert!(redaction().hides_header(b"Cookie") && !redaction().hides_header(b"cookies"));
    }

    proptest! {
        #[test]
        fn nothing_but_listed_values_changes(target in "[a-z?&=%;]{0,40}") {
            let shown = shown(&target);
            if !target.contains("token") && !target.contains("password") && !target.contains('%') {
                prop_assert_eq!(shown, target);
            }
        }

        #[test]
        fn a_secret_is_never_shown(before in "[a-z=&]{0,9}", after in "[a-z=&]{0,9}") {
            let shown = shown(&format!("/?{before}&token=S3CRET&{after}"));
            prop_assert!(!shown.contains("S3CRET"), "{}", shown);
        }
    }
}

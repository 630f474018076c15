//! What a request is known by to strategies that hash (`strategy.key`).
//!
//! The hash is SipHash-1-3 (Aumasson and Bernstein, 2012) of the bytes as they came, with a key of zeros: the same on every
//! worker, instance and release, which the tests pin. It is no protection against whoever looks for collisions: those only
//! send his requests to one backend, which any equal key does.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::config::model::HashKey;
use crate::http1::RequestHead;
use crate::limits::cookie;

/// The hash of what `key` names; none if the request has none, or an empty one. The first counts if there are several.
/// `client`: its address, none on a Unix socket.
///
/// Nothing is decoded: `%41` is another key than `A`. `uri` is path and query without the authority, `path` ends before the
/// query.
pub fn request_key(key: &HashKey, head: &RequestHead, bytes: &[u8], client: Option<IpAddr>) -> Option<u64> {
    match key {
        HashKey::Ip => client.map(|client| match client.to_canonical() {
            IpAddr::V4(address) => hash(&address.octets()),
            IpAddr::V6(address) => hash(&address.octets()),
        }),
        HashKey::Header(name) => some_hash(head.field(bytes, name.as_bytes())),
        HashKey::Cookie(name) => {
            some_hash(cookie::values(cookie::lines(head, bytes), name.as_bytes()).next())
        }
        HashKey::Uri => Some(hash_target(head.path(bytes))),
        HashKey::Path => {
            let (path, _) = split_target(head.path(bytes));
            Some(hash_target(path))
        }
        HashKey::Query(name) => {
            let (_, query) = split_target(head.path(bytes));
            let mut parameters = query.split(|&byte| byte == b'&').filter_map(|parameter| {
                let at = memchr::memchr(b'=', parameter)?;
                (parameter.get(..at)? == name.as_bytes()).then_some(parameter.get(at + 1..)?)
            });
            some_hash(parameters.next())
        }
    }
}

fn some_hash(value: Option<&[u8]>) -> Option<u64> {
    value.filter(|value| !value.is_empty()).map(hash)
}

/// What everybody agrees on that a key of these bytes is hashed to.
pub fn hash(bytes: &[u8]) -> u64 {
    SipHasher13::new().hash(bytes)
}

/// An absolute-form target without a path means `/` (RFC 9112 §3.2.1).
fn hash_target(target: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    if target.is_empty() || target.first() == Some(&b'?') {
        hasher.write(b"/");
    }
    hasher.write(target);
    hasher.finish()
}

/// Path and query, without the question mark.
fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let at = memchr::memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(at);
    (path, query.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Limits;

    #[track_caller]
    fn key(key: &HashKey, request: &str) -> Option<u64> {
        let mut head = RequestHead::new();
        let limits = Limits {
            max_head_bytes: 4096,
            max_headers: 16,
        };
        let bytes = request.as_bytes();
        assert!(head.parse(bytes, &limits).expect("a request").is_some());
        request_key(key, &head, bytes, None)
    }

    fn get(target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
    }

    fn with(fields: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(b""), 0xd1fb_a762_150c_532c);
        assert_eq!(hash(b"a"), 0x4074_48d2_b89b_1813);
        assert_eq!(hash(b"/some/path?with=query"), 0x1dcb_e099_0a6f_d49e);
        assert_eq!(hash(&[192, 0, 2, 1]), 0x123e_ee94_2ebc_1bf2);
    }

    #[test]
    fn by_address() {
        let head = RequestHead::new();
        let by = |client: &str| {
            let client = client.parse().expect("an address");
            request_key(&HashKey::Ip, &head, b"", Some(client))
        };
        assert_eq!(by("192.0.2.1"), Some(hash(&[192, 0, 2, 1])));
        assert_eq!(by("::ffff:192.0.2.1"), by("192.0.2.1"));
        assert_ne!(by("2001:db8::1"), by("2001:db8::2"));
        assert_eq!(request_key(&HashKey::Ip, &head, b"", None), None);
    }

    #[test]
    fn by_header() {
        let by = HashKey::Header("x-user".to_owned());
        assert_eq!(key(&by, &with("X-User: u\r\nX-User: v\r\n")), Some(hash(b"u")));
        assert_eq!(key(&by, &with("X-User:\r\nX-User: v\r\n")), None);
        assert_eq!(key(&by, &with("")), None);
    }

    #[test]
    fn by_cookie() {
        let by = HashKey::Cookie("id".to_owned());
        assert_eq!(
            key(&by, &with("Cookie: a=b; id=7\r\ncookie: id=8\r\n")),
            Some(hash(b"7"))
        );
        assert_eq!(
            key(&by, &with("Cookie: a=b\r\nCookie: id=8\r\n")),
            Some(hash(b"8"))
        );
        assert_eq!(key(&by, &with("Cookie: id=\r\n")), None);
        assert_eq!(key(&by, &with("Cookie: ID=7\r\n")), None);
        assert_eq!(key(&by, &with("")), None);
    }

    #[test]
    fn by_target() {
        assert_eq!(key(&HashKey::Uri, &get("/a%41?b=c")), Some(hash(b"/a%41?b=c")));
        assert_eq!(key(&HashKey::Path, &get("/a%41?b=c")), Some(hash(b"/a%41")));
        for (absolute, origin) in [("http://h/x?y", "/x?y"), ("http://h", "/"), ("http://h?y", "/?y")] {
            for by in [HashKey::Uri, HashKey::Path] {
                assert_eq!(
                    key(&by, &get(absolute)),
                    key(&by, &get(origin)),
                    "{by:?} {absolute}"
                );
            }
        }
    }

    #[test]
    fn by_query() {
        let by = HashKey::Query("id".to_owned());
        assert_eq!(key(&by, &get("/?a=b&id=7&id=8")), Some(hash(b"7")));
        assert_eq!(key(&by, &get("/?id=%37")), Some(hash(b"%37")));
        assert_eq!(key(&by, &get("/?id=a=b?c")), Some(hash(b"a=b?c")));
        for without in ["/", "/?", "/?id", "/?id=", "/?ID=7", "/?xid=7", "/id=7"] {
            assert_eq!(key(&by, &get(without)), None, "{without}");
        }
    }
}

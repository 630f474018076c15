//! Requests: what is taken, what is refused and with which reason.

use super::{LIMITS, refusal, refused, request};
use crate::http1::head::{CONNECTION_OPTIONS_MAX, Progress};
use crate::http1::{BodyLength, Known, Limits, Method, RequestHead, Version};
use crate::reason::Reason;

/// A GET with these field lines (each with its CRLF) beside `Host`.
fn with(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_plain_request_is_understood() {
    let bytes =
        b"POST /a/b?c=d;e HTTP/1.1\r\nHost: example.com:8080\r\nX-A:  b \r\nContent-Length: 5\r\n\r\nhello";
    let head = request(bytes);
    assert_eq!(head.head_len(), bytes.len() - 5);
    assert_eq!(head.method(), Method::Post);
    assert_eq!(head.method_bytes(bytes), b"POST");
    assert_eq!(head.version(), Version::Http11);
    assert_eq!(head.path(bytes), b"/a/b?c=d;e");
    assert_eq!(head.authority(bytes), Some(&b"example.com:8080"[..]));
    assert_eq!(head.body(), BodyLength::Length(5));
    assert!(head.wants_keep_alive());
    assert!(!head.has_forwarding_fields());
    assert_eq!(head.field(bytes, b"x-a"), Some(&b"b"[..]));
    let known: Vec<_> = head.fields(bytes).map(|(_, _, known)| known).collect();
    assert_eq!(known, [Known::Host, Known::Other, Known::ContentLength]);
}

#[test]
fn length_framing_is_taken_or_refused_never_repaired() {
    let cases: [(&str, BodyLength); 6] = [
        ("", BodyLength::None),
        ("Content-Length: 0\r\n", BodyLength::None),
        ("content-length:\t7 \r\n", BodyLength::Length(7)),
        (
            "Content-Length: 9223372036854775807\r\n",
            BodyLength::Length(i64::MAX as u64),
        ),
        ("Transfer-Encoding: chunked\r\n", BodyLength::Chunked),
        ("TRANSFER-ENCODING:CHUNKED\r\n", BodyLength::Chunked),
    ];
    for (fields, body) in cases {
        assert_eq!(request(&with(fields)).body(), body, "{fields:?}");
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\ncontent-length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: -0\r\n",
        "Content-Length: \r\n",
        "Content-Length:\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 1e3\r\n",
        "Content-Length: a\r\n",
        "Content-Length: \u{0665}\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding:\r\n",
    ] {
        refused(&with(fields), Reason::Framing);
    }
    refused(
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        Reason::Framing,
    );
    refused(
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        Reason::Framing,
    );
}

#[test]
fn lines_are_field_lines_that_end_in_crlf() {
    for bytes in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a \nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n",
        // Folded, before the first field and after one.
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX:\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
        // Around the colon, and names that are none.
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\"X\": b\r\n\r\n",
    ] {
        refused(bytes, Reason::BadRequest);
    }
    let bytes = with("X: a\tb\r\nY: \u{e4}\r\nZ:\r\nZ: \t \r\n");
    let values: Vec<_> = request(&bytes)
        .fields(&bytes)
        .map(|(_, value, _)| value.to_vec())
        .collect();
    assert_eq!(
        values,
        [b"a".to_vec(), b"a\tb".to_vec(), "\u{e4}".into(), vec![], vec![]]
    );
}

#[test]
fn request_lines_are_three_words_with_one_space_between() {
    for line in [
        &b"GET /"[..],
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET\t/ HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET / a HTTP/1.1",
        b"GET /\0 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"G\xc4T / HTTP/1.1",
        b"/ HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01",
    ] {
        refused(&[line, b"\r\nHost: a\r\n\r\n"].concat(), Reason::BadRequest);
    }
    let head = request(b"get / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.method(), Method::Other, "methods are case-sensitive");
    let longest = "M".repeat(32);
    request(format!("{longest} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    refused(
        format!("{longest}M / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        Reason::BadRequest,
    );
}

#[test]
fn versions_other_than_1_0_and_1_1_are_refused() {
    for version in [
        "HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/9.9",
    ] {
        refused(
            format!("GET / {version}\r\nHost: a\r\n\r\n").as_bytes(),
            Reason::Version,
        );
    }
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason::Version);
    for version in [
        "HTTP/1.10",
        "HTTP/1.01",
        "HTTP/01.1",
        "HTTP/11",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/2",
        "HTTP/.1",
        "http/1.1",
        "HTTP/1,1",
        "HTTP 1.1",
        "HTTPS/1.1",
        "HTTP/1.1a",
        "HTTP/ 1.1",
        "HTTP/-1.1",
        "HTTP/1.a",
        "XHTTP/1.1",
        "",
    ] {
        refused(
            format!("GET / {version}\r\nHost: a\r\n\r\n").as_bytes(),
            Reason::BadRequest,
        );
    }
    // Half of a version is not yet a wrong one.
    assert_eq!(refusal(b"GET / HTTP/2"), None);
    assert_eq!(refusal(b"GET / HTTP/2.0"), None);
    assert_eq!(refusal(b"GET / HTTP/2.0\r"), Some(Reason::Version));
}

#[test]
fn connect_and_trace_are_refused() {
    refused(
        b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        Reason::MethodRefused,
    );
    refused(b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MethodRefused);
    refused(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Reason::MethodRefused);
}

#[test]
fn one_empty_line_is_skipped() {
    let bytes = b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\nrest";
    let head = request(bytes);
    assert_eq!(head.head_len(), bytes.len() - 4);
    assert_eq!(head.path(bytes), b"/x");
    assert_eq!(head.method_bytes(bytes), b"GET");
    for bytes in [
        &b"\n"[..],
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n",
        b"\r\n\n",
        b"\r\n\r",
        b"\rG",
        b"\r\r",
    ] {
        refused(bytes, Reason::BadRequest);
    }
    for bytes in [&b""[..], b"\r", b"\r\n", b"\r\nG"] {
        assert_eq!(refusal(bytes), None);
    }
}

#[test]
fn keep_alive_follows_version_and_connection() {
    for (version, connection, wanted) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ] {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n").into_bytes();
        assert_eq!(
            request(&bytes).wants_keep_alive(),
            wanted,
            "{version} {connection:?}"
        );
    }
    refused(&with("Connection: a b\r\n"), Reason::BadRequest);
    refused(&with("Connection: close;\r\n"), Reason::BadRequest);
    request(&with("Connection: , close ,, \r\nConnection:\r\n"));
}

#[test]
fn connection_options_are_bounded() {
    let most = vec!["x"; CONNECTION_OPTIONS_MAX].join(",");
    request(&with(&format!("Connection: {most}\r\n")));
    refused(
        &with(&format!("Connection: {most}\r\nConnection: x\r\n")),
        Reason::BadRequest,
    );
}

#[test]
fn expectations_count_in_http_1_1_with_a_body() {
    for (version, fields, expected) in [
        ("1.1", "Expect: 100-continue\r\nContent-Length: 3\r\n", true),
        (
            "1.1",
            "Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n",
            true,
        ),
        ("1.1", "Expect: 100-continue\r\n", false),
        ("1.1", "Expect: 100-continue\r\nContent-Length: 0\r\n", false),
        ("1.1", "Expect: 200-ok\r\nContent-Length: 3\r\n", false),
        ("1.1", "Content-Length: 3\r\n", false),
        ("1.0", "Expect: 100-continue\r\nContent-Length: 3\r\n", false),
    ] {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n").into_bytes();
        assert_eq!(
            request(&bytes).expects_continue(),
            expected,
            "{version} {fields:?}"
        );
    }
}

#[test]
fn upgrades_count_in_http_1_1_with_connection_upgrade_and_never_h2c() {
    for (version, fields, wanted) in [
        (
            "1.1",
            "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            Some("websocket"),
        ),
        (
            "1.1",
            "Connection: keep-alive, upgrade\r\nUpgrade: h2c, x/1, websocket\r\n",
            Some("x/1"),
        ),
        (
            "1.1",
            "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
            Some("websocket"),
        ),
        (
            "1.1",
            "Connection: upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AA\r\n",
            None,
        ),
        ("1.1", "Connection: upgrade\r\nUpgrade: h2\r\n", None),
        ("1.1", "Connection: upgrade\r\n", None),
        ("1.1", "Connection: upgrade\r\nUpgrade:\r\n", None),
        ("1.1", "Upgrade: websocket\r\n", None),
        ("1.1", "Connection: close\r\nUpgrade: websocket\r\n", None),
        ("1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", None),
    ] {
        let bytes = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n").into_bytes();
        assert_eq!(
            request(&bytes).upgrade(&bytes),
            wanted.map(str::as_bytes),
            "{version} {fields:?}"
        );
    }
    refused(
        &with("Connection: upgrade\r\nUpgrade: a b\r\n"),
        Reason::BadRequest,
    );
    refused(&with("Connection: upgrade\r\nUpgrade: /\r\n"), Reason::BadRequest);
}

#[test]
fn forwarding_fields_are_seen() {
    for name in [
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-anything",
        "X_Forwarded_For",
        "Via",
        "VIA",
    ] {
        assert!(
            request(&with(&format!("{name}: b\r\n"))).has_forwarding_fields(),
            "{name}"
        );
    }
    assert!(!request(&with("X-Forwarded: b\r\nX-Real-IP: c\r\n")).has_forwarding_fields());
}

#[test]
fn limits_hold_and_say_which() {
    let limits = Limits {
        max_head_bytes: 64,
        max_headers: 3,
    };
    let judge = |bytes: &[u8]| {
        RequestHead::new()
            .parse(bytes, &limits)
            .map_err(|reject| reject.reason)
    };
    let of_length = |length: usize| {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: ".to_vec();
        bytes.resize(length - 4, b'a');
        [bytes, b"\r\n\r\nmore".to_vec()].concat()
    };
    assert_eq!(judge(&of_length(64)), Ok(Some(64)));
    assert_eq!(judge(&of_length(65)), Err(Reason::HeadTooLarge));
    assert_eq!(judge(&of_length(65)[..63]), Ok(None));
    assert_eq!(judge(&[b"GET /", &[b'a'; 58][..]].concat()), Ok(None));
    assert_eq!(
        judge(&[b"GET /", &[b'a'; 59][..]].concat()),
        Err(Reason::UriTooLong)
    );
    assert_eq!(
        judge(&[b"\r\nGET /", &[b'a'; 57][..]].concat()),
        Err(Reason::UriTooLong)
    );
    assert_eq!(
        judge(b"GET / HTTP/1.1\r\nHost:a\r\nb:b\r\nc:c\r\n\r\n"),
        Ok(Some(36))
    );
    assert_eq!(
        judge(b"GET / HTTP/1.1\r\nHost:a\r\nb:b\r\nc:c\r\nd:d\r\n\r\n"),
        Err(Reason::HeadTooLarge)
    );

    let most = Limits {
        max_head_bytes: usize::MAX,
        max_headers: usize::MAX,
    };
    let fields = |count: usize| with(&"a: b\r\n".repeat(count - 1));
    assert!(matches!(
        RequestHead::new().parse(&fields(512), &most),
        Ok(Some(_))
    ));
    assert!(RequestHead::new().parse(&fields(513), &most).is_err());
}

#[test]
fn a_head_that_trickles_in_is_the_same_and_is_tokenised_a_few_times_only() {
    let mut bytes = b"GET /trickle HTTP/1.1\r\nHost: a\r\n".to_vec();
    while bytes.len() < 30_000 {
        bytes.extend_from_slice(b"x: ");
        bytes.extend_from_slice(&[b'y'; 300]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let mut head = RequestHead::new();
    let mut progress = Progress::default();
    let mut tries = 0;
    for end in 1..bytes.len() {
        assert_eq!(head.parse(&bytes[..end], &LIMITS), Ok(None));
        if progress.worth_trying(&bytes[..end]).is_ok_and(|worth| worth) {
            tries += 1;
            assert!(progress.tried(&bytes[..end]).is_ok());
        }
    }
    assert_eq!(tries, bytes.len().ilog2() + 1, "at 1, 2, 4, ... bytes");
    assert_eq!(head.parse(&bytes, &LIMITS), Ok(Some(bytes.len())));
    assert_eq!(head.path(&bytes), b"/trickle");
}

#[test]
fn a_bare_lf_is_seen_when_it_comes_not_when_the_head_ends() {
    let mut head = RequestHead::new();
    assert_eq!(head.parse(b"GET / HT", &LIMITS), Ok(None));
    let reject = head.parse(b"GET / HTTP/1.1\n", &LIMITS).expect_err("a bare LF");
    assert_eq!(reject.reason, Reason::BadRequest);
    refused(b"GET / HTTP/1.1\nHost: ", Reason::BadRequest);
}

#[test]
fn the_head_is_reusable_and_its_accessors_survive_other_bytes() {
    let mut head = RequestHead::new();
    let first = b"POST http://b/long/path HTTP/1.0\r\nConnection: x\r\nx: y\r\nContent-Length: 4\r\nForwarded: a\r\n\r\n";
    assert!(head.parse(first, &LIMITS).is_ok());
    for bytes in [&b""[..], b"GET"] {
        assert_eq!(head.path(bytes), b"");
        assert_eq!(head.fields(bytes).count(), 4);
    }
    head.reset();
    let second = b"GET / HTTP/1.1\r\nHost: c\r\n\r\n";
    assert_eq!(head.parse(second, &LIMITS), Ok(Some(second.len())));
    assert_eq!(
        (head.method(), head.version(), head.body()),
        (Method::Get, Version::Http11, BodyLength::None)
    );
    assert_eq!(head.authority(second), Some(&b"c"[..]));
    assert_eq!(head.fields(second).count(), 1);
    assert!(!head.has_forwarding_fields());
}

#[test]
fn methods_know_what_may_be_repeated() {
    for (name, safe, idempotent) in [
        ("GET", true, true),
        ("HEAD", true, true),
        ("OPTIONS", true, true),
        ("TRACE", true, true),
        ("PUT", false, true),
        ("DELETE", false, true),
        ("POST", false, false),
        ("PATCH", false, false),
        ("CONNECT", false, false),
        ("PROPFIND", false, false),
    ] {
        let method = Method::from_bytes(name.as_bytes());
        assert_eq!(
            (method.is_safe(), method.is_idempotent()),
            (safe, idempotent),
            "{name}"
        );
    }
}

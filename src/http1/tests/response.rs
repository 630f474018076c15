//! Responses: what is taken, what is refused, what frames the body.

use super::{GET, LIMITS, response, response_refused};
use crate::http1::{BodyLength, Limits, Method, RequestFacts, ResponseHead, Version};

const HEAD: RequestFacts = RequestFacts {
    method: Method::Head,
    upgrade: false,
};
const UPGRADE: RequestFacts = RequestFacts {
    method: Method::Get,
    upgrade: true,
};

#[track_caller]
fn refused(bytes: &[u8]) {
    assert!(
        response_refused(bytes, GET),
        "{:?}",
        String::from_utf8_lossy(bytes)
    );
}

fn with(fields: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes()
}

#[test]
fn a_plain_response_is_understood() {
    let bytes = b"HTTP/1.1 200 Fine \xe4\r\nContent-Length: 2\r\nServer: x\r\n\r\nok";
    let head = response(bytes, GET);
    assert_eq!(head.head_len(), bytes.len() - 2);
    assert_eq!((head.status(), head.version()), (200, Version::Http11));
    assert_eq!(head.reason_phrase(bytes), b"Fine \xe4");
    assert_eq!(head.body(), BodyLength::Length(2));
    assert!(head.wants_keep_alive() && !head.is_interim());
    assert_eq!(head.field(bytes, b"server"), Some(&b"x"[..]));
}

#[test]
fn status_lines_are_status_lines() {
    for line in [
        &b"HTTP/1.1 20 OK"[..],
        b"HTTP/1.1 2 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 000 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 -20 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/0.9 200 OK",
        b"HTTP/1.10 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/2 200",
        b"http/1.1 200 OK",
        b"ICY 200 OK",
        b"<html>",
        b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\x01K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200\tOK",
        b"",
        b" HTTP/1.1 200 OK",
        b"\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 \xb2\xb0\xb0 OK",
        b"SSH-2.0-x",
    ] {
        refused(&[line, b"\r\nContent-Length: 0\r\n\r\n"].concat());
    }
    for (line, status, reason) in [
        ("HTTP/1.1 200 OK", 200, "OK"),
        ("HTTP/1.1 200 ", 200, ""),
        ("HTTP/1.1 200", 200, ""),
        ("HTTP/1.1 200  two  words ", 200, " two  words "),
        ("HTTP/1.0 599 x", 599, "x"),
        ("HTTP/1.1 999 x", 999, "x"),
    ] {
        let bytes = format!("{line}\r\n\r\n").into_bytes();
        let head = response(&bytes, GET);
        assert_eq!(
            (head.status(), head.reason_phrase(&bytes)),
            (status, reason.as_bytes()),
            "{line}"
        );
    }
}

#[test]
fn fields_obey_the_rules_of_requests() {
    for bytes in [
        &b"HTTP/1.1 200 OK\nX: a\r\n\r\n"[..],
        b"HTTP/1.1 200\nX: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n X: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\t: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: a b\r\n\r\n",
    ] {
        refused(bytes);
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 9223372036854775808\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        refused(&with(fields));
        assert!(response_refused(&with(fields), HEAD), "{fields:?} to HEAD");
    }
    refused(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn method_status_and_fields_frame_the_body() {
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases: [(&str, &str, RequestFacts, BodyLength); 13] = [
        ("200", length, GET, BodyLength::Length(5)),
        ("200", "Content-Length: 0\r\n", GET, BodyLength::None),
        ("200", chunked, GET, BodyLength::Chunked),
        ("200", "", GET, BodyLength::UntilClose),
        ("500", "", GET, BodyLength::UntilClose),
        ("200", length, HEAD, BodyLength::None),
        ("200", chunked, HEAD, BodyLength::None),
        ("200", "", HEAD, BodyLength::None),
        ("204", "", GET, BodyLength::None),
        ("204", "Content-Length: 0\r\n", GET, BodyLength::None),
        ("304", length, GET, BodyLength::None),
        ("304", chunked, GET, BodyLength::None),
        ("103", "Link: <a>\r\n", GET, BodyLength::None),
    ];
    for (status, fields, facts, body) in cases {
        let bytes = format!("HTTP/1.1 {status} x\r\n{fields}\r\n").into_bytes();
        assert_eq!(
            response(&bytes, facts).body(),
            body,
            "{status} {fields:?} {facts:?}"
        );
    }
    for status in ["100", "103", "204"] {
        refused(format!("HTTP/1.1 {status} x\r\n{length}\r\n").as_bytes());
        refused(format!("HTTP/1.1 {status} x\r\n{chunked}\r\n").as_bytes());
    }
}

#[test]
fn only_what_ends_by_itself_leaves_the_connection_usable() {
    for (bytes, wanted) in [
        ("HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\n", true),
        (
            "HTTP/1.1 200 x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n",
            false,
        ),
        ("HTTP/1.1 200 x\r\n\r\n", false),
        ("HTTP/1.1 204 x\r\n\r\n", true),
        ("HTTP/1.0 200 x\r\nContent-Length: 1\r\n\r\n", false),
        (
            "HTTP/1.0 200 x\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
            true,
        ),
    ] {
        assert_eq!(
            response(bytes.as_bytes(), GET).wants_keep_alive(),
            wanted,
            "{bytes:?}"
        );
    }
}

#[test]
fn interim_responses_are_told_apart() {
    for status in ["100", "102", "103", "142", "199"] {
        assert!(response(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes(), GET).is_interim());
    }
    let stream = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let mut head = ResponseHead::new();
    let mut at = 0;
    let mut seen = Vec::new();
    while at < stream.len() {
        head.reset();
        at += head
            .parse(&stream[at..], &LIMITS, GET)
            .expect("well-formed")
            .expect("whole");
        seen.push((head.status(), head.is_interim()));
    }
    assert_eq!(seen, [(100, true), (103, true), (200, false)]);
}

#[test]
fn a_101_is_taken_only_if_asked_for_and_well_formed() {
    let good = b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\ntunnel";
    let head = response(good, UPGRADE);
    assert_eq!(
        (head.body(), head.is_interim(), head.wants_keep_alive()),
        (BodyLength::None, false, false)
    );
    refused(good);
    for bad in [
        "HTTP/1.1 101 x\r\n\r\n",
        "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: a b\r\n\r\n",
        "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: a\r\nContent-Length: 4\r\n\r\n",
        "HTTP/1.0 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ] {
        assert!(response_refused(bad.as_bytes(), UPGRADE), "{bad:?}");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits {
        max_head_bytes: 64,
        max_headers: 2,
    };
    let judge = |bytes: &[u8]| {
        ResponseHead::new()
            .parse(bytes, &limits, GET)
            .map_err(|reject| reject.detail)
    };
    assert_eq!(judge(&[b"HTTP/1.1 200 ", &[b'a'; 50][..]].concat()), Ok(None));
    assert!(judge(&[b"HTTP/1.1 200 ", &[b'a'; 51][..]].concat()).is_err());
    assert_eq!(judge(b"HTTP/1.1 200 x\r\na:b\r\nc:d\r\n\r\nbody"), Ok(Some(28)));
    assert!(judge(b"HTTP/1.1 200 x\r\na:b\r\nc:d\r\ne:f\r\n\r\n").is_err());
}

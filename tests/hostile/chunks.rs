//! Chunked bodies, the same ones from either side.

use super::Got::{Broken, Passed, PassedOnce};
use super::{Answer, Case, Want, case};

/// Bodies that are no chunked bodies.
fn broken() -> Vec<(String, Vec<u8>)> {
    let mut bodies: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, body: &[u8]| bodies.push((name.to_owned(), body.to_vec()));
    add("an empty chunk size", b"\r\nabc\r\n0\r\n\r\n");
    add("a second chunk size that is empty", b"3\r\nabc\r\n\r\n0\r\n\r\n");
    for size in [
        "g", "+3", "-3", "-0", "0x3", "3h", "3 3", "3.0", "3,", "3_", " 3", "\t3", "3 ", "3\t", "3\0",
        "\x0b3", "'3'",
    ] {
        add(
            &format!("a chunk size of {}", size.escape_debug()),
            format!("{size}\r\nabc\r\n0\r\n\r\n").as_bytes(),
        );
    }
    add("an 8-bit chunk size", b"\xb3\r\nabc\r\n0\r\n\r\n");
    add(
        "a chunk size past 64 bits",
        b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    );
    add(
        "a chunk size of 64 bits and more",
        b"ffffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    );
    add(
        "a chunk size of a thousand zeros",
        &[&[b'0'; 1000][..], b"3\r\nabc\r\n0\r\n\r\n"].concat(),
    );
    add("a chunk size without end", &[b'0'; 70_000]);
    add(
        "an extension without end",
        &[&b"3;"[..], &[b'a'; 70_000], b"\r\nabc\r\n0\r\n\r\n"].concat(),
    );
    add("lf behind a chunk size", b"3\nabc\r\n0\r\n\r\n");
    add("cr behind a chunk size", b"3\rabc\r\n0\r\n\r\n");
    add("cr cr lf behind a chunk size", b"3\r\r\nabc\r\n0\r\n\r\n");
    add("lf in an extension", b"3;a\nb\r\nabc\r\n0\r\n\r\n");
    add("cr in an extension", b"3;a\rb\r\nabc\r\n0\r\n\r\n");
    add("a nul in an extension", b"3;a\0\r\nabc\r\n0\r\n\r\n");
    add("lf behind an extension", b"3;a\nabc\r\n0\r\n\r\n");
    add("chunk data longer than its size", b"3\r\nabcdef\r\n0\r\n\r\n");
    add("chunk data shorter than its size", b"5\r\nabc\r\n0\r\n\r\n");
    add("lf behind chunk data", b"3\r\nabc\n0\r\n\r\n");
    add("cr behind chunk data", b"3\r\nabc\r0\r\n\r\n");
    add("nothing behind chunk data", b"3\r\nabc0\r\n\r\n");
    add("lf cr behind chunk data", b"3\r\nabc\n\r0\r\n\r\n");
    add("lf behind the last chunk", b"3\r\nabc\r\n0\n\r\n");
    add("lf for the last line", b"3\r\nabc\r\n0\r\n\n");
    add("cr for the last line", b"3\r\nabc\r\n0\r\n\rX");
    add("a trailer without a colon", b"3\r\nabc\r\n0\r\nX-T\r\n\r\n");
    add(
        "a trailer with a space before the colon",
        b"3\r\nabc\r\n0\r\nX-T : a\r\n\r\n",
    );
    add("a trailer without a name", b"3\r\nabc\r\n0\r\n: a\r\n\r\n");
    add("a folded trailer", b"3\r\nabc\r\n0\r\nX-T: a\r\n b\r\n\r\n");
    add("a trailer ended by lf", b"3\r\nabc\r\n0\r\nX-T: a\n\r\n");
    add("a nul in a trailer", b"3\r\nabc\r\n0\r\nX-T: a\0b\r\n\r\n");
    add("a cr in a trailer", b"3\r\nabc\r\n0\r\nX-T: a\rb\r\n\r\n");
    add(
        "a trailer longer than a head",
        &[&b"3\r\nabc\r\n0\r\nX-T: "[..], &[b'a'; 70_000], b"\r\n\r\n"].concat(),
    );
    add(
        "trailers without end",
        &[&b"3\r\nabc\r\n0\r\n"[..], &b"X-T: a\r\n".repeat(10_000), b"\r\n"].concat(),
    );
    bodies
}

/// Bodies that look odd and are right; each carries `abc`.
fn sound() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("one chunk", b"3\r\nabc\r\n0\r\n\r\n".to_vec()),
        (
            "three chunks",
            b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n".to_vec(),
        ),
        ("leading zeros", b"0003\r\nabc\r\n000\r\n\r\n".to_vec()),
        ("extensions", b"3;a;b=c;d=\"e\"\r\nabc\r\n0;f\r\n\r\n".to_vec()),
        (
            "an extension with an escaped quote",
            b"3;d=\"e\\\"f;g\"\r\nabc\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "trailers behind the last chunk",
            b"3\r\nabc\r\n0\r\nX-T: a\r\nX-U:\r\n\r\n".to_vec(),
        ),
    ]
}

pub fn requests() -> Vec<Case> {
    let head = b"POST /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut cases: Vec<Case> = broken()
        .into_iter()
        .map(|(name, body)| case(&name, [&head[..], &body].concat(), Want::Cut("framing")))
        .collect();
    let passed = Want::Passed("POST /x HTTP/1.1", &[("transfer-encoding", "chunked")], b"abc");
    cases.extend(
        sound()
            .into_iter()
            .map(|(name, body)| case(name, [&head[..], &body].concat(), passed.clone())),
    );
    cases
}

pub fn responses() -> Vec<Answer> {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = |name: &str, body: &[u8], got, close| Answer {
        name: name.to_owned(),
        send: [&head[..], body].concat(),
        got,
        close,
    };
    let mut cases: Vec<Answer> = broken()
        .iter()
        .map(|(name, body)| {
            answer(
                name,
                body,
                Broken,
                name.contains("without end") || name.contains("shorter"),
            )
        })
        .collect();
    for cut in 1..b"3\r\nabc\r\n0\r\n\r\n".len() {
        cases.push(answer(
            &format!("cut behind {cut} bytes"),
            &b"3\r\nabc\r\n0\r\n\r\n"[..cut],
            Broken,
            true,
        ));
    }
    cases.extend(
        sound()
            .iter()
            .map(|(name, body)| answer(name, body, Passed(200, b"abc"), false)),
    );
    cases.push(answer(
        "bytes behind the last chunk",
        b"3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
        PassedOnce(200, b"abc"),
        false,
    ));
    cases
}

//! Status lines, fields and framing of responses.

use super::Answer;
use super::Got::{self, Bad, Broken, Passed, PassedOnce};

fn answer(name: &str, send: impl AsRef<[u8]>, got: Got, close: bool) -> Answer {
    Answer {
        name: name.to_owned(),
        send: send.as_ref().to_vec(),
        got,
        close,
    }
}

pub fn heads() -> Vec<Answer> {
    let mut cases = Vec::new();
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 20x OK",
        "HTTP/1.1 0x200 OK",
        "HTTP/1.1 -200 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/1 200 OK",
        "http/1.1 200 OK",
        "HTP/1.1 200 OK",
        "ICY 200 OK",
        "200 OK",
        "HTTP/1.1 OK",
        "HTTP/1.1",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\x01K",
        "HTTP/1.1 200 O\rK",
        "GET / HTTP/1.1",
        "<html><body>hello</body></html>",
        "",
    ] {
        let send = format!("{line}\r\nContent-Length: 2\r\n\r\nok");
        cases.push(answer(&format!("a status line of {:?}", line), send, Bad, false));
    }
    for (name, lines) in [
        ("a space before the colon", &b"X-A : b"[..]),
        ("a tab before the colon", b"X-A\t: b"),
        ("no colon", b"X-A"),
        ("no name", b": b"),
        ("a space in the name", b"X A: b"),
        ("a nul in the name", b"X\0A: b"),
        ("an 8-bit name", b"X-\xe9: b"),
        ("a nul in a value", b"X-A: a\0b"),
        ("a cr in a value", b"X-A: a\rb"),
        ("a control in a value", b"X-A: a\x01b"),
        ("delete in a value", b"X-A: a\x7fb"),
        ("lf ends a line", b"X-A: a\nX-B: b"),
        ("a fold with a space", b"X-A: a\r\n b"),
        ("a fold with a tab", b"X-A: a\r\n\tb"),
        ("a fold before the first field", b" X-A: a"),
        ("cr cr lf", b"X-A: a\r\r\nX-B: b"),
    ] {
        let send = [b"HTTP/1.1 200 OK\r\n", lines, b"\r\nContent-Length: 2\r\n\r\nok"].concat();
        cases.push(answer(name, send, Bad, false));
    }
    cases.push(answer(
        "lf for everything",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        Bad,
        false,
    ));
    cases.push(answer(
        "lf behind the status line",
        "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
        Bad,
        false,
    ));
    let long = format!(
        "HTTP/1.1 200 OK\r\nX-A: {}\r\nContent-Length: 2\r\n\r\nok",
        "a".repeat(70_000)
    );
    cases.push(answer("a value longer than a head", long, Bad, false));
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok",
        "X-A: b\r\n".repeat(200)
    );
    cases.push(answer("more fields than allowed", many, Bad, false));
    cases.push(answer(
        "a head without end",
        "HTTP/1.1 200 OK\r\nX-A: ".to_owned() + &"a".repeat(70_000),
        Bad,
        true,
    ));
    cases.push(answer(
        "a 101 that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        Bad,
        false,
    ));
    cases.push(answer(
        "a 101 without fields",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        Bad,
        false,
    ));
    cases.push(answer("a 101 behind a 100", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Bad, false));
    cases.push(answer(
        "garbage behind a 100",
        "HTTP/1.1 100 Continue\r\n\r\ngarbage\r\n\r\n",
        Bad,
        false,
    ));
    for (name, send, status, body) in [
        (
            "a 100 that nobody asked for",
            &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
            200,
            &b"ok"[..],
        ),
        (
            "ten early hints",
            &[
                b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n".repeat(10),
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
            ]
            .concat(),
            200,
            b"ok",
        ),
        (
            "an unknown interim status",
            b"HTTP/1.1 177 Odd\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
        ),
        (
            "no reason phrase",
            b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
        ),
        (
            "an 8-bit reason phrase",
            b"HTTP/1.1 200 \xd6K\r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
        ),
        (
            "an unknown status",
            b"HTTP/1.1 299 Odd\r\nContent-Length: 2\r\n\r\nok",
            299,
            b"ok",
        ),
        (
            "599",
            b"HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nok",
            599,
            b"ok",
        ),
        (
            "an 8-bit value",
            b"HTTP/1.1 200 OK\r\nX-A: \x80\xff\r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
        ),
    ] {
        cases.push(answer(name, send, Passed(status, body), false));
    }
    cases
}

pub fn framing() -> Vec<Answer> {
    let mut cases = Vec::new();
    for lines in [
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 2",
        "Content-Length: 2,3",
        "Content-Length: +2",
        "Content-Length: -2",
        "Content-Length: 0x2",
        "Content-Length: 2a",
        "Content-Length: 2 2",
        "Content-Length:",
        "Content-Length: 18446744073709551618",
        "Content-Length : 2",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding : chunked",
    ] {
        let send = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        cases.push(answer(&format!("{lines:?}"), send, Bad, false));
    }
    cases.push(answer(
        "transfer-encoding on http/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Bad,
        false,
    ));
    cases.push(answer(
        "a length that never comes",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        Broken,
        true,
    ));
    cases.push(answer(
        "a length that never begins",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        Broken,
        true,
    ));
    for (name, send, status, body) in [
        (
            "a second response behind the first",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            200,
            &b"ok"[..],
        ),
        (
            "a byte behind the body",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!",
            200,
            b"ok",
        ),
        (
            "an empty line behind the body",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n",
            200,
            b"ok",
        ),
        (
            "a body behind 204",
            "HTTP/1.1 204 No Content\r\n\r\nbody",
            204,
            b"",
        ),
        (
            "a body behind 304",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody",
            304,
            b"",
        ),
        (
            "connection: close without a close",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
        ),
        (
            "http/1.0 without keep-alive",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            b"ok",
        ),
    ] {
        cases.push(answer(name, send, PassedOnce(status, body), false));
    }
    for (name, send) in [
        ("no framing", "HTTP/1.1 200 OK\r\n\r\nok"),
        ("no framing on http/1.0", "HTTP/1.0 200 OK\r\n\r\nok"),
        (
            "keep-alive without framing",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nok",
        ),
    ] {
        cases.push(answer(name, send, PassedOnce(200, b"ok"), true));
    }
    for (name, send, status, body) in [
        (
            "a good length",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            200,
            &b"ok"[..],
        ),
        (
            "a length with leading zeros",
            "HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nok",
            200,
            b"ok",
        ),
        (
            "chunked in upper case",
            "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            200,
            b"ok",
        ),
        (
            "304 with a length",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n",
            304,
            b"",
        ),
        (
            "a length of zero",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            200,
            b"",
        ),
    ] {
        cases.push(answer(name, send, Passed(status, body), false));
    }
    cases
}

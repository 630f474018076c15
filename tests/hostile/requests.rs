//! Request lines, fields and framing.

use super::Want::{Declined, Passed, Refused};
use super::{Case, Want, case};

const BAD: Want = Refused(&[400], &["bad_request"]);
const FRAMING: Want = Refused(&[400], &["framing"]);
const VERSION: Want = Refused(&[400, 505], &["version", "bad_request"]);

pub fn lines() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, line, want) in [
        ("two spaces before the target", &b"GET  / HTTP/1.1"[..], BAD),
        ("two spaces before the version", b"GET /  HTTP/1.1", BAD),
        ("a space before the method", b" GET / HTTP/1.1", BAD),
        ("a space behind the version", b"GET / HTTP/1.1 ", BAD),
        ("a tab between the parts", b"GET\t/\tHTTP/1.1", BAD),
        ("a tab behind the method", b"GET\t / HTTP/1.1", BAD),
        ("a space in the target", b"GET /a b HTTP/1.1", BAD),
        ("a fragment", b"GET /a#b HTTP/1.1", BAD),
        ("a nul in the target", b"GET /a\0b HTTP/1.1", BAD),
        ("a control in the target", b"GET /a\x01b HTTP/1.1", BAD),
        ("delete in the target", b"GET /a\x7fb HTTP/1.1", BAD),
        ("a cr in the target", b"GET /a\rb HTTP/1.1", BAD),
        ("a lf in the target", b"GET /a\nb HTTP/1.1", BAD),
        ("a vertical tab between the parts", b"GET\x0b/ HTTP/1.1", BAD),
        ("an 8-bit method", b"G\xc9T / HTTP/1.1", BAD),
        ("an at sign in the method", b"G@T / HTTP/1.1", BAD),
        ("a colon in the method", b"GET: / HTTP/1.1", BAD),
        ("brackets in the method", b"(GET) / HTTP/1.1", BAD),
        ("no method", b"/ HTTP/1.1", BAD),
        ("no target", b"GET HTTP/1.1", BAD),
        ("http/0.9", b"GET /", VERSION),
        ("a method alone", b"GET", VERSION),
        ("a target that is no form", b"GET relative HTTP/1.1", BAD),
        ("a query alone", b"GET ?q HTTP/1.1", BAD),
        ("an asterisk with get", b"GET * HTTP/1.1", BAD),
        ("authority-form with get", b"GET t:80 HTTP/1.1", BAD),
        ("absolute-form without authority", b"GET http:// HTTP/1.1", BAD),
        (
            "absolute-form with an empty authority",
            b"GET http:///x HTTP/1.1",
            BAD,
        ),
        ("absolute-form with userinfo", b"GET http://user@t/ HTTP/1.1", BAD),
        (
            "absolute-form with a wild port",
            b"GET http://t:99999/ HTTP/1.1",
            BAD,
        ),
        (
            "absolute-form with a port that is none",
            b"GET http://t:8o/ HTTP/1.1",
            BAD,
        ),
        (
            "absolute-form with half a bracket",
            b"GET http://[::1/ HTTP/1.1",
            BAD,
        ),
        ("absolute-form with a quote", b"GET http://t\"/ HTTP/1.1", BAD),
        ("absolute-form with a fragment", b"GET http://t/#f HTTP/1.1", BAD),
        (
            "absolute-form with a foreign scheme",
            b"GET ftp://t/ HTTP/1.1",
            Refused(&[400, 421], &["bad_request", "misdirected"]),
        ),
        ("absolute-form with one slash", b"GET http:/x HTTP/1.1", BAD),
        ("a lower-case protocol", b"GET / http/1.1", VERSION),
        ("http/2.0", b"GET / HTTP/2.0", VERSION),
        ("http/3.0", b"GET / HTTP/3.0", VERSION),
        ("http/0.9 written out", b"GET / HTTP/0.9", VERSION),
        ("http/1.10", b"GET / HTTP/1.10", VERSION),
        ("http/1.2", b"GET / HTTP/1.2", VERSION),
        ("http/1", b"GET / HTTP/1", VERSION),
        ("http/1 with a dot", b"GET / HTTP/1.", VERSION),
        ("http/11", b"GET / HTTP/11", VERSION),
        ("http/01.1", b"GET / HTTP/01.1", VERSION),
        ("http/1.1 with a tail", b"GET / HTTP/1.1x", VERSION),
        ("http with a space", b"GET / HTTP /1.1", BAD),
        ("htp", b"GET / HTP/1.1", VERSION),
        ("another protocol", b"GET / RTSP/1.0", VERSION),
        ("a comma for a dot", b"GET / HTTP/1,1", VERSION),
        (
            "connect",
            b"CONNECT t:443 HTTP/1.1",
            Refused(&[501], &["method_refused"]),
        ),
        ("trace", b"TRACE / HTTP/1.1", Declined(501, "method_refused")),
    ] {
        cases.push(case(name, [line, b"\r\nHost: t\r\n\r\n"].concat(), want));
    }
    for (name, send, want) in [
        (
            "the http/2 preface",
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
            VERSION,
        ),
        (
            "a tls client hello",
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\x5b\x90\x9d\x9b\r\n\r\n",
            BAD,
        ),
        (
            "an ssh banner",
            b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
            Refused(&[400, 505], &["bad_request", "version"]),
        ),
        (
            "a proxy protocol line",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            VERSION,
        ),
        (
            "a proxy protocol 2 header",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\x50\0\x50",
            BAD,
        ),
        ("nul bytes", b"\0\0\0\0\0\0\0\0\r\n\r\n", BAD),
        (
            "a smtp greeting",
            b"EHLO example\r\nMAIL FROM:<a@b>\r\n\r\n",
            VERSION,
        ),
        (
            "lf ends the request line",
            b"GET / HTTP/1.1\nHost: t\r\n\r\n",
            BAD,
        ),
        (
            "cr ends the request line",
            b"GET / HTTP/1.1\rHost: t\r\n\r\n",
            Refused(&[400, 505], &["bad_request", "version"]),
        ),
        (
            "lf before the request line",
            b"\nGET / HTTP/1.1\r\nHost: t\r\n\r\n",
            BAD,
        ),
        (
            "cr before the request line",
            b"\rGET / HTTP/1.1\r\nHost: t\r\n\r\n",
            BAD,
        ),
        ("lf and lf for everything", b"GET / HTTP/1.1\nHost: t\n\n", BAD),
        (
            "cr cr lf behind the request line",
            b"GET / HTTP/1.1\r\r\nHost: t\r\n\r\n",
            Refused(&[400, 505], &["bad_request", "version"]),
        ),
        (
            "trace with a body",
            b"TRACE / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc",
            Declined(501, "method_refused"),
        ),
        (
            "connect with a body that is a request",
            b"CONNECT t:443 HTTP/1.1\r\nHost: t:443\r\nContent-Length: 40\r\n\r\n",
            Refused(&[501], &["method_refused"]),
        ),
        (
            "a target longer than a head",
            &[&b"GET /"[..], &[b'a'; 40_000], b" HTTP/1.1\r\nHost: t\r\n\r\n"].concat(),
            Refused(&[414], &["uri_too_long"]),
        ),
        (
            "a method without end",
            &[b'A'; 40_000],
            Refused(
                &[400, 414, 431],
                &["bad_request", "uri_too_long", "head_too_large"],
            ),
        ),
        (
            "origin-form",
            b"GET /x?y HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("GET /x?y HTTP/1.1", &[("host", "t")], b""),
        ),
        (
            "asterisk-form",
            b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("OPTIONS * HTTP/1.1", &[("host", "t")], b""),
        ),
        (
            "absolute-form",
            b"GET http://a.example:81/x HTTP/1.1\r\nHost: b\r\n\r\n",
            Passed("GET /x HTTP/1.1", &[("host", "a.example:81")], b""),
        ),
        (
            "an unknown method",
            b"FROB /x HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("FROB /x HTTP/1.1", &[], b""),
        ),
        (
            "a lower-case method",
            b"get /x HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("get /x HTTP/1.1", &[], b""),
        ),
        (
            "a method of every token byte",
            b"!#$%&'*+-.^_`|~9Z /x HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("!#$%&'*+-.^_`|~9Z /x HTTP/1.1", &[], b""),
        ),
        (
            "an empty line before the request",
            b"\r\nGET /x HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("GET /x HTTP/1.1", &[], b""),
        ),
        (
            "an encoded nul",
            b"GET /%00%0d%0a HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("GET /%00%0d%0a HTTP/1.1", &[], b""),
        ),
        (
            "two slashes that look like an authority",
            b"GET //evil/x HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("GET //evil/x HTTP/1.1", &[("host", "t")], b""),
        ),
        (
            "an at sign in the path",
            b"GET /@evil HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("GET /@evil HTTP/1.1", &[("host", "t")], b""),
        ),
        (
            "a url in the path",
            b"GET /http://evil/ HTTP/1.1\r\nHost: t\r\n\r\n",
            Passed("GET /http://evil/ HTTP/1.1", &[("host", "t")], b""),
        ),
    ] {
        cases.push(case(name, send, want));
    }
    cases
}

/// A request with these lines behind its `Host`.
fn with(lines: &[u8]) -> Vec<u8> {
    [b"GET /x HTTP/1.1\r\nHost: t\r\n", lines, b"\r\n\r\n"].concat()
}

pub fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, lines) in [
        ("a space before the colon", &b"X-A : b"[..]),
        ("a tab before the colon", b"X-A\t: b"),
        ("no colon", b"X-A"),
        ("no name", b": b"),
        ("a space in the name", b"X A: b"),
        ("a control in the name", b"X\x01A: b"),
        ("a nul in the name", b"X\0A: b"),
        ("an 8-bit name", b"X-\xe9: b"),
        ("a bracket in the name", b"X(A): b"),
        ("a slash in the name", b"X/A: b"),
        ("a quote in the name", b"\"X\": b"),
        ("a nul in a value", b"X-A: a\0b"),
        ("a cr in a value", b"X-A: a\rb"),
        ("a cr at the end of a value", b"X-A: a\r\r\nX-B: b"),
        ("lf ends a line", b"X-A: a\nX-B: b"),
        ("lf and an empty line", b"X-A: a\n\n"),
        ("a control in a value", b"X-A: a\x01b"),
        ("a vertical tab in a value", b"X-A: a\x0bb"),
        ("a form feed in a value", b"X-A: a\x0cb"),
        ("an escape in a value", b"X-A: a\x1b[2Jb"),
        ("delete in a value", b"X-A: a\x7fb"),
        ("a fold with a space", b"X-A: a\r\n b"),
        ("a fold with a tab", b"X-A: a\r\n\tb"),
        ("a fold of nothing", b"X-A: a\r\n \r\nX-B: b"),
        ("a fold that hides a length", b"X-A: a\r\n Content-Length: 3"),
        ("a second host", b"Host: t"),
        ("another second host", b"hOST: evil"),
        ("a host behind a space", b" Host: evil"),
    ] {
        cases.push(case(name, with(lines), BAD));
    }
    cases.push(case(
        "a fold before the first field",
        b"GET / HTTP/1.1\r\n Host: t\r\n\r\n",
        BAD,
    ));
    cases.push(case("no host", b"GET / HTTP/1.1\r\nX-A: b\r\n\r\n", BAD));
    cases.push(case("no fields", b"GET / HTTP/1.1\r\n\r\n", BAD));
    cases.push(case(
        "absolute-form without host",
        b"GET http://t/ HTTP/1.1\r\n\r\n",
        BAD,
    ));
    cases.push(case(
        "two hosts on http/1.0",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        BAD,
    ));
    for host in [
        &b"a b"[..],
        b"t:port",
        b"t:99999",
        b"t:-1",
        b"t:+80",
        b"t:80:80",
        b"t:8 0",
        b"[::1",
        b"::1",
        b"[zz]",
        b"[]",
        b"[::1]x",
        b"[::1]:x",
        b"user@t",
        b"user:secret@t",
        b"t/path",
        b"t?q",
        b"t#f",
        b"\"t\"",
        b"t\\x",
        b"<t>",
        b"a,b",
        b"caf\xe9",
        b"t\tx",
        b"http://t",
        b"{t}",
        b"t^",
        b"%",
    ] {
        let send = [b"GET / HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat();
        cases.push(case(&format!("a host of {}", host.escape_ascii()), send, BAD));
    }
    for host in [
        "t",
        "T.Example",
        "t:80",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:8080",
        "[::ffff:1.2.3.4]",
        "a_b",
        "a-b.c.",
    ] {
        let send = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
        cases.push(case(
            &format!("a good host of {host}"),
            send,
            Passed("GET /x HTTP/1.1", &[], b""),
        ));
    }
    let many: Vec<u8> = (0..128)
        .flat_map(|n| format!("X-{n}: {n}\r\n").into_bytes())
        .collect();
    let large = Refused(&[431], &["head_too_large"]);
    cases.push(case(
        "more fields than allowed",
        with(&many[..many.len() - 2]),
        large.clone(),
    ));
    cases.push(case(
        "a value longer than a head",
        with(&[&b"X-A: "[..], &[b'a'; 40_000]].concat()),
        large.clone(),
    ));
    cases.push(case(
        "a name longer than a head",
        with(&[&[b'a'; 40_000][..], b": b"].concat()),
        large.clone(),
    ));
    cases.push(case(
        "many small fields",
        with(&b"A: b\r\n".repeat(20_000)),
        large,
    ));
    let x = "GET /x HTTP/1.1";
    for (name, lines, want) in [
        (
            "an 8-bit value",
            &b"X-A: \x80\xff"[..],
            Passed(x, &[("x-a", "\u{80}\u{ff}")], b""),
        ),
        ("an empty value", b"X-A:", Passed(x, &[("x-a", "")], b"")),
        ("a value of blanks", b"X-A: \t ", Passed(x, &[("x-a", "")], b"")),
        (
            "a tab in a value",
            b"X-A: a\tb",
            Passed(x, &[("x-a", "a\tb")], b""),
        ),
        (
            "no blank behind the colon",
            b"X-A:b",
            Passed(x, &[("x-a", "b")], b""),
        ),
        (
            "colons in a value",
            b"X-A: b: c",
            Passed(x, &[("x-a", "b: c")], b""),
        ),
        (
            "a name of every token byte",
            b"!#$%&'*+-.^_`|~9Z: b",
            Passed(x, &[("!#$%&'*+-.^_`|~9Z", "b")], b""),
        ),
        (
            "a length under another name",
            b"Content_Length: 5\r\nX-Content-Length: 5",
            Passed(x, &[("content_length", "5")], b""),
        ),
        (
            "a coding under another name",
            b"Transfer_Encoding: chunked",
            Passed(x, &[("transfer_encoding", "chunked")], b""),
        ),
    ] {
        cases.push(case(name, with(lines), want));
    }
    cases.push(case(
        "http/1.0 without host",
        b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        Passed(x, &[], b""),
    ));
    cases
}

pub fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    let post =
        |lines: &[u8], body: &[u8]| [b"POST /x HTTP/1.1\r\nHost: t\r\n", lines, b"\r\n\r\n", body].concat();
    for (name, lines) in [
        (
            "two equal lengths",
            &b"Content-Length: 3\r\nContent-Length: 3"[..],
        ),
        ("two different lengths", b"Content-Length: 3\r\nContent-Length: 4"),
        (
            "two lengths apart",
            b"Content-Length: 3\r\nX-A: b\r\ncontent-length: 3",
        ),
        ("a list of equal lengths", b"Content-Length: 3, 3"),
        ("a list of different lengths", b"Content-Length: 3,4"),
        ("a list with an empty element", b"Content-Length: 3,"),
        ("a length of +3", b"Content-Length: +3"),
        ("a length of -0", b"Content-Length: -0"),
        ("a length of -3", b"Content-Length: -3"),
        ("a length of 0x3", b"Content-Length: 0x3"),
        ("a length of 3a", b"Content-Length: 3a"),
        ("a length of nothing", b"Content-Length:"),
        ("a length of blanks", b"Content-Length:  "),
        ("a length of 3 3", b"Content-Length: 3 3"),
        ("a length of 3.0", b"Content-Length: 3.0"),
        ("a length of 3e0", b"Content-Length: 3e0"),
        ("a length of 3;x", b"Content-Length: 3;x"),
        ("a length in quotes", b"Content-Length: \"3\""),
        ("a length in 8-bit digits", b"Content-Length: \xd9\xa3"),
        ("a length with an underscore", b"Content-Length: 1_0"),
        ("a length past 64 bits", b"Content-Length: 18446744073709551619"),
        (
            "a length of thirty digits",
            b"Content-Length: 100000000000000000000000000000",
        ),
        (
            "content-length and transfer-encoding",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        ),
        (
            "transfer-encoding and content-length",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        ),
        (
            "a zero length and transfer-encoding",
            b"Content-Length: 0\r\nTransfer-Encoding: chunked",
        ),
        (
            "a length and identity",
            b"Content-Length: 3\r\nTransfer-Encoding: identity",
        ),
        ("gzip", b"Transfer-Encoding: gzip"),
        ("gzip, chunked", b"Transfer-Encoding: gzip, chunked"),
        ("chunked, gzip", b"Transfer-Encoding: chunked, gzip"),
        ("chunked, chunked", b"Transfer-Encoding: chunked, chunked"),
        (
            "chunked twice",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        (
            "chunked and identity in two lines",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        ),
        (
            "identity and chunked in two lines",
            b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        ),
        ("identity", b"Transfer-Encoding: identity"),
        ("chunked with a parameter", b"Transfer-Encoding: chunked;q=1"),
        ("an empty coding", b"Transfer-Encoding:"),
        ("an unknown coding", b"Transfer-Encoding: xchunked"),
        ("chunked in quotes", b"Transfer-Encoding: \"chunked\""),
        ("chunked in two words", b"Transfer-Encoding: chun ked"),
        ("chunked with a tail", b"Transfer-Encoding: chunkedx"),
        ("chunked before a comma", b"Transfer-Encoding: chunked,"),
        ("chunked behind a comma", b"Transfer-Encoding: ,chunked"),
        (
            "chunked with a name",
            b"Transfer-Encoding: Transfer-Encoding: chunked",
        ),
        ("chunked with an 8-bit tail", b"Transfer-Encoding: chunked\xa0"),
    ] {
        cases.push(case(name, post(lines, b"3\r\nabc\r\n0\r\n\r\n"), FRAMING));
    }
    for (name, lines) in [
        ("a vertical tab before a length", &b"Content-Length: \x0b3"[..]),
        ("a vertical tab before chunked", b"Transfer-Encoding: \x0bchunked"),
        ("a nul behind chunked", b"Transfer-Encoding: chunked\0"),
        (
            "a space before the colon of a coding",
            b"Transfer-Encoding : chunked",
        ),
        ("a space before the colon of a length", b"Content-Length : 3"),
        ("a folded coding", b"Transfer-Encoding:\r\n chunked"),
        ("a folded length", b"Content-Length:\r\n 3"),
        (
            "a coding behind a fold",
            b"X-A: b\r\n\tTransfer-Encoding: chunked",
        ),
        ("a coding behind a cr", b"X-A: b\rTransfer-Encoding: chunked"),
        ("a coding behind a lf", b"X-A: b\nTransfer-Encoding: chunked"),
    ] {
        cases.push(case(name, post(lines, b"3\r\nabc\r\n0\r\n\r\n"), BAD));
    }
    let old = b"POST /x HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    cases.push(case("transfer-encoding on http/1.0", old, FRAMING));
    let x = "POST /x HTTP/1.1";
    for (name, lines, body, seen) in [
        (
            "a good length",
            &b"Content-Length: 3"[..],
            &b"abc"[..],
            &b"abc"[..],
        ),
        (
            "a length with leading zeros",
            b"Content-Length: 0003",
            b"abc",
            b"abc",
        ),
        ("a length in blanks", b"Content-Length: \t 3 \t", b"abc", b"abc"),
        ("a length of zero", b"Content-Length: 0", b"", b""),
        (
            "chunked",
            b"Transfer-Encoding: chunked",
            b"3\r\nabc\r\n0\r\n\r\n",
            b"abc",
        ),
        (
            "chunked in upper case",
            b"TRANSFER-ENCODING: CHUNKED",
            b"3\r\nabc\r\n0\r\n\r\n",
            b"abc",
        ),
        (
            "chunked in blanks",
            b"Transfer-Encoding:\t chunked \t",
            b"3\r\nabc\r\n0\r\n\r\n",
            b"abc",
        ),
        (
            "a nominated length",
            b"Connection: content-length\r\nContent-Length: 3",
            b"abc",
            b"abc",
        ),
        (
            "a nominated coding",
            b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
            b"3\r\nabc\r\n0\r\n\r\n",
            b"abc",
        ),
        ("neither", b"X-A: b", b"", b""),
        (
            "a body that is a request",
            b"Content-Length: 29",
            b"GET /no HTTP/1.1\r\nHost: t\r\n\r\n",
            b"GET /no HTTP/1.1\r\nHost: t\r\n\r\n",
        ),
    ] {
        cases.push(case(name, post(lines, body), Passed(x, &[], seen)));
    }
    cases
}

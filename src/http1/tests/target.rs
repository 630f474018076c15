//! Request targets and `Host`.

use super::{refused, request};
use crate::reason::Reason;

/// A GET of HTTP/1.1 whose only field is this `Host`.
fn host(value: &[u8]) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: ", value, b"\r\n\r\n"].concat()
}

fn target(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()
}

#[test]
fn targets_pass_as_they_came_or_are_refused() {
    for good in [
        "/",
        "//",
        "/a//b/../c",
        "/?",
        "/a?b;c=d&e=%zz",
        "/|\"<>\\^`{}",
        "/@:",
        "/\u{e4}\u{20ac}",
        "/*",
    ] {
        let bytes = target(good.as_bytes());
        assert_eq!(request(&bytes).path(&bytes), good.as_bytes());
    }
    for bad in [
        &b"*"[..],
        b"/#",
        b"/a#b",
        b"#",
        b"a",
        b"a/b",
        b"?a",
        b"a:80",
        b"example.com:443",
        b"ftp://a/",
        b"http:/a",
        b"http://",
        b"http:///a",
        b"https://?a",
        b"http://u@a/",
        b"http://u:p@a/",
        b"http://a:x/",
        b"http://a:99999/",
        b"http://[::1/",
        b"http://a b/",
        b"http://a\"b/",
        b"http://a/#b",
        b"ws://a/",
        b"//a\xff",
        b"/\xe4",
        b"http",
    ] {
        refused(&target(bad), Reason::BadRequest);
    }
    refused(b"OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadRequest);
    refused(b"OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n", Reason::BadRequest);
}

#[test]
fn absolute_form_gives_path_and_authority() {
    for (method, target, path, authority) in [
        ("GET", "http://b.example/c?d", "/c?d", "b.example"),
        ("GET", "HTTP://b:81", "/", "b:81"),
        ("GET", "https://[::1]:81/", "/", "[::1]:81"),
        ("GET", "http://b?d=/e", "?d=/e", "b"),
        ("OPTIONS", "http://b", "*", "b"),
        ("OPTIONS", "http://b/", "/", "b"),
        ("OPTIONS", "*", "*", "a"),
    ] {
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
        let head = request(&bytes);
        assert_eq!(head.path(&bytes), path.as_bytes(), "{target}");
        assert_eq!(head.authority(&bytes), Some(authority.as_bytes()), "{target}");
    }
    refused(b"GET http://b/ HTTP/1.1\r\n\r\n", Reason::BadRequest);
    refused(b"GET http://b/ HTTP/1.1\r\nHost: \"\r\n\r\n", Reason::BadRequest);
}

#[test]
fn host_is_there_once_and_is_an_authority() {
    for good in [
        &b"a"[..],
        b"example.com",
        b"example.com.",
        b"a_b-c~d",
        b"a:80",
        b"a:",
        b"a:65535",
        b"127.0.0.1:8080",
        b"[::1]",
        b"[::1]:80",
        b"[::ffff:1.2.3.4]",
        b"%2Frun%2Fsocket",
        b"xn--bcher-kva.example",
        b"",
    ] {
        let bytes = host(good);
        assert_eq!(request(&bytes).authority(&bytes), Some(good));
    }
    for bad in [
        &b"a:b"[..],
        b"a:-1",
        b"a:+80",
        b"a:65536",
        b"a:99999999999",
        b"a:0",
        b"a:80:80",
        b"a: 80",
        b"a :80",
        b":80",
        b":",
        b"u@a",
        b"u:p@a",
        b"a@",
        b"\"a\"",
        b"'a'",
        b"a\"",
        b"a b",
        b"a,b",
        b"a, b",
        b"a/b",
        b"a/",
        b"a?b",
        b"a#b",
        b"a\\b",
        b"[::1",
        b"::1",
        b"[]",
        b"[a]",
        b"[::1]a",
        b"[::1]:x",
        b"[::1]:65536",
        b"[v1.a]",
        b"[fe80::1%25eth0]",
        b"a]",
        b"[[::1]]",
        b"a\xc3\xa4",
        b"\xff",
        b"%",
        b"%2",
        b"%gg",
        b"a\tb",
        b"<a>",
        b"{a}",
        b"a|b",
        b"http://a",
        b"[::1]80",
    ] {
        refused(&host(bad), Reason::BadRequest);
    }
    refused(b"GET / HTTP/1.1\r\n\r\n", Reason::BadRequest);
    refused(
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        Reason::BadRequest,
    );
    refused(
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        Reason::BadRequest,
    );
    refused(b"GET / HTTP/1.1\r\nHost:\r\nhost: b\r\n\r\n", Reason::BadRequest);
    refused(
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        Reason::BadRequest,
    );
    assert_eq!(
        request(b"GET / HTTP/1.0\r\n\r\n").authority(b"GET / HTTP/1.0\r\n\r\n"),
        None
    );
}

//! Heads as they go out, byte for byte.

use std::net::IpAddr;

use super::{GET, request, response};
use crate::config::model::ForwardedMode;
use crate::http1::{
    HostRewrite, Method, RequestFacts, RequestRewrite, ResponseRewrite, request_bound, response_bound,
    write_request, write_response,
};

const PLAIN: RequestRewrite<'static> = RequestRewrite {
    host: HostRewrite::Preserve {
        fallback: b"backend:81",
    },
    forwarded: ForwardedMode::Off,
    client: None,
    trusted: false,
    scheme: "http",
    via: false,
    request_id: None,
    trace_parent: None,
};

#[track_caller]
fn sent(rewrite: &RequestRewrite<'_>, bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let head = request(bytes);
    let mut out = Vec::new();
    write_request(&head, bytes, rewrite, &mut out);
    assert!(out.len() <= request_bound(&head, rewrite), "the bound holds");
    String::from_utf8_lossy(&out).into_owned()
}

#[track_caller]
fn answered(rewrite: ResponseRewrite<'_>, bytes: impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let upgrade = rewrite.upgrade;
    let head = response(bytes, RequestFacts { upgrade, ..GET });
    let mut out = Vec::new();
    write_response(&head, bytes, &rewrite, &mut out);
    assert!(out.len() <= response_bound(&head, &rewrite), "the bound holds");
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn what_is_end_to_end_passes_byte_for_byte() {
    let bytes = "POST /a%20b;c?d HTTP/1.1\r\nUser-Agent: x\r\nhOST: a\r\nX: \u{e4}\r\nX: 2\r\nContent-Length: 0\r\n\
                 Proxy-Authorization: p\r\nExpect: 100-continue\r\nVia: 1.0 other\r\nTrailer: X\r\nZ: last\r\n\r\n";
    assert_eq!(sent(&PLAIN, bytes), bytes);
    let uneven =
        "GET / HTTP/1.1\r\nA:b\r\nHost:\ta\r\nC: d  \r\nE:\r\nF: \r\nG: h\r\nContent-Length:5\r\n\r\n";
    assert_eq!(
        sent(&PLAIN, uneven),
        "GET / HTTP/1.1\r\nA: b\r\nHost: a\r\nC: d\r\nE: \r\nF: \r\nG: h\r\nContent-Length: 5\r\n\r\n"
    );
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xfe\r\n\r\n";
    let mut out = Vec::new();
    write_request(&request(head), head, &PLAIN, &mut out);
    assert_eq!(out, head);
}

#[test]
fn what_ends_here_is_removed() {
    assert_eq!(
        sent(
            &PLAIN,
            "GET / HTTP/1.1\r\nConnection: X-A, keep-alive, x-b\r\nx-a: 1\r\nHost: a\r\nX-B: 2\r\nX-B: 3\r\nX-C: 4\r\n\
             Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: websocket\r\nHTTP2-Settings: AA\r\n\
             Trailer: X\r\nConnection: trailer\r\n\r\n"
        ),
        "GET / HTTP/1.1\r\nHost: a\r\nX-C: 4\r\n\r\n"
    );
}

#[test]
fn nothing_that_routes_frames_or_traces_is_nominated_away() {
    assert_eq!(
        sent(
            &PLAIN,
            "POST / HTTP/1.1\r\nConnection: Host, Content-Length, Transfer-Encoding, Via, close\r\nHost: a\r\n\
             Content-Length: 5\r\nVia: 1.1 x\r\n\r\n"
        ),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nVia: 1.1 x\r\n\r\n"
    );
    assert_eq!(
        sent(
            &PLAIN,
            "POST / HTTP/1.1\r\nConnection: transfer-encoding\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
}

#[test]
fn targets_go_out_in_origin_form_and_absolute_form_sets_host() {
    for (line, expected) in [
        (
            "GET http://b:81/c?d HTTP/1.1",
            "GET /c?d HTTP/1.1\r\nHost: b:81\r\nX: y\r\n\r\n",
        ),
        (
            "GET http://b HTTP/1.1",
            "GET / HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n",
        ),
        (
            "GET http://b?d HTTP/1.1",
            "GET /?d HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n",
        ),
        (
            "OPTIONS http://b HTTP/1.1",
            "OPTIONS * HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n",
        ),
        (
            "OPTIONS http://b?d HTTP/1.1",
            "OPTIONS /?d HTTP/1.1\r\nHost: b\r\nX: y\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1",
            "OPTIONS * HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n",
        ),
        ("GET /e HTTP/1.0", "GET /e HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n"),
    ] {
        assert_eq!(
            sent(&PLAIN, format!("{line}\r\nX: y\r\nHost: a\r\n\r\n")),
            expected,
            "{line}"
        );
    }
}

#[test]
fn host_is_preserved_set_or_filled_in() {
    let set = RequestRewrite {
        host: HostRewrite::Set(b"name"),
        ..PLAIN
    };
    assert_eq!(
        sent(&set, "GET / HTTP/1.1\r\nX: y\r\nHost: a\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: name\r\nX: y\r\n\r\n"
    );
    assert_eq!(
        sent(&set, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: name\r\n\r\n"
    );
    assert_eq!(
        sent(&PLAIN, "GET / HTTP/1.0\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: backend:81\r\n\r\n"
    );
    assert_eq!(
        sent(&PLAIN, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: \r\n\r\n"
    );
}

#[test]
fn expect_and_upgrade_mean_nothing_in_http_1_0() {
    assert_eq!(
        sent(
            &PLAIN,
            "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n\
             Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        ),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"
    );
}

#[test]
fn upgrade_and_te_go_on_with_their_connection_options() {
    let with = |fields: &str| sent(&PLAIN, format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    let out = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    assert_eq!(
        with("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
        out("Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: upgrade\r\n")
    );
    assert_eq!(
        with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c,websocket,x/2\r\nHTTP2-Settings: AA\r\n"),
        out("Upgrade: websocket, x/2\r\nConnection: upgrade\r\n")
    );
    assert_eq!(
        with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"),
        out("")
    );
    assert_eq!(
        with("TE: gzip;q=0.5, Trailers\r\nConnection: TE\r\n"),
        out("TE: trailers\r\nConnection: TE\r\n")
    );
    assert_eq!(
        with("TE: trailers\r\nConnection: upgrade, te\r\nUpgrade: a\r\n"),
        out("Upgrade: a\r\nTE: trailers\r\nConnection: upgrade, TE\r\n")
    );
}

#[test]
fn a_strangers_forwarding_fields_never_pass() {
    let bytes = "GET / HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6\r\nHost: a:80\r\nforwarded: for=6.6.6.6\r\nX-FORWARDED-PORT: 6\r\n\
                 X_Forwarded_Proto: https\r\nX-Forwarded-: 6\r\nConnection: X-Forwarded-For, Forwarded\r\n\r\n";
    let client: Option<IpAddr> = Some("192.0.2.10".parse().expect("an address"));
    let of = |forwarded| {
        sent(
            &RequestRewrite {
                forwarded,
                client,
                ..PLAIN
            },
            bytes,
        )
    };
    let start = "GET / HTTP/1.1\r\nHost: a:80\r\n";
    let x = "X-Forwarded-For: 192.0.2.10\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a:80\r\n";
    let rfc = "Forwarded: for=192.0.2.10;host=\"a:80\";proto=http\r\n";
    assert_eq!(of(ForwardedMode::Off), format!("{start}\r\n"));
    assert_eq!(of(ForwardedMode::XForwarded), format!("{start}{x}\r\n"));
    assert_eq!(of(ForwardedMode::Rfc7239), format!("{start}{rfc}\r\n"));
    assert_eq!(of(ForwardedMode::Both), format!("{start}{x}{rfc}\r\n"));
}

#[test]
fn what_a_trusted_peer_says_is_added_to() {
    let of = |forwarded, fields: &str| {
        let rewrite = RequestRewrite {
            forwarded,
            client: Some("10.0.0.1".parse().expect("an address")),
            trusted: true,
            ..PLAIN
        };
        let start = "GET / HTTP/1.1\r\nHost: a:80\r\n";
        let out = sent(&rewrite, format!("{start}{fields}\r\n"));
        out.strip_prefix(start).expect("they stay").to_owned()
    };
    let x = ForwardedMode::XForwarded;
    assert_eq!(
        of(
            x,
            "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: https\r\nA: b\r\nx-forwarded-for:\t10.0.0.2\r\n\
             X-Forwarded-For:\r\nX-Forwarded-Port: 443\r\nX_Forwarded_For: 7.7.7.7\r\nForwarded: for=192.0.2.1\r\n"
        ),
        "X-Forwarded-Proto: https\r\nA: b\r\nX-Forwarded-Port: 443\r\n\
         X-Forwarded-For: 6.6.6.6, 192.0.2.1, 10.0.0.2, 10.0.0.1\r\nX-Forwarded-Host: a:80\r\n\r\n"
    );
    assert_eq!(
        of(x, "x-forwarded-host: b\r\n"),
        "x-forwarded-host: b\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n\r\n"
    );
    let own = "for=10.0.0.1;host=\"a:80\";proto=http\r\n\r\n";
    let rfc = ForwardedMode::Rfc7239;
    assert_eq!(
        of(
            rfc,
            "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=\"[2001:db8::1]\";by=_x\r\nforwarded: for=10.0.0.2,for=_y\r\n"
        ),
        format!("Forwarded: for=\"[2001:db8::1]\";by=_x, for=10.0.0.2,for=_y, {own}")
    );
    // A quote left open would take what follows into its string.
    for (line, passes) in [
        (r#"for="6.6.6.6"#, false),
        (r#"for="6\"#, false),
        (r#"for="6\"""#, true),
        (r#"for=a\"b"#, false),
        (r#"a="\\""#, true),
    ] {
        let came = if passes {
            format!("{line}, ")
        } else {
            String::new()
        };
        assert_eq!(
            of(rfc, &format!("Forwarded: {line}\r\n")),
            format!("Forwarded: {came}{own}"),
            "{line}"
        );
    }
    assert_eq!(of(rfc, ""), format!("Forwarded: {own}"));
    let everything = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\n";
    assert_eq!(
        of(ForwardedMode::Both, everything),
        format!(
            "X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.1, 10.0.0.1\r\nX-Forwarded-Host: a:80\r\n\
             Forwarded: for=192.0.2.1, {own}"
        )
    );
    assert_eq!(of(ForwardedMode::Off, everything), "\r\n");
}

#[test]
fn every_kind_of_client_has_a_name() {
    for (client, x, rfc) in [
        (None, "unknown", "unknown"),
        (Some("0.0.0.0"), "0.0.0.0", "0.0.0.0"),
        (Some("9.10.99.100"), "9.10.99.100", "9.10.99.100"),
        (Some("255.200.199.1"), "255.200.199.1", "255.200.199.1"),
        (Some("2001:db8::1"), "2001:db8::1", "\"[2001:db8::1]\""),
        (Some("::ffff:192.0.2.1"), "192.0.2.1", "192.0.2.1"),
    ] {
        let client = client.map(|text| text.parse().expect("an address"));
        let rewrite = RequestRewrite {
            forwarded: ForwardedMode::Both,
            client,
            ..PLAIN
        };
        assert_eq!(
            sent(&rewrite, "GET / HTTP/1.0\r\n\r\n"),
            format!(
                "GET / HTTP/1.1\r\nHost: backend:81\r\nX-Forwarded-For: {x}\r\nX-Forwarded-Proto: http\r\n\
                 Forwarded: for={rfc};proto=http\r\n\r\n"
            )
        );
    }
    // The host told is the one the client asked for, not the one the backend gets.
    let rewrite = RequestRewrite {
        host: HostRewrite::Set(b"name"),
        forwarded: ForwardedMode::XForwarded,
        ..PLAIN
    };
    assert!(
        sent(&rewrite, "GET http://[::1]:8/ HTTP/1.1\r\nHost: a\r\n\r\n")
            .contains("X-Forwarded-Host: [::1]:8\r\n")
    );
}

#[test]
fn via_names_the_version_that_came_in() {
    let rewrite = RequestRewrite { via: true, ..PLAIN };
    assert!(
        sent(&rewrite, "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 b\r\n\r\n")
            .ends_with("Via: 1.1 b\r\nVia: 1.1 weir\r\n\r\n")
    );
    assert!(sent(&rewrite, "GET / HTTP/1.0\r\n\r\n").ends_with("\r\nVia: 1.0 weir\r\n\r\n"));
    let rewrite = ResponseRewrite {
        via: true,
        ..ResponseRewrite::default()
    };
    assert_eq!(
        answered(rewrite, "HTTP/1.0 200 OK\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nVia: 1.0 weir\r\n\r\n"
    );
}

#[test]
fn responses_lose_what_ends_here() {
    let plain = ResponseRewrite::default();
    assert_eq!(
        answered(
            plain,
            "HTTP/1.0 200 All  good\r\nServer: x\r\nConnection: keep-alive, X-Hop, content-length, Date\r\nx-hop: 1\r\n\
             Keep-Alive: timeout=5\r\nDate: today\r\nContent-Length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nUpgrade: x\r\n\
             Proxy-Connection: close\r\nProxy-Authenticate: Basic\r\n\r\n"
        ),
        "HTTP/1.1 200 All  good\r\nServer: x\r\nContent-Length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
         Proxy-Authenticate: Basic\r\n\r\n"
    );
    assert_eq!(
        answered(plain, "HTTP/1.1 200\r\nA:b\r\nDate: x\r\n\r\n"),
        "HTTP/1.1 200 \r\nA: b\r\nDate: x\r\n\r\n"
    );
    assert_eq!(
        answered(plain, "HTTP/1.1 204 x\r\nContent-Length: 0\r\nA: b\r\n\r\n"),
        "HTTP/1.1 204 x\r\nA: b\r\n\r\n"
    );
    assert_eq!(
        answered(plain, "HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n"),
        "HTTP/1.1 304 x\r\nContent-Length: 7\r\n\r\n"
    );
}

#[test]
fn the_clients_connection_is_spoken_of_in_its_terms() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\nConnection: close\r\n\r\n";
    let with = |rewrite| answered(rewrite, chunked);
    let none = ResponseRewrite::default();
    assert_eq!(
        with(none),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n"
    );
    assert_eq!(
        with(ResponseRewrite {
            dechunk: true,
            close: true,
            keep_alive_http10: true,
            ..none
        }),
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        answered(
            ResponseRewrite {
                keep_alive_http10: true,
                ..none
            },
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
        ),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n"
    );
}

#[test]
fn lines_of_weirs_own_are_added() {
    let rewrite = ResponseRewrite {
        extra: b"Set-Cookie: a=b\r\nX: y\r\n",
        ..ResponseRewrite::default()
    };
    assert_eq!(
        answered(rewrite, "HTTP/1.1 200 OK\r\nSet-Cookie: c=d\r\n\r\n"),
        "HTTP/1.1 200 OK\r\nSet-Cookie: c=d\r\nSet-Cookie: a=b\r\nX: y\r\n\r\n"
    );
    let long = "X: y\r\n".repeat(1000);
    let rewrite = ResponseRewrite {
        extra: long.as_bytes(),
        ..ResponseRewrite::default()
    };
    answered(rewrite, "HTTP/1.1 200 OK\r\n\r\n");
}

#[test]
fn upgrade_stays_on_a_101_and_a_426_only() {
    let upgrade = ResponseRewrite {
        upgrade: true,
        ..ResponseRewrite::default()
    };
    assert_eq!(
        answered(
            upgrade,
            "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n"
        ),
        "HTTP/1.1 101 x\r\nSec-WebSocket-Accept: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
    );
    let close = ResponseRewrite {
        close: true,
        ..ResponseRewrite::default()
    };
    let with = |status: &str| {
        let bytes = format!(
            "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n"
        );
        answered(close, bytes)
    };
    assert_eq!(
        with("426"),
        "HTTP/1.1 426 x\r\nContent-Length: 0\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n"
    );
    assert_eq!(
        with("200"),
        "HTTP/1.1 200 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn head_responses_keep_the_fields_they_came_with() {
    let bytes = b"HTTP/1.1 200 x\r\nContent-Length: 1234\r\n\r\n";
    let facts = RequestFacts {
        method: Method::Head,
        upgrade: false,
    };
    let mut out = Vec::new();
    write_response(
        &response(bytes, facts),
        bytes,
        &ResponseRewrite::default(),
        &mut out,
    );
    assert_eq!(out, bytes);
}

#[test]
fn request_id_and_trace_parent_are_replaced_or_go_on() {
    let bytes =
        "GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: theirs\r\ntraceparent: 00-x\r\ntracestate: b=1\r\n\r\n";
    assert_eq!(sent(&PLAIN, bytes), bytes);
    let rewrite = RequestRewrite {
        request_id: Some(b"ours"),
        trace_parent: Some(b"00-y"),
        ..PLAIN
    };
    assert_eq!(
        sent(&rewrite, bytes),
        "GET / HTTP/1.1\r\nHost: a\r\ntracestate: b=1\r\nX-Request-Id: ours\r\ntraceparent: 00-y\r\n\r\n"
    );
}

#[test]
fn bounds_hold_where_everything_grows() {
    let long = "h".repeat(3000);
    let list = "a,".repeat(1500);
    let rewrite = RequestRewrite {
        host: HostRewrite::Set(long.as_bytes()),
        forwarded: ForwardedMode::Both,
        client: Some(
            "2001:db8:1111:2222:3333:4444:5555:6666"
                .parse()
                .expect("an address"),
        ),
        trusted: false,
        scheme: "https",
        via: true,
        request_id: Some(b"0192d4c6-4f3a-7000-8000-000000000000"),
        trace_parent: Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    };
    let fields = "x:y\r\n".repeat(100);
    let bytes = format!(
        "GET http://{long}?q HTTP/1.1\r\nHost:a\r\nConnection:upgrade,te\r\nTE:trailers\r\nUpgrade:{list}\r\n{fields}\r\n"
    );
    sent(&rewrite, &bytes);
    sent(
        &RequestRewrite {
            host: PLAIN.host,
            ..rewrite
        },
        bytes,
    );
    let joined = "x-forwarded-for:a\r\nforwarded:a\r\n".repeat(60);
    sent(
        &RequestRewrite {
            trusted: true,
            ..rewrite
        },
        format!("GET / HTTP/1.1\r\nHost:a\r\n{joined}\r\n"),
    );
}

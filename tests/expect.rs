//! `Expect: 100-continue` and interim responses.

#[macro_use]
mod support;

use std::time::Duration;

use support::{Backend, Driver, Weir, ok};

on_both_drivers!(
    the_body_waits_for_the_backends_100,
    a_final_answer_instead_of_100_is_passed_on,
    a_client_that_does_not_wait_is_served,
    interim_responses_are_passed_on_with_their_fields,
    an_http_1_0_client_gets_no_interim_response,
    an_http_1_0_expectation_is_ignored,
    an_interim_response_is_passed_on_at_once,
);

const EXPECT: &str = "POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";

fn the_body_waits_for_the_backends_100(driver: Driver) {
    let backend = Backend::new(|conn| {
        let head = conn.read_head()?;
        assert!(head.lists("expect", "100-continue"), "{head:?}");
        conn.expect_silence(Duration::from_millis(50));
        conn.try_send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let body = conn.read_exact(5)?;
        conn.try_send(ok(&body))?;
        conn.serve(|request| ok(request.target().as_bytes()))
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(EXPECT);
    assert_eq!(client.read_head().unwrap().status(), 100);
    client.send("hello");
    assert_eq!(client.response("POST").body, b"hello");
    assert_eq!(client.get("/next").body, b"/next");
    assert_eq!(backend.connections(), 1);
}

fn a_final_answer_instead_of_100_is_passed_on(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.try_send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")?;
        conn.hang()
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(EXPECT);
    let response = client.response("POST");
    assert_eq!((response.status(), response.body.as_slice()), (403, &b"no"[..]));
    assert!(response.interim.is_empty());
    drop(client);
    backend.wait_end(0);
    let raw = backend.record(0).raw;
    assert!(raw.ends_with(b"\r\n\r\n"), "the backend got a head and no body");
}

fn a_client_that_does_not_wait_is_served(driver: Driver) {
    let backend = Backend::new(|conn| {
        loop {
            conn.read_head()?;
            conn.try_send("HTTP/1.1 100 Continue\r\n\r\n")?;
            let body = conn.read_exact(5)?;
            conn.try_send(ok(&body))?;
        }
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..3 {
        client.send(format!("{EXPECT}hello"));
        let response = client.response("POST");
        assert_eq!(
            (response.status(), response.body.as_slice()),
            (200, &b"hello"[..])
        );
    }
}

fn interim_responses_are_passed_on_with_their_fields(driver: Driver) {
    let backend = Backend::sending(
        [
            b"HTTP/1.1 102 Processing\r\n\r\n\
              HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
              HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n\
              HTTP/1.1 199 Odd One\r\nX-Odd: 1\r\n\r\n"
                .to_vec(),
            ok(b"done"),
        ]
        .concat(),
    );
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.body, b"done");
        let codes: Vec<u16> = response.interim.iter().map(|head| head.status()).collect();
        assert_eq!(codes, [102, 103, 103, 199]);
        assert_eq!(response.interim[1].get("link"), Some("</a.css>; rel=preload"));
        assert!(
            !response.interim[1].has("x-hop"),
            "hop-by-hop fields go, in interim responses as in others"
        );
        assert_eq!(response.interim[2].get("link"), Some("</b.css>; rel=preload"));
        assert_eq!(response.interim[3].get("x-odd"), Some("1"));
    }
    assert_eq!(backend.connections(), 1);
}

fn an_http_1_0_client_gets_no_interim_response(driver: Driver) {
    let backend = Backend::sending(
        [
            b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n".to_vec(),
            ok(b"done"),
        ]
        .concat(),
    );
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET / HTTP/1.0\r\nHost: t\r\n\r\n");
    let response = client.response("GET");
    assert!(response.interim.is_empty(), "{:?}", response.interim);
    assert_eq!(response.body, b"done");
    client.expect_eof();
}

fn an_http_1_0_expectation_is_ignored(driver: Driver) {
    let backend = Backend::new(|conn| {
        loop {
            let head = conn.read_head()?;
            if head.has("expect") {
                conn.try_send("HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let body = conn.read_exact(5)?;
            conn.try_send(ok(&body))?;
        }
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("POST / HTTP/1.0\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    let response = client.response("POST");
    assert!(response.interim.is_empty());
    assert_eq!(response.body, b"hello");
    assert!(
        !backend.wait_heads(1)[0].has("expect"),
        "RFC 9110 10.1.1: it is not passed on as an HTTP/1.1 one"
    );
}

fn an_interim_response_is_passed_on_at_once(driver: Driver) {
    let gate = support::Gate::default();
    let waits = gate.clone();
    let backend = Backend::new(move |conn| {
        conn.read_request()?;
        conn.try_send("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n")?;
        waits.pass();
        conn.try_send(ok(b"done"))
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.read_head().unwrap().status(), 103);
    gate.open();
    assert_eq!(client.response("GET").body, b"done");
}

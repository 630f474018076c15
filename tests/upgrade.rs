//! Protocol upgrades: tunnels, and the upgrades that must not become one.

#[macro_use]
mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::backend::Flow;
use support::wire::End;
use support::{Backend, Conn, Driver, Weir, assert_same_bytes, noise, ok};

on_both_drivers!(
    bytes_right_behind_the_handshake_arrive,
    a_tunnel_carries_megabytes_both_ways_at_once,
    the_client_may_half_close,
    the_backend_may_half_close,
    a_reset_ends_the_other_side,
    a_refused_upgrade_is_an_ordinary_response,
    a_101_that_nobody_asked_for_is_a_bad_response,
    h2c_is_never_passed_on,
    an_upgrade_without_connection_upgrade_is_none,
    an_http_1_0_upgrade_is_none,
    a_silent_tunnel_is_ended,
    a_tunnel_that_talks_is_not_ended,
);

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A backend that switches and then runs `after`.
fn switching(after: impl Fn(&mut Conn) -> Flow + Send + Sync + 'static) -> Backend {
    Backend::new(move |conn| {
        conn.read_head()?;
        conn.try_send(SWITCH)?;
        after(conn)
    })
}

fn bytes_right_behind_the_handshake_arrive(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.try_send(format!("{SWITCH}from the backend"))?;
        let got = conn.read_exact("from the client".len())?;
        assert_eq!(got, b"from the client");
        conn.try_send("; seen")
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(format!("{UPGRADE}from the client"));
    let response = client.response("GET");
    assert_eq!(response.status(), 101);
    assert!(response.lists("connection", "upgrade"), "{:?}", response.head);
    assert_eq!(response.get("upgrade"), Some("websocket"));
    assert_eq!(
        response.get("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    let rest = client.read_to_end();
    assert_eq!(
        (rest.got.as_slice(), rest.end),
        (&b"from the backend; seen"[..], End::Closed)
    );
    let head = &backend.wait_heads(1)[0];
    assert!(head.lists("connection", "upgrade"), "{head:?}");
    assert!(!head.lists("connection", "keep-alive"), "{head:?}");
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert_eq!(head.get("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
}

fn a_tunnel_carries_megabytes_both_ways_at_once(driver: Driver) {
    const SIZE: usize = 4 << 20;
    let backend = switching(|conn| {
        let mut sender = conn.split();
        let sending = thread::spawn(move || sender.try_send(noise(1, SIZE)));
        let got = conn.read_exact(SIZE)?;
        assert_same_bytes("at the backend", &got, &noise(2, SIZE));
        sending.join().unwrap()?;
        conn.try_send("all seen")
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(UPGRADE);
    assert_eq!(client.response("GET").status(), 101);
    let mut sender = client.split();
    let sending = thread::spawn(move || sender.send(noise(2, SIZE)));
    assert_same_bytes(
        "at the client",
        &client.read_exact(SIZE).unwrap(),
        &noise(1, SIZE),
    );
    sending.join().unwrap();
    assert_eq!(client.read_exact(8).unwrap(), b"all seen");
}

fn the_client_may_half_close(driver: Driver) {
    let backend = switching(|conn| {
        let heard = conn.read_to_end();
        assert_eq!(
            (heard.got.as_slice(), heard.end),
            (&b"last words"[..], End::Closed)
        );
        conn.try_send(noise(3, 1 << 20))
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(UPGRADE);
    assert_eq!(client.response("GET").status(), 101);
    client.send("last words");
    client.half_close();
    let rest = client.read_to_end();
    assert_same_bytes("behind the half-close", &rest.got, &noise(3, 1 << 20));
    assert_eq!(rest.end, End::Closed);
}

fn the_backend_may_half_close(driver: Driver) {
    let backend = switching(|conn| {
        conn.try_send("last words")?;
        conn.half_close();
        let heard = conn.read_to_end();
        assert_eq!(heard.end, End::Closed);
        assert_same_bytes("behind the half-close", &heard.got, &noise(4, 1 << 20));
        Ok(())
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(UPGRADE);
    assert_eq!(client.response("GET").status(), 101);
    let rest = client.read_to_end();
    assert_eq!((rest.got.as_slice(), rest.end), (&b"last words"[..], End::Closed));
    client.send(noise(4, 1 << 20));
    drop(client);
    backend.wait_done(0);
    assert_eq!(backend.wait_end(0), End::Closed);
    assert!(backend.record(0).received > 1 << 20);
}

fn a_reset_ends_the_other_side(driver: Driver) {
    let backend = switching(|conn| conn.hang());
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(UPGRADE);
    assert_eq!(client.response("GET").status(), 101);
    client.reset();
    backend.wait_end(0);

    let backend = switching(|conn| conn.reset());
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(UPGRADE);
    assert_eq!(client.response("GET").status(), 101);
    client.expect_closed();
}

fn a_refused_upgrade_is_an_ordinary_response(driver: Driver) {
    let backend = Backend::answering(|request| match request.target() {
        "/ws" => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nnot for us".to_vec(),
        target => ok(target.as_bytes()),
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(UPGRADE);
    let response = client.response("GET");
    assert_eq!(
        (response.status(), response.body.as_slice()),
        (403, &b"not for us"[..])
    );
    assert_eq!(client.get("/next").body, b"/next");
}

fn a_101_that_nobody_asked_for_is_a_bad_response(driver: Driver) {
    let backend = switching(|conn| conn.hang());
    let weir = Weir::before(driver, &backend);
    let response = weir.client().get("/");
    assert_eq!(
        (response.status(), response.reason()),
        (502, Some("bad_response"))
    );
    backend.wait_end(0);
    assert_eq!(backend.requests().len(), 0);
}

fn h2c_is_never_passed_on(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for (n, upgrade) in ["h2c", "H2C", "h2c, websocket", "websocket, h2c"]
        .into_iter()
        .enumerate()
    {
        client.send(format!(
            "GET /{n} HTTP/1.1\r\nHost: t\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n\
             HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
        ));
        assert_eq!(client.response("GET").body, format!("/{n}").into_bytes());
        let request = backend.wait_requests(n + 1).pop().unwrap();
        assert!(!request.lists("upgrade", "h2c"), "{upgrade}: {:?}", request.head);
        assert!(!request.has("http2-settings"), "{upgrade}: {:?}", request.head);
        if n < 2 {
            assert!(
                !request.has("upgrade") && !request.lists("connection", "upgrade"),
                "{:?}",
                request.head
            );
        }
    }
}

fn an_upgrade_without_connection_upgrade_is_none(driver: Driver) {
    let backend = Backend::new(|conn| {
        loop {
            let head = conn.read_head()?;
            assert!(!head.has("upgrade"), "{head:?}");
            conn.try_send(if head.target() == "/switch" {
                SWITCH.as_bytes().to_vec()
            } else {
                ok(b"plain")
            })?;
        }
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response("GET").body, b"plain");
    client.send("GET /switch HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response("GET").status(), 502);
}

fn an_http_1_0_upgrade_is_none(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(UPGRADE.replace("HTTP/1.1", "HTTP/1.0"));
    assert_eq!(client.response("GET").body, b"/ws");
    let request = &backend.wait_requests(1)[0];
    assert!(
        !request.has("upgrade") && !request.lists("connection", "upgrade"),
        "{:?}",
        request.head
    );
}

fn a_silent_tunnel_is_ended(driver: Driver) {
    let backend = switching(|conn| conn.hang());
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("timeouts.tunnel", "300ms")
        .start();
    let mut client = weir.client();
    client.send(UPGRADE);
    assert_eq!(client.response("GET").status(), 101);
    let start = Instant::now();
    client.expect_closed();
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(250)..Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );
    backend.wait_end(0);
}

fn a_tunnel_that_talks_is_not_ended(driver: Driver) {
    let backend = switching(|conn| {
        loop {
            let bytes = conn.read_some()?;
            conn.try_send(bytes)?;
        }
    });
    // One direction's bytes keep both alive, and no other timeout counts in a tunnel.
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("timeouts.tunnel", "500ms")
        .set("timeouts.idle", "200ms")
        .set("timeouts.request_body", "200ms")
        .set("timeouts.response_body", "200ms")
        .set("timeouts.response_head", "200ms")
        .start();
    let mut client = weir.client();
    client.send(UPGRADE);
    assert_eq!(client.response("GET").status(), 101);
    for _ in 0..5 {
        client.expect_silence(Duration::from_millis(250));
        client.send("ping");
        assert_eq!(client.read_exact(4).unwrap(), b"ping");
    }
}

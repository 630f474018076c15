//! Everything that waits has a deadline. Each test sets the one it is about to a few hundred milliseconds and leaves the
//! others long, so that nothing else can be what ended the wait.

#[macro_use]
mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::weir::Setup;
use support::wire::End;
use support::{Backend, Driver, Weir, noise, ok};

on_both_drivers!(
    a_head_that_does_not_come_gets_408,
    a_head_that_dribbles_gets_408,
    a_silent_first_connection_is_closed,
    a_body_that_stalls_gets_408,
    a_body_that_moves_is_not_timed_out,
    a_body_below_the_minimum_rate_gets_408,
    an_idle_client_is_closed_without_a_word,
    a_busy_client_is_not_idle,
    a_connect_that_hangs_gets_504,
    a_response_head_that_does_not_come_gets_504,
    interim_responses_do_not_end_the_wait_for_the_head,
    a_response_body_that_stalls_is_aborted,
    a_response_body_that_moves_is_not_timed_out,
    a_client_that_never_reads_is_ended,
    a_whole_exchange_can_be_bounded,
    idle_backend_connections_are_closed,
    old_backend_connections_are_not_reused,
);

const SHORT: &str = "300ms";

/// The wait took its time and not much more: the sweep is coarse, the machine may be busy.
#[track_caller]
fn assert_short(start: Instant) {
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(250)..Duration::from_millis(2000)).contains(&took),
        "{took:?} instead of {SHORT}"
    );
}

fn with(driver: Driver, backend: &Backend, key: &str) -> Setup {
    Weir::on(driver).backend(backend).set(key, SHORT)
}

fn a_head_that_does_not_come_gets_408(driver: Driver) {
    let backend = Backend::plain();
    let weir = with(driver, &backend, "timeouts.request_head").start();
    let mut client = weir.client();
    assert_eq!(client.get("/").status(), 200);
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n");
    let response = client.response("GET");
    assert_eq!(
        (response.status(), response.reason()),
        (408, Some("head_timeout"))
    );
    assert!(response.lists("connection", "close"));
    assert_short(start);
    client.expect_closed();
    assert_eq!(backend.requests().len(), 1);
}

fn a_head_that_dribbles_gets_408(driver: Driver) {
    let backend = Backend::plain();
    let weir = with(driver, &backend, "timeouts.request_head").start();
    let mut client = weir.client();
    let start = Instant::now();
    let mut sender = client.split();
    let dribble = std::thread::spawn(move || {
        let _ = sender.send_slowly(&[b'x'; 200], 1, Duration::from_millis(20));
    });
    let response = client.response("GET");
    assert_eq!(
        (response.status(), response.reason()),
        (408, Some("head_timeout")),
        "the whole head counts"
    );
    assert_short(start);
    drop(client);
    dribble.join().unwrap();
}

fn a_silent_first_connection_is_closed(driver: Driver) {
    let backend = Backend::plain();
    let weir = with(driver, &backend, "timeouts.request_head").start();
    let start = Instant::now();
    let mut client = weir.client();
    // A client that said nothing may hear 408 or nothing; what counts is that it does not stay.
    let rest = client.read_to_end();
    assert_ne!(rest.end, End::Silent);
    assert!(
        rest.got.is_empty() || rest.got.starts_with(b"HTTP/1.1 408 "),
        "{rest:?}"
    );
    assert_short(start);
}

fn a_body_that_stalls_gets_408(driver: Driver) {
    let backend = Backend::plain();
    let weir = with(driver, &backend, "timeouts.request_body").start();
    for framing in [
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let mut client = weir.client();
        let start = Instant::now();
        client.send(format!("POST / HTTP/1.1\r\nHost: t\r\n{framing}"));
        let response = client.response("POST");
        assert_eq!(
            (response.status(), response.reason()),
            (408, Some("body_timeout")),
            "{framing}"
        );
        assert_short(start);
        client.expect_closed();
    }
    assert!(backend.requests().is_empty());
    assert_ne!(
        backend.wait_end(0),
        End::Silent,
        "the backend's half request is over, too"
    );
}

fn a_body_that_moves_is_not_timed_out(driver: Driver) {
    let backend = Backend::answering(|request| ok(&request.body));
    let weir = with(driver, &backend, "timeouts.request_body")
        .set("timeouts.request_head", SHORT)
        .set("timeouts.response_head", SHORT)
        .start();
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 8\r\n\r\n");
    client
        .send_slowly(b"12345678", 1, Duration::from_millis(100))
        .unwrap();
    assert_eq!(
        client.response("POST").body,
        b"12345678",
        "800 ms in steps of 100"
    );
}

fn a_body_below_the_minimum_rate_gets_408(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("http.min_body_rate", "1KiB/s")
        .start();
    let mut client = weir.client().deadline(Duration::from_secs(20));
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n");
    let start = Instant::now();
    let mut sender = client.split();
    let dribble = std::thread::spawn(move || {
        let _ = sender.send_slowly(&[b'x'; 200], 1, Duration::from_millis(100));
    });
    let response = client.response("POST");
    assert_eq!(
        (response.status(), response.reason()),
        (408, Some("body_timeout"))
    );
    let took = start.elapsed();
    assert!(
        (Duration::from_secs(9)..Duration::from_secs(13)).contains(&took),
        "after 10 s, not {took:?}"
    );
    drop(client);
    dribble.join().unwrap();
    assert!(backend.requests().is_empty());
}

fn an_idle_client_is_closed_without_a_word(driver: Driver) {
    let backend = Backend::plain();
    let weir = with(driver, &backend, "timeouts.idle").start();
    let mut client = weir.client();
    assert_eq!(client.get("/").status(), 200);
    let start = Instant::now();
    client.expect_eof();
    assert_short(start);
}

fn a_busy_client_is_not_idle(driver: Driver) {
    let backend = Backend::new(|conn| {
        loop {
            conn.read_request()?;
            std::thread::sleep(Duration::from_millis(600));
            conn.try_send(ok(b"slow"))?;
        }
    });
    let weir = with(driver, &backend, "timeouts.idle").start();
    let mut client = weir.client();
    for _ in 0..2 {
        assert_eq!(
            client.get("/").body,
            b"slow",
            "an exchange may take longer than an idle connection lives"
        );
    }
}

/// A listening socket whose queue is full: further connects get no answer.
fn full_listener() -> (socket2::Socket, Vec<TcpStream>, String) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
        assert!(waiting.len() < 16, "the queue never fills");
    }
    (listener, waiting, address.to_string())
}

fn a_connect_that_hangs_gets_504(driver: Driver) {
    let (_listener, _waiting, address) = full_listener();
    let weir = Weir::on(driver)
        .backend_url(&format!("http://{address}"))
        .set("timeouts.connect", SHORT)
        .start();
    let mut client = weir.client();
    let start = Instant::now();
    let response = client.get("/");
    assert_eq!(
        (response.status(), response.reason()),
        (504, Some("connect_timeout"))
    );
    assert_short(start);
    // Nothing was wrong with the request: the client may go on.
    assert_eq!(client.get("/").status(), 504);
}

fn a_response_head_that_does_not_come_gets_504(driver: Driver) {
    for first in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let backend = Backend::new(move |conn| {
            conn.read_request()?;
            conn.try_send(first)?;
            conn.hang()
        });
        let weir = with(driver, &backend, "timeouts.response_head").start();
        let mut client = weir.client();
        let start = Instant::now();
        let response = client.get("/");
        assert_eq!(
            (response.status(), response.reason()),
            (504, Some("backend_timeout")),
            "{first:?}"
        );
        assert_short(start);
        assert_ne!(
            backend.wait_end(0),
            End::Silent,
            "the connection that waits for an answer is never reused"
        );
        assert_eq!(backend.connections(), 1, "and the request is not sent twice");
    }
}

fn interim_responses_do_not_end_the_wait_for_the_head(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_request()?;
        conn.try_send("HTTP/1.1 103 Early Hints\r\n\r\n")?;
        conn.hang()
    });
    let weir = with(driver, &backend, "timeouts.response_head").start();
    let mut client = weir.client();
    let start = Instant::now();
    let response = client.get("/");
    assert_eq!(
        (response.status(), response.reason(), response.interim.len()),
        (504, Some("backend_timeout"), 1)
    );
    assert_short(start);
}

fn a_response_body_that_stalls_is_aborted(driver: Driver) {
    for (framing, body) in [
        ("Content-Length: 10\r\n", "half"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n"),
        ("", "half"),
    ] {
        let backend = Backend::new(move |conn| {
            conn.read_request()?;
            conn.try_send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n{body}"))?;
            conn.hang()
        });
        let weir = with(driver, &backend, "timeouts.response_body").start();
        let mut client = weir.client();
        let start = Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let broken = client.read_response("GET").expect_err("half a response");
        assert!(
            matches!(broken.end, End::Closed | End::Reset),
            "{framing}: {broken:?}"
        );
        assert_short(start);
        assert_ne!(backend.wait_end(0), End::Silent);
    }
}

fn a_response_body_that_moves_is_not_timed_out(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_request()?;
        conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")?;
        conn.send_slowly(b"12345678", 1, Duration::from_millis(100))?;
        conn.hang()
    });
    let weir = with(driver, &backend, "timeouts.response_body")
        .set("timeouts.response_head", SHORT)
        .start();
    assert_eq!(weir.client().get("/").body, b"12345678");
}

fn a_client_that_never_reads_is_ended(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_request()?;
        conn.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20))?;
        conn.try_send(noise(1, 64 << 20))
    });
    let weir = with(driver, &backend, "timeouts.response_body").start();
    let mut client = weir.client();
    client.set_receive_buffer(64 << 10);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    backend.wait_done(0);
    let broken = client.read_response("GET").expect_err("weir gave up on us");
    assert!(matches!(broken.end, End::Closed | End::Reset), "{:?}", broken.end);
}

fn a_whole_exchange_can_be_bounded(driver: Driver) {
    let backend = Backend::new(|conn| {
        let request = conn.read_request()?;
        if request.target() == "/body" {
            conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n")?;
            return conn.send_slowly(&[b'x'; 200], 1, Duration::from_millis(20));
        }
        conn.hang()
    });
    let weir = with(driver, &backend, "timeouts.exchange").start();
    let start = Instant::now();
    let response = weir.client().get("/");
    assert_eq!(
        (response.status(), response.reason()),
        (504, Some("backend_timeout"))
    );
    assert_short(start);
    let start = Instant::now();
    let mut client = weir.client();
    client.send("GET /body HTTP/1.1\r\nHost: t\r\n\r\n");
    client.read_response("GET").expect_err("the body takes 4 s");
    assert_short(start);
}

fn idle_backend_connections_are_closed(driver: Driver) {
    let backend = Backend::plain();
    let weir = with(driver, &backend, "upstream.idle").start();
    let mut client = weir.client();
    assert_eq!(client.get("/").status(), 200);
    let start = Instant::now();
    assert_eq!(backend.wait_end(0), End::Closed);
    assert_short(start);
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(backend.connections(), 2);
}

fn old_backend_connections_are_not_reused(driver: Driver) {
    let backend = Backend::plain();
    let weir = with(driver, &backend, "upstream.max_age").start();
    let mut client = weir.client();
    let start = Instant::now();
    while backend.connections() < 2 {
        assert_eq!(client.get("/").status(), 200);
        assert!(
            start.elapsed() < support::DEADLINE,
            "one connection outlived max_age"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        start.elapsed() >= Duration::from_millis(250),
        "used again while it is young"
    );
    assert_eq!(backend.wait_end(0), End::Closed);
}

//! Bodies: how they are framed on each side, that they stream, and that they stop when nobody reads.

#[macro_use]
mod support;

use std::thread;
use std::time::Duration;

use support::wire::End;
use support::{Backend, Driver, Framing, Gate, Weir, assert_same_bytes, chunked, noise, ok};

on_both_drivers!(
    a_length_passes_in_both_directions,
    bodies_of_every_size_around_a_buffer_are_exact,
    a_chunked_request_passes_as_it_came,
    a_chunked_response_passes_as_it_came,
    a_response_without_framing_runs_until_close,
    a_response_to_head_has_no_body,
    bodiless_statuses_have_no_body,
    chunks_become_a_plain_body_for_http_1_0,
    an_answer_may_come_before_the_body_is_over,
    an_early_refusal_reaches_a_client_that_still_sends,
    an_early_answer_does_not_leak_the_rest_of_the_body,
    ten_mebibytes_stream_both_ways_at_once,
    ten_mebibytes_of_chunks_stream_both_ways_at_once,
    what_came_is_passed_on_before_the_rest_is_there,
    a_client_may_half_close_behind_its_request,
    a_client_that_half_closes_inside_its_body_is_not_served,
    a_client_that_does_not_read_stops_the_backend,
    a_backend_that_does_not_read_stops_the_client,
    max_body_bytes_refuses_a_length_at_once,
    max_body_bytes_cuts_a_chunked_body,
    max_body_bytes_is_the_largest_that_passes,
    a_client_that_goes_away_ends_the_backends_exchange,
);

fn echo() -> Backend {
    Backend::answering(|request| ok(&request.body))
}

fn a_length_passes_in_both_directions(driver: Driver) {
    let backend = echo();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.response("POST");
    assert_eq!(
        (response.framing, response.body.as_slice()),
        (Framing::Length(5), &b"hello"[..])
    );
    client.send("GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nget");
    assert_eq!(client.response("GET").body, b"get", "a GET may have a body");
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.response("POST").framing, Framing::Length(0));
    client.send("POST / HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(
        client.response("POST").framing,
        Framing::Length(0),
        "no framing is no body"
    );
    let framings: Vec<Framing> = backend.requests().iter().map(|request| request.framing).collect();
    assert_eq!(
        framings[..3],
        [Framing::Length(5), Framing::Length(3), Framing::Length(0)]
    );
    assert_eq!(backend.connections(), 1);
}

fn bodies_of_every_size_around_a_buffer_are_exact(driver: Driver) {
    let backend = echo();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for size in [4096, 16384, 65536, 262_144]
        .into_iter()
        .flat_map(|around| (around - 3..=around + 3).step_by(1))
    {
        let body = noise(size as u64, size);
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n"
        ));
        let mut sender = client.split();
        let sent = body.clone();
        let sending = thread::spawn(move || sender.send(sent));
        assert_same_bytes(&format!("{size} bytes"), &client.response("POST").body, &body);
        sending.join().unwrap();
    }
    // The same with the head in the packet, so that head and body share buffers.
    for size in [15_000, 16_300, 16_384, 17_000, 33_000] {
        let body = noise(size as u64, size);
        let mut request =
            format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        request.extend_from_slice(&body);
        client.send(&request);
        assert_same_bytes(&format!("{size} bytes"), &client.response("POST").body, &body);
    }
    assert_eq!(backend.connections(), 1);
}

const AS_IT_CAME: &[u8] =
    b"4;name=value\r\nWiki\r\n0006;q=\"a;b\\\"c\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\n\
                            X-Sum: 1\r\nX-Again: \xe9\r\n\r\n";

fn a_chunked_request_passes_as_it_came(driver: Driver) {
    let backend = echo();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
        client.send(AS_IT_CAME);
        assert_eq!(client.response("POST").body, b"Wikipedia in \r\n\r\nchunks.");
    }
    for request in backend.requests() {
        assert_same_bytes("the chunks", &request.raw_body, AS_IT_CAME);
        assert!(!request.has("content-length"));
    }
    assert_eq!(backend.connections(), 1);
}

fn a_chunked_response_passes_as_it_came(driver: Driver) {
    let backend = Backend::sending(
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            AS_IT_CAME,
        ]
        .concat(),
    );
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_same_bytes("the chunks", &response.raw_body, AS_IT_CAME);
        assert_eq!(response.trailers.len(), 2);
        assert!(!response.has("content-length"));
    }
    assert_eq!(backend.connections(), 1);
}

fn a_response_without_framing_runs_until_close(driver: Driver) {
    let body = noise(5, 300_000);
    let response = [b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n", body.as_slice()].concat();
    let backend = Backend::sending_then_close(response);
    let weir = Weir::before(driver, &backend);
    for _ in 0..2 {
        let mut client = weir.client();
        let response = client.get("/");
        assert_same_bytes("until close", &response.body, &body);
        assert!(
            matches!(response.framing, Framing::Close | Framing::Chunked),
            "{:?}",
            response.framing
        );
    }
    assert_eq!(backend.connections(), 2);
}

fn a_response_to_head_has_no_body(driver: Driver) {
    let backend = Backend::answering(|request| match (request.method(), request.target()) {
        ("HEAD", "/length") => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
        ("HEAD", "/chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ("HEAD", _) => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        _ => ok(b"got"),
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for target in ["/length", "/chunked", "/neither"] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        let response = client.response("HEAD");
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.get("content-length"),
            (target == "/length").then_some("1000")
        );
        assert_eq!(client.get("/").body, b"got", "behind HEAD {target}");
    }
    assert_eq!(backend.connections(), 1);
}

fn bodiless_statuses_have_no_body(driver: Driver) {
    let backend = Backend::answering(|request| match request.target() {
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_vec(),
        "/304-length" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n".to_vec(),
        "/205" => b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok(b"got"),
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for (target, status) in [("/204", 204), ("/304", 304), ("/304-length", 304), ("/205", 205)] {
        let response = client.get(target);
        assert_eq!((response.status(), response.body.as_slice()), (status, &b""[..]));
        assert!(!response.has("transfer-encoding"), "{:?}", response.head);
        assert_eq!(client.get("/").body, b"got", "behind {target}");
    }
    assert_eq!(backend.connections(), 1);
}

fn chunks_become_a_plain_body_for_http_1_0(driver: Driver) {
    let big = noise(6, 600_000);
    let backend = {
        let big = big.clone();
        Backend::answering(move |request| {
            let chunks = if request.target() == "/big" {
                chunked(&big, 7919)
            } else {
                AS_IT_CAME.to_vec()
            };
            [
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n",
                chunks.as_slice(),
            ]
            .concat()
        })
    };
    let weir = Weir::before(driver, &backend);
    for (target, body) in [("/", &b"Wikipedia in \r\n\r\nchunks."[..]), ("/big", &big)] {
        for connection in ["close", "keep-alive"] {
            let mut client = weir.client();
            client.send(format!(
                "GET {target} HTTP/1.0\r\nHost: t\r\nConnection: {connection}\r\n\r\n"
            ));
            let response = client.response("GET");
            assert!(!response.has("transfer-encoding"), "{:?}", response.head);
            assert!(!response.lists("connection", "keep-alive"), "{:?}", response.head);
            assert_eq!(response.framing, Framing::Close);
            assert_same_bytes(target, &response.body, body);
        }
    }
    assert_eq!(
        backend.connections(),
        1,
        "the backend's side is HTTP/1.1 and lives on"
    );
}

fn an_answer_may_come_before_the_body_is_over(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.read_exact(4)?;
        conn.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n")?;
        let rest = conn.read_exact(996)?;
        conn.try_send(format!("3\r\n{}\r\n0\r\n\r\n", rest.len()))?;
        conn.serve(|request| ok(request.target().as_bytes()))
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nhead");
    let head = client.read_head().unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(client.read_exact(10).unwrap(), b"5\r\nearly\r\n");
    client.send([b'x'; 996]);
    assert_eq!(client.read_exact(13).unwrap(), b"3\r\n996\r\n0\r\n\r\n");
    assert_eq!(client.get("/next").body, b"/next");
    assert_eq!(backend.connections(), 1);
}

fn an_early_refusal_reaches_a_client_that_still_sends(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.try_send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 7\r\n\r\ntoo big")?;
        conn.half_close();
        conn.hang()
    });
    let weir = Weir::before(driver, &backend);
    for _ in 0..5 {
        let mut client = weir.client();
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 8000000\r\n\r\n");
        let mut sender = client.split();
        let sending = thread::spawn(move || sender.try_send(noise(7, 8_000_000)));
        let response = client.response("POST");
        assert_eq!(
            (response.status(), response.body.as_slice()),
            (413, &b"too big"[..])
        );
        drop(client);
        let _ = sending.join();
    }
}

fn an_early_answer_does_not_leak_the_rest_of_the_body(driver: Driver) {
    // The rest of the first body looks like a request; it must never run as one, on either side.
    let rest = "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n";
    let backend = Backend::new(|conn| {
        let head = conn.read_head()?;
        conn.try_send(ok(head.target().as_bytes()))?;
        if head.target() == "/early" {
            conn.hang()
        } else {
            Ok(())
        }
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(format!(
        "POST /early HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        rest.len()
    ));
    assert_eq!(client.response("POST").body, b"/early");
    let _ = client.try_send(rest);
    assert_eq!(weir.client().get("/other").body, b"/other");
    drop(client);
    backend.wait_end(0);
    for head in backend.wait_heads(2) {
        assert_ne!(head.target(), "/smuggled");
    }
}

/// A backend that sends each piece back as it comes, framed as it came.
fn streaming_echo() -> Backend {
    Backend::new(|conn| {
        let head = conn.read_head()?;
        match head.request_framing().unwrap() {
            Framing::Length(len) => {
                conn.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n"))?;
                let mut left = len as usize;
                while left > 0 {
                    let bytes = conn.read_some()?;
                    left -= bytes.len();
                    conn.try_send(bytes)?;
                }
            }
            _ => {
                conn.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                let mut tail = Vec::new();
                while !tail.ends_with(b"\r\n0\r\n\r\n") {
                    let bytes = conn.read_some()?;
                    conn.try_send(&bytes)?;
                    tail.extend_from_slice(&bytes);
                    tail.drain(..tail.len().saturating_sub(16));
                }
            }
        }
        conn.hang()
    })
}

const TEN_MIB: usize = 10 << 20;

fn ten_mebibytes_stream_both_ways_at_once(driver: Driver) {
    let backend = streaming_echo();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    let body = noise(8, TEN_MIB);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {TEN_MIB}\r\n\r\n"
    ));
    let mut sender = client.split();
    let sent = body.clone();
    let sending = thread::spawn(move || sender.send(sent));
    assert_same_bytes("the echo", &client.response("POST").body, &body);
    sending.join().unwrap();
}

fn ten_mebibytes_of_chunks_stream_both_ways_at_once(driver: Driver) {
    let backend = streaming_echo();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    let body = noise(9, TEN_MIB);
    client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut sender = client.split();
    let sent = chunked(&body, 12_345);
    let sending = thread::spawn(move || sender.send(sent));
    assert_same_bytes("the echo", &client.response("POST").body, &body);
    sending.join().unwrap();
}

fn what_came_is_passed_on_before_the_rest_is_there(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        assert_eq!(conn.read_exact(1)?, b"a");
        conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n1")?;
        assert_eq!(conn.read_exact(1)?, b"b");
        conn.try_send("2")?;
        assert_eq!(conn.read_exact(1)?, b"c");
        conn.try_send("3")?;
        conn.hang()
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\na");
    client.read_head().unwrap();
    assert_eq!(client.read_exact(1).unwrap(), b"1");
    client.send("b");
    assert_eq!(client.read_exact(1).unwrap(), b"2");
    client.send("c");
    assert_eq!(client.read_exact(1).unwrap(), b"3");
}

fn a_client_may_half_close_behind_its_request(driver: Driver) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::answering(move |request| {
        waits.pass();
        ok(&[request.target().as_bytes(), &request.body].concat())
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client
        .send("GET /a HTTP/1.1\r\nHost: t\r\n\r\nPOST /b HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nbb");
    client.half_close();
    backend.wait_requests(1);
    gate.open();
    assert_eq!(client.response("GET").body, b"/a");
    assert_eq!(client.response("POST").body, b"/bbb");
    client.expect_eof();
}

fn a_client_that_half_closes_inside_its_body_is_not_served(driver: Driver) {
    let backend = echo();
    let weir = Weir::before(driver, &backend);
    for start in [
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "GET / HTTP/1.1\r\nHost: t\r\n",
    ] {
        let mut client = weir.client();
        client.send(start);
        client.half_close();
        let rest = client.read_to_end();
        assert_ne!(rest.end, End::Silent, "{start}");
        assert!(!rest.got.starts_with(b"HTTP/1.1 2"), "{rest:?}");
    }
    assert_eq!(weir.client().get("/after").status(), 200);
    assert_eq!(backend.requests().len(), 1, "no half request was a whole one");
}

fn a_client_that_does_not_read_stops_the_backend(driver: Driver) {
    const SIZE: usize = 32 << 20;
    let (tell, sent) = std::sync::mpsc::channel();
    let backend = Backend::new(move |conn| {
        conn.read_head()?;
        conn.set_send_buffer(64 << 10);
        conn.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))?;
        let body = noise(10, SIZE);
        let first = conn.send_until_blocked(&body, Duration::from_millis(300));
        tell.send(first).unwrap();
        conn.try_send(&body[first..])?;
        conn.hang()
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.set_receive_buffer(64 << 10);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let first = sent.recv_timeout(support::DEADLINE).unwrap();
    assert!(first < 3 << 20, "{first} bytes went nowhere");
    let response = client.response("GET");
    assert_same_bytes(
        "what follows once the client reads",
        &response.body,
        &noise(10, SIZE),
    );
}

fn a_backend_that_does_not_read_stops_the_client(driver: Driver) {
    const SIZE: usize = 32 << 20;
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::new(move |conn| {
        conn.set_receive_buffer(64 << 10);
        let head = conn.read_head()?;
        waits.pass();
        let request = conn.read_body(head, Ok(Framing::Length(SIZE as u64)), Vec::new())?;
        assert_same_bytes(
            "what follows once the backend reads",
            &request.body,
            &noise(11, SIZE),
        );
        conn.try_send(ok(b"all"))
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.set_send_buffer(64 << 10);
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    let body = noise(11, SIZE);
    let first = client.send_until_blocked(&body, Duration::from_millis(300));
    assert!(first < 10 << 20, "{first} bytes went nowhere");
    gate.open();
    client.send(&body[first..]);
    assert_eq!(client.response("POST").body, b"all");
}

fn limited(driver: Driver, backend: &Backend) -> Weir {
    Weir::on(driver)
        .backend(backend)
        .set("http.max_body_bytes", "1KiB")
        .start()
}

fn max_body_bytes_refuses_a_length_at_once(driver: Driver) {
    let backend = echo();
    let weir = limited(driver, &backend);
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut client = weir.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1025\r\n{expect}\r\n"
        ));
        let response = client.response("POST");
        assert_eq!(
            (response.status(), response.reason()),
            (413, Some("body_too_large"))
        );
        assert!(
            response.interim.is_empty() && response.lists("connection", "close"),
            "{:?}",
            response.head
        );
        client.expect_closed();
    }
    assert_eq!(backend.connections(), 0);
}

fn max_body_bytes_cuts_a_chunked_body(driver: Driver) {
    let backend = echo();
    let weir = limited(driver, &backend);
    let head = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = chunked(&noise(12, 1025), 100);
    for whole in [true, false] {
        let mut client = weir.client();
        client.send(head);
        // Too much by its last byte, or too much with more to come.
        client.send(if whole { &body[..] } else { &body[..body.len() - 5] });
        let response = client.response("POST");
        assert_eq!(
            (response.status(), response.reason()),
            (413, Some("body_too_large"))
        );
        // A request that is all there leaves nothing in doubt; one that is not must end the connection.
        if response.lists("connection", "close") {
            client.expect_closed();
        } else {
            assert!(whole, "{:?}", response.head);
            assert_eq!(client.get("/next").status(), 200);
        }
    }
    assert_eq!(weir.client().get("/after").status(), 200);
    let seen = backend.requests();
    assert!(
        seen.iter().all(|request| request.method() == "GET"),
        "a cut request never becomes whole: {seen:?}"
    );
}

fn max_body_bytes_is_the_largest_that_passes(driver: Driver) {
    let backend = echo();
    let weir = limited(driver, &backend);
    let mut client = weir.client();
    let body = noise(13, 1024);
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1024\r\n\r\n");
    client.send(&body);
    assert_same_bytes("by length", &client.response("POST").body, &body);
    client.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(chunked(&body, 10));
    assert_same_bytes("chunked: only data counts", &client.response("POST").body, &body);
}

fn a_client_that_goes_away_ends_the_backends_exchange(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        conn.hang()
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    client.read_head().unwrap();
    client.reset();
    backend.wait_end(0);
    // In the middle of sending a body, too.
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf");
    backend.wait_heads(2);
    client.reset();
    backend.wait_end(1);
}

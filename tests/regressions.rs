//! Faults that once were, each by what it broke. Every test walks the sequence that led to one of them.

#[macro_use]
mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use support::backend::listen;
use support::weir::Setup;
use support::wire::End;
use support::{Backend, Driver, Framing, Gate, Weir, Wire, assert_same_bytes, eventually, noise, ok};

on_both_drivers!(
    a_slow_reader_gets_a_whole_body_of_known_length,
    a_slow_reader_gets_a_whole_body_until_close,
    a_backend_that_drains_slowly_gets_a_whole_upload,
    a_connection_that_served_a_slow_reader_serves_the_next,
    a_client_that_resets_inside_a_resend_ends_nobody_else,
    a_body_behind_a_head_response_answers_nobody,
    bytes_behind_the_last_request_do_not_cost_its_answer,
    scarce_sockets_are_passed_on,
    a_101_inside_the_request_body_is_a_bad_response,
    a_client_that_lingers_does_not_hold_up_the_end,
);

/// What every slow peer here takes, and far above any minimum rate.
const BYTES_PER_SECOND: u32 = 400_000;

/// A multiple of it passes while one full buffer waits for a slow peer.
const SHORT: &str = "200ms";

/// A client for whom the kernel takes in next to nothing: its buffer has to be small before it connects, or the peer's
/// grows large.
fn narrow_client(weir: &Weir) -> Wire {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8192).unwrap();
    let address: SocketAddr = weir.address().parse().unwrap();
    socket.connect(&address.into()).unwrap();
    Wire::over_tcp(socket.into())
}

/// Reads `len` bytes, or what comes before the end, at [`BYTES_PER_SECOND`].
fn read_steadily(wire: &mut Wire, len: usize) -> (Vec<u8>, Option<End>) {
    let start = Instant::now();
    let mut bytes = Vec::new();
    while bytes.len() < len {
        match wire.read_exact(1) {
            Ok(first) => bytes.extend_from_slice(&first),
            Err(broken) => return (bytes, Some(broken.end)),
        }
        if !wire.leftover().is_empty() {
            match wire.read_some() {
                Ok(rest) => bytes.extend_from_slice(&rest),
                Err(broken) => return (bytes, Some(broken.end)),
            }
        }
        let read = u32::try_from(bytes.len()).unwrap();
        let due = Duration::from_secs(1) * read / BYTES_PER_SECOND;
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    (bytes, None)
}

fn with_short(driver: Driver, backend: &Backend, key: &str) -> Setup {
    Weir::on(driver).backend(backend).set(key, SHORT)
}

/// The time that the kernel's buffers take to drain counted as the backend's silence.
fn a_slow_reader_gets_a_whole_body_of_known_length(driver: Driver) {
    let body = noise(1, 1_000_000);
    let backend = Backend::sending(ok(&body));
    let weir = with_short(driver, &backend, "timeouts.response_body").start();
    let mut client = narrow_client(&weir);
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let head = client.read_head().unwrap();
    assert_eq!(head.response_framing("GET"), Ok(Framing::Length(1_000_000)));
    let (got, end) = read_steadily(&mut client, body.len());
    assert_eq!(end, None, "after {} bytes", got.len());
    assert_same_bytes("a body of known length", &got, &body);
}

fn a_slow_reader_gets_a_whole_body_until_close(driver: Driver) {
    let body = noise(2, 1_000_000);
    let response = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &body[..]].concat();
    let backend = Backend::sending_then_close(response);
    let weir = with_short(driver, &backend, "timeouts.response_body").start();
    let mut client = narrow_client(&weir);
    // To HTTP/1.0 no chunks are sent.
    client.send("GET / HTTP/1.0\r\nHost: t\r\n\r\n");
    let head = client.read_head().unwrap();
    assert_eq!(head.response_framing("GET"), Ok(Framing::Close));
    let (got, end) = read_steadily(&mut client, usize::MAX);
    assert_eq!(end, Some(End::Closed), "after {} bytes", got.len());
    assert_same_bytes("a body until close", &got, &body);
}

/// The time that the backend took to drain what it had been sent counted as the client's silence.
fn a_backend_that_drains_slowly_gets_a_whole_upload(driver: Driver) {
    const SIZE: usize = 1_000_000;
    let listener = listen();
    // Accepted sockets inherit it.
    socket2::SockRef::from(&listener)
        .set_recv_buffer_size(8192)
        .unwrap();
    let backend = Backend::on(listener, |conn| {
        conn.read_head()?;
        let (got, end) = read_steadily(conn, SIZE);
        assert_eq!(end, None, "after {} bytes", got.len());
        assert_same_bytes("an upload", &got, &noise(3, SIZE));
        conn.try_send(ok(b"all of it"))
    });
    let weir = with_short(driver, &backend, "timeouts.request_body").start();
    let mut client = weir.client();
    let mut sender = client.split();
    let sending = thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {SIZE}\r\n\r\n");
        sender.try_send([head.as_bytes(), &noise(3, SIZE)].concat())
    });
    let response = client.response("POST");
    assert_eq!(
        (response.status(), response.reason(), response.body.as_slice()),
        (200, None, &b"all of it"[..])
    );
    sending.join().unwrap().unwrap();
}

/// A deadline that passed while the client was slow stayed with the backend's connection into its next exchange.
fn a_connection_that_served_a_slow_reader_serves_the_next(driver: Driver) {
    let body = noise(4, 420_000);
    let big = ok(&body);
    let backend = Backend::answering(move |request| match request.target() {
        "/big" => big.clone(),
        _ => ok(b"small"),
    });
    let weir = with_short(driver, &backend, "timeouts.response_body").start();
    let mut next = weir.client();
    for _ in 0..2 {
        let mut slow = narrow_client(&weir);
        slow.send("GET /big HTTP/1.1\r\nHost: t\r\n\r\n");
        slow.read_head().unwrap();
        let (got, end) = read_steadily(&mut slow, body.len());
        assert_eq!(end, None, "after {} bytes", got.len());
        assert_same_bytes("a slow body", &got, &body);
        for _ in 0..3 {
            let response = next.get("/small");
            assert_eq!(
                (response.status(), response.reason(), response.body.as_slice()),
                (200, None, &b"small"[..])
            );
        }
    }
    assert_eq!(backend.connections(), 1, "what is whole is reused");
}

/// Connects to `port` that got no answer yet, anybody's.
fn connecting_to(port: u16) -> usize {
    const SYN_SENT: &str = "02";
    let peer = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let mut columns = line.split_whitespace().skip(2);
            columns.next().is_some_and(|remote| remote.ends_with(&peer)) && columns.next() == Some(SYN_SENT)
        })
        .count()
}

/// Ending the exchange of a client that had reset ended whatever connection had taken the backend connection's place.
fn a_client_that_resets_inside_a_resend_ends_nobody_else(driver: Driver) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any_port.into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let weir = Weir::on(driver)
        .backend_url(&format!("http://{address}"))
        .set("timeouts.connect", "9s")
        .start();

    let mut client = weir.client();
    client.send("GET /1 HTTP/1.1\r\nHost: t\r\n\r\n");
    let mut reused = Wire::over_tcp(listener.accept().unwrap().0);
    reused.read_request().unwrap();
    reused.send(ok(b"1"));
    assert_eq!(client.response("GET").body, b"1");

    // From here on a new connect to the backend gets no answer.
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
        assert!(waiting.len() < 16, "the queue never fills");
    }
    client.send("GET /2 HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(reused.read_request().unwrap().target(), "/2");
    reused.reset();
    eventually("a second connect", || {
        (connecting_to(address.port()) == 1).then_some(())
    });
    let mut innocent = weir.client();
    innocent.send("GET /innocent HTTP/1.1\r\nHost: t\r\n");
    eventually("both clients accepted", || {
        (weir.metrics()["weir"]["connections"]["open"] == 2).then_some(())
    });
    client.reset();
    innocent.expect_silence(Duration::from_millis(400));

    drop(waiting);
    let _backend = Backend::on(listener, |conn| {
        conn.serve(|request| ok(request.target().as_bytes()))
    });
    innocent.send("\r\n");
    let response = innocent.response("GET");
    assert_eq!(
        (response.status(), response.body.as_slice()),
        (200, &b"/innocent"[..])
    );
}

/// The connection went back to the pool before the body that nobody expects arrived, and that became the next answer.
fn a_body_behind_a_head_response_answers_nobody(driver: Driver) {
    for _ in 0..5 {
        let (answered, sent) = (Gate::default(), Gate::default());
        let (on_answered, on_sent) = (answered.clone(), sent.clone());
        let backend = Backend::new(move |conn| {
            let evil = ok(b"EVIL");
            loop {
                let request = conn.read_request()?;
                if request.head.method() != "HEAD" {
                    conn.try_send(ok(b"own"))?;
                    continue;
                }
                let length = evil.len();
                conn.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))?;
                on_answered.pass();
                conn.try_send(&evil)?;
                on_sent.open();
            }
        });
        let weir = Weir::before(driver, &backend);
        let mut first = weir.client();
        let mut next = weir.client();
        first.send("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(first.response("HEAD").status(), 200);
        let start = Instant::now();
        answered.open();
        sent.pass();
        let response = next.get("/next");
        assert_eq!(
            (response.status(), response.body.as_slice()),
            (200, &b"own"[..]),
            "{:?} behind the HEAD",
            start.elapsed()
        );
        let served: Vec<(usize, String)> = backend
            .requests_by_connection()
            .iter()
            .map(|(connection, request)| (*connection, request.head.method().to_owned()))
            .collect();
        assert_eq!(served, [(0, "HEAD".to_owned()), (1, "GET".to_owned())]);
    }
}

/// Bytes that nobody reads turn a close into a reset, which takes with it what the client has not yet received.
fn bytes_behind_the_last_request_do_not_cost_its_answer(driver: Driver) {
    let body = noise(5, 400_000);
    let backend = Backend::sending(ok(&body));
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("http.max_head_bytes", "32KiB")
        .start();
    let mut clients: Vec<Wire> = (1..=8)
        .map(|n| {
            let mut client = weir.client();
            client.send("GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
            backend.wait_requests(n);
            client.send("GET /behind HTTP/1.1\r\nHost: t\r\n\r\n".repeat(3));
            client
        })
        .collect();
    // The reader is late: by now the answer has left weir as far as it will.
    thread::sleep(Duration::from_millis(100));
    for client in &mut clients {
        let response = client.response("GET");
        assert_same_bytes("the last answer", &response.body, &body);
        assert!(response.lists("connection", "close"), "{:?}", response.head);
        client.expect_closed();
    }
    assert!(
        backend
            .requests()
            .iter()
            .all(|request| request.target() == "/last"),
        "nothing behind the last request is served"
    );
}

/// Where requests waited for a socket, one that came free was closed and another opened for the next in the queue.
fn scarce_sockets_are_passed_on(driver: Driver) {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 50;
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("upstream.max_connections", 2)
        .start();
    let answers: Vec<(u16, Option<String>)> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = weir.client();
                    (0..REQUESTS)
                        .map(|_| {
                            let response = client.get("/");
                            (response.status(), response.reason().map(str::to_owned))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    assert_eq!(answers.len(), CLIENTS * REQUESTS);
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(refused.is_empty(), "{} refused: {refused:?}", refused.len());
    let connects = weir.metrics()["backends"][backend.url()]["connects"]
        .as_u64()
        .unwrap();
    assert!((1..40).contains(&connects), "{connects} connects");
    assert_eq!(backend.connections() as u64, connects);
}

/// A tunnel began in the middle of the request's body, and the rest of the body was its first bytes.
fn a_101_inside_the_request_body_is_a_bad_response(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.read_exact(3)?;
        conn.try_send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nfrom the tunnel",
        )?;
        conn.hang()
    });
    let weir = Weir::before(driver, &backend);
    for framing in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let mut client = weir.client();
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: other\r\n{framing}"
        ));
        let response = client.response("POST");
        assert_eq!(
            (response.status(), response.reason()),
            (502, Some("bad_response")),
            "{framing}"
        );
        assert!(response.lists("connection", "close"), "{:?}", response.head);
        // It may come late or into a connection that is over; to the backend it must not come.
        let _ = client.try_send("into the tunnel");
        client.half_close();
        client.expect_closed();
    }
    for index in 0..2 {
        backend.wait_end(index);
        let record = backend.record(index);
        assert!(
            !record.raw.windows(6).any(|window| window == b"tunnel"),
            "{record:?}"
        );
    }
}

/// A client whose body nobody wants any more kept a stopping weir alive for as long as it kept its connection.
fn a_client_that_lingers_does_not_hold_up_the_end(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.try_send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")?;
        conn.hang()
    });
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("shutdown.idle_grace", "200ms")
        .start();
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(client.response("POST").status(), 413);
    let stopped = weir.stop();
    assert_eq!(stopped.code, Some(0));
    assert!(stopped.took < Duration::from_millis(1200), "{stopped:?}");
    // Only now may the client go.
    drop(client);
}

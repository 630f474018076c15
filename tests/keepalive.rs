//! Connections that live on: on the client's side, on the backend's side, in HTTP/1.1 and HTTP/1.0, and pipelined.

#[macro_use]
mod support;

use support::wire::End;
use support::{Backend, Driver, Framing, Weir, ok};

on_both_drivers!(
    one_connection_on_each_side_serves_many_requests,
    a_backend_connection_serves_the_next_client,
    connection_close_ends_the_client_side_only,
    a_backend_that_closes_leaves_the_client_connected,
    a_backend_that_says_close_but_does_not_is_not_reused,
    http_1_0_is_closed_after_the_response,
    http_1_0_keep_alive_is_kept_when_the_length_is_known,
    an_http_1_0_backend_is_not_reused_unless_it_says_keep_alive,
    pipelined_requests_are_answered_in_order,
    pipelined_bodies_stay_with_their_requests,
    nothing_runs_behind_connection_close,
    max_requests_per_connection_closes_after_the_last,
    empty_lines_before_a_request_are_skipped,
    a_head_may_come_byte_by_byte,
    backends_take_turns,
    idle_backend_connections_past_max_idle_are_closed,
);

fn one_connection_on_each_side_serves_many_requests(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for n in 0..50 {
        let response = client.get(&format!("/{n}"));
        assert_eq!(
            (response.status(), response.body),
            (200, format!("/{n}").into_bytes())
        );
    }
    assert_eq!(backend.connections(), 1);
    assert_eq!(backend.requests().len(), 50);
}

fn a_backend_connection_serves_the_next_client(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    for _ in 0..10 {
        assert_eq!(weir.client().get("/").status(), 200);
    }
    assert_eq!(backend.connections(), 1);
}

fn connection_close_ends_the_client_side_only(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    for value in ["close", "Close", "x-unused, close"] {
        let mut client = weir.client();
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: t\r\nConnection: {value}\r\n\r\n"
        ));
        let response = client.response("GET");
        assert_eq!(response.status(), 200);
        assert!(response.lists("connection", "close"), "{:?}", response.head);
        client.expect_eof();
    }
    assert_eq!(backend.connections(), 1, "the backend's connection is weir's own");
    for request in backend.requests() {
        assert!(!request.lists("connection", "close"), "{:?}", request.head);
    }
}

fn a_backend_that_closes_leaves_the_client_connected(driver: Driver) {
    let backend =
        Backend::sending_then_close("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.body, b"ok");
        assert!(!response.lists("connection", "close"), "{:?}", response.head);
    }
    assert_eq!(backend.connections(), 3);
}

fn a_backend_that_says_close_but_does_not_is_not_reused(driver: Driver) {
    let backend = Backend::sending("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").body, b"ok");
    }
    assert_eq!(backend.connections(), 3);
    assert_eq!(backend.wait_end(0), End::Closed, "weir closes it, too");
}

fn http_1_0_is_closed_after_the_response(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.body, b"/old");
    client.expect_eof();
    let requests = backend.wait_requests(1);
    assert_eq!(
        requests[0].start, "GET /old HTTP/1.1",
        "weir speaks its own version"
    );
    assert_eq!(requests[0].all("host").len(), 1, "and always a Host");
}

fn http_1_0_keep_alive_is_kept_when_the_length_is_known(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for n in 0..3 {
        client.send(format!(
            "GET /{n} HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\n\r\n"
        ));
        let response = client.response("GET");
        assert_eq!(response.body, format!("/{n}").into_bytes());
        assert!(response.lists("connection", "keep-alive"), "{:?}", response.head);
    }
    client.send("GET /last HTTP/1.0\r\nHost: t\r\n\r\n");
    assert_eq!(client.response("GET").body, b"/last");
    client.expect_eof();
}

fn an_http_1_0_backend_is_not_reused_unless_it_says_keep_alive(driver: Driver) {
    let backend = Backend::answering(|request| match request.target() {
        "/kept" => b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nkept".to_vec(),
        _ => b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold".to_vec(),
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    assert_eq!(client.get("/").body, b"old");
    let response = client.get("/");
    assert_eq!(response.body, b"old");
    assert!(
        response.start.starts_with("HTTP/1.1 "),
        "weir speaks its own version: {}",
        response.start
    );
    assert_eq!(backend.connections(), 2);
    assert_eq!(client.get("/kept").body, b"kept");
    assert_eq!(client.get("/kept").body, b"kept");
    assert_eq!(backend.connections(), 3);
}

fn pipelined_requests_are_answered_in_order(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    let pipeline: String = (0..100)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n"))
        .collect();
    client.send(pipeline);
    for n in 0..100 {
        assert_eq!(client.response("GET").body, format!("/{n}").into_bytes());
    }
    assert!(client.leftover().is_empty());
}

fn pipelined_bodies_stay_with_their_requests(driver: Driver) {
    let backend = Backend::answering(|request| ok(&request.body));
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(
        "POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc\
         POST /b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n2\r\n/x\r\n0\r\n\r\n\
         GET /c HTTP/1.1\r\nHost: t\r\n\r\n\
         POST /d HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n\
         PUT /e HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\ne",
    );
    for body in ["abc", "GET /x", "", "", "e"] {
        assert_eq!(client.response("POST").body, body.as_bytes());
    }
    let targets: Vec<String> = backend
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    assert_eq!(targets, ["/a", "/b", "/c", "/d", "/e"]);
}

fn nothing_runs_behind_connection_close(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(
        "GET /1 HTTP/1.1\r\nHost: t\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: t\r\n\r\n",
    );
    assert_eq!(client.response("GET").body, b"/1");
    assert_eq!(client.response("GET").body, b"/2");
    client.expect_closed();
    assert_eq!(weir.client().get("/later").body, b"/later");
    assert_eq!(backend.requests().len(), 3, "/1, /2 and /later");
}

fn max_requests_per_connection_closes_after_the_last(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("server.max_requests_per_connection", 3)
        .start();
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n".repeat(5));
    for last in [false, false, true] {
        let response = client.response("GET");
        assert_eq!(response.status(), 200);
        assert_eq!(response.lists("connection", "close"), last);
    }
    client.expect_closed();
    assert_eq!(backend.requests().len(), 3);
}

fn empty_lines_before_a_request_are_skipped(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("\r\nGET /1 HTTP/1.1\r\nHost: t\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.response("GET").body, b"/1");
    assert_eq!(client.response("GET").body, b"/2");
}

fn a_head_may_come_byte_by_byte(driver: Driver) {
    let backend = Backend::new(|conn| {
        loop {
            conn.read_request()?;
            conn.send_slowly(&ok(b"slow"), 1, std::time::Duration::from_micros(200))?;
        }
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    let request =
        b"POST /b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nT: u\r\n\r\n";
    for _ in 0..2 {
        client
            .send_slowly(request, 1, std::time::Duration::from_micros(200))
            .unwrap();
        let response = client.response("POST");
        assert_eq!(
            (response.framing, response.body.as_slice()),
            (Framing::Length(4), &b"slow"[..])
        );
    }
    assert_eq!(
        backend.requests()[1].raw_body,
        b"3;e=1\r\nabc\r\n0\r\nT: u\r\n\r\n"
    );
    assert_eq!(backend.connections(), 1);
}

fn backends_take_turns(driver: Driver) {
    let backends = ["a", "b", "c"].map(|name| Backend::sending(ok(name.as_bytes())));
    let setup = backends
        .iter()
        .fold(Weir::on(driver), |setup, backend| setup.backend(backend));
    let weir = setup.start();
    let mut client = weir.client();
    let bodies: Vec<Vec<u8>> = (0..9).map(|_| client.get("/").body).collect();
    assert_eq!(bodies[..3], bodies[3..6]);
    assert_eq!(bodies[..3], bodies[6..]);
    for backend in &backends {
        assert_eq!(backend.requests().len(), 3);
    }
}

fn idle_backend_connections_past_max_idle_are_closed(driver: Driver) {
    let gate = support::Gate::default();
    let waits = gate.clone();
    let backend = Backend::answering(move |request| {
        waits.pass();
        ok(request.target().as_bytes())
    });
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("upstream.max_idle", 1)
        .start();
    let mut clients: Vec<_> = (0..3).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    backend.wait_requests(3);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").status(), 200);
    }
    let closed = support::eventually("two of three backend connections closed", || {
        let ended: Vec<usize> = (0..3)
            .filter(|index| backend.record(*index).end.is_some())
            .collect();
        (ended.len() >= 2).then_some(ended)
    });
    assert_eq!(closed.len(), 2, "one is kept");
    assert_eq!(clients[0].get("/").status(), 200);
    assert_eq!(backend.connections(), 3, "and used again");
}

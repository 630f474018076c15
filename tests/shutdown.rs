//! Being told to stop.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use support::wire::End;
use support::{Backend, Driver, Gate, Weir, Wire, eventually, ok};

on_both_drivers!(
    nothing_to_do_ends_at_once,
    sigint_is_the_same,
    what_is_in_flight_is_answered_with_connection_close,
    a_response_that_streams_is_finished,
    a_request_that_streams_is_finished,
    an_idle_connection_gets_its_grace,
    idle_connections_are_closed_behind_the_grace,
    what_waits_in_the_queue_is_served,
    new_clients_are_refused_while_it_drains,
    during_the_delay_it_is_not_ready_and_still_accepts,
    at_the_timeout_what_is_left_is_cut,
    a_second_signal_ends_at_once,
    a_tunnel_may_finish,
    the_backends_connections_are_closed,
);

/// A backend that answers when the gate opens.
fn gated() -> (Backend, Gate) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::answering(move |request| {
        if request.target() != "/quick" {
            waits.pass();
        }
        ok(request.target().as_bytes())
    });
    (backend, gate)
}

fn refused(address: &str) -> bool {
    Wire::try_connect(address).is_err()
}

/// Waits until the listener is closed: connecting sooner would only add to its queue.
fn wait_not_ready(weir: &Weir) {
    eventually("not ready", || {
        match Wire::try_connect(weir.admin.as_deref().unwrap()) {
            Ok(mut admin) => {
                admin
                    .try_send("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    .ok()?;
                admin
                    .read_response("GET")
                    .is_ok_and(|response| response.status() == 503)
                    .then_some(())
            }
            Err(_) => Some(()),
        }
    });
}

fn nothing_to_do_ends_at_once(driver: Driver) {
    let backend = Backend::plain();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("runtime.workers", 2)
        .start();
    let stopped = weir.stop();
    assert_eq!(stopped.code, Some(0));
    assert!(stopped.took < Duration::from_secs(1), "{stopped:?}");
}

fn sigint_is_the_same(driver: Driver) {
    let (backend, gate) = gated();
    let mut weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    backend.wait_requests(1);
    weir.signal(libc::SIGINT);
    wait_not_ready(&weir);
    gate.open();
    assert_eq!(client.response("GET").status(), 200);
    assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(0));
}

fn what_is_in_flight_is_answered_with_connection_close(driver: Driver) {
    let (backend, gate) = gated();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("runtime.workers", 2)
        .start();
    let mut clients: Vec<Wire> = (0..16).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    backend.wait_requests(16);
    weir.signal(libc::SIGTERM);
    wait_not_ready(&weir);
    // Longer than the grace of idle connections, so that only the answers are left to wait for.
    std::thread::sleep(Duration::from_millis(500));
    assert!(weir.is_running());
    gate.open();
    for client in &mut clients {
        let response = client.response("GET");
        assert_eq!(response.body, b"/slow");
        assert!(response.lists("connection", "close"), "{:?}", response.head);
        client.expect_eof();
    }
    let stopped = weir.wait_exit(support::DEADLINE);
    assert_eq!(stopped.code, Some(0));
    assert!(
        stopped.took < Duration::from_millis(300),
        "its last answer was {:?} ago",
        stopped.took
    );
}

fn a_response_that_streams_is_finished(driver: Driver) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::new(move |conn| {
        conn.read_request()?;
        conn.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        waits.pass();
        conn.try_send("4\r\nlast\r\n0\r\n\r\n")?;
        conn.hang()
    });
    let mut weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let head = client.read_head().unwrap();
    weir.signal(libc::SIGTERM);
    wait_not_ready(&weir);
    gate.open();
    let framing = head.response_framing("GET");
    assert_eq!(
        client.read_body(head, framing, Vec::new()).unwrap().body,
        b"firstlast"
    );
    client.expect_eof();
    assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(0));
}

fn a_request_that_streams_is_finished(driver: Driver) {
    let backend = Backend::answering(|request| ok(&request.body));
    let mut weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nfirst");
    backend.wait_heads(1);
    weir.signal(libc::SIGTERM);
    wait_not_ready(&weir);
    eventually("the listener is closed", || refused(weir.address()).then_some(()));
    client.send("last");
    let response = client.response("POST");
    assert_eq!(response.body, b"firstlast");
    assert!(response.lists("connection", "close"));
    client.expect_eof();
    assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(0));
}

fn an_idle_connection_gets_its_grace(driver: Driver) {
    let backend = Backend::plain();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("shutdown.idle_grace", "2s")
        .start();
    let mut client = weir.client();
    assert_eq!(client.get("/before").status(), 200);
    weir.signal(libc::SIGTERM);
    wait_not_ready(&weir);
    eventually("the listener is closed", || refused(weir.address()).then_some(()));
    // A request that was already on its way when the listener closed.
    let response = client.get("/after");
    assert_eq!(response.body, b"/after");
    assert!(response.lists("connection", "close"), "{:?}", response.head);
    client.expect_eof();
    assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(0));
}

fn idle_connections_are_closed_behind_the_grace(driver: Driver) {
    let backend = Backend::plain();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("shutdown.idle_grace", "500ms")
        .start();
    let mut used = weir.client();
    assert_eq!(used.get("/").status(), 200);
    let mut silent = weir.client();
    // The accept is certain once a later connection has been served.
    assert_eq!(weir.client().get("/").status(), 200);
    let start = Instant::now();
    weir.signal(libc::SIGTERM);
    used.expect_eof();
    assert!(
        start.elapsed() >= Duration::from_millis(450),
        "{:?}",
        start.elapsed()
    );
    silent.expect_closed();
    let stopped = weir.wait_exit(support::DEADLINE);
    assert_eq!(stopped.code, Some(0));
    assert!(
        start.elapsed() < Duration::from_millis(1500),
        "{:?}",
        start.elapsed()
    );
}

fn what_waits_in_the_queue_is_served(driver: Driver) {
    let backend = Backend::plain();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("runtime.workers", 2)
        .start();
    weir.signal(libc::SIGSTOP);
    let mut clients: Vec<Wire> = (0..40).map(|_| weir.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n"));
    }
    weir.signal(libc::SIGTERM);
    weir.signal(libc::SIGCONT);
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.response("GET");
        assert_eq!(response.body, format!("/{n}").into_bytes());
        client.expect_closed();
    }
    assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(0));
}

fn new_clients_are_refused_while_it_drains(driver: Driver) {
    let (backend, gate) = gated();
    let mut weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    backend.wait_requests(1);
    weir.signal(libc::SIGTERM);
    wait_not_ready(&weir);
    eventually("the listener is closed", || refused(weir.address()).then_some(()));
    gate.open();
    assert_eq!(client.response("GET").status(), 200);
    assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(0));
}

fn during_the_delay_it_is_not_ready_and_still_accepts(driver: Driver) {
    let backend = Backend::plain();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("shutdown.delay", "1s")
        .start();
    assert_eq!(weir.admin_get("/readyz").status(), 200);
    let start = Instant::now();
    weir.signal(libc::SIGTERM);
    wait_not_ready(&weir);
    assert_eq!(weir.admin_get("/livez").status(), 200, "not ready is not dead");
    while start.elapsed() < Duration::from_millis(700) {
        assert_eq!(weir.admin_get("/readyz").status(), 503);
        assert_eq!(
            weir.client().get("/new").body,
            b"/new",
            "a new client after {:?}",
            start.elapsed()
        );
    }
    assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(0));
    assert!((Duration::from_millis(950)..Duration::from_millis(2500)).contains(&start.elapsed()));
    assert!(refused(weir.address()));
}

fn at_the_timeout_what_is_left_is_cut(driver: Driver) {
    let (backend, _gate) = gated();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("shutdown.timeout", "500ms")
        .start();
    let mut client = weir.client();
    client.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    backend.wait_requests(1);
    let start = Instant::now();
    let stopped = weir.stop();
    assert_eq!(stopped.code, Some(1), "something was cut");
    assert!(
        start.elapsed() >= Duration::from_millis(450),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_millis(2000),
        "{:?}",
        start.elapsed()
    );
    let rest = client.read_to_end();
    assert_ne!(rest.end, End::Silent);
    assert!(
        rest.got.is_empty() || rest.got.starts_with(b"HTTP/1.1 503 "),
        "{rest:?}"
    );
}

fn a_second_signal_ends_at_once(driver: Driver) {
    let (backend, _gate) = gated();
    let mut weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    backend.wait_requests(1);
    weir.signal(libc::SIGTERM);
    wait_not_ready(&weir);
    assert!(weir.is_running());
    let stopped = weir.stop();
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.took < Duration::from_secs(1), "{stopped:?}");
}

fn a_tunnel_may_finish(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.try_send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
        loop {
            let bytes = conn.read_some()?;
            conn.try_send(bytes)?;
        }
    });
    let mut weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_eq!(client.response("GET").status(), 101);
    weir.signal(libc::SIGTERM);
    wait_not_ready(&weir);
    client.expect_silence(Duration::from_millis(500));
    client.send("still here");
    assert_eq!(client.read_exact(10).unwrap(), b"still here");
    drop(client);
    let stopped = weir.wait_exit(support::DEADLINE);
    assert_eq!(stopped.code, Some(0));
    assert!(stopped.took < Duration::from_millis(500), "{stopped:?}");
}

fn the_backends_connections_are_closed(driver: Driver) {
    let backend = Backend::plain();
    let mut weir = Weir::before(driver, &backend);
    assert_eq!(weir.client().get("/").status(), 200);
    assert_eq!(weir.stop().code, Some(0));
    assert_eq!(backend.wait_end(0), End::Closed);
    assert!(backend.violations().is_empty());
}

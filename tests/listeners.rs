//! Where weir listens and where it connects to.

#[macro_use]
mod support;

use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::{Backend, Driver, Weir, Wire, eventually};

on_both_drivers!(
    every_address_of_a_list_serves,
    a_unix_listener_serves_and_can_be_taken_over,
    a_unix_backend_serves,
    a_name_is_resolved_and_its_addresses_are_tried_in_order,
    a_taken_port_is_exit_3,
    a_taken_admin_port_is_exit_3,
    several_workers_share_a_port,
    at_max_connections_the_next_client_waits,
    a_client_from_anywhere_is_told_to_the_backend,
    the_start_is_logged_fact_by_fact,
    an_unread_backlog_is_served_when_weir_is_slow,
);

fn every_address_of_a_list_serves(driver: Driver) {
    let backend = Backend::plain();
    let mut addresses = vec!["127.0.0.1:0", "127.0.0.2:0"];
    if UdpSocket::bind("[::1]:0").is_ok() {
        addresses.push("[::1]:0");
    }
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("server.address", addresses.clone())
        .start();
    assert_eq!(weir.listeners.len(), addresses.len());
    for (actual, asked) in weir.listeners.iter().zip(addresses) {
        assert!(
            actual.starts_with(asked.trim_end_matches('0')) && !actual.ends_with(":0"),
            "{actual} for {asked}"
        );
        assert_eq!(Wire::connect(actual).get("/").status(), 200);
    }
}

fn a_unix_listener_serves_and_can_be_taken_over(driver: Driver) {
    let backend = Backend::plain();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.sock");
    let address = format!("unix:{}", path.display());
    let setup = || {
        Weir::on(driver)
            .backend(&backend)
            .set("server.address", address.as_str())
    };
    let mut weir = setup().set("runtime.workers", 2).start();
    assert_eq!(weir.listeners.join(" "), address);
    for _ in 0..10 {
        let mut client = Wire::connect(&address);
        assert_eq!(client.get("/u").body, b"/u");
    }
    let request = backend.wait_requests(1).pop().unwrap();
    assert_ne!(
        request.get("x-forwarded-for"),
        Some("127.0.0.1"),
        "a Unix peer has no address"
    );
    assert_eq!(weir.stop().code, Some(0));
    assert!(UnixStream::connect(&path).is_err(), "nobody listens any more");
    let mut killed = setup().start();
    killed.signal(libc::SIGKILL);
    killed.wait_exit(support::DEADLINE);
    // A ring is torn down some milliseconds after its process.
    eventually("its socket is dead", || {
        UnixStream::connect(&path).is_err().then_some(())
    });
    let weir = setup().start();
    assert_eq!(
        Wire::connect(weir.address()).get("/").status(),
        200,
        "a dead process's socket file is in nobody's way"
    );
}

fn a_unix_backend_serves(driver: Driver) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backend.sock");
    let backend = Backend::on_unix(&path, |conn| conn.serve(|request| support::ok(&request.body)));
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(client.response("POST").body, b"hello");
    }
    assert_eq!(backend.connections(), 1);
    assert_eq!(backend.requests()[0].get("host"), Some("t"));
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test may wait for a look-up; no data path is near"
)]
fn a_name_is_resolved_and_its_addresses_are_tried_in_order(driver: Driver) {
    let mut addresses: Vec<_> = ("localhost", 0).to_socket_addrs().unwrap().collect();
    addresses.dedup();
    if addresses.len() == 1 {
        println!("SKIPPED IN PART: nothing to try in order, localhost is {addresses:?} alone");
    }
    // Nobody listens on the others, so that each of them is tried in vain.
    let last = TcpListener::bind(addresses.last().unwrap()).unwrap();
    let url = format!("http://localhost:{}", last.local_addr().unwrap().port());
    let _backend = Backend::on(last, |conn| {
        conn.serve(|request| support::ok(request.target().as_bytes()))
    });
    let weir = Weir::on(driver).backend_url(&url).start();
    let mut client = weir.client();
    for _ in 0..5 {
        client.send("GET /n HTTP/1.1\r\nHost: t\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.response("GET").body, b"/n");
    }
    let metrics = eventually("five requests under the url as written", || {
        let metrics = weir.metrics();
        (metrics["backends"][&url]["requests"] == 5).then_some(metrics)
    });
    assert_eq!(
        metrics["total_requests"], 5,
        "under the url as written: {metrics}"
    );
    assert_eq!(
        metrics["backends"].as_object().unwrap().len(),
        1,
        "a name is one backend"
    );
}

fn a_taken_port_is_exit_3(driver: Driver) {
    let backend = Backend::plain();
    for options in [false, true] {
        let taken = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // A stranger with SO_REUSEPORT is a stranger all the same.
        taken.set_reuse_port(options).unwrap();
        taken
            .bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into())
            .unwrap();
        taken.listen(1).unwrap();
        let address = taken.local_addr().unwrap().as_socket().unwrap().to_string();
        let mut weir = Weir::on(driver)
            .backend(&backend)
            .set("server.address", address.as_str())
            .spawn();
        assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(3));
        weir.wait_log(&address);
    }
}

fn a_taken_admin_port_is_exit_3(driver: Driver) {
    let backend = Backend::plain();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("admin.address", address.as_str())
        .spawn();
    assert_eq!(weir.wait_exit(support::DEADLINE).code, Some(3));
    weir.wait_log(&address);
}

fn several_workers_share_a_port(driver: Driver) {
    let backend = Backend::plain();
    let mut weir = Weir::on(driver)
        .backend(&backend)
        .set("runtime.workers", 3)
        .start();
    assert_eq!(weir.listeners.len(), 1, "one address, whatever number of sockets");
    let mut clients: Vec<Wire> = (0..64).map(|_| weir.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    assert!(backend.connections() > 1, "more than one worker was at work");
    assert_eq!(weir.metrics()["total_requests"], 64);
    drop(clients);
    assert_eq!(weir.stop().code, Some(0));
}

fn at_max_connections_the_next_client_waits(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("server.max_connections", 2)
        .start();
    let mut first = weir.client();
    let mut second = weir.client();
    assert_eq!(first.get("/1").status(), 200);
    assert_eq!(second.get("/2").status(), 200);
    let mut third = weir.client();
    third.send("GET /3 HTTP/1.1\r\nHost: t\r\n\r\n");
    third.expect_silence(Duration::from_millis(200));
    assert_eq!(first.get("/1").status(), 200, "those who are in are served");
    drop(first);
    assert_eq!(third.response("GET").body, b"/3");
}

fn a_client_from_anywhere_is_told_to_the_backend(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("server.address", ":0")
        .start();
    let port = weir.address().rsplit(':').next().unwrap().to_owned();
    assert_eq!(
        Wire::connect(&format!("127.0.0.1:{port}")).get("/4").status(),
        200
    );
    assert_eq!(
        backend.requests()[0].get("x-forwarded-for"),
        Some("127.0.0.1"),
        "not ::ffff:127.0.0.1"
    );
    if UdpSocket::bind("[::1]:0").is_ok() {
        assert_eq!(
            Wire::connect(&format!("[::1]:{port}")).get("/6").status(),
            200,
            "both families by one address"
        );
        assert_eq!(backend.requests()[1].get("x-forwarded-for"), Some("::1"));
    }
}

fn the_start_is_logged_fact_by_fact(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    for fact in [
        env!("CARGO_PKG_VERSION"),
        driver.word(),
        weir.address(),
        &backend.address,
    ] {
        weir.wait_log(fact);
    }
}

fn an_unread_backlog_is_served_when_weir_is_slow(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    weir.signal(libc::SIGSTOP);
    let mut clients: Vec<Wire> = (0..100).map(|_| weir.client()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n"));
    }
    weir.signal(libc::SIGCONT);
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response("GET").body, format!("/{n}").into_bytes());
    }
    drop(clients);
    eventually("descriptors are given back", || {
        (weir.open_descriptors() < 150).then_some(())
    });
}

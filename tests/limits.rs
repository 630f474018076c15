//! What weir does at its own limits: descriptors, buffer memory, sockets per backend.

#[macro_use]
mod support;

use std::thread;
use std::time::Duration;

use support::wire::End;
use support::{Backend, Driver, Gate, Weir, Wire, assert_same_bytes, eventually, noise, ok};

on_both_drivers!(
    the_longest_idle_client_makes_room_for_a_new_one,
    busy_clients_are_not_closed_for_new_ones,
    out_of_descriptors_burns_no_core_and_recovers,
    at_the_buffer_limit_nothing_aborts,
    those_who_do_not_read_do_not_stall_one_who_does,
    sockets_per_backend_are_bounded,
    idle_clients_hold_no_buffer,
);

/// Few enough to be used up quickly, enough for ring, log and listeners.
const NOFILE: u64 = 96;

fn the_longest_idle_client_makes_room_for_a_new_one(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver).backend(&backend).nofile(NOFILE).start();
    let mut clients = Vec::new();
    for n in 0..2 * NOFILE {
        let mut client = weir.client();
        let response = client.get(&format!("/{n}"));
        assert_eq!(
            (response.status(), response.body),
            (200, format!("/{n}").into_bytes()),
            "client {n}"
        );
        clients.push(client);
    }
    let newest = clients.last_mut().unwrap();
    assert_eq!(newest.get("/again").status(), 200, "the newest lives");
    clients[0].expect_closed();
    clients[1].expect_closed();
    assert!(weir.open_descriptors() <= NOFILE as usize);
}

fn busy_clients_are_not_closed_for_new_ones(driver: Driver) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::answering(move |request| {
        if request.target() == "/busy" {
            waits.pass();
        }
        ok(request.target().as_bytes())
    });
    let weir = Weir::on(driver).backend(&backend).nofile(NOFILE).start();
    let mut busy: Vec<Wire> = (0..10).map(|_| weir.client()).collect();
    for client in &mut busy {
        client.send("GET /busy HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    backend.wait_requests(10);
    let mut idle = Vec::new();
    for n in 0..NOFILE {
        let mut client = weir.client();
        assert_eq!(client.get("/").status(), 200, "client {n}");
        idle.push(client);
    }
    gate.open();
    for client in &mut busy {
        assert_eq!(client.response("GET").body, b"/busy");
    }
}

fn out_of_descriptors_burns_no_core_and_recovers(driver: Driver) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::answering(move |request| {
        if request.target() == "/busy" {
            waits.pass();
        }
        ok(request.target().as_bytes())
    });
    let weir = Weir::on(driver).backend(&backend).nofile(NOFILE).start();
    // All of them busy: nobody is idle who could make room.
    let mut clients: Vec<Wire> = (0..2 * NOFILE).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send("GET /busy HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    backend.wait_requests(8);
    let before = weir.cpu();
    thread::sleep(Duration::from_millis(500));
    let spent = weir.cpu() - before;
    assert!(
        spent < Duration::from_millis(150),
        "{spent:?} of CPU in half a second of waiting"
    );
    gate.open();
    for (n, client) in clients.iter_mut().enumerate() {
        let response = client.response("GET");
        match response.status() {
            200 => assert_eq!(response.body, b"/busy"),
            // A client that was let in may hear that there is no descriptor for a backend connection.
            503 => assert_eq!(response.reason(), Some("overload"), "client {n}"),
            status => panic!("client {n}: {status}"),
        }
    }
    drop(clients);
    assert_eq!(weir.client().get("/after").status(), 200);
}

fn at_the_buffer_limit_nothing_aborts(driver: Driver) {
    const SIZE: usize = 8 << 20;
    let backend = Backend::answering(|request| match request.target() {
        "/big" => ok(&noise(1, SIZE)),
        target => ok(target.as_bytes()),
    });
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("limits.buffer_memory", "4MiB")
        .start();
    let mut slow: Vec<Wire> = Vec::new();
    // Clients that ask and do not read, until a new one hears that there is no room.
    let refused = eventually("the limit is reached", || {
        let mut client = weir.client();
        client.set_receive_buffer(16 << 10);
        client.send("GET /big HTTP/1.1\r\nHost: t\r\n\r\n");
        slow.push(client);
        assert!(slow.len() < 400, "400 clients in 4 MiB of buffers");
        thread::sleep(Duration::from_millis(5));
        let mut probe = weir.client().deadline(Duration::from_millis(300));
        probe.send("GET /probe HTTP/1.1\r\nHost: t\r\n\r\n");
        match probe.read_response("GET") {
            Ok(response) if response.status() == 200 => None,
            Ok(response) => Some(response),
            Err(broken) => {
                assert_eq!(broken.end, End::Silent, "reads may wait, but nothing aborts");
                None
            }
        }
    });
    assert_eq!((refused.status(), refused.reason()), (503, Some("out_of_memory")));
    // They all begin to read: everything that was promised comes.
    thread::scope(|scope| {
        for (n, client) in slow.iter_mut().enumerate() {
            client.set_receive_buffer(1 << 20);
            scope.spawn(move || {
                let response = client.response("GET");
                match response.status() {
                    200 => assert_same_bytes(&format!("client {n}"), &response.body, &noise(1, SIZE)),
                    503 => assert_eq!(response.reason(), Some("out_of_memory")),
                    status => panic!("client {n}: {status}"),
                }
            });
        }
    });
    drop(slow);
    assert_eq!(weir.client().get("/after").body, b"/after");
}

/// Who holds buffers and does not read must not stop an exchange that has one from using it again.
fn those_who_do_not_read_do_not_stall_one_who_does(driver: Driver) {
    const SIZE: usize = 8 << 20;
    let backend = Backend::answering(|_| ok(&noise(1, SIZE)));
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("limits.buffer_memory", "4MiB")
        .start();
    let ask = || {
        let mut client = weir.client();
        client.send("GET /big HTTP/1.1\r\nHost: t\r\n\r\n");
        client
    };
    let mut reader = ask();
    backend.wait_requests(1);
    let idle: Vec<Wire> = (0..60).map(|_| ask()).collect();
    let response = reader.response("GET");
    assert_same_bytes("the one who reads", &response.body, &noise(1, SIZE));
    drop(idle);
}

fn sockets_per_backend_are_bounded(driver: Driver) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::answering(move |request| {
        if request.target() == "/busy" {
            waits.pass();
        }
        ok(request.target().as_bytes())
    });
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("upstream.max_connections", 2)
        .start();
    let mut busy: Vec<Wire> = (0..2).map(|_| weir.client()).collect();
    for client in &mut busy {
        client.send("GET /busy HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    backend.wait_requests(2);
    let mut third = weir.client();
    let response = third.get("/third");
    assert_eq!(
        (response.status(), response.reason()),
        (503, Some("queue_timeout"))
    );
    gate.open();
    for client in &mut busy {
        assert_eq!(client.response("GET").body, b"/busy");
    }
    assert_eq!(third.get("/third").body, b"/third");
    assert_eq!(backend.connections(), 2);
}

fn idle_clients_hold_no_buffer(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("limits.buffer_memory", "4MiB")
        .start();
    let mut clients: Vec<Wire> = (0..300).map(|_| weir.client()).collect();
    for _ in 0..2 {
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(
                client.get("/").status(),
                200,
                "client {n}: 300 idle ones with 16 KiB each would be 4.7 MiB"
            );
        }
    }
}

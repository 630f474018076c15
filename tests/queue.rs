//! `limits.max_inflight`: exchanges at one backend, and the queue of those that wait for a place.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use support::weir::Setup;
use support::{Backend, Conduct, Driver, Fickle, Gate, Load, Plan, Weir, Wire, eventually, ok};

on_both_drivers!(
    no_backend_has_more_in_flight_than_was_set,
    who_waits_is_served_in_order,
    a_full_queue_refuses_at_once,
    who_waits_too_long_is_refused,
    who_goes_away_leaves_the_queue,
    a_free_backend_is_taken_before_anybody_waits,
    a_place_that_one_worker_frees_wakes_the_other,
    nobody_waits_where_the_queue_has_no_room,
);

fn one_at_a_time(driver: Driver, backend: &Backend) -> Setup {
    Weir::on(driver)
        .backend(backend)
        .set("limits.max_inflight", 1)
        .set("limits.queue_timeout", "5s")
}

/// A backend that answers when a gate is opened, and the gate.
fn gated() -> (Backend, Gate) {
    let gate = Gate::default();
    let opened = gate.clone();
    let backend = Backend::answering(move |request| {
        opened.pass();
        ok(request.target().as_bytes())
    });
    (backend, gate)
}

fn ask(weir: &Weir, target: &str) -> Wire {
    let mut client = weir.client();
    client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
    client
}

/// Waits until this many exchanges were begun: those that wait are among them.
fn wait_begun(weir: &Weir, n: u64) {
    eventually(&format!("{n} exchanges begun"), || {
        (weir.metrics()["total_requests"].as_u64() >= Some(n)).then_some(())
    });
}

fn no_backend_has_more_in_flight_than_was_set(driver: Driver) {
    const MOST: u64 = 5;
    let backends = Fickle::three();
    for backend in &backends {
        backend.conduct(Conduct::After(Duration::from_millis(3)));
    }
    let weir = Weir::on(driver)
        .fickles(&backends)
        .set("runtime.workers", 2)
        .set("limits.max_inflight", MOST as i64)
        .start();
    let plan = Plan {
        connections: 48,
        ..Plan::default()
    };
    let load = Load::with(weir.address(), plan);
    load.wait_answered(1500);
    load.stop().assert_none_failed();
    for backend in &backends {
        assert_eq!(
            backend.most_in_flight(),
            MOST,
            "all places were used, and no more"
        );
    }
}

fn who_waits_is_served_in_order(driver: Driver) {
    let (backend, gate) = gated();
    let weir = one_at_a_time(driver, &backend).start();
    let mut clients: Vec<Wire> = (0..8u64)
        .map(|n| {
            let client = ask(&weir, &format!("/{n}"));
            wait_begun(&weir, n + 1);
            client
        })
        .collect();
    assert_eq!(backend.requests().len(), 1, "one is served, seven wait");
    gate.open();
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.response("GET").body, format!("/{n}").as_bytes());
    }
    let order: Vec<String> = backend
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7"]);
}

fn a_full_queue_refuses_at_once(driver: Driver) {
    let (backend, gate) = gated();
    let weir = one_at_a_time(driver, &backend).set("limits.queue", 2).start();
    let mut clients: Vec<Wire> = (0..3u64)
        .map(|n| {
            let client = ask(&weir, &format!("/{n}"));
            wait_begun(&weir, n + 1);
            client
        })
        .collect();
    let began = Instant::now();
    let answer = weir.client().get("/more");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((answer.status(), answer.reason()), (503, Some("queue_full")));
    assert!(answer.get("retry-after").is_some(), "{answer:?}");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").status(), 200);
    }
    assert_eq!(weir.client().get("/again").status(), 200);
    assert_eq!(backend.requests().len(), 4);
}

fn who_waits_too_long_is_refused(driver: Driver) {
    let (backend, gate) = gated();
    let weir = one_at_a_time(driver, &backend)
        .set("limits.queue_timeout", "300ms")
        .start();
    let mut first = ask(&weir, "/first");
    backend.wait_requests(1);
    let began = Instant::now();
    let answer = weir.client().get("/second");
    let took = began.elapsed();
    assert_eq!((answer.status(), answer.reason()), (503, Some("queue_timeout")));
    assert!(answer.get("retry-after").is_some(), "{answer:?}");
    assert!(
        (Duration::from_millis(290)..Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );
    gate.open();
    assert_eq!(first.response("GET").status(), 200);
    assert_eq!(weir.client().get("/third").status(), 200);
    assert_eq!(backend.requests().len(), 2);
}

fn who_goes_away_leaves_the_queue(driver: Driver) {
    let (backend, gate) = gated();
    let weir = one_at_a_time(driver, &backend).set("limits.queue", 2).start();
    let mut first = ask(&weir, "/first");
    backend.wait_requests(1);
    let waiting = [ask(&weir, "/a"), ask(&weir, "/b")];
    wait_begun(&weir, 3);
    waiting.into_iter().for_each(Wire::reset);
    // Their places are free again.
    let mut last = eventually("a place in the queue", || {
        let mut client = ask(&weir, "/last").deadline(Duration::from_millis(100));
        // Refused at once, or waiting.
        client.read_response("GET").is_err().then_some(client)
    })
    .deadline(support::DEADLINE);
    gate.open();
    assert_eq!(first.response("GET").status(), 200);
    assert_eq!(last.response("GET").body, b"/last");
    let targets: Vec<String> = backend
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    assert_eq!(targets, ["/first", "/last"], "nobody's request");
}

fn a_free_backend_is_taken_before_anybody_waits(driver: Driver) {
    let (busy, gate) = gated();
    let free = Fickle::new("free");
    let weir = Weir::on(driver)
        .named("busy", &busy.url())
        .fickle(&free)
        .set("limits.max_inflight", 1)
        .start();
    let mut clients = [ask(&weir, "/"), ask(&weir, "/")];
    busy.wait_requests(1);
    let mut client = weir.client();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.get("/").get("x-backend"), Some("free"));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response("GET").status(), 200);
    }
}

fn a_place_that_one_worker_frees_wakes_the_other(driver: Driver) {
    let backend = Fickle::new("a");
    backend.conduct(Conduct::After(Duration::from_millis(5)));
    let weir = Weir::on(driver)
        .fickle(&backend)
        .set("runtime.workers", 2)
        .set("limits.max_inflight", 1)
        .set("limits.queue_timeout", "3s")
        .start();
    let plan = Plan {
        connections: 24,
        ..Plan::default()
    };
    let load = Load::with(weir.address(), plan);
    load.wait_answered(400);
    let report = load.stop();
    report.assert_none_failed();
    assert_eq!(backend.most_in_flight(), 1);
    // 24 who take turns of 5 ms: nobody is passed over again and again.
    let longest = report.percentile(1.0);
    assert!(
        longest < 8 * report.percentile(0.5),
        "{longest:?}, the median {:?}",
        report.percentile(0.5)
    );
    let metrics = weir.metrics();
    for worker in metrics["weir"]["workers"].as_array().expect("workers") {
        assert!(worker["requests"].as_u64() > Some(0), "{metrics}");
    }
}

fn nobody_waits_where_the_queue_has_no_room(driver: Driver) {
    let (backend, gate) = gated();
    let weir = one_at_a_time(driver, &backend).set("limits.queue", 0).start();
    let mut first = ask(&weir, "/first");
    backend.wait_requests(1);
    let answer = weir.client().get("/second");
    assert_eq!((answer.status(), answer.reason()), (503, Some("queue_full")));
    gate.open();
    assert_eq!(first.response("GET").status(), 200);
    assert_eq!(weir.client().get("/third").status(), 200);
}

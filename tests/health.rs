//! Active health checks: who is probed how, what takes a backend out and brings it back, what counts before the first
//! probe.

#[macro_use]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use support::weir::Setup;
use support::{Backend, DEADLINE, Driver, Gate, Message, Weir, Wire, chunked, eventually, ok};

on_both_drivers!(
    a_sick_backend_is_taken_out_and_comes_back,
    rise_and_fall_count_as_configured,
    a_probe_says_what_was_configured,
    an_expected_text_decides,
    a_tcp_check_is_a_connect,
    a_unix_backend_is_probed,
    the_port_can_be_another_one,
    a_backend_that_is_down_at_the_start_gets_nothing,
    clients_wait_for_the_first_round_and_no_longer_than_one_time_out,
    a_signal_ends_the_wait_for_the_first_round,
    up_and_down_count_before_the_first_probe,
    checks_that_are_off_ask_nothing,
    a_hanging_probe_holds_up_nothing,
);

/// Checks that are over soon, and no panic: what is down gets nothing.
fn checked(driver: Driver) -> Setup {
    Weir::on(driver)
        .set("health_check.type", "http")
        .set("health_check.interval", "60ms")
        .set("health_check.fast_interval", "15ms")
        .set("health_check.panic_threshold", 0)
}

/// A backend and the status of its health endpoint, which traffic does not see.
fn switched(status: u16) -> (Backend, Arc<AtomicU16>) {
    let switch = Arc::new(AtomicU16::new(status));
    let shown = switch.clone();
    let backend = Backend::answering(move |request| match request.target() {
        "/health" => {
            let status = shown.load(Ordering::Acquire);
            format!("HTTP/1.1 {status} S\r\nContent-Length: 0\r\n\r\n").into_bytes()
        }
        target => ok(target.as_bytes()),
    });
    (backend, switch)
}

/// Requests that were not probes.
fn traffic(backend: &Backend) -> usize {
    let requests = backend.requests();
    requests
        .iter()
        .filter(|request| request.target() != "/health")
        .count()
}

/// The log line about this backend's change to `state`.
#[track_caller]
fn wait_change(weir: &Weir, backend: &Backend, from: &str, to: &str) -> serde_json::Value {
    let needle = format!(
        "\"backend\":\"{}\",\"from\":\"{from}\",\"to\":\"{to}\"",
        backend.address
    );
    serde_json::from_str(&weir.wait_log(&needle)).expect("a JSON line")
}

#[track_caller]
fn get_all(weir: &Weir, count: usize) {
    let mut client = weir.client();
    for _ in 0..count {
        assert_eq!(client.get("/").status(), 200);
    }
}

fn a_sick_backend_is_taken_out_and_comes_back(driver: Driver) {
    let (good, _) = switched(200);
    let (bad, switch) = switched(200);
    let weir = checked(driver).backend(&good).backend(&bad).start();
    get_all(&weir, 10);
    assert_eq!((traffic(&good), traffic(&bad)), (5, 5));
    switch.store(503, Ordering::Release);
    let line = wait_change(&weir, &bad, "up", "sick");
    assert_eq!(
        (&line["probes"], &line["why"]),
        (&3.into(), &"GET /health: 503".into()),
        "{line}"
    );
    get_all(&weir, 10);
    assert_eq!((traffic(&good), traffic(&bad)), (15, 5));
    switch.store(204, Ordering::Release);
    let line = wait_change(&weir, &bad, "sick", "up");
    assert_eq!(
        (&line["probes"], &line["why"]),
        (&2.into(), &"GET /health: 204".into()),
        "{line}"
    );
    get_all(&weir, 10);
    assert_eq!((traffic(&good), traffic(&bad)), (20, 10));
    // Probes are no requests of anybody's.
    let metrics = weir.metrics();
    assert_eq!(metrics["total_requests"], 30, "{metrics}");
    let shown = &metrics["backends"][bad.url()]["status_codes"];
    assert_eq!(*shown, serde_json::json!({ "200": 10 }), "{metrics}");
}

fn rise_and_fall_count_as_configured(driver: Driver) {
    let (backend, switch) = switched(200);
    let weir = checked(driver)
        .set("health_check.rise", 4)
        .set("health_check.fall", 1)
        .backend(&backend)
        .start();
    switch.store(500, Ordering::Release);
    assert_eq!(wait_change(&weir, &backend, "up", "sick")["probes"], 1);
    let refused = weir.client().get("/");
    assert_eq!((refused.status(), refused.reason()), (503, Some("no_backend")));
    let before = backend.requests().len();
    switch.store(200, Ordering::Release);
    assert_eq!(wait_change(&weir, &backend, "sick", "up")["probes"], 4);
    assert!(backend.requests().len() >= before + 3, "it took its run");
    get_all(&weir, 1);
}

fn a_probe_says_what_was_configured(driver: Driver) {
    let backend = Backend::plain();
    let headers = ["Host: app.example", "X-Probe: weir"]
        .map(toml::Value::from)
        .to_vec();
    let _weir = checked(driver)
        .set("health_check.path", "/up?deep=1")
        .set("health_check.method", "OPTIONS")
        .set("health_check.headers", headers)
        .backend(&backend)
        .start();
    let probe = backend.wait_requests(1).remove(0);
    assert_eq!(probe.head.start, "OPTIONS /up?deep=1 HTTP/1.1");
    for (name, value) in [
        ("host", "app.example"),
        ("x-probe", "weir"),
        (
            "user-agent",
            concat!("weir/", env!("CARGO_PKG_VERSION"), " health"),
        ),
        ("connection", "close"),
    ] {
        assert_eq!(probe.get(name), Some(value), "{:?}", probe.head);
    }
    let (plain, _) = switched(200);
    let _other = checked(driver).backend(&plain).start();
    let probe = plain.wait_requests(1).remove(0);
    assert_eq!(probe.get("host"), Some(plain.address.as_str()));
}

fn an_expected_text_decides(driver: Driver) {
    let answering = |body: &'static [u8]| {
        Backend::answering(move |request| match request.target() {
            "/health" => {
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                answer.extend(chunked(body, 3));
                answer
            }
            _ => ok(b"traffic"),
        })
    };
    let (ready, unready) = (answering(b"state=ready"), answering(b"state=warming up"));
    let weir = checked(driver)
        .set("health_check.expect_body", "=ready")
        .backend(&ready)
        .backend(&unready)
        .start();
    let line = wait_change(&weir, &unready, "unknown", "sick");
    assert!(
        line["why"]
            .as_str()
            .is_some_and(|why| why.contains("expect_body")),
        "{line}"
    );
    get_all(&weir, 4);
    assert_eq!((traffic(&ready), traffic(&unready)), (4, 0));
}

fn a_tcp_check_is_a_connect(driver: Driver) {
    let backend = Backend::new(|conn| match conn.read_request() {
        // A probe says nothing and goes.
        Err(_) => Ok(()),
        Ok(request) => conn.try_send(ok(request.target().as_bytes())),
    });
    let weir = checked(driver)
        .set("health_check.type", "tcp")
        .backend(&backend)
        .start();
    get_all(&weir, 1);
    backend.wait_connections(4);
    assert_eq!(backend.requests().len(), 1);
    let address = backend.address.clone();
    drop(backend);
    let line = weir.wait_log(&format!(
        "\"backend\":\"{address}\",\"from\":\"up\",\"to\":\"dead\""
    ));
    assert!(line.contains("connect refused"), "{line}");
    assert_eq!(weir.client().get("/").status(), 503);
}

fn a_unix_backend_is_probed(driver: Driver) {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::on_unix(&dir.path().join("b.sock"), |conn| {
        conn.serve(|request| ok(request.target().as_bytes()))
    });
    let weir = checked(driver)
        .set("health_check.port", 1)
        .backend(&backend)
        .start();
    assert_eq!(backend.wait_requests(1)[0].get("host"), Some("localhost"));
    get_all(&weir, 1);
    // Its file is gone, so nothing is there.
    std::fs::remove_file(dir.path().join("b.sock")).unwrap();
    weir.wait_log("\"from\":\"up\",\"to\":\"dead\"");
}

fn the_port_can_be_another_one(driver: Driver) {
    let (backend, (side, switch)) = (Backend::plain(), switched(200));
    let port: i64 = side.address.rsplit(':').next().unwrap().parse().unwrap();
    let weir = checked(driver)
        .set("health_check.port", port)
        .backend(&backend)
        .start();
    get_all(&weir, 1);
    assert_eq!(
        side.wait_requests(1)[0].get("host"),
        Some(backend.address.as_str())
    );
    switch.store(503, Ordering::Release);
    wait_change(&weir, &backend, "up", "sick");
    assert_eq!(weir.client().get("/").status(), 503);
    assert_eq!(backend.requests().len(), 1, "its own port sees traffic alone");
}

fn a_backend_that_is_down_at_the_start_gets_nothing(driver: Driver) {
    let (good, _) = switched(200);
    let (bad, _) = switched(500);
    let gone = Backend::plain().url();
    let weir = checked(driver)
        .set("health_check.interval", "1h")
        .set("health_check.fast_interval", "1h")
        .backend(&good)
        .backend(&bad)
        .backend_url(&gone)
        .start();
    get_all(&weir, 6);
    assert_eq!((traffic(&good), traffic(&bad)), (6, 0));
    let line = weir.wait_log("backends are known");
    assert!(line.contains("\"up\":1,\"sick\":1,\"dead\":1"), "{line}");
}

/// A client that has connected before weir serves; on a Unix socket, since its address is known before.
fn early_client(path: &Path) -> Wire {
    let address = format!("unix:{}", path.display());
    let mut client = eventually("a listener", || Wire::try_connect(&address).ok());
    client.send("GET /early HTTP/1.1\r\nHost: t\r\n\r\n");
    client
}

fn clients_wait_for_the_first_round_and_no_longer_than_one_time_out(driver: Driver) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.sock");
    let (good, _) = switched(200);
    let gate = Gate::default();
    let slow = {
        let gate = gate.clone();
        Backend::answering(move |request| {
            if request.target() == "/health" {
                gate.pass();
            }
            ok(b"")
        })
    };
    let _weir = checked(driver)
        .set("server.address", format!("unix:{}", path.display()))
        .set("health_check.timeout", "20s")
        .backend(&slow)
        .backend(&good)
        .spawn();
    let mut client = early_client(&path);
    slow.wait_requests(1);
    good.wait_requests(1);
    client.expect_silence(Duration::from_millis(100));
    gate.open();
    assert_eq!(client.response("GET").status(), 200);
    // Who says nothing at all is waited for as long as a probe may take.
    let silent = Backend::new(|conn| conn.hang());
    let began = Instant::now();
    let weir = checked(driver)
        .set("health_check.timeout", "300ms")
        .backend(&silent)
        .backend(&good)
        .start();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert_eq!(weir.client().get("/").status(), 200);
    wait_change(&weir, &silent, "unknown", "sick");
}

fn a_signal_ends_the_wait_for_the_first_round(driver: Driver) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weir.sock");
    let silent = Backend::new(|conn| conn.hang());
    let mut weir = checked(driver)
        .set("server.address", format!("unix:{}", path.display()))
        .set("health_check.timeout", "1h")
        .backend(&silent)
        .spawn();
    silent.wait_connections(1);
    let stopped = weir.stop();
    assert_eq!(stopped.code, Some(0));
    assert!(!path.exists(), "the socket's file is left");
}

fn up_and_down_count_before_the_first_probe(driver: Driver) {
    let gate = Gate::default();
    let backend = || {
        let gate = gate.clone();
        Backend::answering(move |request: &Message| {
            if request.target() == "/health" {
                gate.pass();
            }
            ok(b"")
        })
    };
    let (first, second) = (backend(), backend());
    let up = checked(driver)
        .set("health_check.start", "up")
        .backend(&first)
        .start();
    let down = checked(driver)
        .set("health_check.start", "down")
        .backend(&second)
        .start();
    get_all(&up, 1);
    assert_eq!(down.client().get("/").status(), 503);
    gate.open();
    wait_change(&down, &second, "sick", "up");
    get_all(&down, 1);
    assert!(!up.logged("health: backend"), "nothing changed");
}

fn checks_that_are_off_ask_nothing(driver: Driver) {
    let (backend, _) = switched(503);
    let weir = checked(driver)
        .set("health_check.type", "off")
        .backend(&backend)
        .start();
    get_all(&weir, 20);
    assert_eq!((traffic(&backend), backend.requests().len()), (20, 20));
}

fn a_hanging_probe_holds_up_nothing(driver: Driver) {
    let backend = Backend::answering(|request| match request.target() {
        "/health" => Vec::new(),
        _ => ok(b""),
    });
    let mut weir = checked(driver)
        .set("health_check.start", "up")
        .set("health_check.timeout", "1h")
        .backend(&backend)
        .start();
    backend.wait_requests(1);
    get_all(&weir, 20);
    let stopped = weir.stop();
    assert_eq!(stopped.code, Some(0));
    assert!(stopped.took < DEADLINE / 2, "{:?}", stopped.took);
}

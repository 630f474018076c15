//! The admin API where it changes something, and who may.

#[macro_use]
mod support;

use std::fs;

use support::http::text;
use support::{Conduct, Driver, Fickle, Weir, Wire, eventually};

on_both_drivers!(
    drain_ready_and_maintenance_are_shown,
    the_short_paths_do_the_same,
    a_backend_shows_everything_about_itself,
    what_is_not_there_is_not_found,
    a_change_needs_a_json_content_type,
    a_host_that_is_nobody_s_is_refused,
    a_host_that_is_listed_is_not,
    a_token_is_asked_for,
    an_open_address_needs_a_token,
);

fn drain_ready_and_maintenance_are_shown(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver).fickles(&backends).start();
    let asked = || {
        let before = backends[0].requests();
        let mut client = weir.client();
        for _ in 0..9 {
            assert_eq!(client.get("/").status(), 200);
        }
        backends[0].requests() - before
    };
    for (action, state) in [("drain", "draining"), ("maintenance", "maintenance")] {
        weir.operate("a", action);
        let shown = weir.backend("a");
        assert_eq!(shown["state"], state, "{shown}");
        assert_eq!(shown["eligible"], false, "{shown}");
        assert!(shown["since"].is_string() && shown["why"].is_string(), "{shown}");
        assert_eq!(asked(), 0, "{action}");
        weir.operate("a", "ready");
        assert_eq!(weir.backend("a")["state"], "up");
        assert_eq!(asked(), 3, "after {action}");
    }
}

fn the_short_paths_do_the_same(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver).fickles(&backends).start();
    weir.admin_do("POST", "/backends/a/drain", "{}");
    assert_eq!(weir.backend("a")["state"], "draining");
    weir.admin_do("POST", "/backends/a/ready", "{}");
    assert_eq!(weir.backend("a")["state"], "up");
    weir.admin_do("PUT", "/backends/a/weight", "{\"weight\": 7}");
    assert_eq!(weir.backend("a")["weight"], 7);
    weir.admin_do("DELETE", "/backends/a/override", "");
    assert_eq!(weir.backend("a")["weight"], 1);
}

fn a_backend_shows_everything_about_itself(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver)
        .fickles(&backends)
        .set("health_check.type", "http")
        .set("health_check.interval", "50ms")
        .start();
    backends[0].conduct(Conduct::Hang);
    let mut clients: Vec<Wire> = (0..3).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    backends[0].wait_requests(1);
    for backend in &backends {
        backend.wait_probes(1);
    }
    let shown = eventually("a probe and an answer", || {
        let shown = weir.backend("b");
        (shown["last_probe"].is_object() && shown["ewma_latency_ns"].as_u64() > Some(0)).then_some(shown)
    });
    assert_eq!(shown["last_probe"]["good"], true, "{shown}");
    assert_eq!(shown["last_probe"]["status"], 200, "{shown}");
    assert!(shown["last_probe"]["took_ns"].as_u64() > Some(0), "{shown}");
    assert_eq!(shown["breaker"]["state"], "CLOSED", "{shown}");
    assert_eq!(shown["ejections"]["count"], 0, "{shown}");
    let shown = weir.backend("a");
    assert_eq!(shown["in_flight"], 1, "{shown}");
    assert_eq!(shown["connections_open"], 1, "{shown}");
    assert!(shown["connections"].is_array(), "{shown}");
}

fn what_is_not_there_is_not_found(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver).fickles(&backends).start();
    for (method, target, status) in [
        ("POST", "/v1/pools/default/backends/nobody/drain", 404),
        ("POST", "/v1/pools/nowhere/backends/a/drain", 404),
        ("POST", "/v1/pools/default/backends/a/explode", 404),
        ("GET", "/v1/pools/default/backends/a/drain", 405),
        ("POST", "/v1/pools/default/backends/a/weight", 405),
    ] {
        assert_eq!(
            weir.admin_send(method, target, "{}").status(),
            status,
            "{method} {target}"
        );
    }
    for body in [
        "",
        "{}",
        "{\"weight\": -1}",
        "{\"weight\": 65536}",
        "{\"weight\": \"1\"}",
        "7",
    ] {
        let answer = weir.admin_send("PUT", "/v1/pools/default/backends/a/weight", body);
        assert!(
            (400..=422).contains(&answer.status()),
            "{body}: {}",
            answer.status()
        );
    }
    assert_eq!(weir.backend("a")["weight"], 1);
}

fn a_change_needs_a_json_content_type(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver).fickles(&backends).start();
    for fields in [
        "Content-Length: 2\r\n",
        "Content-Length: 2\r\nContent-Type: text/plain\r\n",
        "Content-Length: 2\r\nContent-Type: application/x-www-form-urlencoded\r\n",
    ] {
        for target in ["/v1/pools/default/backends/a/drain", "/reload"] {
            let answer = weir.admin_raw("POST", target, fields, "{}");
            assert_eq!(answer.status(), 415, "{target} {fields}");
        }
    }
    assert_eq!(weir.backend("a")["state"], "up");
}

/// A GET of the backends by this name of the host.
fn as_host(weir: &Weir, host: &str, fields: &str) -> u16 {
    let mut client = Wire::connect(weir.admin.as_deref().expect("admin is on"));
    client.send(format!(
        "GET /backends HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n"
    ));
    client.response("GET").status()
}

fn a_host_that_is_nobody_s_is_refused(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = Weir::on(driver).fickle(&backend).start();
    for host in [
        "127.0.0.1",
        "127.0.0.1:9070",
        "[::1]:9070",
        "localhost",
        "localhost:1",
    ] {
        assert_eq!(as_host(&weir, host, ""), 200, "{host}");
    }
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:9070",
    ] {
        assert_eq!(as_host(&weir, host, ""), 421, "{host}");
    }
}

fn a_host_that_is_listed_is_not(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = Weir::on(driver)
        .fickle(&backend)
        .set("admin.hosts", vec!["weir.internal"])
        .start();
    assert_eq!(as_host(&weir, "weir.internal:9070", ""), 200);
    assert_eq!(as_host(&weir, "other.internal", ""), 421);
}

fn a_token_is_asked_for(driver: Driver) {
    let backend = Fickle::new("a");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("token");
    fs::write(&path, "0123456789abcdef0123\n").expect("a file");
    let weir = Weir::on(driver)
        .fickle(&backend)
        .set("admin.token_file", path.to_str().expect("text"))
        .start();
    for (fields, status) in [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Authorization: Bearer 0123456789abcdef012\r\n", 401),
        ("Authorization: Basic 0123456789abcdef0123\r\n", 401),
        ("Authorization: Bearer 0123456789abcdef0123\r\n", 200),
    ] {
        assert_eq!(as_host(&weir, "127.0.0.1", fields), status, "{fields}");
    }
}

fn an_open_address_needs_a_token(driver: Driver) {
    let backend = Fickle::new("a");
    let mut weir = Weir::on(driver)
        .fickle(&backend)
        .set("admin.address", "0.0.0.0:0")
        .spawn();
    let stopped = weir.wait_exit(support::DEADLINE);
    assert_eq!(stopped.code, Some(2));
    weir.wait_log("token_file");
    assert!(text(weir.wait_log("token_file").as_bytes()).contains("token_file"));
}

//! The figures, who may see them where, and that they are exact.

#[macro_use]
mod support;

use serde_json::Value;
use support::{Backend, Driver, Weir, Wire, eventually, ok};

on_both_drivers!(
    counts_are_exact,
    counts_are_exact_over_workers_and_backends,
    latencies_are_nanoseconds_that_make_sense,
    own_answers_are_counted_apart,
    failed_attempts_are_counted,
    the_main_port_shows_metrics_to_the_neighbours,
    a_forwarded_request_for_metrics_is_forwarded,
    a_peer_that_is_not_allowed_is_forwarded,
    the_path_can_be_moved_and_turned_off,
    livez_and_readyz,
    readyz_and_livez_belong_to_the_backend_on_the_main_port,
    observe_serves_three_paths_and_nothing_else,
    admin_can_be_off,
    reading_metrics_does_not_count,
);

/// The metrics once `n` requests were received and nothing is in flight: the shard is written behind the answer.
fn settled(weir: &Weir, n: u64) -> Value {
    eventually(&format!("{n} requests counted"), || {
        let metrics = weir.metrics();
        let idle = |backend: &Value| backend["in_flight"] == 0;
        (metrics["total_requests"] == n && metrics["backends"].as_object()?.values().all(idle))
            .then_some(metrics)
    })
}

fn counts_are_exact(driver: Driver) {
    let backend = Backend::answering(|request| match request.target() {
        "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/broken" => b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => ok(b"fine"),
    });
    let weir = Weir::before(driver, &backend);
    let empty = weir.metrics();
    assert_eq!(empty["total_requests"], 0);
    assert_eq!(empty["algorithm"], "round-robin");
    assert!(empty["uptime"].as_u64().unwrap() > 0);
    let mut client = weir.client();
    for (target, times) in [("/", 10), ("/missing", 3), ("/broken", 2)] {
        for _ in 0..times {
            client.get(target);
        }
    }
    let metrics = settled(&weir, 15);
    let shown = &metrics["backends"][backend.url()];
    assert_eq!(shown["requests"], 15, "{metrics}");
    assert_eq!(shown["selections"], 15);
    assert_eq!(shown["healthy"], true);
    assert_eq!(
        shown["status_codes"],
        serde_json::json!({"200": 10, "404": 3, "500": 2})
    );
    assert!(metrics["uptime"].as_u64() > empty["uptime"].as_u64());
}

fn counts_are_exact_over_workers_and_backends(driver: Driver) {
    let backends: Vec<Backend> = (0..3).map(|_| Backend::plain()).collect();
    let setup = backends
        .iter()
        .fold(Weir::on(driver), |setup, backend| setup.backend(backend));
    let weir = setup.set("runtime.workers", 2).start();
    let address = weir.address();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let mut client = Wire::connect(address);
                    for _ in 0..10 {
                        assert_eq!(client.get("/").status(), 200);
                    }
                }
            });
        }
    });
    let metrics = settled(&weir, 600);
    for backend in &backends {
        let shown = &metrics["backends"][backend.url()];
        assert_eq!(
            shown["requests"], 200,
            "round robin over one shared cursor: {metrics}"
        );
        assert_eq!(shown["selections"], 200);
        assert_eq!(shown["status_codes"]["200"], 200);
        assert_eq!(backend.requests().len(), 200);
    }
}

fn latencies_are_nanoseconds_that_make_sense(driver: Driver) {
    let backend = Backend::answering(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        ok(b"slow")
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..4 {
        client.get("/");
    }
    let metrics = settled(&weir, 4);
    let shown = &metrics["backends"][backend.url()];
    let of = |name: &str| {
        shown[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} in {metrics}"))
    };
    for name in ["avg_response", "p50_response", "p95_response", "p99_response"] {
        assert!((49_000_000..500_000_000).contains(&of(name)), "{name}: {metrics}");
    }
    assert!(of("p50_response") <= of("p95_response") && of("p95_response") <= of("p99_response"));
}

fn own_answers_are_counted_apart(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    for request in ["GET / HTTP/1.1\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: t\r\n\r\n"] {
        let mut client = weir.client();
        client.send(request);
        client.response("GET");
    }
    assert_eq!(weir.client().get("/").status(), 200);
    let metrics = settled(&weir, 3);
    assert_eq!(
        metrics["weir"]["status_codes"],
        serde_json::json!({"400": 1, "501": 1}),
        "{metrics}"
    );
    assert_eq!(
        metrics["backends"][backend.url()]["status_codes"],
        serde_json::json!({"200": 1}),
        "{metrics}"
    );
}

fn failed_attempts_are_counted(driver: Driver) {
    let backend = Backend::sending_then_close("");
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("retry.max_retries", 0)
        .start();
    let mut client = weir.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status(), 502);
    }
    let metrics = settled(&weir, 3);
    let shown = &metrics["backends"][backend.url()];
    assert_eq!(
        (&shown["requests"], &shown["selections"]),
        (&3.into(), &3.into()),
        "{metrics}"
    );
    assert_eq!(metrics["weir"]["status_codes"]["502"], 3, "{metrics}");
}

fn the_main_port_shows_metrics_to_the_neighbours(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    assert_eq!(client.get("/x").body, b"/x");
    let response = client.get("/metrics");
    assert_eq!(response.status(), 200);
    assert_eq!(response.get("content-type"), Some("application/json"));
    let metrics: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(metrics["algorithm"], "round-robin");
    assert_eq!(client.get("/y").body, b"/y", "the connection goes on");
    assert_eq!(client.get("/metricsx").body, b"/metricsx");
    assert_eq!(client.get("/metrics/").body, b"/metrics/");
    client.send("POST /metrics HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(
        client.response("POST").body,
        b"/metrics",
        "any other request for it is forwarded"
    );
    client.send("GET /metrics HTTP/1.1\r\nHost: t\r\n\r\nGET /z HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(
        client.response("GET").get("content-type"),
        Some("application/json")
    );
    assert_eq!(client.response("GET").body, b"/z", "pipelined behind it");
    assert_eq!(backend.requests().len(), 6);
}

fn a_forwarded_request_for_metrics_is_forwarded(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for field in [
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-For: 1.2.3.4",
        "x-forwarded-proto: https",
        "X-Forwarded-Whatever: 1",
        "Via: 1.1 proxy",
        "Connection: via\r\nVia: 1.1 proxy",
    ] {
        client.send(format!("GET /metrics HTTP/1.1\r\nHost: t\r\n{field}\r\n\r\n"));
        assert_eq!(client.response("GET").body, b"/metrics", "{field}");
    }
    assert_eq!(backend.requests().len(), 6);
}

fn a_peer_that_is_not_allowed_is_forwarded(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("metrics.allow", vec!["127.0.0.9/32", "10.0.0.0/8"])
        .start();
    assert_eq!(weir.client().get("/metrics").body, b"/metrics");
    assert_eq!(
        weir.admin_get("/metrics").status(),
        200,
        "the admin port is another matter"
    );
}

fn the_path_can_be_moved_and_turned_off(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("metrics.path", "/-/figures")
        .start();
    assert_eq!(weir.client().get("/metrics").body, b"/metrics");
    assert_eq!(
        weir.client().get("/-/figures").get("content-type"),
        Some("application/json")
    );
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("metrics.path", "off")
        .start();
    assert_eq!(weir.client().get("/metrics").body, b"/metrics");
}

fn livez_and_readyz(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("observe.address", "127.0.0.1:0")
        .start();
    for address in [weir.admin.as_deref().unwrap(), weir.observe.as_deref().unwrap()] {
        for target in ["/livez", "/readyz", "/readyz?backends=1"] {
            assert_eq!(weir.get_from(address, target).status(), 200, "{address}{target}");
        }
    }
}

fn readyz_and_livez_belong_to_the_backend_on_the_main_port(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    for target in ["/livez", "/readyz", "/health"] {
        assert_eq!(weir.client().get(target).body, target.as_bytes());
    }
}

fn observe_serves_three_paths_and_nothing_else(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("observe.address", "127.0.0.1:0")
        .set("admin.address", "off")
        .start();
    let observe = weir.observe.as_deref().expect("observe in the ready file");
    assert_eq!(weir.admin, None);
    let metrics = weir.get_from(observe, "/metrics");
    assert_eq!(metrics.get("content-type"), Some("application/json"));
    serde_json::from_slice::<Value>(&metrics.body).unwrap();
    for target in ["/", "/backends", "/config", "/reload", "/nothing"] {
        assert_eq!(weir.get_from(observe, target).status(), 404, "{target}");
    }
    let mut client = Wire::connect(observe);
    client
        .send("POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(matches!(client.response("POST").status(), 404 | 405));
}

fn admin_can_be_off(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("admin.address", "off")
        .start();
    assert_eq!((&weir.admin, &weir.observe), (&None, &None));
    assert_eq!(weir.client().get("/metrics").status(), 200);
}

fn reading_metrics_does_not_count(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..5 {
        client.get("/metrics");
        weir.metrics();
    }
    client.get("/real");
    client.get("/metrics");
    assert_eq!(settled(&weir, 1)["backends"][backend.url()]["requests"], 1);
}

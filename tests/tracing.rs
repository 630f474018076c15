//! What one request went through: `x-weir-trace`, the exchanges that are kept, and the trace that it belongs to.

#[macro_use]
mod support;

use std::time::Duration;

use serde_json::Value;
use support::{Backend, Conduct, Driver, Fickle, Message, Weir, eventually};

on_both_drivers!(
    who_may_ask_is_told_what_happened,
    slow_failed_and_retried_exchanges_are_kept,
);

fn traced(weir: &Weir, target: &str) -> Message {
    let mut client = weir.client();
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: t\r\nx-weir-trace: 1\r\n\r\n"
    ));
    client.response("GET")
}

/// The durations of a `Server-Timing`, by name, in milliseconds.
fn timing(answer: &Message) -> Vec<(String, f64)> {
    let text = answer.get("server-timing").expect("a Server-Timing");
    text.split(", ")
        .map(|metric| {
            let (name, duration) = metric.split_once(";dur=").expect("a duration");
            (name.to_owned(), duration.parse().expect("a number"))
        })
        .collect()
}

fn who_may_ask_is_told_what_happened(driver: Driver) {
    let (good, bad) = (Fickle::new("good"), Fickle::new("bad"));
    bad.conduct(Conduct::Status(503));
    good.conduct(Conduct::After(Duration::from_millis(60)));
    let weir = Weir::on(driver)
        .fickles([&bad, &good])
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .start();
    let explained = eventually("a retry", || {
        let answer = traced(&weir, "/");
        assert_eq!(answer.status(), 200);
        let names: Vec<String> = timing(&answer).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["queue", "connect", "backend", "weir"]);
        let backend = timing(&answer)[2].1;
        assert!((55.0..2_000.0).contains(&backend), "{backend}");
        let text = answer.get("x-weir-explain").expect("an explanation").to_owned();
        text.contains("bad 503").then_some(text)
    });
    assert!(
        explained.starts_with("strategy=round-robin; eligible=2; of=2; attempts=\"bad 503 "),
        "{explained}"
    );
    assert!(
        explained.contains("ms, good 200 ") && explained.ends_with("ms\""),
        "{explained}"
    );
    let plain = weir.client().get("/");
    assert!(!plain.has("x-weir-explain") && !plain.has("server-timing"));

    let weir = Weir::on(driver)
        .fickle(&good)
        .set("debug.allow", Vec::<String>::new())
        .start();
    let answer = traced(&weir, "/");
    assert!(!answer.has("x-weir-explain") && !answer.has("server-timing"));
}

fn exchanges(weir: &Weir, query: &str) -> Vec<Value> {
    let answer = weir.admin_get(&format!("/exchanges{query}"));
    assert_eq!(answer.status(), 200);
    let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
    value["exchanges"].as_array().expect("a list").clone()
}

fn slow_failed_and_retried_exchanges_are_kept(driver: Driver) {
    let (one, two) = (Fickle::new("one"), Fickle::new("two"));
    let weir = Weir::on(driver)
        .fickles([&one, &two])
        .set("debug.slow", "80ms")
        .set("debug.keep", 4)
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .start();
    for _ in 0..3 {
        assert_eq!(weir.client().get("/fine").status(), 200);
    }
    assert_eq!(exchanges(&weir, ""), Vec::<Value>::new());
    one.conduct(Conduct::After(Duration::from_millis(100)));
    two.conduct(Conduct::After(Duration::from_millis(100)));
    assert_eq!(weir.client().get("/slow?token=S3CRET").status(), 200);
    let slow = eventually("a slow exchange", || exchanges(&weir, "").pop());
    assert_eq!(
        (&slow["target"], &slow["method"]),
        (&"/slow?token=[redacted]".into(), &"GET".into())
    );
    assert!(slow["total_us"].as_u64() >= Some(100_000), "{slow}");
    assert_eq!(slow["tries"].as_array().map(Vec::len), Some(1));
    one.conduct(Conduct::Status(503));
    two.conduct(Conduct::Status(503));
    for number in 0..5 {
        assert_eq!(weir.client().get(&format!("/bad{number}")).status(), 503);
    }
    let bad = eventually("the last four", || {
        let found = exchanges(&weir, "?status=5xx");
        (found.len() == 4 && found[0]["target"] == "/bad4").then_some(found)
    });
    assert!(
        bad.iter().all(|exchange| exchange["attempts"].as_u64() > Some(1)),
        "{bad:?}"
    );
    assert_eq!(bad[0]["tries"][0]["outcome"], "503");
    assert_eq!(exchanges(&weir, "?min=10s"), Vec::<Value>::new());
    assert_eq!(exchanges(&weir, "?backend=one").len(), 4);
    assert_eq!(exchanges(&weir, "?backend=three"), Vec::<Value>::new());
    for bad in ["?min=x", "?status=6x"] {
        assert_eq!(weir.admin_get(&format!("/exchanges{bad}")).status(), 400);
    }
}

#[test]
fn a_trace_is_passed_on_as_it_came() {
    let backend = Backend::plain();
    let weir = Weir::on(Driver::Epoll).backend(&backend).start();
    let mut client = weir.client();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: t\r\ntraceparent: {parent}\r\ntracestate: a=1,b=2\r\n\r\n"
    ));
    assert_eq!(client.response("GET").status(), 200);
    let request = &backend.wait_requests(1)[0];
    assert_eq!(request.all("traceparent"), [parent]);
    assert_eq!(request.all("tracestate"), ["a=1,b=2"]);
}

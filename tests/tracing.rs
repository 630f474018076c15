//! What one request went through: `x-weir-trace`, the exchanges that are kept, and the trace that it belongs to.

#[macro_use]
mod support;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
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

/// A collector that takes everything, or answers as it is told.
fn collector() -> Backend {
    Backend::answering(|_| support::ok(b""))
}

/// All spans that a collector got so far.
fn spans(collector: &Backend) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!((request.method(), request.target()), ("POST", "/v1/traces"));
        assert_eq!(request.get("content-type"), Some("application/x-protobuf"));
        let decoded = ExportTraceServiceRequest::decode(&request.body[..]).expect("the official messages");
        for resource in decoded.resource_spans {
            let attributes = resource.resource.expect("a resource").attributes;
            assert!(attributes.iter().any(|attribute| attribute.key == "service.name"));
            for scope in resource.scope_spans {
                spans.extend(scope.spans);
            }
        }
    }
    spans
}

fn text(span: &Span, key: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn tracing_to(collector: &Backend, ratio: f64) -> support::weir::Setup {
    Weir::on(Driver::Epoll)
        .set("tracing.otlp", collector.url())
        .set("tracing.sample_ratio", ratio)
        .set("tracing.interval", "50ms")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_exchange_and_its_attempts_are_spans_of_the_callers_trace() {
    let collector = collector();
    let (good, bad) = (Fickle::new("good"), Fickle::new("bad"));
    bad.conduct(Conduct::Status(503));
    let weir = tracing_to(&collector, 0.0)
        .fickles([&bad, &good])
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .start();
    let mut client = weir.client();
    for _ in 0..2 {
        client.send(
            "GET /a?token=S3CRET HTTP/1.1\r\nHost: t\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        );
        assert_eq!(client.response("GET").status(), 200);
    }
    let all = eventually("the spans of both exchanges", || {
        let all = spans(&collector);
        (all.iter().filter(|span| span.kind == 2).count() == 2).then_some(all)
    });
    assert!(
        all.iter()
            .all(|span| hex(&span.trace_id) == "0af7651916cd43dd8448eb211c80319c")
    );
    let retried = all
        .iter()
        .find(|span| span.kind == 2 && text(span, "weir.attempts").as_deref() == Some("2"))
        .expect("a retried exchange");
    assert_eq!(hex(&retried.parent_span_id), "b7ad6b7169203331");
    assert_eq!(text(retried, "url.query").as_deref(), Some("token=[redacted]"));
    assert_eq!(text(retried, "http.response.status_code").as_deref(), Some("200"));
    assert!(retried.status.is_none());
    let attempts: Vec<&Span> = all
        .iter()
        .filter(|span| span.kind == 3 && span.parent_span_id == retried.span_id)
        .collect();
    assert_eq!(attempts.len(), 2);
    assert_eq!(text(attempts[0], "server.address").as_deref(), Some("bad"));
    assert_eq!(attempts[0].status.as_ref().map(|status| status.code), Some(2));
    assert_eq!(text(attempts[1], "weir.attempt").as_deref(), Some("retry"));
    for span in &attempts {
        assert!(span.start_time_unix_nano >= retried.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= retried.end_time_unix_nano);
    }
    // The backend's parent is the attempt's span.
    let seen: Vec<String> = good
        .heads()
        .iter()
        .filter_map(|head| head.get("traceparent").map(str::to_owned))
        .collect();
    let id = hex(&attempts[1].span_id);
    assert!(
        seen.iter().any(|parent| parent.ends_with(&format!("-{id}-01"))),
        "{seen:?}"
    );
    // And the metrics have it as an example.
    let metrics = weir.admin_get("/metrics?format=openmetrics");
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("# {trace_id=\"0af7651916cd43dd8448eb211c80319c\"}"));
}

#[test]
fn sampling_is_by_ratio_and_by_the_caller() {
    let backend = Backend::plain();
    let count = |ratio: f64, parent: bool, flags: Option<&str>| {
        let collector = collector();
        let mut weir = tracing_to(&collector, ratio)
            .backend(&backend)
            .set("tracing.sample_parent", parent)
            .start();
        let mut client = weir.client();
        for _ in 0..20 {
            let traceparent = flags.map_or_else(String::new, |flags| {
                format!("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}\r\n")
            });
            client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{traceparent}\r\n"));
            assert_eq!(client.response("GET").status(), 200);
        }
        drop(client);
        // The end sends what is left.
        weir.stop();
        spans(&collector).iter().filter(|span| span.kind == 2).count()
    };
    assert_eq!(count(0.0, true, None), 0);
    assert_eq!(count(1.0, true, None), 20);
    assert_eq!(count(0.0, true, Some("01")), 20);
    assert_eq!(count(1.0, true, Some("00")), 0);
    assert_eq!(count(1.0, false, Some("00")), 20);
    let unsampled = backend
        .requests()
        .iter()
        .filter_map(|request| request.get("traceparent").map(str::to_owned))
        .collect::<Vec<_>>();
    assert!(
        unsampled.iter().any(|parent| parent.ends_with("-00"))
            && unsampled.iter().any(|parent| parent.ends_with("-01"))
    );
}

#[test]
fn a_collector_that_is_slow_or_gone_slows_nobody_and_is_counted() {
    let backend = Backend::plain();
    let slow = Fickle::new("slow");
    slow.conduct(Conduct::Hang);
    let weir = Weir::on(Driver::Epoll)
        .set("tracing.otlp", slow.url())
        .set("tracing.sample_ratio", 1.0)
        .set("tracing.interval", "50ms")
        .set("tracing.timeout", "200ms")
        .backend(&backend)
        .start();
    let mut client = weir.client();
    let start = std::time::Instant::now();
    for _ in 0..200 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    weir.wait_log("the collector did not take them");
    eventually("drops in the metrics", || {
        (weir.metrics()["weir"]["spans_dropped"].as_u64()? > 0).then_some(())
    });
}

#[test]
fn a_busy_collector_is_asked_once_more() {
    let answered = std::sync::atomic::AtomicUsize::new(0);
    let collector =
        Backend::answering(
            move |_| match answered.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".to_vec(),
                _ => support::ok(b""),
            },
        );
    let backend = Backend::plain();
    let weir = tracing_to(&collector, 1.0).backend(&backend).start();
    assert_eq!(weir.client().get("/").status(), 200);
    let requests = collector.wait_requests(2);
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(weir.metrics()["weir"]["spans_dropped"], 0);
}

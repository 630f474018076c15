//! `GET /explain` and `weir explain`: what they say is what the next request does, and saying it changes nothing.

#[macro_use]
mod support;

use std::collections::BTreeMap;
use std::process::{Command, Output};

use serde_json::Value;
use support::weir::{BINARY, Setup};
use support::{Conduct, Driver, Fickle, Message, Weir, eventually};

on_both_drivers!(
    what_is_certain_is_what_happens,
    shares_are_as_foretold,
    a_cookie_is_said_to_hold_or_why_not,
    who_is_left_out_is_said_with_the_reason,
);

fn explain(weir: &Weir, query: &str) -> Value {
    let answer = weir.admin_get(&format!("/explain?{query}"));
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status(), 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

fn row<'a>(told: &'a Value, name: &str) -> &'a Value {
    let rows = told["backends"].as_array().expect("backends");
    rows.iter()
        .find(|row| row["name"] == name)
        .expect("a row for each")
}

fn ask(weir: &Weir, fields: &str) -> Message {
    let mut client = weir.client();
    client.send(format!("GET /x HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
    let answer = client.response("GET");
    assert_eq!(answer.status(), 200);
    answer
}

fn server(answer: &Message) -> &str {
    answer.get("x-backend").expect("a backend")
}

fn by(driver: Driver, strategy: &str, backends: &[Fickle]) -> Setup {
    Weir::on(driver)
        .fickles(backends)
        .set("strategy.type", strategy)
        .set("strategy.slow_start", "0s")
}

fn what_is_certain_is_what_happens(driver: Driver) {
    let backends = Fickle::three();
    for strategy in ["round-robin", "failover", "weighted-round-robin"] {
        let weir = by(driver, strategy, &backends).set("runtime.workers", 2).start();
        for _ in 0..12 {
            let told = explain(&weir, "path=/x");
            // Saying it twice takes no turn.
            assert_eq!(told["chosen"], explain(&weir, "path=/x")["chosen"]);
            assert_eq!(
                (&told["strategy"], &told["decided_by"]),
                (&strategy.into(), &"strategy".into())
            );
            assert_eq!(told["chosen"], server(&ask(&weir, "")), "{strategy}: {told}");
        }
    }
    for strategy in ["consistent_hash", "maglev"] {
        let weir = by(driver, strategy, &backends)
            .set("strategy.key", "header:x-user")
            .start();
        let mut homes = BTreeMap::new();
        for user in 0..40 {
            let told = explain(&weir, &format!("path=/x&header=X-User:{user}"));
            let chosen = told["chosen"].as_str().expect("a key has one backend").to_owned();
            assert_eq!(chosen, server(&ask(&weir, &format!("x-user: {user}\r\n"))));
            assert_eq!(told["key"]["by"], "header:x-user");
            assert!(told["key"]["hash"].as_str().expect("a hash").starts_with("0x"));
            assert_eq!(explain(&weir, &format!("key={user}"))["chosen"], *chosen);
            assert!(
                row(&told, &chosen)["sees"]
                    .as_object()
                    .is_some_and(|sees| !sees.is_empty())
            );
            homes.insert(user, chosen);
        }
        assert!(homes.values().collect::<std::collections::BTreeSet<_>>().len() > 1);
        let keyless = explain(&weir, "path=/x");
        assert_eq!(
            (&keyless["key"]["hash"], &keyless["random"]),
            (&Value::Null, &true.into())
        );
    }
}

fn shares_are_as_foretold(driver: Driver) {
    let backends = Fickle::three();
    let weir = by(driver, "random", &backends).start();
    weir.admin_do("PUT", "/backends/b/weight", "{\"weight\": 3}");
    weir.operate("c", "drain");
    let told = explain(&weir, "");
    let names: Vec<&str> = backends_of(&told);
    assert_eq!(names.len(), 3);
    let (one, heavy, drained) = (row(&told, "a"), row(&told, "b"), row(&told, "c"));
    let ratio = heavy["chance"].as_f64().unwrap() / one["chance"].as_f64().unwrap();
    let weights = heavy["weight"].as_f64().unwrap() / one["weight"].as_f64().unwrap();
    assert!((ratio - weights).abs() < 1e-6, "{told}");
    assert_eq!((&told["random"], &told["chosen"]), (&true.into(), &Value::Null));
    assert_eq!(
        (&drained["chance"], &drained["state"]),
        (&0.0.into(), &"draining".into())
    );
    let picks = 400;
    let hits = (0..picks).filter(|_| server(&ask(&weir, "")) == "b").count() as f64;
    let expected = heavy["chance"].as_f64().unwrap();
    let spread = (expected * (1.0 - expected) / f64::from(picks)).sqrt();
    assert!(
        (hits / f64::from(picks) - expected).abs() < 5.0 * spread,
        "{hits} for {expected}"
    );
}

fn backends_of(told: &Value) -> Vec<&str> {
    let rows = told["backends"].as_array().expect("backends");
    rows.iter().filter_map(|row| row["name"].as_str()).collect()
}

fn a_cookie_is_said_to_hold_or_why_not(driver: Driver) {
    let backends = Fickle::three();
    let weir = by(driver, "random", &backends)
        .set("sticky.cookie", "weir")
        .start();
    let answer = ask(&weir, "");
    let home = server(&answer).to_owned();
    let cookie = answer
        .get("set-cookie")
        .expect("a cookie")
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let query = format!("path=/x&cookie=other=1;%20{cookie}");
    let told = explain(&weir, &query);
    assert_eq!(
        (&told["chosen"], &told["decided_by"]),
        (&(*home).into(), &"sticky".into())
    );
    assert_eq!(
        (&told["sticky"]["backend"], &told["sticky"]["holds"]),
        (&(*home).into(), &true.into())
    );
    assert_eq!(server(&ask(&weir, &format!("Cookie: {cookie}\r\n"))), home);
    assert_eq!(explain(&weir, "")["sticky"]["backend"], Value::Null);
    weir.operate(&home, "drain");
    assert_eq!(
        explain(&weir, &query)["decided_by"],
        "sticky",
        "draining holds what sticks"
    );
    weir.operate(&home, "maintenance");
    let told = explain(&weir, &query);
    assert_eq!(
        (&told["sticky"]["holds"], &told["decided_by"]),
        (&false.into(), &"strategy".into())
    );
    assert!(
        told["sticky"]["why"].as_str().unwrap().contains("maintenance"),
        "{told}"
    );
    assert_ne!(server(&ask(&weir, &format!("Cookie: {cookie}\r\n"))), home);
}

fn who_is_left_out_is_said_with_the_reason(driver: Driver) {
    let backends = Fickle::three();
    backends[0].health(Conduct::Status(500));
    let weir = by(driver, "least-conn", &backends)
        .set("health_check.type", "http")
        .set("health_check.interval", "50ms")
        .set("limits.max_inflight", 1)
        .start();
    let told = eventually("a backend that is down", || {
        let told = explain(&weir, "method=POST&path=/x&client=203.0.113.7");
        (row(&told, "a")["eligible"] == false).then_some(told)
    });
    assert_eq!(row(&told, "a")["because"], "its probes say down");
    assert_eq!((&told["eligible"], &told["of"]), (&2.into(), &3.into()));
    let request = &told["request"];
    assert_eq!(
        (&request["client"], &request["may_be_sent_again"]),
        (&"203.0.113.7".into(), &false.into())
    );
    // One takes all of its slots; the other is the choice, and then nobody.
    backends[1].conduct(Conduct::Hang);
    backends[2].conduct(Conduct::Hang);
    let mut clients = [weir.client(), weir.client()];
    for (count, client) in clients.iter_mut().enumerate() {
        client.send("GET /x HTTP/1.1\r\nHost: t\r\n\r\n");
        eventually("the slot to be taken", || {
            let taken: u64 = backends.iter().map(Fickle::in_flight).sum();
            (taken == count as u64 + 1).then_some(())
        });
        let told = explain(&weir, "path=/x");
        let full = |name: &str| row(&told, name)["because"] == "it is full (limits.max_inflight)";
        if count == 0 {
            let free = if backends[1].in_flight() == 1 { "c" } else { "b" };
            assert_eq!(told["chosen"], free, "{told}");
        } else {
            assert_eq!(
                (&told["chosen"], &told["waits"]),
                (&Value::Null, &true.into()),
                "{told}"
            );
            assert!(full("b") || full("c"));
        }
    }
}

#[test]
fn what_weir_answers_itself_is_said() {
    let backends = Fickle::three();
    let weir = by(Driver::Epoll, "consistent_hash", &backends)
        .set("http.max_body_bytes", "10")
        .start();
    let told = explain(&weir, "path=/metrics?format=json&client=127.0.0.1");
    assert_eq!(
        (&told["decided_by"], &told["chosen"]),
        (&"weir".into(), &Value::Null)
    );
    assert_eq!(
        (&told["waits"], &row(&told, "a")["chance"]),
        (&false.into(), &0.0.into())
    );
    // From a stranger it is a request as any other, and known by who asks.
    let told = explain(&weir, "path=/metrics&client=203.0.113.7");
    assert_eq!(told["decided_by"], "strategy");
    let known = explain(&weir, "path=/metrics&key=203.0.113.7");
    assert_eq!(
        (&known["chosen"], &known["key"]["hash"]),
        (&told["chosen"], &told["key"]["hash"])
    );
    for (query, says) in [
        ("key=somebody", "strategy.key is"),
        ("method=POST&header=content-length:%2011", "body_too_large"),
    ] {
        let answer = weir.admin_get(&format!("/explain?{query}"));
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status() == 400 && text.contains(says), "{query}: {text}");
    }
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    let backend = Fickle::new("a");
    let weir = Weir::on(Driver::Epoll).fickle(&backend).start();
    for (query, says) in [
        ("client=me", "client=me is no IP address"),
        ("pth=/x", "\\\"pth\\\" means nothing here"),
        ("header=a", "header=a is not NAME:VALUE"),
        ("header=a:b%0d%0ac:%20d", "a line break"),
        ("method=CONNECT", "method_refused"),
        ("path=/a%20b", "bad_request"),
        (
            "header=content-length:%201&header=transfer-encoding:chunked",
            "framing",
        ),
        ("path=%zz", "percent-encoded"),
    ] {
        let answer = weir.admin_get(&format!("/explain?{query}"));
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status() == 400 && text.contains(says), "{query}: {text}");
    }
    assert_eq!(weir.admin_send("POST", "/explain", "").status(), 405);
}

fn run(weir: &Weir, arguments: &[&str]) -> Output {
    let admin = format!("http://{}", weir.admin.as_deref().expect("admin is on"));
    Command::new(BINARY)
        .args(["explain", "--admin", &admin])
        .args(arguments)
        .output()
        .expect("run weir explain")
}

#[test]
fn the_command_prints_a_table_or_json() {
    let backends = Fickle::three();
    let weir = by(Driver::Epoll, "round-robin", &backends).start();
    weir.operate("c", "drain");
    let output = run(&weir, &["--path", "/a b", "--client", "203.0.113.7"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("weir would refuse that request"));
    let arguments = [
        "--path",
        "/x?y=1&z",
        "--client",
        "203.0.113.7",
        "-H",
        "cookie: a=b; c=d",
    ];
    let output = run(&weir, &arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "GET /x?y=1&z from 203.0.113.7");
    assert!(
        text.contains("round-robin: 2 of 3 backends of default may be chosen"),
        "{text}"
    );
    let head = lines
        .iter()
        .position(|line| line.starts_with("BACKEND"))
        .expect("a table");
    assert_eq!(lines.len(), head + 4, "{text}");
    assert!(
        lines[head + 3].contains("draining") && lines[head + 3].contains("0.0 %"),
        "{text}"
    );
    let json = run(&weir, &[&arguments[..], &["--json"]].concat());
    let told: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let chosen = told["chosen"].as_str().expect("one of them");
    assert!(text.contains(&format!("it goes to {chosen}\n")), "{text}");
    let gone = Command::new(BINARY)
        .args(["explain", "--admin", "http://127.0.0.1:1"])
        .output();
    assert_eq!(gone.expect("run weir explain").status.code(), Some(1));
    let bad = run(&weir, &["-H", "nothing"]);
    assert_eq!(bad.status.code(), Some(2));
}

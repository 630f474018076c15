//! Limits on clients: requests by rate, connections by address.

#[macro_use]
mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::weir::Setup;
use support::{Driver, Fickle, Message, Weir, Wire, eventually};

on_both_drivers!(
    a_burst_passes_and_what_is_more_does_not,
    who_waits_as_told_is_admitted,
    an_address_has_its_own_rate,
    a_header_can_be_the_key,
    exempt_networks_are_not_limited,
    an_ipv6_network_is_one_client,
    limited_requests_reach_no_backend_and_keep_the_connection,
    both_workers_count_together,
    connections_of_one_address_are_bounded,
    a_connection_that_ends_makes_room,
);

fn limited(driver: Driver, backend: &Fickle, requests: i64, burst: i64) -> Setup {
    Weir::on(driver)
        .fickle(backend)
        .set("rate_limit.requests", requests)
        .set("rate_limit.per", "10s")
        .set("rate_limit.burst", burst)
}

fn ask(client: &mut Wire, fields: &str) -> Message {
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
    client.response("GET")
}

/// How many of `n` requests are admitted.
fn admitted(client: &mut Wire, fields: &str, n: usize) -> usize {
    (0..n)
        .filter(|_| match ask(client, fields).status() {
            200 => true,
            429 => false,
            other => panic!("{other}"),
        })
        .count()
}

fn from(weir: &Weir, source: &str) -> Wire {
    Wire::connect_from(source, weir.address()).expect("an address of loopback")
}

/// A parameter of a structured field, as in `"default";r=3;t=1`.
fn parameter(field: &str, name: &str) -> Option<u64> {
    field.split(';').find_map(|part| {
        let (key, value) = part.trim().split_once('=')?;
        (key == name).then(|| value.parse().ok())?
    })
}

fn a_burst_passes_and_what_is_more_does_not(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = limited(driver, &backend, 1, 5).start();
    let mut client = weir.client();
    let mut remaining = Vec::new();
    for _ in 0..5 {
        let answer = ask(&mut client, "");
        assert_eq!(answer.status(), 200);
        if let Some(field) = answer.get("ratelimit") {
            remaining.push(parameter(field, "r"));
        }
    }
    let answer = ask(&mut client, "");
    assert_eq!((answer.status(), answer.reason()), (429, Some("rate_limited")));
    let wait: u64 = answer
        .get("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("Retry-After in seconds");
    assert!((1..=10).contains(&wait), "{wait}");
    let field = answer.get("ratelimit").expect("RateLimit");
    assert_eq!(parameter(field, "r"), Some(0), "{field}");
    assert!(parameter(field, "t") > Some(0), "{field}");
    let policy = answer.get("ratelimit-policy").expect("RateLimit-Policy");
    assert!(parameter(policy, "q").is_some(), "{policy}");
    assert!(remaining.is_sorted_by(|a, b| a >= b), "{remaining:?}");
    assert_eq!(backend.requests(), 5);
}

fn who_waits_as_told_is_admitted(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = Weir::on(driver)
        .fickle(&backend)
        .set("rate_limit.requests", 2)
        .set("rate_limit.per", "1s")
        .set("rate_limit.burst", 1)
        .start();
    let mut client = weir.client();
    for _ in 0..2 {
        assert!(admitted(&mut client, "", 20) < 20);
        let answer = ask(&mut client, "");
        assert_eq!(answer.status(), 429);
        let wait: u64 = answer
            .get("retry-after")
            .and_then(|value| value.parse().ok())
            .expect("Retry-After");
        assert_eq!(wait, 1);
        thread::sleep(Duration::from_secs(wait));
        assert_eq!(ask(&mut client, "").status(), 200);
    }
}

fn an_address_has_its_own_rate(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = limited(driver, &backend, 1, 4).start();
    for source in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        // Two connections, one client.
        let mut clients = [from(&weir, source), from(&weir, source)];
        assert_eq!(admitted(&mut clients[0], "", 3), 3, "{source}");
        assert_eq!(admitted(&mut clients[1], "", 3), 1, "{source}");
    }
    // Nobody is believed who says that he asks for another.
    let mut client = from(&weir, "127.0.0.1");
    for field in ["X-Forwarded-For: 9.9.9.9\r\n", "Forwarded: for=9.9.9.9\r\n"] {
        assert_eq!(admitted(&mut client, field, 3), 0, "{field}");
    }
}

fn a_header_can_be_the_key(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = limited(driver, &backend, 1, 2)
        .set("rate_limit.key", "header:X-Api-Key")
        .start();
    let mut client = weir.client();
    for key in ["X-Api-Key: one\r\n", "x-api-key: two\r\n"] {
        assert_eq!(admitted(&mut client, key, 4), 2, "{key}");
    }
    assert_eq!(admitted(&mut client, "X-Api-Key: one\r\n", 2), 0);
}

fn exempt_networks_are_not_limited(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = limited(driver, &backend, 1, 2)
        .set("rate_limit.exempt", vec!["127.0.0.8/29"])
        .start();
    assert_eq!(admitted(&mut from(&weir, "127.0.0.9"), "", 30), 30);
    assert_eq!(admitted(&mut from(&weir, "127.0.0.7"), "", 30), 2);
}

fn an_ipv6_network_is_one_client(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = limited(driver, &backend, 1, 4)
        .set("server.trusted_proxies", vec!["127.0.0.0/8"])
        .start();
    let mut client = weir.client();
    let mut of = |address: &str, n| admitted(&mut client, &format!("X-Forwarded-For: {address}\r\n"), n);
    assert_eq!(of("2001:db8:0:1::1", 3), 3);
    assert_eq!(of("2001:db8:0:1:ffff::2", 3), 1, "the same /64");
    assert_eq!(of("2001:db8:0:2::1", 3), 3, "another one");
    assert_eq!(of("9.9.9.9", 5), 4);
    assert_eq!(of("::ffff:9.9.9.9", 2), 0, "the same address");
}

fn limited_requests_reach_no_backend_and_keep_the_connection(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = limited(driver, &backend, 1, 1).start();
    let mut client = weir.client();
    assert_eq!(admitted(&mut client, "", 20), 1);
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response("POST").status(), 429);
    assert_eq!(backend.requests(), 1);
    let metrics = weir.metrics();
    assert_eq!(metrics["weir"]["reasons"]["rate_limited"], 20, "{metrics}");
    assert_eq!(metrics["weir"]["status_codes"]["429"], 20, "{metrics}");
}

fn both_workers_count_together(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = limited(driver, &backend, 1, 50).set("runtime.workers", 2).start();
    let mut clients: Vec<Wire> = (0..16).map(|_| weir.client()).collect();
    let began = Instant::now();
    let admitted: usize = (0..10)
        .map(|_| {
            clients
                .iter_mut()
                .map(|client| admitted(client, "", 1))
                .sum::<usize>()
        })
        .sum();
    let more = began.elapsed().as_secs() as usize / 10 + 1;
    assert!((50..=50 + more).contains(&admitted), "{admitted}");
    let metrics = weir.metrics();
    let workers = metrics["weir"]["workers"].as_array().expect("workers").clone();
    assert!(
        workers.iter().all(|worker| worker["requests"].as_u64() > Some(0)),
        "{metrics}"
    );
}

/// A connection that is served, or none.
fn served(weir: &Weir, source: &str) -> Option<Wire> {
    let mut client = Wire::connect_from(source, weir.address())
        .ok()?
        .deadline(Duration::from_millis(500));
    client.try_send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").ok()?;
    let answer = client.read_response("GET").ok()?;
    (answer.status() == 200).then_some(client)
}

fn connections_of_one_address_are_bounded(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = Weir::on(driver)
        .fickle(&backend)
        .set("runtime.workers", 2)
        .set("limits.max_connections_per_ip", 3)
        .start();
    let of = |source: &str| -> Vec<Option<Wire>> { (0..6).map(|_| served(&weir, source)).collect() };
    let one = of("127.0.0.1");
    let other = of("127.0.0.2");
    for clients in [&one, &other] {
        assert_eq!(clients.iter().flatten().count(), 3);
        assert!(clients[..3].iter().all(Option::is_some), "the first ones");
    }
}

fn a_connection_that_ends_makes_room(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = Weir::on(driver)
        .fickle(&backend)
        .set("limits.max_connections_per_ip", 2)
        .start();
    for round in 0..5 {
        let first = eventually("room", || served(&weir, "127.0.0.1"));
        let second = eventually("room", || served(&weir, "127.0.0.1"));
        assert!(served(&weir, "127.0.0.1").is_none(), "round {round}");
        if round % 2 == 0 {
            first.reset();
        }
        drop(second);
    }
    assert_eq!(weir.metrics()["weir"]["panics"], 0);
}

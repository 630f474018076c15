//! Retries: what is sent again, where to, how often, and what never is.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use support::weir::Setup;
use support::wire::End;
use support::{
    Backend, Conduct, Driver, Existing, Fickle, Message, Weir, Wire, assert_same_bytes, chunked, eventually,
    noise,
};

on_both_drivers!(
    idempotent_methods_are_retried_after_a_reset,
    other_methods_are_not_retried_once_something_was_sent,
    the_list_of_methods_can_be_changed,
    a_refused_connect_is_retried_for_every_method,
    a_connect_timeout_is_retried_for_every_method,
    a_body_that_was_kept_is_sent_again_whole,
    a_chunked_body_that_was_kept_is_sent_again_whole,
    a_body_larger_than_the_buffer_is_not_sent_again,
    a_large_body_of_which_nothing_was_sent_goes_elsewhere,
    gateway_statuses_are_retried_and_others_are_not,
    the_list_of_what_is_retried_can_be_changed,
    nothing_is_retried_after_the_head,
    the_last_answer_is_passed_on_when_all_fail,
    the_number_of_retries_is_what_was_set,
    each_retry_goes_to_another_backend,
    a_retry_leaves_the_sticky_backend,
    a_retry_leaves_the_hashed_backend,
    a_retry_crosses_into_the_backup_tier,
    an_attempt_that_hangs_is_given_up_in_time,
    a_hanging_post_is_not_repeated,
    all_attempts_together_keep_to_the_exchange_s_time,
    the_budget_bounds_a_total_outage,
    retries_that_succeed_give_their_share_back,
    a_client_that_goes_away_is_not_retried_for,
    attempts_are_in_the_metrics,
);

/// Retries alone: nothing that learns from failures takes a backend out.
fn bare(driver: Driver) -> Setup {
    Weir::on(driver)
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .set("outlier.success_rate", false)
}

/// A backend that is asked first and one that is asked when that failed, told apart by priority and not by luck.
fn first_and_second(driver: Driver, first: &str, second: &str) -> Setup {
    bare(driver)
        .set("strategy.type", "failover")
        .named("first", first)
        .with("priority", 0)
        .named("second", second)
        .with("priority", 1)
        // Both tiers take part in a retry, whoever is left of the first.
        .set("strategy.tier_min", 1)
}

fn request(method: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "{method} /x HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

fn ask(weir: &Weir, method: &str, body: &[u8]) -> Message {
    let mut client = weir.client();
    client.send(request(method, body));
    client.response(method)
}

fn idempotent_methods_are_retried_after_a_reset(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::Reset);
    let weir = first_and_second(driver, &first.url(), &second.url()).start();
    for (n, method) in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]
        .into_iter()
        .enumerate()
    {
        let answer = ask(&weir, method, b"");
        assert_eq!(
            (answer.status(), answer.get("x-backend")),
            (200, Some("second")),
            "{method}"
        );
        let n = n as u64 + 1;
        assert_eq!((first.requests(), second.requests()), (n, n), "{method}");
    }
}

fn other_methods_are_not_retried_once_something_was_sent(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    for method in ["POST", "PATCH", "PURGE"] {
        first.conduct(Conduct::Reset);
        let weir = first_and_second(driver, &first.url(), &second.url()).start();
        let answer = ask(&weir, method, b"");
        assert_eq!(
            (answer.status(), answer.reason()),
            (502, Some("backend_reset")),
            "{method}"
        );
        first.conduct(Conduct::Status(503));
        // Another one, that has no doubts about the first.
        let weir = first_and_second(driver, &first.url(), &second.url()).start();
        let answer = ask(&weir, method, b"");
        assert_eq!(
            (answer.status(), answer.get("x-backend")),
            (503, Some("first")),
            "{method}"
        );
    }
    assert_eq!((first.requests(), second.requests()), (6, 0));
}

fn the_list_of_methods_can_be_changed(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::Reset);
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("retry.methods", vec!["POST"])
        .start();
    assert_eq!(ask(&weir, "GET", b"").status(), 502);
    assert_eq!(ask(&weir, "POST", b"once more").status(), 200);
    assert_eq!(second.bodies(), [b"once more"]);
}

fn a_refused_connect_is_retried_for_every_method(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.kill();
    for method in ["GET", "POST", "PATCH", "PURGE"] {
        // Each one's own: who was refused once is not asked again.
        let weir = first_and_second(driver, &first.url(), &second.url()).start();
        let answer = ask(&weir, method, b"body");
        assert_eq!(
            (answer.status(), answer.get("x-backend")),
            (200, Some("second")),
            "{method}"
        );
    }
    assert_eq!(second.bodies(), vec![b"body".to_vec(); 4]);
}

fn a_connect_timeout_is_retried_for_every_method(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.vanish(Existing::Reset);
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("timeouts.connect", "150ms")
        .start();
    let began = Instant::now();
    let answer = ask(&weir, "POST", b"body");
    assert_eq!((answer.status(), answer.get("x-backend")), (200, Some("second")));
    assert_eq!(second.bodies(), [b"body"]);
    assert!(
        began.elapsed() >= Duration::from_millis(140),
        "{:?}",
        began.elapsed()
    );
}

/// A backend that takes one whole request and resets.
fn resetting() -> Backend {
    Backend::new(|conn| {
        conn.read_request()?;
        conn.reset()
    })
}

fn a_body_that_was_kept_is_sent_again_whole(driver: Driver) {
    let (first, second) = (resetting(), Backend::plain());
    let weir = first_and_second(driver, &first.url(), &second.url()).start();
    for size in [1, 1000, 20_000, 65_536] {
        let body = noise(size as u64, size);
        assert_eq!(ask(&weir, "PUT", &body).status(), 200, "{size}");
        for backend in [&first, &second] {
            let got = backend.requests().pop().expect("a request");
            assert_same_bytes(&format!("{size}"), &got.body, &body);
        }
    }
    assert_eq!((first.requests().len(), second.requests().len()), (4, 4));
}

fn a_chunked_body_that_was_kept_is_sent_again_whole(driver: Driver) {
    let (first, second) = (resetting(), Backend::plain());
    let weir = first_and_second(driver, &first.url(), &second.url()).start();
    let body = noise(5, 30_000);
    let mut client = weir.client();
    client.send("PUT /x HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    // In pieces, so that what is kept has come in several reads.
    client
        .send_slowly(&chunked(&body, 1000), 7000, Duration::from_millis(5))
        .unwrap();
    assert_eq!(client.response("PUT").status(), 200);
    let got = second.requests().pop().expect("a request");
    assert_same_bytes("the second", &got.body, &body);
    assert_same_bytes("the first", &first.requests()[0].body, &body);
}

fn a_body_larger_than_the_buffer_is_not_sent_again(driver: Driver) {
    let (first, second) = (resetting(), Backend::plain());
    let weir = first_and_second(driver, &first.url(), &second.url()).start();
    let answer = ask(&weir, "PUT", &noise(1, 65_536 + 1));
    assert_eq!((answer.status(), answer.reason()), (502, Some("backend_reset")));
    assert_eq!((first.requests().len(), second.heads().len()), (1, 0));
    // The buffer is what was set.
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("retry.buffer", "128KiB")
        .start();
    assert_eq!(ask(&weir, "PUT", &noise(1, 65_536 + 1)).status(), 200);
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("retry.buffer", 0)
        .start();
    assert_eq!(ask(&weir, "PUT", b"x").status(), 502);
    assert_eq!(ask(&weir, "PUT", b"").status(), 200);
}

fn a_large_body_of_which_nothing_was_sent_goes_elsewhere(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Backend::plain());
    first.kill();
    for method in ["PUT", "POST"] {
        let weir = first_and_second(driver, &first.url(), &second.url()).start();
        let body = noise(3, 1 << 20);
        assert_eq!(ask(&weir, method, &body).status(), 200);
        let got = second.requests().pop().expect("a request");
        assert_same_bytes(method, &got.body, &body);
    }
}

fn gateway_statuses_are_retried_and_others_are_not(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    let weir = first_and_second(driver, &first.url(), &second.url()).start();
    for status in [502, 503, 504] {
        first.conduct(Conduct::Status(status));
        let answer = ask(&weir, "GET", b"");
        assert_eq!(
            (answer.status(), answer.get("x-backend")),
            (200, Some("second")),
            "{status}"
        );
    }
    for status in [400, 404, 429, 500, 501, 505, 511] {
        first.conduct(Conduct::Status(status));
        let answer = ask(&weir, "GET", b"");
        assert_eq!(
            (answer.status(), answer.get("x-backend")),
            (status, Some("first"))
        );
    }
    assert_eq!(second.requests(), 3);
}

fn the_list_of_what_is_retried_can_be_changed(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    let answers = |on: &[&str]| {
        let weir = first_and_second(driver, &first.url(), &second.url())
            .set("retry.on", on.to_vec())
            .start();
        [
            Conduct::Status(500),
            Conduct::Status(503),
            Conduct::Status(429),
            Conduct::Reset,
        ]
        .map(|conduct| {
            first.conduct(conduct);
            ask(&weir, "GET", b"").status()
        })
    };
    assert_eq!(answers(&["500"]), [200, 503, 429, 502]);
    assert_eq!(answers(&["5xx"]), [200, 200, 429, 502]);
    assert_eq!(answers(&["429", "reset"]), [500, 503, 200, 200]);
    assert_eq!(answers(&[]), [500, 503, 429, 502]);
}

fn nothing_is_retried_after_the_head(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::ResetAfterHead);
    let weir = first_and_second(driver, &first.url(), &second.url()).start();
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let head = client.read_head().unwrap();
    assert_eq!((head.status(), head.get("x-backend")), (200, Some("first")));
    let rest = client.read_to_end();
    assert_eq!(rest.end, End::Reset, "an abort, not an end: {rest:?}");
    assert!(rest.got.len() < 100_000);
    assert_eq!((first.requests(), second.requests()), (1, 0));
}

fn the_last_answer_is_passed_on_when_all_fail(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::Reset);
    second.conduct(Conduct::Status(503));
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("retry.max_retries", 1)
        .start();
    let answer = ask(&weir, "GET", b"");
    assert_eq!(
        (answer.status(), answer.get("x-backend"), answer.reason()),
        (503, Some("second"), None)
    );
    assert_eq!(answer.body, b"second /x ");
}

fn the_number_of_retries_is_what_was_set(driver: Driver) {
    let backends = ["a", "b", "c", "d", "e"].map(Fickle::new);
    for backend in &backends {
        backend.conduct(Conduct::Status(503));
    }
    let total = || backends.iter().map(Fickle::requests).sum::<u64>();
    for (set, attempts) in [(0, 1), (1, 2), (2, 3), (4, 5)] {
        let weir = bare(driver)
            .fickles(&backends)
            .set("retry.max_retries", set)
            .start();
        let before = total();
        assert_eq!(ask(&weir, "GET", b"").status(), 503);
        assert_eq!(total() - before, attempts, "max_retries = {set}");
    }
}

/// Each of three failing backends gets one attempt of a request with these fields.
fn each_once(setup: Setup, backends: &[Fickle; 3], fields: &str) {
    for backend in backends {
        backend.conduct(Conduct::Status(503));
    }
    let weir = setup.fickles(backends).set("retry.min_per_second", 1000).start();
    let mut client = weir.client();
    for n in 1..=10 {
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
        assert_eq!(client.response("GET").status(), 503);
        let counts = backends.each_ref().map(Fickle::requests);
        assert_eq!(counts, [n; 3], "attempts at each backend");
    }
}

fn each_retry_goes_to_another_backend(driver: Driver) {
    for strategy in [
        "round-robin",
        "weighted-round-robin",
        "random",
        "least-conn",
        "p2c",
        "least-response",
        "maglev",
        "prequal",
        "failover",
    ] {
        each_once(bare(driver).set("strategy.type", strategy), &Fickle::three(), "");
    }
}

fn a_retry_leaves_the_hashed_backend(driver: Driver) {
    let setup = bare(driver)
        .set("strategy.type", "consistent_hash")
        .set("strategy.key", "header:X-User");
    each_once(setup, &Fickle::three(), "X-User: somebody\r\n");
}

fn a_retry_leaves_the_sticky_backend(driver: Driver) {
    let backends = Fickle::three();
    let weir = bare(driver)
        .fickles(&backends)
        .set("sticky.cookie", "weir")
        .start();
    let mut client = weir.client();
    let answer = client.get("/");
    let own = answer.get("x-backend").expect("a backend").to_owned();
    let cookie = answer.get("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let stuck = backends
        .iter()
        .find(|backend| backend.name == own)
        .expect("one of them");
    stuck.conduct(Conduct::Reset);
    for _ in 0..5 {
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n"));
        let answer = client.response("GET");
        assert_eq!(answer.status(), 200);
        assert_ne!(answer.get("x-backend"), Some(own.as_str()));
    }
}

fn a_retry_crosses_into_the_backup_tier(driver: Driver) {
    let (usual, backup) = (Fickle::new("usual"), Fickle::new("backup"));
    usual.conduct(Conduct::Status(503));
    let weir = bare(driver)
        .fickle(&usual)
        .fickle(&backup)
        .with("backup", true)
        .start();
    let answer = ask(&weir, "GET", b"");
    assert_eq!((answer.status(), answer.get("x-backend")), (200, Some("backup")));
    usual.conduct(Conduct::Answer);
    for _ in 0..10 {
        assert_eq!(ask(&weir, "GET", b"").get("x-backend"), Some("usual"));
    }
    assert_eq!(backup.requests(), 1);
}

fn an_attempt_that_hangs_is_given_up_in_time(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::Hang);
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("retry.per_try_timeout", "200ms")
        .start();
    let began = Instant::now();
    let answer = ask(&weir, "GET", b"");
    let took = began.elapsed();
    assert_eq!((answer.status(), answer.get("x-backend")), (200, Some("second")));
    assert!(
        (Duration::from_millis(190)..Duration::from_millis(1500)).contains(&took),
        "{took:?}"
    );
}

fn a_hanging_post_is_not_repeated(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::Hang);
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("retry.per_try_timeout", "200ms")
        .start();
    let answer = ask(&weir, "POST", b"once");
    assert_eq!((answer.status(), answer.reason()), (504, Some("backend_timeout")));
    assert_eq!((first.requests(), second.requests()), (1, 0));
}

fn all_attempts_together_keep_to_the_exchange_s_time(driver: Driver) {
    let backends = ["a", "b", "c", "d", "e"].map(Fickle::new);
    for backend in &backends {
        backend.conduct(Conduct::Hang);
    }
    let weir = bare(driver)
        .fickles(&backends)
        .set("retry.max_retries", 4)
        .set("retry.per_try_timeout", "200ms")
        .set("timeouts.exchange", "500ms")
        .start();
    let began = Instant::now();
    let answer = ask(&weir, "GET", b"");
    let took = began.elapsed();
    assert_eq!((answer.status(), answer.reason()), (504, Some("backend_timeout")));
    assert!(
        (Duration::from_millis(450)..Duration::from_millis(950)).contains(&took),
        "{took:?}"
    );
    let attempts: u64 = backends.iter().map(Fickle::requests).sum();
    // Each takes 200 ms and as long as it takes to notice.
    assert!((2..=3).contains(&attempts), "{attempts} attempts");
}

fn the_budget_bounds_a_total_outage(driver: Driver) {
    const REQUESTS: u64 = 400;
    let backends = Fickle::three();
    for backend in &backends {
        backend.conduct(Conduct::Status(503));
    }
    for (budget, minimum) in [(20, 0), (0, 0), (50, 0), (0, 5)] {
        let weir = bare(driver)
            .set("runtime.workers", 2)
            .fickles(&backends)
            .set("retry.budget", budget as i64)
            .set("retry.min_per_second", minimum as i64)
            .start();
        let count = || backends.iter().map(Fickle::requests).sum::<u64>();
        let (before, began) = (count(), Instant::now());
        let mut clients: Vec<Wire> = (0..8).map(|_| weir.client()).collect();
        for n in 0..REQUESTS as usize {
            assert_eq!(clients[n % 8].get("/").status(), 503);
        }
        let attempts = count() - before;
        // What the window holds back may be spent at once, and a worker may not know of another's last ones.
        let seconds = began.elapsed().as_secs() + 11;
        let most = REQUESTS + REQUESTS * budget / 100 + minimum * seconds + 2;
        println!("{budget} %, {minimum}/s: {attempts} attempts for {REQUESTS} requests");
        assert!(attempts <= most, "{attempts} attempts, at most {most}");
        // It is there to be used, too.
        let least = REQUESTS + REQUESTS * budget / 100 * 3 / 4;
        assert!(attempts >= least, "{attempts} attempts, at least {least}");
    }
}

fn retries_that_succeed_give_their_share_back(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::Status(503));
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("retry.min_per_second", 1)
        .start();
    // Every request is retried once, five times what the budget holds.
    let mut client = weir.client();
    for n in 0..200 {
        assert_eq!(client.get("/").status(), 200, "request {n}");
    }
    assert_eq!((first.requests(), second.requests()), (200, 200));
}

fn a_client_that_goes_away_is_not_retried_for(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::Hang);
    let weir = first_and_second(driver, &first.url(), &second.url())
        .set("retry.per_try_timeout", "400ms")
        .start();
    let mut client = weir.client();
    client.send(request("GET", b""));
    first.wait_requests(1);
    client.reset();
    eventually("nothing is in flight", || {
        (weir.backend("first")["in_flight"] == 0).then_some(())
    });
    // Somebody else's request comes after a retry of that one would have.
    assert_eq!(ask(&weir, "GET", b"").get("x-backend"), Some("second"));
    assert_eq!((first.requests(), second.requests()), (2, 1));
}

fn attempts_are_in_the_metrics(driver: Driver) {
    let (first, second) = (Fickle::new("first"), Fickle::new("second"));
    first.conduct(Conduct::Status(503));
    let weir = first_and_second(driver, &first.url(), &second.url()).start();
    for _ in 0..3 {
        assert_eq!(ask(&weir, "GET", b"").status(), 200);
    }
    let metrics = eventually("three exchanges counted", || {
        let metrics = weir.metrics();
        (metrics["backends"][second.url()]["requests"] == 3).then_some(metrics)
    });
    assert_eq!(metrics["total_requests"], 3, "{metrics}");
    assert_eq!(metrics["backends"][first.url()]["requests"], 3, "{metrics}");
    assert_eq!(
        metrics["backends"][first.url()]["status_codes"],
        serde_json::json!({"503": 3}),
        "{metrics}"
    );
    let retries = |url: String| metrics["backends"][url]["retries"].clone();
    assert_eq!(retries(first.url()), 0, "{metrics}");
    assert_eq!(retries(second.url()), 3, "{metrics}");
    // No client saw a 503.
    assert!(metrics["weir"]["status_codes"].get("503").is_none(), "{metrics}");
}

//! The circuit breaker, as clients, the log and the admin API see it.

#[macro_use]
mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::weir::Setup;
use support::{Conduct, Driver, Fickle, Weir, Wire, eventually};

on_both_drivers!(
    five_failures_in_a_row_open_it,
    a_success_in_between_begins_the_count_anew,
    failures_are_counted_over_all_workers,
    one_trial_passes_however_many_wait,
    as_many_trials_pass_as_were_set,
    a_failed_trial_opens_it_again,
    several_good_trials_may_be_asked_for,
    a_trial_whose_client_goes_away_gives_its_place_back,
    transitions_are_logged_once,
    an_open_one_is_asked_nothing,
    the_only_backend_is_never_shut_off,
    the_only_backend_is_shut_off_when_that_was_asked_for,
    an_opening_that_would_leave_too_few_is_held,
    clients_that_abort_open_nothing,
    what_counts_as_a_failure_can_be_changed,
    it_can_be_turned_off,
    a_rate_of_errors_opens_it_too,
);

const THRESHOLD: u64 = 5;

/// The breaker alone: no probes, no retries, no ejection, and three backends of which one may always go.
fn alone(driver: Driver, backends: &[Fickle]) -> Setup {
    Weir::on(driver)
        .set("retry.max_retries", 0)
        .set("outlier.consecutive_gateway", "off")
        .set("outlier.success_rate", false)
        .set("circuit_breaker.reset_timeout", "60s")
        .fickles(backends)
}

/// Asks until `backend` has had `n` more requests.
fn ask_until(client: &mut Wire, backend: &Fickle, n: u64) {
    let goal = backend.requests() + n;
    let began = Instant::now();
    while backend.requests() < goal {
        client.get("/");
        assert!(
            began.elapsed() < support::DEADLINE,
            "{} of {goal} requests at {}",
            backend.requests(),
            backend.name
        );
    }
}

/// Opens the first one's breaker by failures.
fn open(weir: &Weir, backend: &Fickle) {
    backend.conduct(Conduct::Status(500));
    ask_until(&mut weir.client(), backend, THRESHOLD);
    weir.wait_breaker(&backend.name, "OPEN");
}

/// Asks `n` times; nobody of it comes to `backend`.
fn assert_not_asked(weir: &Weir, backend: &Fickle, n: usize) {
    let before = backend.requests();
    let mut client = weir.client();
    for _ in 0..n {
        client.get("/");
    }
    assert_eq!(backend.requests(), before, "requests at {}", backend.name);
}

fn five_failures_in_a_row_open_it(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends).start();
    let mut client = weir.client();
    backends[0].conduct(Conduct::Status(500));
    ask_until(&mut client, &backends[0], THRESHOLD - 1);
    assert_eq!(weir.breaker("a"), "CLOSED");
    ask_until(&mut client, &backends[0], 1);
    weir.wait_breaker("a", "OPEN");
    assert_not_asked(&weir, &backends[0], 60);
    assert_eq!(backends[0].requests(), THRESHOLD);
    for other in ["b", "c"] {
        assert_eq!(weir.breaker(other), "CLOSED");
    }
}

fn a_success_in_between_begins_the_count_anew(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends).start();
    let mut client = weir.client();
    for _ in 0..3 {
        backends[0].conduct(Conduct::Status(500));
        ask_until(&mut client, &backends[0], THRESHOLD - 1);
        backends[0].conduct(Conduct::Answer);
        ask_until(&mut client, &backends[0], 1);
    }
    assert_eq!(weir.breaker("a"), "CLOSED");
}

fn failures_are_counted_over_all_workers(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends).set("runtime.workers", 2).start();
    backends[0].conduct(Conduct::Status(500));
    // Connections are spread over the workers by the kernel.
    let mut clients: Vec<Wire> = (0..16).map(|_| weir.client()).collect();
    for round in 0..10 {
        for client in &mut clients {
            client.get("/");
        }
        if weir.breaker("a") == "OPEN" {
            break;
        }
        assert!(round < 9, "{} failures and still closed", backends[0].requests());
    }
    assert_eq!(backends[0].requests(), THRESHOLD);
}

/// Lets `clients` ask at once and again and again, until `backend` has had `more` requests and some time has passed.
/// How many requests it had by then.
fn crowd(weir: &Weir, backend: &Fickle, clients: usize, time: Duration) -> u64 {
    let before = backend.requests();
    let until = Instant::now() + time;
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = weir.client().deadline(Duration::from_secs(2));
                while Instant::now() < until {
                    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
                    // The trial's own client waits for an answer that does not come.
                    if client.read_response("GET").is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
    backend.requests() - before
}

fn one_trial_passes_however_many_wait(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("runtime.workers", 2)
        .set("circuit_breaker.reset_timeout", "300ms")
        .start();
    open(&weir, &backends[0]);
    // It hangs for longer than the crowd stays.
    backends[0].conduct(Conduct::After(Duration::from_millis(1500)));
    let came = crowd(&weir, &backends[0], 64, Duration::from_millis(900));
    assert_eq!(came, 1, "trials at a hanging backend");
    assert_eq!(backends[0].most_in_flight(), 1);
    backends[0].conduct(Conduct::Answer);
    weir.wait_breaker("a", "CLOSED");
    ask_until(&mut weir.client(), &backends[0], 10);
}

fn as_many_trials_pass_as_were_set(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("runtime.workers", 2)
        .set("circuit_breaker.reset_timeout", "300ms")
        .set("circuit_breaker.half_open_requests", 3)
        .set("circuit_breaker.success_threshold", 3)
        .start();
    open(&weir, &backends[0]);
    backends[0].conduct(Conduct::After(Duration::from_millis(1500)));
    let came = crowd(&weir, &backends[0], 32, Duration::from_millis(900));
    assert_eq!(came, 3);
    backends[0].conduct(Conduct::Answer);
    weir.wait_breaker("a", "CLOSED");
}

fn a_failed_trial_opens_it_again(driver: Driver) {
    const RESET: Duration = Duration::from_millis(300);
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("circuit_breaker.reset_timeout", "300ms")
        .start();
    open(&weir, &backends[0]);
    let opened = Instant::now();
    let mut client = weir.client();
    // Still failing: each trial is one request, and between two of them lies the time that was set.
    ask_until(&mut client, &backends[0], 3);
    assert!(
        opened.elapsed() >= RESET * 3 - RESET / 4,
        "{:?}",
        opened.elapsed()
    );
    weir.wait_breaker("a", "OPEN");
    backends[0].conduct(Conduct::Answer);
    ask_until(&mut client, &backends[0], 1);
    weir.wait_breaker("a", "CLOSED");
}

fn several_good_trials_may_be_asked_for(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("circuit_breaker.reset_timeout", "100ms")
        .set("circuit_breaker.success_threshold", 3)
        .start();
    open(&weir, &backends[0]);
    backends[0].conduct(Conduct::Answer);
    let mut client = weir.client();
    ask_until(&mut client, &backends[0], 2);
    assert_eq!(weir.breaker("a"), "HALF-OPEN");
    ask_until(&mut client, &backends[0], 1);
    weir.wait_breaker("a", "CLOSED");
}

fn a_trial_whose_client_goes_away_gives_its_place_back(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("circuit_breaker.reset_timeout", "100ms")
        .start();
    open(&weir, &backends[0]);
    backends[0].conduct(Conduct::Hang);
    let had = backends[0].requests();
    // Whoever is not answered is the trial.
    let trial = eventually("a trial", || {
        let mut client = weir.client();
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        let mut client = client.deadline(Duration::from_millis(150));
        let answered = client.read_response("GET").is_ok();
        (!answered && backends[0].requests() > had).then_some(client)
    });
    assert_eq!(weir.breaker("a"), "HALF-OPEN");
    assert_not_asked(&weir, &backends[0], 20);
    backends[0].conduct(Conduct::Answer);
    trial.reset();
    ask_until(&mut weir.client(), &backends[0], 1);
    weir.wait_breaker("a", "CLOSED");
}

fn transitions_are_logged_once(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("runtime.workers", 2)
        .set("circuit_breaker.reset_timeout", "200ms")
        .start();
    open(&weir, &backends[0]);
    backends[0].conduct(Conduct::Answer);
    let mut client = weir.client();
    ask_until(&mut client, &backends[0], 10);
    weir.wait_breaker("a", "CLOSED");
    let of_a = |state: &str| {
        let to = format!("\"to\":\"{state}\"");
        weir.log_lines(&["circuit breaker", "\"backend\":\"a\"", &to])
    };
    eventually("the last transition in the log", || {
        (!of_a("CLOSED").is_empty()).then_some(())
    });
    ask_until(&mut client, &backends[0], 10);
    for state in ["OPEN", "HALF-OPEN", "CLOSED"] {
        assert_eq!(of_a(state).len(), 1, "{state}: {:?}", of_a(state));
    }
    let all = weir.log_lines(&["circuit breaker"]);
    assert_eq!(all.len(), 3, "{all:?}");
}

fn an_open_one_is_asked_nothing(driver: Driver) {
    for strategy in [
        "round-robin",
        "weighted-round-robin",
        "random",
        "least-conn",
        "p2c",
        "maglev",
        "consistent_hash",
    ] {
        let backends = Fickle::three();
        let weir = alone(driver, &backends)
            .set("strategy.type", strategy)
            .set("strategy.key", "header:X-User")
            .start();
        backends[0].conduct(Conduct::Status(500));
        let mut client = weir.client();
        let mut ask = |n: usize| {
            client.send(format!("GET / HTTP/1.1\r\nHost: t\r\nX-User: {n}\r\n\r\n"));
            client.response("GET").status()
        };
        let mut n = 0;
        while backends[0].requests() < THRESHOLD {
            ask(n);
            n += 1;
            assert!(n < 2000, "{strategy}: {} failures", backends[0].requests());
        }
        weir.wait_breaker("a", "OPEN");
        for n in 0..60 {
            assert_eq!(ask(n), 200, "{strategy}");
        }
        assert_eq!(backends[0].requests(), THRESHOLD, "{strategy}");
    }
}

fn the_only_backend_is_never_shut_off(driver: Driver) {
    let backend = [Fickle::new("a")];
    backend[0].conduct(Conduct::Status(500));
    let weir = alone(driver, &backend).start();
    let mut client = weir.client();
    for n in 1..=4 * THRESHOLD {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.get("x-backend")), (500, Some("a")));
        assert_eq!(backend[0].requests(), n);
    }
    assert_eq!(weir.breaker("a"), "CLOSED");
    let shown = weir.backend("a");
    assert!(shown["breaker"]["held"].as_u64() > Some(0), "{shown}");
    assert_eq!(weir.wait_log_lines(&["held"], 1).len(), 1, "said once");
}

fn the_only_backend_is_shut_off_when_that_was_asked_for(driver: Driver) {
    let backend = [Fickle::new("a")];
    backend[0].conduct(Conduct::Status(500));
    let weir = alone(driver, &backend)
        .set("circuit_breaker.ignore_panic", true)
        .start();
    let mut client = weir.client();
    for _ in 0..THRESHOLD {
        assert_eq!(client.get("/").status(), 500);
    }
    weir.wait_breaker("a", "OPEN");
    let began = Instant::now();
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.reason()), (503, Some("no_backend")));
    let wait: u64 = answer
        .get("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("Retry-After in seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(began.elapsed() < Duration::from_millis(500), "at once");
    assert_eq!(backend[0].requests(), THRESHOLD);
}

fn an_opening_that_would_leave_too_few_is_held(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends).start();
    for backend in &backends {
        backend.conduct(Conduct::Status(500));
    }
    let mut client = weir.client();
    for _ in 0..20 * THRESHOLD {
        assert_eq!(client.get("/").status(), 500);
    }
    let open = backends
        .iter()
        .filter(|backend| weir.breaker(&backend.name) == "OPEN")
        .count();
    assert_eq!(open, 1, "two of three left is above half, one is not");
    let asked = backends
        .iter()
        .filter(|backend| backend.requests() > 2 * THRESHOLD)
        .count();
    assert_eq!(asked, 2);
}

fn clients_that_abort_open_nothing(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends).start();
    for backend in &backends {
        backend.conduct(Conduct::Hang);
    }
    for n in 1..=10 * THRESHOLD {
        let mut client = weir.client();
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        eventually("a request to give up", || {
            (backends.iter().map(Fickle::requests).sum::<u64>() >= n).then_some(())
        });
        client.reset();
    }
    eventually("nothing is in flight", || {
        backends
            .iter()
            .all(|backend| weir.backend(&backend.name)["in_flight"] == 0)
            .then_some(())
    });
    for backend in &backends {
        backend.conduct(Conduct::Answer);
        assert_eq!(weir.breaker(&backend.name), "CLOSED");
    }
    let mut client = weir.client();
    for backend in &backends {
        ask_until(&mut client, backend, 3);
    }
}

fn what_counts_as_a_failure_can_be_changed(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("circuit_breaker.failures", vec!["reset", "429"])
        .start();
    let mut client = weir.client();
    backends[0].conduct(Conduct::Status(500));
    ask_until(&mut client, &backends[0], 3 * THRESHOLD);
    assert_eq!(weir.breaker("a"), "CLOSED");
    backends[0].conduct(Conduct::Status(429));
    ask_until(&mut client, &backends[0], THRESHOLD);
    weir.wait_breaker("a", "OPEN");
    backends[1].conduct(Conduct::Reset);
    let weir = alone(driver, &backends)
        .set("circuit_breaker.failures", vec!["reset"])
        .start();
    ask_until(&mut weir.client(), &backends[1], THRESHOLD);
    weir.wait_breaker("b", "OPEN");
}

fn it_can_be_turned_off(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("circuit_breaker.enabled", false)
        .start();
    backends[0].conduct(Conduct::Status(500));
    ask_until(&mut weir.client(), &backends[0], 10 * THRESHOLD);
}

fn a_rate_of_errors_opens_it_too(driver: Driver) {
    let backends = Fickle::three();
    let setup = || alone(driver, &backends).set("circuit_breaker.min_volume", 20);
    backends[0].conduct(Conduct::EverySecond { status: 500 });
    // Never two in a row: only the rate can tell.
    let weir = setup().start();
    ask_until(&mut weir.client(), &backends[0], 60);
    assert_eq!(weir.breaker("a"), "CLOSED");
    let weir = setup().set("circuit_breaker.error_rate", 40).start();
    let mut client = weir.client();
    ask_until(&mut client, &backends[0], 15);
    assert_eq!(weir.breaker("a"), "CLOSED", "too few to judge");
    ask_until(&mut client, &backends[0], 6);
    weir.wait_breaker("a", "OPEN");
    assert_not_asked(&weir, &backends[0], 30);
}

//! Ejection: who is taken out by what its traffic shows, for how long, and how it returns.

#[macro_use]
mod support;

use std::thread;
use std::time::{Duration, Instant};

use support::weir::Setup;
use support::{Conduct, DEADLINE, Driver, Fickle, Load, Plan, Weir, Wire, eventually};

on_both_drivers!(
    five_gateway_failures_in_a_row_eject,
    an_error_of_the_application_is_no_gateway_failure,
    errors_of_any_kind_eject_when_that_was_asked_for,
    it_returns_by_one_trial,
    a_failed_trial_ejects_for_longer,
    no_more_than_half_are_ejected,
    a_low_success_rate_ejects,
    it_can_be_turned_off,
);

const THRESHOLD: u64 = 5;

/// Ejection alone.
fn alone(driver: Driver, backends: &[Fickle]) -> Setup {
    Weir::on(driver)
        .set("circuit_breaker.enabled", false)
        .set("retry.max_retries", 0)
        .set("outlier.success_rate", false)
        .set("outlier.base_ejection", "60s")
        .fickles(backends)
}

/// Asks until `backend` has had `n` more requests.
fn ask_until(client: &mut Wire, backend: &Fickle, n: u64) {
    let goal = backend.requests() + n;
    let began = Instant::now();
    while backend.requests() < goal {
        client.get("/");
        assert!(
            began.elapsed() < DEADLINE,
            "{} of {goal} requests at {}",
            backend.requests(),
            backend.name
        );
    }
}

fn wait_state(weir: &Weir, name: &str, state: &str) {
    weir.wait_backend(name, state, |shown| shown["state"] == state);
}

fn five_gateway_failures_in_a_row_eject(driver: Driver) {
    for conduct in [
        Conduct::Status(502),
        Conduct::Status(503),
        Conduct::Status(504),
        Conduct::Reset,
    ] {
        let backends = Fickle::three();
        let weir = alone(driver, &backends).start();
        let mut client = weir.client();
        backends[0].conduct(conduct);
        ask_until(&mut client, &backends[0], THRESHOLD);
        wait_state(&weir, "a", "ejected");
        for _ in 0..30 {
            assert_eq!(client.get("/").status(), 200, "{conduct:?}");
        }
        assert_eq!(backends[0].requests(), THRESHOLD, "{conduct:?}");
        assert_eq!(weir.backend("a")["ejections"]["count"], 1);
        let line = &weir.wait_log_lines(&["backend ejected"], 1)[0];
        assert!(line.contains("\"backend\":\"a\""), "{line}");
    }
}

fn an_error_of_the_application_is_no_gateway_failure(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends).start();
    backends[0].conduct(Conduct::Status(500));
    ask_until(&mut weir.client(), &backends[0], 6 * THRESHOLD);
    assert_eq!(weir.backend("a")["state"], "up");
}

fn errors_of_any_kind_eject_when_that_was_asked_for(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("outlier.consecutive_gateway", "off")
        .set("outlier.consecutive_5xx", 7)
        .start();
    backends[0].conduct(Conduct::Status(500));
    let mut client = weir.client();
    ask_until(&mut client, &backends[0], 6);
    assert_eq!(weir.backend("a")["state"], "up");
    ask_until(&mut client, &backends[0], 1);
    wait_state(&weir, "a", "ejected");
}

fn it_returns_by_one_trial(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("runtime.workers", 2)
        .set("outlier.base_ejection", "400ms")
        .start();
    backends[0].conduct(Conduct::Status(503));
    ask_until(&mut weir.client(), &backends[0], THRESHOLD);
    wait_state(&weir, "a", "ejected");
    let had = backends[0].requests();
    backends[0].conduct(Conduct::After(Duration::from_millis(1500)));
    let until = Instant::now() + Duration::from_secs(1);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let mut client = weir.client();
                while Instant::now() < until {
                    assert_eq!(client.get("/").status(), 200);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
    });
    assert_eq!(backends[0].requests(), had + 1, "trials while one was under way");
    wait_state(&weir, "a", "up");
    backends[0].conduct(Conduct::Answer);
    ask_until(&mut weir.client(), &backends[0], 5);
}

fn a_failed_trial_ejects_for_longer(driver: Driver) {
    const BASE: Duration = Duration::from_millis(400);
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("outlier.base_ejection", "400ms")
        .start();
    backends[0].conduct(Conduct::Status(503));
    let mut client = weir.client();
    ask_until(&mut client, &backends[0], THRESHOLD);
    let first = Instant::now();
    ask_until(&mut client, &backends[0], 1);
    let second = Instant::now();
    ask_until(&mut client, &backends[0], 1);
    let third = Instant::now();
    let (short, long) = (second - first, third - second);
    assert!(short >= BASE - BASE / 8, "the first: {short:?}");
    assert!(long >= 2 * BASE - BASE / 8, "the second: {long:?}");
    // The backend has seen the request that fails; what weir makes of its answer follows.
    weir.wait_backend("a", "three times ejected", |shown| {
        shown["ejections"]["count"] == 3
    });
}

fn no_more_than_half_are_ejected(driver: Driver) {
    let backends = ["a", "b", "c", "d", "e", "f"].map(Fickle::new);
    for (percent, out) in [(50, 3), (20, 1), (100, 6)] {
        let weir = alone(driver, &backends)
            .set("outlier.max_ejection_percent", percent)
            .set("health_check.panic_threshold", 0)
            .start();
        for backend in &backends {
            backend.conduct(Conduct::Status(503));
        }
        let mut client = weir.client();
        for _ in 0..120 {
            client.get("/");
        }
        let ejected = backends
            .iter()
            .filter(|backend| weir.backend(&backend.name)["state"] == "ejected")
            .count();
        assert_eq!(ejected, out, "at {percent} %");
    }
}

fn a_low_success_rate_ejects(driver: Driver) {
    // One of five can never be 1.9 standard deviations away.
    let backends = ["a", "b", "c", "d", "e", "f", "g", "h"].map(Fickle::new);
    let weir = alone(driver, &backends)
        .set("outlier.success_rate", true)
        .set("outlier.min_volume", 10)
        .start();
    let plan = Plan {
        connections: 8,
        pause: Duration::from_millis(4),
        ..Plan::default()
    };
    let load = Load::with(weir.address(), plan);
    load.wait_answered(200);
    // Never two in a row: only the rate can tell.
    backends[0].conduct(Conduct::EverySecond { status: 500 });
    wait_state(&weir, "a", "ejected");
    backends[0].conduct(Conduct::Answer);
    for other in &backends[1..] {
        assert_eq!(weir.backend(&other.name)["state"], "up");
    }
}

fn it_can_be_turned_off(driver: Driver) {
    let backends = Fickle::three();
    let weir = alone(driver, &backends)
        .set("outlier.consecutive_gateway", "off")
        .start();
    backends[0].conduct(Conduct::Status(503));
    ask_until(&mut weir.client(), &backends[0], 10 * THRESHOLD);
    eventually("still in", || (weir.backend("a")["state"] == "up").then_some(()));
}

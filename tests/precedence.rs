//! Probes, ejection, breaker, panic, drain and slow start where they meet: the rows of the table in docs/resilience.md
//! that can be seen from outside.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use support::weir::Setup;
use support::{Conduct, Driver, Fickle, Load, Plan, Weir, Wire, eventually};

on_both_drivers!(
    panic_brings_back_the_sick,
    panic_never_brings_back_the_dead_while_another_is_left,
    panic_never_brings_back_what_was_drained,
    panic_never_brings_back_what_is_in_maintenance,
    panic_never_brings_back_weight_zero,
    without_panic_nobody_is_asked,
    nothing_eligible_is_said_at_once,
    one_down_of_three_is_no_panic,
    an_open_breaker_gets_its_trial_when_the_probe_turns_good,
    an_ejection_gets_its_trial_when_the_probe_turns_good,
    a_probe_that_was_good_all_along_changes_nothing,
    a_trial_goes_only_where_the_probe_says_up,
    an_ejection_that_would_leave_too_few_is_held,
    probes_and_failures_together_do_not_empty_a_pool,
    after_an_outage_of_all_traffic_is_back_with_the_probes,
    overloaded_backends_whose_probes_time_out_go_on_serving,
    slow_start_ramps_up_one_that_comes_back,
    slow_start_is_skipped_when_half_of_the_pool_comes_back,
    drain_beats_a_good_probe_and_maintenance_beats_drain,
);

const INTERVAL: Duration = Duration::from_millis(50);

/// Probes many times a second, and no retries that would hide who was asked.
fn probing(driver: Driver, backends: &[Fickle]) -> Setup {
    Weir::on(driver)
        .set("health_check.type", "http")
        .set("health_check.interval", "50ms")
        .set("health_check.timeout", "500ms")
        .set("retry.max_retries", 0)
        .fickles(backends)
}

/// Neither breaker nor ejection.
fn probes_alone(driver: Driver, backends: &[Fickle]) -> Setup {
    probing(driver, backends)
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .set("outlier.success_rate", false)
}

fn sick(weir: &Weir, backends: &[Fickle]) {
    for backend in backends {
        backend.health(Conduct::Status(503));
        weir.wait_healthy(&backend.name, false);
    }
}

/// Asks `n` times; how many of these each backend got, all answered.
fn spread(weir: &Weir, backends: &[Fickle], n: usize) -> Vec<u64> {
    let before: Vec<u64> = backends.iter().map(Fickle::requests).collect();
    let mut client = weir.client();
    for _ in 0..n {
        assert_eq!(client.get("/").status(), 200);
    }
    let after = backends.iter().map(Fickle::requests);
    after.zip(before).map(|(after, before)| after - before).collect()
}

fn panic_brings_back_the_sick(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends).start();
    sick(&weir, &backends[..2]);
    let got = spread(&weir, &backends, 60);
    assert!(
        got.iter().all(|got| *got > 0),
        "one of three is below half: {got:?}"
    );
    sick(&weir, &backends);
    let got = spread(&weir, &backends, 60);
    assert!(got.iter().all(|got| *got > 0), "none of three: {got:?}");
}

fn panic_never_brings_back_the_dead_while_another_is_left(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends).start();
    backends[0].kill();
    weir.wait_healthy("a", false);
    sick(&weir, &backends[1..]);
    // Without retries a request at the dead one would be a 502.
    assert_eq!(spread(&weir, &backends, 60)[0], 0);
    let refused = weir.backend_metric(&backends[0].url(), "connect_failures");
    assert_eq!(refused, 0, "connects of traffic to a dead backend");
}

fn panic_never_brings_back_what_was_drained(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends).start();
    weir.operate("a", "drain");
    weir.wait_eligible("a", false);
    sick(&weir, &backends[1..]);
    let got = spread(&weir, &backends, 60);
    assert_eq!(got[0], 0, "{got:?}");
}

fn panic_never_brings_back_what_is_in_maintenance(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends).start();
    weir.operate("a", "maintenance");
    weir.operate("b", "maintenance");
    weir.wait_eligible("b", false);
    sick(&weir, &backends[2..]);
    assert_eq!(spread(&weir, &backends, 60), [0, 0, 60]);
}

fn panic_never_brings_back_weight_zero(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends)
        .with("weight", 0)
        .set("strategy.type", "weighted-round-robin")
        .start();
    assert_eq!(spread(&weir, &backends, 20), [10, 10, 0]);
    sick(&weir, &backends[..2]);
    assert_eq!(spread(&weir, &backends, 20)[2], 0);
}

fn without_panic_nobody_is_asked(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends)
        .set("health_check.panic_threshold", 0)
        .start();
    sick(&weir, &backends[..2]);
    assert_eq!(spread(&weir, &backends, 20), [0, 0, 20]);
    sick(&weir, &backends);
    let answer = weir.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (503, Some("no_backend")));
    assert!(answer.get("retry-after").is_some(), "{answer:?}");
    assert_eq!(backends.iter().map(Fickle::requests).sum::<u64>(), 20);
}

fn nothing_eligible_is_said_at_once(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends).start();
    for backend in &backends {
        weir.operate(&backend.name, "maintenance");
        weir.wait_eligible(&backend.name, false);
    }
    let began = Instant::now();
    let answer = weir.client().get("/");
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
    assert_eq!((answer.status(), answer.reason()), (503, Some("no_backend")));
    let wait = answer.get("retry-after").map(str::parse::<u64>);
    assert!(wait.is_some_and(|wait| wait.is_ok()), "{answer:?}");
    assert_eq!(weir.admin_get("/readyz?backends=1").status(), 503);
    assert_eq!(weir.admin_get("/readyz").status(), 200);
}

fn one_down_of_three_is_no_panic(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends).start();
    sick(&weir, &backends[..1]);
    assert_eq!(spread(&weir, &backends, 60), [0, 30, 30]);
    backends[0].health(Conduct::Answer);
    weir.wait_healthy("a", true);
    assert_eq!(spread(&weir, &backends, 60), [20, 20, 20]);
}

/// The breaker with a pause that no test waits for.
fn with_breaker(driver: Driver, backends: &[Fickle]) -> Setup {
    probing(driver, backends)
        .set("circuit_breaker.reset_timeout", "60s")
        .set("outlier.consecutive_gateway", "off")
        .set("outlier.success_rate", false)
}

/// Ejection with a pause that no test waits for.
fn with_ejection(driver: Driver, backends: &[Fickle]) -> Setup {
    probing(driver, backends)
        .set("circuit_breaker.enabled", false)
        .set("outlier.base_ejection", "60s")
        .set("outlier.success_rate", false)
}

fn ask(weir: &Weir, n: usize) {
    let mut client = weir.client();
    for _ in 0..n {
        client.get("/");
    }
}

/// The first one dies, is left out, and comes back to `weir`.
fn comes_back(weir: &Weir, backends: &[Fickle]) {
    // Fails before the probes have seen anything.
    backends[0].conduct(Conduct::Status(503));
    ask(weir, 20);
    assert_eq!(backends[0].requests(), 5, "left out after five failures");
    backends[0].kill();
    weir.wait_healthy("a", false);
    backends[0].conduct(Conduct::Answer);
    backends[0].revive();
    weir.wait_healthy("a", true);
    // Not a minute later, but now.
    eventually("the first one takes part again", || {
        ask(weir, 3);
        (backends[0].requests() > 10).then_some(())
    });
}

fn an_open_breaker_gets_its_trial_when_the_probe_turns_good(driver: Driver) {
    let backends = Fickle::three();
    let weir = with_breaker(driver, &backends).start();
    comes_back(&weir, &backends);
    weir.wait_breaker("a", "CLOSED");
}

fn an_ejection_gets_its_trial_when_the_probe_turns_good(driver: Driver) {
    let backends = Fickle::three();
    let weir = with_ejection(driver, &backends).start();
    comes_back(&weir, &backends);
    weir.wait_eligible("a", true);
}

fn a_probe_that_was_good_all_along_changes_nothing(driver: Driver) {
    let backends = Fickle::three();
    for setup in [with_breaker(driver, &backends), with_ejection(driver, &backends)] {
        backends[0].conduct(Conduct::Status(503));
        let weir = setup.start();
        ask(&weir, 20);
        let had = backends[0].requests();
        let probes = backends[0].probes();
        backends[0].conduct(Conduct::Answer);
        for round in 1..=5 {
            backends[0].wait_probes(probes + 2 * round);
            ask(&weir, 10);
        }
        assert_eq!(backends[0].requests(), had, "traffic failed, so traffic decides");
    }
}

fn a_trial_goes_only_where_the_probe_says_up(driver: Driver) {
    let backends = Fickle::three();
    let weir = with_breaker(driver, &backends)
        .set("circuit_breaker.reset_timeout", "100ms")
        .start();
    backends[0].health(Conduct::Status(503));
    backends[0].conduct(Conduct::Status(500));
    ask(&weir, 20);
    weir.wait_healthy("a", false);
    let had = backends[0].requests();
    // Several pauses of the breaker.
    let probes = backends[0].probes();
    for round in 1..=10 {
        backends[0].wait_probes(probes + 2 * round);
        ask(&weir, 5);
    }
    assert_eq!(backends[0].requests(), had);
    backends[0].health(Conduct::Answer);
    backends[0].conduct(Conduct::Answer);
    eventually("a trial", || {
        ask(&weir, 3);
        (backends[0].requests() > had + 3).then_some(())
    });
}

fn an_ejection_that_would_leave_too_few_is_held(driver: Driver) {
    let backends = Fickle::three();
    let weir = with_ejection(driver, &backends)
        .set("outlier.max_ejection_percent", 100)
        .start();
    for backend in &backends {
        backend.conduct(Conduct::Status(503));
    }
    ask(&weir, 150);
    let out = backends.iter().filter(|backend| backend.requests() <= 10).count();
    let counts: Vec<u64> = backends.iter().map(Fickle::requests).collect();
    assert_eq!(out, 1, "requests: {counts:?}");
}

fn probes_and_failures_together_do_not_empty_a_pool(driver: Driver) {
    let backends = Fickle::three();
    let weir = probing(driver, &backends).start();
    // One is down by its probe; the failures of another would leave one of three.
    sick(&weir, &backends[..1]);
    backends[1].conduct(Conduct::Status(503));
    let mut client = weir.client();
    for _ in 0..60 {
        client.get("/");
    }
    assert!(
        backends[1].requests() > 10,
        "{} requests: it was taken out although that leaves one of three",
        backends[1].requests()
    );
}

fn after_an_outage_of_all_traffic_is_back_with_the_probes(driver: Driver) {
    let backends = Fickle::three();
    let weir = probing(driver, &backends)
        .set("circuit_breaker.reset_timeout", "60s")
        .set("outlier.base_ejection", "60s")
        .start();
    for backend in &backends {
        backend.kill();
    }
    let mut client = weir.client();
    for backend in &backends {
        while weir.backend(&backend.name)["healthy"] == true {
            let status = client.get("/").status();
            assert!(status == 502 || status == 503, "{status}");
        }
    }
    for _ in 0..30 {
        let status = client.get("/").status();
        assert!(status == 502 || status == 503, "{status}");
    }
    for backend in &backends {
        backend.revive();
    }
    for backend in &backends {
        weir.wait_healthy(&backend.name, true);
    }
    let back = Instant::now();
    eventually("all three serve", || {
        assert!(back.elapsed() < 20 * INTERVAL, "not with the probes");
        client.get("/");
        backends
            .iter()
            .all(|backend| backend.requests() > 0)
            .then_some(())
    });
    for _ in 0..30 {
        assert_eq!(client.get("/").status(), 200);
    }
}

fn overloaded_backends_whose_probes_time_out_go_on_serving(driver: Driver) {
    let backends = Fickle::three();
    let weir = probing(driver, &backends)
        .set("health_check.timeout", "50ms")
        .set("retry.max_retries", 2)
        .start();
    // Everything waits in the backends' own queues, probes too.
    for backend in &backends {
        backend.health(Conduct::After(Duration::from_millis(200)));
        backend.conduct(Conduct::After(Duration::from_millis(200)));
    }
    let plan = Plan {
        connections: 24,
        ..Plan::default()
    };
    let load = Load::with(weir.address(), plan);
    for backend in &backends {
        weir.wait_healthy(&backend.name, false);
    }
    let before: Vec<u64> = backends.iter().map(Fickle::requests).collect();
    load.wait_answered(200);
    load.stop().assert_none_failed();
    for (backend, before) in backends.iter().zip(before) {
        assert!(
            backend.requests() - before > 30,
            "{} of 200 at {}",
            backend.requests() - before,
            backend.name
        );
    }
}

/// The share of `n` requests that goes to the first.
fn share_of_first(weir: &Weir, backends: &[Fickle], n: usize) -> f64 {
    spread(weir, backends, n)[0] as f64 / n as f64
}

fn slow_start_ramps_up_one_that_comes_back(driver: Driver) {
    const RAMP: Duration = Duration::from_secs(3);
    for strategy in ["weighted-round-robin", "random", "least-conn", "p2c"] {
        let backends = Fickle::three();
        let weir = probes_alone(driver, &backends)
            .set("strategy.type", strategy)
            .set("strategy.slow_start", "3s")
            .start();
        sick(&weir, &backends[..1]);
        assert_eq!(share_of_first(&weir, &backends, 30), 0.0);
        backends[0].health(Conduct::Answer);
        weir.wait_healthy("a", true);
        let back = Instant::now();
        let early = share_of_first(&weir, &backends, 200);
        assert!(
            back.elapsed() < RAMP / 3,
            "too slow a machine to tell: {:?}",
            back.elapsed()
        );
        assert!(early < 0.2, "{strategy}: {early} at once");
        eventually("its whole share", || {
            (share_of_first(&weir, &backends, 200) > 0.25).then_some(())
        });
        assert!(
            back.elapsed() > RAMP / 3,
            "{strategy}: after {:?}",
            back.elapsed()
        );
    }
}

fn slow_start_is_skipped_when_half_of_the_pool_comes_back(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends)
        .set("strategy.type", "weighted-round-robin")
        .set("strategy.slow_start", "60s")
        .set("health_check.panic_threshold", 0)
        .set("health_check.rise", 1)
        .start();
    sick(&weir, &backends[..2]);
    assert_eq!(spread(&weir, &backends, 30), [0, 0, 30]);
    for backend in &backends[..2] {
        backend.health(Conduct::Answer);
    }
    for backend in &backends[..2] {
        weir.wait_healthy(&backend.name, true);
    }
    let got = spread(&weir, &backends, 60);
    assert!(got.iter().all(|got| (15..=25).contains(got)), "{got:?}");
}

fn drain_beats_a_good_probe_and_maintenance_beats_drain(driver: Driver) {
    let backends = Fickle::three();
    let weir = probes_alone(driver, &backends)
        .set("sticky.cookie", "weir")
        .start();
    let stuck = |client: &mut Wire| {
        let answer = client.get("/");
        let cookie = answer.get("set-cookie").expect("a cookie").to_owned();
        let own = answer.get("x-backend").expect("a backend").to_owned();
        (own, cookie.split(';').next().unwrap_or_default().to_owned())
    };
    let mut client = weir.client();
    let (own, cookie) = stuck(&mut client);
    let mut again = || {
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\nCookie: {cookie}\r\n\r\n"));
        client.response("GET").get("x-backend").map(str::to_owned)
    };
    weir.operate(&own, "drain");
    weir.wait_eligible(&own, false);
    for _ in 0..5 {
        assert_eq!(
            again().as_deref(),
            Some(own.as_str()),
            "what sticks to it finishes"
        );
    }
    let of_own = backends
        .iter()
        .find(|backend| backend.name == own)
        .expect("one of them");
    let had = of_own.requests();
    for _ in 0..20 {
        weir.client().get("/");
    }
    assert_eq!(of_own.requests(), had, "nobody new");
    weir.operate(&own, "maintenance");
    eventually("maintenance", || {
        (again().as_deref() != Some(own.as_str())).then_some(())
    });
    weir.operate(&own, "ready");
    weir.wait_eligible(&own, true);
}

//! Hedging: a second attempt where the first one is late, for requests that may be repeated.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use support::fickle::Conduct;
use support::weir::Setup;
use support::{Driver, Fickle, Weir, Wire};

on_both_drivers!(
    a_late_answer_is_overtaken_by_another_backends,
    what_may_not_be_repeated_is_not_hedged,
    the_first_answer_wins_also_if_it_is_the_first_one_asked,
    it_is_off_unless_asked_for,
    prequal_asks_backends_for_their_load,
);

/// How late a slow backend is.
const LATE: Duration = Duration::from_millis(800);

fn hedging(driver: Driver, backends: &[Fickle]) -> Setup {
    Weir::on(driver).fickles(backends).set("hedge.enabled", true)
}

/// Lets weir learn how fast its backends are.
fn learn(client: &mut Wire) {
    for _ in 0..200 {
        assert_eq!(client.get("/").status(), 200);
    }
}

fn timed(client: &mut Wire, method: &str) -> Duration {
    let began = Instant::now();
    client.send(format!(
        "{method} / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(client.response(method).status(), 200);
    began.elapsed()
}

fn a_late_answer_is_overtaken_by_another_backends(driver: Driver) {
    let backends = Fickle::three();
    let weir = hedging(driver, &backends).start();
    let mut client = weir.client();
    learn(&mut client);
    backends[0].conduct(Conduct::After(LATE));
    let before = backends[0].requests();
    for _ in 0..9 {
        let took = timed(&mut client, "GET");
        assert!(took < LATE / 2, "{took:?}");
    }
    assert!(backends[0].requests() > before, "it was asked all the same");
}

fn what_may_not_be_repeated_is_not_hedged(driver: Driver) {
    let backends = Fickle::three();
    let weir = hedging(driver, &backends).start();
    let mut client = weir.client();
    learn(&mut client);
    backends[0].conduct(Conduct::After(LATE));
    let sum = || backends.iter().map(Fickle::requests).sum::<u64>();
    let before = sum();
    let slowest = (0..3).map(|_| timed(&mut client, "POST")).max();
    assert!(slowest >= Some(LATE), "{slowest:?}");
    assert_eq!(sum() - before, 3, "each went out once");
}

fn the_first_answer_wins_also_if_it_is_the_first_one_asked(driver: Driver) {
    let backends = Fickle::three();
    let weir = hedging(driver, &backends).start();
    let mut client = weir.client();
    learn(&mut client);
    // Everybody is late: the one that was asked first is done first.
    for backend in &backends {
        backend.conduct(Conduct::After(LATE));
    }
    let took = timed(&mut client, "GET");
    assert!((LATE..LATE * 2).contains(&took), "{took:?}");
    for backend in &backends {
        backend.conduct(Conduct::Answer);
    }
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(weir.metrics()["weir"]["panics"], 0);
}

fn it_is_off_unless_asked_for(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver).fickles(&backends).start();
    let mut client = weir.client();
    learn(&mut client);
    backends[0].conduct(Conduct::After(LATE));
    let slowest = (0..3).map(|_| timed(&mut client, "GET")).max();
    assert!(slowest >= Some(LATE), "{slowest:?}");
}

fn prequal_asks_backends_for_their_load(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver)
        .fickles(&backends)
        .set("strategy.type", "prequal")
        .set("strategy.probe_path", "/load")
        .start();
    let mut client = weir.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").status(), 200);
    }
    // What these answer is no load: weir goes by its own counts and asks again.
    let asked = || {
        let heads = backends.iter().flat_map(Fickle::heads);
        heads.filter(|head| head.target() == "/load").count()
    };
    support::eventually("probes of the load", || (asked() > 3).then_some(()));
    assert_eq!(client.get("/").status(), 200);
    assert_eq!(weir.metrics()["total_requests"], 51, "probes are no requests");
}

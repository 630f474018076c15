//! Active health checks: which answers are good ones, what probes cost traffic, and where a change shows. What is asked, and
//! how many it takes, is in health.rs.

#[macro_use]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::weir::Setup;
use support::{Backend, Conduct, Driver, Existing, Fickle, Weir, eventually, ok};

on_both_drivers!(
    statuses_that_are_good_can_be_set,
    answers_that_are_none_are_bad,
    an_answer_without_end_is_read_as_far_as_was_set,
    a_probe_that_takes_too_long_is_bad,
    a_trickled_answer_is_late_as_a_whole,
    probes_are_not_traffic,
    probes_never_wait_behind_traffic,
    probes_are_spread_over_the_interval,
    a_refused_connect_takes_a_backend_out_at_once,
    what_the_last_probe_said_is_shown,
    changes_are_logged,
);

fn probing(driver: Driver) -> Setup {
    Weir::on(driver)
        .set("health_check.type", "http")
        .set("health_check.interval", "50ms")
        .set("health_check.timeout", "300ms")
        .set("health_check.panic_threshold", 0)
}

/// A backend beside the one that is tested, so that something is served.
fn beside(setup: Setup, backend: &Backend) -> Setup {
    setup.named("tested", &backend.url())
}

/// A backend whose health endpoint answers with these bytes, and whether it is up.
fn is_up_with(driver: Driver, answer: &'static [u8], change: impl Fn(Setup) -> Setup) -> bool {
    let backend = Backend::new(move |conn| {
        conn.read_request()?;
        conn.try_send(answer)?;
        conn.half_close();
        conn.hang()
    });
    let weir = change(beside(probing(driver), &backend))
        .set("health_check.fall", 1)
        .set("health_check.rise", 1)
        .start();
    backend.wait_requests(3);
    let up = weir.backend("tested")["healthy"] == true;
    // The same at the next round.
    backend.wait_requests(5);
    assert_eq!(weir.backend("tested")["healthy"], up);
    up
}

fn statuses_that_are_good_can_be_set(driver: Driver) {
    let same = |setup| setup;
    for (answer, up) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], true),
        (b"HTTP/1.1 204 No Content\r\n\r\n", true),
        (b"HTTP/1.1 399 Odd\r\nContent-Length: 0\r\n\r\n", true),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", false),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        assert_eq!(
            is_up_with(driver, answer, same),
            up,
            "{}",
            String::from_utf8_lossy(answer)
        );
    }
    let odd = |setup: Setup| setup.set("health_check.expect_status", vec!["204", "404-410"]);
    assert!(is_up_with(
        driver,
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        odd
    ));
    assert!(!is_up_with(
        driver,
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        odd
    ));
}

fn answers_that_are_none_are_bad(driver: Driver) {
    let same = |setup| setup;
    for answer in [
        &b""[..],
        b"\0\0garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
    ] {
        assert!(
            !is_up_with(driver, answer, same),
            "{}",
            String::from_utf8_lossy(answer)
        );
    }
}

fn an_answer_without_end_is_read_as_far_as_was_set(driver: Driver) {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let backend = Backend::new(move |conn| {
        conn.read_request()?;
        conn.try_send("HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            conn.try_send([b'x'; 16_384])?;
            counted.fetch_add(16_384, Ordering::Relaxed);
        }
    });
    let weir = beside(probing(driver), &backend)
        .set("health_check.fall", 1)
        .set("health_check.max_response_bytes", "64KiB")
        .start();
    backend.wait_done(0);
    assert!(
        sent.load(Ordering::Relaxed) < 16 << 20,
        "as much as the kernel's buffers take, not an endless body"
    );
    backend.wait_requests(3);
    assert_eq!(weir.backend("tested")["healthy"], true, "its head is good");
    // A text that is not within what is read is not there.
    let weir = beside(probing(driver), &backend)
        .set("health_check.fall", 1)
        .set("health_check.expect_body", "the end")
        .start();
    weir.wait_healthy("tested", false);
}

fn a_probe_that_takes_too_long_is_bad(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = probing(driver).fickle(&backend).start();
    weir.wait_healthy("a", true);
    backend.health(Conduct::Hang);
    weir.wait_healthy("a", false);
    backend.health(Conduct::After(Duration::from_millis(50)));
    weir.wait_healthy("a", true);
    backend.vanish(Existing::Silent);
    weir.wait_healthy("a", false);
}

fn a_trickled_answer_is_late_as_a_whole(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_request()?;
        conn.send_slowly(&ok(b"fine"), 1, Duration::from_millis(50))
    });
    let weir = beside(probing(driver), &backend)
        .set("health_check.fall", 1)
        .start();
    weir.wait_healthy("tested", false);
}

fn probes_are_not_traffic(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = probing(driver).fickle(&backend).start();
    backend.wait_probes(5);
    let metrics = weir.metrics();
    let shown = &metrics["backends"][backend.url()];
    assert_eq!(metrics["total_requests"], 0, "{metrics}");
    assert_eq!(
        (&shown["requests"], &shown["selections"], &shown["connects"]),
        (&0.into(), &0.into(), &0.into()),
        "{metrics}"
    );
}

fn probes_never_wait_behind_traffic(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = probing(driver)
        .fickle(&backend)
        .set("upstream.max_connections", 2)
        .start();
    backend.conduct(Conduct::Hang);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = weir.client();
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            client
        })
        .collect();
    backend.wait_requests(2);
    let before = backend.probes();
    backend.wait_probes(before + 5);
    assert_eq!(weir.backend("a")["healthy"], true);
    drop(clients);
}

fn probes_are_spread_over_the_interval(driver: Driver) {
    let backends: Vec<Fickle> = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .into_iter()
        .map(Fickle::new)
        .collect();
    let _weir = Weir::on(driver)
        .set("health_check.type", "http")
        .set("health_check.interval", "1s")
        .fickles(&backends)
        .start();
    // When each one's third probe comes: the first round is at once for all.
    let began = Instant::now();
    let mut when: Vec<Option<Duration>> = vec![None; backends.len()];
    eventually("three probes of each", || {
        for (when, backend) in when.iter_mut().zip(&backends) {
            if when.is_none() && backend.probes() >= 3 {
                *when = Some(began.elapsed());
            }
        }
        when.iter().all(Option::is_some).then_some(())
    });
    let mut when: Vec<Duration> = when.into_iter().flatten().collect();
    when.sort();
    let span = when[when.len() - 1] - when[0];
    assert!(
        span > Duration::from_millis(250),
        "eight probes of an interval of 1 s within {span:?}: {when:?}"
    );
}

fn a_refused_connect_takes_a_backend_out_at_once(driver: Driver) {
    let backends = Fickle::three();
    // No probe of its own for a minute.
    let weir = Weir::on(driver)
        .set("health_check.type", "http")
        .set("health_check.interval", "60s")
        .fickles(&backends)
        .start();
    backends[0].kill();
    let mut client = weir.client();
    for _ in 0..30 {
        assert_eq!(client.get("/").status(), 200);
    }
    let refused = weir.backend_metric(&backends[0].url(), "connect_failures");
    assert!(refused <= 2, "{refused} refused connects");
    // And it was asked to be probed now, not in a minute.
    weir.wait_healthy("a", false);
}

fn what_the_last_probe_said_is_shown(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = probing(driver).fickle(&backend).start();
    weir.wait_backend("a", "with a good probe", |shown| {
        shown["last_probe"]["status"] == 200
    });
    backend.health(Conduct::Status(503));
    let shown = weir.wait_backend("a", "down", |shown| {
        shown["healthy"] == false && shown["last_probe"]["status"] == 503
    });
    assert!(
        shown["since"].is_string() || shown["since"].is_number(),
        "{shown}"
    );
    backend.kill();
    weir.wait_backend("a", "refused", |shown| shown["last_probe"]["error"].is_string());
}

fn changes_are_logged(driver: Driver) {
    let backend = Fickle::new("a");
    let weir = probing(driver).fickle(&backend).start();
    backend.health(Conduct::Status(503));
    weir.wait_healthy("a", false);
    let sick = ["health: backend is sick", "\"backend\":\"a\""];
    let line = &weir.wait_log_lines(&sick, 1)[0];
    assert!(line.contains("503"), "why: {line}");
    backend.health(Conduct::Answer);
    weir.wait_healthy("a", true);
    weir.wait_log_lines(&["health: backend is up", "\"backend\":\"a\""], 1);
    let probes = backend.probes();
    backend.wait_probes(probes + 5);
    assert_eq!(weir.log_lines(&sick).len(), 1, "once");
    backend.kill();
    weir.wait_log_lines(&["health: backend is dead", "\"backend\":\"a\""], 1);
}

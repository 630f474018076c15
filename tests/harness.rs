//! The harness itself: what the other tests rely on when they call a failure a failure.

#[macro_use]
mod support;

use std::time::Duration;

use support::fickle::{accepts, executed_twice};
use support::load::Failure;
use support::wire::End;
use support::{
    Backend, Conduct, Existing, Fickle, Framing, Head, Load, Plan, Report, Wire, chunked, eventually, noise,
    ok,
};

#[test]
fn a_backend_records_what_it_saw_and_answers() {
    let backend = Backend::plain();
    let mut client = Wire::connect(&backend.address);
    assert_eq!(client.get("/a").body, b"/a");
    client.send(
        "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n",
    );
    assert_eq!(client.response("POST").body, b"/b");
    let requests = backend.wait_requests(2);
    assert_eq!(requests[1].body, b"abc");
    assert_eq!(requests[1].raw_body, b"3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n");
    assert_eq!(requests[1].trailers, [("T".to_owned(), "v".to_owned())]);
    assert_eq!(backend.connections(), 1);
    drop(client);
    assert_eq!(backend.wait_end(0), End::Closed);
    assert!(backend.violations().is_empty());
}

#[test]
fn ends_are_told_apart() {
    let backend = Backend::new(|conn| {
        match conn.read_head()?.target() {
            "/reset" => conn.reset()?,
            "/hang" => conn.hang()?,
            "/short" => conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")?,
            "/unended" => conn.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?,
            _ => {}
        }
        Ok(())
    });
    let end = |target: &str| {
        let mut client = Wire::connect(&backend.address).deadline(Duration::from_millis(200));
        client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        client.read_response("GET").expect_err("no whole response").end
    };
    assert_eq!(end("/"), End::Closed);
    assert_eq!(end("/reset"), End::Reset);
    assert_eq!(end("/hang"), End::Silent);
    assert_eq!(end("/short"), End::Closed);
    assert_eq!(end("/unended"), End::Closed);
}

#[test]
fn heads_are_read_strictly() {
    let fine = Head::parse(b"GET / HTTP/1.1\r\nHost: a\r\nX: caf\xe9 \r\n\r\n").unwrap();
    assert_eq!(fine.get("x"), Some("caf\u{e9}"));
    assert_eq!(fine.request_framing(), Ok(Framing::None));
    for bad in [
        &b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
        b"GET / HTTP/1.1\r\n: a\r\n\r\n",
    ] {
        assert!(Head::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
    }
    for unclear in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Content-Length: 1\r\nContent-Length: 1",
        "Content-Length: +1",
        "Content-Length: ",
        "Transfer-Encoding: gzip",
    ] {
        let head =
            Head::parse(format!("POST / HTTP/1.1\r\nHost: a\r\n{unclear}\r\n\r\n").as_bytes()).unwrap();
        assert!(head.request_framing().is_err(), "{unclear}");
    }
}

#[test]
fn a_reader_that_does_not_read_is_noticed() {
    let (tell, sent) = std::sync::mpsc::channel();
    let backend = Backend::new(move |conn| {
        conn.read_head()?;
        tell.send(conn.send_until_blocked(&noise(1, 64 << 20), Duration::from_millis(100)))
            .unwrap();
        Ok(())
    });
    let mut client = Wire::connect(&backend.address);
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let sent = sent.recv().unwrap();
    assert!(sent > 0 && sent < 64 << 20, "{sent}");
}

#[test]
fn what_tests_send_is_what_they_mean() {
    assert_eq!(chunked(b"abc", 2), b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    assert_eq!(ok(b"x"), b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(noise(7, 13), noise(7, 20)[..13]);
    assert_ne!(noise(7, 13), noise(8, 13));
}

/// A small load straight at a backend, stopped when `enough` says so.
fn load_at(backend: &Fickle, enough: impl Fn(&Load)) -> Report {
    let plan = Plan {
        connections: 4,
        pause: Duration::from_millis(1),
        ..Plan::default()
    };
    let load = Load::with(&backend.address.to_string(), plan);
    enough(&load);
    load.stop()
}

#[test]
fn a_load_tells_what_its_backend_did() {
    let backend = Fickle::new("a");
    let report = load_at(&backend, |load| load.wait_answered(100));
    report.assert_none_failed();
    assert_eq!(report.len() as u64, backend.requests());
    assert!(backend.seen().values().all(|times| *times == 1));
    assert_eq!((backend.accepted(), report.share("a")), (4, 1.0));
    let fails = |load: &Load| {
        eventually("failures", || (load.failed() > 8).then_some(()));
    };
    for (conduct, expected) in [
        (Conduct::Status(503), Failure::Status(503, None)),
        (Conduct::Reset, Failure::NoHead("Reset".to_owned())),
        (Conduct::ResetAfterHead, Failure::Cut("Reset".to_owned())),
    ] {
        backend.conduct(conduct);
        let report = load_at(&backend, fails);
        assert_eq!(report.kinds().into_keys().collect::<Vec<_>>(), [&expected]);
        assert_eq!(report.failed(), report.len());
    }
    backend.conduct(Conduct::Sometimes {
        share: 0.3,
        status: 503,
    });
    let report = load_at(&backend, |load| load.wait_answered(1000));
    assert!((0.25..0.35).contains(&report.failed_share()), "{report}");
    backend.conduct(Conduct::After(Duration::from_millis(20)));
    let report = load_at(&backend, |load| load.wait_answered(20));
    assert_eq!(report.slow(Duration::from_millis(19)), report.len());
    assert_eq!(executed_twice(&[backend]), [].into());
}

#[test]
fn a_backend_dies_vanishes_and_comes_back() {
    let backend = Fickle::new("a");
    let address = backend.address.to_string();
    let mut client = Wire::connect(&address);
    assert_eq!(client.get("/x").body, b"a /x ");
    backend.kill();
    assert!(!accepts(backend.address));
    client.expect_closed();
    backend.revive();
    let mut client = Wire::connect(&address);
    assert_eq!(client.get("/x").body, b"a /x ");
    backend.vanish(Existing::Reset);
    assert!(!accepts(backend.address));
    assert_eq!(client.read_to_end().end, End::Reset);
    backend.revive();
    let mut client = Wire::connect(&address);
    assert_eq!(client.get("/x").body, b"a /x ");
    backend.vanish(Existing::Silent);
    assert!(!accepts(backend.address));
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    client.expect_silence(Duration::from_millis(50));
    backend.revive();
    backend.conduct(Conduct::Answer);
    assert_eq!(Wire::connect(&address).get("/health").body, b"a /health ");
    assert_eq!((backend.requests(), backend.probes()), (4, 1));
}

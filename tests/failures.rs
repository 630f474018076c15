//! Backends that fail: what the client hears, what is tried again, what is never reused.

#[macro_use]
mod support;

use std::net::TcpListener;
use std::time::Duration;

use support::wire::End;
use support::{Backend, Driver, Framing, Gate, Message, Weir, eventually, ok};

on_both_drivers!(
    own_answers_say_why,
    a_refused_connect_is_502,
    a_reset_before_the_head_is_502,
    a_close_before_the_head_is_502,
    half_a_head_is_502,
    garbage_is_502,
    a_truncated_length_is_an_abort,
    truncated_chunks_are_an_abort,
    a_reset_of_an_unframed_body_is_an_abort,
    broken_chunks_in_the_middle_are_an_abort,
    an_abort_ends_the_client_connection_and_only_that,
    a_get_on_a_stale_connection_is_sent_again,
    a_put_on_a_stale_connection_is_sent_again,
    a_post_on_a_stale_connection_is_not_sent_again,
    a_post_with_a_body_on_a_stale_connection_is_not_sent_again,
    a_fresh_connection_that_dies_is_not_tried_again,
    an_answer_that_began_is_not_tried_again,
    the_close_of_an_idle_connection_is_seen_before_the_next_post,
    unexpected_bytes_on_an_idle_connection_close_it,
    bytes_behind_a_response_close_the_connection,
    a_slow_early_close_still_delivers_the_answer,
    a_backend_that_comes_back_is_used_again,
);

/// An own answer as every one has to be.
#[track_caller]
fn assert_own(response: &Message, status: u16, reason: &str) {
    assert_eq!(
        (response.status(), response.reason()),
        (status, Some(reason)),
        "{:?}",
        response.head
    );
    assert!(
        !response.body.is_empty() && response.body.len() < 1024,
        "a short body: {:?}",
        response.body
    );
    assert!(
        response.has("content-length") && response.has("content-type"),
        "{:?}",
        response.head
    );
}

fn own_answers_say_why(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (
            "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n",
            400,
            "framing",
        ),
        (
            "CONNECT t:443 HTTP/1.1\r\nHost: t:443\r\n\r\n",
            501,
            "method_refused",
        ),
        ("TRACE / HTTP/1.1\r\nHost: t\r\n\r\n", 501, "method_refused"),
        ("GET / HTTP/2.0\r\nHost: t\r\n\r\n", 505, "version"),
    ] {
        let mut client = weir.client();
        client.send(request);
        let response = client.response("GET");
        assert_own(&response, status, reason);
        if status == 400 || status == 505 {
            assert!(response.lists("connection", "close"), "{request}");
            client.expect_closed();
        }
    }
    let mut client = weir.client();
    client.send("HEAD / HTTP/1.1\r\n\r\n");
    let response = client.response("HEAD");
    assert_eq!((response.status(), response.reason()), (400, Some("bad_request")));
    client.expect_closed();
    let metrics = weir.metrics();
    assert_eq!(metrics["weir"]["status_codes"]["400"], 3, "{metrics}");
    // The log has the same words.
    weir.wait_log("bad_request");
    weir.wait_log("method_refused");
    assert_eq!(backend.connections(), 0);
}

fn a_refused_connect_is_502(driver: Driver) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let weir = Weir::on(driver).backend_url(&format!("http://{closed}")).start();
    let mut client = weir.client();
    for _ in 0..3 {
        assert_own(&client.get("/"), 502, "connect_refused");
    }
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
    assert_own(&client.response("POST"), 502, "connect_refused");
}

/// In front of one backend, without retries: what a single attempt comes to.
fn once(driver: Driver, backend: &Backend) -> Weir {
    Weir::on(driver)
        .backend(backend)
        .set("retry.max_retries", 0)
        .start()
}

fn a_reset_before_the_head_is_502(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_request()?;
        conn.reset()
    });
    let weir = Weir::before(driver, &backend);
    assert_own(&weir.client().get("/"), 502, "backend_reset");
}

fn a_close_before_the_head_is_502(driver: Driver) {
    let backend = Backend::sending_then_close("");
    let weir = once(driver, &backend);
    let mut client = weir.client();
    assert_own(&client.get("/"), 502, "backend_reset");
    assert_own(&client.get("/"), 502, "backend_reset");
    assert_eq!(backend.requests().len(), 2, "each sent once");
}

fn half_a_head_is_502(driver: Driver) {
    for half in ["H", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"] {
        let backend = Backend::sending_then_close(half);
        let weir = once(driver, &backend);
        let response = weir.client().get("/");
        assert_eq!(response.status(), 502, "{half}");
        assert!(
            matches!(response.reason(), Some("backend_reset" | "bad_response")),
            "{:?}",
            response.head
        );
        assert_eq!(backend.requests().len(), 1, "{half}");
    }
}

fn garbage_is_502(driver: Driver) {
    for garbage in [
        "hello, world\r\n\r\n",
        "\0\0\0\0\0\0\0\0",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 OK\r\n\r\n",
    ] {
        let backend = Backend::sending(garbage);
        let weir = Weir::before(driver, &backend);
        let mut client = weir.client();
        assert_own(&client.get("/"), 502, "bad_response");
        assert_ne!(
            backend.wait_end(0),
            End::Silent,
            "the connection is not reused: {garbage:?}"
        );
        assert_own(&client.get("/"), 502, "bad_response");
    }
}

/// A backend sends `first`, and once the client has read that, `then`, and ends; the client must see an abort.
fn aborted(driver: Driver, first: &'static str, then: &'static str, reset: bool) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::new(move |conn| {
        conn.read_request()?;
        conn.try_send(first)?;
        waits.pass();
        conn.try_send(then)?;
        if reset { conn.reset() } else { Ok(()) }
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    let head = client.read_head().unwrap();
    assert_eq!(head.status(), 200);
    let (_, body) = first.split_once("\r\n\r\n").unwrap();
    assert_eq!(client.read_exact(body.len()).unwrap(), body.as_bytes());
    gate.open();
    let rest = client.read_to_end();
    let name = format!("{first:?}, then {then:?}, reset: {reset}");
    match head.response_framing("GET").unwrap() {
        // Only a reset tells this from the body's end.
        Framing::Close => assert_eq!(rest.end, End::Reset, "{name}: {rest:?}"),
        _ => assert!(matches!(rest.end, End::Closed | End::Reset), "{name}: {rest:?}"),
    }
    assert!(
        !rest.got.ends_with(b"0\r\n\r\n") && rest.got.len() <= then.len(),
        "{name}: {rest:?}"
    );
    assert_eq!(backend.requests().len(), 1, "{name}");
}

fn a_truncated_length_is_an_abort(driver: Driver) {
    for reset in [false, true] {
        aborted(
            driver,
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            "",
            reset,
        );
        aborted(
            driver,
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
            "half",
            reset,
        );
    }
}

fn truncated_chunks_are_an_abort(driver: Driver) {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    for reset in [false, true] {
        for then in ["", "8\r\nhalf", "0\r\n", "0\r\nX-Trailer: a\r\n"] {
            aborted(driver, head, then, reset);
        }
    }
}

fn a_reset_of_an_unframed_body_is_an_abort(driver: Driver) {
    aborted(driver, "HTTP/1.1 200 OK\r\n\r\nuntil close", "", true);
}

fn broken_chunks_in_the_middle_are_an_abort(driver: Driver) {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n";
    for then in [
        "zz\r\n",
        "4\r\nlonger than four\r\n0\r\n\r\n",
        "\r\n",
        "4\ngood\r\n0\r\n\r\n",
    ] {
        aborted(driver, head, then, false);
    }
}

fn an_abort_ends_the_client_connection_and_only_that(driver: Driver) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::new(move |conn| {
        loop {
            let request = conn.read_request()?;
            if request.target() != "/bad" {
                conn.try_send(ok(b"good"))?;
                continue;
            }
            conn.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n")?;
            waits.pass();
            conn.try_send("zz\r\n")?;
        }
    });
    let weir = Weir::before(driver, &backend);
    let mut other = weir.client();
    assert_eq!(other.get("/").body, b"good");
    let mut client = weir.client();
    client.send("GET /bad HTTP/1.1\r\nHost: t\r\n\r\nGET /pipelined HTTP/1.1\r\nHost: t\r\n\r\n");
    client.read_head().unwrap();
    gate.open();
    let rest = client.read_to_end();
    assert!(matches!(rest.end, End::Closed | End::Reset), "{rest:?}");
    assert_eq!(other.get("/").body, b"good");
    assert!(
        backend
            .requests()
            .iter()
            .all(|request| request.target() != "/pipelined")
    );
}

/// A backend whose connection 0 answers one request and dies on the head of the second; the others serve.
fn stale() -> Backend {
    Backend::new(|conn| {
        if conn.index == 0 {
            conn.read_request()?;
            conn.try_send(ok(b"first"))?;
            conn.read_head()?;
            return conn.reset();
        }
        conn.serve(|request| ok(request.target().as_bytes()))
    })
}

/// Asks the stale backend twice; gives the second answer and how many heads of it the backend saw.
fn second_on_stale(driver: Driver, request: &str) -> (Message, usize) {
    let backend = stale();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    assert_eq!(client.get("/").body, b"first");
    client.send(request);
    let method = request.split(' ').next().unwrap();
    let response = client.response(method);
    (response, backend.wait_heads(2).len() - 1)
}

fn a_get_on_a_stale_connection_is_sent_again(driver: Driver) {
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let (response, sent) =
            second_on_stale(driver, &format!("{method} /again HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!((response.status(), sent), (200, 2), "{method}");
        assert_eq!(response.body, if method == "HEAD" { &b""[..] } else { b"/again" });
    }
}

fn a_put_on_a_stale_connection_is_sent_again(driver: Driver) {
    let (response, sent) = second_on_stale(
        driver,
        "PUT /again HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert_eq!(
        (response.status(), response.body.as_slice(), sent),
        (200, &b"/again"[..], 2),
        "its body was at hand"
    );
}

fn a_post_on_a_stale_connection_is_not_sent_again(driver: Driver) {
    for method in ["POST", "PATCH", "BREW"] {
        let request = format!("{method} /once HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
        let (response, sent) = second_on_stale(driver, &request);
        assert_own(&response, 502, "backend_reset");
        assert_eq!(sent, 1, "{method}");
    }
}

fn a_post_with_a_body_on_a_stale_connection_is_not_sent_again(driver: Driver) {
    let (response, sent) = second_on_stale(
        driver,
        "POST /once HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert_own(&response, 502, "backend_reset");
    assert_eq!(sent, 1);
}

fn a_fresh_connection_that_dies_is_not_tried_again(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        Ok(())
    });
    let weir = once(driver, &backend);
    assert_own(&weir.client().get("/"), 502, "backend_reset");
    assert_eq!(backend.connections(), 1);
}

fn an_answer_that_began_is_not_tried_again(driver: Driver) {
    let backend = Backend::new(|conn| {
        conn.read_request()?;
        conn.try_send(ok(b"first"))?;
        conn.read_request()?;
        conn.try_send("HTTP/1.1 200 OK\r\nX-Ha")
    });
    let weir = once(driver, &backend);
    let mut client = weir.client();
    assert_eq!(client.get("/").body, b"first");
    assert_eq!(client.get("/").status(), 502);
    assert_eq!(backend.requests().len(), 2);
}

fn the_close_of_an_idle_connection_is_seen_before_the_next_post(driver: Driver) {
    for reset in [false, true] {
        let gate = Gate::default();
        let waits = gate.clone();
        let backend = Backend::new(move |conn| {
            conn.read_request()?;
            conn.try_send(ok(b"done"))?;
            if conn.index == 0 {
                waits.pass();
                if reset {
                    conn.linger_zero();
                }
                return Ok(());
            }
            conn.hang()
        });
        let weir = Weir::before(driver, &backend);
        let mut client = weir.client();
        let post = "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody";
        client.send(post);
        assert_eq!(client.response("POST").status(), 200);
        // Idle for longer than what counts as hot, then closed, then used at once.
        std::thread::sleep(Duration::from_millis(120));
        gate.open();
        backend.wait_done(0);
        client.send(post);
        let response = client.response("POST");
        assert_eq!(response.status(), 200, "reset: {reset}; {:?}", response.head);
        assert_eq!(backend.connections(), 2);
        assert_eq!(backend.requests().len(), 2, "sent once");
    }
}

fn unexpected_bytes_on_an_idle_connection_close_it(driver: Driver) {
    let gate = Gate::default();
    let waits = gate.clone();
    let backend = Backend::new(move |conn| {
        conn.read_request()?;
        conn.try_send(ok(b"asked for"))?;
        if conn.index == 0 {
            waits.pass();
            conn.try_send(ok(b"not asked for"))?;
            return conn.hang();
        }
        conn.serve(|_| ok(b"asked for"))
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    assert_eq!(client.get("/").body, b"asked for");
    std::thread::sleep(Duration::from_millis(120));
    gate.open();
    assert_ne!(backend.wait_end(0), End::Silent, "closed without being asked");
    for _ in 0..3 {
        assert_eq!(client.get("/").body, b"asked for");
    }
    assert_eq!(backend.record(0).requests, 1);
}

fn bytes_behind_a_response_close_the_connection(driver: Driver) {
    for response in [
        [ok(b"good"), ok(b"evil")].concat(),
        [ok(b"good"), b"x".to_vec()].concat(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n"
            .to_vec(),
        [b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), ok(b"evil")].concat(),
    ] {
        let backend = Backend::sending(response);
        let weir = Weir::before(driver, &backend);
        let mut client = weir.client();
        for _ in 0..3 {
            let response = client.get("/");
            assert!(matches!(
                (response.status(), response.body.as_slice()),
                (200, b"good") | (204, b"")
            ));
        }
        assert_eq!(backend.connections(), 3, "never reused");
        assert!(client.leftover().is_empty());
        assert_ne!(backend.wait_end(0), End::Silent);
    }
}

fn a_slow_early_close_still_delivers_the_answer(driver: Driver) {
    // The backend refuses before it has read the body, closes at once, and its unread bytes turn the close into a reset.
    let backend = Backend::new(|conn| {
        conn.read_head()?;
        conn.try_send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 20\r\n\r\nonly half");
    let response = client.response("POST");
    assert_eq!((response.status(), response.body.as_slice()), (401, &b"no"[..]));
}

fn a_backend_that_comes_back_is_used_again(driver: Driver) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let weir = Weir::on(driver).backend_url(&format!("http://{address}")).start();
    let mut client = weir.client();
    assert_eq!(client.get("/").status(), 502);
    let backend = Backend::on(TcpListener::bind(address).unwrap(), |conn| {
        conn.serve(|_| ok(b"back"))
    });
    assert_eq!(client.get("/").body, b"back");
    drop(backend);
    eventually("the backend is gone again", || {
        (client.get("/").status() == 502).then_some(())
    });
}

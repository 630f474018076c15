//! Heads on their way through: what is kept to the byte, what is removed, what is set anew.

#[macro_use]
mod support;

use support::{Backend, Driver, Head, Message, Weir, ok};

on_both_drivers!(
    order_case_and_bytes_are_kept_toward_the_backend,
    order_case_and_bytes_are_kept_toward_the_client,
    hop_by_hop_fields_stay_on_their_hop,
    nominated_fields_are_removed_from_requests,
    nominated_fields_are_removed_from_responses,
    what_must_stay_cannot_be_nominated_away,
    targets_pass_as_they_came,
    absolute_form_becomes_origin_form,
    host_is_preserved,
    host_is_the_backends,
    host_is_a_name,
    x_forwarded_is_set_anew,
    rfc7239_is_set_anew,
    both_are_set_anew,
    forwarding_fields_are_removed_when_off,
    via_is_added_when_asked_for,
    the_reason_header_can_be_left_out,
    large_heads_pass_up_to_the_limit,
);

/// The fields of a request without those that weir may set.
fn end_to_end(head: &Head) -> Vec<(String, String)> {
    let own = |name: &str| {
        let name = name.to_ascii_lowercase();
        let set = ["host", "forwarded", "connection", "x-request-id"];
        set.contains(&name.as_str()) || name.starts_with("x-forwarded-")
    };
    head.fields
        .iter()
        .filter(|field| !own(&field.0))
        .cloned()
        .collect()
}

fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// What the backend saw of a request with these fields.
fn pass(weir: &Weir, backend: &Backend, fields: &str) -> Message {
    let before = backend.requests().len();
    let mut client = weir.client();
    client.send(format!(
        "GET /x HTTP/1.1\r\nHost: front.example:8080\r\n{fields}\r\n"
    ));
    assert_eq!(client.response("GET").status(), 200, "{fields}");
    backend.wait_requests(before + 1).pop().unwrap()
}

fn order_case_and_bytes_are_kept_toward_the_backend(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(
        b"GET / HTTP/1.1\r\nB: 1\r\nhOsT: t\r\na: 2\r\nX-ODD-case: Caf\xe9 \xff\r\nB: 3\r\nX-Empty:\r\nX-Tight:v\r\n\
          X-Wide: \t v \t\r\nX_Under: u\r\nX-Tab: a\tb\r\nCookie: a=b; c=\"d\"\r\nCookie: e\r\n\r\n",
    );
    assert_eq!(client.response("GET").status(), 200);
    let request = &backend.wait_requests(1)[0];
    let want = [
        ("B", "1"),
        ("a", "2"),
        ("X-ODD-case", "Caf\u{e9} \u{ff}"),
        ("B", "3"),
        ("X-Empty", ""),
        ("X-Tight", "v"),
        ("X-Wide", "v"),
        ("X_Under", "u"),
        ("X-Tab", "a\tb"),
        ("Cookie", "a=b; c=\"d\""),
        ("Cookie", "e"),
    ];
    assert_eq!(end_to_end(request), pairs(&want));
    assert_eq!(request.get("host"), Some("t"));
}

fn order_case_and_bytes_are_kept_toward_the_client(driver: Driver) {
    let backend = Backend::sending(
        b"HTTP/1.1 299 Caf\xe9 au lait\r\nServer: odd/1\r\nSet-Cookie: a=1\r\nDATE: never\r\nSet-Cookie: b=2\r\n\
          X-8bit: \xfe\xff\r\ncontent-LENGTH: 2\r\nX-Last:\r\n\r\nok",
    );
    let weir = Weir::before(driver, &backend);
    let response = weir.client().get("/");
    assert_eq!(response.start, "HTTP/1.1 299 Caf\u{e9} au lait");
    let want = [
        ("Server", "odd/1"),
        ("Set-Cookie", "a=1"),
        ("DATE", "never"),
        ("Set-Cookie", "b=2"),
        ("X-8bit", "\u{fe}\u{ff}"),
        ("content-LENGTH", "2"),
        ("X-Last", ""),
    ];
    assert_eq!(response.fields, pairs(&want));
    assert_eq!(response.body, b"ok");
}

fn hop_by_hop_fields_stay_on_their_hop(driver: Driver) {
    let backend = Backend::sending(
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nConnection: keep-alive\r\n\
         Upgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n",
    );
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: t\r\nKeep-Alive: 300\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
         Connection: keep-alive, TE\r\nUpgrade: foo\r\nX-Kept: 1\r\n\r\n",
    );
    let response = client.response("GET");
    for name in ["keep-alive", "proxy-connection", "upgrade"] {
        assert!(!response.has(name), "{name} came back: {:?}", response.head);
    }
    assert!(!response.lists("connection", "close"));
    assert_eq!(response.get("x-kept"), Some("1"));
    let request = &backend.wait_requests(1)[0];
    // Trailers are passed on, so that weir asks for them in its own name (RFC 9110 10.1.4).
    assert_eq!(end_to_end(request), pairs(&[("X-Kept", "1"), ("TE", "trailers")]));
    assert!(
        request.lists("connection", "te") && !request.lists("connection", "keep-alive"),
        "{:?}",
        request.head
    );
    assert_eq!(
        end_to_end(&pass(&weir, &backend, "TE: gzip\r\nConnection: TE\r\n")),
        []
    );
}

fn nominated_fields_are_removed_from_requests(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let request = pass(
        &weir,
        &backend,
        "X-Before: 1\r\nConnection: x-before ,X-AFTER\r\nX-After: 2\r\nx-after: 3\r\nConnection: cookie,,\r\n\
         Cookie: c\r\nX-Kept: k\r\nX-After-All: k\r\n",
    );
    assert_eq!(
        end_to_end(&request),
        pairs(&[("X-Kept", "k"), ("X-After-All", "k")])
    );
}

fn nominated_fields_are_removed_from_responses(driver: Driver) {
    let backend = Backend::sending(
        "HTTP/1.1 200 OK\r\nX-Internal: 1\r\nConnection: X-Internal\r\nX-Kept: k\r\nContent-Length: 2\r\n\r\nok",
    );
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert!(!response.has("x-internal"), "{:?}", response.head);
        assert!(!response.lists("connection", "x-internal"), "{:?}", response.head);
        assert_eq!(
            (response.get("x-kept"), response.body.as_slice()),
            (Some("k"), &b"ok"[..])
        );
    }
}

fn what_must_stay_cannot_be_nominated_away(driver: Driver) {
    let backend = Backend::answering(|request| {
        match request.target() {
        "/length" => b"HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        "/chunked" => {
            b"HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
                .to_vec()
        }
        _ => ok(&request.body),
    }
    });
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: t\r\nConnection: Host, Content-Length, X-Forwarded-For, Forwarded\r\n\
         Content-Length: 4\r\n\r\nbody",
    );
    assert_eq!(client.response("POST").body, b"body");
    client.send(
        "POST / HTTP/1.1\r\nHost: t\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!(client.response("POST").body, b"body");
    for request in backend.wait_requests(2) {
        assert_eq!(request.get("host"), Some("t"));
        assert_eq!(request.get("x-forwarded-for"), Some("127.0.0.1"));
    }
    for target in ["/length", "/chunked"] {
        assert_eq!(client.get(target).body, b"ok", "{target}");
    }
}

fn targets_pass_as_they_came(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for target in [
        "/",
        "//",
        "/a/../b/./c//d",
        "/%2e%2E/%00/%zz/%",
        "/q?",
        "/q?a=1;b=2&c[]=d|e",
        "/q?x=http://h/?y=/../",
        "/a;b=c,d/e:f@g!$&'()*+,=~",
        "/{}\\^`<>\"",
        "/UPPER/lower",
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        assert_eq!(client.response("GET").status(), 200, "{target}");
        assert_eq!(
            backend.requests().pop().unwrap().start,
            format!("GET {target} HTTP/1.1")
        );
    }
    client.send("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(client.response("OPTIONS").status(), 200);
    assert_eq!(backend.requests().pop().unwrap().start, "OPTIONS * HTTP/1.1");
    client.send("BREW-it! /pot HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(
        client.response("BREW-it!").body,
        b"/pot",
        "any method passes but those that are refused"
    );
}

fn absolute_form_becomes_origin_form(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    for (sent, target, host) in [
        ("http://other.example/a?b", "/a?b", "other.example"),
        ("HTTP://other.example:81/", "/", "other.example:81"),
        ("http://other.example", "/", "other.example"),
        ("http://other.example?q", "/?q", "other.example"),
        ("http://[::1]:8080/v6", "/v6", "[::1]:8080"),
    ] {
        client.send(format!("GET {sent} HTTP/1.1\r\nHost: ignored\r\n\r\n"));
        assert_eq!(client.response("GET").status(), 200, "{sent}");
        let request = backend.requests().pop().unwrap();
        assert_eq!(
            (request.target(), request.get("host")),
            (target, Some(host)),
            "{sent}"
        );
    }
}

fn host_is_preserved(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    assert_eq!(pass(&weir, &backend, "").get("host"), Some("front.example:8080"));
}

fn host_is_the_backends(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("http.host", "backend")
        .start();
    let request = pass(&weir, &backend, "");
    assert_eq!(request.get("host"), Some(backend.address.as_str()));
    assert_eq!(
        request.get("x-forwarded-host"),
        Some("front.example:8080"),
        "what the client asked for is not lost"
    );
}

fn host_is_a_name(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("http.host", "internal.example")
        .start();
    assert_eq!(pass(&weir, &backend, "").get("host"), Some("internal.example"));
}

/// What a stranger may say to look like somebody else.
const SPOOFED: &str = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
                       X-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Anything: 1\r\n\
                       Forwarded: for=6.6.6.6\r\nForwarded: for=7.7.7.7;proto=https\r\nX-Kept: k\r\n";

fn assert_x_forwarded(request: &Message) {
    assert_eq!(request.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.get("x-forwarded-proto"), Some("http"));
    assert_eq!(request.get("x-forwarded-host"), Some("front.example:8080"));
    assert!(!request.has("x-forwarded-anything"), "{:?}", request.head);
    assert_ne!(request.get("x-forwarded-port"), Some("1"));
}

fn assert_forwarded(request: &Message) {
    let forwarded = request.get("forwarded").expect("a Forwarded field");
    let mut parts: Vec<String> = forwarded
        .split(';')
        .map(|part| part.trim().to_ascii_lowercase())
        .collect();
    parts.retain(|part| !part.starts_with("by="));
    parts.sort();
    assert_eq!(
        parts,
        ["for=127.0.0.1", "host=\"front.example:8080\"", "proto=http"],
        "{forwarded}"
    );
}

fn x_forwarded_is_set_anew(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    for fields in ["", SPOOFED] {
        let request = pass(&weir, &backend, fields);
        assert_x_forwarded(&request);
        assert!(!request.has("forwarded"));
        assert_eq!(request.has("x-kept"), !fields.is_empty());
    }
}

fn rfc7239_is_set_anew(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("http.forwarded", "rfc7239")
        .start();
    for fields in ["", SPOOFED] {
        let request = pass(&weir, &backend, fields);
        assert_forwarded(&request);
        assert!(
            !request
                .fields
                .iter()
                .any(|field| field.0.to_ascii_lowercase().starts_with("x-forwarded-"))
        );
    }
}

fn both_are_set_anew(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("http.forwarded", "both")
        .start();
    let request = pass(&weir, &backend, SPOOFED);
    assert_x_forwarded(&request);
    assert_forwarded(&request);
}

fn forwarding_fields_are_removed_when_off(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("http.forwarded", "off")
        .start();
    let request = pass(&weir, &backend, SPOOFED);
    let names: Vec<String> = request
        .fields
        .iter()
        .map(|field| field.0.to_ascii_lowercase())
        .collect();
    assert!(!names.iter().any(|name| name.contains("forwarded")), "{names:?}");
    assert_eq!(request.get("x-kept"), Some("k"));
}

fn via_is_added_when_asked_for(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    assert!(!pass(&weir, &backend, "").has("via"));
    assert_eq!(
        pass(&weir, &backend, "Via: 1.0 old\r\n").all("via"),
        ["1.0 old"],
        "others' are kept"
    );
    let weir = Weir::on(driver).backend(&backend).set("http.via", true).start();
    let request = pass(&weir, &backend, "Via: 1.0 old\r\n");
    let via = request.all("via").join(", ");
    assert!(via.starts_with("1.0 old, 1.1 "), "{via}");
}

fn the_reason_header_can_be_left_out(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("http.reason_header", false)
        .start();
    let mut client = weir.client();
    client.send("GET / HTTP/1.1\r\n\r\n");
    let response = client.response("GET");
    assert_eq!((response.status(), response.has("x-weir-reason")), (400, false));
}

fn large_heads_pass_up_to_the_limit(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let mut client = weir.client();
    let value = "v".repeat(31 << 10);
    client.send(format!("GET /big HTTP/1.1\r\nHost: t\r\nX-Big: {value}\r\n\r\n"));
    assert_eq!(client.response("GET").body, b"/big");
    assert_eq!(backend.requests()[0].get("x-big"), Some(value.as_str()));
    let many: String = (0..127).map(|n| format!("X-{n}: {n}\r\n")).collect();
    client.send(format!("GET /many HTTP/1.1\r\nHost: t\r\n{many}\r\n"));
    assert_eq!(client.response("GET").body, b"/many", "128 fields with Host");
    assert_eq!(end_to_end(&backend.requests()[1]).len(), 127);
    client.send(format!(
        "GET /many HTTP/1.1\r\nHost: t\r\n{many}X-One-More: 1\r\n\r\n"
    ));
    let response = client.response("GET");
    assert_eq!(
        (response.status(), response.reason()),
        (431, Some("head_too_large"))
    );
    client.expect_closed();
    let mut client = weir.client();
    client.send(format!(
        "GET / HTTP/1.1\r\nHost: t\r\nX-Big: {}\r\n\r\n",
        "v".repeat(33 << 10)
    ));
    assert_eq!(client.response("GET").reason(), Some("head_too_large"));
    client.expect_closed();
    let mut client = weir.client();
    client.send(format!(
        "GET /{} HTTP/1.1\r\nHost: t\r\n\r\n",
        "p".repeat(33 << 10)
    ));
    let response = client.response("GET");
    assert_eq!(
        (response.status(), response.reason()),
        (414, Some("uri_too_long"))
    );
    client.expect_closed();
    assert_eq!(backend.requests().len(), 2);
}

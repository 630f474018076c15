//! Who asked, where proxies stand before weir: their word counts as far as they are trusted.

#[macro_use]
mod support;

use support::weir::Setup;
use support::{Backend, Driver, Head, Weir, Wire};

on_both_drivers!(
    what_a_stranger_says_is_replaced,
    what_a_trusted_proxy_says_is_appended_to,
    only_peers_in_the_list_are_trusted,
    the_client_is_the_first_from_the_right_that_is_not_trusted,
    forwarded_is_read_and_appended_to,
    a_request_id_is_made_or_a_trusted_proxys,
);

fn trusting(driver: Driver, backend: &Backend, proxies: &[&str]) -> Setup {
    Weir::on(driver)
        .backend(backend)
        .set("server.trusted_proxies", proxies.to_vec())
}

/// What the backend saw of a request with these fields.
fn seen(weir: &Weir, backend: &Backend, source: &str, fields: &str) -> Head {
    let mut client = Wire::connect_from(source, weir.address()).expect("an address of loopback");
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{fields}\r\n"));
    assert_eq!(client.response("GET").status(), 200);
    backend.requests().pop().expect("a request").head
}

/// All members of the field, in order.
fn members(head: &Head, name: &str) -> Vec<String> {
    head.all(name)
        .iter()
        .flat_map(|value| value.split(','))
        .map(|member| member.trim().to_owned())
        .collect()
}

fn what_a_stranger_says_is_replaced(driver: Driver) {
    let backend = Backend::plain();
    let weir = trusting(driver, &backend, &["127.0.0.8/29"]).start();
    let head = seen(
        &weir,
        &backend,
        "127.0.0.2",
        "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nForwarded: for=9.9.9.9\r\n",
    );
    assert_eq!(members(&head, "x-forwarded-for"), ["127.0.0.2"]);
    assert_eq!(members(&head, "x-forwarded-proto"), ["http"]);
    assert!(
        !head
            .all("forwarded")
            .iter()
            .any(|value| value.contains("9.9.9.9"))
    );
}

fn what_a_trusted_proxy_says_is_appended_to(driver: Driver) {
    let backend = Backend::plain();
    let weir = trusting(driver, &backend, &["127.0.0.8/29"]).start();
    let head = seen(
        &weir,
        &backend,
        "127.0.0.9",
        "X-Forwarded-For: 9.9.9.9, 8.8.8.8\r\nX-Forwarded-Proto: https\r\n",
    );
    assert_eq!(
        members(&head, "x-forwarded-for"),
        ["9.9.9.9", "8.8.8.8", "127.0.0.9"]
    );
    assert_eq!(members(&head, "x-forwarded-proto"), ["https"]);
    let head = seen(&weir, &backend, "127.0.0.9", "");
    assert_eq!(members(&head, "x-forwarded-for"), ["127.0.0.9"]);
}

fn only_peers_in_the_list_are_trusted(driver: Driver) {
    let backend = Backend::plain();
    let weir = trusting(driver, &backend, &["127.0.0.4", "127.0.1.0/24"]).start();
    for (source, trusted) in [
        ("127.0.0.4", true),
        ("127.0.1.77", true),
        ("127.0.0.5", false),
        ("127.0.2.1", false),
    ] {
        let head = seen(&weir, &backend, source, "X-Forwarded-For: 9.9.9.9\r\n");
        let got = members(&head, "x-forwarded-for");
        if trusted {
            assert_eq!(got, ["9.9.9.9", source]);
        } else {
            assert_eq!(got, [source]);
        }
    }
}

/// The rate limit's key tells whom weir takes for the client.
fn the_client_is_the_first_from_the_right_that_is_not_trusted(driver: Driver) {
    let backend = Backend::plain();
    let weir = trusting(driver, &backend, &["127.0.0.0/8", "10.0.0.0/8"])
        .set("rate_limit.requests", 1)
        .set("rate_limit.per", "60s")
        .set("rate_limit.burst", 1)
        .start();
    let status = |field: &str| {
        let mut client = weir.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{field}\r\n\r\n"));
        client.response("GET").status()
    };
    assert_eq!(status("X-Forwarded-For: 9.9.9.1"), 200);
    assert_eq!(status("X-Forwarded-For: 9.9.9.1"), 429);
    // Whatever it says further left.
    assert_eq!(status("X-Forwarded-For: 7.7.7.7, 9.9.9.1"), 429);
    assert_eq!(
        status("X-Forwarded-For: 7.7.7.7\r\nX-Forwarded-For: 9.9.9.1"),
        429
    );
    // Proxies of one's own in between are passed over.
    assert_eq!(status("X-Forwarded-For: 9.9.9.1, 10.1.2.3"), 429);
    assert_eq!(status("X-Forwarded-For: 9.9.9.1, 10.1.2.3, 127.0.0.5"), 429);
    assert_eq!(status("X-Forwarded-For: 9.9.9.2, 10.1.2.3"), 200);
    assert_eq!(status("X-Forwarded-For: 9.9.9.3:1234"), 200);
    assert_eq!(status("X-Forwarded-For: 9.9.9.3:99"), 429);
    assert_eq!(status("Forwarded: for=9.9.9.4;proto=https"), 200);
    assert_eq!(status("Forwarded: for=\"9.9.9.4:80\""), 429);
}

fn forwarded_is_read_and_appended_to(driver: Driver) {
    let backend = Backend::plain();
    let weir = trusting(driver, &backend, &["127.0.0.9"])
        .set("http.forwarded", "rfc7239")
        .start();
    let head = seen(
        &weir,
        &backend,
        "127.0.0.9",
        "Forwarded: for=9.9.9.9;proto=https\r\n",
    );
    let got = members(&head, "forwarded");
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(got[0], "for=9.9.9.9;proto=https");
    assert!(got[1].contains("for=127.0.0.9"), "{got:?}");
    let head = seen(&weir, &backend, "127.0.0.2", "Forwarded: for=9.9.9.9\r\n");
    let got = members(&head, "forwarded");
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].contains("for=127.0.0.2"), "{got:?}");
}

/// A UUID of version 7 (RFC 9562), as text.
fn is_uuid_v7(id: &str) -> bool {
    let groups: Vec<&str> = id.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = |group: &&str| group.chars().all(|digit| digit.is_ascii_hexdigit());
    lengths == [8, 4, 4, 4, 12] && groups.iter().all(hex) && groups[2].starts_with('7')
}

fn a_request_id_is_made_or_a_trusted_proxys(driver: Driver) {
    let backend = Backend::plain();
    let weir = trusting(driver, &backend, &["127.0.0.8/29"]).start();
    let ids = |source, fields| {
        seen(&weir, &backend, source, fields)
            .all("x-request-id")
            .iter()
            .map(|id| id.to_string())
            .collect::<Vec<_>>()
    };
    let (first, second) = (ids("127.0.0.2", ""), ids("127.0.0.2", ""));
    assert!(first.len() == 1 && is_uuid_v7(&first[0]), "{first:?}");
    // The first 48 bits are milliseconds.
    assert!(
        second != first && second[0][..13] >= first[0][..13],
        "ids sort by time"
    );
    let replaced = ids("127.0.0.2", "X-Request-ID: theirs\r\nx-request-id: again\r\n");
    assert!(replaced.len() == 1 && is_uuid_v7(&replaced[0]), "{replaced:?}");
    assert_eq!(ids("127.0.0.9", "X-Request-ID: theirs\r\n"), ["theirs"]);
    let unfit = ids("127.0.0.9", "X-Request-ID: two words\r\n");
    assert!(unfit.len() == 1 && is_uuid_v7(&unfit[0]), "{unfit:?}");

    let weir = trusting(driver, &backend, &[])
        .set("http.request_id", false)
        .start();
    let head = seen(&weir, &backend, "127.0.0.2", "X-Request-ID: theirs\r\n");
    assert_eq!(head.all("x-request-id"), ["theirs"]);
}

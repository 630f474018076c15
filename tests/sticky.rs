//! Sticky sessions: one cookie that names a backend to weir and to nobody else.

#[macro_use]
mod support;

use std::collections::BTreeMap;
use std::fs;

use support::weir::Setup;
use support::{Driver, Fickle, Message, Weir, Wire};

on_both_drivers!(
    a_cookie_is_set_once_and_kept_to,
    it_is_found_among_others,
    its_attributes_are_as_set,
    it_says_nothing_about_the_backend,
    it_is_the_same_for_every_worker_instance_and_start,
    a_secret_of_ones_own_changes_it,
    a_forged_one_is_ignored,
    it_is_set_anew_when_its_backend_is_gone,
    it_is_not_there_unless_asked_for,
);

fn sticky(driver: Driver, backends: &[Fickle]) -> Setup {
    Weir::on(driver).fickles(backends).set("sticky.cookie", "weir")
}

fn ask(client: &mut Wire, cookie: &str) -> Message {
    let field = if cookie.is_empty() {
        String::new()
    } else {
        format!("Cookie: {cookie}\r\n")
    };
    client.send(format!("GET / HTTP/1.1\r\nHost: t\r\n{field}\r\n"));
    let answer = client.response("GET");
    assert_eq!(answer.status(), 200);
    answer
}

/// `weir=VALUE` of the answer's `Set-Cookie`.
fn pair(answer: &Message) -> String {
    let field = answer
        .get("set-cookie")
        .unwrap_or_else(|| panic!("no cookie in {answer:?}"));
    let pair = field.split(';').next().unwrap_or_default();
    assert!(pair.starts_with("weir=") && pair.len() > 12, "{field}");
    pair.to_owned()
}

fn attributes(answer: &Message) -> Vec<String> {
    let field = answer.get("set-cookie").expect("a cookie");
    let mut attributes: Vec<String> = field
        .split(';')
        .skip(1)
        .map(|attribute| attribute.trim().to_ascii_lowercase())
        .collect();
    attributes.sort();
    attributes
}

/// Each backend's cookie, by its name.
fn all(weir: &Weir) -> BTreeMap<String, String> {
    let mut client = weir.client();
    let mut cookies = BTreeMap::new();
    for _ in 0..30 {
        let answer = ask(&mut client, "");
        let backend = answer.get("x-backend").expect("a backend").to_owned();
        let cookie = pair(&answer);
        let known = cookies.entry(backend).or_insert_with(|| cookie.clone());
        assert_eq!(*known, cookie, "one cookie for each");
    }
    assert_eq!(cookies.len(), 3);
    cookies
}

fn a_cookie_is_set_once_and_kept_to(driver: Driver) {
    let backends = Fickle::three();
    let weir = sticky(driver, &backends).set("runtime.workers", 2).start();
    for (backend, cookie) in all(&weir) {
        for _ in 0..10 {
            let answer = ask(&mut weir.client(), &cookie);
            assert_eq!(answer.get("x-backend"), Some(backend.as_str()));
            assert!(!answer.has("set-cookie"), "set already: {answer:?}");
        }
    }
}

fn it_is_found_among_others(driver: Driver) {
    let backends = Fickle::three();
    let weir = sticky(driver, &backends).start();
    let mut client = weir.client();
    for (backend, cookie) in all(&weir) {
        for cookies in [
            format!("a=b; {cookie}"),
            format!("{cookie}; a=b"),
            format!("notweir=x; {cookie}; weirx=y"),
            format!("a=b\r\nCookie: {cookie}"),
        ] {
            let answer = ask(&mut client, &cookies);
            assert_eq!(answer.get("x-backend"), Some(backend.as_str()), "{cookies}");
        }
    }
    // The backend's own cookies are the client's, too.
    let heads = backends[0].heads();
    assert!(
        heads
            .iter()
            .any(|head| head.lists("cookie", "a=b") || head.has("cookie"))
    );
}

fn its_attributes_are_as_set(driver: Driver) {
    let backends = Fickle::three();
    let answer = ask(&mut sticky(driver, &backends).start().client(), "");
    assert_eq!(attributes(&answer), ["httponly", "path=/", "samesite=lax"]);
    let weir = sticky(driver, &backends)
        .set("sticky.secure", true)
        .set("sticky.max_age", "1h")
        .set("sticky.path", "/app")
        .start();
    let answer = ask(&mut weir.client(), "");
    assert_eq!(
        attributes(&answer),
        ["httponly", "max-age=3600", "path=/app", "samesite=lax", "secure"]
    );
}

fn it_says_nothing_about_the_backend(driver: Driver) {
    let backends = Fickle::three();
    let weir = sticky(driver, &backends).start();
    for cookie in all(&weir).into_values() {
        let value = cookie.trim_start_matches("weir=");
        assert!(value.len() >= 8, "{value}");
        for backend in &backends {
            let port = backend.address.port().to_string();
            assert!(!value.contains(&port), "{value}");
        }
    }
}

fn it_is_the_same_for_every_worker_instance_and_start(driver: Driver) {
    let backends = Fickle::three();
    let first = all(&sticky(driver, &backends).start());
    let mut reversed: Vec<&Fickle> = backends.iter().collect();
    reversed.reverse();
    let second = Weir::on(driver)
        .fickles(reversed)
        .set("sticky.cookie", "weir")
        .set("runtime.workers", 2)
        .start();
    assert_eq!(all(&second), first);
}

fn a_secret_of_ones_own_changes_it(driver: Driver) {
    let backends = Fickle::three();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let with_secret = |secret: &str| {
        let path = dir.path().join("secret");
        fs::write(&path, secret).expect("a file");
        let weir = sticky(driver, &backends)
            .set("sticky.secret_file", path.to_str().expect("text"))
            .start();
        all(&weir)
    };
    let usual = all(&sticky(driver, &backends).start());
    let one = with_secret("a secret of sixteen bytes or more");
    let other = with_secret("another secret of sixteen bytes or more");
    assert_eq!(with_secret("a secret of sixteen bytes or more"), one);
    for backend in ["a", "b", "c"] {
        let values = [&usual[backend], &one[backend], &other[backend]];
        assert!(
            values[0] != values[1] && values[1] != values[2] && values[0] != values[2],
            "{values:?}"
        );
    }
}

fn a_forged_one_is_ignored(driver: Driver) {
    let backends = Fickle::three();
    let weir = sticky(driver, &backends).start();
    let good = all(&weir).remove("a").expect("a cookie of a");
    let mut client = weir.client();
    for forged in [
        "weir=a".to_owned(),
        "weir=".to_owned(),
        "weir=0".to_owned(),
        format!("weir={}", "f".repeat(4000)),
        format!("{good}x"),
        good[..good.len() - 1].to_owned(),
        "weir=\"\\\"".to_owned(),
    ] {
        let mut came = BTreeMap::new();
        for _ in 0..6 {
            let answer = ask(&mut client, &forged);
            pair(&answer);
            *came
                .entry(answer.get("x-backend").expect("a backend").to_owned())
                .or_insert(0) += 1;
        }
        assert_eq!(came.len(), 3, "{forged}: it goes wherever the turn is: {came:?}");
    }
}

fn it_is_set_anew_when_its_backend_is_gone(driver: Driver) {
    let backends = Fickle::three();
    let weir = sticky(driver, &backends).start();
    let cookies = all(&weir);
    backends[0].kill();
    let mut client = weir.client();
    let answer = ask(&mut client, &cookies["a"]);
    let other = answer.get("x-backend").expect("a backend").to_owned();
    assert_ne!(other, "a");
    assert_eq!(pair(&answer), cookies[&other]);
    for _ in 0..5 {
        let answer = ask(&mut client, &cookies[&other]);
        assert_eq!(answer.get("x-backend"), Some(other.as_str()));
    }
}

fn it_is_not_there_unless_asked_for(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver).fickles(&backends).start();
    assert!(!ask(&mut weir.client(), "weir=x").has("set-cookie"));
}

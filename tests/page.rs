//! The page of the admin address, in a browser, and what it is fed with.

#[macro_use]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Browser, DEADLINE, Driver, Fickle, Load, Weir};

on_both_drivers!(the_stream_goes_on_where_it_was_cut_off);

fn page(weir: &Weir) -> String {
    format!("http://{}/", weir.admin.as_deref().expect("admin is on"))
}

/// Reads messages of the stream until `count` are there.
fn messages(weir: &Weir, target: &str, count: usize) -> Vec<Value> {
    messages_with(weir, target, "", count)
}

fn messages_with(weir: &Weir, target: &str, fields: &str, count: usize) -> Vec<Value> {
    let address = weir.admin.as_deref().expect("admin is on");
    let mut stream = TcpStream::connect(address).expect("admin listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").expect("it takes it");
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .take(count)
        .collect()
}

fn the_stream_goes_on_where_it_was_cut_off(driver: Driver) {
    let backends = Fickle::three();
    let weir = Weir::on(driver).fickles(&backends).start();
    let first = messages(&weir, "/stream", 3);
    let rows = |messages: &[Value]| -> Vec<u64> {
        let rows = messages
            .iter()
            .flat_map(|message| message["rows"].as_array().expect("rows"));
        rows.filter_map(|row| row["number"].as_u64()).collect()
    };
    let seen = rows(&first);
    assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
    let next = seen.last().map_or(0, |last| last + 1);
    let second = rows(&messages(&weir, &format!("/stream?after={next}"), 2));
    assert!(
        second
            .iter()
            .enumerate()
            .all(|(index, row)| *row == next + index as u64),
        "{second:?}"
    );
    let history: Value = serde_json::from_slice(&weir.admin_get("/history").body).expect("JSON");
    let history = history["rows"].as_array().expect("rows");
    assert_eq!(history[0]["number"], 0);
    assert!(history.len() as u64 >= next);
    // The same by what an event source sends, and anew after another run of weir.
    let run = first[0]["run"].as_u64().expect("a number");
    let field = format!("Last-Event-ID: {run}-{next}-0\r\n");
    let resumed = rows(&messages_with(&weir, "/stream", &field, 1));
    assert!(resumed.first().is_some_and(|row| *row == next), "{resumed:?}");
    let anew = rows(&messages(
        &weir,
        &format!("/stream?run={}&after={next}", run - 1),
        1,
    ));
    assert_eq!(anew.first(), Some(&0));
    let name = &backends[0].name;
    let one: Value =
        serde_json::from_slice(&weir.admin_get(&format!("/history?backend={name}")).body).expect("JSON");
    assert_eq!(one["rows"][0]["state"], "up", "{one}");
    assert_eq!(weir.admin_get("/history?backend=nobody").status(), 404);
    let events: Value = serde_json::from_slice(&weir.admin_get("/events").body).expect("JSON");
    assert_eq!(events["events"][0]["text"], "weir serves");
    assert_eq!(weir.admin_get("/stream?after=x").status(), 400);
}

#[test]
fn it_comes_with_a_strict_policy_and_without_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef").expect("a token");
    let backends = Fickle::three();
    let weir = Weir::on(Driver::Epoll)
        .fickles(&backends)
        .set("admin.token_file", file.to_str().expect("a path"))
        .start();
    for (target, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
    ] {
        let answer = weir.admin_get(target);
        assert_eq!(answer.status(), 200, "{target}");
        assert!(answer.get("content-type").unwrap_or_default().starts_with(kind));
        let policy = answer.get("content-security-policy").unwrap_or_default();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.get("x-content-type-options"), Some("nosniff"));
    }
    for target in ["/stream", "/events", "/history", "/metrics", "/backends"] {
        assert_eq!(weir.admin_get(target).status(), 401, "{target}");
    }
    let Some(mut browser) = Browser::start() else {
        return;
    };
    browser.open(&page(&weir));
    browser.wait("document.getElementById('ask')?.hidden === false");
    browser.leave_by(
        "document.getElementById('token').value = '0123456789abcdef0123456789abcdef'; \
         document.getElementById('use-token').click()",
    );
    browser.wait("document.querySelectorAll('#backends tr').length === 3");
}

#[test]
fn it_shows_what_the_metrics_say_and_a_killed_backend_turns_red() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let backends = Fickle::three();
    let [a, b, c] = &backends;
    let weir = Weir::on(Driver::Epoll)
        .fickles([a, b])
        .named("c", &format!("{}/", c.url()))
        .set("health_check.type", "http")
        .set("health_check.interval", "100ms")
        .start();
    browser.open(&page(&weir));
    browser.wait("document.querySelectorAll('#backends tr').length === 3");
    let load = Load::on(&weir);
    load.wait_answered(300);
    load.stop().assert_none_failed();
    // Nothing moves any more: the page and the metrics have the same numbers.
    let metrics = weir.metrics();
    let total = metrics["total_requests"].as_u64().expect("a total");
    browser.wait(&format!(
        "document.getElementById('total').textContent.replaceAll(',', '') === '{total}'"
    ));
    for backend in metrics["backends"].as_object().expect("backends").values() {
        let name = backend["name"].to_string();
        let shown = browser.value(&format!(
            "[...document.querySelectorAll('#backends tr')].find(row => row.dataset.backend === {name})\
             .querySelector('.requests').textContent.replaceAll(',', '')"
        ));
        assert_eq!(
            shown.as_str(),
            Some(backend["requests"].to_string().as_str()),
            "{name}"
        );
    }
    // So are the percentiles since the start.
    browser.value("document.querySelector('input[name=window][value=ever]').click()");
    for backend in metrics["backends"].as_object().expect("backends").values() {
        let name = backend["name"].to_string();
        for (class, key) in [("p50", "p50_response"), ("p99", "p99_response")] {
            let (shown, metric) = (
                format!("shown.get({name}).{class}.textContent"),
                format!("micros({} / 1000)", backend[key]),
            );
            browser.wait(&format!("{shown} === {metric} && {shown} !== '–'"));
        }
    }
    // The rows of the history count what the metrics count, and so does the heat map.
    let history: Value = serde_json::from_slice(&weir.admin_get("/history").body).expect("JSON");
    let rows = || history["rows"].as_array().expect("rows").iter();
    let of = |key: &str| rows().filter_map(|row| row[key].as_u64()).sum::<u64>();
    let hot = rows().flat_map(|row| row["heat"].as_array().expect("a list"));
    let hot: u64 = hot.filter_map(|pair| pair[1].as_u64()).sum();
    assert_eq!((of("requests"), of("attempts"), hot), (total, total, total));
    browser.wait(&format!(
        "rows.reduce((all, row) => all + row.heat.reduce((sum, [, count]) => sum + count, 0), 0) === {total}"
    ));
    browser.value("document.getElementById('as-table').open = true");
    browser.wait(&format!(
        "document.getElementById('as-table-caption').textContent.startsWith(number({total}) + ' answers')"
    ));
    // What is drawn is drawn: the canvas is not empty.
    browser.wait(
        "document.getElementById('heat').getContext('2d').getImageData(0, 0, 900, 100).data.some((byte) => byte > 0)",
    );
    a.kill();
    weir.wait_healthy(&a.name, false);
    let noticed = Instant::now();
    let row = format!("document.querySelector('tr[data-backend=\"{}\"]')", a.name);
    browser.wait(&format!("{row}?.classList.contains('bad') === true"));
    assert!(
        noticed.elapsed() < Duration::from_secs(2),
        "{:?}",
        noticed.elapsed()
    );
    let state = browser.value(&format!("{row}?.querySelector('.state').textContent"));
    assert!(state == "dead" || state == "down", "{state}");
    browser.wait("document.getElementById('changes').textContent.length > 0");
    browser.wait(&format!(
        "document.getElementById('events').textContent.includes('{}: ')",
        a.name
    ));
    assert_eq!(browser.errors, Vec::<String>::new());
}

/// Whatever names, reasons and events say: it is text, and what gets into the page by another way is stopped by the policy.
#[test]
fn hostile_text_stays_text() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let backends = Fickle::three();
    let weir = Weir::on(Driver::Epoll).fickles(&backends).start();
    browser.open(&page(&weir));
    browser.wait("document.querySelectorAll('#backends tr').length === 3");
    let hostile = r#""><img src=x onerror="document.title='owned'"><script>document.title='owned'</script>"#;
    let message = json!({ "hostile": hostile });
    let shown = browser.value(&format!(
        "(() => {{
            const {{ hostile }} = {message};
            const first = structuredClone(latest.backends[0]);
            Object.assign(first.view, {{ name: hostile, url: hostile, why: hostile, state: hostile, since: hostile }});
            first.view.breaker.state = hostile;
            show({{ ...latest, version: hostile, strategy: hostile, status: hostile, rows: [], backends: [first],
                events: [{{ number: 1e9, at: 0, tone: 'bad', backend: hostile, text: hostile }}] }});
            ask(first.view, 'drain');
            const text = (selector) => document.querySelector(selector).textContent;
            return ['#backends th span', '#backends small', '.state', '#events b', '#version', '#confirm-title']
                .map((selector) => text(selector).includes(hostile));
        }})()"
    ));
    assert_eq!(shown, json!([true, true, true, true, true, true]));
    assert_eq!(browser.value("document.images.length"), 0);
    assert_eq!(browser.value("document.scripts.length"), 1);
    assert_eq!(browser.value("document.title"), "weir");
    assert_eq!(browser.errors, Vec::<String>::new());
    // Whoever found a way in would still not be run.
    browser.value(&format!(
        "document.body.insertAdjacentHTML('beforeend', {})",
        json!(hostile.trim_start_matches("\">"))
    ));
    browser.value(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: \"document.title = 'owned'\" }))",
    );
    let refused = |browser: &Browser| {
        let policy = |error: &&String| error.contains("Content Security Policy");
        browser.errors.iter().filter(policy).count()
    };
    support::eventually("the policy's complaints", || {
        browser.value("0");
        (refused(&browser) >= 2).then_some(())
    });
    assert_eq!(browser.value("document.title"), "weir");
}

/// Rows are made once: a button that is pressed while a message comes is the same one when it is let go.
#[test]
fn a_row_stays_the_same_from_second_to_second() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let backends = Fickle::three();
    let mut weir = Weir::on(Driver::Epoll).fickles(&backends).start();
    browser.open(&page(&weir));
    browser.wait("document.querySelectorAll('#backends tr').length === 3");
    browser.value("window.kept = [...document.querySelectorAll('#backends tr')]; window.at = nextRow");
    browser.wait("nextRow >= window.at + 2");
    browser.wait("window.kept.every((row, at) => row === document.querySelectorAll('#backends tr')[at])");
    // Who leaves the configuration leaves the page, and it is said.
    let kept = backends[1].name.clone();
    weir.rewrite(|table| {
        table["backends"]
            .as_array_mut()
            .expect("a list")
            .retain(|backend| backend["name"].as_str() == Some(&kept));
    });
    assert_eq!(weir.reload().status(), 200);
    browser.wait("document.querySelectorAll('#backends tr').length === 1");
    browser.wait("window.kept[1].isConnected && !window.kept[0].isConnected");
    browser.wait("document.getElementById('changes').textContent.includes('is gone')");
    browser.wait("document.getElementById('events').textContent.includes('removed: ')");
    // A weir that goes is said to be gone.
    weir.stop();
    browser.wait("document.getElementById('link').classList.contains('lost')");
    browser.wait("document.getElementById('link').textContent.startsWith('no connection')");
}

#[test]
fn a_backend_is_drained_by_keyboard_and_put_back() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let backends = Fickle::three();
    let weir = Weir::on(Driver::Epoll).fickles(&backends).start();
    browser.open(&page(&weir));
    browser.wait("document.querySelectorAll('#backends tr').length === 3");
    // Tab by Tab to the first button of the table.
    let on_button = "document.activeElement?.dataset?.action === 'drain'";
    let mut tabs = 0;
    while browser.value(on_button) != true {
        browser.press("Tab");
        tabs += 1;
        assert!(tabs < 12, "the keyboard does not get there");
    }
    let name = browser.value("document.activeElement.closest('tr').dataset.backend");
    let name = name.as_str().expect("a name").to_owned();
    assert_eq!(
        browser.value("document.activeElement.getAttribute('aria-label')"),
        json!(format!("Drain {name}"))
    );
    browser.press("Enter");
    browser.wait("document.getElementById('confirm').open");
    // Cancelled, nothing happens.
    browser.value("document.getElementById('confirm-no').click()");
    browser.wait("!document.getElementById('confirm').open");
    assert_eq!(weir.backend(&name)["state"], "up");
    let press = |browser: &mut Browser, action: &str| {
        browser.wait(&format!(
            "document.querySelector('tr[data-backend=\"{name}\"] button')?.dataset.action === '{action}'"
        ));
        browser.value(&format!(
            "document.querySelector('tr[data-backend=\"{name}\"] button').click()"
        ));
        browser.wait("document.getElementById('confirm').open");
        browser.value("document.getElementById('confirm-yes').click()");
    };
    press(&mut browser, "drain");
    weir.wait_backend(&name, "drained", |view| view["state"] == "draining");
    press(&mut browser, "ready");
    weir.wait_backend(&name, "back", |view| view["state"] == "up");
    assert_eq!(browser.errors, Vec::<String>::new());
}

/// The contrast of two colours (WCAG 2, relative luminance), computed in the page.
const CONTRAST: &str = "(() => {
    const light = (text) => {
        const parts = text.match(/[\\d.]+/g).slice(0, 3).map(Number).map((part) => {
            const share = part / 255;
            return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (colour !== 'rgba(0, 0, 0, 0)') return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    let worst = [21, ''];
    for (const element of document.querySelectorAll('body *')) {
        const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!said || !element.checkVisibility() || element.closest('svg, .visually-hidden, .skip')) continue;
        const pair = [light(getComputedStyle(element).color), light(ground(element))];
        const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        if (ratio < worst[0]) worst = [ratio, element.outerHTML];
    }
    return worst;
})()";

#[test]
fn it_can_be_read_in_light_and_dark_and_on_a_phone() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let backends = Fickle::three();
    let weir = Weir::on(Driver::Epoll).fickles(&backends).start();
    backends[0].kill();
    assert_eq!(weir.client().get("/").status(), 200);
    browser.open(&page(&weir));
    browser.wait("document.querySelectorAll('#backends tr').length === 3");
    for scheme in ["light", "dark"] {
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        browser.call("Emulation.setEmulatedMedia", feature);
        let worst = browser.value(CONTRAST);
        let ratio = worst[0].as_f64().expect("a ratio");
        assert!((4.5..21.0).contains(&ratio), "{scheme}: a contrast of {worst}");
    }
    for (width, mobile) in [
        (1_920, false),
        (1_200, false),
        (1_101, false),
        (800, false),
        (360, true),
    ] {
        let screen = json!({ "width": width, "height": 740, "deviceScaleFactor": 2, "mobile": mobile });
        browser.call("Emulation.setDeviceMetricsOverride", screen);
        browser.wait(&format!("window.innerWidth === {width}"));
        // All that sticks out of the screen.
        let outside = format!(
            "[...document.querySelectorAll('main *, header *')].filter((element) => {{
                const box = element.getBoundingClientRect();
                const hidden = !element.checkVisibility() || element.closest('.visually-hidden, .skip, thead');
                return !hidden && (box.left < 0 || box.right > {width});
            }}).map((element) => element.outerHTML.slice(0, 100))"
        );
        assert_eq!(browser.value(&outside), json!([]), "{width}");
        browser.wait(&format!("document.documentElement.scrollWidth <= {width}"));
    }
    let button = "document.querySelector('#backends button').getBoundingClientRect().height >= 40";
    assert_eq!(browser.value(button), true);
    for (what, count) in [
        ("main", 1),
        ("h1", 1),
        ("table", 3),
        ("[role=img][aria-label]", 3),
    ] {
        let found = browser.value(&format!("document.querySelectorAll('{what}').length"));
        assert_eq!(found, count, "{what}");
    }
    let nameless = "[...document.querySelectorAll('th')].filter(cell => !cell.scope).length";
    assert_eq!(browser.value(nameless), 0);
}

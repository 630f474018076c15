//! What is logged, changed while weir runs.

#[macro_use]
mod support;

use serde_json::{Value, json};
use support::http::text;
use support::weir::Setup;
use support::{Conduct, Driver, Fickle, Weir};

on_both_drivers!(a_module_is_heard_in_detail_and_others_are_not,);

/// What `proxy` says at `debug` when a retry is made.
const DETAIL: &str = "an answer gives way to a retry";

/// A backend that answers 503, and one that does not.
struct Pair {
    bad: Fickle,
    good: Fickle,
}

impl Pair {
    fn new() -> Pair {
        let (bad, good) = (Fickle::new("bad"), Fickle::new("good"));
        bad.conduct(Conduct::Status(503));
        Pair { bad, good }
    }

    /// A weir before them that goes on trying both.
    fn before(&self, driver: Driver) -> Setup {
        Weir::on(driver)
            .fickles([&self.bad, &self.good])
            .set("circuit_breaker.enabled", false)
            .set("outlier.consecutive_gateway", "off")
    }
}

/// Makes `proxy` say its detail once, if it is heard: one of two requests goes to the bad backend first.
fn retry(weir: &Weir) {
    let mut client = weir.client();
    for _ in 0..2 {
        assert_eq!(client.get("/").status(), 200);
    }
}

fn levels(weir: &Weir) -> Value {
    let answer = weir.admin_get("/log-level");
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// How often the detail is in the log, once everything up to now is.
fn details(weir: &Weir, weight: u16) -> usize {
    // What was logged before this call is there before what the call logs.
    weir.admin_do(
        "PUT",
        "/backends/bad/weight",
        &format!("{{\"weight\": {weight}}}"),
    );
    weir.wait_log_lines(&["set by the operator", &format!("\"weight\":{weight}")], 1);
    weir.log_lines(&[DETAIL]).len()
}

fn a_module_is_heard_in_detail_and_others_are_not(driver: Driver) {
    let pair = Pair::new();
    let weir = pair
        .before(driver)
        .set("health_check.type", "http")
        .set("health_check.interval", "100ms")
        .start();
    assert_eq!(levels(&weir), json!({ "level": "info", "modules": {} }));
    retry(&weir);
    assert_eq!(details(&weir, 2), 0);

    let now = weir.admin_do("PUT", "/log-level", r#"{"level": "debug", "module": "proxy"}"#);
    assert_eq!(now, json!({ "level": "info", "modules": { "proxy": "debug" } }));
    assert_eq!(levels(&weir), now);
    weir.wait_log_lines(&["admin call", "\"call\":\"log level\""], 1);
    retry(&weir);
    let line = weir.wait_log(DETAIL);
    assert!(line.contains("\"level\":\"debug\"") && line.contains("\"target\":\"weir::proxy"));
    // Probes are made ten times a second, and `health` tells of them at `debug`.
    assert!(!weir.logged("\"target\":\"weir::health::checker\",\"msg\":\"probe\""));
    weir.admin_do("PUT", "/log-level", r#"{"modules": {"health": "debug"}}"#);
    weir.wait_log_lines(&["\"level\":\"debug\"", "\"target\":\"weir::health"], 1);

    let now = weir.admin_do("DELETE", "/log-level/proxy", "");
    assert_eq!(now, json!({ "level": "info", "modules": { "health": "debug" } }));
    let heard = details(&weir, 3);
    retry(&weir);
    assert_eq!(details(&weir, 4), heard);
    let now = weir.admin_do("DELETE", "/log-level", "");
    assert_eq!(now, json!({ "level": "info", "modules": {} }));

    // From now on only errors: that it was so is the last that is said.
    weir.admin_do("PUT", "/log-level", r#"{"level": "error"}"#);
    weir.wait_log_lines(&["log levels set by the operator", "error"], 1);
    assert_eq!(
        weir.log_lines(&["admin call", "\"call\":\"log level\""]).len(),
        4,
        "of four calls before"
    );
}

#[test]
fn a_reload_keeps_levels_unless_it_brings_others() {
    let pair = Pair::new();
    let mut weir = pair
        .before(Driver::Epoll)
        .set("logging.modules", vec!["health=warn"])
        .start();
    let configured = json!({ "level": "info", "modules": { "health": "warn" } });
    assert_eq!(levels(&weir), configured);
    let set = weir.admin_do(
        "PUT",
        "/log-level",
        r#"{"level": "debug", "modules": {"health": "trace", "proxy": "error"}}"#,
    );

    weir.rewrite(|config| {
        config["health_check"]["type"] = "http".into();
    });
    assert_eq!(weir.reload().status(), 200);
    assert_eq!(levels(&weir), set);
    assert_eq!(
        weir.admin_do("DELETE", "/log-level/health", "")["modules"]["health"],
        "warn"
    );

    weir.rewrite(|config| {
        config["logging"]["modules"] = vec!["proxy=debug"].into();
        let logging = config["logging"].as_table_mut().expect("a section");
        logging.insert("format".to_owned(), "text".into());
    });
    let answer = weir.reload();
    let report: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(report["needs_restart"], json!(["logging.format"]));
    assert_eq!(
        levels(&weir),
        json!({ "level": "info", "modules": { "proxy": "debug" } })
    );
    retry(&weir);
    weir.wait_log(DETAIL);
}

#[test]
fn what_cannot_be_is_answered_with_what_can() {
    let pair = Pair::new();
    let weir = pair.before(Driver::Epoll).start();
    for (method, target, body, status, why) in [
        (
            "PUT",
            "/log-level",
            r#"{"level": "loud"}"#,
            400,
            "there are: error, warn, info, debug, trace",
        ),
        (
            "PUT",
            "/log-level",
            r#"{"level": "debug", "module": "proxi"}"#,
            400,
            r#"did you mean \"proxy\"? there are: access_log, admin,"#,
        ),
        ("PUT", "/log-level", "{}", 400, "needs a level"),
        ("PUT", "/log-level", "debug", 400, "not JSON"),
        ("DELETE", "/log-level/nothing", "", 400, "no module that logs"),
        (
            "DELETE",
            "/log-level",
            r#"{"module": "proxy"}"#,
            400,
            "means nothing here",
        ),
        ("POST", "/log-level", "{}", 405, "GET and HEAD and PUT and DELETE"),
        ("GET", "/log-level/proxy", "", 405, "takes DELETE"),
        ("DELETE", "/log-level/proxy/x", "", 404, "nothing is served"),
    ] {
        let answer = weir.admin_send(method, target, body);
        let told = text(&answer.body);
        assert_eq!(answer.status(), status, "{method} {target}: {told}");
        assert!(told.contains(why), "{method} {target} {body}: {told}");
    }
    let unasked = weir.admin_raw(
        "PUT",
        "/log-level",
        "Content-Type: text/plain\r\nContent-Length: 17\r\n",
        r#"{"level":"debug"}"#,
    );
    assert_eq!(unasked.status(), 415);
    assert_eq!(levels(&weir), json!({ "level": "info", "modules": {} }));
}

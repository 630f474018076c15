//! The metrics as Prometheus sees them: `promtool` checks them, a real server scrapes them in every format and answers the
//! dashboard's queries, the alerts' tests pass, and the document lists what there is.

#[macro_use]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Driver, Fickle, Load, Weir, eventually};

const DASHBOARD: &str = include_str!("../dashboards/weir.json");
const DOCUMENT: &str = include_str!("../docs/observability.md");

on_both_drivers!(promtool_finds_nothing_to_complain_about);

/// A weir with some traffic behind it, and some that failed.
fn used(driver: Driver) -> (Weir, [Fickle; 3]) {
    let backends = Fickle::three();
    let weir = Weir::on(driver).fickles(&backends).start();
    let load = Load::on(&weir);
    load.wait_answered(500);
    load.stop().assert_none_failed();
    (weir, backends)
}

fn text(weir: &Weir, target: &str) -> String {
    let answer = weir.admin_get(target);
    assert_eq!(answer.status(), 200);
    String::from_utf8(answer.body).expect("text")
}

/// Gives `input` to a program and expects success; none: it is not there.
fn run(package: &str, program: &str, args: &[&str], input: &str) -> Option<String> {
    let command = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = command else {
        support::skipped(package);
        return None;
    };
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("the program reads");
    drop(stdin);
    let output = child.wait_with_output().expect("the program ends");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{program} {args:?}: {said}");
    Some(said)
}

fn promtool_finds_nothing_to_complain_about(driver: Driver) {
    let (weir, _backends) = used(driver);
    let text = text(&weir, "/metrics/prometheus");
    if let Some(said) = run("prometheus", "promtool", &["check", "metrics"], &text) {
        assert_eq!(said.trim(), "", "promtool has something to say");
    }
}

#[test]
fn every_surface_and_every_way_of_asking_gives_the_same_formats() {
    let (weir, _backends) = used(Driver::Epoll);
    let accept = |value: &str| {
        let answer = weir.admin_raw("GET", "/metrics", &format!("Accept: {value}\r\n"), "");
        (
            answer.get("content-type").unwrap_or_default().to_owned(),
            String::from_utf8_lossy(&answer.body).into_owned(),
        )
    };
    let (kind, body) = accept("*/*");
    assert!(
        kind == "application/json" && body.starts_with("{\"total_requests\":"),
        "{kind}"
    );
    let (kind, body) = accept("text/plain;version=0.0.4");
    assert!(
        kind.starts_with("text/plain; version=0.0.4") && body.starts_with("# HELP"),
        "{kind}"
    );
    let (kind, body) = accept("application/openmetrics-text;version=1.0.0");
    assert!(
        kind.starts_with("application/openmetrics-text") && body.ends_with("# EOF\n"),
        "{kind}"
    );
    for (format, start) in [("prometheus", "# HELP"), ("openmetrics", "# HELP"), ("json", "{")] {
        assert!(
            text(&weir, &format!("/metrics?format={format}")).starts_with(start),
            "{format}"
        );
    }
    // The main port too, for peers that may.
    let main = weir.get_from(weir.address(), "/metrics?format=prometheus");
    assert!(main.body.starts_with(b"# HELP weir_"));
    let unknown = weir.admin_get("/metrics?format=xml");
    assert_eq!(unknown.status(), 406);
    assert!(String::from_utf8_lossy(&unknown.body).contains("json, prometheus, openmetrics, protobuf"));
}

#[test]
fn json_and_text_agree() {
    let (weir, _backends) = used(Driver::Epoll);
    let json = weir.metrics();
    let text = text(&weir, "/metrics/prometheus");
    let sum = |prefix: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    };
    let backends = json["backends"].as_object().expect("backends");
    let requests: u64 = backends
        .values()
        .filter_map(|backend| backend["requests"].as_u64())
        .sum();
    assert_eq!(sum("weir_requests_total{"), requests as f64);
    assert_eq!(sum("weir_request_duration_seconds_count{"), requests as f64);
    assert_eq!(sum("weir_request_first_byte_seconds_count{"), requests as f64);
    assert_eq!(sum("weir_overhead_seconds_count{"), requests as f64);
    for backend in backends.values() {
        let first_byte = &backend["phases"]["first_byte"];
        assert!(first_byte["p50"].as_u64() <= backend["p50_response"].as_u64().map(|ns| ns + ns / 64));
        assert_eq!(backend["state"], "up");
        assert_eq!(backend["breaker"]["state"], "closed");
    }
    let busy = json["weir"]["workers"][0]["busy"].as_u64();
    assert!(busy > Some(0) && sum("weir_worker_busy_seconds_total") > 0.0);
}

#[test]
fn the_document_lists_every_metric_and_no_other() {
    let (weir, _backends) = used(Driver::Epoll);
    let text = text(&weir, "/metrics/prometheus");
    let real: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let documented: BTreeSet<&str> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("weir_") || name.starts_with("process_"))
        .collect();
    assert_eq!(documented, real);
}

#[test]
fn the_alerts_pass_their_tests() {
    let root = env!("CARGO_MANIFEST_DIR");
    let rules = format!("{root}/dashboards/alerts.yml");
    let tests = format!("{root}/dashboards/alerts_test.yml");
    run("prometheus", "promtool", &["check", "rules", &rules], "");
    run("prometheus", "promtool", &["test", "rules", &tests], "");
}

/// A Prometheus that scrapes one weir; ended when dropped.
struct Prometheus {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// None: it is not there.
    fn scraping(weir: &Weir) -> Option<Prometheus> {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("prometheus.yml");
        let target = weir.admin.as_deref().expect("admin is on");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\nscrape_configs:\n\
                 - {{job_name: weir, static_configs: [{{targets: ['{target}']}}]}}\n"
            ),
        )
        .expect("a configuration");
        // It cannot tell which port it got, so it is given one that was free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=native-histograms")
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            support::skipped("prometheus");
            return None;
        };
        Some(Prometheus {
            child,
            address,
            _dir: dir,
        })
    }

    /// The result of a query, once the server answers.
    fn query(&self, query: &str) -> Option<Vec<Value>> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let encoded: String = query
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        let host = &self.address;
        write!(
            stream,
            "GET /api/v1/query?query={encoded} HTTP/1.0\r\nHost: {host}\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let body: Value = serde_json::from_str(body).ok()?;
        assert_eq!(body["status"], "success", "{query}: {body}");
        body["data"]["result"].as_array().cloned()
    }

    /// Waits until a query gives something.
    fn wait(&self, query: &str) -> Vec<Value> {
        eventually(&format!("a result of {query}"), || {
            self.query(query).filter(|result| !result.is_empty())
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(result: &[Value]) -> f64 {
    let text = result[0]["value"][1].as_str().expect("a number");
    text.parse().expect("a number")
}

#[test]
fn a_real_prometheus_scrapes_native_histograms_and_answers_the_dashboard() {
    let (weir, _backends) = used(Driver::Epoll);
    let Some(prometheus) = Prometheus::scraping(&weir) else {
        return;
    };
    let load = Load::on(&weir);
    assert_eq!(number(&prometheus.wait("up")), 1.0);
    // A native histogram is one series without `le`, which only the protobuf format carries.
    prometheus.wait("rate(weir_request_duration_seconds[5s]) > 0 or weir_request_duration_seconds");
    load.wait_answered(load.answered() + 500);
    load.stop().assert_none_failed();
    let (json, count) = eventually("the last scrape", || {
        let json = weir.metrics();
        let backends = json["backends"].as_object()?;
        let total: u64 = backends
            .values()
            .filter_map(|backend| backend["requests"].as_u64())
            .sum();
        let seen = prometheus.query("sum(histogram_count(weir_request_duration_seconds))")?;
        (number(&seen) == total as f64).then_some((json, total))
    });
    assert!(count > 500);
    for (name, backend) in json["backends"].as_object().expect("backends") {
        let name = backend["name"].as_str().unwrap_or(name);
        for (quantile, key) in [("0.5", "p50_response"), ("0.99", "p99_response")] {
            let query = format!(
                "histogram_quantile({quantile}, weir_request_duration_seconds{{backend=\"{name}\"}})"
            );
            let seen = number(&prometheus.wait(&query));
            let exact = backend[key].as_u64().expect("a percentile") as f64 / 1e9;
            // A bucket of schema 3 is 9 % wide.
            assert!(
                (seen / exact - 1.0).abs() < 0.10,
                "{name} {quantile}: {seen} for {exact}"
            );
        }
    }
    for query in queries() {
        let ready = query
            .replace("$__rate_interval", "30s")
            .replace("$__range", "30s")
            .replace("$pool", ".*")
            .replace("$backend", ".*");
        let result = prometheus.query(&ready).expect("an answer");
        // Rates of failures may be empty where nothing has failed; everything else has values.
        let may_be_empty = ["failures", "own_answers", "retries", "code=~"];
        if !may_be_empty.iter().any(|word| query.contains(word)) {
            assert!(!result.is_empty(), "{ready} gives nothing");
        }
    }
}

/// Every query of the dashboard.
fn queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match value {
                        Value::String(text) if key == "expr" => found.push(text.clone()),
                        value => collect(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    found
}

#[test]
fn the_dashboard_has_the_shape_that_grafana_takes() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    for key in [
        "title",
        "uid",
        "schemaVersion",
        "panels",
        "templating",
        "time",
        "tags",
        "refresh",
    ] {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
        let place = &panel["gridPos"];
        let at = |key: &str| {
            place[key]
                .as_u64()
                .unwrap_or_else(|| panic!("{title}: gridPos.{key}"))
        };
        assert!(at("x") + at("w") <= 24 && at("h") > 0, "{title}");
        let _ = at("y");
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["datasource"]["uid"] == "${datasource}", "{title}");
        let targets = panel["targets"].as_array().expect("targets");
        let mut letters = BTreeSet::new();
        for target in targets {
            assert!(
                letters.insert(target["refId"].as_str().expect("a refId")),
                "{title}"
            );
            assert!(
                target["expr"]
                    .as_str()
                    .is_some_and(|expr| expr.contains("weir_") || expr.contains("process_"))
            );
        }
    }
    assert!(queries().len() >= 15);
}

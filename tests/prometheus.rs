//! The metrics as those read them who are meant to: `promtool` checks them, a real Prometheus scrapes them in every format,
//! and strict parsers and the official types find in each format what the others say.

#[macro_use]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::load::Plan;
use support::prometheus::{Prometheus, consume, encoded, number, openmetrics, protobuf};
use support::{Backend, Driver, Fickle, Load, Weir, eventually};

const DOCUMENT: &str = include_str!("../docs/observability.md");
const NATIVE: &str = "native-histograms";

on_both_drivers!(promtool_finds_nothing_to_complain_about);

/// A weir with some traffic behind it, all of it counted.
fn used(driver: Driver) -> (Weir, [Fickle; 3]) {
    let backends = Fickle::three();
    let weir = Weir::on(driver)
        .fickles(&backends)
        .set("observe.address", "127.0.0.1:0")
        .start();
    let load = Load::on(&weir);
    load.wait_answered(500);
    load.stop().assert_none_failed();
    settled(&weir);
    (weir, backends)
}

/// The JSON once nothing is under way: a shard is written behind the answer.
fn settled(weir: &Weir) -> Value {
    eventually("the end of all exchanges", || {
        let metrics = weir.metrics();
        let backends = metrics["backends"].as_object()?;
        let idle = backends.values().all(|backend| backend["in_flight"] == 0);
        (idle && total(&metrics, "requests") == metrics["total_requests"].as_u64()?).then_some(metrics)
    })
}

/// The sum of a field over all backends.
fn total(json: &Value, field: &str) -> u64 {
    let backends = json["backends"].as_object().expect("backends");
    backends
        .values()
        .filter_map(|backend| backend[field].as_u64())
        .sum()
}

fn get(weir: &Weir, target: &str) -> Vec<u8> {
    let answer = weir.admin_get(target);
    assert_eq!(answer.status(), 200, "{target}");
    answer.body
}

fn text(weir: &Weir, target: &str) -> String {
    String::from_utf8(get(weir, target)).expect("text")
}

/// The samples of the text format by name and labels, as they are written.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        (series, value.parse().expect("a number"))
    });
    samples.collect()
}

fn promtool_finds_nothing_to_complain_about(driver: Driver) {
    let (weir, _backends) = used(driver);
    let text = get(&weir, "/metrics/prometheus");
    if let Some(said) = consume("prometheus", "promtool", &["check", "metrics"], &text) {
        assert_eq!(said, "", "promtool has something to say");
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
    let addresses = [
        weir.admin.as_deref().expect("admin"),
        weir.observe.as_deref().expect("observe"),
        // The main port too, for peers that may.
        weir.address(),
    ];
    for address in addresses {
        for (format, kind) in [
            ("prometheus", "text/plain; version=0.0.4; charset=utf-8"),
            (
                "openmetrics",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
            (
                "protobuf",
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
            ),
            ("json", "application/json"),
        ] {
            let answer = weir.get_from(address, &format!("/metrics?format={format}"));
            assert_eq!(answer.get("content-type"), Some(kind), "{address}");
            assert_eq!(answer.get("vary"), Some("Accept"));
        }
        let unknown = weir.get_from(address, "/metrics?format=xml");
        assert_eq!(unknown.status(), 406);
        assert!(String::from_utf8_lossy(&unknown.body).contains("json, prometheus, openmetrics, protobuf"));
    }
    for address in &addresses[..2] {
        let answer = weir.get_from(address, "/metrics/prometheus");
        assert!(answer.body.starts_with(b"# HELP weir_"), "{address}");
    }
}

#[test]
fn json_and_text_agree() {
    let (weir, _backends) = used(Driver::Epoll);
    let json = settled(&weir);
    let text = text(&weir, "/metrics/prometheus");
    let samples = samples(&text);
    let sum = |prefix: &str| -> f64 {
        let found = samples.iter().filter(|(series, _)| series.starts_with(prefix));
        found.map(|(_, value)| value).sum()
    };
    let requests = total(&json, "requests") as f64;
    assert_eq!(sum("weir_requests_total{"), requests);
    assert_eq!(sum("weir_request_duration_seconds_count{"), requests);
    assert_eq!(sum("weir_request_first_byte_seconds_count{"), requests);
    assert_eq!(sum("weir_overhead_seconds_count{"), requests);
    assert_eq!(sum("weir_backend_attempts_total{"), requests);
    for backend in json["backends"].as_object().expect("backends").values() {
        let first_byte = &backend["phases"]["first_byte"];
        assert!(first_byte["p50"].as_u64() <= backend["p50_response"].as_u64().map(|ns| ns + ns / 64));
        assert_eq!(backend["state"], "up");
        assert_eq!(backend["breaker"]["state"], "closed");
        let name = backend["name"].as_str().expect("a name");
        for (state, value) in [("up", 1.0), ("dead", 0.0)] {
            let series =
                format!("weir_backend_state{{pool=\"default\",backend=\"{name}\",state=\"{state}\"}}");
            assert_eq!(samples[&*series], value, "{series}");
        }
    }
    let busy = json["weir"]["workers"][0]["busy"].as_u64();
    assert!(busy > Some(0) && sum("weir_worker_busy_seconds_total") > 0.0);
    eventually("a share of the last second", || {
        let share = weir.metrics()["weir"]["workers"][0]["busy_percent"].as_u64()?;
        assert!(share <= 110, "{share} % of a second");
        Some(())
    });
}

#[test]
fn a_strict_parser_takes_openmetrics_and_its_exemplars() {
    let (collector, backend) = (
        Backend::answering(|_| support::ok(b"")),
        Backend::answering(|request| support::ok(request.target().as_bytes())),
    );
    let weir = Weir::on(Driver::Epoll)
        .backend(&backend)
        .set("tracing.otlp", collector.url())
        .set("tracing.sample_ratio", 1.0)
        .start();
    let mut client = weir.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 200);
    }
    settled(&weir);
    let Some(families) = openmetrics(&get(&weir, "/metrics?format=openmetrics")) else {
        return;
    };
    let names: BTreeSet<&str> = families
        .as_array()
        .expect("families")
        .iter()
        .filter_map(|family| family["name"].as_str())
        .collect();
    assert!(names.contains("weir_exchanges") && names.contains("process_cpu_seconds"));
    let family = families
        .as_array()
        .and_then(|families| {
            families
                .iter()
                .find(|family| family["name"] == "weir_request_duration_seconds")
        })
        .expect("the latency");
    let (mut below, mut exemplars) = (0.0, 0);
    for sample in family["samples"].as_array().expect("samples") {
        let Some(le) = sample["labels"]["le"].as_str() else {
            continue;
        };
        let le: f64 = le.parse().expect("a bound");
        if let Some(value) = sample["exemplar"]["value"].as_f64() {
            assert!(below <= value && value <= le, "{value} in ({below}, {le}]");
            let id = sample["exemplar"]["labels"]["trace_id"].as_str().expect("an id");
            assert!(
                id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{id}"
            );
            assert!(sample["exemplar"]["timestamp"].as_f64() > Some(1.7e9));
            exemplars += 1;
        }
        below = le;
    }
    assert!(exemplars > 0, "{family}");
}

#[test]
fn the_official_types_find_in_protobuf_what_the_text_says() {
    let (weir, _backends) = used(Driver::Epoll);
    let text = text(&weir, "/metrics/prometheus");
    let samples = samples(&text);
    let Some(families) = protobuf(&get(&weir, "/metrics?format=protobuf")) else {
        return;
    };
    let families = families.as_array().expect("families");
    let told: BTreeSet<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_uppercase()))
        .collect();
    let read: BTreeSet<(String, String)> = families
        .iter()
        .map(|family| {
            let text = |key: &str| family[key].as_str().expect("text").to_owned();
            (text("name"), text("type"))
        })
        .collect();
    assert_eq!(read, told);
    let mut histograms = 0;
    for family in families
        .iter()
        .filter(|family| family["name"].as_str().is_some_and(is_still))
    {
        let name = family["name"].as_str().expect("a name");
        for sample in family["samples"].as_array().expect("samples") {
            if family["type"] != "HISTOGRAM" {
                let series = series(name, sample, None);
                assert_eq!(sample["value"].as_f64(), Some(samples[&*series]), "{series}");
                continue;
            }
            histograms += 1;
            let count = samples[&*series(&format!("{name}_count"), sample, None)];
            assert_eq!(sample["count"].as_f64(), Some(count));
            assert_eq!(
                sample["sum"].as_f64(),
                Some(samples[&*series(&format!("{name}_sum"), sample, None)])
            );
            for bucket in sample["buckets"].as_array().expect("classic buckets") {
                let le = bucket["le"].as_str().expect("a bound");
                let series = series(&format!("{name}_bucket"), sample, Some(le));
                assert_eq!(bucket["count"].as_f64(), Some(samples[&*series]), "{series}");
            }
            assert_eq!(sample["schema"], 3);
            let native = sample["native"].as_array().map_or(&[][..], Vec::as_slice);
            let counted: u64 = native.iter().filter_map(|bucket| bucket["count"].as_u64()).sum();
            assert_eq!(
                counted + sample["zero_count"].as_u64().expect("zeros"),
                count as u64
            );
        }
    }
    assert_eq!(histograms, 7 * 3);
}

/// Whether a metric says the same in two scrapes while nothing happens.
fn is_still(name: &str) -> bool {
    !name.starts_with("process_") && name != "weir_uptime_seconds" && name != "weir_worker_busy_seconds_total"
}

/// A sample's series as the text format writes it.
fn series(name: &str, sample: &Value, le: Option<&str>) -> String {
    // In the order in which the families write them.
    let order = [
        "pool", "backend", "series", "worker", "reason", "code", "state", "version", "commit", "arch",
        "driver", "workers", "strategy",
    ];
    let labels = sample["labels"].as_object().expect("labels");
    let known = order
        .iter()
        .filter_map(|label| Some((*label, labels.get(*label)?.as_str()?)));
    let written: Vec<String> = known
        .chain(le.map(|le| ("le", le)))
        .map(|(name, value)| format!("{name}=\"{value}\""))
        .collect();
    match written.is_empty() {
        true => name.to_owned(),
        false => format!("{name}{{{}}}", written.join(",")),
    }
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
fn a_real_prometheus_answers_percentiles_from_native_histograms() {
    let (weir, _backends) = used(Driver::Epoll);
    let Some(prometheus) = Prometheus::scraping(&weir, &["/metrics"], &[NATIVE]) else {
        return;
    };
    assert_eq!(prometheus.number("up"), 1.0);
    let load = Load::on(&weir);
    load.wait_answered(500);
    load.stop().assert_none_failed();
    let json = settled(&weir);
    // A native histogram is one series without `le`, which only the protobuf format carries.
    scraped(
        &prometheus,
        "sum(histogram_count(weir_request_duration_seconds))",
        &json,
    );
    for (name, backend) in json["backends"].as_object().expect("backends") {
        let name = backend["name"].as_str().unwrap_or(name);
        for (quantile, key) in [("0.5", "p50_response"), ("0.99", "p99_response")] {
            let query = format!(
                "histogram_quantile({quantile}, weir_request_duration_seconds{{backend=\"{name}\"}})"
            );
            // A bucket of schema 3 is 9 % wide.
            close(&query, prometheus.number(&query), &backend[key], 0.10);
        }
    }
    assert_eq!(prometheus.number("min(up)"), 1.0);
}

#[test]
fn a_real_prometheus_scrapes_both_text_formats_and_keeps_exemplars() {
    let collector = Backend::answering(|_| support::ok(b""));
    let backends = Fickle::three();
    let weir = Weir::on(Driver::Epoll)
        .fickles(&backends)
        .set("tracing.otlp", collector.url())
        .set("tracing.sample_ratio", 1.0)
        .start();
    // Without native histograms it asks for OpenMetrics; the path has the older format, whatever is asked for.
    let paths = ["/metrics", "/metrics/prometheus"];
    let Some(prometheus) = Prometheus::scraping(&weir, &paths, &["exemplar-storage"]) else {
        return;
    };
    let load = Load::with(
        weir.address(),
        Plan {
            connections: 8,
            ..Plan::default()
        },
    );
    load.wait_answered(1_000);
    load.stop().assert_none_failed();
    let json = settled(&weir);
    for path in paths {
        let job = format!("job=\"{path}\"");
        assert_eq!(prometheus.number(&format!("up{{{job}}}")), 1.0);
        let count = format!("sum(weir_request_duration_seconds_count{{{job}}})");
        scraped(&prometheus, &count, &json);
        for (name, backend) in json["backends"].as_object().expect("backends") {
            let name = backend["name"].as_str().unwrap_or(name);
            let query = format!(
                "histogram_quantile(0.5, weir_request_duration_seconds_bucket{{{job},backend=\"{name}\"}})"
            );
            // Buckets double.
            close(&query, prometheus.number(&query), &backend["p50_response"], 1.0);
        }
    }
    let target = format!(
        "/api/v1/query_exemplars?query={}&start=0&end=9999999999",
        encoded("weir_request_duration_seconds_bucket")
    );
    let kept = eventually("exemplars", || {
        let data = prometheus.api(&target)?;
        let series = data.as_array()?.first()?.clone();
        series["exemplars"][0]["labels"]["trace_id"]
            .as_str()
            .map(str::to_owned)
    });
    assert_eq!(kept.len(), 32);
}

/// Waits until a count that was scraped is the one that weir shows.
fn scraped(prometheus: &Prometheus, query: &str, json: &Value) {
    let requests = total(json, "requests") as f64;
    eventually(&format!("{query} to be {requests}"), || {
        let seen = prometheus.query(query).filter(|result| !result.is_empty())?;
        (number(&seen) == requests).then_some(())
    });
}

/// What Prometheus makes of buckets is at most this part away from the exact percentile, in nanoseconds.
fn close(query: &str, seen: f64, exact: &Value, part: f64) {
    let exact = exact.as_u64().expect("a percentile") as f64 / 1e9;
    assert!((seen / exact - 1.0).abs() < part, "{query}: {seen} for {exact}");
}

//! What stands in dashboards/: every query gives something where everything has happened, the alerts fire when they should,
//! and nothing asks for a metric that there is not.

#[macro_use]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use support::load::Plan;
use support::prometheus::{Prometheus, consume};
use support::{Conduct, Driver, Fickle, Load, Weir, eventually};

const DASHBOARD: &str = include_str!("../dashboards/weir.json");
const ALERTS: &str = include_str!("../dashboards/alerts.yml");
const DOCUMENT: &str = include_str!("../docs/observability.md");

#[test]
fn the_alerts_pass_their_tests() {
    let root = env!("CARGO_MANIFEST_DIR");
    let rules = format!("{root}/dashboards/alerts.yml");
    let tests = format!("{root}/dashboards/alerts_test.yml");
    consume("prometheus", "promtool", &["check", "rules", &rules], b"");
    consume("prometheus", "promtool", &["test", "rules", &tests], b"");
}

#[test]
fn every_alert_has_a_test_in_which_it_fires() {
    let tests = include_str!("../dashboards/alerts_test.yml");
    for line in ALERTS.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            let fires = tests
                .split("alertname: ")
                .skip(1)
                .any(|part| part.lines().next() == Some(name) && part.contains("exp_labels"));
            assert!(fires, "{name}");
        }
    }
}

#[test]
fn every_metric_that_is_asked_for_is_one_that_there_is() {
    let known: BTreeSet<&str> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let words = |text: &'static str| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let asked = words(DASHBOARD)
        .chain(words(ALERTS))
        .filter(|word| word.starts_with("weir_") || word.starts_with("process_"));
    for name in asked {
        let part = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part));
        assert!(known.contains(part.unwrap_or(name)), "{name}");
    }
}

/// Everything that a dashboard shows has happened, and goes on: backends answer well and badly, one is gone, clients ask what
/// they may not.
#[test]
fn a_real_prometheus_answers_every_query_of_the_dashboard() {
    let [good, bad, gone] = ["good", "bad", "gone"].map(Fickle::new);
    bad.conduct(Conduct::Status(503));
    let weir = Weir::on(Driver::Epoll)
        .fickles([&good, &bad, &gone])
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .start();
    let Some(prometheus) = Prometheus::scraping(&weir, &["/metrics"], &["native-histograms"]) else {
        return;
    };
    // Rates want two samples from before and after.
    prometheus.wait("weir_requests_total or weir_exchanges_total");
    let load = Load::with(
        weir.address(),
        Plan {
            connections: 4,
            pause: Duration::from_millis(2),
            ..Plan::default()
        },
    );
    load.wait_answered(100);
    gone.kill();
    for query in queries() {
        let ready = query
            .replace("$__rate_interval", "30s")
            .replace("$__range", "30s")
            .replace("$pool", ".*")
            .replace("$backend", ".*");
        eventually(&format!("a result of {ready}"), || {
            let mut client = weir.client();
            client.send("TRACE / HTTP/1.1\r\nHost: t\r\n\r\n");
            assert_eq!(client.response("TRACE").status(), 501);
            prometheus.query(&ready).filter(|result| !result.is_empty())
        });
    }
    assert_eq!(prometheus.number("min_over_time(up[30s])"), 1.0);
    load.stop();
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

/// What Grafana's published schema (grafana-foundation-sdk, dashboard.jsonschema.json and those of the panels) asks for, as
/// far as it concerns what is used here.
#[test]
fn the_dashboard_has_the_shape_that_grafana_takes() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let words = |value: &Value, keys: &[&str]| {
        for key in keys {
            assert!(value[key].is_string(), "{key} in {value}");
        }
    };
    words(&dashboard, &["title", "uid", "refresh", "timezone"]);
    words(&dashboard["time"], &["from", "to"]);
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36));
    assert!(dashboard["graphTooltip"].as_u64() <= Some(2) && dashboard["editable"].is_boolean());
    assert!(dashboard["annotations"]["list"].is_array() && dashboard["tags"].is_array());
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        words(variable, &["name", "type", "query"]);
        assert!(variable["current"]["text"].is_string() && variable["current"]["value"].is_string());
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        words(panel, &["title", "type"]);
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place on the grid"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for column in x..x + w {
            for row in y..y + h {
                assert!(taken.insert((column, row)), "{title} lies on another panel");
            }
        }
        let needs: &[&str] = match panel["type"].as_str() {
            Some("row") => continue,
            Some("timeseries") => &["legend", "tooltip"],
            Some("heatmap") => &["color", "showValue", "yAxis", "legend", "tooltip", "exemplars"],
            Some("table") => &["frameIndex", "showHeader"],
            other => panic!("{title}: {other:?} is no panel that this test knows"),
        };
        for key in needs {
            assert!(!panel["options"][key].is_null(), "{title}: options.{key}");
        }
        words(panel, &["description"]);
        assert!(panel["fieldConfig"]["defaults"].is_object() && panel["fieldConfig"]["overrides"].is_array());
        for transformation in panel["transformations"].as_array().into_iter().flatten() {
            assert!(transformation["id"].is_string() && transformation["options"].is_object());
        }
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().expect("targets") {
            words(target, &["refId", "expr", "legendFormat"]);
            assert!(letters.insert(target["refId"].as_str()), "{title}");
            assert_eq!(target["datasource"], panel["datasource"], "{title}");
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
    }
    assert!(queries().len() >= 30);
}

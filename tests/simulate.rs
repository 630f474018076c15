//! `weir simulate` as a user meets it: the same seed gives the same text, errors name their place, pictures are drawn.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Few requests, some trouble.
const SMALL: &str = "duration = '4s'\nwarm_up = '1s'\nbackends = 4\nload_balancers = 2\n\
    [arrivals]\nrate = 500\n\
    [service]\ncores = 4\ntime = { type = 'exponential', mean = '5ms' }\n\
    [[events]]\ntype = 'slow'\nat = '2s'\nbackends = 1\nfactor = 4\n";

fn simulate(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .env_clear()
        .current_dir(directory)
        .arg("simulate")
        .args(arguments)
        .output()
        .expect("run weir")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a run printed that must have gone well.
#[track_caller]
fn found(directory: &Path, arguments: &[&str]) -> String {
    let output = simulate(directory, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

#[track_caller]
fn refused(directory: &Path, arguments: &[&str], told: &[&str]) {
    let output = simulate(directory, arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(text(&output.stdout), "");
    for told in told {
        assert!(stderr.contains(told), "{told:?} is missing:\n{stderr}");
    }
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("small.toml"), SMALL).expect("written");
    directory
}

#[test]
fn the_same_seed_prints_the_same_json_for_every_strategy() {
    let directory = directory();
    let run = |seed| {
        found(
            directory.path(),
            &["--scenario", "small.toml", "--json", "--seed", seed],
        )
    };
    let first = run("7");
    assert_eq!(first, run("7"));
    assert_ne!(first, run("8"));
    let report: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(report["scenario"], "small");
    assert_eq!(report["named"], serde_json::json!(["backend-1"]));
    let rows = report["strategies"].as_array().expect("a row each");
    let names: Vec<_> = rows.iter().filter_map(|row| row["strategy"].as_str()).collect();
    for name in ["round-robin", "p2c", "least-response", "prequal", "maglev"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for row in rows {
        let count = |name: &str| row[name].as_u64().expect(name);
        assert_eq!(
            count("arrived"),
            count("done") + count("failed") + count("in_flight")
        );
        assert!((1900..2100).contains(&count("arrived")), "{row}");
        assert!(
            row["measured"]["latency_ms"]["p99"].as_f64() > row["measured"]["latency_ms"]["p50"].as_f64()
        );
        assert!(row.get("requests_per_wall_second").is_none());
    }
}

#[test]
fn the_table_has_a_line_for_each_strategy_and_the_picture_too() {
    let directory = directory();
    let arguments = [
        "--scenario=small.toml",
        "--strategies=least_conn,round-robin",
        "--svg=out.svg",
        "--time",
    ];
    let table = found(directory.path(), &arguments);
    for told in [
        "p99.9 ms",
        "queue",
        "requests/s",
        "2 load balancers before 4 backends",
    ] {
        assert!(table.contains(told), "{table}");
    }
    let lines: Vec<&str> = table.lines().collect();
    let [.., first, second] = lines.as_slice() else {
        panic!("{table}")
    };
    assert!(
        first.starts_with("least-conn ") && second.starts_with("round-robin "),
        "{table}"
    );
    let picture = fs::read_to_string(directory.path().join("out.svg")).expect("a picture");
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    assert!(picture.contains("least-conn") && picture.contains("<polyline"));
    refused(
        directory.path(),
        &["--scenario=small.toml", "--svg=no/such/place.svg"],
        &["cannot write no/such/place.svg"],
    );
}

#[test]
fn a_configuration_brings_its_backends_and_its_rules() {
    let directory = directory();
    let config = "[retry]\nmax_retries = 0\n\
        [[backends]]\nurl = \"http://127.0.0.1:9001\"\nname = \"one\"\n\
        [[backends]]\nurl = \"http://127.0.0.1:9002\"\nname = \"two\"\n";
    fs::write(directory.path().join("weir.toml"), config).expect("written");
    let failing = SMALL
        .replace("'slow'", "'fail'")
        .replace("factor", "share")
        .replace("= 4\n", "= 0.5\n");
    let failing = failing
        .replace("backends = 0.5", "backends = 4")
        .replace("cores = 0.5", "cores = 4");
    fs::write(directory.path().join("failing.toml"), failing).expect("written");
    let arguments = [
        "--config=weir.toml",
        "--scenario=failing.toml",
        "--strategies=round-robin",
        "--json",
    ];
    let report: Value = serde_json::from_str(&found(directory.path(), &arguments)).expect("JSON");
    assert_eq!(report["backends"], serde_json::json!(["one", "two"]));
    assert!(report["strategies"][0]["failed"].as_u64() > Some(0), "{report}");
    let with = ["--set=retry.max_retries=2", "--set=circuit_breaker.enabled=false"];
    let report: Value =
        serde_json::from_str(&found(directory.path(), &[&arguments[..], &with].concat())).expect("JSON");
    assert_eq!(report["strategies"][0]["failed"].as_u64(), Some(0), "{report}");
    fs::write(directory.path().join("bad.toml"), "[retry]\nmax_retrys = 1\n").expect("written");
    refused(
        directory.path(),
        &["--config=bad.toml"],
        &["bad.toml", "max_retrys", "max_retries"],
    );
    let out_of_range = SMALL.replace("backends = 1\n", "backends = 2\n");
    fs::write(directory.path().join("out.toml"), out_of_range).expect("written");
    refused(
        directory.path(),
        &["--config=weir.toml", "--scenario=out.toml"],
        &["out.toml:13: [[events]] backends: backend 2 of 2"],
    );
}

#[test]
fn a_recorded_log_is_replayed() {
    let directory = directory();
    let lines: String = (0..1000)
        .map(|n| format!("{},user-{}\n", 1000.0 + f64::from(n) / 500.0, n % 7))
        .collect();
    fs::create_dir(directory.path().join("logs")).expect("a directory");
    fs::write(directory.path().join("logs/requests.csv"), lines).expect("written");
    let scenario = SMALL.replace("rate = 500", "type = 'log'\nfile = 'requests.csv'");
    fs::write(directory.path().join("logs/replay.toml"), &scenario).expect("written");
    let arguments = ["--scenario=logs/replay.toml", "--strategies=maglev", "--json"];
    let report: Value = serde_json::from_str(&found(directory.path(), &arguments)).expect("JSON");
    assert_eq!(report["strategies"][0]["arrived"].as_u64(), Some(1000));
    fs::write(directory.path().join("logs/requests.csv"), "1.0,a\nyesterday,b\n").expect("written");
    refused(
        directory.path(),
        &["--scenario=logs/replay.toml"],
        &["requests.csv:2: a time in seconds is needed", "yesterday,b"],
    );
}

#[test]
fn what_is_wrong_with_a_scenario_is_told_with_file_line_and_key() {
    let directory = directory();
    let broken = SMALL.replace("rate", "rat");
    fs::write(directory.path().join("broken.toml"), broken).expect("written");
    refused(
        directory.path(),
        &["--scenario=broken.toml"],
        &[
            "broken.toml:6: [arrivals] rat: unknown field `rat`",
            "`rate`",
            "rat = 500",
        ],
    );
    refused(
        directory.path(),
        &["--scenario=chaos"],
        &["chaos is neither a file nor one of", "kill-one"],
    );
    refused(
        directory.path(),
        &["--strategies=best"],
        &["best", "least-response"],
    );
    refused(
        directory.path(),
        &["--print-scenario=chaos"],
        &["chaos", "steady"],
    );
}

#[test]
fn a_preset_that_is_printed_can_be_run_from_a_file() {
    let directory = directory();
    let preset = found(directory.path(), &["--print-scenario", "kill-one"]);
    fs::write(directory.path().join("kill-one.toml"), &preset).expect("written");
    let run = |scenario| {
        let arguments = ["--scenario", scenario, "--strategies", "round-robin", "--json"];
        found(directory.path(), &arguments)
    };
    assert_eq!(run("kill-one"), run("kill-one.toml"));
}

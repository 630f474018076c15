//! `weir experiment`, as its users meet it: small runs of the real thing, and that nothing of it is left.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{DEADLINE, eventually, os, weir::BINARY};

/// More than any run here takes, with everything on one busy core.
const PATIENCE: Duration = Duration::from_secs(60);

/// An experiment whose files and processes are all within `directory`.
fn experiment(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("experiment").args(arguments);
    command.arg("--out").arg(directory.join("out.md"));
    command.arg("--json").arg(directory.join("out.json"));
    command.env("TMPDIR", directory).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    os::fence(&mut command, None);
    command
}

/// Runs it to its end; gives what it wrote.
fn run(directory: &Path, arguments: &[&str]) -> (String, Value) {
    let mut child = experiment(directory, arguments).spawn().expect("the weir binary");
    let start = Instant::now();
    while child.try_wait().expect("a child of ours").is_none() {
        assert!(start.elapsed() < PATIENCE, "not over within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("its output");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(0), "{stderr}");
    let text = fs::read_to_string(directory.join("out.md")).expect("the Markdown");
    assert!(stdout.contains(&text), "it prints what it writes");
    let json = fs::read(directory.join("out.json")).expect("the JSON");
    assert!(of(directory).is_empty(), "processes are left");
    assert_eq!(directories(directory), 0, "a directory is left");
    (text, serde_json::from_slice(&json).expect("JSON"))
}

/// The processes other than the experiment itself that name something in `directory`.
fn of(directory: &Path) -> Vec<u32> {
    let name = directory.to_str().expect("UTF-8");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments);
            arguments.contains(name) && arguments.contains("--ready-file")
        })
        .collect()
}

fn directories(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    entries.filter(|entry| entry.path().is_dir()).count()
}

fn variant<'a>(json: &'a Value, trouble: &str, name: &str) -> &'a Value {
    let variants = json["variants"].as_array().expect("variants");
    variants
        .iter()
        .find(|variant| variant["trouble"] == trouble && variant["variant"] == name)
        .unwrap_or_else(|| panic!("no {trouble} {name} in {json}"))
}

#[test]
fn breaker_and_retries_hide_a_backend_in_trouble() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = [
        "circuit-breaker",
        "--requests",
        "60",
        "--kill-after",
        "25",
        "--pause",
        "1ms",
    ];
    let (text, json) = run(directory.path(), &small);
    assert!(text.contains("| breaker and retries | 100.0 %"), "{text}");
    let failed = |trouble, name| {
        variant(&json, trouble, name)["failed"]
            .as_u64()
            .expect("a number")
    };
    for trouble in ["killed", "failing"] {
        for name in ["retries", "breaker and retries", "all defaults"] {
            assert_eq!(failed(trouble, name), 0, "{trouble}, {name}: {text}");
        }
        assert!(failed(trouble, "neither") > 0, "{trouble}: {text}");
    }
    // Every third of the 35 requests since; with the breaker only as many as open it.
    assert!((10..=13).contains(&failed("failing", "neither")), "{text}");
    assert_eq!(failed("failing", "breaker"), 5, "{text}");
    let both = variant(&json, "failing", "breaker and retries");
    assert_eq!(
        (&both["requests"], &both["attempts"]),
        (&60.into(), &65.into()),
        "{text}"
    );
    assert_eq!(both["troubled_backend"]["attempts_after"], 5);
    assert!(
        both["latency_ms"]["p99"].is_number()
            && both["troubled_backend"]["last_attempt_after_ms"].is_number()
    );
}

#[test]
fn strategies_are_tried_one_by_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = [
        "strategies",
        "--strategy",
        "round-robin",
        "--strategy",
        "p2c",
        "--phase",
        "400ms",
        "--concurrency",
        "4",
        "--delay",
        "2ms",
        "--slow",
        "20ms",
    ];
    let (text, json) = run(directory.path(), &small);
    let strategies = json["strategies"].as_array().expect("strategies");
    let names: Vec<&Value> = strategies.iter().map(|strategy| &strategy["strategy"]).collect();
    assert_eq!(names, ["round-robin", "p2c"]);
    for strategy in strategies {
        assert_eq!(strategy["failed"], 0, "{text}\n{strategy}");
        let phases = strategy["phases"].as_array().expect("phases");
        assert_eq!(phases.len(), 5);
        assert!(
            phases.iter().all(|phase| phase["requests"].as_u64() > Some(0)),
            "{strategy}"
        );
        let answered = |phase: usize, backend: &str| phases[phase]["answered"][backend].as_u64().unwrap_or(0);
        assert!(
            answered(0, "killed") > 0 && answered(4, "killed") == 0,
            "{strategy}"
        );
        assert!(answered(0, "slow") > 0 && answered(4, "good-1") > 0, "{strategy}");
    }
}

/// Starts an experiment that would last for minutes, and waits until all of its processes run.
fn long(directory: &Path) -> (Child, Vec<u32>) {
    let arguments = ["strategies", "--strategy", "round-robin", "--phase", "1m"];
    let child = experiment(directory, &arguments)
        .spawn()
        .expect("the weir binary");
    // Five backends and weir, which counts requests as soon as it serves them.
    let processes = eventually("six processes", || {
        let processes = of(directory);
        let ready = fs::read_dir(directory)
            .expect("a directory")
            .flatten()
            .any(|entry| entry.path().join("weir.json").exists());
        (processes.len() == 6 && ready).then_some(processes)
    });
    (child, processes)
}

#[test]
fn a_signal_ends_everything_in_order() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut child, _) = long(directory.path());
        os::kill(child.id(), signal);
        let status = eventually("the end", || child.try_wait().expect("a child of ours"));
        assert_eq!(status.code(), Some(1));
        assert!(of(directory.path()).is_empty(), "processes are left");
        assert_eq!(directories(directory.path()), 0, "a directory is left");
    }
}

#[test]
fn an_experiment_that_is_killed_leaves_no_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut child, _) = long(directory.path());
    child.kill().expect("a child of ours");
    child.wait().expect("its end");
    eventually("the end of its processes", || {
        of(directory.path()).is_empty().then_some(())
    });
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = |arguments: &[&str], explained: &str| {
        let start = Instant::now();
        let output = Command::new(BINARY)
            .arg("experiment")
            .args(arguments)
            .output()
            .expect("run weir");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(explained), "{arguments:?}: {stderr}");
        assert!(start.elapsed() < DEADLINE);
    };
    refused(
        &["circuit-breaker", "--requests", "5", "--kill-after", "5"],
        "--kill-after",
    );
    let nowhere = directory.path().join("missing/out.md");
    let nowhere = nowhere.to_str().expect("UTF-8");
    refused(
        &["circuit-breaker", "--out", nowhere],
        "choose another with --out",
    );
    refused(&["strategies", "--strategy", "best"], "least-response");
}

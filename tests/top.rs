//! `weir top`: in a real terminal, and for scripts.

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use serde_json::Value;
use support::pty::Pty;
use support::weir::BINARY;
use support::{DEADLINE, Driver, Fickle, Load, Weir, eventually, os, skipped};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("top").args(args).env_clear();
    command
}

fn top(args: &[&str]) -> Output {
    command(args)
        .stdin(Stdio::null())
        .output()
        .expect("the weir binary")
}

fn url(weir: &Weir) -> String {
    format!("http://{}", weir.admin.as_deref().expect("admin is on"))
}

#[track_caller]
fn document(args: &[&str]) -> Value {
    let output = top(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn once_prints_one_document_that_agrees_with_the_metrics() {
    let backends = Fickle::three();
    let weir = Weir::on(Driver::Epoll)
        .fickles(&backends)
        .set("runtime.workers", 2)
        .start();
    let load = Load::on(&weir);
    let args = ["--admin", &url(&weir), "--once", "--json", "--interval", "1s"];
    let shown = document(&args);
    assert_eq!(
        (&shown["admin"], &shown["status"]),
        (&url(&weir).into(), &"ready".into())
    );
    assert_eq!(shown["strategy"], "round-robin");
    let rate = shown["requests_per_second"].as_f64().expect("a rate");
    let seconds = shown["interval_s"].as_f64().expect("an interval");
    assert!(rate > 0.0 && (1.0..5.0).contains(&seconds), "{shown}");
    let rows = shown["backends"].as_array().expect("backends");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    let expected: Vec<&str> = backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, expected);
    let sum: f64 = rows
        .iter()
        .filter_map(|row| row["requests_per_second"].as_f64())
        .sum();
    assert!((sum / rate - 1.0).abs() < 0.1, "{sum} of {rate}");
    let shares: f64 = rows.iter().filter_map(|row| row["share"].as_f64()).sum();
    assert!((shares - 1.0).abs() < 1e-6, "{shown}");
    let workers = shown["workers"].as_array().expect("workers");
    let connections: u64 = workers
        .iter()
        .filter_map(|worker| worker["connections"].as_u64())
        .sum();
    assert_eq!((workers.len(), connections), (2, 64), "{shown}");
    load.stop();

    // Nothing moves any more: what is since the start is what the metrics say.
    let metrics = eventually("all counted", || {
        let metrics = weir.metrics();
        let idle = |backend: &Value| backend["in_flight"] == 0;
        metrics["backends"]
            .as_object()?
            .values()
            .all(idle)
            .then_some(metrics)
    });
    let shown = document(&args);
    assert_eq!(shown["requests"], metrics["total_requests"]);
    assert_eq!(shown["requests_per_second"], 0.0);
    let counted: u64 = metrics["backends"]
        .as_object()
        .expect("backends")
        .values()
        .filter_map(|backend| backend["status_codes"]["200"].as_u64())
        .sum();
    assert_eq!(shown["latency_since_start"]["count"], counted);
    for row in shown["backends"].as_array().expect("backends") {
        let metrics = &metrics["backends"][row["url"].as_str().expect("a url")];
        assert_eq!(
            (&row["requests"], &row["state"]),
            (&metrics["requests"], &metrics["state"])
        );
    }
    pipe_to_jq(&args);
}

fn pipe_to_jq(args: &[&str]) {
    let output = top(args);
    let jq = Command::new("jq")
        .args([
            "-e",
            "[.requests_per_second, (.backends | length), .workers[1].connections] | length == 3",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut jq) = jq else {
        return skipped("jq");
    };
    jq.stdin
        .take()
        .expect("piped")
        .write_all(&output.stdout)
        .expect("jq reads");
    assert!(jq.wait().expect("jq ends").success());
}

#[test]
fn what_cannot_be_asked_is_told() {
    let free = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address");
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mute_url = format!("http://{}", mute.local_addr().expect("an address"));
    let free_url = format!("http://{free}");
    for (args, code, told) in [
        (
            vec!["--admin", &free_url, "--once", "--json"],
            1,
            "cannot connect",
        ),
        (
            vec!["--admin", &mute_url, "--once", "--json"],
            1,
            "no answer within 5s",
        ),
        (
            vec!["--admin", "unix:/nonexistent.sock", "--once", "--json"],
            1,
            "unix:/nonexistent.sock: cannot connect",
        ),
        (
            vec!["--admin", "https://weir", "--once", "--json"],
            2,
            "http://HOST:PORT or unix:/PATH",
        ),
        (
            vec!["--token-file", "/nonexistent", "--once", "--json"],
            2,
            "/nonexistent cannot be read",
        ),
        (
            vec!["--interval", "2h", "--once", "--json"],
            2,
            "from 100ms to 60s",
        ),
        (vec!["--once"], 2, "--json"),
        (vec![], 2, "weir top --once --json"),
    ] {
        let began = Instant::now();
        let output = top(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(told), "{told}: {stderr}");
        assert!(output.stdout.is_empty() && began.elapsed() < DEADLINE);
    }
}

#[test]
fn a_token_and_a_unix_socket_are_used() {
    let dir = tempfile::tempdir().expect("a directory");
    let (token, socket) = (dir.path().join("token"), dir.path().join("admin.sock"));
    std::fs::write(&token, "0123456789abcdef0123\n").expect("written");
    let backends = Fickle::three();
    let weir = Weir::on(Driver::Epoll)
        .fickles(&backends)
        .set("admin.address", format!("unix:{}", socket.display()))
        .set("admin.token_file", token.to_str().expect("text"))
        .start();
    let admin = weir.admin.clone().expect("admin is on");
    assert!(admin.starts_with("unix:"), "{admin}");
    let token = token.to_str().expect("text");
    let args = [
        "--admin",
        &admin,
        "--token-file",
        token,
        "--once",
        "--json",
        "--interval",
        "100ms",
    ];
    assert_eq!(document(&args)["backends"].as_array().map(Vec::len), Some(3));
    let output = top(&["--admin", &admin, "--once", "--json"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("--token-file FILE"), "{stderr}");
}

// ---- in a terminal

/// Backends whose names stand nowhere else on the screen.
fn named() -> [Fickle; 3] {
    ["first-one", "second-one", "third-one"].map(Fickle::new)
}

fn watch(weir: &Weir) -> Pty {
    Pty::start(command(&["--admin", &url(weir), "--interval", "200ms"]))
}

/// The terminal is as it was, and what was there before is shown again.
#[track_caller]
fn assert_given_back(terminal: &Pty) {
    assert_eq!(terminal.settings(), terminal.settings_before());
    terminal.wait_written("\x1b[?1049l");
    terminal.wait_written("\x1b[?25h");
}

#[test]
fn q_ends_it_and_gives_the_terminal_back() {
    let backends = named();
    let weir = Weir::on(Driver::Epoll).fickles(&backends).start();
    let mut terminal = watch(&weir);
    for backend in &backends {
        terminal.wait_for(&backend.name);
    }
    assert_ne!(
        terminal.settings(),
        terminal.settings_before(),
        "keys come one by one"
    );
    terminal.press("q");
    assert_eq!(terminal.wait_exit().code(), Some(0));
    assert_given_back(&terminal);
}

#[test]
fn who_ends_it_from_outside_gets_the_terminal_back_too() {
    let backends = named();
    let weir = Weir::on(Driver::Epoll).fickles(&backends).start();
    let mut terminal = watch(&weir);
    terminal.wait_for(&backends[0].name);
    os::kill(terminal.pid(), libc::SIGTERM);
    assert_eq!(terminal.wait_exit().code(), Some(0));
    assert_given_back(&terminal);
}

#[test]
fn a_backend_is_drained_and_put_back_by_keys() {
    let backends = named();
    let weir = Weir::on(Driver::Epoll).fickles(&backends).start();
    let name = &backends[1].name;
    let mut terminal = watch(&weir);
    terminal.wait_for(name);
    terminal.press("jd");
    terminal.wait_for(&format!("Drain {name}?"));
    terminal.wait_for("y: yes    n: no");
    assert_eq!(weir.backend(name)["state"], "up", "nothing is done without a yes");
    terminal.press("n");
    eventually("the question gone", || {
        let screen = terminal.screen();
        screen.iter().all(|line| !line.contains("y: yes")).then_some(())
    });
    assert_eq!(weir.backend(name)["state"], "up", "nothing is done after a no");
    terminal.press("dy");
    weir.wait_backend(name, "drained", |backend| backend["state"] == "draining");
    terminal.wait_for("draining");
    terminal.press("uy");
    weir.wait_backend(name, "back", |backend| backend["state"] == "up");
    assert_eq!(weir.backend(&backends[0].name)["state"], "up");
    terminal.press("\x03");
    assert_eq!(terminal.wait_exit().code(), Some(0));
    assert_given_back(&terminal);
}

#[test]
fn a_weir_that_goes_away_is_missed() {
    let backends = named();
    let mut weir = Weir::on(Driver::Epoll).fickles(&backends).start();
    let mut terminal = watch(&weir);
    terminal.wait_for(&backends[0].name);
    weir.stop();
    terminal.wait_for("cannot connect");
    terminal.press("q");
    assert_eq!(terminal.wait_exit().code(), Some(0));
}

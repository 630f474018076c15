//! `weir load` against servers that behave and servers that do not, and what it writes, read by others.

#[macro_use]
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::weir::BINARY;
use support::{Backend, Conduct, Fickle};

fn load(args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("load").args(args).stdin(Stdio::null());
    command.output().expect("the weir binary")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs with `--json` and gives the summary and the exit code.
fn summary(args: &[&str]) -> (Value, i32) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("summary.json");
    let mut all = args.to_vec();
    all.extend(["--json", file.to_str().expect("a path")]);
    let output = load(&all);
    let code = output.status.code().expect("an exit code");
    let json = fs::read(&file).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    (serde_json::from_slice(&json).expect("JSON"), code)
}

/// The same without the exit code.
fn summarised(args: &[&str]) -> Value {
    summary(args).0
}

fn errors(args: &[&str]) -> (Value, i32) {
    let (summary, code) = summary(args);
    (summary["errors_by_kind"].clone(), code)
}

#[test]
fn exactly_as_many_requests_are_sent_as_asked_for() {
    let backend = Fickle::new("one");
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let (csv, json, hdr, html) = (file("r.csv"), file("s.json"), file("h.hlog"), file("p.html"));
    let url = format!("{}/a?b=c&d", backend.url());
    let output = load(&[
        &url, "-n", "1000", "-c", "7", "-t", "2", "--csv", &csv, "--json", &json, "--hdr", &hdr, "--html",
        &html,
    ]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert_eq!(backend.requests(), 1000);
    assert!(
        said.contains("closed loop") && said.contains("statuses   200: 1000"),
        "{said}"
    );

    let summary: Value = serde_json::from_slice(&fs::read(&json).expect("a summary")).expect("JSON");
    assert_eq!(
        (&summary["requests"], &summary["errors"]),
        (&1000.into(), &0.into())
    );
    assert_eq!(summary["status_codes"]["200"], 1000);
    assert_eq!(summary["loop"], "closed");
    let ns = |key: &str| {
        summary["latency_ns"][key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}"))
    };
    let order = ["min", "p50", "p90", "p95", "p99", "p99_9", "max"];
    assert!(
        order.windows(2).all(|pair| ns(pair[0]) <= ns(pair[1])),
        "{summary}"
    );
    assert!(ns("mean") > 0 && summary["requests_per_second"].as_f64() > Some(0.0));
    jq(
        &json,
        "[.requests, .errors, .latency_ns.p99, .backends] | length == 4",
    );

    // Every id once, from 0 on: the tester's own check and a plain reading agree.
    let rows = fs::read_to_string(&csv).expect("rows");
    let mut ids: Vec<u64> = rows
        .lines()
        .skip(1)
        .map(|row| row.split(',').next().expect("an id").parse().expect("a number"))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..1000).collect::<Vec<_>>());
    let checked = load(&["check", "--csv", &csv, "--expected", "1000", "--max-p99", "10s"]);
    assert_eq!(
        (checked.status.code(), text(&checked.stdout)),
        (Some(0), "1000 requests, nothing wrong\n".to_owned())
    );
    let checked = load(&["check", "--csv", &csv, "--expected", "1001"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stdout).contains("1000 requests, expected 1001"));

    assert_eq!(recorded(Path::new(&hdr)), [("response".to_owned(), 1000)]);
    let page = fs::read_to_string(&html).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.matches("<svg").count() == 3);
    assert!(page.contains("/a?b=c&amp;d") && !page.contains("c&d"));
}

fn jq(file: &str, filter: &str) {
    match Command::new("jq").args(["-e", filter, file]).output() {
        Ok(output) => assert!(output.status.success(), "{filter}: {}", text(&output.stdout)),
        Err(_) => support::skipped("jq"),
    }
}

/// How many values each tag of an HdrHistogram log has, read by the library's own reader.
fn recorded(path: &Path) -> Vec<(String, u64)> {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let bytes = fs::read(path).expect("a log");
    let mut counts: Vec<(String, u64)> = Vec::new();
    for entry in IntervalLogIterator::new(&bytes) {
        let LogEntry::Interval(entry) = entry.expect("a line of the format") else {
            continue;
        };
        let tag = entry.tag().expect("a tag").as_str().to_owned();
        let compressed = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            entry.encoded_histogram(),
        )
        .expect("base64");
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &compressed[..])
            .expect("a histogram");
        match counts.iter_mut().find(|(known, _)| *known == tag) {
            Some((_, count)) => *count += histogram.len(),
            None => counts.push((tag, histogram.len())),
        }
    }
    counts
}

#[test]
fn targets_take_turns_and_answers_name_their_backends() {
    let backends = Fickle::three();
    let urls = backends.each_ref().map(Fickle::url);
    let [a, b, c] = urls.each_ref().map(String::as_str);
    let (summary, code) = summary(&[
        a,
        b,
        c,
        "-n",
        "300",
        "-c",
        "3",
        "--backend-from",
        "header:x-backend",
    ]);
    assert_eq!(code, 0);
    for (backend, url) in backends.iter().zip(&urls) {
        assert_eq!(backend.requests(), 100);
        let target = summary["targets"].as_array().expect("a list").iter();
        let target = target
            .clone()
            .find(|target| target["url"] == url.as_str())
            .expect("the url");
        assert_eq!((&target["requests"], &target["errors"]), (&100.into(), &0.into()));
        assert!(target["latency_ns"]["p99"].as_u64() > Some(0));
        assert_eq!(summary["backends"][&backend.name], 100, "{summary}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let backend = Fickle::new("one");
    let start = Instant::now();
    let (summary, code) = summary(&[&backend.url(), "-R", "400", "-d", "2s", "-c", "4"]);
    assert_eq!(code, 0);
    assert!(start.elapsed() >= Duration::from_millis(1900));
    let requests = summary["requests"].as_u64().expect("a number");
    assert!((780..=800).contains(&requests), "{requests}");
    assert_eq!(summary["loop"], "open");
    assert!(summary["service_time_ns"]["p99"].as_u64() > Some(0));
}

/// Answers at once, but stalls for `stall` at the end of every `every`, all connections together.
fn stalling(stall: Duration, every: Duration) -> Backend {
    let began = Instant::now();
    Backend::answering(move |_| {
        let into = Duration::from_nanos((began.elapsed().as_nanos() % every.as_nanos()) as u64);
        if into >= every - stall {
            thread::sleep(every - into);
        }
        support::ok(b"ok")
    })
}

#[test]
fn an_open_loop_shows_a_stall_and_a_closed_one_hides_it() {
    let (stall, every) = (Duration::from_millis(300), Duration::from_millis(1500));
    let backend = stalling(stall, every);
    let (open, _) = summary(&[&backend.url(), "-R", "200", "-d", "6s", "-c", "4"]);
    let ms = |summary: &Value, key: &str| summary["latency_ns"][key].as_f64().expect("a number") / 1e6;
    // One in five requests is due within a stall and waits for what is left of it, 0 to 300 ms evenly: 5 of 100 wait for
    // more than 225 ms, and 1 of 100 for more than 285 ms.
    assert!((ms(&open, "p95") - 225.0).abs() < 25.0, "{open}");
    assert!((ms(&open, "p99") - 285.0).abs() < 20.0, "{open}");
    // By service time, and in a closed loop, a handful of requests are all that there is of it.
    assert!(open["service_time_ns"]["p95"].as_f64() < Some(50e6), "{open}");
    let (closed, _) = summary(&[&backend.url(), "-d", "3s", "-c", "4"]);
    assert!(ms(&closed, "p99") < 50.0, "{closed}");
}

#[test]
fn each_kind_of_failure_is_counted_as_what_it_is() {
    let only = |kind: &str, (found, code): (Value, i32)| {
        assert_eq!(code, 1, "{kind}");
        for (name, count) in found.as_object().expect("kinds") {
            assert_eq!(count.as_u64() == Some(4), name == kind, "{kind}: {found}");
        }
    };
    let args = |url: &str| -> Vec<String> {
        [url, "-n", "4", "-c", "2", "--timeout", "300ms"]
            .map(str::to_owned)
            .to_vec()
    };
    let run = |url: &str| {
        let args = args(url);
        errors(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let gone = Fickle::new("gone");
    gone.kill();
    only("connect", run(&gone.url()));
    let silent = Fickle::new("silent");
    silent.conduct(Conduct::Hang);
    only("timeout", run(&silent.url()));
    let resetting = Fickle::new("resetting");
    resetting.conduct(Conduct::Reset);
    only("reset", run(&resetting.url()));
    let cut = Backend::sending_then_close("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    only("reset", run(&cut.url()));
    let nonsense = Backend::sending_then_close("ICY 200 OK\r\n\r\n");
    only("malformed", run(&nonsense.url()));
    let long = Backend::sending_then_close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
    only("malformed", run(&long.url()));
    let busy = Fickle::new("busy");
    busy.conduct(Conduct::Status(503));
    let url = busy.url();
    let (found, code) = errors(&[&url, "-n", "4", "--expect-status", "2xx"]);
    assert_eq!((&found["status"], code), (&4.into(), 1));
    let (found, code) = errors(&[&url, "-n", "4"]);
    assert_eq!((&found["status"], code), (&0.into(), 0));
}

#[test]
fn servers_that_close_behind_every_answer_are_asked_all_the_same() {
    let closing =
        Backend::sending_then_close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    let (summary, code) = summary(&[&closing.url(), "-n", "50", "-c", "5"]);
    assert_eq!((code, &summary["requests"]), (0, &50.into()));
    assert_eq!(closing.connections(), 50);
    // Chunked, until the close, without a body, and no keep-alive by the client.
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
    ] {
        let backend = Backend::sending(answer);
        assert_eq!(errors(&[&backend.url(), "-n", "10", "-c", "2"]).1, 0, "{answer}");
        assert_eq!(
            errors(&[&backend.url(), "-n", "10", "-c", "2", "--no-keepalive"]).1,
            0,
            "{answer}"
        );
    }
    let until_close = Backend::sending_then_close("HTTP/1.0 200 OK\r\n\r\nall of it");
    assert_eq!(
        errors(&[&until_close.url(), "-n", "5", "--http-version", "1.0"]).1,
        0
    );
}

#[test]
fn method_headers_and_body_go_out_as_given() {
    let backend = Backend::plain();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("body");
    fs::File::create(&file)
        .expect("a file")
        .write_all(b"from a file")
        .expect("written");
    let (_, code) = summary(&[
        &format!("{}/x", backend.url()),
        "-n",
        "1",
        "--method",
        "PUT",
        "-H",
        "X-A: 1",
        "-H",
        "Host: other",
        "--body-file",
        file.to_str().expect("a path"),
    ]);
    assert_eq!(code, 0);
    let request = &backend.wait_requests(1)[0];
    assert_eq!((request.method(), request.target()), ("PUT", "/x"));
    assert_eq!(
        (request.get("x-a"), request.all("host")),
        (Some("1"), vec!["other"])
    );
    assert_eq!(request.body, b"from a file");
}

#[test]
fn bad_usage_is_told() {
    for (args, said) in [
        (&["https://127.0.0.1/"][..], "https is not spoken yet"),
        (&["127.0.0.1:80"], "is no url that can be asked"),
        (
            &["http://127.0.0.1/", "--method", "get"],
            "methods are written in capitals",
        ),
        (&["http://127.0.0.1/", "-n", "0"], "0"),
        (&["http://127.0.0.1/", "--timeout", "0"], "more than nothing"),
        (
            &["http://127.0.0.1:1/", "-n", "1", "--html", "/nowhere/x.html"],
            "/nowhere/x.html cannot be written",
        ),
        (&["http://127.0.0.1/", "-H", "nonsense"], "NAME: VALUE"),
        (&["http://127.0.0.1/", "--expect-status", "2x"], "a class (2xx)"),
        (&["http://127.0.0.1/", "-R", "0"], "it must be from"),
        (
            &["http://127.0.0.1/", "-n", "1", "-d", "1s"],
            "cannot be used with",
        ),
        (&[], "<URL>"),
        (
            &["http://127.0.0.1:1/", "-n", "1", "--csv", "/nowhere/x.csv"],
            "/nowhere/x.csv cannot be written",
        ),
        (
            &["check", "--csv", "/nowhere/x.csv", "--expected", "1"],
            "/nowhere/x.csv cannot be read",
        ),
    ] {
        let output = load(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(said),
            "{args:?}: {}",
            text(&output.stderr)
        );
    }
}

/// A path in a directory, as an argument.
fn at(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("UTF-8").to_owned()
}

/// The rows of a `--csv` file, without its header.
fn rows(path: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).expect("rows");
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("id,start_ns,latency_ns,status,backend,bytes,error")
    );
    lines
        .map(|line| line.split(',').map(str::to_owned).collect())
        .collect()
}

#[test]
fn the_number_of_requests_is_exact_however_they_are_shared_out() {
    let backend = Fickle::new("one");
    let dir = tempfile::tempdir().expect("a directory");
    let csv = at(&dir, "rows.csv");
    let mut before = 0;
    for (requests, connections, workers, more) in [
        ("1", "1", "1", &[][..]),
        ("5", "8", "2", &[]),
        ("97", "3", "3", &[]),
        ("2500", "16", "2", &[]),
        ("60", "4", "2", &["-R", "300"]),
        ("40", "4", "2", &["--no-keepalive"]),
    ] {
        let url = backend.url();
        let args = [
            &url,
            "-n",
            requests,
            "-c",
            connections,
            "-t",
            workers,
            "--csv",
            &csv,
        ];
        let args = [&args[..], more].concat();
        assert_eq!(load(&args).status.code(), Some(0), "{args:?}");
        let expected: u64 = requests.parse().expect("a number");
        assert_eq!(backend.requests() - before, expected, "{args:?}");
        before += expected;
        let mut ids: Vec<u64> = rows(&csv)
            .iter()
            .map(|row| row[0].parse().expect("an id"))
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..expected).collect::<Vec<_>>(), "{args:?}");
    }
}

#[test]
fn what_was_due_and_not_sent_is_said() {
    let silent = Fickle::new("silent");
    silent.conduct(Conduct::Hang);
    let url = silent.url();
    let args = [&url, "-R", "100", "-d", "1s", "-c", "2", "--timeout", "300ms"];
    let found = summarised(&args);
    let number = |key: &str| found[key].as_u64().unwrap_or_else(|| panic!("{key}: {found}"));
    // A connection that waits for an answer sends nothing, and says so: every request that was due is one or the other.
    assert_eq!(number("requests") + number("unsent"), 100, "{found}");
    assert!((2..=10).contains(&number("requests")), "{found}");
    assert_eq!(found["errors_by_kind"]["timeout"], found["requests"]);
    let said = text(&load(&args).stdout);
    assert!(
        said.contains("unsent") && said.contains("the rate was not kept"),
        "{said}"
    );
    // Where the server keeps up there is nothing to say.
    let quick = Fickle::new("quick");
    let found = summarised(&[&quick.url(), "-R", "200", "-d", "1s", "-c", "4"]);
    assert_eq!((&found["requests"], &found["unsent"]), (&200.into(), &0.into()));
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_and_counted() {
    // Two answers, then a close that nobody announced.
    let backend = Backend::new(|conn| {
        for _ in 0..2 {
            conn.read_request()?;
            conn.try_send(support::ok(b"ok"))?;
        }
        Ok(())
    });
    let (found, code) = summary(&[&backend.url(), "-n", "20", "-c", "1"]);
    assert_eq!(
        (code, &found["requests"], &found["errors"]),
        (0, &20.into(), &0.into())
    );
    assert_eq!(found["reconnects"], 9, "{found}");
    assert_eq!(backend.requests().len(), 20);
    // What a second POST would do is not for the tester to guess.
    let (found, code) = summary(&[&backend.url(), "-n", "20", "-c", "1", "--method", "POST"]);
    assert_eq!((code, &found["reconnects"]), (1, &0.into()));
    let resets = found["errors_by_kind"]["reset"].as_u64().expect("a number");
    assert!((6..=7).contains(&resets), "{found}");
}

#[test]
fn hostile_servers_end_at_the_time_out_at_the_latest() {
    let limit = Duration::from_millis(400);
    let trickle = |piece: &'static [u8]| {
        Backend::new(move |conn| {
            conn.read_request()?;
            loop {
                conn.try_send(piece)?;
                thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let endless_fields = trickle(b"HTTP/1.1 200 OK\r\n");
    let short = Backend::sending("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    let endless_interim = trickle(b"HTTP/1.1 100 Continue\r\n\r\n");
    let trickled_body = Backend::new(|conn| {
        conn.read_request()?;
        conn.try_send("HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            conn.try_send("x")?;
            thread::sleep(Duration::from_millis(5));
        }
    });
    let extra = Backend::sending("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmore than two");
    let huge_head = Backend::sending(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000)));
    let two_lengths = Backend::sending("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
    let tunnel = Backend::sending("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    let binary = Backend::sending([0u8; 300]);
    for (server, kind) in [
        (&endless_fields, "malformed"),
        (&short, "timeout"),
        (&endless_interim, "timeout"),
        (&trickled_body, "timeout"),
        (&extra, "malformed"),
        (&huge_head, "malformed"),
        (&two_lengths, "malformed"),
        (&tunnel, "malformed"),
        (&binary, "malformed"),
    ] {
        let start = Instant::now();
        let (found, code) = errors(&[&server.url(), "-n", "2", "-c", "2", "--timeout", "400ms"]);
        assert_eq!((code, &found[kind]), (1, &2.into()), "{kind}: {found}");
        assert!(start.elapsed() < limit + Duration::from_secs(3), "{kind}");
    }
}

#[test]
fn a_body_s_member_and_a_hostile_name_are_told_and_escaped() {
    let json = Backend::sending(json_in_chunks());
    let found = summarised(&[&json.url(), "-n", "6", "--backend-from", "json:name"]);
    assert_eq!(found["backends"]["b-1"], 6, "{found}");
    // A name that would be markup, a second field, and a second row.
    let name = "<script>alert(1)</script>,\"x\"";
    let hostile = Backend::sending(format!(
        "HTTP/1.1 200 OK\r\nX-Backend: {name}\r\nContent-Length: 0\r\n\r\n"
    ));
    let dir = tempfile::tempdir().expect("a directory");
    let (csv, html) = (at(&dir, "rows.csv"), at(&dir, "page.html"));
    let output = load(&[&hostile.url(), "-n", "4", "--csv", &csv, "--html", &html]);
    assert_eq!(output.status.code(), Some(0));
    let page = fs::read_to_string(&html).expect("a page");
    assert!(
        page.contains("&lt;script&gt;alert(1)") && !page.contains("<script"),
        "{page}"
    );
    let checked = load(&["check", "--csv", &csv, "--expected", "4", "--backends", "b"]);
    let said = text(&checked.stdout);
    assert!(
        said.contains(name) && said.contains("backend b answered nothing"),
        "{said}"
    );
}

fn json_in_chunks() -> Vec<u8> {
    let body = "{\"name\":\"b-1\"}";
    format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &body[..3],
        body.len() - 3,
        &body[3..]
    )
    .into_bytes()
}

#[test]
fn a_log_of_an_open_loop_has_both_times_of_every_answer() {
    let backend = Fickle::new("one");
    let dir = tempfile::tempdir().expect("a directory");
    let (hdr, json) = (at(&dir, "h.hlog"), at(&dir, "s.json"));
    let url = backend.url();
    let output = load(&[
        &url, "-R", "150", "-d", "2500ms", "-c", "3", "-t", "2", "--hdr", &hdr, "--json", &json,
    ]);
    assert_eq!(output.status.code(), Some(0));
    // Nobody looks at a live line that is not on a terminal.
    assert_eq!(text(&output.stderr), "");
    assert_eq!(backend.requests(), 375);
    assert_eq!(
        recorded(Path::new(&hdr)),
        [("response".to_owned(), 375), ("service".to_owned(), 375)]
    );
    let log = fs::read_to_string(&hdr).expect("a log");
    let lines = |tag: &str| log.lines().filter(|line| line.starts_with(tag)).count();
    assert!((3..=4).contains(&lines("Tag=response")), "{log}");
    // Seconds are seconds: what is counted in one is what was asked in it.
    let starts: Vec<f64> = log
        .lines()
        .filter_map(|line| line.strip_prefix("Tag=response,"))
        .map(|line| {
            line.split(',')
                .next()
                .expect("a start")
                .parse()
                .expect("a number")
        })
        .collect();
    for (second, start) in starts.iter().enumerate() {
        assert!((start - second as f64).abs() < 0.25, "{starts:?}");
    }
}

#[test]
fn a_signal_ends_a_run_and_its_report_is_written() {
    let backend = Fickle::new("one");
    let dir = tempfile::tempdir().expect("a directory");
    let json = at(&dir, "s.json");
    let mut child = Command::new(BINARY)
        .args(["load", &backend.url(), "-d", "1h", "-c", "2", "--json", &json])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the weir binary");
    backend.wait_requests(10);
    // In flight when it is told to stop, and never answered: it does not wait for the time-out.
    backend.conduct(Conduct::Hang);
    let start = Instant::now();
    support::os::kill(child.id(), libc::SIGTERM);
    let code = child.wait().expect("it ends").code();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(code, Some(0));
    let found: Value = serde_json::from_slice(&fs::read(&json).expect("a summary")).expect("JSON");
    assert_eq!(found["stopped"], true);
    assert!(found["requests"].as_u64() >= Some(9), "{found}");
    let took = Duration::from_nanos(found["duration_ns"].as_u64().expect("a number"));
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_terminal_gets_a_live_line_and_quiet_takes_it_away() {
    let backend = Fickle::new("one");
    let run = |more: &str| {
        let command = format!("{BINARY} load {} -R 50 -d 2s -c 2 {more}", backend.url());
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null());
        script.output()
    };
    let Ok(shown) = run("") else {
        return support::skipped("bsdutils");
    };
    let shown = text(&shown.stdout);
    assert!(
        shown.contains("requests/s | p50") && shown.contains("0 errors"),
        "{shown}"
    );
    let quiet = text(&run("--quiet").expect("it ran before").stdout);
    assert!(
        !quiet.contains("requests/s | p50") && quiet.contains("open loop"),
        "{quiet}"
    );
}

#[test]
fn a_unix_socket_and_one_url_twice_are_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s.sock");
    let backend = Backend::on_unix(&path, |conn| conn.serve(|_| support::ok(b"ok")));
    let found = summarised(&[&backend.url(), &backend.url(), "-n", "10", "-c", "2"]);
    assert_eq!((&found["requests"], &found["errors"]), (&10.into(), &0.into()));
    let targets = found["targets"].as_array().expect("a list");
    let counts: Vec<_> = targets.iter().map(|target| &target["requests"]).collect();
    assert_eq!(counts, [5, 5]);
}

#[test]
fn a_page_is_shown_by_a_browser_without_complaint() {
    let backend = Fickle::new("one");
    let dir = tempfile::tempdir().expect("a directory");
    let html = at(&dir, "page.html");
    let run = load(&[
        &backend.url(),
        "-R",
        "100",
        "-d",
        "3s",
        "-c",
        "2",
        "--html",
        &html,
    ]);
    assert_eq!(run.status.code(), Some(0));
    let Some(mut browser) = support::Browser::start() else {
        return;
    };
    browser.open(&format!("file://{html}"));
    browser.wait("document.querySelectorAll('svg polyline').length >= 6");
    assert_eq!(browser.value("document.querySelectorAll('figure').length"), 3);
    assert_eq!(
        browser.value("performance.getEntriesByType('resource').length"),
        0,
        "it needs nothing else"
    );
    assert!(browser.errors.is_empty(), "{:?}", browser.errors);
}

#[test]
fn scripts_ask_and_judge() {
    let backend = Fickle::new("one");
    let dir = tempfile::tempdir().expect("a directory");
    let results = at(&dir, "results");
    let script = |name: &str, args: &[&str]| {
        let mut command = Command::new(format!("{}/scripts/{name}", env!("CARGO_MANIFEST_DIR")));
        command.args(args).env("WEIR", BINARY).stdin(Stdio::null());
        command.output().expect("a script")
    };
    let url = backend.url();
    let asked = script("loadtest", &[&url, "200", "4", &results]);
    assert_eq!(asked.status.code(), Some(0), "{}", text(&asked.stderr));
    let judged = script("check_results", &[&results, "200"]);
    assert_eq!(judged.status.code(), Some(0), "{}", text(&judged.stdout));
    let judged = script("check_results", &[&results, "201"]);
    assert_eq!(judged.status.code(), Some(1));
    // The demo, on ports of the kernel's choice, started and ended by the script.
    let asked = script("loadtest", &["--demo", "0", "300", "6", &results]);
    assert_eq!(
        asked.status.code(),
        Some(0),
        "{}{}",
        text(&asked.stdout),
        text(&asked.stderr)
    );
    let judged = script("check_results", &[&results, "300", "--max-p99", "5s"]);
    assert_eq!(judged.status.code(), Some(0), "{}", text(&judged.stdout));
    assert!(text(&asked.stdout).contains("demo-3"), "{}", text(&asked.stdout));
}

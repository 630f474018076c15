//! The access log, read as its readers do: by `jq`, by a parser of the common format, from a file, a socket and a journal.

#[macro_use]
mod support;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::weir::Setup;
use support::{Backend, Conduct, DEADLINE, Driver, Fickle, Load, Weir, eventually};

on_both_drivers!(
    a_line_says_what_happened,
    a_retry_shows_its_tries,
    who_ended_it_and_when_is_said,
    strangers_cannot_forge_lines,
);

/// A weir that logs to a file, and the file.
fn logging(driver: Driver, format: &str) -> Setup {
    Weir::on(driver)
        .set("access_log.output", "./access.log")
        .set("access_log.format", format)
}

fn file(weir: &Weir) -> PathBuf {
    weir.dir().join("access.log")
}

/// The first `count` lines, once they are there.
fn lines(weir: &Weir, count: usize) -> Vec<String> {
    let path = file(weir);
    eventually("lines in the access log", || {
        let text = fs::read_to_string(&path).ok()?;
        let whole = text
            .ends_with('\n')
            .then(|| text.lines().map(str::to_owned).collect::<Vec<_>>())?;
        (whole.len() >= count).then_some(whole)
    })
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn a_line_says_what_happened(driver: Driver) {
    let backend = Backend::plain();
    let weir = logging(driver, "json")
        .named("one", &backend.url())
        .set("access_log.headers", vec!["accept", "cookie"])
        .start();
    let mut client = weir.client();
    client.send(
        "POST /a?x=1&token=S3CRET HTTP/1.1\r\nHost: app.example\r\nUser-Agent: test/1 \"quoted\"\r\nReferer: http://r/\r\n\
         Accept: */*\r\nCookie: s=S3CRET\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
         Content-Length: 5\r\n\r\nhello",
    );
    let response = client.response("POST");
    assert_eq!(response.status(), 200);
    let line = &lines(&weir, 1)[0];
    assert!(!line.contains("S3CRET"), "{line}");
    let entry = json(line);
    for (key, value) in [
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "app.example"),
        ("target", "/a?x=1&token=[redacted]"),
        ("protocol", "HTTP/1.1"),
        ("backend", "one"),
        ("termination", "--"),
        ("user_agent", "test/1 \"quoted\""),
        ("referer", "http://r/"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
    ] {
        assert_eq!(entry[key], value, "{key}: {line}");
    }
    assert_eq!(entry["status"], 200);
    assert_eq!(entry["attempts"], 1);
    assert_eq!(entry["body_bytes"], response.body.len());
    assert!(entry["bytes_in"].as_u64() > Some(200), "{line}");
    assert_eq!(entry["headers"][0]["value"], "*/*");
    assert_eq!(entry["headers"][1]["value"], "[redacted]");
    let id = backend.wait_requests(1)[0].get("x-request-id").map(str::to_owned);
    assert_eq!(entry["request_id"].as_str(), id.as_deref());
    for absent in ["reason", "ended_by", "queue_us", "tries"] {
        assert_eq!(entry[absent], Value::Null, "{absent}: {line}");
    }
    let us = |key: &str| entry[key].as_u64().unwrap_or_else(|| panic!("{key}: {line}"));
    assert!(us("total_us") >= us("first_byte_us") && us("first_byte_us") >= us("connect_us"));
    assert!(
        us("total_us") >= us("connect_us") + us("backend_us") + us("weir_us") - 3,
        "{line}"
    );
    let time = entry["time"].as_str().unwrap_or_default();
    assert!(
        time.len() == 27 && time.ends_with('Z') && time.starts_with("20"),
        "{time}"
    );
}

fn a_retry_shows_its_tries(driver: Driver) {
    let good = Fickle::new("good");
    let bad = Fickle::new("bad");
    bad.conduct(Conduct::Status(503));
    let weir = logging(driver, "json")
        .fickles([&bad, &good])
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .start();
    for _ in 0..2 {
        assert_eq!(weir.client().get("/").status(), 200);
    }
    let entries: Vec<Value> = lines(&weir, 2).iter().map(|line| json(line)).collect();
    let retried = entries
        .iter()
        .find(|entry| entry["attempts"] == 2)
        .expect("a retry");
    assert_eq!(retried["backend"], "good");
    let tries = retried["tries"].as_array().expect("tries");
    assert_eq!(
        (&tries[0]["backend"], &tries[0]["outcome"]),
        (&"bad".into(), &"503".into())
    );
    assert_eq!(
        (&tries[1]["kind"], &tries[1]["outcome"]),
        (&"retry".into(), &"200".into())
    );
    assert!(tries[1]["began_us"].as_u64() >= tries[0]["took_us"].as_u64());
}

fn who_ended_it_and_when_is_said(driver: Driver) {
    let silent = Fickle::new("silent");
    silent.conduct(Conduct::Hang);
    let weir = logging(driver, "{status} {reason} {termination} {ended_by} {target}")
        .fickle(&silent)
        .set("timeouts.response_head", "300ms")
        .set("timeouts.request_head", "300ms")
        .set("health_check.type", "off")
        .set("retry.max_retries", 0)
        .start();
    assert_eq!(weir.client().get("/slow").status(), 504);
    weir.client().send("nonsense\r\n\r\n");
    let mut partial = weir.client();
    partial.send("GET /half HTTP/1.1\r\n");
    assert_eq!(partial.response("GET").status(), 408);
    let mut found = lines(&weir, 3);
    found.sort();
    assert_eq!(
        found,
        [
            "400 bad_request PR weir -",
            "408 head_timeout cR client -",
            "504 backend_timeout sH backend /slow",
        ]
    );
}

fn strangers_cannot_forge_lines(driver: Driver) {
    let backend = Backend::plain();
    let weir = logging(driver, "combined").backend(&backend).start();
    let mut client = weir.client();
    client.send(
        b"GET /%0a%22?q=\xc3\xa4 HTTP/1.1\r\nHost: t\r\nUser-Agent: a\" 200 0 \"b\\\t\xff\r\nReferer: \x80\r\n\r\n",
    );
    let status = client.response("GET").status();
    client.get("/plain");
    let found = lines(&weir, 1);
    for line in &found {
        let quotes = line.matches('"').count();
        assert_eq!(quotes, 6, "{line}");
        assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line}");
    }
    assert!(status == 200 || status == 400);
}

#[test]
fn common_lines_are_common() {
    let backend = Backend::plain();
    let weir = logging(Driver::Epoll, "common").backend(&backend).start();
    assert_eq!(weir.client().get("/a?key=1").body, b"/a?key=1");
    let line = &lines(&weir, 1)[0];
    // 127.0.0.1 - - [25/Nov/2026:06:00:00 +0000] "GET /a?key=[redacted] HTTP/1.1" 200 8
    let (head, rest) = line.split_once(" [").expect("a date");
    let (date, rest) = rest.split_once("] \"").expect("a request");
    let (request, rest) = rest.split_once("\" ").expect("a status");
    assert_eq!(head, "127.0.0.1 - -");
    assert!(date.ends_with(" +0000") && date.len() == 26, "{date}");
    assert_eq!(request, "GET /a?key=[redacted] HTTP/1.1");
    assert_eq!(rest, "200 8");
}

#[test]
fn jq_reads_every_line() {
    let backend = Backend::plain();
    let weir = logging(Driver::Epoll, "json").backend(&backend).start();
    for target in ["/", "/a?b=%22", "/c\"d"] {
        let mut client = weir.client();
        client.send(
            format!("GET {target} HTTP/1.1\r\nHost: t\r\nUser-Agent: \\ \" \u{7f}é\r\n\r\n").as_bytes(),
        );
        client.response("GET");
    }
    let text = lines(&weir, 3).join("\n");
    let Ok(mut jq) = Command::new("jq")
        .args(["-e", "-c", ".status, .time"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    else {
        return support::skipped("jq");
    };
    jq.stdin
        .take()
        .expect("piped")
        .write_all(text.as_bytes())
        .expect("jq reads");
    let output = jq.wait_with_output().expect("jq ends");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 6);
}

#[test]
fn only_errors_or_only_the_slow_or_a_sample() {
    let mixed = Fickle::new("mixed");
    let weir = logging(Driver::Epoll, "{status} {target}")
        .fickle(&mixed)
        .set("access_log.only", "errors")
        .set("retry.max_retries", 0)
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .start();
    assert_eq!(weir.client().get("/good").status(), 200);
    mixed.conduct(Conduct::Status(500));
    assert_eq!(weir.client().get("/bad").status(), 500);
    assert_eq!(lines(&weir, 1), ["500 /bad"]);

    let slow = Fickle::new("slow");
    let weir = logging(Driver::Epoll, "{target}")
        .fickle(&slow)
        .set("access_log.only", "slow")
        .set("access_log.slow", "100ms")
        .start();
    assert_eq!(weir.client().get("/fast").status(), 200);
    slow.conduct(Conduct::After(Duration::from_millis(150)));
    assert_eq!(weir.client().get("/slow").status(), 200);
    assert_eq!(lines(&weir, 1), ["/slow"]);

    let backend = Backend::plain();
    let mut weir = logging(Driver::Epoll, "{target}")
        .backend(&backend)
        .set("access_log.sample", 30)
        .start();
    let mut client = weir.client();
    for _ in 0..1000 {
        assert_eq!(client.get("/").status(), 200);
    }
    drop(client);
    weir.stop();
    let count = fs::read_to_string(file(&weir)).expect("the log").lines().count();
    assert!((200..400).contains(&count), "{count} of 1000");
}

#[test]
fn a_moved_file_is_opened_again_and_no_line_is_lost() {
    let backends = Fickle::three();
    let mut weir = logging(Driver::Epoll, "{status} {target}")
        .fickles(&backends)
        .start();
    let load = Load::on(&weir);
    load.wait_answered(200);
    let path = file(&weir);
    let moved = weir.dir().join("access.log.1");
    fs::rename(&path, &moved).expect("the log can be moved");
    weir.signal(libc::SIGUSR1);
    weir.wait_log("access log opened again");
    let answered = load.answered();
    load.wait_answered(answered + 200);
    let report = load.stop();
    report.assert_none_failed();
    let total = report.len();
    weir.stop();
    let [old, new] = [&moved, &path].map(|path| fs::read_to_string(path).expect("a log"));
    let ours = |text: &str| text.lines().filter(|line| line.starts_with("200 ")).count();
    assert!(
        ours(&old) >= 200 && ours(&new) >= 100,
        "{} and {}",
        ours(&old),
        ours(&new)
    );
    assert_eq!(ours(&old) + ours(&new), total);
}

#[test]
fn an_output_that_takes_nothing_slows_nobody_and_is_counted() {
    let backend = Backend::plain();
    let weir = logging(Driver::Epoll, "json")
        .set("access_log.output", "/dev/full")
        .backend(&backend)
        .start();
    for _ in 0..50 {
        assert_eq!(weir.client().get("/").status(), 200);
    }
    weir.wait_log("access log lines could not be written");
    eventually("drops in the metrics", || {
        let metrics = weir.admin_do("GET", "/metrics", "");
        (metrics["weir"]["access_log_lines_dropped"].as_u64()? >= 50).then_some(())
    });
}

#[test]
fn a_bad_output_is_told_at_start() {
    let mut weir = Weir::on(Driver::Epoll)
        .set("access_log.output", "/nowhere/access.log")
        .backend_url("http://127.0.0.1:9")
        .spawn();
    assert_eq!(weir.wait_exit(DEADLINE).code, Some(2));
    weir.wait_log("access_log.output: /nowhere/access.log cannot be opened");
}

#[test]
fn syslog_gets_rfc_5424_and_journald_fields() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let receive = || {
        let mut datagram = vec![0; 65_536];
        let length = socket.recv(&mut datagram).expect("a line");
        String::from_utf8(datagram[..length].to_vec()).expect("text")
    };
    let backend = Backend::plain();
    let start = |output: &str| {
        logging(Driver::Epoll, "{status} {target}")
            .set("access_log.output", output)
            .set("access_log.socket", path.to_str().expect("a path"))
            .named("one", &backend.url())
            .start()
    };
    let weir = start("syslog");
    assert_eq!(weir.client().get("/a").status(), 200);
    let line = receive();
    let parts: Vec<&str> = line.splitn(8, ' ').collect();
    assert_eq!((parts[0], parts[3]), ("<134>1", "weir"), "{line}");
    assert_eq!(parts[5..], ["-", "-", "200 /a"], "{line}");
    drop(weir);

    let weir = start("journald");
    assert_eq!(weir.client().get("/b").status(), 200);
    let entry = receive();
    let fields: Vec<&str> = entry.lines().collect();
    for field in [
        "MESSAGE=200 /b",
        "PRIORITY=6",
        "SYSLOG_IDENTIFIER=weir",
        "WEIR_STATUS=200",
        "WEIR_BACKEND=one",
        "WEIR_TERMINATION=--",
    ] {
        assert!(fields.contains(&field), "{field} in {entry}");
    }
}

#[test]
fn a_reload_changes_the_format_and_names_what_needs_a_restart() {
    let backend = Backend::plain();
    let mut weir = logging(Driver::Epoll, "old {target}").backend(&backend).start();
    assert_eq!(weir.client().get("/1").status(), 200);
    assert_eq!(lines(&weir, 1), ["old /1"]);
    let set = |weir: &mut Weir, key: &str, value: &str| {
        weir.rewrite(|table| {
            table["access_log"][key] = value.into();
        });
        weir.reload()
    };
    set(&mut weir, "format", "new {target}");
    assert_eq!(weir.client().get("/2").status(), 200);
    assert_eq!(lines(&weir, 2), ["old /1", "new /2"]);
    let answer = set(&mut weir, "output", "./other.log");
    assert!(String::from_utf8_lossy(&answer.body).contains("access_log.output"));
    assert_eq!(weir.client().get("/3").status(), 200);
    assert_eq!(lines(&weir, 3)[2], "new /3");
}

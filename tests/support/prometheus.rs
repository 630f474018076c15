//! What reads metrics in earnest: Prometheus' own programs, and the official types of its formats.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::weir::Weir;
use super::{eventually, os, skipped};

/// Gives `input` to a program and expects it to succeed; what it said, or none: it is not there.
pub fn consume(package: &str, program: &str, args: &[&str], input: &[u8]) -> Option<String> {
    run(package, Command::new(program).args(args), input)
}

/// What the parser of Prometheus' Python client, which is strict, makes of OpenMetrics.
pub fn openmetrics(input: &[u8]) -> Option<Value> {
    // Debian's own, whatever else is called python3 here.
    let python = "/usr/bin/python3";
    let known = Command::new(python)
        .args(["-c", "import prometheus_client"])
        .stderr(Stdio::null())
        .status();
    if !known.is_ok_and(|status| status.success()) {
        skipped("python3-prometheus-client");
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers/openmetrics.py");
    let said = run(
        "python3-prometheus-client",
        Command::new(python).arg(script),
        input,
    )?;
    Some(serde_json::from_str(&said).expect("JSON"))
}

/// What the official Go types hold after they have read the protobuf format.
pub fn protobuf(input: &[u8]) -> Option<Value> {
    let types = "/usr/share/gocode";
    let package = "golang-github-prometheus-client-model-dev";
    if !Path::new(types)
        .join("src/github.com/prometheus/client_model")
        .exists()
    {
        skipped(package);
        return None;
    }
    let mut command = Command::new("go");
    command
        .arg("run")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/consumers/protobuf.go"
        ))
        .env("GO111MODULE", "off")
        .env("GOPATH", types)
        .env("GOCACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/go"));
    let said = run("golang-go", &mut command, input)?;
    Some(serde_json::from_str(&said).expect("JSON"))
}

fn run(package: &str, command: &mut Command, input: &[u8]) -> Option<String> {
    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        skipped(package);
        return None;
    };
    let mut stdin = child.stdin.take().expect("piped");
    let output = thread::scope(|scope| {
        // A program that gives up early says why on its other end.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("the program ends")
    });
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}{complaint}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(complaint, "", "{command:?} has something to say");
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// A Prometheus that scrapes one weir four times a second; ended when dropped.
pub struct Prometheus {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Scrapes `paths` of the admin address, as the job of the same name, and knows `features`. None: it is not there.
    pub fn scraping(weir: &Weir, paths: &[&str], features: &[&str]) -> Option<Prometheus> {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("prometheus.yml");
        let target = weir.admin.as_deref().expect("admin is on");
        let mut text =
            "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\nscrape_configs:\n".to_owned();
        for path in paths {
            text += &format!(
                "- {{job_name: '{path}', metrics_path: '{path}', static_configs: [{{targets: ['{target}']}}]}}\n"
            );
        }
        fs::write(&config, text).expect("a configuration");
        // It cannot tell which port it got, so it is given one that was free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--enable-feature={}", features.join(",")))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        os::fence(&mut command, None);
        let Ok(child) = command.spawn() else {
            skipped("prometheus");
            return None;
        };
        Some(Prometheus {
            child,
            address,
            _dir: dir,
        })
    }

    /// The data of an answer of its API; none while it does not answer yet.
    pub fn api(&self, target: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let host = &self.address;
        write!(stream, "GET {target} HTTP/1.0\r\nHost: {host}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let mut body: Value = serde_json::from_str(body).ok()?;
        assert_eq!(body["status"], "success", "{target}: {body}");
        Some(body["data"].take())
    }

    /// The result of a query, once the server answers.
    pub fn query(&self, query: &str) -> Option<Vec<Value>> {
        let data = self.api(&format!("/api/v1/query?query={}", encoded(query)))?;
        data["result"].as_array().cloned()
    }

    /// Waits until a query gives something.
    pub fn wait(&self, query: &str) -> Vec<Value> {
        eventually(&format!("a result of {query}"), || {
            self.query(query).filter(|result| !result.is_empty())
        })
    }

    /// The one number of a query, as soon as it gives one.
    pub fn number(&self, query: &str) -> f64 {
        number(&self.wait(query))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first number of a result.
pub fn number(result: &[Value]) -> f64 {
    let text = result[0]["value"][1].as_str().expect("a number");
    text.parse().expect("a number")
}

pub fn encoded(query: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    query.bytes().map(encode).collect()
}

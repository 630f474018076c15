//! The programs that people really use, through weir to `weir backend`.

#[macro_use]
mod support;

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sha2::{Digest, Sha256};
use support::weir::BINARY;
use support::{Browser, Driver, Weir, eventually, noise, os, skipped};
use tungstenite::Message;

on_both_drivers!(
    curl_speaks_through_weir,
    curl_streams_ten_mebibytes_both_ways,
    wrk_sees_no_error,
    h2load_sees_no_error,
    hey_sees_no_error,
    a_websocket_client_echoes,
    a_browsers_websocket_echoes,
);

/// A `weir backend`, killed when dropped.
struct Demo {
    child: Child,
    url: String,
}

impl Demo {
    fn start(dir: &Path) -> Demo {
        let ready = dir.join("backend.json");
        let mut command = Command::new(BINARY);
        command
            .args(["backend", "--port", "0", "--name", "demo", "--ready-file"])
            .arg(&ready);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        os::fence(&mut command, None);
        let child = command.spawn().expect("the weir binary");
        let ready: serde_json::Value = eventually("the backend's ready file", || {
            fs::read(&ready)
                .ok()
                .map(|bytes| serde_json::from_slice(&bytes).expect("JSON"))
        });
        let address = ready["address"]
            .as_str()
            .or(ready["listeners"][0].as_str())
            .expect("an address")
            .to_owned();
        Demo {
            child,
            url: format!("http://{address}"),
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory, a backend and a weir before it; gone in the order of the fields.
struct Stage {
    weir: Weir,
    _demo: Demo,
    dir: tempfile::TempDir,
}

impl Stage {
    fn set(driver: Driver) -> Stage {
        let dir = tempfile::tempdir().expect("a directory");
        let demo = Demo::start(dir.path());
        let weir = Weir::on(driver)
            .backend_url(&demo.url)
            .set("runtime.workers", 2)
            .start();
        Stage {
            weir,
            _demo: demo,
            dir,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.weir.address())
    }
}

/// Runs a tool and gives its standard output; none if it is not installed.
fn run(package: &str, program: &str, args: &[&str]) -> Option<Vec<u8>> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{program} {args:?}: {} {said}",
                output.status
            );
            Some(output.stdout)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            skipped(package);
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

fn curl_speaks_through_weir(driver: Driver) {
    let stage = Stage::set(driver);
    let curl = |args: &[&str]| run("curl", "curl", &[&["-sS", "--max-time", "20"], args].concat());
    let Some(answer) = curl(&[&stage.url("/hello?a=b")]) else {
        return;
    };
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("the backend answers JSON");
    assert_eq!(
        (&answer["name"], &answer["method"]),
        (&"demo".into(), &"GET".into()),
        "{answer}"
    );
    let head = String::from_utf8(curl(&["-I", &stage.url("/")]).unwrap()).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && head.to_ascii_lowercase().contains("x-backend: demo"),
        "{head}"
    );
    let status = curl(&[
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{num_connects}",
        "-X",
        "POST",
        "-d",
        "{}",
        &stage.url("/create-course"),
    ]);
    assert_eq!(status.unwrap(), b"201 1");
    let reused = curl(&[
        "-w",
        "%{num_connects}",
        "-o",
        "/dev/null",
        &stage.url("/"),
        "-o",
        "/dev/null",
        &stage.url("/"),
    ]);
    assert_eq!(reused.unwrap(), b"10", "one connection for both");
    assert_eq!(curl(&["-0", &stage.url("/bytes/5")]).unwrap().len(), 5);
    assert_eq!(
        curl(&["-0", &stage.url("/chunked/5000")]).unwrap().len(),
        5000,
        "de-chunked for HTTP/1.0"
    );
    assert_eq!(curl(&[&stage.url("/chunked/5000")]).unwrap().len(), 5000);
    let events = curl(&[&stage.url("/sse?count=3&interval=20")]).unwrap();
    assert_eq!(String::from_utf8_lossy(&events).matches("data:").count(), 3);
}

fn curl_streams_ten_mebibytes_both_ways(driver: Driver) {
    let stage = Stage::set(driver);
    let body = noise(1, 10 << 20);
    let want = Sha256::digest(&body);
    let file = stage.dir.path().join("body");
    fs::write(&file, &body).unwrap();
    let upload = format!("@{}", file.display());
    for headers in [
        &["-H", "Expect:"][..],
        &["-H", "Expect: 100-continue"],
        &["-H", "Transfer-Encoding: chunked", "-H", "Expect:"],
        &["-T", file.to_str().unwrap(), "-H", "Transfer-Encoding: chunked"],
    ] {
        let url = stage.url("/echo");
        let mut args = vec!["-sS", "--max-time", "30", "-X", "POST"];
        args.extend_from_slice(headers);
        if !headers.contains(&"-T") {
            args.extend_from_slice(&["--data-binary", &upload]);
        }
        args.push(&url);
        let Some(echoed) = run("curl", "curl", &args) else {
            return;
        };
        assert_eq!(echoed.len(), body.len(), "{headers:?}");
        assert_eq!(Sha256::digest(&echoed), want, "{headers:?}");
    }
}

fn wrk_sees_no_error(driver: Driver) {
    let stage = Stage::set(driver);
    for path in ["/bytes/128", "/chunked/20000"] {
        let Some(said) = run("wrk", "wrk", &["-t1", "-c32", "-d1s", &stage.url(path)]) else {
            return;
        };
        let said = String::from_utf8_lossy(&said);
        assert!(
            said.contains("requests in") && !said.contains("Socket errors") && !said.contains("Non-2xx"),
            "{said}"
        );
    }
}

fn h2load_sees_no_error(driver: Driver) {
    let stage = Stage::set(driver);
    let url = stage.url("/bytes/1000");
    let Some(said) = run(
        "nghttp2-client",
        "h2load",
        &["--h1", "-n2000", "-c20", "-t1", &url],
    ) else {
        return;
    };
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{said}"
    );
}

fn hey_sees_no_error(driver: Driver) {
    let stage = Stage::set(driver);
    let url = stage.url("/echo");
    let Some(said) = run(
        "hey",
        "hey",
        &["-n", "2000", "-c", "20", "-m", "POST", "-d", "hello", &url],
    ) else {
        return;
    };
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("[200]\t2000 responses") && !said.contains("Error distribution"),
        "{said}"
    );
}

fn a_websocket_client_echoes(driver: Driver) {
    let stage = Stage::set(driver);
    let stream = TcpStream::connect(stage.weir.address()).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let url = format!("ws://{}/ws", stage.weir.address());
    let (mut socket, response) = tungstenite::client(url.as_str(), stream).expect("a handshake");
    assert_eq!(response.status(), 101);
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let message = Message::binary(noise(size as u64, size));
        socket.send(message.clone()).unwrap();
        assert!(socket.read().unwrap() == message, "{size} bytes");
    }
    let text = Message::text("grüße");
    socket.send(text.clone()).unwrap();
    assert_eq!(socket.read().unwrap(), text);
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    assert!(!socket.can_read(), "the close was answered");
}

/// A page that echoes once over a WebSocket and shows what came back.
const PAGE: &str = "<!doctype html><title>waiting</title><body>waiting<script>\
    const socket = new WebSocket('ws://ADDRESS/ws');\
    socket.onopen = () => socket.send('from a browser');\
    socket.onmessage = event => { document.body.textContent = 'echoed: ' + event.data; socket.close(); };\
    socket.onerror = () => { document.body.textContent = 'failed'; };\
    </script>";

fn a_browsers_websocket_echoes(driver: Driver) {
    let stage = Stage::set(driver);
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let page = stage.dir.path().join("page.html");
    fs::write(&page, PAGE.replace("ADDRESS", stage.weir.address())).unwrap();
    browser.open(&format!("file://{}", page.display()));
    browser.wait("document.body?.textContent === 'echoed: from a browser'");
}

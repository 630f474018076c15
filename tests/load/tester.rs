//! The load tester against a backend with stalls that are known: 1 s every 10 s.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::weir::BINARY;

/// Requests a second and connections: a tenth of the requests is due in a stall, five to each connection.
const RATE: f64 = 200.0;
const CONNECTIONS: usize = 40;
/// Three stalls, each whole.
const SECONDS: u64 = 30;

/// A `weir backend` that stalls, killed when dropped.
struct Stalling {
    child: Child,
    address: SocketAddr,
}

impl Stalling {
    fn start() -> Stalling {
        let args = ["backend", "--port", "0", "--stall", "1s", "--stall-every", "10s"];
        let mut child = Command::new(BINARY)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the weir binary");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.trim().rsplit(' ').next().expect("an address");
        Stalling {
            address: address.parse().expect("an address"),
            child,
        }
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// wrk2's method in its plainest form: each connection sends at a constant rate or, when it is behind, at once, and every
/// answer is measured from when its request was due. Nanoseconds, sorted.
fn reference(address: SocketAddr) -> Vec<u64> {
    let began = Instant::now();
    let gap = CONNECTIONS as f64 / RATE;
    let connections = (0..CONNECTIONS).map(|number| {
        thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.set_nodelay(true).expect("an option");
            let offset = gap * number as f64 / CONNECTIONS as f64;
            let mut times = Vec::new();
            for index in 0u32.. {
                let due = began + Duration::from_secs_f64(offset + gap * f64::from(index));
                if due - began >= Duration::from_secs(SECONDS) {
                    break;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                stream
                    .write_all(b"GET / HTTP/1.1\r\nHost: reference\r\n\r\n")
                    .expect("it takes it");
                let mut answer = [0; 4096];
                let mut have = 0;
                // The default answer is JSON that ends with a line.
                while have == 0 || !answer[..have].ends_with(b"}\n") {
                    have += stream.read(&mut answer[have..]).expect("an answer");
                }
                times.push(due.elapsed().as_nanos() as u64);
            }
            times
        })
    });
    let connections: Vec<_> = connections.collect();
    let mut times: Vec<u64> = connections
        .into_iter()
        .flat_map(|connection| connection.join().expect("no panic"))
        .collect();
    times.sort_unstable();
    times
}

/// A stall of a second every ten, asked evenly: a tenth of all requests waits, evenly from nothing to a second, so the p95
/// is half a second and the p99 nine tenths. The tester has to say so, within 1 % of what wrk2's method says of the very
/// same stalls.
#[test]
fn stalls_show_as_wrk2_s_method_shows_them() {
    let backend = Stalling::start();
    let dir = tempfile::tempdir().expect("a directory");
    let json = dir.path().join("summary.json");
    let mut tester = Command::new(BINARY)
        .args(["load", &format!("http://{}/", backend.address), "--quiet"])
        .args(["-R", &RATE.to_string(), "-c", &CONNECTIONS.to_string()])
        .args(["-d", &format!("{SECONDS}s"), "--json"])
        .arg(&json)
        .stdout(Stdio::null())
        .spawn()
        .expect("the weir binary");
    let expected = reference(backend.address);
    assert!(tester.wait().expect("it ends").success());
    let found: Value = serde_json::from_slice(&fs::read(&json).expect("a summary")).expect("JSON");
    assert_eq!(found["requests"], RATE as u64 * SECONDS, "{found}");
    assert_eq!(expected.len() as u64, RATE as u64 * SECONDS);
    for (name, quantile, exact) in [("p95", 0.95, 0.5), ("p99", 0.99, 0.9), ("p99_9", 0.999, 0.99)] {
        let ours = found["latency_ns"][name].as_f64().expect("a number") / 1e9;
        let rank = (expected.len() as f64 * quantile).ceil() as usize - 1;
        let theirs = expected[rank] as f64 / 1e9;
        println!("{name}: {ours:.4} s, by wrk2's method {theirs:.4} s, by arithmetic {exact} s");
        assert!(
            (ours - theirs).abs() <= 0.01 * theirs,
            "{name}: {ours} and {theirs}"
        );
        // Arithmetic knows nothing of the time that it takes to serve those who waited.
        assert!((ours - exact).abs() <= 0.02, "{name}: {ours} and {exact}");
    }
    let service = found["service_time_ns"]["p95"].as_f64().expect("a number") / 1e9;
    assert!(
        service < 0.3,
        "one request of each connection waits, the others are only late: {found}"
    );
}

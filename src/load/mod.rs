//! The load tester behind `weir load`: asks a server as fast as it answers, or at a rate that it does not choose.
//!
//! One monoio runtime per worker, as the load balancer has it; each connection is a task that sends a request, reads the
//! answer by the load balancer's own parser, and goes on. What it measures goes into histograms of its worker, which are
//! handed to the thread that reports once a second.
//!
//! # Closed and open loop
//! Without a rate a connection asks again when it has its answer: a server that stalls is asked less, and the stall is one
//! slow answer among many fast ones. With a rate requests are due at fixed times, whatever the server does, and an answer
//! is measured from when its request was due: what a stall made wait counts as waiting ("coordinated omission", G. Tene).
//! [`schedule`] says when requests are due.

pub mod check;
mod connection;
pub mod report;
mod schedule;
mod tally;
mod worker;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use hyper::http::Uri;

use crate::upstream::backend::Address;

pub use report::Output;
pub use tally::{ErrorKind, Sample, Tally};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub targets: Vec<Target>,
    pub connections: usize,
    pub workers: usize,
    pub end: End,
    /// Requests a second over all connections; none: a closed loop.
    pub rate: Option<f64>,
    pub keep_alive: bool,
    /// HEAD: no body follows.
    pub head_only: bool,
    pub timeout: Duration,
    /// First and last status of what is expected; none: anything.
    pub expect: Option<(u16, u16)>,
    pub backend_from: BackendFrom,
    /// Cores to run on, in worker order; empty: not pinned.
    pub cores: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    After(Duration),
    /// Exactly so many requests.
    Requests(u64),
}

/// Where an answer says who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendFrom {
    /// `x-backend`, else `server`.
    Usual,
    /// This header, in lower case.
    Header(String),
    /// This string member of the JSON body.
    Json(String),
}

/// One url, ready to be asked.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: String,
    pub address: Address,
    /// The bytes of a request.
    pub request: Vec<u8>,
}

/// Why a url cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0}: only http:// and unix: urls can be asked")]
    Scheme(String),
    #[error("{0}: no host to ask")]
    NoHost(String),
    #[error("{0}: {1}")]
    Lookup(String, io::Error),
}

/// What of a request is the same for all targets.
#[derive(Clone, Debug, Default)]
pub struct RequestParts {
    pub method: String,
    pub http10: bool,
    pub keep_alive: bool,
    /// Whole lines without their ends.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Target {
    /// Looks the host of `url` up and writes its request.
    pub fn new(url: &str, parts: &RequestParts) -> Result<Target, TargetError> {
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Target {
                url: url.to_owned(),
                address: Address::Unix(PathBuf::from(path)),
                request: parts.write("/", "localhost"),
            });
        }
        let uri: Uri = url.parse().map_err(|_| TargetError::NoHost(url.to_owned()))?;
        if uri.scheme_str() != Some("http") {
            return Err(TargetError::Scheme(url.to_owned()));
        }
        let authority = uri
            .authority()
            .ok_or_else(|| TargetError::NoHost(url.to_owned()))?;
        let (host, port) = (
            authority.host().trim_matches(['[', ']']),
            authority.port_u16().unwrap_or(80),
        );
        let found = (host, port).to_socket_addrs();
        let found: Option<SocketAddr> = found
            .map_err(|error| TargetError::Lookup(url.to_owned(), error))?
            .next();
        let address = found.ok_or_else(|| TargetError::NoHost(url.to_owned()))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target {
            url: url.to_owned(),
            address: Address::Tcp(address),
            request: parts.write(path, authority.as_str()),
        })
    }
}

impl RequestParts {
    fn write(&self, path: &str, host: &str) -> Vec<u8> {
        let version = if self.http10 { "1.0" } else { "1.1" };
        let named = |name: &str| {
            let of = |line: &String| {
                line.split(':')
                    .next()
                    .is_some_and(|found| found.eq_ignore_ascii_case(name))
            };
            self.headers.iter().any(of)
        };
        let mut lines = vec![format!("{} {path} HTTP/{version}", self.method)];
        if !named("host") {
            lines.push(format!("Host: {host}"));
        }
        match (self.keep_alive, self.http10) {
            (false, false) => lines.push("Connection: close".to_owned()),
            (true, true) => lines.push("Connection: keep-alive".to_owned()),
            _ => {}
        }
        if !self.body.is_empty() && !named("content-length") {
            lines.push(format!("Content-Length: {}", self.body.len()));
        }
        lines.extend(self.headers.iter().cloned());
        let mut bytes = lines.join("\r\n").into_bytes();
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// One second of all workers.
#[derive(Debug)]
pub struct Interval {
    /// After the beginning.
    pub at: Duration,
    pub length: Duration,
    pub tally: Tally,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    pub began: SystemTime,
    pub took: Duration,
    pub total: Tally,
    pub intervals: Vec<Interval>,
}

/// Runs the plan on threads of its own. `each` is told of every second that is over; `rows` gets every sample if it is
/// there, and may make the run wait.
///
/// # Errors
/// A worker cannot be started.
pub fn run(
    plan: &Plan,
    rows: Option<std::sync::mpsc::SyncSender<Vec<Sample>>>,
    stop: &std::sync::atomic::AtomicBool,
    mut each: impl FnMut(&Interval, &Tally),
) -> io::Result<Outcome> {
    let (sender, tallies) = std::sync::mpsc::channel();
    let began = SystemTime::now();
    let start = Instant::now();
    let crew = worker::start(plan, sender, rows)?;
    let mut outcome = Outcome {
        began,
        took: Duration::ZERO,
        total: Tally::new(),
        intervals: Vec::new(),
    };
    let mut last = Duration::ZERO;
    loop {
        let (tally, ended) = collect(&tallies, start, last + Duration::from_secs(1));
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            crew.stop();
        }
        let now = start.elapsed();
        let interval = Interval {
            at: last,
            length: now - last,
            tally,
        };
        last = now;
        outcome.total.add(&interval.tally);
        if !ended || interval.tally.requests() > 0 {
            each(&interval, &outcome.total);
            outcome.intervals.push(interval);
        }
        if ended {
            break;
        }
    }
    crew.join()?;
    outcome.took = start.elapsed();
    Ok(outcome)
}

/// What workers hand in until `until`; whether all of them have ended.
fn collect(tallies: &Receiver<Tally>, start: Instant, until: Duration) -> (Tally, bool) {
    let mut sum = Tally::new();
    loop {
        let left = until.saturating_sub(start.elapsed());
        match tallies.recv_timeout(left) {
            Ok(tally) => sum.add(&tally),
            Err(RecvTimeoutError::Timeout) => return (sum, false),
            Err(RecvTimeoutError::Disconnected) => return (sum, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_asked() {
        let parts = RequestParts {
            method: "POST".to_owned(),
            keep_alive: true,
            headers: vec!["X-A: 1".to_owned()],
            body: b"hello".to_vec(),
            ..RequestParts::default()
        };
        let target = Target::new("http://127.0.0.1:81/a?b=c", &parts).unwrap();
        assert_eq!(
            String::from_utf8(target.request).unwrap(),
            "POST /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:81\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello"
        );
        let parts = RequestParts {
            method: "GET".to_owned(),
            http10: true,
            headers: vec!["host: other".to_owned()],
            ..RequestParts::default()
        };
        let target = Target::new("http://[::1]", &parts).unwrap();
        assert_eq!(
            String::from_utf8(target.request).unwrap(),
            "GET / HTTP/1.0\r\nhost: other\r\n\r\n"
        );
        assert!(matches!(
            Target::new("https://a", &parts),
            Err(TargetError::Scheme(_))
        ));
        assert!(matches!(
            Target::new("/a", &parts),
            Err(TargetError::Scheme(_) | TargetError::NoHost(_))
        ));
    }
}

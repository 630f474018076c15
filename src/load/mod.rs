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
mod pacer;
pub mod report;
mod schedule;
mod tally;
mod worker;

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use hdrhistogram::Histogram;
use hyper::http::Uri;

use crate::clock::Span;
use crate::http1::Method;
use crate::upstream::backend::Address;

pub use tally::{ErrorKind, Sample, Tally, TargetTally};

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
    pub method: Method,
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
    #[error("{0:?}: https is not spoken yet; only http://host:port/path and unix:/path can be asked")]
    Https(String),
    #[error("{0:?} is no url that can be asked: those are http://host:port/path and unix:/path")]
    NoUrl(String),
    #[error("{0:?}: the name cannot be looked up: {1}")]
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
        let no_url = || TargetError::NoUrl(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| no_url())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(TargetError::Https(url.to_owned())),
            _ => return Err(no_url()),
        }
        let authority = uri.authority().ok_or_else(no_url)?;
        if authority.as_str().contains('@') {
            return Err(no_url());
        }
        let (host, port) = (
            authority.host().trim_matches(['[', ']']),
            authority.port_u16().unwrap_or(80),
        );
        let lookup = |error| TargetError::Lookup(url.to_owned(), error);
        let address = look_up(host, port).map_err(lookup)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Target {
            url: url.to_owned(),
            address: Address::Tcp(address),
            request: parts.write(path, authority.as_str()),
        })
    }
}

/// The first address of a name.
#[expect(
    clippy::disallowed_methods,
    reason = "before the run, on the main thread, which may wait"
)]
fn look_up(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut found = (host, port).to_socket_addrs()?;
    found
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
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
        // RFC 9110 §8.6: whoever sends no body with a method that has one says so.
        let has_body = !self.body.is_empty() || matches!(&*self.method, "POST" | "PUT" | "PATCH");
        if has_body && !named("content-length") && !named("transfer-encoding") {
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

/// What is kept of an interval: a run may be long.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// The end of the interval, after the beginning.
    pub at: Duration,
    pub length: Duration,
    pub requests: u64,
    pub failures: u64,
    /// Response times in nanoseconds; 0 where nobody answered.
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Interval {
    fn point(&self) -> Point {
        let at = |quantile| quantile_of(&self.tally.response, quantile);
        Point {
            at: self.at + self.length,
            length: self.length,
            requests: self.tally.requests(),
            failures: self.tally.failures(),
            p50: at(0.50),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// A quantile in nanoseconds, never past the largest value; 0 if there is none.
pub(crate) fn quantile_of(histogram: &Histogram<u64>, quantile: f64) -> u64 {
    if histogram.is_empty() {
        return 0;
    }
    histogram.value_at_quantile(quantile).min(histogram.max())
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Until the last answer, or until the end of the time that was asked for.
    pub took: Duration,
    pub total: Tally,
    pub points: Vec<Point>,
    /// It was stopped before its end.
    pub stopped: bool,
}

/// Runs the plan on threads of its own. `each` gets every second that is over, and all there was until then; `rows` gets
/// every sample if it is there, and may make the run wait. `stop` ends the run early.
///
/// # Errors
/// A worker cannot be started.
pub fn run(
    plan: &Plan,
    rows: Option<&SyncSender<Vec<Sample>>>,
    stop: &Arc<AtomicBool>,
    mut each: impl FnMut(Interval, &Tally),
) -> io::Result<Outcome> {
    let mut crew = worker::start(plan, rows, stop)?;
    let mut total = Tally::new(plan.targets.len());
    let mut points = Vec::new();
    let (mut last, mut took) = (Span::ZERO, Span::ZERO);
    while !crew.tallies.is_empty() {
        let mut tally = Tally::new(plan.targets.len());
        let mut until = last;
        crew.tallies.retain(|worker| match worker.recv() {
            Ok(handed_in) => {
                tally.add(&handed_in.tally);
                until = until.max(handed_in.until);
                took = took.max(handed_in.last_answer);
                true
            }
            Err(_) => false,
        });
        if tally.requests() + tally.unsent == 0 && until == last {
            continue;
        }
        let interval = Interval {
            at: last.into(),
            length: (until - last).into(),
            tally,
        };
        last = until;
        total.add(&interval.tally);
        points.push(interval.point());
        each(interval, &total);
    }
    crew.join()?;
    let stopped = stop.load(Ordering::Relaxed);
    let took = match plan.end {
        End::After(time) if !stopped => time.max(took.into()),
        _ => took.into(),
    };
    Ok(Outcome {
        took,
        total,
        points,
        stopped,
    })
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
        for empty in ["POST", "PUT", "PATCH", "DELETE"] {
            let parts = RequestParts {
                method: empty.to_owned(),
                keep_alive: true,
                ..RequestParts::default()
            };
            let request = String::from_utf8(parts.write("/", "a")).unwrap();
            assert_eq!(
                request.contains("Content-Length: 0\r\n"),
                empty != "DELETE",
                "{request}"
            );
        }
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let parts = RequestParts::default();
        assert!(matches!(
            Target::new("https://a", &parts),
            Err(TargetError::Https(_))
        ));
        for bad in [
            "/a",
            "a:80",
            "ftp://a",
            "http://",
            "http://u:p@a/",
            "http://a b/",
            "",
        ] {
            assert!(
                matches!(Target::new(bad, &parts), Err(TargetError::NoUrl(_))),
                "{bad}"
            );
        }
        let unix = Target::new("unix:/run/x.sock", &parts).unwrap();
        assert_eq!(unix.address, Address::Unix("/run/x.sock".into()));
    }
}

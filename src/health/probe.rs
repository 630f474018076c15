//! One probe: a connection of its own, for an `http` check one request over it, and a judgement of what comes back.
//!
//! A backend is a stranger here as it is on the data path: the same parser reads its answer, `max_response_bytes` bounds
//! what is read of it, and one deadline ends the whole.

use std::io;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;

use crate::buffer::{self, Buffer};
use crate::config::model::{Config, HealthCheckKind, StatusRange, Upstream};
use crate::health::verdict::Finding;
use crate::http1::{self, Method, RequestFacts, ResponseHead};
use crate::proxy::body::BodyFollower;
use crate::reason::Reason;
use crate::transport::Transport;
use crate::upstream::backend::{Address, Backend};
use crate::upstream::connect::{ConnectError, connect_address};
use crate::wire::Wire;

/// Interim responses before a probe is given up.
const INTERIM_MAX: usize = 64;

/// `[health_check]`, made ready for probing.
#[derive(Debug)]
pub struct Check {
    pub kind: HealthCheckKind,
    method: String,
    path: String,
    /// What the request says besides method, path and the backend's `Host`, down to the empty line.
    lines: String,
    /// Whether `headers` has a `Host` of its own.
    has_host: bool,
    expect_status: Vec<StatusRange>,
    expect_body: Option<Finder<'static>>,
    port: Option<u16>,
    pub timeout: Duration,
    max_bytes: usize,
    head_limits: http1::Limits,
    upstream: Upstream,
}

/// What was wrong with a probe.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("connect refused")]
    Refused,
    #[error("no connection: {0}")]
    NoWay(io::Error),
    #[error("connect timed out after {0:?}")]
    Unreached(Duration),
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
    #[error("{0} in the middle of the probe")]
    Broken(io::Error),
    #[error("closed before an answer")]
    Closed,
    #[error("closed before the end of the answer")]
    Cut,
    #[error("not an HTTP response: {0}")]
    NotHttp(&'static str),
    #[error("a head longer than health_check.max_response_bytes")]
    HeadTooLong,
    #[error("more than {INTERIM_MAX} interim responses")]
    Interims,
    #[error("{method} {path}: {status}")]
    Status {
        method: String,
        path: String,
        status: u16,
    },
    #[error("{method} {path}: {status} without the text of health_check.expect_body")]
    Text {
        method: String,
        path: String,
        status: u16,
    },
    /// weir's own fault.
    #[error("weir could not probe: {0}")]
    Own(io::Error),
    /// weir's own fault as well.
    #[error("weir could not probe: the probe panicked")]
    Panicked,
}

impl Failure {
    fn finding(&self) -> Finding {
        match self {
            Failure::Refused | Failure::NoWay(_) => Finding::Refused,
            Failure::Unreached(_) => Finding::Unreached,
            Failure::Own(_) | Failure::Panicked => Finding::Nothing,
            _ => Finding::Bad,
        }
    }

    fn of_connect(error: ConnectError, timeout: Duration) -> Self {
        match error.reason {
            Reason::ConnectTimeout => Failure::Unreached(timeout),
            Reason::OutOfPorts | Reason::Overload => Failure::Own(error.error),
            _ if error.error.kind() == io::ErrorKind::ConnectionRefused => Failure::Refused,
            _ => Failure::NoWay(error.error),
        }
    }
}

/// A probe that is over.
#[derive(Debug)]
pub struct Report {
    pub took: Duration,
    /// Of the answer's head, if one came.
    pub status: Option<u16>,
    /// None: it was good.
    pub failure: Option<Failure>,
}

impl Report {
    pub fn finding(&self) -> Finding {
        self.failure.as_ref().map_or(Finding::Good, Failure::finding)
    }
}

impl Check {
    pub fn new(config: &Config) -> Self {
        let check = &config.health_check;
        let has = |name: &str| check.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut lines = String::new();
        if !has("user-agent") {
            lines += concat!("User-Agent: weir/", env!("CARGO_PKG_VERSION"), " health\r\n");
        }
        // Methods that are about a body say that there is none (RFC 9110 §8.6).
        if matches!(check.method.as_str(), "POST" | "PUT" | "PATCH") {
            lines += "Content-Length: 0\r\n";
        }
        for (name, value) in &check.headers {
            lines += &format!("{name}: {value}\r\n");
        }
        lines += "Connection: close\r\n\r\n";
        Check {
            kind: check.kind,
            method: check.method.clone(),
            path: check.path.clone(),
            lines,
            has_host: has("host"),
            expect_status: check.expect_status.clone(),
            expect_body: check
                .expect_body
                .as_ref()
                .map(|text| Finder::new(text.as_bytes()).into_owned()),
            port: check.port,
            timeout: check.timeout,
            max_bytes: check.max_response_bytes,
            head_limits: http1::Limits {
                max_head_bytes: config.http.max_head_bytes,
                max_headers: config.http.max_headers,
            },
            upstream: config.upstream.clone(),
        }
    }

    /// What a good probe showed, in words.
    pub fn praise(&self, status: Option<u16>) -> String {
        match status {
            Some(status) => format!("{} {}: {status}", self.method, self.path),
            None => "connected".to_owned(),
        }
    }

    fn request(&self, authority: &str) -> Vec<u8> {
        let host = if self.has_host {
            String::new()
        } else {
            format!("Host: {authority}\r\n")
        };
        format!("{} {} HTTP/1.1\r\n{host}{}", self.method, self.path, self.lines).into_bytes()
    }

    fn expects(&self, status: u16) -> bool {
        self.expect_status
            .iter()
            .any(|range| (range.first..=range.last).contains(&status))
    }

    fn address(&self, address: &Address) -> Address {
        match (address, self.port) {
            (Address::Tcp(address), Some(port)) => {
                let mut address = *address;
                address.set_port(port);
                Address::Tcp(address)
            }
            _ => address.clone(),
        }
    }
}

/// Probes `backend` once. `nonblocking` says how the driver wants its sockets.
pub async fn probe(check: &Check, backend: &Backend, nonblocking: bool) -> Report {
    let began = Instant::now();
    let mut status = None;
    let result = match connect(check, backend, nonblocking).await {
        Err(error) => Err(Failure::of_connect(error, check.timeout)),
        Ok(_) if check.kind == HealthCheckKind::Tcp => Ok(()),
        Ok(transport) => {
            let wire = Wire::new(transport);
            let left = check.timeout.saturating_sub(began.elapsed());
            let asking = ask(check, &wire, &backend.authority, &mut status);
            monoio::time::timeout(left, asking)
                .await
                .unwrap_or(Err(Failure::TimedOut(check.timeout)))
        }
    };
    Report {
        took: began.elapsed(),
        status,
        failure: result.err(),
    }
}

/// As for an exchange, but a probe to another port says nothing about which address is good for traffic.
async fn connect(check: &Check, backend: &Backend, nonblocking: bool) -> Result<Transport, ConnectError> {
    let give_up = Instant::now() + check.timeout;
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the backend has no address");
    let count = backend.addresses.len();
    for (tried, (_, address)) in backend.addresses_to_try().enumerate() {
        let address = check.address(address);
        let left = give_up.saturating_duration_since(Instant::now());
        // A silent first address must leave some of the time to the others.
        let share = if tried + 1 < count { left / 2 } else { left };
        let attempt =
            monoio::time::timeout(share, connect_address(&address, &check.upstream, nonblocking)).await;
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(transport) => return Ok(transport),
            Err(error) => last = error,
        }
    }
    Err(ConnectError::from_io(last))
}

/// Sends the request and reads the answer as far as it takes to judge it.
async fn ask(check: &Check, wire: &Wire, authority: &str, status: &mut Option<u16>) -> Result<(), Failure> {
    let mut buffer = buffer::small();
    let request = check.request(authority);
    let mut rest = request.as_slice();
    while !rest.is_empty() {
        let taken = buffer.append(rest);
        rest = &rest[taken..];
        if let Some(error) = wire.write_all(&mut buffer, check.timeout).await.error {
            return Err(Failure::Broken(error));
        }
    }
    let mut answer = Answer {
        wire,
        buffer,
        left: check.max_bytes,
    };
    let mut head = ResponseHead::new();
    let (mut bytes, head_len) = answer.read_head(check, &mut head).await?;
    *status = Some(head.status());
    let words = || (check.method.clone(), check.path.clone(), head.status());
    if !check.expects(head.status()) {
        let (method, path, status) = words();
        return Err(Failure::Status { method, path, status });
    }
    let mut search = Search::new(check.expect_body.as_ref());
    let mut follower = BodyFollower::new(head.body(), true);
    let with_head = bytes.get_mut(head_len..).unwrap_or_default();
    answer
        .read_body(&mut follower, with_head, |data| search.feed(data))
        .await?;
    if search.found {
        Ok(())
    } else {
        let (method, path, status) = words();
        Err(Failure::Text { method, path, status })
    }
}

/// An answer that is being read.
struct Answer<'a> {
    wire: &'a Wire,
    buffer: Buffer,
    /// Bytes that may still be read.
    left: usize,
}

/// What a read brought.
#[derive(PartialEq, Eq)]
enum Brought {
    /// What is in the buffer.
    Bytes,
    End,
    /// Nothing: the bound is reached.
    Enough,
}

impl Answer<'_> {
    async fn read(&mut self) -> Result<Brought, Failure> {
        if self.left == 0 {
            return Ok(Brought::Enough);
        }
        self.buffer.clear();
        match self.wire.read(&mut self.buffer).await {
            Ok(0) => Ok(Brought::End),
            Ok(count) => {
                self.buffer.truncate(self.left);
                self.left = self.left.saturating_sub(count);
                Ok(Brought::Bytes)
            }
            Err(error) => Err(Failure::Broken(error)),
        }
    }

    /// The final head, and the bytes that it is in the front of.
    async fn read_head(
        &mut self,
        check: &Check,
        head: &mut ResponseHead,
    ) -> Result<(Vec<u8>, usize), Failure> {
        let facts = RequestFacts {
            method: Method::from_bytes(check.method.as_bytes()),
            upgrade: false,
        };
        let mut bytes = Vec::new();
        let mut interims = 0;
        loop {
            let parsed = head.parse(&bytes, &check.head_limits, facts);
            match parsed.map_err(|reject| Failure::NotHttp(reject.detail))? {
                Some(length) if head.is_interim() => {
                    interims += 1;
                    if interims > INTERIM_MAX {
                        return Err(Failure::Interims);
                    }
                    bytes.drain(..length);
                    head.reset();
                }
                Some(length) => return Ok((bytes, length)),
                None => match self.read().await? {
                    Brought::Bytes => bytes.extend_from_slice(self.buffer.filled()),
                    Brought::End => return Err(Failure::Closed),
                    Brought::Enough => return Err(Failure::HeadTooLong),
                },
            }
        }
    }

    /// Gives what is in the body to `take`, as far as it may be read; `bytes` came with the head.
    async fn read_body(
        &mut self,
        follower: &mut BodyFollower,
        bytes: &mut [u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Failure> {
        follow(follower, bytes, &mut take)?;
        while !follower.is_done() {
            match self.read().await? {
                Brought::Bytes => follow(follower, self.buffer.filled_mut(), &mut take)?,
                Brought::End if follower.ends_with_connection() => return Ok(()),
                Brought::End => return Err(Failure::Cut),
                Brought::Enough => return Ok(()),
            }
        }
        Ok(())
    }
}

fn follow(
    follower: &mut BodyFollower,
    bytes: &mut [u8],
    take: &mut impl FnMut(&[u8]),
) -> Result<(), Failure> {
    let step = follower
        .follow(bytes)
        .map_err(|reject| Failure::NotHttp(reject.detail))?;
    take(bytes.get(..step.forward).unwrap_or_default());
    Ok(())
}

/// Looks for a text in a stream, also where it is cut in two.
struct Search<'a> {
    text: Option<&'a Finder<'static>>,
    /// The end of what was seen: less than the text is long.
    tail: Vec<u8>,
    found: bool,
}

impl<'a> Search<'a> {
    /// No text is always found.
    fn new(text: Option<&'a Finder<'static>>) -> Self {
        Search {
            text,
            tail: Vec::new(),
            found: text.is_none(),
        }
    }

    fn feed(&mut self, data: &[u8]) {
        let Some(text) = self.text.filter(|_| !self.found) else {
            return;
        };
        let keep = text.needle().len().saturating_sub(1);
        let seam = data.len().min(keep);
        self.tail.extend_from_slice(&data[..seam]);
        self.found = text.find(&self.tail).is_some() || text.find(data).is_some();
        if data.len() > seam {
            self.tail.clear();
            self.tail.extend_from_slice(&data[data.len() - keep..]);
        } else {
            let surplus = self.tail.len().saturating_sub(keep);
            self.tail.drain(..surplus);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_request_says_what_was_configured() {
        let mut config = Config::default();
        assert_eq!(
            String::from_utf8(Check::new(&config).request("a:1")).expect("ASCII"),
            concat!(
                "GET /health HTTP/1.1\r\nHost: a:1\r\nUser-Agent: weir/",
                env!("CARGO_PKG_VERSION"),
                " health\r\nConnection: close\r\n\r\n"
            )
        );
        config.health_check.method = "POST".to_owned();
        config.health_check.headers = [("host", "b"), ("X", "y"), ("User-Agent", "me")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        assert_eq!(
            String::from_utf8(Check::new(&config).request("a:1")).expect("ASCII"),
            "POST /health HTTP/1.1\r\nContent-Length: 0\r\nhost: b\r\nX: y\r\nUser-Agent: me\r\n\
             Connection: close\r\n\r\n"
        );
    }

    proptest! {
        /// However a stream is cut, a text is found in it exactly if it is there.
        #[test]
        fn a_text_is_found_across_every_cut(
            stream in prop::collection::vec(0u8..3, 0..60),
            text in prop::collection::vec(0u8..3, 1..6),
            cuts in prop::collection::vec(0usize..8, 1..60),
        ) {
            let finder = Finder::new(&text).into_owned();
            let mut search = Search::new(Some(&finder));
            let mut rest = stream.as_slice();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                search.feed(piece);
                rest = behind;
            }
            search.feed(rest);
            let there = stream.windows(text.len()).any(|window| window == text);
            prop_assert_eq!(search.found, there);
        }
    }
}

//! A steady load: connections that ask, wait for the whole answer, judge it strictly, and ask again, from one thread.
//! Every request is recorded with its start, its time and its end, so that a test can say what happened to those that
//! began in some window.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fickle::body_of;
use super::http::{Framing, Head};
use super::wire::End;
use super::{DEADLINE, Weir};

/// The rest of a client whose request failed, so that a total outage is no busy loop.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

/// Numbers every request of the process, so that backends can tell them apart.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// What a load does.
#[derive(Clone, Debug)]
pub struct Plan {
    pub connections: usize,
    pub method: &'static str,
    pub target: String,
    /// Between an answer and the next request of the same connection.
    pub pause: Duration,
    pub body: Vec<u8>,
    /// Further header lines, each with its end.
    pub fields: String,
    /// The address that connections come from.
    pub source: Option<std::net::IpAddr>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            connections: 64,
            method: "GET",
            target: "/load".to_owned(),
            pause: Duration::ZERO,
            body: Vec::new(),
            fields: String::new(),
            source: None,
        }
    }
}

/// How one request failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection to weir.
    Connect(String),
    /// Not a 200; weir's reason, if it is weir's own answer.
    Status(u16, Option<String>),
    /// The connection ended before a head came.
    NoHead(String),
    /// It ended in the middle of an answer: the client sees an abort.
    Cut(String),
    /// Nothing for [`DEADLINE`].
    Late,
    /// An answer that is none, or another request's.
    Malformed(String),
}

/// One request.
#[derive(Clone, Debug)]
pub struct Sample {
    pub number: u64,
    /// Since the load began.
    pub at: Duration,
    pub took: Duration,
    /// Who answered, as the answer says.
    pub backend: Option<Arc<str>>,
    pub failure: Option<Failure>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    plan: Plan,
    start: Instant,
    over: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
    samples: Mutex<Vec<Sample>>,
}

/// A load that runs until it is stopped.
pub struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// 64 connections that GET.
    pub fn on(weir: &Weir) -> Load {
        Load::with(weir.address(), Plan::default())
    }

    pub fn with(address: &str, plan: Plan) -> Load {
        let shared = Arc::new(Shared {
            address: address.parse().expect("an address and a port"),
            plan,
            start: Instant::now(),
            over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            samples: Mutex::default(),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(async {
                    let connections = shared.plan.connections;
                    // Spread over the pause: those that begin together would go on together.
                    let begins = |n: usize| shared.plan.pause * n as u32 / connections as u32;
                    let clients: Vec<_> = (0..connections)
                        .map(|n| tokio::spawn(client(Arc::clone(&shared), begins(n))))
                        .collect();
                    for client in clients {
                        client.await.expect("a client");
                    }
                });
            })
        };
        Load {
            shared,
            thread: Some(thread),
        }
    }

    /// Since it began; the clock of [`Sample::at`].
    pub fn now(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Requests that were answered with 200.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Acquire)
    }

    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Waits until `n` more requests were answered.
    #[track_caller]
    pub fn wait_answered(&self, n: u64) {
        let goal = self.answered() + n;
        super::eventually(&format!("{n} more answers"), || {
            (self.answered() >= goal).then_some(())
        });
    }

    /// Waits until the load is this old: for what is about time.
    pub fn wait_until(&self, at: Duration) {
        thread::sleep(at.saturating_sub(self.now()));
    }

    pub fn wait(&self, time: Duration) {
        self.wait_until(self.now() + time);
    }

    /// What ended so far.
    pub fn so_far(&self) -> Report {
        Report::new(self.shared.samples.lock().expect("no client panicked").clone())
    }

    /// Lets every connection finish its request; what happened.
    pub fn stop(mut self) -> Report {
        self.end();
        let samples = std::mem::take(&mut *self.shared.samples.lock().expect("no client panicked"));
        let report = Report::new(samples);
        println!("{report}");
        report
    }

    fn end(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(
                thread::panicking() || result.is_ok(),
                "the load's thread panicked"
            );
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// Samples of some window.
#[derive(Clone, Debug)]
pub struct Report {
    /// By their start.
    pub samples: Vec<Sample>,
}

impl Report {
    fn new(mut samples: Vec<Sample>) -> Report {
        samples.sort_by_key(|sample| sample.at);
        Report { samples }
    }

    /// Those that began from `from` on and before `to`.
    pub fn between(&self, from: Duration, to: Duration) -> Report {
        self.filtered(|sample| (from..to).contains(&sample.at))
    }

    pub fn since(&self, from: Duration) -> Report {
        self.filtered(|sample| sample.at >= from)
    }

    fn filtered(&self, keep: impl Fn(&Sample) -> bool) -> Report {
        Report {
            samples: self
                .samples
                .iter()
                .filter(|sample| keep(sample))
                .cloned()
                .collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.samples.len()
    }

    pub fn failures(&self) -> Vec<&Failure> {
        self.samples
            .iter()
            .filter_map(|sample| sample.failure.as_ref())
            .collect()
    }

    pub fn failed(&self) -> usize {
        self.failures().len()
    }

    /// The share of requests that failed.
    pub fn failed_share(&self) -> f64 {
        self.failed() as f64 / self.len().max(1) as f64
    }

    /// Requests that took longer.
    pub fn slow(&self, over: Duration) -> usize {
        self.samples.iter().filter(|sample| sample.took > over).count()
    }

    /// The part of the answers that a backend gave.
    pub fn share(&self, backend: &str) -> f64 {
        let answered = self.samples.iter().filter(|sample| sample.failure.is_none());
        let (all, its) = answered.fold((0, 0), |(all, its), sample| {
            let is_its = sample.backend.as_deref() == Some(backend);
            (all + 1, its + usize::from(is_its))
        });
        f64::from(its as u32) / f64::from(all.max(1))
    }

    /// The time below which this part of the requests ended.
    pub fn percentile(&self, part: f64) -> Duration {
        let mut times: Vec<Duration> = self.samples.iter().map(|sample| sample.took).collect();
        times.sort_unstable();
        let at = (times.len() as f64 * part) as usize;
        times
            .get(at.min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// How requests failed, and how often.
    pub fn kinds(&self) -> BTreeMap<&Failure, usize> {
        let mut kinds = BTreeMap::new();
        for failure in self.failures() {
            *kinds.entry(failure).or_default() += 1;
        }
        kinds
    }

    #[track_caller]
    pub fn assert_none_failed(&self) {
        assert_eq!(self.failed(), 0, "{self}");
        assert!(self.len() > 0, "nothing was asked");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.samples.last().map_or(Duration::ZERO, |last| last.at);
        writeln!(
            f,
            "{} requests in {span:.1?}, p50 {:.1?}, p99 {:.1?}, {} failed",
            self.len(),
            self.percentile(0.5),
            self.percentile(0.99),
            self.failed()
        )?;
        for (failure, times) in self.kinds() {
            let first = self
                .samples
                .iter()
                .find(|sample| sample.failure.as_ref() == Some(failure));
            let first = first.map_or(Duration::ZERO, |sample| sample.at);
            writeln!(f, "  {times} × {failure:?}, the first at {first:.3?}")?;
        }
        Ok(())
    }
}

/// One connection of a client, as long as it lasts.
struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
}

async fn client(shared: Arc<Shared>, begins: Duration) {
    if !begins.is_zero() {
        tokio::time::sleep(begins).await;
    }
    let mut line = None;
    while !shared.over.load(Ordering::Acquire) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let exchange = exchange(&shared, &mut line, number);
        let result = match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(result) => result,
            Err(_) => Err((Failure::Late, None)),
        };
        let (backend, failure) = match result {
            Ok(backend) => (Some(backend), None),
            Err((failure, backend)) => (backend, Some(failure)),
        };
        let failed = failure.is_some();
        shared.samples.lock().expect("no client panicked").push(Sample {
            number,
            at: began - shared.start,
            took: began.elapsed(),
            backend: backend.map(Arc::from),
            failure,
        });
        if failed {
            shared.failed.fetch_add(1, Ordering::AcqRel);
            tokio::time::sleep(AFTER_FAILURE).await;
        } else {
            shared.answered.fetch_add(1, Ordering::AcqRel);
        }
        if !shared.plan.pause.is_zero() {
            // Not in step with the others, or every pause would end in a burst of all.
            tokio::time::sleep(shared.plan.pause.mul_f64(0.5 + fastrand::f64())).await;
        }
    }
}

async fn connect(shared: &Shared) -> io::Result<TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    if let Some(source) = shared.plan.source {
        socket.bind(SocketAddr::from((source, 0)))?;
    }
    let stream = socket.connect(shared.address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One request and its answer: the backend that gave it.
async fn exchange(
    shared: &Shared,
    line: &mut Option<Line>,
    number: u64,
) -> Result<String, (Failure, Option<String>)> {
    let plan = &shared.plan;
    let mut current = match line.take() {
        Some(current) => current,
        None => Line {
            stream: connect(shared)
                .await
                .map_err(|error| (Failure::Connect(error.kind().to_string()), None))?,
            buffer: Vec::new(),
        },
    };
    let length = if plan.body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", plan.body.len())
    };
    let mut request = format!(
        "{} {} HTTP/1.1\r\nHost: test\r\nX-Request: {number}\r\n{length}{}\r\n",
        plan.method, plan.target, plan.fields
    )
    .into_bytes();
    request.extend_from_slice(&plan.body);
    // A peer that has closed may have answered first: what it says counts.
    let _ = current.stream.write_all(&request).await;
    let (head, body) = current
        .answer()
        .await
        .map_err(|(failure, head)| (failure, head.and_then(|head| backend_of(&head))))?;
    let backend = backend_of(&head);
    if head.status() != 200 {
        let reason = head.reason().map(str::to_owned);
        if !head.lists("connection", "close") {
            *line = Some(current);
        }
        return Err((Failure::Status(head.status(), reason), backend));
    }
    let malformed = |why: String| (Failure::Malformed(why), None);
    let backend = backend.ok_or_else(|| malformed("nobody's answer".to_owned()))?;
    let expected = body_of(&backend, &plan.target, &number.to_string());
    if body != expected.as_bytes() {
        return Err(malformed("another request's answer".to_owned()));
    }
    if !head.lists("connection", "close") {
        *line = Some(current);
    }
    Ok(backend)
}

fn backend_of(head: &Head) -> Option<String> {
    head.get("x-backend").map(str::to_owned)
}

impl Line {
    async fn fill(&mut self) -> Result<(), End> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(End::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(End::Reset),
            Err(error) => Err(End::Malformed(error.to_string())),
        }
    }

    /// A whole answer, or how it failed and the head if that had come.
    async fn answer(&mut self) -> Result<(Head, Vec<u8>), (Failure, Option<Head>)> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if let Err(end) = self.fill().await {
                return Err((Failure::NoHead(format!("{end:?}")), None));
            }
        };
        let raw: Vec<u8> = self.buffer.drain(..end).collect();
        let head = Head::parse(&raw).map_err(|why| (Failure::Malformed(why), None))?;
        let length = match head.response_framing("GET") {
            Ok(Framing::Length(length)) => length as usize,
            other => {
                return Err((Failure::Malformed(format!("framed by {other:?}")), Some(head)));
            }
        };
        while self.buffer.len() < length {
            if let Err(end) = self.fill().await {
                return Err((Failure::Cut(format!("{end:?}")), Some(head)));
            }
        }
        let body = self.buffer.drain(..length).collect();
        if !self.buffer.is_empty() {
            return Err((Failure::Malformed("more than an answer".to_owned()), Some(head)));
        }
        Ok((head, body))
    }
}

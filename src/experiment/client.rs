//! A blocking HTTP/1.1 client over keep-alive connections, and the closed-loop load made of some of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Stop;

/// The longest body and head that is read; both ends are ours.
const MOST_BYTES: u64 = 16 << 20;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    /// Who answered: `x-backend`.
    pub backend: Option<String>,
    /// Why weir answered by itself: `x-weir-reason`.
    pub reason: Option<String>,
    pub body: Vec<u8>,
    closes: bool,
}

/// A connection that is made when it is needed and again after every error.
#[derive(Debug)]
pub(super) struct Client {
    address: SocketAddr,
    timeout: Duration,
    open: Option<BufReader<TcpStream>>,
}

impl Client {
    /// `timeout` bounds every wait for the other side.
    pub fn new(address: SocketAddr, timeout: Duration) -> Client {
        Client {
            address,
            timeout,
            open: None,
        }
    }

    /// Sends one request without a body; `fields` are whole lines. An error ends the connection.
    pub fn ask(&mut self, method: &str, target: &str, fields: &str) -> io::Result<Answer> {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: {}\r\n{fields}\r\n",
            self.address
        );
        let mut connection = match self.open.take() {
            Some(connection) => connection,
            None => {
                let socket = TcpStream::connect_timeout(&self.address, self.timeout)?;
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(self.timeout))?;
                socket.set_write_timeout(Some(self.timeout))?;
                BufReader::new(socket)
            }
        };
        connection.get_mut().write_all(request.as_bytes())?;
        let answer = read_answer(&mut connection)?;
        if !answer.closes {
            self.open = Some(connection);
        }
        Ok(answer)
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads one answer that declares its length.
fn read_answer(from: &mut impl BufRead) -> io::Result<Answer> {
    let mut from = from.take(MOST_BYTES);
    let mut line = String::new();
    let mut next = |from: &mut dyn BufRead| -> io::Result<String> {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    };
    let start = next(&mut from)?;
    let status = start.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut answer = Answer {
        status: status.ok_or_else(|| bad("no status line"))?,
        backend: None,
        reason: None,
        body: Vec::new(),
        closes: false,
    };
    let mut length = None;
    loop {
        let field = next(&mut from)?;
        let Some((name, value)) = field.split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse::<u64>().ok(),
            "connection" => answer.closes = value.eq_ignore_ascii_case("close"),
            "x-backend" => answer.backend = Some(value.to_owned()),
            "x-weir-reason" => answer.reason = Some(value.to_owned()),
            _ => {}
        }
    }
    let length = length.ok_or_else(|| bad("an answer without a length"))?;
    from.take(length).read_to_end(&mut answer.body)?;
    if answer.body.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// One request of the load.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When it was sent, from the load's start.
    pub at: Duration,
    pub took: Duration,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// By whom.
    Good(String),
    /// In words.
    Failed(String),
}

/// What is sent.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub address: SocketAddr,
    /// Clients, each with one request at a time.
    pub concurrency: usize,
    /// What a client waits for between an answer and its next request.
    pub pause: Duration,
    /// Longer waits are failures.
    pub timeout: Duration,
    /// All together; none: until `meanwhile` is over.
    pub requests: Option<usize>,
    /// Each request carries one of so many keys in `x-key`.
    pub keys: usize,
}

/// Tells what runs beside the load whether the load still goes on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    running: AtomicUsize,
    over: AtomicBool,
}

impl Progress {
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0
    }
}

/// Counts a client out when it ends, by a panic too.
struct Running<'a>(&'a Progress);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Release);
    }
}

/// Runs the load on threads of its own and `meanwhile` on this one; gives what each request came to, in the order sent.
///
/// `before(n)` is called by the client that is about to send request number `n`, from 0.
pub(super) fn load<T>(
    plan: &Plan,
    stop: &Stop,
    before: &(dyn Fn(usize) + Sync),
    meanwhile: impl FnOnce(Instant, &Progress) -> T,
) -> (Vec<Sample>, T) {
    let start = Instant::now();
    let (progress, next) = (Progress::default(), AtomicUsize::new(0));
    progress.running.store(plan.concurrency, Ordering::Release);
    let (progress, next) = (&progress, &next);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.concurrency)
            .map(|number| {
                scope.spawn(move || {
                    let _running = Running(progress);
                    one_client(plan, number as u64, start, next, before, &|| {
                        stop.is_stopped() || progress.over.load(Ordering::Relaxed)
                    })
                })
            })
            .collect();
        let result = meanwhile(start, progress);
        if plan.requests.is_none() {
            progress.over.store(true, Ordering::Relaxed);
        }
        let mut samples = Vec::new();
        for client in clients {
            match client.join() {
                Ok(of_client) => samples.extend(of_client),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        samples.sort_by_key(|sample: &Sample| sample.at);
        (samples, result)
    })
}

fn one_client(
    plan: &Plan,
    number: u64,
    start: Instant,
    next: &AtomicUsize,
    before: &(dyn Fn(usize) + Sync),
    is_over: &dyn Fn() -> bool,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut client = Client::new(plan.address, plan.timeout);
    // The same keys in every run.
    let mut random = fastrand::Rng::with_seed(number);
    while !is_over() {
        let request = next.fetch_add(1, Ordering::Relaxed);
        if plan.requests.is_some_and(|requests| request >= requests) {
            break;
        }
        before(request);
        let key = format!("x-key: {}\r\n", random.usize(..plan.keys));
        let sent = Instant::now();
        let answer = client.ask("GET", "/", &key);
        samples.push(Sample {
            at: sent - start,
            took: sent.elapsed(),
            outcome: judged(answer),
        });
        thread::sleep(plan.pause);
    }
    samples
}

fn judged(answer: io::Result<Answer>) -> Outcome {
    match answer {
        Ok(answer) if answer.status == 200 => Outcome::Good(answer.backend.unwrap_or_default()),
        Ok(answer) => {
            let whose = answer.reason.or(answer.backend).unwrap_or_default();
            Outcome::Failed(format!("{} {whose}", answer.status).trim_end().to_owned())
        }
        Err(error) => Outcome::Failed(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
            _ => "connection broken".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Answer> {
        read_answer(&mut text.as_bytes())
    }

    #[test]
    fn answers_are_read_by_their_length() {
        let answer = read(
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\nX-Weir-Reason: connect_refused\r\n\r\nabc",
        );
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status, answer.body.as_slice(), answer.closes),
            (502, &b"ab"[..], false)
        );
        assert_eq!(
            judged(Ok(answer)),
            Outcome::Failed("502 connect_refused".to_owned())
        );
        for bad in [
            "",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_answer_of_a_backend_is_good() {
        let answer =
            read("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-backend: a\r\nconnection: close\r\n\r\n");
        let answer = answer.expect("an answer");
        assert!(answer.closes);
        assert_eq!(judged(Ok(answer)), Outcome::Good("a".to_owned()));
    }
}

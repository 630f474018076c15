//! Backends that do what a test scripts: a closure runs for each connection, on its own thread, and everything that the
//! connection gave is recorded, whether the closure looked at it or not.

use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::http::{Head, Message, text};
use super::wire::{Broken, End, Wire};
use super::{DEADLINE, ok};

/// What a script returns: it may give up at any read or write with `?`.
pub type Flow = Result<(), Broken>;

/// Raw bytes kept per connection; more are counted only.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// What one connection gave.
#[derive(Clone, Default)]
pub struct Record {
    pub raw: Vec<u8>,
    pub received: u64,
    /// How the peer's sending ended, once the script has read that far.
    pub end: Option<End>,
    pub requests: usize,
    /// The script is over and the socket closed.
    pub done: bool,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = text(&self.raw[..self.raw.len().min(600)]);
        write!(
            f,
            "[{} requests, {} bytes, end {:?}: {shown:?}]",
            self.requests, self.received, self.end
        )
    }
}

#[derive(Default)]
struct Seen {
    connections: Vec<Record>,
    heads: Vec<(usize, Head)>,
    requests: Vec<(usize, Message)>,
    broken: Vec<(usize, Broken)>,
    open: Vec<Option<Wire>>,
    /// An assertion of a script failed: so does the test.
    panicked: bool,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    stopping: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    #[track_caller]
    fn wait<T>(&self, what: &str, get: impl Fn(&Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = self.lock();
        loop {
            if let Some(got) = get(&seen) {
                return got;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let shown = format!("{:?} {:?}", seen.connections, seen.broken);
                drop(seen);
                panic!("backend: no {what} within {DEADLINE:?}; saw {shown}");
            }
            seen = self
                .changed
                .wait_timeout(seen, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// One connection, as its script sees it.
pub struct Conn {
    wire: Wire,
    shared: Arc<Shared>,
    /// Its number, from 0 in the order of accepting.
    pub index: usize,
}

impl Deref for Conn {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Conn {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

impl Conn {
    /// The next request's head, recorded; its body is left to the script.
    pub fn read_head(&mut self) -> Result<Head, Broken> {
        let head = self.wire.read_head()?;
        let index = self.index;
        self.shared.change(|seen| seen.heads.push((index, head.clone())));
        Ok(head)
    }

    /// The next whole request, recorded.
    pub fn read_request(&mut self) -> Result<Message, Broken> {
        let head = self.read_head()?;
        let framing = head.request_framing();
        let message = self.wire.read_body(head, framing, Vec::new())?;
        let index = self.index;
        self.shared.change(|seen| {
            seen.connections[index].requests += 1;
            seen.requests.push((index, message.clone()));
        });
        Ok(message)
    }

    /// Answers requests until the peer ends.
    pub fn serve(&mut self, answer: impl Fn(&Message) -> Vec<u8>) -> Flow {
        loop {
            let request = self.read_request()?;
            self.wire.try_send(answer(&request))?;
        }
    }

    /// Reads and throws away until the peer ends or the test is over.
    pub fn hang(&mut self) -> Flow {
        Err(self.wire.read_to_end())
    }

    /// Ends the connection with a reset.
    pub fn reset(&mut self) -> Flow {
        self.wire.linger_zero();
        Ok(())
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn accept(&self) -> std::io::Result<Wire> {
        match self {
            Listener::Tcp(listener) => Ok(Wire::over_tcp(listener.accept()?.0)),
            Listener::Unix(listener) => Ok(Wire::over_unix(listener.accept()?.0)),
        }
    }
}

pub struct Backend {
    /// `127.0.0.1:port` or `unix:/path`.
    pub address: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Backend {
    /// Listens on a port of the kernel's choice and runs `script` for each connection.
    pub fn new(script: impl Fn(&mut Conn) -> Flow + Send + Sync + 'static) -> Backend {
        Backend::on(listen(), script)
    }

    pub fn on(listener: TcpListener, script: impl Fn(&mut Conn) -> Flow + Send + Sync + 'static) -> Backend {
        let address = listener
            .local_addr()
            .expect("a bound socket has an address")
            .to_string();
        Backend::start(Listener::Tcp(listener), address, script)
    }

    pub fn on_unix(path: &Path, script: impl Fn(&mut Conn) -> Flow + Send + Sync + 'static) -> Backend {
        let listener = UnixListener::bind(path).expect("a fresh path");
        Backend::start(
            Listener::Unix(listener),
            format!("unix:{}", path.display()),
            script,
        )
    }

    /// Keeps connections alive and answers every request by `answer`.
    pub fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Backend {
        Backend::new(move |conn| conn.serve(&answer))
    }

    /// Answers every request with 200 and a body that tells its target.
    pub fn plain() -> Backend {
        Backend::answering(|request| ok(request.target().as_bytes()))
    }

    /// Answers every request with these bytes and keeps the connection.
    pub fn sending(response: impl AsRef<[u8]>) -> Backend {
        let response = response.as_ref().to_vec();
        Backend::answering(move |_| response.clone())
    }

    /// Answers one request of each connection with these bytes, then closes it.
    pub fn sending_then_close(response: impl AsRef<[u8]>) -> Backend {
        let response = response.as_ref().to_vec();
        Backend::new(move |conn| {
            conn.read_request()?;
            conn.try_send(&response)
        })
    }

    fn start(
        listener: Listener,
        address: String,
        script: impl Fn(&mut Conn) -> Flow + Send + Sync + 'static,
    ) -> Backend {
        let shared = Arc::new(Shared::default());
        let script = Arc::new(script);
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                while let Ok(wire) = listener.accept() {
                    if shared.stopping.load(Ordering::Acquire) {
                        return;
                    }
                    let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                    spawn_script(shared, wire, script);
                }
            })
        };
        Backend {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// How a configuration names it.
    pub fn url(&self) -> String {
        if self.address.starts_with("unix:") {
            self.address.clone()
        } else {
            format!("http://{}", self.address)
        }
    }

    /// The requests that came whole, in the order in which they became whole.
    pub fn requests(&self) -> Vec<Message> {
        self.shared
            .lock()
            .requests
            .iter()
            .map(|(_, request)| request.clone())
            .collect()
    }

    /// The same with the number of each one's connection.
    pub fn requests_by_connection(&self) -> Vec<(usize, Message)> {
        self.shared.lock().requests.clone()
    }

    /// Where reading a request went wrong: anything but a clean end between two requests.
    pub fn violations(&self) -> Vec<(usize, Broken)> {
        self.shared
            .lock()
            .broken
            .iter()
            .filter(|(_, broken)| !broken.got.is_empty())
            .cloned()
            .collect()
    }

    /// The heads that came, of requests whole or not.
    pub fn heads(&self) -> Vec<Head> {
        self.shared
            .lock()
            .heads
            .iter()
            .map(|(_, head)| head.clone())
            .collect()
    }

    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    pub fn record(&self, index: usize) -> Record {
        self.shared.lock().connections[index].clone()
    }

    /// Bytes received on all connections.
    pub fn received(&self) -> u64 {
        self.shared
            .lock()
            .connections
            .iter()
            .map(|connection| connection.received)
            .sum()
    }

    /// Waits until `n` requests have come whole.
    #[track_caller]
    pub fn wait_requests(&self, n: usize) -> Vec<Message> {
        self.shared.wait(&format!("{n} requests"), |seen| {
            (seen.requests.len() >= n).then_some(())
        });
        self.requests()
    }

    /// Waits until `n` heads have come.
    #[track_caller]
    pub fn wait_heads(&self, n: usize) -> Vec<Head> {
        self.shared.wait(&format!("{n} heads"), |seen| {
            (seen.heads.len() >= n).then(|| seen.heads.iter().map(|(_, head)| head.clone()).collect())
        })
    }

    #[track_caller]
    pub fn wait_connections(&self, n: usize) {
        self.shared.wait(&format!("{n} connections"), |seen| {
            (seen.connections.len() >= n).then_some(())
        });
    }

    /// Waits until a connection has received `n` bytes.
    #[track_caller]
    pub fn wait_received(&self, index: usize, n: u64) {
        self.shared
            .wait(&format!("{n} bytes on connection {index}"), |seen| {
                seen.connections
                    .get(index)
                    .filter(|connection| connection.received >= n)
                    .map(|_| ())
            });
    }

    /// Waits until the peer has ended a connection; how it did.
    #[track_caller]
    pub fn wait_end(&self, index: usize) -> End {
        self.shared.wait(&format!("end of connection {index}"), |seen| {
            seen.connections.get(index)?.end.clone()
        })
    }

    /// Waits until a connection's script is over and its socket closed.
    #[track_caller]
    pub fn wait_done(&self, index: usize) {
        self.shared
            .wait(&format!("end of the script of connection {index}"), |seen| {
                seen.connections
                    .get(index)
                    .filter(|connection| connection.done)
                    .map(|_| ())
            });
    }
}

/// A listener on a port of the kernel's choice whose queue takes a crowd: std's own is 128 long, and connects past that
/// wait a second for their next try.
pub fn listen() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any_port.into()).expect("a port of 127.0.0.1");
    socket.listen(4096).expect("a bound socket listens");
    socket.into()
}

fn spawn_script(
    shared: Arc<Shared>,
    mut wire: Wire,
    script: Arc<impl Fn(&mut Conn) -> Flow + Send + Sync + 'static>,
) {
    let index = shared.change(|seen| {
        seen.connections.push(Record::default());
        seen.open.push(Some(wire.split()));
        seen.connections.len() - 1
    });
    let tapped = Arc::clone(&shared);
    wire.tap(Box::new(move |read| {
        tapped.change(|seen| {
            let record = &mut seen.connections[index];
            match read {
                Ok(bytes) => {
                    record.received += bytes.len() as u64;
                    let room = KEPT_BYTES_MAX.saturating_sub(record.raw.len());
                    record.raw.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                Err(End::Silent) => {}
                Err(end) => record.end = Some(end.clone()),
            }
        });
    }));
    let mut conn = Conn {
        wire,
        shared: Arc::clone(&shared),
        index,
    };
    thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            let flow = catch_unwind(AssertUnwindSafe(|| script(&mut conn)));
            // The spare handle first, so that dropping `conn` closes the socket.
            shared.change(|seen| seen.open[index] = None);
            conn.wire.end_now();
            drop(conn);
            shared.change(|seen| {
                seen.connections[index].done = true;
                match flow {
                    Ok(Ok(())) => {}
                    Ok(Err(broken)) => seen.broken.push((index, broken)),
                    Err(_) => seen.panicked = true,
                }
            });
        })
        .expect("a thread for a connection");
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        for wire in self.shared.lock().open.iter().flatten() {
            wire.shutdown(Shutdown::Both);
        }
        // One connection of our own wakes the acceptor, which then sees that it is over.
        let woken = Wire::try_connect(&self.address).is_ok();
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken) {
            let _ = acceptor.join();
        }
        assert!(
            thread::panicking() || !self.shared.lock().panicked,
            "a backend's script failed"
        );
    }
}

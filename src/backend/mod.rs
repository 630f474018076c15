//! The demo and test backend: an HTTP/1.1 server that says who it is and what it saw, and misbehaves on request.
//!
//! It serves `weir backend`, `weir demo` and the tests. It is no part of the data path: it runs on hyper and tokio,
//! and both ends of what it speaks are ours. Nothing in `proxy/`, `http1/` or `upstream/` may call it.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | the listener, its connections, how they end |
//! | `answer.rs` | the routes; `json.rs` writes what they say |
//! | `fate.rs` | delays, errors, hangs and resets, drawn per request |
//! | `settings.rs` | what `POST /_set` changes; `values.rs` reads its values |
//! | `meter.rs` | its own load, for who asks at the probe path |
//! | `tally.rs` | what it was asked, for `/_count` |
//! | `body.rs` | bodies of every framing, streamed |
//! | `socket.rs` | a socket that can end in a reset |
//! | `websocket.rs` | the `/ws` handshake and echo |
//! | `thread.rs` | backends on a thread of their own |

mod answer;
mod body;
mod fate;
mod json;
mod meter;
mod settings;
mod socket;
mod tally;
mod thread;
pub(crate) mod values;
mod websocket;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use answer::Backend;
use fate::Dice;
use socket::Socket;

pub use answer::BODY_LIMIT;
pub use body::pattern_byte;
pub use thread::{Handle, spawn, spawn_all};

/// How long a stopping backend waits for exchanges in flight before it cuts them.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long `accept` rests after an error of the process (out of descriptors or memory), which would otherwise repeat
/// at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The kernel's accept queue, as long as load tests need it (`net.core.somaxconn` may shorten it).
const BACKLOG: i32 = 4096;

/// What one backend is and how it misbehaves. The default answers everything at once.
///
/// `/health`, `/healthz`, the probe path, `/_die`, `/_set` and `/_count` are exempt from delays, errors, hangs and resets, so
/// that a backend may look healthy and fail. A rate is the share of requests (0 to 1) that it concerns; they are drawn in
/// the order hang, abort, error, reset. `POST /_set` changes all but name, body, probe path and seed at run time.
#[derive(Clone, Debug)]
pub struct Options {
    /// In the answers and in `x-backend`; none: `backend-PORT`. A character that a header may not hold is an error.
    pub name: Option<String>,
    /// Waits this long before each answer.
    pub delay: Duration,
    /// Waits up to this much longer, uniformly drawn.
    pub jitter: Duration,
    /// Those answered with `error_status`.
    pub error_rate: f64,
    /// What [`Options::error_rate`] is answered with.
    pub error_status: StatusCode,
    /// Those never answered.
    pub hang_rate: f64,
    /// Those that get a reset instead of an answer.
    pub abort_rate: f64,
    /// Those that get the head of the default answer, half of its body, and then a reset.
    pub reset_rate: f64,
    /// The status of the default answer.
    pub status: StatusCode,
    /// What `/health` says.
    pub health_status: StatusCode,
    /// How long `/health` takes to say it.
    pub health_delay: Duration,
    /// At the end of each `stall_every` nothing is answered for so long, on all connections together.
    pub stall: Duration,
    /// From one stall's end to the next; zero: none.
    pub stall_every: Duration,
    /// The path that answers with the backend's load.
    pub probe_path: String,
    /// The default answer has a body of exactly this many bytes, made once, which leaves out what the request held.
    pub body_bytes: Option<usize>,
    /// Makes the draws of the n-th connection's requests the same in every run.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: None,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            error_rate: 0.0,
            error_status: StatusCode::INTERNAL_SERVER_ERROR,
            hang_rate: 0.0,
            abort_rate: 0.0,
            reset_rate: 0.0,
            status: StatusCode::OK,
            health_status: StatusCode::OK,
            health_delay: Duration::ZERO,
            stall: Duration::ZERO,
            stall_every: Duration::ZERO,
            probe_path: "/load".to_owned(),
            body_bytes: None,
            seed: None,
        }
    }
}

/// How a backend came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped and answered everything.
    Stopped,
    /// It was stopped and this many connections were still open after [`GRACE`].
    Cut(usize),
    /// `POST /_die`: the listener and all connections were dropped.
    Died,
}

/// Opens a listener for [`serve`] or [`spawn_all`]. Port 0 lets the kernel choose.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.nonblocking(),
        Some(socket2::Protocol::TCP),
    )?;
    // Connections of a backend that just ended may rest in TIME_WAIT; a port in use is refused all the same.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit this.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Serves `listener` until `stop` resolves or somebody posts `/_die`, and returns when its last connection has ended.
///
/// Needs a tokio runtime with I/O and time. Dropping the future cuts everything. An error is one of `options` or of a
/// listener without an address, and comes before the first connection is accepted.
pub async fn serve(listener: TcpListener, options: Options, stop: impl Future) -> io::Result<Ended> {
    Ok(Server::new(listener, &options)?.run(stop).await)
}

/// Tells everything in a backend when it should come to its end.
#[derive(Clone, Debug)]
struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Resolves when the backend stops, or is gone.
    async fn stopped(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// A backend that is ready to accept.
struct Server {
    listener: TcpListener,
    backend: Arc<Backend>,
    stopping: watch::Sender<bool>,
    dice: Dice,
}

impl Server {
    fn new(listener: TcpListener, options: &Options) -> io::Result<Server> {
        let (stopping, stopped) = watch::channel(false);
        let port = listener.local_addr()?.port();
        Ok(Server {
            listener,
            backend: Arc::new(Backend::new(options, port, Stopping(stopped))?),
            stopping,
            dice: Dice::new(options.seed),
        })
    }

    async fn run(mut self, stop: impl Future) -> Ended {
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                () = self.backend.died.notified() => {
                    drop(self.listener);
                    connections.shutdown().await;
                    return Ended::Died;
                }
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        connections.spawn(connection(socket, Arc::clone(&self.backend), self.dice.fork()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        }
        drop(self.listener);
        self.stopping.send_replace(true);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all_ended).await.is_ok() {
            return Ended::Stopped;
        }
        let open = connections.len();
        connections.shutdown().await;
        Ended::Cut(open)
    }
}

/// What a connection becomes when its HTTP part is over; set by the request that asks for it.
#[derive(Debug)]
enum After {
    Die,
    Reset,
    WebSocket(OnUpgrade),
}

/// Serves one connection to its end, whichever side brings it about.
async fn connection(socket: TcpStream, backend: Arc<Backend>, dice: Dice) {
    let after = Arc::new(OnceLock::new());
    let service = {
        let (backend, after, dice) = (Arc::clone(&backend), Arc::clone(&after), RefCell::new(dice));
        service_fn(move |request| {
            let fate = dice.borrow_mut().roll(&backend.settings());
            Arc::clone(&backend).answer(request, fate, Arc::clone(&after))
        })
    };
    // Without `pipeline_flush`: it copies bodies of any size into one buffer without a bound, and holds an answer back
    // while part of the next request has arrived.
    let socket = TokioIo::new(Socket::new(socket, Arc::clone(&after)));
    let http = http1::Builder::new().serve_connection(socket, service);
    let mut http = pin!(http.with_upgrades());
    let mut stopping = backend.stopping.clone();
    let ended = tokio::select! {
        biased;
        ended = http.as_mut() => ended,
        () = stopping.stopped() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    };
    match after.get() {
        Some(After::Die) => backend.died.notify_one(),
        Some(After::WebSocket(upgrade)) if ended.is_ok() => {
            websocket::echo(upgrade.clone(), stopping).await;
        }
        // An error is a client that went away or sent no HTTP; it sees the connection closed.
        _ => {}
    }
}

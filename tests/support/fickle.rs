//! Backends whose conduct changes while they serve: they hang, fail, slow down, lie about their health, die and come back
//! on the same port, and count what reached them. One thread each, for any number of connections; [`super::Backend`] is
//! for scripts that decide about every byte.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::DEADLINE;
use super::http::{Framing, Head};

/// How long after a head a connection is reset: long enough for the head to be passed on.
const HEAD_START: Duration = Duration::from_millis(20);

/// What a backend does with a request once it has read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Conduct {
    /// 200, with its name, the target and the request's number in the body.
    Answer,
    /// The same after this time.
    After(Duration),
    /// This status, at once.
    Status(u16),
    /// This status for this share of the requests, drawn by seed; the others are answered.
    Sometimes { share: f64, status: u16 },
    /// Bad and good ones in turn, beginning with a bad one.
    EverySecond { status: u16 },
    /// Reads it and never answers.
    Hang,
    /// Resets the connection instead of answering.
    Reset,
    /// Sends a head and part of the body, then resets.
    ResetAfterHead,
}

/// How a host vanishes for the connections that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// They are reset: a router says that nothing is there.
    Reset,
    /// They fall silent.
    Silent,
}

#[derive(Debug)]
enum Order {
    Kill,
    Revive,
    Vanish(Existing),
}

struct State {
    traffic: Conduct,
    health: Conduct,
    /// Requests answered by the health path's conduct; not in `requests`.
    probes: u64,
    /// Requests that came whole.
    requests: u64,
    accepted: u64,
    in_flight: u64,
    most_in_flight: u64,
    last_request: Option<Instant>,
    /// How often each request of a load came, by its number.
    seen: HashMap<u64, u32>,
    /// As they came, for those who want to look.
    heads: Vec<Head>,
    bodies: Vec<Vec<u8>>,
    random: fastrand::Rng,
    turn: bool,
}

/// Heads and bodies that are kept; further ones are only counted.
const KEPT_MAX: usize = 4096;

struct Shared {
    name: String,
    health_path: String,
    state: Mutex<State>,
    /// Requests so far, to be read without the lock.
    requests: AtomicU64,
    /// Connections that end now are reset.
    resetting: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub struct Fickle {
    pub name: String,
    pub address: SocketAddr,
    shared: Arc<Shared>,
    orders: UnboundedSender<(Order, mpsc::Sender<()>)>,
    thread: Option<JoinHandle<()>>,
    /// Holds the port while the backend is dead: bound, never listening.
    _port: Socket,
}

impl Fickle {
    pub fn new(name: &str) -> Fickle {
        let port = bound(([127, 0, 0, 1], 0).into()).expect("a port of 127.0.0.1");
        let address = port
            .local_addr()
            .expect("bound")
            .as_socket()
            .expect("an IP address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            health_path: "/health".to_owned(),
            state: Mutex::new(State {
                traffic: Conduct::Answer,
                health: Conduct::Answer,
                probes: 0,
                requests: 0,
                accepted: 0,
                in_flight: 0,
                most_in_flight: 0,
                last_request: None,
                seen: HashMap::new(),
                heads: Vec::new(),
                bodies: Vec::new(),
                random: fastrand::Rng::with_seed(u64::from(address.port() % 2) + name.len() as u64),
                turn: false,
            }),
            requests: AtomicU64::new(0),
            resetting: AtomicBool::new(false),
        });
        let (orders, receiver) = unbounded_channel();
        let (ready, is_ready) = mpsc::channel();
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime");
                runtime.block_on(run(shared, address, receiver, ready));
            })
        };
        is_ready.recv_timeout(DEADLINE).expect("a backend that listens");
        Fickle {
            name: name.to_owned(),
            address,
            shared,
            orders,
            thread: Some(thread),
            _port: port,
        }
    }

    /// Three of them: a, b and c.
    pub fn three() -> [Fickle; 3] {
        ["a", "b", "c"].map(Fickle::new)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn conduct(&self, conduct: Conduct) {
        self.shared.lock().traffic = conduct;
    }

    /// What its health endpoint does.
    pub fn health(&self, conduct: Conduct) {
        self.shared.lock().health = conduct;
    }

    /// Makes the draws of [`Conduct::Sometimes`] others, and the same in every run.
    pub fn seed(&self, seed: u64) {
        self.shared.lock().random = fastrand::Rng::with_seed(seed);
    }

    fn order(&self, order: Order) {
        let (done, is_done) = mpsc::channel();
        self.orders.send((order, done)).expect("a backend's thread");
        is_done
            .recv_timeout(DEADLINE)
            .expect("a backend that does as told");
    }

    /// Its process is gone: nobody listens, every connection is closed. Returns how many requests it had in its hands.
    pub fn kill(&self) -> u64 {
        let in_hand = self.shared.lock().in_flight;
        self.order(Order::Kill);
        in_hand
    }

    /// Back again, on the same port.
    pub fn revive(&self) {
        self.order(Order::Revive);
    }

    /// Its host is gone: connects get no answer at all.
    pub fn vanish(&self, existing: Existing) {
        self.order(Order::Vanish(existing));
    }

    /// Requests that came whole, probes apart.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Acquire)
    }

    pub fn probes(&self) -> u64 {
        self.shared.lock().probes
    }

    /// Connections that came, those of probes included.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Requests that it has and has not answered.
    pub fn in_flight(&self) -> u64 {
        self.shared.lock().in_flight
    }

    /// The most requests that it ever had at once.
    pub fn most_in_flight(&self) -> u64 {
        self.shared.lock().most_in_flight
    }

    /// How often each numbered request came.
    pub fn seen(&self) -> HashMap<u64, u32> {
        self.shared.lock().seen.clone()
    }

    /// The first heads that came, probes apart.
    pub fn heads(&self) -> Vec<Head> {
        self.shared.lock().heads.clone()
    }

    pub fn bodies(&self) -> Vec<Vec<u8>> {
        self.shared.lock().bodies.clone()
    }

    /// Waits until `n` requests have come.
    #[track_caller]
    pub fn wait_requests(&self, n: u64) {
        super::eventually(&format!("{n} requests at {}", self.name), || {
            (self.requests() >= n).then_some(())
        });
    }

    #[track_caller]
    pub fn wait_probes(&self, n: u64) {
        super::eventually(&format!("{n} probes at {}", self.name), || {
            (self.probes() >= n).then_some(())
        });
    }
}

impl Drop for Fickle {
    fn drop(&mut self) {
        // The order's end is not awaited: a thread that panicked gives none, and its join tells.
        let (done, _) = mpsc::channel();
        let _ = self.orders.send((Order::Kill, done));
        let (nobody, _) = unbounded_channel();
        self.orders = nobody;
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(
                thread::panicking() || result.is_ok(),
                "a backend's thread panicked"
            );
        }
    }
}

/// How often each numbered request came to any of them; those that came more than once.
pub fn executed_twice(backends: &[Fickle]) -> HashSet<u64> {
    let mut times: HashMap<u64, u32> = HashMap::new();
    for backend in backends {
        for (id, count) in backend.seen() {
            *times.entry(id).or_default() += count;
        }
    }
    times.retain(|_, count| *count > 1);
    times.into_keys().collect()
}

/// A socket on this address that others may be bound to as well, as long as only one of them listens.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listening(address: SocketAddr) -> TcpListener {
    let socket = bound(address).expect("a port that is held");
    socket.listen(4096).expect("a bound socket listens");
    TcpListener::from_std(socket.into()).expect("a runtime")
}

/// Its socket is shut down when dropped: a close alone is late while another test's child holds the descriptor.
struct Owned(TcpStream, Arc<Shared>);

impl Drop for Owned {
    fn drop(&mut self) {
        let socket = SockRef::from(&self.0);
        if self.1.resetting.load(Ordering::Acquire) {
            let _ = socket.set_linger(Some(Duration::ZERO));
        } else if socket.linger().is_ok_and(|linger| linger.is_none()) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

async fn run(
    shared: Arc<Shared>,
    address: SocketAddr,
    mut orders: UnboundedReceiver<(Order, mpsc::Sender<()>)>,
    ready: mpsc::Sender<()>,
) {
    let mut connections = JoinSet::new();
    let mut listener = Some(listening(address));
    // Whoever fills the queue of a host that is gone.
    let mut crowd: Vec<Socket> = Vec::new();
    let _ = ready.send(());
    loop {
        let accept = async {
            match &listener {
                Some(listener) if crowd.is_empty() => listener.accept().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = orders.recv() => {
                let Some((order, done)) = order else { return };
                match order {
                    Order::Kill | Order::Revive => {
                        if let Some(listener) = listener.take() {
                            let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
                        }
                        crowd.clear();
                        connections.shutdown().await;
                        shared.lock().in_flight = 0;
                        if let Order::Revive = order {
                            listener = Some(listening(address));
                        }
                    }
                    Order::Vanish(existing) => {
                        let listener = listener.as_ref().expect("a host that is there");
                        while let Some(waiting) = now(listener.accept()).await {
                            drop(waiting);
                        }
                        crowd = fill(listener, address);
                        match existing {
                            Existing::Reset => {
                                shared.resetting.store(true, Ordering::Release);
                                connections.shutdown().await;
                                shared.resetting.store(false, Ordering::Release);
                                shared.lock().in_flight = 0;
                            }
                            Existing::Silent => shared.lock().traffic = Conduct::Hang,
                        }
                    }
                }
                let _ = done.send(());
            }
            Some(_) = connections.join_next() => {}
            accepted = accept => {
                // Out of descriptors and the like would show as connects that fail.
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                shared.lock().accepted += 1;
                let owned = Owned(stream, Arc::clone(&shared));
                connections.spawn(serve(Arc::clone(&shared), owned));
            }
        }
    }
}

/// What is there at once, if anything.
async fn now<T>(future: impl Future<Output = io::Result<T>>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(1), future)
        .await
        .ok()?
        .ok()
}

/// Shortens the queue of `listener` and fills it, so that further SYNs are dropped.
fn fill(listener: &TcpListener, address: SocketAddr) -> Vec<Socket> {
    SockRef::from(listener).listen(0).expect("a shorter queue");
    let mut crowd = Vec::new();
    loop {
        let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        match stranger.connect_timeout(&address.into(), Duration::from_millis(30)) {
            Ok(()) => crowd.push(stranger),
            Err(_) => return crowd,
        }
        assert!(crowd.len() < 64, "a queue that does not fill");
    }
}

/// Requests that are being handled are counted as long as this lives.
struct InFlight<'a>(&'a Shared);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
    }
}

/// Serves one connection until its peer ends it or its conduct does. What is not HTTP ends it too.
async fn serve(shared: Arc<Shared>, mut stream: Owned) {
    let mut buffer = Vec::new();
    while let Some((head, body)) = read_request(&mut stream.0, &mut buffer).await {
        let is_probe = head.target().split('?').next() == Some(&shared.health_path);
        let number = head
            .get("x-request")
            .and_then(|number| number.parse::<u64>().ok());
        let conduct = {
            let mut state = shared.lock();
            if is_probe {
                state.probes += 1;
                state.health
            } else {
                receive(&mut state, &head, body, number)
            }
        };
        let counted = (!is_probe).then(|| {
            shared.requests.fetch_add(1, Ordering::AcqRel);
            InFlight(&shared)
        });
        let answered = act(&shared, &mut stream.0, &head, number, conduct).await;
        drop(counted);
        if !answered {
            return;
        }
    }
}

fn receive(state: &mut State, head: &Head, body: Vec<u8>, number: Option<u64>) -> Conduct {
    state.requests += 1;
    state.in_flight += 1;
    state.most_in_flight = state.most_in_flight.max(state.in_flight);
    state.last_request = Some(Instant::now());
    if let Some(number) = number {
        *state.seen.entry(number).or_default() += 1;
    }
    if state.heads.len() < KEPT_MAX {
        state.heads.push(head.clone());
        state.bodies.push(body);
    }
    match state.traffic {
        Conduct::Sometimes { share, status } if state.random.f64() < share => Conduct::Status(status),
        Conduct::Sometimes { .. } => Conduct::Answer,
        Conduct::EverySecond { status } => {
            state.turn = !state.turn;
            if state.turn {
                Conduct::Status(status)
            } else {
                Conduct::Answer
            }
        }
        conduct => conduct,
    }
}

/// Does what is to be done with one request; false if the connection is over.
async fn act(
    shared: &Shared,
    stream: &mut TcpStream,
    head: &Head,
    number: Option<u64>,
    conduct: Conduct,
) -> bool {
    let number = number.map_or_else(String::new, |number| number.to_string());
    // A target of its own may ask for time.
    let conduct = match head
        .target()
        .strip_prefix("/after/")
        .and_then(|ms| ms.parse().ok())
    {
        Some(ms) if conduct == Conduct::Answer => Conduct::After(Duration::from_millis(ms)),
        _ => conduct,
    };
    let status = match conduct {
        Conduct::Answer | Conduct::Sometimes { .. } | Conduct::EverySecond { .. } => 200,
        Conduct::Status(status) => status,
        Conduct::After(time) => {
            tokio::time::sleep(time).await;
            200
        }
        Conduct::Hang => {
            // Until the peer ends, or the backend does.
            let mut space = [0; 1024];
            while stream.read(&mut space).await.is_ok_and(|n| n > 0) {}
            return false;
        }
        Conduct::Reset => {
            let _ = stream.set_zero_linger();
            return false;
        }
        Conduct::ResetAfterHead => {
            let start = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nX-Backend: {}\r\n\r\n{:1000}",
                shared.name, "start"
            );
            let _ = stream.write_all(start.as_bytes()).await;
            tokio::time::sleep(HEAD_START).await;
            let _ = stream.set_zero_linger();
            return false;
        }
    };
    let body = if head.method() == "HEAD" {
        String::new()
    } else {
        body_of(&shared.name, head.target(), &number)
    };
    let answer = format!(
        "HTTP/1.1 {status} Told\r\nContent-Length: {}\r\nX-Backend: {}\r\n\r\n{body}",
        body_of(&shared.name, head.target(), &number).len(),
        shared.name,
    );
    stream.write_all(answer.as_bytes()).await.is_ok()
}

/// The body of every answer.
pub fn body_of(backend: &str, target: &str, number: &str) -> String {
    format!("{backend} {target} {number}")
}

/// The next request with its body; none when the peer ended or sent something else.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(Head, Vec<u8>)> {
    let end = loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let raw: Vec<u8> = buffer.drain(..end).collect();
    let head = Head::parse(&raw).ok()?;
    let length = match head.request_framing().ok()? {
        Framing::Length(length) => usize::try_from(length).ok()?,
        _ => 0,
    };
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer.drain(..length).collect();
    Some((head, body))
}

/// Whether somebody accepts there, as a client without a load balancer would see it.
pub fn accepts(address: SocketAddr) -> bool {
    StdStream::connect_timeout(&address, Duration::from_millis(100)).is_ok()
}

//! A minimal HTTP/1.1 proxy on monoio: what forwarding costs on this runtime before anybody is protected from anything.
//!
//! A yardstick, not a product. Heads are parsed with httparse and written anew, backend connections and buffers are
//! pooled, backends are taken in turn. There are no timeouts and no limits; request bodies, chunked answers,
//! `Connection: close` and hostile input are not handled. What weir costs beyond this is the price of being safe.
//!
//! One thread, one ring; pin it from outside.
//!
//! ```text
//! prototype PORT RING BACKEND_PORT...      RING: defer | coop | plain
//! ```

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: prototype PORT RING BACKEND_PORT...   (RING: defer, coop or plain)";
const BUFFER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const RING_ENTRIES: u32 = 4096;
const BACKLOG: i32 = 4096;

type Result<T> = std::result::Result<T, String>;

/// Which flags the ring is made with; the difference is a quarter of the CPU time.
#[derive(Clone, Copy)]
enum RingFlags {
    /// `SINGLE_ISSUER | DEFER_TASKRUN`: completions run when this thread asks for them.
    Defer,
    /// `COOP_TASKRUN`: no interrupt to run completions.
    Coop,
    /// The kernel's defaults.
    Plain,
}

struct Options {
    listen: SocketAddr,
    ring: RingFlags,
    backends: Vec<SocketAddr>,
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let listen = loopback(&args.next().ok_or(USAGE)?)?;
        let ring = match args.next().as_deref() {
            Some("defer") => RingFlags::Defer,
            Some("coop") => RingFlags::Coop,
            Some("plain") => RingFlags::Plain,
            other => return Err(format!("RING is {}\n{USAGE}", other.unwrap_or("missing"))),
        };
        let backends = args.map(|port| loopback(&port)).collect::<Result<Vec<_>>>()?;
        if backends.is_empty() {
            return Err(format!("no BACKEND_PORT given\n{USAGE}"));
        }
        Ok(Self {
            listen,
            ring,
            backends,
        })
    }
}

fn loopback(port: &str) -> Result<SocketAddr> {
    let number: u16 = port
        .parse()
        .map_err(|_| format!("'{port}' is not a port\n{USAGE}"))?;
    Ok(SocketAddr::from(([127, 0, 0, 1], number)))
}

/// What all connections of the one thread share: the backends with their idle connections, and the free buffers.
struct Pool {
    backends: Vec<Backend>,
    next: Cell<usize>,
    buffers: RefCell<Vec<Vec<u8>>>,
}

struct Backend {
    address: SocketAddr,
    idle: RefCell<Vec<TcpStream>>,
}

impl Pool {
    fn new(addresses: Vec<SocketAddr>) -> Self {
        let backends = addresses
            .into_iter()
            .map(|address| Backend {
                address,
                idle: RefCell::default(),
            })
            .collect();
        Self {
            backends,
            next: Cell::new(0),
            buffers: RefCell::default(),
        }
    }

    fn pick(&self) -> &Backend {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        &self.backends[turn % self.backends.len()]
    }

    fn take_buffer(&self) -> Vec<u8> {
        self.buffers
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        if buffer.capacity() == BUFFER_BYTES {
            self.buffers.borrow_mut().push(buffer);
        }
    }
}

impl Backend {
    /// An idle connection, or a new one. `None` when the backend cannot be reached.
    async fn connection(&self) -> Option<TcpStream> {
        let idle = self.idle.borrow_mut().pop();
        if idle.is_some() {
            return idle;
        }
        match TcpStream::connect_addr(self.address).await {
            Ok(connection) => {
                // An optimisation: where it fails, the bytes still arrive.
                let _ = connection.set_nodelay(true);
                Some(connection)
            }
            Err(error) => {
                eprintln!("prototype: cannot connect to {}: {error}", self.address);
                None
            }
        }
    }
}

/// Serves one client connection until it ends, or until anything goes wrong on either side.
async fn serve_client(mut client: TcpStream, pool: Rc<Pool>) {
    let _ = client.set_nodelay(true);
    let mut received = pool.take_buffer();
    loop {
        let head_bytes;
        (head_bytes, received) = match read_head(&mut client, received).await {
            Head::Complete(head_bytes, buffer) => (head_bytes, buffer),
            Head::End(buffer) => return pool.give_back(buffer),
            Head::Bad => return,
        };
        let mut outgoing = pool.take_buffer();
        if write_request_head(&received, &mut outgoing).is_none() {
            return;
        }
        received.drain(..head_bytes);

        let backend = pool.pick();
        let Some(mut connection) = backend.connection().await else {
            return;
        };
        let (sent, buffer) = connection.write_all(outgoing).await;
        if sent.is_err() {
            return;
        }
        let Some(buffer) = relay_answer(&mut connection, &mut client, buffer).await else {
            return;
        };
        pool.give_back(buffer);
        backend.idle.borrow_mut().push(connection);
    }
}

enum Head {
    /// A whole head stands at the start of the buffer: its length, and the buffer.
    Complete(usize, Vec<u8>),
    /// The client is gone.
    End(Vec<u8>),
    /// What came is not HTTP.
    Bad,
}

/// Reads until `buffer` starts with a whole request head.
async fn read_head(client: &mut TcpStream, mut buffer: Vec<u8>) -> Head {
    loop {
        if !buffer.is_empty() {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            match httparse::Request::new(&mut headers).parse(&buffer) {
                Ok(httparse::Status::Complete(head_bytes)) => return Head::Complete(head_bytes, buffer),
                Ok(httparse::Status::Partial) => {}
                Err(_) => return Head::Bad,
            }
        }
        let read;
        (read, buffer) = read_more(client, buffer).await;
        if matches!(read, Ok(0) | Err(_)) {
            return Head::End(buffer);
        }
    }
}

/// One read behind what `buffer` holds.
async fn read_more(from: &mut TcpStream, buffer: Vec<u8>) -> (std::io::Result<usize>, Vec<u8>) {
    let filled = buffer.len();
    let (read, slice) = from.read(buffer.slice_mut(filled..)).await;
    (read, slice.into_inner())
}

/// Writes the head at the start of `received` anew into `outgoing`, without `Connection` and with `X-Forwarded-For`.
/// It is parsed a second time here: a table of offsets that outlives the read is weir's business, not a yardstick's.
fn write_request_head(received: &[u8], outgoing: &mut Vec<u8>) -> Option<()> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(received).ok()?;
    outgoing.extend_from_slice(request.method?.as_bytes());
    outgoing.push(b' ');
    outgoing.extend_from_slice(request.path?.as_bytes());
    outgoing.extend_from_slice(b" HTTP/1.1\r\n");
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("connection") {
            continue;
        }
        outgoing.extend_from_slice(header.name.as_bytes());
        outgoing.extend_from_slice(b": ");
        outgoing.extend_from_slice(header.value);
        outgoing.extend_from_slice(b"\r\n");
    }
    outgoing.extend_from_slice(b"X-Forwarded-For: 127.0.0.1\r\n\r\n");
    Some(())
}

/// Carries one whole answer; gives the buffer back, empty. `None` when either side failed or the answer is no HTTP.
async fn relay_answer(
    backend: &mut TcpStream,
    client: &mut TcpStream,
    mut buffer: Vec<u8>,
) -> Option<Vec<u8>> {
    buffer.clear();
    let mut remaining: Option<usize> = None;
    loop {
        let read;
        (read, buffer) = read_more(backend, buffer).await;
        let count = match read {
            Ok(0) | Err(_) => return None,
            Ok(count) => count,
        };
        let left = match remaining {
            Some(left) => left.checked_sub(count)?,
            None => match answer_bytes(&buffer)? {
                Some(answer_bytes) => answer_bytes.checked_sub(buffer.len())?,
                None => continue,
            },
        };
        let sent;
        (sent, buffer) = client.write_all(buffer).await;
        sent.ok()?;
        buffer.clear();
        if left == 0 {
            return Some(buffer);
        }
        remaining = Some(left);
    }
}

/// Length of the whole answer that `received` starts with, head included; `Some(None)` while the head is incomplete.
fn answer_bytes(received: &[u8]) -> Option<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = response.parse(received).ok()? else {
        return Some(None);
    };
    let body_bytes = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok())
        .and_then(|text| text.parse::<usize>().ok())
        .unwrap_or(0);
    Some(Some(head_bytes.checked_add(body_bytes)?))
}

async fn serve(options: Options) -> Result<()> {
    let listener_options = ListenerOpts::new().reuse_port(false).backlog(BACKLOG);
    let listener = TcpListener::bind_with_config(options.listen, &listener_options)
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    let pool = Rc::new(Pool::new(options.backends));
    loop {
        let (client, _) = listener
            .accept()
            .await
            .map_err(|error| format!("accept: {error}"))?;
        monoio::spawn(serve_client(client, pool.clone()));
    }
}

fn run() -> Result<()> {
    let options = Options::from_args(std::env::args().skip(1))?;
    let mut ring = io_uring::IoUring::builder();
    match options.ring {
        RingFlags::Defer => {
            ring.setup_single_issuer().setup_defer_taskrun();
        }
        RingFlags::Coop => {
            ring.setup_coop_taskrun();
        }
        RingFlags::Plain => {}
    }
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .uring_builder(ring)
        .build()
        .map_err(|error| format!("cannot make an io_uring runtime: {error}"))?;
    runtime.block_on(serve(options))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("prototype: {message}");
            ExitCode::FAILURE
        }
    }
}

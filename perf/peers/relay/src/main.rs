//! A byte relay on monoio: the floor for any proxy on this runtime.
//!
//! A yardstick, not a product. It reads no HTTP: each client connection gets one backend connection, one read from the
//! client counts as one request, and the answer is over after as many bytes as the command line says. There are no
//! timeouts, no checks and no limits, and clients that pipeline or split a request break it. What a real proxy costs
//! beyond this is what it does for its users.
//!
//! One thread, one ring with `SINGLE_ISSUER | DEFER_TASKRUN`; pin it from outside.
//!
//! ```text
//! relay PORT ANSWER_BYTES BUFFER_BYTES BACKEND_PORT...
//! ```

use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: relay PORT ANSWER_BYTES BUFFER_BYTES BACKEND_PORT...";
const RING_ENTRIES: u32 = 4096;
const BACKLOG: i32 = 4096;

type Result<T> = std::result::Result<T, String>;

struct Options {
    listen: SocketAddr,
    /// Length of one whole answer, head included.
    answer_bytes: usize,
    buffer_bytes: usize,
    backends: Vec<SocketAddr>,
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let listen = loopback(&next(&mut args, "PORT")?)?;
        let answer_bytes = number(&next(&mut args, "ANSWER_BYTES")?)?;
        let buffer_bytes = number(&next(&mut args, "BUFFER_BYTES")?)?;
        let backends = args.map(|port| loopback(&port)).collect::<Result<Vec<_>>>()?;
        if backends.is_empty() {
            return Err(format!("no BACKEND_PORT given\n{USAGE}"));
        }
        Ok(Self {
            listen,
            answer_bytes,
            buffer_bytes,
            backends,
        })
    }
}

fn next(args: &mut impl Iterator<Item = String>, name: &str) -> Result<String> {
    args.next().ok_or_else(|| format!("no {name} given\n{USAGE}"))
}

fn number<T: FromStr>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| format!("'{text}' is not a number in range\n{USAGE}"))
}

fn loopback(port: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], number::<u16>(port)?)))
}

/// Carries one client connection until either side ends or fails; a failure of either is the end of both.
async fn relay(mut client: TcpStream, address: SocketAddr, answer_bytes: usize, buffer_bytes: usize) {
    let Ok(mut backend) = TcpStream::connect_addr(address).await else {
        return;
    };
    // An optimisation: where it fails, the bytes still arrive.
    let _ = client.set_nodelay(true);
    let _ = backend.set_nodelay(true);

    let mut buffer = Vec::with_capacity(buffer_bytes);
    while copy(&mut client, &mut backend, &mut buffer).await.is_some() {
        let mut answered = 0;
        while answered < answer_bytes {
            match copy(&mut backend, &mut client, &mut buffer).await {
                Some(count) => answered += count,
                None => return,
            }
        }
    }
}

/// Reads once and writes what came. `None` when there is nothing more to carry.
async fn copy(from: &mut TcpStream, to: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<usize> {
    let mut lent = std::mem::take(buffer);
    lent.clear();
    let (read, lent) = from.read(lent).await;
    let count = match read {
        Ok(0) | Err(_) => return None,
        Ok(count) => count,
    };
    let (written, lent) = to.write_all(lent).await;
    *buffer = lent;
    written.ok().map(|_| count)
}

async fn serve(options: Options) -> Result<()> {
    let listener_options = ListenerOpts::new().reuse_port(false).backlog(BACKLOG);
    let listener = TcpListener::bind_with_config(options.listen, &listener_options)
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    for &backend in options.backends.iter().cycle() {
        let (client, _) = listener
            .accept()
            .await
            .map_err(|error| format!("accept: {error}"))?;
        monoio::spawn(relay(client, backend, options.answer_bytes, options.buffer_bytes));
    }
    Ok(())
}

fn run() -> Result<()> {
    let options = Options::from_args(std::env::args().skip(1))?;
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
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
            eprintln!("relay: {message}");
            ExitCode::FAILURE
        }
    }
}

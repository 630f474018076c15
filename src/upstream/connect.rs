//! Opening a connection to a backend: socket options, its addresses in order, all within one time-out.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::config::model::Upstream as Settings;
use crate::reason::Reason;
use crate::sys;
use crate::transport::{NOTSENT_LOWAT, RECEIVE_BUFFER_FIRST, Transport};
use crate::upstream::backend::{Address, Backend};

/// How long to wait before asking again when a Unix socket's queue is full or descriptors have run out.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Why no connection came about, with the last address's error.
#[derive(Debug)]
pub struct ConnectError {
    pub reason: Reason,
    pub error: io::Error,
}

impl ConnectError {
    pub fn new(reason: Reason, error: io::Error) -> Self {
        ConnectError { reason, error }
    }

    /// What an error of [`connect_address`] means.
    pub fn from_io(error: io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::TimedOut => Reason::ConnectTimeout,
            io::ErrorKind::AddrNotAvailable => Reason::OutOfPorts,
            _ => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Reason::Overload,
                _ => Reason::ConnectRefused,
            },
        };
        ConnectError { reason, error }
    }
}

/// Connects to the first address of `backend` that accepts within `timeout`.
///
/// `nonblocking` says how the driver wants its sockets once they are connected.
pub async fn connect(
    backend: &Arc<Backend>,
    settings: &Settings,
    timeout: Duration,
    nonblocking: bool,
) -> Result<Transport, ConnectError> {
    let give_up = Instant::now() + timeout;
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the backend has no address");
    let count = backend.addresses.len();
    for (tried, (position, address)) in backend.addresses_to_try().enumerate() {
        let left = give_up.saturating_duration_since(Instant::now());
        // A silent first address must leave some of the time to the others.
        let share = if tried + 1 < count { left / 2 } else { left };
        let attempt = monoio::time::timeout(share, connect_address(address, settings, nonblocking)).await;
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(transport) => {
                backend.set_last_good(position);
                return Ok(transport);
            }
            Err(error) => last = error,
        }
    }
    Err(ConnectError::from_io(last))
}

/// Connects to one address, however long that takes.
pub async fn connect_address(
    address: &Address,
    settings: &Settings,
    nonblocking: bool,
) -> io::Result<Transport> {
    let transport = match address {
        Address::Tcp(address) => {
            let socket = tcp_socket(*address, settings)?;
            match socket.connect(&SockAddr::from(*address)) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                _ => {}
            }
            Transport::from(monoio::net::TcpStream::from_std(socket.into())?)
        }
        Address::Unix(path) => unix(&SockAddr::unix(path)?).await?,
        Address::Abstract(name) => {
            // A path that begins with NUL is an abstract name (unix(7)).
            let path = [&[0], name.as_slice()].concat();
            unix(&SockAddr::unix(OsStr::from_bytes(&path))?).await?
        }
    };
    transport.writable().await?;
    if let Some(error) = transport.take_error()? {
        return Err(error);
    }
    if !nonblocking {
        transport.set_nonblocking(false)?;
    }
    Ok(transport)
}

/// A Unix socket connects at once or says `EAGAIN` while the listener's queue is full; the caller's time-out bounds the
/// attempts.
async fn unix(address: &SockAddr) -> io::Result<Transport> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    loop {
        match socket.connect(address) {
            Ok(()) => return Ok(Transport::from(monoio::net::UnixStream::from_std(socket.into())?)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => monoio::time::sleep(RETRY_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

fn tcp_socket(address: std::net::SocketAddr, settings: &Settings) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // What is set before the connection is made bounds the window's scale for good: a larger one waits for the first large
    // body.
    if settings.receive_buffer < RECEIVE_BUFFER_FIRST {
        socket.set_recv_buffer_size(settings.receive_buffer)?;
    }
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    if let Some(time) = settings.tcp_keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time))?;
    }
    if settings.tcp_user_timeout.is_some() {
        socket.set_tcp_user_timeout(settings.tcp_user_timeout)?;
    }
    if let Some(source) = settings.source_address {
        sys::set_bind_address_no_port(socket.as_raw_fd())?;
        socket.bind(&SockAddr::from(std::net::SocketAddr::new(source, 0)))?;
    }
    Ok(socket)
}

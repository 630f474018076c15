//! Listening sockets: opened by the control thread before any worker runs, one per worker where the kernel can share an
//! address, and accepted from without losing a connection that waits when the listener closes.
//!
//! A worker waits for readability in its ring and then accepts until nothing waits. So stopping cancels a poll, never an
//! accept that may already hold a connection.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::config::model::{ListenAddress, Server};
use crate::transport::{NOTSENT_LOWAT, Peer, Transport};

/// Where a listener listens once it does: with the real port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoundAddress::Tcp(address) => address.fmt(f),
            BoundAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One listening socket; non-blocking.
#[derive(Debug)]
pub enum Listener {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

/// An accepted socket, not yet in any runtime; blocking.
pub enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(UnixStream),
}

impl Accepted {
    /// Brings the socket into the current thread's runtime. accept(2) gives blocking sockets, whatever the listener is.
    pub fn into_transport(self, nonblocking: bool) -> io::Result<Transport> {
        match self {
            Accepted::Tcp(stream) => {
                if nonblocking {
                    stream.set_nonblocking(true)?;
                }
                monoio::net::TcpStream::from_std(stream).map(Transport::from)
            }
            Accepted::Unix(stream) => {
                if nonblocking {
                    stream.set_nonblocking(true)?;
                }
                monoio::net::UnixStream::from_std(stream).map(Transport::from)
            }
        }
    }
}

impl Listener {
    /// One connection that waits.
    ///
    /// # Errors
    /// `WouldBlock` when none does; what accept(2) says otherwise.
    pub fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Accepted::Tcp(stream), Some(peer.ip().to_canonical())))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                Ok((Accepted::Unix(stream), None))
            }
        }
    }

    /// Stops listening at once, whatever other descriptors of the socket are still open. A Unix socket is shared by all
    /// workers and stops with its last descriptor.
    pub fn stop_listening(&self) {
        if let Listener::Tcp(listener) = self {
            // A socket that does not listen any more is what was asked for.
            let _ = socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Read);
        }
    }

    /// A second descriptor of the same socket.
    pub fn try_clone(&self) -> io::Result<Listener> {
        Ok(match self {
            Listener::Tcp(listener) => Listener::Tcp(listener.try_clone()?),
            Listener::Unix(listener) => Listener::Unix(listener.try_clone()?),
        })
    }
}

/// The sockets of one configured address: one for each worker.
#[derive(Debug)]
pub struct ListenerSet {
    pub address: BoundAddress,
    pub per_worker: Vec<Listener>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}{hint}")]
pub struct BindError {
    pub address: String,
    pub error: io::Error,
    hint: &'static str,
}

impl BindError {
    /// With what a person may do about it.
    pub fn new(address: impl fmt::Display, error: io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => " (another process listens there; `ss -ltnp` names it)",
            io::ErrorKind::PermissionDenied => " (a port below 1024 needs CAP_NET_BIND_SERVICE)",
            io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
            _ => "",
        };
        BindError {
            address: address.to_string(),
            error,
            hint,
        }
    }
}

/// Opens every configured address for `workers` workers.
///
/// # Errors
/// The first address that cannot be opened; those already open close again.
pub fn open_all(server: &Server, workers: usize) -> Result<Vec<ListenerSet>, BindError> {
    server
        .address
        .iter()
        .map(|address| open(address, server.backlog, workers))
        .collect()
}

/// Opens one address for `workers` workers.
///
/// # Errors
/// It cannot be listened on.
pub fn open(address: &ListenAddress, backlog: u32, workers: usize) -> Result<ListenerSet, BindError> {
    match address {
        ListenAddress::Any { port } => {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            match open_tcp(any, backlog, workers) {
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    let any = SocketAddr::from(([0, 0, 0, 0], *port));
                    open_tcp(any, backlog, workers).map_err(|error| BindError::new(any, error))
                }
                result => result.map_err(|error| BindError::new(format_args!(":{port}"), error)),
            }
        }
        ListenAddress::Tcp(address) => {
            open_tcp(*address, backlog, workers).map_err(|error| BindError::new(address, error))
        }
        ListenAddress::Unix(path) => open_unix(path, backlog, workers)
            .map_err(|error| BindError::new(format_args!("unix:{}", path.display()), error)),
    }
}

/// The first socket is bound without `SO_REUSEPORT`, so that a port that another process has is an error even if that
/// process shares it; the option is set after the bind, and the other workers' sockets join on the actual port.
fn open_tcp(address: SocketAddr, backlog: u32, workers: usize) -> io::Result<ListenerSet> {
    let first = tcp_socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let actual = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        let socket = tcp_socket(actual)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(actual))?;
        sockets.push(socket);
    }
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let mut per_worker = Vec::with_capacity(workers);
    for socket in sockets {
        socket.listen(backlog)?;
        per_worker.push(Listener::Tcp(socket.into()));
    }
    Ok(ListenerSet {
        address: BoundAddress::Tcp(actual),
        per_worker,
    })
}

/// Options set here are inherited by every accepted socket: no system call per connection.
fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket file that nobody listens on any more is replaced; one that somebody does is an error.
fn open_unix(path: &Path, backlog: u32, workers: usize) -> io::Result<ListenerSet> {
    use std::os::unix::fs::FileTypeExt;
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    let first = Listener::Unix(socket.into());
    let mut per_worker = Vec::with_capacity(workers);
    for _ in 1..workers {
        per_worker.push(first.try_clone()?);
    }
    per_worker.push(first);
    Ok(ListenerSet {
        address: BoundAddress::Unix(path.to_owned()),
        per_worker,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn every_worker_gets_a_socket_on_the_same_port_and_a_stranger_gets_none() {
        let set = open_tcp(loopback(), 16, 3).expect("loopback");
        assert_eq!(set.per_worker.len(), 3);
        let BoundAddress::Tcp(actual) = set.address else {
            panic!("a TCP address")
        };
        assert_ne!(actual.port(), 0);
        let error = open_tcp(actual, 16, 1).expect_err("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_dead_unix_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("weir.sock");
        let set = open_unix(&path, 16, 2).expect("a free path");
        assert_eq!(set.per_worker.len(), 2);
        assert_eq!(
            open_unix(&path, 16, 1).expect_err("taken").kind(),
            io::ErrorKind::AddrInUse
        );
        drop(set);
        open_unix(&path, 16, 1).expect("nobody listens any more");
    }
}

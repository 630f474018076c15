//! The way from a worker to the control thread for a request that came in on the main port and that weir answers itself.
//!
//! An abstract Unix socket, which has no path to clean up or to protect by permissions. Its name is random only so that
//! instances do not meet; what keeps others out is that a connection of another process is closed unread (`SO_PEERCRED`).
//! A worker talks to it as if it were a backend.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process;

use tokio::net::UnixStream;

/// How often another name is tried when one is taken.
const NAME_ATTEMPTS: u32 = 8;

/// Opens the socket; gives it with its abstract name, without the leading NUL.
pub fn bind() -> io::Result<(UnixListener, String)> {
    let mut attempt = 0;
    loop {
        // `RandomState` is keyed by the system's random source.
        let name = format!(
            "weir-{}-{:016x}",
            process::id(),
            RandomState::new().hash_one(attempt)
        );
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?) {
            Ok(listener) => return Ok((listener, name)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Whether the other end was opened by this very process.
pub(super) fn is_ourselves(stream: &UnixStream) -> bool {
    let pid = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
    pid.and_then(|pid| u32::try_from(pid).ok()) == Some(process::id())
}

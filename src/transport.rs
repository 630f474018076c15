//! One byte stream, whatever carries it: TCP, a Unix socket, or memory (tests, benches, fuzzing).
//!
//! A [`Transport`] is used through `&self`: one task may read while another writes. Whoever wants to end what a task
//! waits for calls [`Transport::abort`]; it never touches a descriptor's number itself. Owned by a [`crate::wire::Wire`].
//!
//! The futures of `read` and `write` are blocks that capture, not `async fn`s: those keep their arguments twice, and what
//! they take counts for every connection.
//!
//! `unsafe` here: monoio's traits ask for `&mut self` though its sockets may be read and written at once.

use std::cell::UnsafeCell;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsRawFd;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::{TcpStream, UnixStream};
use socket2::SockRef;

use crate::buffer::Buffer;
use crate::sys;

/// Bytes not yet sent that the kernel takes for one connection before a write waits (`TCP_NOTSENT_LOWAT`): bounds what a
/// client that does not read can hold.
pub const NOTSENT_LOWAT: u32 = 128 * 1024;
/// What the kernel may hold (`SO_RCVBUF`) of the first large bodies that come over a connection. A smaller limit is set before
/// the connection is made, a larger one once so much came that somebody must have taken it.
pub const RECEIVE_BUFFER_FIRST: usize = 128 * 1024;

/// Who is at the other end: nobody has an address on a Unix socket.
pub type Peer = Option<IpAddr>;

/// A connected byte stream.
pub enum Transport {
    Tcp(UnsafeCell<TcpStream>),
    Unix(UnsafeCell<UnixStream>),
    Memory(crate::memory::End),
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Transport::Tcp(UnsafeCell::new(stream))
    }
}

impl From<UnixStream> for Transport {
    fn from(stream: UnixStream) -> Self {
        Transport::Unix(UnsafeCell::new(stream))
    }
}

/// Runs `$body` with the socket, which must not be used beyond it.
macro_rules! with_socket {
    ($self:ident, $socket:ident => $body:expr, $end:ident => $memory:expr) => {
        match $self {
            Transport::Tcp(cell) => {
                // SAFETY: `Transport` is not `Sync`, and no reference made here outlives this expression.
                let $socket = unsafe { &*cell.get() };
                $body
            }
            Transport::Unix(cell) => {
                // SAFETY: as above.
                let $socket = unsafe { &*cell.get() };
                $body
            }
            Transport::Memory($end) => $memory,
        }
    };
}

impl Transport {
    /// Reads once into the free part of `buffer`: `Ok(0)` is the end. A buffer without free space is an error.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would keep the buffer twice; see the module"
    )]
    pub fn read(&self, buffer: Buffer) -> impl Future<Output = (io::Result<usize>, Buffer)> {
        async move {
            if buffer.spare() == 0 {
                return (Err(io::ErrorKind::OutOfMemory.into()), buffer);
            }
            match self {
                Transport::Tcp(cell) => {
                    // SAFETY: monoio submits the operation inside `read` and its future keeps only a counted handle of
                    // the socket, so the exclusive reference is gone when the call returns; `TcpStream: Split` says
                    // that a read and a write may be under way at once.
                    let read = unsafe { &mut *cell.get() }.read(buffer);
                    read.await
                }
                Transport::Unix(cell) => {
                    // SAFETY: as above, `UnixStream: Split`.
                    let read = unsafe { &mut *cell.get() }.read(buffer);
                    read.await
                }
                Transport::Memory(end) => end.read(buffer).await,
            }
        }
    }

    /// Sends some of the filled part of `buffer` and says how much; nothing is consumed from it.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` would keep the buffer twice; see the module"
    )]
    pub fn write(&self, buffer: Buffer) -> impl Future<Output = (io::Result<usize>, Buffer)> {
        async move {
            match self {
                Transport::Tcp(cell) => {
                    // SAFETY: as in `read`.
                    let write = unsafe { &mut *cell.get() }.write(buffer);
                    write.await
                }
                Transport::Unix(cell) => {
                    // SAFETY: as in `read`.
                    let write = unsafe { &mut *cell.get() }.write(buffer);
                    write.await
                }
                Transport::Memory(end) => end.write(buffer).await,
            }
        }
    }

    /// Waits until a read would not wait, without holding a buffer.
    pub async fn readable(&self) -> io::Result<()> {
        with_socket!(self, socket => socket.readable(false).await, end => end.readable().await)
    }

    /// Waits until a write would not wait (for a socket that connects: until it has, or has failed).
    pub async fn writable(&self) -> io::Result<()> {
        with_socket!(self, socket => socket.writable(false).await, _end => Ok(()))
    }

    /// Says that nothing more will be sent; reading goes on.
    pub fn half_close(&self) {
        self.shutdown(Shutdown::Write);
    }

    /// Ends whatever waits to read; sending goes on.
    pub fn end_reads(&self) {
        self.shutdown(Shutdown::Read);
    }

    /// Ends whatever waits on this transport, in both directions, now.
    pub fn abort(&self) {
        self.shutdown(Shutdown::Both);
    }

    fn shutdown(&self, how: Shutdown) {
        // A socket that is already gone is what was asked for.
        with_socket!(
            self,
            socket => drop(SockRef::from(&sys::borrow(socket)).shutdown(how)),
            end => end.shutdown(how)
        );
    }

    /// Makes the close that follows a reset, so that the peer cannot take what it got for a whole.
    pub fn reset_on_close(&self) {
        with_socket!(
            self,
            socket => drop(SockRef::from(&sys::borrow(socket)).set_linger(Some(Duration::ZERO))),
            end => end.reset_on_close()
        );
    }

    /// Whether nothing came from the peer, not even its end.
    pub fn is_quiet(&self) -> bool {
        with_socket!(self, socket => sys::is_quiet(socket.as_raw_fd()), end => end.is_quiet())
    }

    /// Whether bytes from the peer wait to be read.
    pub fn has_bytes(&self) -> bool {
        with_socket!(self, socket => sys::has_bytes(socket.as_raw_fd()), end => end.has_bytes())
    }

    /// Whether the peer reset the connection, or is gone altogether. Its end of sending alone does not count.
    pub fn is_reset(&self) -> bool {
        with_socket!(self, socket => sys::is_hung_up(&sys::borrow(socket)), end => end.is_broken())
    }

    /// The kernel may hold `bytes` of what is not read yet, from now on and no more (`SO_RCVBUF`, which it doubles for its
    /// own needs); the window follows.
    pub fn hold_received(&self, bytes: usize) {
        // Without it, the kernel goes on by its own measure.
        with_socket!(
            self,
            socket => {
                drop(SockRef::from(&sys::borrow(socket)).set_recv_buffer_size(bytes));
                drop(sys::set_window_clamp(socket.as_raw_fd(), bytes));
            },
            _end => ()
        );
    }

    /// The pending error of the socket, taken (`SO_ERROR`).
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        with_socket!(self, socket => SockRef::from(&sys::borrow(socket)).take_error(), _end => Ok(None))
    }

    /// Sets `O_NONBLOCK` as the driver wants it: epoll needs it, io_uring must not have it.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        with_socket!(self, socket => SockRef::from(&sys::borrow(socket)).set_nonblocking(on), _end => Ok(()))
    }
}

impl From<crate::memory::End> for Transport {
    fn from(end: crate::memory::End) -> Self {
        Transport::Memory(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::DriverChoice;
    use crate::server::driver::{Runtime, climb};

    #[test]
    fn the_kernel_holds_what_it_is_told_on_a_connection_that_stands() {
        let mut climbed = climb(DriverChoice::Auto, |step| Runtime::build(step, 64)).unwrap();
        climbed.runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let transport = Transport::from(TcpStream::from_std(stream).unwrap());
            transport.hold_received(256 * 1024);
            let Transport::Tcp(cell) = &transport else {
                unreachable!("it was made of a TCP stream")
            };
            // SAFETY: nothing else uses the socket.
            let socket = unsafe { &*cell.get() };
            let descriptor = sys::borrow(socket);
            let socket = SockRef::from(&descriptor);
            // The kernel doubles it.
            assert_eq!(socket.recv_buffer_size().unwrap(), 2 * 256 * 1024);
        });
    }
}

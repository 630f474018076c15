//! One end of a connection, for scripted clients and backends alike: sends exactly what it is told, reads with a
//! deadline, and tells an end from a reset.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::DEADLINE;
use super::http::{Framing, Head, Message, text};

/// How a connection stopped giving bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer said that no more will come.
    Closed,
    /// The peer, or the kernel for it, reset the connection.
    Reset,
    /// Nothing came until the deadline.
    Silent,
    /// What came is not HTTP as it should be.
    Malformed(String),
}

/// A message that did not become whole: how it ended and what of it had come.
#[derive(Clone)]
pub struct Broken {
    pub end: End,
    pub got: Vec<u8>,
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.got[..self.got.len().min(2000)];
        write!(
            f,
            "{:?} after {} bytes: {:?}",
            self.end,
            self.got.len(),
            text(shown)
        )
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken {
            end: End::of(&error),
            got: Vec::new(),
        }
    }
}

impl End {
    fn of(error: &io::Error) -> End {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => End::Reset,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => End::Silent,
            _ => End::Malformed(error.to_string()),
        }
    }
}

enum Sock {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Told of every byte that is read (`Some`) and of the end (`None`).
type Tap = Box<dyn FnMut(Result<&[u8], &End>) + Send>;

pub struct Wire {
    sock: Sock,
    buf: Vec<u8>,
    tap: Option<Tap>,
    deadline: Duration,
}

impl Wire {
    /// Connects to `host:port` or `unix:/path`.
    pub fn connect(address: &str) -> Wire {
        Wire::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub fn try_connect(address: &str) -> io::Result<Wire> {
        match address.strip_prefix("unix:") {
            Some(path) => Ok(Wire::over_unix(UnixStream::connect(path)?)),
            None => {
                let address = address.parse().map_err(io::Error::other)?;
                Ok(Wire::over_tcp(TcpStream::connect_timeout(&address, DEADLINE)?))
            }
        }
    }

    /// Connects from an address of this machine, such as one of 127.0.0.0/8.
    pub fn connect_from(source: &str, address: &str) -> io::Result<Wire> {
        let source: std::net::IpAddr = source.parse().map_err(io::Error::other)?;
        let address: std::net::SocketAddr = address.parse().map_err(io::Error::other)?;
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.bind(&std::net::SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&address.into(), DEADLINE)?;
        Ok(Wire::over_tcp(socket.into()))
    }

    pub fn over_tcp(sock: TcpStream) -> Wire {
        sock.set_nodelay(true).expect("TCP_NODELAY on an open socket");
        Wire::over(Sock::Tcp(sock))
    }

    pub fn over_unix(sock: UnixStream) -> Wire {
        Wire::over(Sock::Unix(sock))
    }

    fn over(sock: Sock) -> Wire {
        let wire = Wire {
            sock,
            buf: Vec::new(),
            tap: None,
            deadline: DEADLINE,
        };
        wire.set_timeouts(DEADLINE);
        wire
    }

    fn set_timeouts(&self, timeout: Duration) {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match &self.sock {
            Sock::Tcp(sock) => sock
                .set_read_timeout(timeout)
                .and(sock.set_write_timeout(timeout)),
            Sock::Unix(sock) => sock
                .set_read_timeout(timeout)
                .and(sock.set_write_timeout(timeout)),
        }
        .expect("a timeout on an open socket");
    }

    /// Replaces the deadline of every later read and write.
    pub fn deadline(mut self, deadline: Duration) -> Wire {
        self.deadline = deadline;
        self.set_timeouts(deadline);
        self
    }

    pub fn tap(&mut self, tap: Tap) {
        self.tap = Some(tap);
    }

    /// A second handle on the same socket, for sending and receiving at once from two threads.
    pub fn split(&self) -> Wire {
        let sock = match &self.sock {
            Sock::Tcp(sock) => Sock::Tcp(sock.try_clone().expect("a clone of an open socket")),
            Sock::Unix(sock) => Sock::Unix(sock.try_clone().expect("a clone of an open socket")),
        };
        Wire {
            sock,
            buf: Vec::new(),
            tap: None,
            deadline: self.deadline,
        }
    }

    /// This end's address, as the peer sees it.
    pub fn local(&self) -> String {
        match &self.sock {
            Sock::Tcp(sock) => sock
                .local_addr()
                .expect("an open socket has an address")
                .to_string(),
            Sock::Unix(_) => "unix:".to_owned(),
        }
    }

    /// Bounds what the kernel takes in for a reader that does not read.
    pub fn set_receive_buffer(&self, bytes: usize) {
        if let Sock::Tcp(sock) = &self.sock {
            socket2::SockRef::from(sock)
                .set_recv_buffer_size(bytes)
                .expect("SO_RCVBUF");
        }
    }

    /// Bounds what the kernel holds for a peer that does not read.
    pub fn set_send_buffer(&self, bytes: usize) {
        if let Sock::Tcp(sock) = &self.sock {
            socket2::SockRef::from(sock)
                .set_send_buffer_size(bytes)
                .expect("SO_SNDBUF");
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .unwrap_or_else(|broken| panic!("cannot send: {broken:?}"));
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Broken> {
        match &mut self.sock {
            Sock::Tcp(sock) => sock.write_all(bytes.as_ref())?,
            Sock::Unix(sock) => sock.write_all(bytes.as_ref())?,
        }
        Ok(())
    }

    /// Sends in pieces with a pause between them, each its own packet.
    pub fn send_slowly(&mut self, bytes: &[u8], piece: usize, pause: Duration) -> Result<(), Broken> {
        for piece in bytes.chunks(piece) {
            self.try_send(piece)?;
            thread::sleep(pause);
        }
        Ok(())
    }

    /// Sends until the peer takes no more for `patience`; returns how many bytes went.
    pub fn send_until_blocked(&mut self, bytes: &[u8], patience: Duration) -> usize {
        self.set_timeouts(patience);
        let mut sent = 0;
        while sent < bytes.len() {
            let wrote = match &mut self.sock {
                Sock::Tcp(sock) => sock.write(&bytes[sent..]),
                Sock::Unix(sock) => sock.write(&bytes[sent..]),
            };
            match wrote {
                Ok(n) => sent += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.set_timeouts(self.deadline);
        sent
    }

    /// Sends a request without a body and reads its response.
    pub fn get(&mut self, target: &str) -> Message {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.response("GET")
    }

    /// Says that nothing more will be sent; what the peer sends can still be read.
    pub fn half_close(&mut self) {
        self.shutdown(Shutdown::Write);
    }

    pub fn shutdown(&self, how: Shutdown) {
        let _ = match &self.sock {
            Sock::Tcp(sock) => sock.shutdown(how),
            Sock::Unix(sock) => sock.shutdown(how),
        };
    }

    /// Closes with a reset instead of a clean end.
    pub fn reset(self) {
        self.linger_zero();
    }

    /// From now on every close of the socket is a reset.
    pub fn linger_zero(&self) {
        if let Sock::Tcp(sock) = &self.sock {
            socket2::SockRef::from(sock)
                .set_linger(Some(Duration::ZERO))
                .expect("SO_LINGER");
        }
    }

    /// Ends the connection on the network now, in the way that its close would. A close alone is late while another
    /// test's child, forked but not yet executed, still holds the descriptor.
    pub fn end_now(&self) {
        let Sock::Tcp(sock) = &self.sock else {
            return;
        };
        let resets = socket2::SockRef::from(sock)
            .linger()
            .is_ok_and(|linger| linger.is_some());
        if resets {
            let nobody = libc::sockaddr {
                sa_family: libc::AF_UNSPEC as libc::sa_family_t,
                sa_data: [0; 14],
            };
            let length = size_of::<libc::sockaddr>() as libc::socklen_t;
            // SAFETY: the address is whole and outlives the call. It dissolves the association (connect(2)): a reset.
            unsafe { libc::connect(sock.as_raw_fd(), &raw const nobody, length) };
        } else {
            // One that the script has ended already is fine.
            let _ = sock.shutdown(Shutdown::Write);
        }
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut space = [0; 65536];
        let read = loop {
            let read = match &mut self.sock {
                Sock::Tcp(sock) => sock.read(&mut space),
                Sock::Unix(sock) => sock.read(&mut space),
            };
            // A ring that this process probed and closed interrupts calls while the kernel tears it down.
            if !read
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
            {
                break read;
            }
        };
        let result = match read {
            Ok(0) => Err(End::Closed),
            Ok(n) => Ok(&space[..n]),
            Err(error) => Err(End::of(&error)),
        };
        if let Some(tap) = &mut self.tap {
            tap(result.as_ref().copied());
        }
        self.buf.extend_from_slice(result?);
        Ok(())
    }

    fn need(&mut self, len: usize) -> Result<(), Broken> {
        while self.buf.len() < len {
            self.fill().map_err(|end| self.broken(end))?;
        }
        Ok(())
    }

    fn broken(&mut self, end: End) -> Broken {
        Broken {
            end,
            got: std::mem::take(&mut self.buf),
        }
    }

    /// Exactly `len` bytes.
    pub fn read_exact(&mut self, len: usize) -> Result<Vec<u8>, Broken> {
        self.need(len)?;
        Ok(self.buf.drain(..len).collect())
    }

    /// Whatever is there, at least one byte.
    pub fn read_some(&mut self) -> Result<Vec<u8>, Broken> {
        self.need(1)?;
        Ok(std::mem::take(&mut self.buf))
    }

    /// Everything until the connection ends, and how it ended.
    pub fn read_to_end(&mut self) -> Broken {
        loop {
            if let Err(end) = self.fill() {
                return self.broken(end);
            }
        }
    }

    fn read_until(&mut self, mark: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut from = 0;
        loop {
            if let Some(at) = self.buf[from..]
                .windows(mark.len())
                .position(|window| window == mark)
            {
                return Ok(self.buf.drain(..from + at + mark.len()).collect());
            }
            from = self.buf.len().saturating_sub(mark.len() - 1);
            let len = self.buf.len();
            self.need(len + 1)?;
        }
    }

    /// The next head, of a request or response or 1xx.
    pub fn read_head(&mut self) -> Result<Head, Broken> {
        let raw = self.read_until(b"\r\n\r\n")?;
        Head::parse(&raw).map_err(|why| Broken {
            end: End::Malformed(why),
            got: raw,
        })
    }

    /// A whole request.
    pub fn read_request(&mut self) -> Result<Message, Broken> {
        let head = self.read_head()?;
        let framing = head.request_framing();
        self.read_body(head, framing, Vec::new())
    }

    /// A whole response to `method`, with the 1xx before it; a 101 is a response without a body.
    pub fn read_response(&mut self, method: &str) -> Result<Message, Broken> {
        let mut interim = Vec::new();
        loop {
            let head = self.read_head()?;
            if (100..200).contains(&head.status()) && head.status() != 101 {
                interim.push(head);
                continue;
            }
            let framing = head.response_framing(method);
            return self.read_body(head, framing, interim);
        }
    }

    /// As [`Wire::read_response`]; panics if none comes.
    pub fn response(&mut self, method: &str) -> Message {
        self.read_response(method)
            .unwrap_or_else(|broken| panic!("no response: {broken:?}"))
    }

    /// The body that follows `head`.
    pub fn read_body(
        &mut self,
        head: Head,
        framing: Result<Framing, String>,
        interim: Vec<Head>,
    ) -> Result<Message, Broken> {
        let framing = framing.map_err(|why| Broken {
            end: End::Malformed(why),
            got: head.raw.clone(),
        })?;
        let mut message = Message {
            head,
            framing,
            body: Vec::new(),
            raw_body: Vec::new(),
            trailers: Vec::new(),
            interim,
        };
        match framing {
            Framing::None => {}
            Framing::Length(len) => message.body = self.read_exact(len as usize)?,
            Framing::Chunked => {
                if let Err(mut broken) = self.read_chunks(&mut message) {
                    broken.got.splice(..0, message.raw_body);
                    return Err(broken);
                }
            }
            Framing::Close => {
                let rest = self.read_to_end();
                if rest.end != End::Closed {
                    return Err(rest);
                }
                message.body = rest.got;
            }
        }
        if framing != Framing::Chunked {
            message.raw_body.clone_from(&message.body);
        }
        Ok(message)
    }

    fn read_chunks(&mut self, message: &mut Message) -> Result<(), Broken> {
        let malformed = |why: String, got: &[u8]| Broken {
            end: End::Malformed(why),
            got: got.to_vec(),
        };
        loop {
            let line = self.read_until(b"\r\n")?;
            message.raw_body.extend_from_slice(&line);
            let line = text(&line[..line.len() - 2]);
            let digits = line.split(';').next().unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(malformed(format!("not a chunk line: {line:?}"), b""));
            }
            let size =
                usize::from_str_radix(digits, 16).map_err(|error| malformed(error.to_string(), b""))?;
            if size == 0 {
                break;
            }
            let mut data = self.read_exact(size + 2)?;
            message.raw_body.extend_from_slice(&data);
            if data.split_off(size) != b"\r\n" {
                return Err(malformed("no CRLF behind a chunk".to_owned(), b""));
            }
            message.body.extend_from_slice(&data);
        }
        loop {
            let line = self.read_until(b"\r\n")?;
            message.raw_body.extend_from_slice(&line);
            if line == b"\r\n" {
                return Ok(());
            }
            let head = [b"T\r\n", &line[..], b"\r\n"].concat();
            let head = Head::parse(&head).map_err(|why| malformed(why, b""))?;
            message.trailers.extend(head.fields);
        }
    }

    /// The connection ends without another byte; a clean end or a reset.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let rest = self.read_to_end();
        assert!(
            rest.got.is_empty() && matches!(rest.end, End::Closed | End::Reset),
            "expected the end: {rest:?}"
        );
    }

    /// The connection ends cleanly without another byte.
    #[track_caller]
    pub fn expect_eof(&mut self) {
        let rest = self.read_to_end();
        assert!(
            rest.got.is_empty() && rest.end == End::Closed,
            "expected a clean end: {rest:?}"
        );
    }

    /// Nothing comes and nothing ends for `time`.
    #[track_caller]
    pub fn expect_silence(&mut self, time: Duration) {
        self.set_timeouts(time);
        let start = Instant::now();
        let end = self.fill();
        self.set_timeouts(self.deadline);
        assert_eq!(
            end,
            Err(End::Silent),
            "after {:?}: {:?}",
            start.elapsed(),
            text(&self.buf)
        );
    }

    /// What was read and not yet asked for.
    pub fn leftover(&self) -> &[u8] {
        &self.buf
    }
}

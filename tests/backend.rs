//! `weir backend`, as its users meet it: the real binary over raw sockets, and the library's threads.

mod http {
    //! The little HTTP/1.1 client that these tests need: one connection, answers read by their framing.

    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    /// Longer than any answer here takes; a test that waits for it has failed.
    const PATIENCE: Duration = Duration::from_secs(20);

    pub struct Client {
        reader: BufReader<TcpStream>,
    }

    #[derive(Debug)]
    pub struct Answer {
        pub status: u16,
        /// Names in lower case.
        pub headers: Vec<(String, String)>,
        pub body: Vec<u8>,
    }

    impl Answer {
        pub fn header(&self, name: &str) -> Option<&str> {
            self.headers
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| value.as_str())
        }

        pub fn json(&self) -> serde_json::Value {
            serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
        }
    }

    impl Client {
        pub fn connect(address: SocketAddr) -> Client {
            Client::new(TcpStream::connect(address).expect("connect"))
        }

        pub fn new(stream: TcpStream) -> Client {
            stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
            Client {
                reader: BufReader::new(stream),
            }
        }

        pub fn stream(&mut self) -> &mut TcpStream {
            self.reader.get_mut()
        }

        pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
            self.stream().write_all(bytes.as_ref()).expect("send");
        }

        pub fn get(&mut self, target: &str) -> Answer {
            self.request("GET", target, "", b"")
        }

        /// `fields`: whole lines.
        pub fn request(&mut self, method: &str, target: &str, fields: &str, body: &[u8]) -> Answer {
            let length = if body.is_empty() {
                String::new()
            } else {
                format!("content-length: {}\r\n", body.len())
            };
            self.send(format!(
                "{method} {target} HTTP/1.1\r\nhost: test\r\n{fields}{length}\r\n"
            ));
            self.send(body);
            let mut answer = self.head();
            if method != "HEAD" {
                answer.body = self.body(&answer);
            }
            answer
        }

        pub fn line(&mut self) -> String {
            let mut line = String::new();
            self.reader.read_line(&mut line).expect("a line in time");
            line.trim_end().to_owned()
        }

        pub fn head(&mut self) -> Answer {
            let start = self.line();
            let status = start.split(' ').nth(1).and_then(|status| status.parse().ok());
            let status = status.unwrap_or_else(|| panic!("no status line: {start:?}"));
            let mut headers = Vec::new();
            loop {
                let line = self.line();
                let Some((name, value)) = line.split_once(':') else {
                    assert_eq!(line, "");
                    break;
                };
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            Answer {
                status,
                headers,
                body: Vec::new(),
            }
        }

        pub fn exactly(&mut self, length: usize) -> Vec<u8> {
            let mut bytes = vec![0; length];
            self.reader
                .read_exact(&mut bytes)
                .expect("that many bytes in time");
            bytes
        }

        /// One chunk's data; empty: the last one, whose end was read too.
        pub fn chunk(&mut self) -> Vec<u8> {
            let size = usize::from_str_radix(&self.line(), 16).expect("a chunk size");
            let data = self.exactly(size);
            assert_eq!(self.line(), "");
            data
        }

        fn body(&mut self, answer: &Answer) -> Vec<u8> {
            if matches!(answer.status, 101 | 204 | 304) {
                return Vec::new();
            }
            if let Some(length) = answer.header("content-length") {
                return self.exactly(length.parse().expect("a length"));
            }
            assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "{answer:?}");
            let mut body = Vec::new();
            loop {
                let data = self.chunk();
                if data.is_empty() {
                    return body;
                }
                body.extend(data);
            }
        }

        /// Whether the other side closed, having sent nothing more.
        pub fn is_at_end(&mut self) -> bool {
            match self.reader.fill_buf() {
                Ok(rest) => rest.is_empty(),
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use http::Client;

/// A running `weir backend` on a port of the kernel's choice; killed when dropped.
struct Backend {
    child: Child,
    address: SocketAddr,
}

fn weir_backend() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("backend");
    command
}

impl Backend {
    fn start(options: &[&str]) -> Backend {
        let mut command = weir_backend();
        command.args(["--port", "0"]).args(options).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start weir backend");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the line that says it serves");
        let address = line
            .trim_end()
            .rsplit(' ')
            .next()
            .and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        Backend { child, address }
    }

    fn client(&self) -> Client {
        Client::connect(self.address)
    }

    fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a pid");
        // SAFETY: kill takes no pointers; the child is ours and not yet waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("wait for weir backend")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asserts that nobody serves `address`. A process that another test is just starting holds this process's listeners
/// until its exec: a connection may be opened then, but is closed unanswered.
fn assert_gone(address: SocketAddr) {
    match TcpStream::connect(address) {
        Ok(stream) => assert!(Client::new(stream).is_at_end()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionRefused),
    }
}

fn is_pattern(body: &[u8]) -> bool {
    body.iter()
        .enumerate()
        .all(|(offset, byte)| *byte == weir::backend::pattern_byte(offset as u64))
}

#[test]
fn the_default_answer_says_who_answers_and_what_was_seen() {
    let backend = Backend::start(&["--name", "a"]);
    let fields = "X-Twice: 1\r\nx-other: 2\r\nX-Twice: 3\r\nAuthorization: Basic c2VjcmV0\r\nCookie: id=secret\r\n\
                  Proxy-Authorization: Basic c2VjcmV0\r\nX-Api-Key: secret\r\n";
    let answer = backend
        .client()
        .request("PUT", "/some/\"path\"?q=%20", fields, b"12345");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-backend"), Some("a"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let expected = serde_json::json!({
        "name": "a",
        "port": backend.address.port(),
        "method": "PUT",
        "path": "/some/\"path\"?q=%20",
        "body_bytes": 5,
        "headers": {
            "host": "test",
            "x-twice": ["1", "3"],
            "x-other": "2",
            "authorization": "[redacted]",
            "cookie": "[redacted]",
            "proxy-authorization": "[redacted]",
            "x-api-key": "[redacted]",
            "content-length": "5",
        },
    });
    assert_eq!(answer.json(), expected);
}

#[test]
fn the_name_is_the_port_unless_given() {
    let backend = Backend::start(&[]);
    let expected = format!("backend-{}", backend.address.port());
    assert_eq!(
        backend.client().get("/").header("x-backend"),
        Some(expected.as_str())
    );
}

#[test]
fn a_prescribed_body_is_exactly_that_long() {
    for length in [0, 5, 128, 100_000] {
        let backend = Backend::start(&["--name", "a", "--body-bytes", &length.to_string()]);
        let mut client = backend.client();
        assert_eq!(client.get("/").body.len(), length);
        let head = client.request("HEAD", "/", "", b"");
        // An empty answer to HEAD need not declare a length (RFC 9110 §8.6).
        assert_eq!(head.header("content-length").unwrap_or("0"), length.to_string());
        let second = client.get("/x");
        assert_eq!(second.body.len(), length, "on the same connection");
        if length >= 128 {
            assert_eq!(second.json()["name"], "a");
        }
    }
}

#[test]
fn health_is_exempt_from_what_the_backend_is_told_to_do() {
    let backend = Backend::start(&["--error-rate", "1", "--status", "503", "--delay", "1h"]);
    let mut client = backend.client();
    assert_eq!(client.get("/health").status, 200);
    assert_eq!(client.get("/healthz").status, 200);

    let failing = Backend::start(&["--error-rate", "1"]);
    let answer = failing.client().get("/");
    assert_eq!(answer.status, 500);
    assert_eq!(answer.header("x-backend"), answer.json()["name"].as_str());
}

#[test]
fn statuses() {
    let backend = Backend::start(&["--status", "503"]);
    let mut client = backend.client();
    assert_eq!(client.get("/").status, 503);
    for status in [200, 204, 304, 404, 599] {
        let answer = client.get(&format!("/status/{status}"));
        assert_eq!(answer.status, status);
        assert_eq!(answer.body.is_empty(), matches!(status, 204 | 304), "{status}");
    }
    let created = client.request("POST", "/create-course", "", b"{\"name\":\"go\"}");
    assert_eq!(
        (created.status, created.json()["body_bytes"].as_u64()),
        (201, Some(13))
    );
    let refused = client.get("/create-course");
    assert_eq!((refused.status, refused.header("allow")), (405, Some("POST")));
}

#[test]
fn bodies_of_a_length_and_chunked_hold_the_pattern() {
    let backend = Backend::start(&[]);
    let mut client = backend.client();
    for length in [0, 1, 250, 64_256, 64_257, 3_000_000] {
        let answer = client.get(&format!("/bytes/{length}"));
        assert_eq!(answer.header("content-length"), Some(length.to_string().as_str()));
        assert!(
            answer.body.len() == length && is_pattern(&answer.body),
            "/bytes/{length}"
        );
        let answer = client.get(&format!("/chunked/{length}"));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        assert!(
            answer.body.len() == length && is_pattern(&answer.body),
            "/chunked/{length}"
        );
    }
    let head = client.request("HEAD", "/bytes/1073741824", "", b"");
    assert_eq!(head.header("content-length"), Some("1073741824"));
    assert_eq!(client.get("/health").status, 200, "HEAD had no body");
}

#[test]
fn http_1_0_gets_no_chunks() {
    let backend = Backend::start(&[]);
    let mut client = backend.client();
    client.send("GET /chunked/1000 HTTP/1.0\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    assert!(is_pattern(&client.exactly(1000)));
    assert!(client.is_at_end());
}

#[test]
fn numbers_that_cannot_be_get_a_sentence() {
    let backend = Backend::start(&[]);
    let mut client = backend.client();
    for (target, allowed) in [
        ("/bytes/x", "from 0 to 1073741824"),
        ("/bytes/1073741825", "from 0 to 1073741824"),
        ("/chunked/-1", "from 0 to 1073741824"),
        ("/delay/1e3", "from 0 to 3600000"),
        ("/status/101", "from 200 to 599"),
        ("/status/", "from 200 to 599"),
        ("/sse?count=many", "/sse?count=N"),
        ("/sse?often", "interval=MS"),
    ] {
        let answer = client.get(target);
        assert_eq!(answer.status, 400, "{target}");
        let sentence = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(sentence.contains(allowed), "{target}: {sentence}");
    }
}

#[test]
fn delays_are_kept() {
    let backend = Backend::start(&["--delay", "30ms", "--jitter", "20ms"]);
    let mut client = backend.client();
    let start = Instant::now();
    assert_eq!(client.get("/").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(30));
    let start = Instant::now();
    assert_eq!(client.get("/delay/40").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(70));
}

#[test]
fn echo_sends_back_what_arrives_while_more_is_to_come() {
    let backend = Backend::start(&[]);
    let mut client = backend.client();
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-type: text/x-mine\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("5\r\nhello\r\n");
    let head = client.head();
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("text/x-mine"))
    );
    assert_eq!(client.chunk(), b"hello");
    client.send("6\r\n world\r\n");
    assert_eq!(client.chunk(), b" world");
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk(), b"");

    let body: Vec<u8> = (0..2_000_000_u32)
        .map(|index| (index ^ (index >> 8)) as u8)
        .collect();
    client.send(format!(
        "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    let mut sender = client.stream().try_clone().expect("a second handle");
    let echoed = std::thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&body).expect("send"));
        let head = client.head();
        assert_eq!(
            head.header("content-length"),
            Some(body.len().to_string().as_str())
        );
        client.exactly(body.len())
    });
    assert!(echoed == body);
    assert_eq!(client.get("/health").status, 200, "the connection goes on");
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    let backend = Backend::start(&[]);
    let mut client = backend.client();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status, 100);
    client.send("ok");
    assert_eq!(client.head().status, 200);
}

#[test]
fn events_come_as_many_as_asked_for() {
    let backend = Backend::start(&[]);
    let mut client = backend.client();
    let answer = client.get("/sse?count=3&interval=1");
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events = String::from_utf8(answer.body).expect("text");
    let expected: String = (0..3)
        .map(|n| format!("id: {n}\ndata: {{\"event\":{n}}}\n\n"))
        .collect();
    assert_eq!(events, expected);
}

#[test]
fn an_endless_stream_of_events_ends_cleanly_with_the_backend() {
    let mut backend = Backend::start(&[]);
    let mut client = backend.client();
    client.send("GET /sse?interval=3600000 HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert!(client.chunk().starts_with(b"id: 0\n"), "the first comes at once");
    backend.signal(libc::SIGTERM);
    assert_eq!(client.chunk(), b"", "a last chunk, not an abort");
    assert_eq!(backend.wait().code(), Some(0));
}

#[test]
fn websocket_messages_are_echoed() {
    use tungstenite::Message;
    let backend = Backend::start(&[]);
    let stream = TcpStream::connect(backend.address).expect("connect");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set a timeout");
    let (mut socket, response) =
        tungstenite::client(format!("ws://{}/ws", backend.address), stream).expect("handshake");
    assert!(response.headers().contains_key("x-backend"));
    let messages = [
        Message::text("héllo"),
        Message::binary(vec![7; 300_000]),
        Message::text(""),
    ];
    for message in messages {
        socket.send(message.clone()).expect("send");
        assert!(socket.read().expect("an echo") == message);
    }
    socket.send(Message::Ping("mark".into())).expect("send");
    assert_eq!(socket.read().expect("a pong"), Message::Pong("mark".into()));
    socket.close(None).expect("close");
    assert!(matches!(socket.read(), Ok(Message::Close(_))));
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
}

#[test]
fn websocket_handshakes_are_judged_and_data_behind_them_counts() {
    let backend = Backend::start(&[]);
    let mut client = backend.client();
    assert_eq!(client.get("/ws").status, 400);
    let fields =
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = client.request(
        "GET",
        "/ws",
        &format!("{fields}sec-websocket-version: 8\r\n"),
        b"",
    );
    assert_eq!(
        (answer.status, answer.header("sec-websocket-version")),
        (426, Some("13"))
    );

    // A masked text frame "ab" (mask 0) in the same packet as the handshake.
    let mut bytes =
        format!("GET /ws HTTP/1.1\r\nhost: test\r\n{fields}sec-websocket-version: 13\r\n\r\n").into_bytes();
    bytes.extend_from_slice(b"\x81\x82\0\0\0\0ab");
    client.send(bytes);
    let head = client.head();
    assert_eq!(
        (head.status, head.header("sec-websocket-accept")),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    assert_eq!(client.exactly(4), b"\x81\x02ab");
}

#[test]
fn a_stopping_backend_says_goodbye_to_websockets() {
    use tungstenite::Message;
    use tungstenite::protocol::frame::coding::CloseCode;
    let mut backend = Backend::start(&[]);
    let stream = TcpStream::connect(backend.address).expect("connect");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set a timeout");
    let (mut socket, _) =
        tungstenite::client(format!("ws://{}/ws", backend.address), stream).expect("handshake");
    socket.send(Message::text("here")).expect("send");
    assert_eq!(socket.read().expect("an echo"), Message::text("here"));
    backend.signal(libc::SIGINT);
    match socket.read() {
        Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Away),
        other => panic!("{other:?}"),
    }
    // The next read sends the answer to that.
    let _ = socket.read();
    assert_eq!(backend.wait().code(), Some(0));
}

#[test]
fn die_ends_the_process_and_every_connection() {
    let mut backend = Backend::start(&[]);
    let mut bystander = backend.client();
    assert_eq!(bystander.get("/").status, 200);
    let mut client = backend.client();
    assert_eq!(client.get("/_die").status, 405);
    let answer = client.request("POST", "/_die", "", b"");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(backend.wait().code(), Some(0));
    assert!(bystander.is_at_end());
    assert_gone(backend.address);
}

/// Opens an exchange that is in flight for certain, and stays so until its body ends.
fn in_flight(backend: &Backend) -> Client {
    let mut client = backend.client();
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.chunk(), b"a");
    client
}

#[test]
fn a_signal_closes_what_is_idle_and_finishes_what_is_in_flight() {
    let mut backend = Backend::start(&[]);
    let mut idle = backend.client();
    assert_eq!(idle.get("/").status, 200);
    let mut silent = backend.client();
    let mut busy = in_flight(&backend);
    backend.signal(libc::SIGTERM);
    assert!(idle.is_at_end());
    assert!(silent.is_at_end());
    busy.send("1\r\nb\r\n0\r\n\r\n");
    assert_eq!(busy.chunk(), b"b");
    assert_eq!(busy.chunk(), b"");
    assert_eq!(backend.wait().code(), Some(0));
}

#[test]
fn a_second_signal_cuts_and_says_so_by_exit_code_1() {
    let mut backend = Backend::start(&[]);
    let mut idle = backend.client();
    assert_eq!(idle.get("/").status, 200);
    let mut busy = in_flight(&backend);
    backend.signal(libc::SIGTERM);
    assert!(idle.is_at_end(), "the first signal was seen");
    backend.signal(libc::SIGINT);
    assert_eq!(backend.wait().code(), Some(1));
    assert!(busy.is_at_end());
}

#[test]
fn hangs_get_no_answer_and_do_not_hold_up_the_end() {
    let mut backend = Backend::start(&["--hang-rate", "1"]);
    let mut client = backend.client();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    client
        .stream()
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("set a timeout");
    let mut byte = [0];
    let nothing = client.stream().read(&mut byte).expect_err("no answer");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    assert_eq!(backend.client().get("/health").status, 200);
    backend.signal(libc::SIGTERM);
    assert_eq!(backend.wait().code(), Some(0));
}

/// Sets how the backend behaves from now on.
fn set(client: &mut Client, query: &str) -> serde_json::Value {
    let answer = client.request("POST", &format!("/_set?{query}"), "", b"");
    assert_eq!(answer.status, 200, "{query}");
    answer.json()
}

#[test]
fn what_is_set_counts_from_the_next_request_on() {
    let backend = Backend::start(&[]);
    let mut client = backend.client();
    let mut control = backend.client();
    assert_eq!(client.get("/").status, 200);
    let settings = set(&mut control, "error_rate=1&error_status=503");
    assert_eq!(
        (&settings["error_rate"], &settings["error_status"]),
        (&1.0.into(), &503.into())
    );
    assert_eq!(client.get("/").status, 503, "on an open connection");
    set(&mut control, "error_rate=0&status=404");
    assert_eq!(client.get("/").status, 404);
    set(&mut control, "delay=40ms&status=200");
    let start = Instant::now();
    assert_eq!(client.get("/").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(40));

    let refused = client.request("POST", "/_set?delay=0&errors=1", "", b"");
    assert_eq!(refused.status, 400);
    assert!(
        refused.json()["error"]
            .as_str()
            .is_some_and(|sentence| sentence.contains("errors"))
    );
    let start = Instant::now();
    client.get("/");
    assert!(
        start.elapsed() >= Duration::from_millis(40),
        "a bad query changes nothing"
    );
    assert_eq!(client.get("/_set").status, 405);
}

#[test]
fn health_can_lie_both_ways() {
    let backend = Backend::start(&["--health-status", "503"]);
    let mut client = backend.client();
    assert_eq!((client.get("/health").status, client.get("/").status), (503, 200));
    set(
        &mut client,
        "health=200&hang=1&error_rate=1&abort_rate=1&delay=1h",
    );
    assert_eq!(client.get("/health").status, 200);
    set(&mut client, "health_delay=30ms");
    let start = Instant::now();
    assert_eq!(client.get("/health").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn an_abort_is_a_reset_instead_of_an_answer() {
    let backend = Backend::start(&["--abort-rate", "1"]);
    let mut client = backend.client();
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nab");
    let mut byte = [0];
    let end = client.stream().read(&mut byte).expect_err("a reset, not an end");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_comes_in_the_middle_of_the_body() {
    let backend = Backend::start(&["--reset-rate", "1", "--body-bytes", "100"]);
    let mut client = backend.client();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("100")));
    client.exactly(50);
    let mut byte = [0];
    let end = client.stream().read(&mut byte).expect_err("a reset, not an end");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_was_asked_is_counted_without_probes() {
    let backend = Backend::start(&["--error-rate", "1"]);
    let mut client = backend.client();
    for name in ["a", "b", "a"] {
        client.request("POST", "/", &format!("x-request: {name}\r\n"), b"x");
    }
    for target in ["/", "/health", "/load", "/_count"] {
        client.get(target);
    }
    let mut count = client.get("/_count").json();
    assert!(count["last_request_us_ago"].take().is_u64());
    let expected = serde_json::json!({
        "requests": 4,
        "by_method": { "GET": 1, "POST": 3 },
        "posts": { "a": 2, "b": 1 },
        "unlisted_posts": 0,
        "last_request_us_ago": null,
        "health": 1,
        "probes": 1,
    });
    assert_eq!(count, expected);
}

#[test]
fn the_load_is_told_while_requests_wait() {
    let backend = Backend::start(&["--name", "a", "--delay", "20ms", "--probe-path", "/probe"]);
    let mut client = backend.client();
    let idle = client.get("/probe");
    assert_eq!(
        (&idle.json()["in_flight"], &idle.json()["latency_us"]),
        (&0.into(), &0.into())
    );
    client.get("/");
    let told = client.get("/probe").json();
    assert_eq!(told["name"], "a");
    assert!(
        told["latency_us"]
            .as_u64()
            .is_some_and(|latency| latency >= 20_000),
        "{told}"
    );

    set(&mut client, "hang=1");
    let mut waiting: Vec<Client> = (0..3).map(|_| backend.client()).collect();
    for client in &mut waiting {
        client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let until = |client: &mut Client, in_flight: u64| {
        while client.get("/probe").json()["in_flight"] != in_flight {
            assert!(Instant::now() < deadline, "not {in_flight} in flight");
        }
    };
    until(&mut client, 3);
    let answer = client.get("/probe");
    let report = answer
        .header("endpoint-load-metrics")
        .and_then(|report| report.strip_prefix("JSON "));
    let report: serde_json::Value = serde_json::from_str(report.expect("the format")).expect("JSON");
    assert_eq!(report["named_metrics"]["in_flight"], 3);
    assert!(
        report["rps_fractional"].is_number() && report["eps"].is_number(),
        "{report}"
    );
    let text = client.get("/probe?orca=text");
    let text = text.header("endpoint-load-metrics").unwrap_or_default();
    assert!(
        text.starts_with("TEXT rps_fractional=") && text.contains(", named_metrics.in_flight=3, "),
        "{text}"
    );
    drop(waiting);
    until(&mut client, 0);
}

#[test]
fn a_seed_repeats_the_errors() {
    let statuses = || -> Vec<u16> {
        let backend = Backend::start(&["--error-rate", "0.5", "--seed", "42"]);
        let mut client = backend.client();
        (0..64).map(|_| client.get("/").status).collect()
    };
    let first = statuses();
    assert!(first.contains(&200) && first.contains(&500));
    assert_eq!(first, statuses());
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_changes_it() {
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = holder.local_addr().expect("an address").port().to_string();
    let Output { status, stderr, .. } = weir_backend()
        .args(["--port", &port])
        .output()
        .expect("run weir backend");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains(&format!("port {port} is taken")) && stderr.contains("--port"),
        "{stderr}"
    );
}

#[test]
fn the_ready_file_names_pid_and_address() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ready.json");
    let backend = Backend::start(&["--ready-file", path.to_str().expect("UTF-8")]);
    let content = std::fs::read(&path).expect("there before the line on standard output");
    let content: serde_json::Value = serde_json::from_slice(&content).expect("JSON");
    assert_eq!(content["pid"], backend.child.id());
    assert_eq!(content["address"], backend.address.to_string());

    let nowhere = directory.path().join("missing/ready.json");
    let output = weir_backend()
        .args(["--port", "0", "--ready-file"])
        .arg(&nowhere)
        .output()
        .expect("run weir backend");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing/ready.json"));
}

#[test]
fn several_backends_share_a_thread_and_die_one_by_one() {
    use weir::backend::{Options, bind, spawn_all};
    let named = |name: &str| {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).expect("bind");
        (
            listener,
            Options {
                name: Some(name.to_owned()),
                ..Options::default()
            },
        )
    };
    let handle = spawn_all(vec![named("a"), named("b")]).expect("start");
    let [a, b] = *handle.addresses() else {
        panic!("two addresses")
    };
    let mut client_b = Client::connect(b);
    assert_eq!(client_b.get("/").header("x-backend"), Some("b"));
    let mut bystander = Client::connect(a);
    assert_eq!(bystander.get("/").header("x-backend"), Some("a"));
    assert_eq!(Client::connect(a).request("POST", "/_die", "", b"").status, 200);
    assert!(bystander.is_at_end());
    assert_gone(a);
    assert_eq!(client_b.get("/").status, 200, "the other lives on");
    handle.stop();
    assert!(client_b.is_at_end());
    handle.join();
    assert_gone(b);
}

#[test]
fn a_name_that_no_header_can_hold_is_refused_at_once() {
    let options = weir::backend::Options {
        name: Some("a\nb".to_owned()),
        ..Default::default()
    };
    let refused = weir::backend::spawn((Ipv4Addr::LOCALHOST, 0).into(), options).expect_err("a bad name");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

//! The admin surfaces over real sockets, with a client that sends bytes and reads bytes.

use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream as StdUnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::serve::{Limits, serve_within};
use super::{Listener, Phase, State, Surface, internal, serve};
use crate::metrics::{BackendCounts, BackendInfo, BackendState, Info, Shard};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One worker and two backends, the first of which `eligible` switches.
struct Fixture {
    state: Arc<State>,
    phase: Arc<AtomicU8>,
    eligible: Arc<AtomicBool>,
}

fn fixture() -> Fixture {
    let phase = Arc::new(AtomicU8::new(1));
    let eligible = Arc::new(AtomicBool::new(true));
    let backends = ["a", "b"].map(|name| BackendInfo {
        url: format!("http://{name}:80"),
        name: name.to_owned(),
        counts: Arc::new(BackendCounts::new(1)),
    });
    let (phase_now, eligible_now) = (Arc::clone(&phase), Arc::clone(&eligible));
    let state = State {
        shards: vec![Arc::new(Shard::new(0))],
        info: Info {
            backends: backends.to_vec(),
            algorithm: "round-robin".to_owned(),
            started: Instant::now(),
        },
        phase: Box::new(move || match phase_now.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }),
        backend: Box::new(move |index| BackendState {
            healthy: index == 0,
            eligible: index == 0 && eligible_now.load(Ordering::SeqCst),
            in_flight: index as u64,
        }),
    };
    Fixture {
        state: Arc::new(state),
        phase,
        eligible,
    }
}

/// A listener being served; stops when told, or with its test.
struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

fn serve_tcp(limits: Option<Limits>, surface: Surface, state: &Arc<State>) -> Served {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let state = Arc::clone(state);
    let stopped = async move {
        let _ = stopped.await;
    };
    let task = tokio::spawn(async move {
        let listener = Listener::Tcp(listener);
        match limits {
            Some(limits) => serve_within(limits, listener, surface, state, stopped).await,
            None => serve(listener, surface, state, stopped).await,
        }
    });
    Served {
        address,
        stop: Some(stop),
        task,
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
    }
}

async fn ask_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, target: &str) -> Reply {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn ask(served: &Served, method: &str, target: &str) -> Reply {
    ask_on(TcpStream::connect(served.address).await.unwrap(), method, target).await
}

#[tokio::test]
async fn liveness_and_readiness_follow_the_phase() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Observe, &fixture.state);
    let readyz = |phase: u8, eligible: bool, target: &'static str| {
        fixture.phase.store(phase, Ordering::SeqCst);
        fixture.eligible.store(eligible, Ordering::SeqCst);
        ask(&served, "GET", target)
    };
    for (phase, eligible, target, status, body) in [
        (0, true, "/readyz", 503, json!({ "status": "starting" })),
        (1, true, "/readyz", 200, json!({ "status": "ready" })),
        (1, false, "/readyz", 200, json!({ "status": "ready" })),
        (
            1,
            true,
            "/readyz?backends=1",
            200,
            json!({ "status": "ready", "eligible": 1 }),
        ),
        (
            1,
            false,
            "/readyz?backends=1",
            503,
            json!({ "status": "no_backend", "eligible": 0 }),
        ),
        (1, false, "/readyz?backends=0", 200, json!({ "status": "ready" })),
        (
            2,
            true,
            "/readyz?x&backends=1",
            503,
            json!({ "status": "draining", "eligible": 1 }),
        ),
        (2, true, "/livez", 200, json!({ "status": "alive" })),
    ] {
        let reply = readyz(phase, eligible, target).await;
        assert_eq!(
            (reply.status, reply.json()),
            (status, body),
            "{target} in phase {phase}"
        );
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn metrics_are_what_the_shards_hold() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let shard = &fixture.state.shards[0];
    let counts = &*fixture.state.info.backends[0].counts;
    shard.exchange_received();
    shard.selection(counts, false);
    shard.attempt(counts, Some(201), Duration::from_micros(7));
    for target in ["/metrics", "/metrics?format=json"] {
        let reply = ask(&served, "GET", target).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let document = reply.json();
        assert_eq!(document["total_requests"], 1);
        assert_eq!(document["algorithm"], "round-robin");
        assert_eq!(
            document["backends"]["http://a:80"]["status_codes"],
            json!({ "201": 1 })
        );
        assert_eq!(document["backends"]["http://a:80"]["p50_response"], 7_000);
        assert_eq!(document["backends"]["http://b:80"]["healthy"], false);
        assert_eq!(document["backends"]["http://b:80"]["in_flight"], 1);
    }
    let unknown = ask(&served, "GET", "/metrics?format=xml").await;
    assert_eq!(unknown.status, 406);
    assert!(unknown.json()["error"].as_str().unwrap().contains("\"xml\""));
}

#[tokio::test]
async fn backends_are_listed_for_admins_only() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let list = ask(&served, "GET", "/backends").await.json();
    let first =
        json!({ "name": "a", "url": "http://a:80", "healthy": true, "eligible": true, "in_flight": 0 });
    assert_eq!(list["backends"][0], first);
    assert_eq!(list["backends"].as_array().unwrap().len(), 2);
    let observed = serve_tcp(None, Surface::Observe, &fixture.state);
    assert_eq!(ask(&observed, "GET", "/backends").await.status, 404);
}

#[tokio::test]
async fn what_is_not_served_is_refused_with_a_reason() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Observe, &fixture.state);
    for target in ["/", "/livez/", "/metricsx", "/LIVEZ", "/../metrics"] {
        let reply = ask(&served, "GET", target).await;
        assert_eq!(reply.status, 404, "{target}");
        assert!(
            reply.json()["error"].as_str().unwrap().contains(target),
            "{target}"
        );
    }
    for method in ["POST", "DELETE", "OPTIONS", "BREW"] {
        let reply = ask(&served, method, "/metrics").await;
        assert_eq!(reply.status, 405, "{method}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
        assert!(reply.json()["error"].as_str().unwrap().contains(method));
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let get = ask(&served, "GET", "/livez").await;
    let head = ask(&served, "HEAD", "/livez").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(
        head.header("content-length"),
        Some(get.body.len().to_string().as_str())
    );
}

/// Sends one request on a connection that stays open, and reads until its answer is there.
async fn ask_and_keep(stream: &mut TcpStream) {
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    read_answer(stream).await;
}

async fn read_answer(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"}\n") {
        let read = timeout(PATIENCE, stream.read_buf(&mut seen))
            .await
            .unwrap()
            .unwrap();
        assert!(read > 0, "closed after {seen:?}");
    }
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_one_to_end() {
    let fixture = fixture();
    let limits = Limits {
        connections: 2,
        head: PATIENCE,
        lifetime: PATIENCE,
    };
    let served = serve_tcp(Some(limits), Surface::Observe, &fixture.state);
    let mut first = TcpStream::connect(served.address).await.unwrap();
    let mut second = TcpStream::connect(served.address).await.unwrap();
    ask_and_keep(&mut first).await;
    ask_and_keep(&mut second).await;
    let mut third = TcpStream::connect(served.address).await.unwrap();
    third
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let early = timeout(Duration::from_millis(100), third.readable()).await;
    assert!(early.is_err(), "answered while two were open");
    drop(first);
    read_answer(&mut third).await;
    ask_and_keep(&mut second).await;
}

#[tokio::test]
async fn a_client_that_takes_its_time_is_ended() {
    let fixture = fixture();
    let short = Duration::from_millis(50);
    for (limits, sent) in [
        // An unfinished head.
        (
            Limits {
                connections: 1,
                head: short,
                lifetime: PATIENCE * 2,
            },
            &b"GET /livez HTTP/1.1\r\nHost: l"[..],
        ),
        // A kept connection that says nothing more.
        (
            Limits {
                connections: 1,
                head: short,
                lifetime: PATIENCE * 2,
            },
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
        // A connection past its lifetime.
        (
            Limits {
                connections: 1,
                head: PATIENCE * 2,
                lifetime: short,
            },
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ),
    ] {
        let served = serve_tcp(Some(limits), Surface::Observe, &fixture.state);
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn stopping_closes_the_listener_and_idle_connections() {
    let fixture = fixture();
    let mut served = serve_tcp(None, Surface::Observe, &fixture.state);
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    ask_and_keep(&mut idle).await;
    served.stop.take().unwrap().send(()).unwrap();
    timeout(PATIENCE, &mut served.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, idle.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let fixture = fixture();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let state = Arc::clone(&fixture.state);
    tokio::spawn(serve(
        Listener::Unix(listener),
        Surface::Admin,
        state,
        std::future::pending(),
    ));
    let reply = ask_on(UnixStream::connect(&path).await.unwrap(), "GET", "/backends").await;
    assert_eq!(reply.status, 200);
}

/// The name of the socket on which the test below plays a stranger, in the process that it starts for that.
const STRANGER: &str = "WEIR_TEST_INTERNAL_SOCKET";

fn connect_abstract(name: &str) -> StdUnixStream {
    StdUnixStream::connect_addr(&UnixAddress::from_abstract_name(name).unwrap()).unwrap()
}

#[tokio::test]
async fn the_internal_socket_serves_this_process_only() {
    if let Ok(name) = std::env::var(STRANGER) {
        return a_stranger_is_closed_unread(&name);
    }
    let fixture = fixture();
    let (listener, name) = internal::bind().unwrap();
    let state = Arc::clone(&fixture.state);
    let served = serve(
        Listener::Internal(listener),
        Surface::Metrics,
        state,
        std::future::pending(),
    );
    tokio::spawn(served);

    let ours = connect_abstract(&name);
    ours.set_nonblocking(true).unwrap();
    let reply = ask_on(UnixStream::from_std(ours).unwrap(), "GET", "/any/path/they/chose").await;
    assert_eq!(reply.json()["algorithm"], "round-robin");

    let stranger = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "admin::tests::the_internal_socket_serves_this_process_only",
            ])
            .env(STRANGER, name)
            .output()
            .unwrap()
    });
    let output = timeout(PATIENCE, stranger).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn a_stranger_is_closed_unread(name: &str) {
    use std::io::{Read, Write};
    let mut stream = connect_abstract(name);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other side may be faster than this write.
    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    // Closed, or reset for the request that nobody read; not silent.
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
}

#[test]
fn internal_names_differ() {
    let (_first, one) = internal::bind().unwrap();
    let (_second, other) = internal::bind().unwrap();
    assert_ne!(one, other);
}

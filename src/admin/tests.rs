//! The admin surfaces over real sockets, with a client that sends bytes and reads bytes.

use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream as StdUnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::page::stream::STREAMS_MAX;
use super::serve::{Limits, serve_within};
use super::{
    BackendView, BreakerView, Command as Told, Condition, Connections, Ejections, Guard, Listener, Live,
    Overrides, Phase, Probe, Refused, State, Surface, internal, serve,
};
use crate::balance::breaker;
use crate::metrics::{BackendCounts, BackendInfo, BackendState, Info, Shard};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// One worker and two backends, the first of which `eligible` switches.
struct Fixture {
    state: Arc<State>,
    phase: Arc<AtomicU8>,
    eligible: Arc<AtomicBool>,
    /// What was asked for by state-changing calls.
    told: Arc<Mutex<Vec<Told>>>,
}

impl Fixture {
    /// The commands since this was last asked.
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

/// Names that a path can carry only in part as they are.
const NAMES: [&str; 2] = ["a", "[::1]:80/x"];

/// A backend of which everything is known.
fn view(name: &str) -> BackendView {
    let at = UNIX_EPOCH + Duration::from_secs(951_782_400);
    BackendView {
        pool: "default".to_owned(),
        name: name.to_owned(),
        url: format!("http://{name}"),
        state: Condition::Ejected,
        since: at,
        why: "5 failures in a row".to_owned(),
        healthy: true,
        eligible: false,
        weight: 3,
        priority: 1,
        backup: true,
        in_flight: 4,
        connections_open: 5,
        connections: vec![Connections { open: 5, idle: 2 }],
        breaker: BreakerView {
            state: breaker::State::HalfOpen,
            opened: 6,
            held: 7,
        },
        ewma_latency_ns: Some(8),
        ejections: Ejections {
            count: 9,
            held: 10,
            until: Some(at),
        },
        last_probe: Some(Probe {
            at,
            good: false,
            status: Some(503),
            took_ns: 11,
            error: Some("the status is 503".to_owned()),
        }),
        overrides: Overrides {
            state: None,
            weight: Some(3),
        },
    }
}

fn fixture() -> Fixture {
    guarded(Guard::default())
}

/// `Reload` is refused, the weight 13 makes the call panic, all else is done.
fn guarded(guard: Guard) -> Fixture {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (recorder, guard) = (Arc::clone(&told), Arc::new(guard));
    let phase = Arc::new(AtomicU8::new(1));
    let eligible = Arc::new(AtomicBool::new(true));
    let backends = ["a", "b"].map(|name| BackendInfo {
        url: format!("http://{name}:80"),
        name: name.to_owned(),
        counts: Arc::new(BackendCounts::new(1)),
    });
    let (phase_now, eligible_now) = (Arc::clone(&phase), Arc::clone(&eligible));
    let info = Info {
        backends: backends.to_vec(),
        pool: "default".to_owned(),
        drivers: Vec::new(),
        algorithm: "round-robin".to_owned(),
        started: Instant::now(),
    };
    let state = State {
        shards: vec![Arc::new(Shard::new(0))],
        info: Box::new(move || info.clone()),
        phase: Box::new(move || match phase_now.load(Ordering::SeqCst) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }),
        explain: Box::new(|asked| Ok(json!({ "path": asked.path }))),
        rings: Box::new(Vec::new),
        kept: None,
        history: Arc::default(),
        live: Live::default(),
        dropped: Box::new(crate::metrics::Dropped::default),
        backend: Box::new(move |index| BackendState {
            healthy: index == 0,
            eligible: index == 0 && eligible_now.load(Ordering::SeqCst),
            in_flight: index as u64,
            condition: "up",
            breaker: breaker::State::Closed,
            breaker_openings: 0,
            ejections: 0,
        }),
        views: Box::new(|| NAMES.map(view).to_vec()),
        command: Box::new(move |command| {
            recorder.lock().unwrap().push(command.clone());
            Box::pin(async move {
                match command {
                    Told::Reload => Err(Refused::new(hyper::StatusCode::CONFLICT, "wrong\nin two lines")),
                    Told::Weight { weight: 13, .. } => panic!("a call that goes wrong"),
                    _ => Ok(json!({ "done": true })),
                }
            })
        }),
        guard: Box::new(move || Arc::clone(&guard)),
    };
    Fixture {
        state: Arc::new(state),
        phase,
        eligible,
        told,
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

async fn ask_on(stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, target: &str) -> Reply {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost");
    send_on(stream, &head, "").await
}

/// Sends a head, to which `Connection: close` is added, and a body.
async fn send_on(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str, body: &str) -> Reply {
    let request = format!("{head}\r\nConnection: close\r\n\r\n{body}");
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

async fn send(served: &Served, head: &str, body: &str) -> Reply {
    send_on(TcpStream::connect(served.address).await.unwrap(), head, body).await
}

/// A state-changing call as it should be.
async fn call(served: &Served, method: &str, target: &str, body: &str) -> Reply {
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    send(served, &head, body).await
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
    let counts = &*(fixture.state.info)().backends[0].counts;
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
    let first = json!({
        "pool": "default",
        "name": "a",
        "url": "http://a",
        "state": "ejected",
        "since": "2000-02-29T00:00:00.000000Z",
        "why": "5 failures in a row",
        "healthy": true,
        "eligible": false,
        "weight": 3,
        "priority": 1,
        "backup": true,
        "in_flight": 4,
        "connections_open": 5,
        "connections": [{ "open": 5, "idle": 2 }],
        "breaker": { "state": "HALF-OPEN", "opened": 6, "held": 7 },
        "ewma_latency_ns": 8,
        "ejections": { "count": 9, "held": 10, "until": "2000-02-29T00:00:00.000000Z" },
        "last_probe": {
            "at": "2000-02-29T00:00:00.000000Z",
            "good": false,
            "status": 503,
            "took_ns": 11,
            "error": "the status is 503",
        },
        "overrides": { "state": null, "weight": 3 },
    });
    for target in ["/backends", "/v1/pools/default/backends"] {
        let list = ask(&served, "GET", target).await.json();
        assert_eq!(list["backends"][0], first, "{target}");
        assert_eq!(list["backends"].as_array().unwrap().len(), 2, "{target}");
    }
    for target in ["/backends/a", "/v1/pools/default/backends/%61"] {
        assert_eq!(ask(&served, "GET", target).await.json(), first, "{target}");
    }
    for target in [
        "/backends/c",
        "/v1/pools/other/backends",
        "/v1/pools/other/backends/a",
    ] {
        let reply = ask(&served, "GET", target).await;
        assert_eq!(reply.status, 404, "{target}");
        assert!(reply.json()["error"].as_str().unwrap().starts_with("there is no"));
    }
    let observed = serve_tcp(None, Surface::Observe, &fixture.state);
    for target in ["/backends", "/backends/a", "/reload"] {
        assert_eq!(ask(&observed, "GET", target).await.status, 404, "{target}");
    }
}

#[tokio::test]
async fn calls_reach_whoever_carries_them_out() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let who = |name: &str| ("default".to_owned(), name.to_owned());
    let (pool, name) = who("a");
    for (method, target, body, told) in [
        (
            "POST",
            "/v1/pools/default/backends/a/drain",
            "",
            Told::Drain { pool, name },
        ),
        {
            let (pool, name) = who("a");
            ("POST", "/backends/a/ready", "{}", Told::Ready { pool, name })
        },
        {
            let (pool, name) = who(NAMES[1]);
            let command = Told::Maintenance { pool, name };
            ("POST", "/backends/[::1]:80%2fx/maintenance", "", command)
        },
        {
            let (pool, name) = who(NAMES[1]);
            let command = Told::Weight {
                pool,
                name,
                weight: 7,
            };
            (
                "PUT",
                "/backends/%5B%3A%3a1%5D%3A80%2Fx/weight",
                " {\"weight\": 7}\n",
                command,
            )
        },
        {
            let (pool, name) = who("a");
            (
                "DELETE",
                "/backends/a/override",
                "",
                Told::ClearOverride { pool, name },
            )
        },
    ] {
        let reply = call(&served, method, target, body).await;
        assert_eq!(
            (reply.status, reply.json()),
            (200, json!({ "done": true })),
            "{target}"
        );
        assert_eq!(fixture.told(), [told], "{target}");
    }
    let reply = call(&served, "POST", "/reload", "").await;
    assert_eq!(
        (reply.status, reply.json()),
        (409, json!({ "error": "wrong\nin two lines" }))
    );
    assert_eq!(fixture.told(), [Told::Reload]);
    let reply = call(&served, "PUT", "/backends/a/weight", "{\"weight\":13}").await;
    assert_eq!(reply.status, 500, "{}", reply.body);
}

#[tokio::test]
async fn calls_that_are_wrong_change_nothing() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let long = format!("{{\"weight\":{}1}}", " ".repeat(4096));
    for (method, target, body, status, why) in [
        ("POST", "/backends/c/drain", "", 404, "no backend \"c\""),
        ("POST", "/v1/pools/x/backends/a/drain", "", 404, "pool \"x\""),
        ("POST", "/backends/a/explode", "", 404, "nothing is served"),
        ("POST", "/backends/a/drain/", "", 404, "nothing is served"),
        ("POST", "/backends/%zz/drain", "", 400, "percent-encoded"),
        ("POST", "/backends/%+1/drain", "", 400, "percent-encoded"),
        ("POST", "/backends/%ff/drain", "", 400, "percent-encoded"),
        ("POST", "/backends/a%2/drain", "", 400, "percent-encoded"),
        ("PUT", "/backends/a/drain", "", 405, "takes POST, not PUT"),
        ("POST", "/backends/a/weight", "{\"weight\":1}", 405, "takes PUT"),
        ("PUT", "/backends/a/weight", "", 400, "needs a weight"),
        (
            "PUT",
            "/backends/a/weight",
            "{\"weight\":65536}",
            400,
            "needs a weight",
        ),
        (
            "PUT",
            "/backends/a/weight",
            "{\"weight\":-1}",
            400,
            "needs a weight",
        ),
        (
            "PUT",
            "/backends/a/weight",
            "{\"weight\":\"1\"}",
            400,
            "needs a weight",
        ),
        (
            "PUT",
            "/backends/a/weight",
            "{\"weight\":1,\"wait\":2}",
            400,
            "\"wait\" means nothing",
        ),
        ("PUT", "/backends/a/weight", "{\"weight\":1", 400, "not JSON"),
        ("PUT", "/backends/a/weight", "7", 400, "no JSON object"),
        ("PUT", "/backends/a/weight", &long, 413, "4096 bytes"),
        (
            "POST",
            "/backends/a/drain",
            "{\"weight\":1}",
            400,
            "means nothing",
        ),
        ("GET", "/reload", "", 405, "takes POST"),
    ] {
        let reply = call(&served, method, target, body).await;
        assert_eq!(reply.status, status, "{method} {target} {body}");
        let error = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(why), "{method} {target} {body}: {error}");
        assert_eq!(reply.header("allow").is_some(), status == 405);
    }
    assert_eq!(fixture.told(), []);
}

#[tokio::test]
async fn a_change_needs_a_content_type_that_a_form_cannot_send() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let drain = "POST /backends/a/drain HTTP/1.1\r\nHost: localhost";
    for fields in [
        "",
        "\r\nContent-Type: text/plain",
        "\r\nContent-Type: application/jsonp",
        "\r\nContent-Type: text/plain; application/json",
        "\r\nContent-Type: application/json\r\nContent-Type: text/plain",
    ] {
        let reply = send(&served, &format!("{drain}{fields}"), "").await;
        assert_eq!(reply.status, 415, "{fields}");
    }
    assert_eq!(fixture.told(), []);
    let fields = "\r\nContent-Type: Application/JSON; charset=utf-8";
    let reply = send(&served, &format!("{drain}{fields}"), "").await;
    assert_eq!(reply.status, 200);
    assert_eq!(fixture.told().len(), 1);
}

#[tokio::test]
async fn a_request_by_another_name_is_refused() {
    let fixture = guarded(Guard::new(None, vec!["weir.example".to_owned()]));
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let observed = serve_tcp(None, Surface::Observe, &fixture.state);
    for (head, status) in [
        ("GET /livez HTTP/1.1\r\nHost: evil.example", 421),
        ("GET /livez HTTP/1.1\r\nHost: weir.example:9070", 200),
        ("GET /livez HTTP/1.1\r\nHost: [::1]:9070", 200),
        ("GET /livez HTTP/1.1", 400),
        ("GET /livez HTTP/1.0", 200),
        ("GET /livez HTTP/1.0\r\nHost: evil.example", 421),
        (
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
            400,
        ),
        ("GET http://evil.example/livez HTTP/1.1\r\nHost: localhost", 421),
        ("GET http://localhost/livez HTTP/1.1\r\nHost: evil.example", 421),
        ("GET http://localhost:1/livez HTTP/1.1\r\nHost: localhost:1", 200),
    ] {
        assert_eq!(send(&served, head, "").await.status, status, "{head}");
        // Who scrapes asks by the name of a service, and there is nothing to change.
        assert_eq!(send(&observed, head, "").await.status, 200, "{head}");
    }
}

#[tokio::test]
async fn a_token_is_asked_of_every_request_for_admins() {
    let token = "0123456789abcdef";
    let fixture = guarded(Guard::new(Some(token.to_owned()), Vec::new()));
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let livez = "GET /livez HTTP/1.1\r\nHost: localhost";
    let reload = "POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    for head in [livez, reload, "GET /nothing HTTP/1.1\r\nHost: localhost"] {
        for fields in [
            String::new(),
            "\r\nAuthorization: Bearer".to_owned(),
            format!("\r\nAuthorization: Basic {token}"),
            format!("\r\nAuthorization: Bearer {token}0"),
            format!("\r\nAuthorization: Bearer {}", &token[1..]),
            format!("\r\nAuthorization: Bearer {token}\r\nAuthorization: Bearer {token}"),
        ] {
            let reply = send(&served, &format!("{head}{fields}"), "").await;
            assert_eq!(reply.status, 401, "{head}{fields}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"weir\""));
            assert!(!reply.body.contains(token));
        }
    }
    assert_eq!(fixture.told(), []);
    let reply = send(&served, &format!("{livez}\r\nauthorization: bearer {token}"), "").await;
    assert_eq!(reply.status, 200);
    let observed = serve_tcp(None, Surface::Observe, &fixture.state);
    assert_eq!(send(&observed, livez, "").await.status, 200);
}

#[tokio::test]
async fn a_call_is_carried_out_though_its_client_goes_away() {
    let fixture = fixture();
    let (begun, begins) = oneshot::channel();
    let (go, goes) = oneshot::channel::<()>();
    let (ended, ends) = oneshot::channel();
    let signals = Mutex::new(Some((begun, goes, ended)));
    let mut state = Arc::into_inner(fixture.state).unwrap();
    state.command = Box::new(move |_| {
        let (begun, goes, ended) = signals.lock().unwrap().take().unwrap();
        Box::pin(async move {
            begun.send(()).unwrap();
            goes.await.unwrap();
            ended.send(()).unwrap();
            Ok(json!({}))
        })
    });
    let served = serve_tcp(None, Surface::Admin, &Arc::new(state));
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = "POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    timeout(PATIENCE, begins).await.unwrap().unwrap();
    drop(stream);
    // The server sees the end of the connection before it serves the next one.
    assert_eq!(ask(&served, "GET", "/livez").await.status, 200);
    go.send(()).unwrap();
    timeout(PATIENCE, ends).await.unwrap().unwrap();
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

/// Messages of a stream, as they come.
struct Messages {
    stream: TcpStream,
    seen: String,
}

impl Messages {
    async fn open(served: &Served) -> Messages {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        Messages {
            stream,
            seen: String::new(),
        }
    }

    /// The next message; none at the end of the stream, which must be a clean one.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((message, rest)) = self.seen.split_once("\n\n") {
                let (_, data) = message.split_once("\ndata: ").expect("an id and data");
                let value = serde_json::from_str(data).expect("JSON");
                self.seen = rest.to_owned();
                return Some(value);
            }
            let mut bytes = [0; 65_536];
            let read = self.stream.read(&mut bytes);
            let count = timeout(PATIENCE, read).await.expect("in time").unwrap_or(0);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
            if count == 0 || self.seen.ends_with("\r\n0\r\n\r\n") {
                assert!(
                    count > 0 && !self.seen.contains("data:"),
                    "cut off: {}",
                    self.seen
                );
                return None;
            }
        }
    }
}

#[tokio::test]
async fn a_stream_brings_what_each_second_brought_and_ends_with_weir() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let state = &fixture.state;
    state.tick();
    let (mut first, mut second) = (Messages::open(&served).await, Messages::open(&served).await);
    for messages in [&mut first, &mut second] {
        let message = messages.next().await.expect("all that is remembered");
        assert_eq!(message["rows"][0]["number"], 0);
        assert_eq!(message["backends"][1]["view"]["name"], NAMES[1]);
    }
    let counts = (state.info)().backends[0].counts.clone();
    for row in 1..4 {
        state.shards[0].exchange_received();
        state.shards[0].attempt(&counts, Some(200), Duration::from_millis(3));
        state.tick();
        for messages in [&mut first, &mut second] {
            let message = messages.next().await.expect("a message a second");
            assert_eq!(message["rows"].as_array().map(Vec::len), Some(1));
            assert_eq!(
                (&message["rows"][0]["number"], &message["requests"]),
                (&json!(row), &json!(row))
            );
            assert_eq!(message["backends"][0]["requests"], row);
        }
    }
    state.live.close();
    assert_eq!((first.next().await, second.next().await), (None, None));
    // Whoever comes later is told nothing.
    assert_eq!(Messages::open(&served).await.next().await, None);
}

#[tokio::test]
async fn streams_are_bounded_and_who_goes_makes_room() {
    let fixture = fixture();
    let served = serve_tcp(None, Surface::Admin, &fixture.state);
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut messages = Messages::open(&served).await;
        messages.next().await.expect("a first message");
        streams.push(messages);
    }
    let refused = ask(&served, "GET", "/stream").await;
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"].as_str().unwrap().contains("32 streams"));
    streams.pop();
    let start = Instant::now();
    loop {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        if &status == b"HTTP/1.1 200" {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "nobody made room");
    }
}

#[tokio::test]
async fn who_does_not_read_a_stream_is_dropped() {
    let fixture = fixture();
    let state = &fixture.state;
    let served = serve_tcp(None, Surface::Admin, state);
    let mut messages = Messages::open(&served).await;
    messages.next().await.expect("a first message");
    // As many messages as the kernel and the queue can hold, and no more: then nobody listens any more.
    let start = Instant::now();
    while state.live.listeners() > 0 {
        state.tick();
        tokio::task::yield_now().await;
        assert!(start.elapsed() < PATIENCE, "it is still fed");
    }
}

//! Probes and the thread against servers on real sockets that misbehave in every way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::checker::IN_FLIGHT_MAX;
use super::probe::{Check, Report, probe};
use super::verdict::{Finding, Verdict};
use super::{HealthHandle, Plan, ProbeTarget, Target, start};
use crate::clock::Millis;
use crate::config::Config;
use crate::config::model::{DriverChoice, HealthCheckKind, HealthStart, StatusRange};
use crate::server::driver::{Runtime, climb};
use crate::upstream::backend::{Address, Backend, Slots};

/// Nothing here takes longer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

const DRIVERS: [DriverChoice; 2] = [DriverChoice::Auto, DriverChoice::Epoll];

/// A server that runs a script for each connection, on a thread of its own.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn new(script: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        Server::on(([127, 0, 0, 1], 0).into(), script)
    }

    fn on(address: SocketAddr, script: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("a port of loopback");
        let address = listener.local_addr().expect("bound");
        let (accepted, stopping) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let script = Arc::new(script);
        let thread = thread::spawn({
            let (accepted, stopping) = (accepted.clone(), stopping.clone());
            move || {
                while let Ok((mut stream, _)) = listener.accept() {
                    if stopping.load(Ordering::Acquire) {
                        return;
                    }
                    accepted.fetch_add(1, Ordering::AcqRel);
                    let script = script.clone();
                    thread::spawn(move || {
                        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
                        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
                        script(&mut stream);
                    });
                }
            }
        });
        Server {
            address,
            accepted,
            stopping,
            thread: Some(thread),
        }
    }

    /// Reads the request, sends these bytes and closes.
    fn sending(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Server::new(move |stream| {
            read_request(stream);
            let _ = stream.write_all(bytes.as_ref());
        })
    }

    /// Takes connections and stays silent until the peer goes.
    fn silent() -> Self {
        Server::new(wait_for_end)
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Acquire)
    }

    fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if TcpStream::connect(self.address).is_ok()
            && let Some(thread) = self.thread.take()
        {
            thread.join().expect("no assertion in the acceptor");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let (mut got, mut byte) = (Vec::new(), [0]);
    while !got.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        got.push(byte[0]);
    }
    got
}

fn wait_for_end(stream: &mut TcpStream) {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

/// A port that nobody listens on.
fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
    listener.local_addr().expect("bound")
}

fn backend_at(name: &str, addresses: Vec<Address>) -> Arc<Backend> {
    let (url, authority) = (format!("http://{name}"), format!("{name}.test:80"));
    let slot = Slots::default().take();
    Arc::new(Backend::new(slot, name.to_owned(), url, authority, addresses, 1))
}

fn backend(name: &str, address: SocketAddr) -> Arc<Backend> {
    backend_at(name, vec![Address::Tcp(address)])
}

/// `change` made to the defaults, with a time-out that a test can wait for.
fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.health_check.timeout = DEADLINE;
    change(&mut config);
    config
}

/// One probe on this driver.
fn probe_on(driver: DriverChoice, config: &Config, backend: &Backend) -> Report {
    let mut climbed = climb(driver, |step| Runtime::build(step, 64)).expect("a runtime");
    let nonblocking = !climbed.step.is_ring();
    let check = Check::new(config);
    climbed.runtime.block_on(probe(&check, backend, nonblocking))
}

/// Probes `server` on both drivers; what is wrong has to have `words`, and nothing is wrong if there are none.
#[track_caller]
fn assert_probe(server: &Server, config: &Config, finding: Finding, words: &str) {
    for driver in DRIVERS {
        let report = probe_on(driver, config, &backend("a", server.address));
        assert_eq!(report.finding(), finding, "{report:?}");
        let said = report
            .failure
            .map(|failure| failure.to_string())
            .unwrap_or_default();
        assert!(
            said.contains(words) && (words.is_empty() == said.is_empty()),
            "{said}"
        );
    }
}

#[test]
fn whole_answers_are_good_in_every_framing() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nuntil close",
        "HTTP/1.0 200\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 399 Whatever\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert_probe(&Server::sending(answer), &config(|_| {}), Finding::Good, "");
    }
}

#[test]
fn a_good_answer_is_read_to_its_end_and_no_further() {
    let server = Server::new(|stream| {
        let request = String::from_utf8(read_request(stream)).expect("ASCII");
        assert!(
            request.starts_with("GET /health HTTP/1.1\r\nHost: a.test:80\r\n"),
            "{request}"
        );
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .expect("it reads");
        // Kept open: the probe has to go by itself.
        wait_for_end(stream);
    });
    assert_probe(&server, &config(|_| {}), Finding::Good, "");
}

#[test]
fn head_has_no_body() {
    let server = Server::new(|stream| {
        assert!(read_request(stream).starts_with(b"HEAD / HTTP/1.1\r\n"));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            .expect("it reads");
        wait_for_end(stream);
    });
    let config = config(|config| {
        config.health_check.method = "HEAD".to_owned();
        config.health_check.path = "/".to_owned();
    });
    assert_probe(&server, &config, Finding::Good, "");
}

#[test]
fn statuses_count_as_configured() {
    let server = Server::sending("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    assert_probe(&server, &config(|_| {}), Finding::Bad, "GET /health: 503");
    let expecting = config(|config| {
        config.health_check.expect_status = vec![
            StatusRange {
                first: 200,
                last: 200,
            },
            StatusRange {
                first: 503,
                last: 504,
            },
        ];
    });
    assert_probe(&server, &expecting, Finding::Good, "");
    let report = probe_on(DriverChoice::Auto, &expecting, &backend("a", server.address));
    assert_eq!(report.status, Some(503));
}

#[test]
fn what_is_no_answer_is_bad() {
    let interims = "HTTP/1.1 102 Processing\r\n\r\n".repeat(100_000);
    let head = format!("HTTP/1.1 200 OK\r\n{}", "X: 0123456789\r\n".repeat(7_000));
    let one_field = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(100_000));
    for (answer, words) in [
        (String::new(), "closed before an answer"),
        ("HTTP/1.1 200".to_owned(), "closed before an answer"),
        ("SSH-2.0-OpenSSH_9.9\r\n".to_owned(), "not an HTTP response"),
        ("\0\0\0\0".to_owned(), "not an HTTP response"),
        (head, "not an HTTP response"),
        (one_field.clone(), "longer than http.max_head_bytes"),
        (interims, "interim responses"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".to_owned(),
            "closed before the end",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n".to_owned(),
            "closed before the end",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
            "not an HTTP response",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".to_owned(),
            "not an HTTP response",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
            "a 101 that nobody asked for",
        ),
    ] {
        // A close with something unread is a reset, and may overtake the answer: who is done waits for the other side.
        let server = Server::new(move |stream| {
            read_request(stream);
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            wait_for_end(stream);
        });
        assert_probe(&server, &config(|_| {}), Finding::Bad, words);
    }
    let tight = config(|config| config.health_check.max_response_bytes = 1024);
    assert_probe(
        &Server::sending(one_field),
        &tight,
        Finding::Bad,
        "max_response_bytes",
    );
}

#[test]
fn a_reset_is_bad() {
    let server = Server::new(|stream| {
        read_request(stream);
        let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
    });
    assert_probe(&server, &config(|_| {}), Finding::Bad, "reset");
}

#[test]
fn the_whole_probe_has_one_deadline() {
    let slow = Server::new(|stream| {
        read_request(stream);
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        // Always some progress, never an end.
        while sent.is_ok() {
            thread::sleep(Duration::from_millis(5));
            sent = stream.write_all(b"x");
        }
    });
    let impatient = config(|config| config.health_check.timeout = Duration::from_millis(150));
    for server in [&Server::silent(), &slow] {
        let began = Instant::now();
        assert_probe(server, &impatient, Finding::Bad, "timed out after 150ms");
        assert!(
            began.elapsed() < DEADLINE / 2,
            "two probes of 150 ms took {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn an_endless_body_is_read_as_far_as_the_bound() {
    let server = Server::new(|stream| {
        read_request(stream);
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while sent.is_ok() {
            sent = stream.write_all(&[b'x'; 4096]);
        }
    });
    assert_probe(&server, &config(|_| {}), Finding::Good, "");
    let wanting = config(|config| config.health_check.expect_body = Some("ready".to_owned()));
    assert_probe(
        &server,
        &wanting,
        Finding::Bad,
        "GET /health: 200 without the text",
    );
}

#[test]
fn a_text_is_found_in_chunks_however_they_are_cut() {
    let wanting = config(|config| config.health_check.expect_body = Some("all is well".to_owned()));
    let body = b"{\"status\": \"all is well\"}";
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for size in [1, 3, 7, body.len()] {
        let mut answer = head.as_bytes().to_vec();
        for chunk in body.chunks(size) {
            answer.extend(format!("{:x}\r\n", chunk.len()).bytes());
            answer.extend([chunk, b"\r\n"].concat());
        }
        answer.extend(b"0\r\n\r\n");
        assert_probe(&Server::sending(answer.clone()), &wanting, Finding::Good, "");
        // In two segments, cut in the middle of the text.
        let server = Server::new(move |stream| {
            read_request(stream);
            stream.set_nodelay(true).expect("a socket");
            let (first, second) = answer.split_at(answer.len() / 2);
            stream.write_all(first).expect("it reads");
            thread::sleep(Duration::from_millis(2));
            stream.write_all(second).expect("it reads");
        });
        assert_probe(&server, &wanting, Finding::Good, "");
    }
    let without = Server::sending("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nall is wel");
    assert_probe(&without, &wanting, Finding::Bad, "without the text");
}

#[test]
fn connects_that_fail_are_told_apart() {
    for driver in DRIVERS {
        let report = probe_on(driver, &config(|_| {}), &backend("a", closed()));
        assert_eq!(report.finding(), Finding::Refused);
        assert_eq!(report.failure.expect("refused").to_string(), "connect refused");
        let missing = PathBuf::from("/nonexistent/weir.sock");
        let unix = backend_at("u", vec![Address::Unix(missing)]);
        assert_eq!(
            probe_on(driver, &config(|_| {}), &unix).finding(),
            Finding::Refused
        );
        // A queue that is full: the kernel drops what comes after.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).expect("a port");
        socket.listen(0).expect("a bound socket");
        let full = socket
            .local_addr()
            .ok()
            .and_then(|a| a.as_socket())
            .expect("an address");
        let _held = TcpStream::connect(full).expect("the queue takes one");
        let impatient = config(|config| config.health_check.timeout = Duration::from_millis(100));
        let report = probe_on(driver, &impatient, &backend("a", full));
        assert_eq!(report.finding(), Finding::Unreached, "{report:?}");
        let said = report.failure.expect("unreached").to_string();
        assert_eq!(said, "connect timed out after 100ms");
    }
}

#[test]
fn a_tcp_probe_connects_and_sends_nothing() {
    let silent = Server::new(|stream| assert!(read_request(stream).is_empty()));
    let tcp = config(|config| config.health_check.kind = HealthCheckKind::Tcp);
    assert_probe(&silent, &tcp, Finding::Good, "");
}

#[test]
fn the_port_and_further_addresses_are_tried_as_configured() {
    let server = Server::sending("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let other = config(|config| config.health_check.port = Some(server.address.port()));
    for driver in DRIVERS {
        let elsewhere = backend("a", closed());
        assert_eq!(probe_on(driver, &other, &elsewhere).finding(), Finding::Good);
        let two = backend_at("b", vec![Address::Tcp(closed()), Address::Tcp(server.address)]);
        assert_eq!(probe_on(driver, &config(|_| {}), &two).finding(), Finding::Good);
        assert_eq!(
            two.addresses_to_try().next().map(|(at, _)| at),
            Some(0),
            "traffic's order is its own"
        );
    }
}

/// Notes what it is told.
#[derive(Default)]
struct Told {
    verdicts: Mutex<Vec<(usize, Verdict)>>,
    changed: Condvar,
}

impl Target for Told {
    fn probe_verdict(&self, index: usize, verdict: Verdict, _now: Millis) {
        self.verdicts.lock().expect("no panic").push((index, verdict));
        self.changed.notify_all();
    }
}

impl Told {
    /// Waits until `count` verdicts were told; all of them.
    #[track_caller]
    fn wait(&self, count: usize) -> Vec<(usize, Verdict)> {
        let verdicts = self.verdicts.lock().expect("no panic");
        let (verdicts, _) = self
            .changed
            .wait_timeout_while(verdicts, DEADLINE, |told| told.len() < count)
            .expect("no panic");
        assert!(verdicts.len() >= count, "only {verdicts:?}");
        verdicts.clone()
    }

    fn count(&self) -> usize {
        self.verdicts.lock().expect("no panic").len()
    }
}

/// `backends` in one pool that notes what it is told.
fn plan(config: &Config, pool: &Arc<Told>, backends: &[Arc<Backend>]) -> Plan {
    let target = |(index, backend): (usize, &Arc<Backend>)| ProbeTarget {
        backend: backend.clone(),
        pool: pool.clone(),
        index,
    };
    Plan::new(config, backends.iter().enumerate().map(target).collect())
}

fn start_on(driver: DriverChoice, plan: Plan) -> HealthHandle {
    start(plan, driver, Box::new(|_| {})).expect("a thread")
}

/// One probe, then none for an hour unless somebody asks.
fn once() -> Config {
    config(|config| {
        config.health_check.interval = NEVER;
        config.health_check.fast_interval = Some(NEVER);
    })
}

#[track_caller]
fn first_round(handle: &mut HealthHandle) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(DEADLINE, handle.first_round())
            .await
            .expect("in time")
            .expect("the thread lives");
    });
}

fn good_server() -> Server {
    Server::sending("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn the_first_round_is_over_when_everybody_is_known() {
    for driver in DRIVERS {
        let (good, bad) = (
            good_server(),
            Server::sending("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        );
        let backends = [
            backend("good", good.address),
            backend("bad", bad.address),
            backend("gone", closed()),
        ];
        let pool = Arc::<Told>::default();
        let mut handle = start_on(driver, plan(&once(), &pool, &backends));
        first_round(&mut handle);
        let mut told = pool.wait(3);
        told.sort_unstable_by_key(|(index, _)| *index);
        assert_eq!(told, [(0, Verdict::Up), (1, Verdict::Sick), (2, Verdict::Dead)]);
        let last = backends[1].probes.last().expect("it was probed");
        assert_eq!(
            (last.status, last.error.as_deref()),
            (Some(500), Some("GET /health: 500"))
        );
        assert_eq!((backends[0].probes.good(), backends[0].probes.bad()), (1, 0));
        assert_eq!((backends[2].probes.good(), backends[2].probes.bad()), (0, 1));
    }
}

/// A listener whose queue takes a crowd, and where it listens.
fn crowded() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a port");
    socket.listen(4096).expect("a bound socket");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    (socket, address.expect("an address"))
}

fn crowd(count: usize, address: SocketAddr) -> Vec<Arc<Backend>> {
    (0..count).map(|n| backend(&n.to_string(), address)).collect()
}

#[test]
fn the_first_round_takes_one_time_out_at_the_most() {
    let (_nobody_accepts, address) = crowded();
    let backends = crowd(3 * IN_FLIGHT_MAX, address);
    let mut config = once();
    config.health_check.timeout = Duration::from_millis(400);
    let pool = Arc::<Told>::default();
    let began = Instant::now();
    let mut handle = start_on(DriverChoice::Auto, plan(&config, &pool, &backends));
    first_round(&mut handle);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(400) && took < DEADLINE / 2,
        "{took:?}"
    );
    // Everybody gets a turn after all.
    let told = pool.wait(backends.len());
    assert!(told.iter().all(|(_, verdict)| *verdict == Verdict::Sick));
}

#[test]
fn only_so_many_probes_are_under_way_and_the_next_begins_when_one_ends() {
    let (listener, address) = crowded();
    let backends = crowd(IN_FLIGHT_MAX + 50, address);
    let mut config = once();
    config.health_check.timeout = NEVER;
    config.health_check.start = HealthStart::Up;
    let pool = Arc::<Told>::default();
    let _handle = start_on(DriverChoice::Auto, plan(&config, &pool, &backends));
    let mut held = Vec::new();
    let accept = |held: &mut Vec<socket2::Socket>| held.push(listener.accept().expect("a probe").0);
    let is_empty = || {
        listener.set_nonblocking(true).expect("a socket");
        let empty = listener.accept().is_err();
        listener.set_nonblocking(false).expect("a socket");
        empty
    };
    (0..IN_FLIGHT_MAX).for_each(|_| accept(&mut held));
    for _ in 0..3 {
        assert!(is_empty(), "more than {IN_FLIGHT_MAX}");
        held.pop();
        accept(&mut held);
    }
    assert!(is_empty());
}

#[test]
fn start_says_what_counts_before_the_first_probe() {
    let server = Server::silent();
    for (start, verdict) in [(HealthStart::Up, Verdict::Up), (HealthStart::Down, Verdict::Sick)] {
        let mut config = once();
        config.health_check.start = start;
        let pool = Arc::<Told>::default();
        let backends = [backend("a", server.address)];
        let mut handle = start_on(DriverChoice::Auto, plan(&config, &pool, &backends));
        first_round(&mut handle);
        assert_eq!(pool.wait(1), [(0, verdict)]);
        // Stopping does not wait for the probe that is under way.
        let began = Instant::now();
        drop(handle);
        assert!(began.elapsed() < DEADLINE / 2);
    }
}

#[test]
fn an_asked_probe_confirms_a_death_at_once_and_clears_a_blip() {
    for driver in DRIVERS {
        let mut server = good_server();
        let address = server.address;
        let backends = [backend("a", address)];
        let pool = Arc::<Told>::default();
        let handle = start_on(driver, plan(&once(), &pool, &backends));
        pool.wait(1);
        assert!(backends[0].shared.ask_probe(), "nobody asked before");
        assert!(
            !backends[0].shared.ask_probe(),
            "the second one need not wake anybody"
        );
        handle.waker().wake();
        assert_eq!(
            pool.wait(2)[1],
            (0, Verdict::Up),
            "told again, since whoever asked may doubt it"
        );
        server.stop();
        assert!(backends[0].shared.ask_probe());
        handle.waker().wake();
        assert_eq!(pool.wait(3)[2], (0, Verdict::Dead));
        // It comes back, and two good probes bring it up.
        let server = Server::on(address, |stream| {
            read_request(stream);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
        });
        for told in 4..6 {
            assert!(backends[0].shared.ask_probe());
            handle.waker().wake();
            pool.wait(told);
        }
        assert_eq!(pool.wait(5)[3..], [(0, Verdict::Sick), (0, Verdict::Up)]);
        assert_eq!(server.accepted(), 2);
    }
}

#[test]
fn who_stays_over_a_reload_is_not_probed_anew() {
    let (kept, gone, new) = (good_server(), good_server(), good_server());
    let backends = [
        backend("kept", kept.address),
        backend("gone", gone.address),
        backend("new", new.address),
    ];
    let (before, after) = (Arc::<Told>::default(), Arc::<Told>::default());
    let mut handle = start_on(DriverChoice::Auto, plan(&once(), &before, &backends[..2]));
    first_round(&mut handle);
    let order = [backends[2].clone(), backends[0].clone()];
    handle.replace(plan(&once(), &after, &order));
    first_round(&mut handle);
    let mut told = after.wait(2);
    told.sort_unstable_by_key(|(index, _)| *index);
    assert_eq!(
        told,
        [(0, Verdict::Up), (1, Verdict::Up)],
        "the new pool knows both"
    );
    assert_eq!((kept.accepted(), gone.accepted(), new.accepted()), (1, 1, 1));
    // Nobody is interested in who is gone.
    backends[1].shared.ask_probe();
    backends[0].shared.ask_probe();
    handle.waker().wake();
    after.wait(3);
    assert_eq!((kept.accepted(), gone.accepted(), before.count()), (2, 1, 2));
    // Off and on again: what was down is up meanwhile.
    let mut off = once();
    off.health_check.kind = HealthCheckKind::Off;
    let dead = [backend("dead", closed())];
    handle.replace(plan(&once(), &after, &dead));
    assert_eq!(after.wait(4)[3], (0, Verdict::Dead));
    handle.replace(plan(&off, &after, &dead));
    assert_eq!(after.wait(5)[4], (0, Verdict::Up));
    first_round(&mut handle);
    assert_eq!(dead[0].probes.bad(), 1);
}

#[test]
fn without_checks_there_is_still_a_tick() {
    let server = good_server();
    let mut config = once();
    config.health_check.kind = HealthCheckKind::Off;
    let pool = Arc::<Told>::default();
    let backends = [backend("a", server.address)];
    let (sender, ticks) = std::sync::mpsc::channel();
    let mut handle = start(
        plan(&config, &pool, &backends),
        DriverChoice::Auto,
        Box::new(move |now| sender.send(now).expect("the test listens")),
    )
    .expect("a thread");
    first_round(&mut handle);
    let times: Vec<Millis> = (0..4)
        .map(|_| ticks.recv_timeout(DEADLINE).expect("a tick"))
        .collect();
    assert!(times[3] - times[0] >= Duration::from_millis(140), "{times:?}");
    assert_eq!((pool.wait(1), server.accepted()), (vec![(0, Verdict::Up)], 0));
}

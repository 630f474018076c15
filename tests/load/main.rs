//! What needs load: many connections, much memory held, being told to stop while busy. Run one at a time:
//! `cargo test --test load -- --test-threads=1`; plain `cargo test` leaves it out.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
mod resilience;
mod tester;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::weir::Setup;
use support::{Backend, Driver, Weir, Wire, eventually, noise, ok, os, skipped};

on_both_drivers!(
    sigterm_under_load_fails_no_request,
    sigterm_under_wrk_fails_no_request,
    a_hundred_clients_that_do_not_read_hold_little,
    ten_thousand_idle_connections_are_small,
    a_thousand_busy_connections_are_small,
    a_flood_of_connections_is_survived,
    connection_churn_leaks_nothing,
    aborts_leak_nothing,
    a_slow_crowd_does_not_starve_the_quick,
);

const MB: u64 = 1_000_000;

/// A backend that answers every head at once with 128 bytes, cheaper than one that records.
struct Quick {
    address: String,
}

impl Quick {
    fn new() -> Quick {
        let listener = support::backend::listen();
        let address = listener.local_addr().expect("bound").to_string();
        let response = Arc::new(ok(&[b'x'; 128]));
        thread::spawn(move || {
            // Ends with the process: it holds nothing but sockets.
            for stream in listener.incoming().flatten() {
                let response = Arc::clone(&response);
                let serve = move || quick_serve(stream, &response);
                let _ = thread::Builder::new().stack_size(64 * 1024).spawn(serve);
            }
        });
        Quick { address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn quick_serve(mut stream: TcpStream, response: &[u8]) {
    let _ = stream.set_nodelay(true);
    let mut buf = [0; 4096];
    let mut have = 0;
    while let Ok(n @ 1..) = stream.read(&mut buf[have..]) {
        have += n;
        if buf[..have].ends_with(b"\r\n\r\n") {
            have = 0;
            if stream.write_all(response).is_err() {
                return;
            }
        }
    }
}

fn in_front_of(driver: Driver, url: &str) -> Setup {
    Weir::on(driver).backend_url(url)
}

fn sigterm_under_load_fails_no_request(driver: Driver) {
    let backend = Quick::new();
    let mut weir = in_front_of(driver, &backend.url())
        .set("runtime.workers", 2)
        .start();
    let address = weir.address().to_owned();
    let answered = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let (address, answered) = (address.clone(), Arc::clone(&answered));
            thread::spawn(move || {
                let mut client = Wire::connect(&address);
                loop {
                    client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
                    let response = client.response("GET");
                    assert_eq!((response.status(), response.body.len()), (200, 128));
                    answered.fetch_add(1, Ordering::Relaxed);
                    if response.lists("connection", "close") {
                        client.expect_eof();
                        return;
                    }
                }
            })
        })
        .collect();
    eventually("load", || (answered.load(Ordering::Relaxed) > 5000).then_some(()));
    let stopped = weir.stop();
    let failed = clients
        .into_iter()
        .filter_map(|client| client.join().err())
        .count();
    assert_eq!(
        failed,
        0,
        "of 64 clients, {} requests answered",
        answered.load(Ordering::Relaxed)
    );
    assert_eq!(stopped.code, Some(0));
    assert!(stopped.took < Duration::from_secs(2), "{stopped:?}");
}

fn sigterm_under_wrk_fails_no_request(driver: Driver) {
    let backend = Quick::new();
    let mut weir = in_front_of(driver, &backend.url())
        .set("runtime.workers", 2)
        .start();
    let url = format!("http://{}/", weir.address());
    let wrk = Command::new("wrk")
        .args(["-t1", "-c64", "-d3s", &url])
        .stdout(Stdio::piped())
        .spawn();
    let Ok(wrk) = wrk else { return skipped("wrk") };
    eventually("load", || {
        (weir.metrics()["total_requests"].as_u64() > Some(5000)).then_some(())
    });
    let stopped = weir.stop();
    let output = wrk.wait_with_output().expect("wrk");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(stopped.code, Some(0), "{text}");
    assert!(!text.contains("Non-2xx"), "{text}");
    // wrk connects anew without end once weir is gone, and calls each refusal a write error; a request that was under
    // way and failed is a read error.
    if let Some(errors) = text.lines().find(|line| line.contains("Socket errors")) {
        assert!(errors.contains("read 0,"), "{text}");
    }
}

/// What the kernel holds for weir's sockets, in bytes: those of its port, and those that lead to the backend.
fn socket_memory(weir_port: &str, backend_port: &str) -> Option<u64> {
    let filter = format!("( sport = :{weir_port} or dport = :{backend_port} )");
    let output = Command::new("ss").args(["-tmnH", &filter]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let held = |memory: &str| -> u64 {
        let number = |text: &str| {
            text.trim_start_matches(|c: char| !c.is_ascii_digit())
                .parse()
                .unwrap_or(0)
        };
        // r: receive queue, w: send queue, f: forward allocation, o: options, bl: backlog.
        let counted = |part: &&str| {
            part.starts_with('w')
                || part.starts_with("bl")
                || (part.starts_with('r') && !part.starts_with("rb"))
        };
        memory.split(',').filter(counted).map(number).sum()
    };
    let memories = text
        .split("skmem:(")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    Some(memories.map(held).sum())
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

fn a_hundred_clients_that_do_not_read_hold_little(driver: Driver) {
    const SIZE: usize = 64 << 20;
    let body = Arc::new(noise(1, SIZE));
    let sent = Arc::new(AtomicU64::new(0));
    let backend = {
        let (body, sent) = (Arc::clone(&body), Arc::clone(&sent));
        Backend::new(move |conn| {
            conn.read_request()?;
            conn.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))?;
            for piece in body.chunks(64 << 10) {
                conn.try_send(piece)?;
                sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let weir = Weir::before(driver, &backend);
    let Some(_) = socket_memory(port_of(weir.address()), port_of(&backend.address)) else {
        return skipped("iproute2");
    };
    let mut clients: Vec<Wire> = (0..100).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    backend.wait_heads(100);
    // Until nothing has moved for half a second.
    let mut last = (sent.load(Ordering::Relaxed), Instant::now());
    eventually("everything is full", || {
        let now = sent.load(Ordering::Relaxed);
        if now != last.0 {
            last = (now, Instant::now());
        }
        (now > 0 && last.1.elapsed() > Duration::from_millis(500)).then_some(())
    });
    let kernel = socket_memory(port_of(weir.address()), port_of(&backend.address)).expect("ss is there");
    let rss = weir.rss();
    println!(
        "{driver:?}: {} MB resident, {} MB in socket buffers",
        rss / MB,
        kernel / MB
    );
    assert!(
        rss + kernel < 100 * MB,
        "{} MB resident, {} MB in socket buffers",
        rss / MB,
        kernel / MB
    );
    // Somebody else is served meanwhile, and those who read at last get everything.
    let mut other = clients.swap_remove(0);
    let response = other.response("GET");
    support::assert_same_bytes("a client that reads at last", &response.body, &body);
}

fn ten_thousand_idle_connections_are_small(driver: Driver) {
    const CONNECTIONS: usize = 10_000;
    if os::raise_nofile() < CONNECTIONS as u64 + 500 {
        return skipped("a descriptor limit above 10500");
    }
    let backend = Quick::new();
    let weir = in_front_of(driver, &backend.url()).start();
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(weir.address()).expect("a connection");
        exchange(&mut stream);
        clients.push(stream);
    }
    let rss = weir.rss();
    println!(
        "{driver:?}: {} KB resident with 10,000 idle connections",
        rss / 1000
    );
    assert!(rss < 45 * MB, "{} KB", rss / 1000);
    for stream in clients.iter_mut().step_by(97) {
        exchange(stream);
    }
    drop(clients);
    eventually("descriptors are given back", || {
        (weir.open_descriptors() < 400).then_some(())
    });
}

/// One small exchange on a plain stream.
fn exchange(stream: &mut TcpStream) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        .expect("a request");
    read_small(stream);
}

fn read_small(stream: &mut TcpStream) {
    let mut buf = [0; 2048];
    let mut have = 0;
    stream
        .set_read_timeout(Some(support::DEADLINE))
        .expect("a timeout");
    // The body is 128 times x, and nothing else of the response ends so.
    while !buf[..have].ends_with(&[b'x'; 128]) {
        let n = stream.read(&mut buf[have..]).expect("a response");
        have += n;
        let so_far = support::http::text(&buf[..have]);
        assert!(
            n > 0 && so_far.starts_with("HTTP/1.1 200"),
            "{n} bytes more: {so_far:?}"
        );
    }
}

fn a_thousand_busy_connections_are_small(driver: Driver) {
    let backend = Quick::new();
    let weir = in_front_of(driver, &backend.url()).start();
    let over = Arc::new(AtomicBool::new(false));
    let largest = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (address, over) = (weir.address(), Arc::clone(&over));
                scope.spawn(move || {
                    let mut streams: Vec<TcpStream> = (0..125)
                        .map(|_| TcpStream::connect(address).expect("a connection"))
                        .collect();
                    while !over.load(Ordering::Relaxed) {
                        for stream in &mut streams {
                            stream
                                .write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                                .expect("a request");
                        }
                        streams.iter_mut().for_each(read_small);
                    }
                })
            })
            .collect();
        let start = Instant::now();
        let mut largest = 0;
        while start.elapsed() < Duration::from_secs(4) {
            largest = largest.max(weir.rss());
            thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("a client"));
        largest
    });
    println!(
        "{driver:?}: {} KB resident at most with 1,000 busy connections",
        largest / 1000
    );
    assert!(largest < 60 * MB, "{} KB", largest / 1000);
}

fn a_flood_of_connections_is_survived(driver: Driver) {
    const FLOOD: usize = 8000;
    if os::raise_nofile() < FLOOD as u64 + 3000 {
        return skipped("a descriptor limit above 11000");
    }
    let backend = Quick::new();
    let weir = in_front_of(driver, &backend.url()).nofile(1024).start();
    let mut flood = Vec::with_capacity(FLOOD);
    for n in 0..FLOOD {
        let address = weir.address().parse().expect("an address");
        // The queue may be full for a while; whoever is not let in is part of the flood all the same.
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) else {
            continue;
        };
        // Every second one asks for something, the others say nothing.
        if n % 2 == 0 {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        flood.push(stream);
    }
    assert!(weir.open_descriptors() <= 1024);
    drop(flood);
    let mut client = eventually("a new client is served", || {
        let mut client = Wire::try_connect(weir.address())
            .ok()?
            .deadline(Duration::from_millis(500));
        client.try_send("GET / HTTP/1.1\r\nHost: t\r\n\r\n").ok()?;
        client
            .read_response("GET")
            .ok()
            .filter(|response| response.status() == 200)
            .map(|_| client)
    });
    for _ in 0..100 {
        assert_eq!(client.get("/").status(), 200);
    }
    eventually("descriptors are given back", || {
        (weir.open_descriptors() < 600).then_some(())
    });
    let before = weir.cpu();
    thread::sleep(Duration::from_millis(500));
    let spent = weir.cpu() - before;
    assert!(
        spent < Duration::from_millis(100),
        "{spent:?} of CPU in half a second of nothing to do"
    );
}

fn connection_churn_leaks_nothing(driver: Driver) {
    let backend = Quick::new();
    let weir = in_front_of(driver, &backend.url()).start();
    let round = |times: usize| {
        for _ in 0..times {
            let mut stream = TcpStream::connect(weir.address()).expect("a connection");
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
                .expect("a request");
            let mut all = Vec::new();
            stream
                .set_read_timeout(Some(support::DEADLINE))
                .expect("a timeout");
            stream.read_to_end(&mut all).expect("a response");
            assert!(all.starts_with(b"HTTP/1.1 200"));
        }
    };
    round(2000);
    let (descriptors, rss) = (weir.open_descriptors(), weir.rss());
    round(10_000);
    eventually("no descriptor is left behind", || {
        (weir.open_descriptors() <= descriptors).then_some(())
    });
    assert!(
        weir.rss() < rss + 2 * MB,
        "{} KB grew to {} KB",
        rss / 1000,
        weir.rss() / 1000
    );
}

fn aborts_leak_nothing(driver: Driver) {
    let backend = Backend::new(|conn| {
        loop {
            let head = conn.read_head()?;
            match head.target() {
                "/reset" => return conn.reset(),
                "/half" => return conn.try_send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf"),
                "/garbage" => conn.try_send("\0\0\0garbage\r\n\r\n")?,
                _ => conn.try_send(ok(&[b'y'; 20_000]))?,
            }
        }
    });
    let weir = Weir::before(driver, &backend);
    let round = |times: usize| {
        for n in 0..times {
            let mut client = weir.client();
            let target = ["/reset", "/half", "/garbage", "/fine", "/gone"][n % 5];
            client.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
            match target {
                "/gone" => client.reset(),
                "/fine" => drop(client.response("GET")),
                _ => drop(client.read_response("GET")),
            }
        }
    };
    round(1000);
    let (descriptors, rss) = (weir.open_descriptors(), weir.rss());
    round(5000);
    eventually("no descriptor is left behind", || {
        (weir.open_descriptors() <= descriptors + 4).then_some(())
    });
    assert!(
        weir.rss() < rss + 3 * MB,
        "{} KB grew to {} KB",
        rss / 1000,
        weir.rss() / 1000
    );
    assert_eq!(weir.metrics()["weir"]["panics"], 0);
}

fn a_slow_crowd_does_not_starve_the_quick(driver: Driver) {
    const SIZE: usize = 16 << 20;
    let body = Arc::new(noise(2, SIZE));
    let backend = Backend::new(move |conn| {
        conn.serve(|request| {
            if request.target() == "/big" {
                ok(&body)
            } else {
                ok(b"quick")
            }
        })
    });
    let weir = Weir::before(driver, &backend);
    let slow: Vec<Wire> = (0..50)
        .map(|_| {
            let mut client = weir.client();
            client.send("GET /big HTTP/1.1\r\nHost: t\r\n\r\n");
            client
        })
        .collect();
    backend.wait_heads(50);
    let mut client = weir.client();
    let start = Instant::now();
    for _ in 0..500 {
        assert_eq!(client.get("/").body, b"quick");
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?} for 500 small exchanges",
        start.elapsed()
    );
    slow.iter().for_each(|client| client.shutdown(Shutdown::Both));
}

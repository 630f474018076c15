//! No byte of one exchange is ever seen in another: 200 connections at once, each body its own, while clients and
//! backends abort all the time.

#[macro_use]
mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use support::wire::End;
use support::{Backend, Driver, Framing, Weir, Wire, assert_same_bytes, chunked, noise};

on_both_drivers!(no_bytes_cross_between_200_connections);

const CONNECTIONS: u64 = 200;
const ROUNDS: u64 = 12;

/// The body of one exchange, of a size between nothing and 100 KB.
fn body_of(seed: u64) -> Vec<u8> {
    noise(seed, (seed.wrapping_mul(2_654_435_761) % 100_000) as usize)
}

/// What the backend makes of it: as long, but another.
fn answer_to(seed: u64) -> Vec<u8> {
    noise(!seed, (seed.wrapping_mul(40_503) % 100_000) as usize)
}

/// Checks each request against its seed and answers it; every seventh answer is cut off or reset.
fn checking_backend() -> Backend {
    Backend::new(|conn| {
        loop {
            let head = conn.read_head()?;
            let seed: u64 = head
                .get("x-seed")
                .and_then(|seed| seed.parse().ok())
                .expect("every request has a seed");
            let framing = head.request_framing();
            let request = conn.read_body(head, framing, Vec::new())?;
            assert_same_bytes(&format!("request {seed}"), &request.body, &body_of(seed));
            let answer = answer_to(seed);
            let mut response = format!("HTTP/1.1 200 OK\r\nX-Seed: {seed}\r\n").into_bytes();
            if seed.is_multiple_of(2) {
                response.extend_from_slice(format!("Content-Length: {}\r\n\r\n", answer.len()).as_bytes());
                response.extend_from_slice(&answer);
            } else {
                response.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                response.extend_from_slice(&chunked(&answer, 3000));
            }
            if seed % 7 == 3 {
                conn.try_send(&response[..response.len() * 2 / 3])?;
                return if seed % 2 == 1 { conn.reset() } else { Ok(()) };
            }
            conn.try_send(response)?;
        }
    })
}

fn request_of(seed: u64) -> Vec<u8> {
    let body = body_of(seed);
    let mut request = format!("POST /{seed} HTTP/1.1\r\nHost: t\r\nX-Seed: {seed}\r\n").into_bytes();
    if seed.is_multiple_of(3) {
        request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        request.extend_from_slice(&chunked(&body, 1777));
    } else {
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(&body);
    }
    request
}

/// Reads one answer: whole and exact, or an exact beginning of it, or one of weir's own.
fn check_answer(client: &mut Wire, seed: u64) -> bool {
    let Ok(head) = client.read_head() else {
        return false;
    };
    if head.status() != 200 {
        assert!(matches!(head.reason(), Some("backend_reset")), "{seed}: {head:?}");
        return false;
    }
    assert_eq!(head.get("x-seed"), Some(seed.to_string().as_str()));
    let framing = head.response_framing("POST");
    let want = answer_to(seed);
    match client.read_body(head, framing.clone(), Vec::new()) {
        Ok(message) => {
            assert_same_bytes(&format!("answer {seed}"), &message.body, &want);
            true
        }
        Err(broken) => {
            assert!(
                matches!(broken.end, End::Closed | End::Reset),
                "{seed}: {:?}",
                broken.end
            );
            let whole = if framing == Ok(Framing::Chunked) {
                chunked(&want, 3000)
            } else {
                want
            };
            assert!(broken.got.len() < whole.len(), "{seed}");
            assert_same_bytes(
                &format!("the beginning of answer {seed}"),
                &broken.got,
                &whole[..broken.got.len()],
            );
            false
        }
    }
}

fn no_bytes_cross_between_200_connections(driver: Driver) {
    let backends = [checking_backend(), checking_backend()];
    let weir = Weir::on(driver)
        .backend(&backends[0])
        .backend(&backends[1])
        .set("runtime.workers", 2)
        .start();
    let address = weir.address();
    let whole = AtomicUsize::new(0);
    thread::scope(|scope| {
        for n in 0..CONNECTIONS {
            let whole = &whole;
            thread::Builder::new()
                .stack_size(512 * 1024)
                .spawn_scoped(scope, move || {
                    let mut client = Wire::connect(address);
                    for round in 0..ROUNDS {
                        let seed = n * ROUNDS + round + 1;
                        let request = request_of(seed);
                        if seed % 11 == 5 {
                            // Goes away in the middle of what it says.
                            let _ = client.try_send(&request[..request.len() / 2]);
                            client.reset();
                            client = Wire::connect(address);
                            continue;
                        }
                        let mut sender = client.split();
                        let sending = thread::spawn(move || sender.try_send(request));
                        if seed % 13 == 7 {
                            // Goes away in the middle of what it hears.
                            let _ = client.read_head();
                            client.linger_zero();
                            client.shutdown(std::net::Shutdown::Both);
                            let _ = sending.join();
                            client = Wire::connect(address);
                            continue;
                        }
                        let fine = check_answer(&mut client, seed);
                        let sent = sending.join().unwrap().is_ok();
                        if fine && sent {
                            whole.fetch_add(1, Ordering::Relaxed);
                        } else {
                            client = Wire::connect(address);
                        }
                    }
                })
                .unwrap();
        }
    });
    let all = (1..=CONNECTIONS * ROUNDS)
        .filter(|seed| seed % 11 != 5 && seed % 13 != 7 && seed % 7 != 3)
        .count();
    assert_eq!(
        whole.into_inner(),
        all,
        "every exchange that nobody aborted came whole"
    );
}

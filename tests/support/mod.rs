//! What the black-box tests share: the real binary as a child process ([`weir`]), backends that do exactly what a test
//! scripts ([`backend`]) or whose conduct changes as they serve ([`fickle`]), a steady load ([`load`]), a client that says
//! exactly what a test writes ([`wire`]), a strict reader of HTTP/1 ([`http`]) that both use, a terminal with somebody before
//! it ([`pty`]), and what reads metrics in earnest ([`prometheus`]). Everything blocks with a deadline on plain threads, so that a test reads from top to bottom
//! and nothing of weir's own code judges weir.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "every test binary compiles this module and uses its own part of it"
)]

pub mod admin;
pub mod backend;
pub mod browser;
pub mod fickle;
pub mod http;
pub mod load;
pub mod os;
pub mod prometheus;
pub mod pty;
pub mod weir;
pub mod wire;

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use backend::{Backend, Conn};
pub use browser::Browser;
pub use fickle::{Conduct, Existing, Fickle};
pub use http::{Framing, Head, Message};
pub use load::{Load, Plan, Report};
pub use weir::{Driver, Weir};
pub use wire::{Broken, Wire};

/// No wait in a test is longer than this: what takes longer does not happen.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Declares each named `fn(Driver)` of the test file as two tests, `NAME::io_uring` and `NAME::epoll`.
macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn io_uring() {
                if $crate::support::weir::io_uring_works() {
                    super::$name($crate::support::Driver::IoUring);
                }
            }

            #[test]
            fn epoll() {
                super::$name($crate::support::Driver::Epoll);
            }
        }
    )* };
}

/// Polls `probe` until it gives something; panics with `what` at the deadline. For what has no event to wait for, such as
/// the state of another process.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(3));
    }
}

/// A door that is shut until somebody opens it; clones are the same door.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits for the door; panics at the deadline.
    pub fn pass(&self) {
        let guard = self.0.0.lock().unwrap();
        let (guard, _) = self
            .0
            .1
            .wait_timeout_while(guard, DEADLINE, |open| !*open)
            .unwrap();
        assert!(*guard, "a gate was not opened within {DEADLINE:?}");
    }
}

/// `len` bytes that look random and are the same for the same seed (xorshift64*).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Asserts that two byte strings are equal without printing megabytes when they are not.
pub fn assert_same_bytes(what: &str, got: &[u8], want: &[u8]) {
    if got == want {
        return;
    }
    let at = got
        .iter()
        .zip(want)
        .position(|(a, b)| a != b)
        .unwrap_or(got.len().min(want.len()));
    panic!(
        "{what}: {} bytes instead of {}, first difference at {at}",
        got.len(),
        want.len()
    );
}

/// `bytes` as one chunked body, in chunks of at most `size`.
pub fn chunked(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(bytes.len() + bytes.len() / size * 8 + 16);
    for chunk in bytes.chunks(size) {
        body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

/// A response of status 200 with a `Content-Length`.
pub fn ok(body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}

/// Says that a test could not run for want of a tool; fails instead where every tool is promised to be there.
pub fn skipped(package: &str) {
    assert!(
        std::env::var_os("WEIR_TEST_REQUIRE_TOOLS").is_none_or(|value| value != "1"),
        "needs {package}, and WEIR_TEST_REQUIRE_TOOLS=1 says that it is installed"
    );
    println!("SKIPPED: needs {package}");
}

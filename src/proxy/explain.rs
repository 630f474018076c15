//! What a client is told that sent `x-weir-trace: 1`: `x-weir-explain` and `Server-Timing` on its answer.
//!
//! ```text
//! x-weir-explain: strategy=p2c; eligible=2; of=3; attempts="a 503 1.2ms, b 200 0.8ms"
//! Server-Timing: queue;dur=0.000, connect;dur=0.101, backend;dur=0.612, weir;dur=0.034
//! ```
//! Times are milliseconds and end with the head of the answer: what the body takes is not known yet.

use std::io::Write;

use crate::clock::{Moment, Span};
use crate::proxy::progress::Progress;
use crate::record::Finished;

/// Writes the first half, before the attempt at `backend` is answered.
pub(super) fn write(
    out: &mut Vec<u8>,
    finished: &Finished<'_>,
    strategy: &str,
    eligible: usize,
    backend: &str,
) {
    out.clear();
    let of = finished.pool.backends.len();
    // Writing to a `Vec` cannot fail.
    let _ = write!(
        out,
        "x-weir-explain: strategy={strategy}; eligible={eligible}; of={of}; attempts=\""
    );
    for attempt in &finished.record.attempts {
        let name = finished
            .backend_of(attempt)
            .map_or("weir", |backend| &backend.name);
        let took = Millis(attempt.took);
        let _ = write!(out, "{} {} {took}ms, ", safe(name), attempt.outcome.word());
    }
    let _ = write!(out, "{} ", safe(backend));
}

/// Writes the second half, now that the head is there.
pub(super) fn finish(out: &mut Vec<u8>, progress: &Progress, begun: Moment, attempt_began: Moment) {
    let now = progress.head_at.get().unwrap_or_else(Moment::now);
    let (queue, connect) = (progress.queue.get(), progress.connect.get().unwrap_or_default());
    let backend = progress.backend.get();
    let total = now - begun;
    let weir = total - (queue + connect + backend);
    let _ = write!(
        out,
        "{} {}ms\"\r\nServer-Timing: queue;dur={}, connect;dur={}, backend;dur={}, weir;dur={}\r\n",
        progress.status.get(),
        Millis(now - attempt_began),
        Millis(queue),
        Millis(connect),
        Millis(backend),
        Millis(weir)
    );
}

/// A name that a quoted string may hold as it is (RFC 9110 §5.6.4).
fn safe(name: &str) -> String {
    name.chars()
        .map(|character| match character {
            '"' | '\\' => '_',
            ' '..='~' => character,
            _ => '_',
        })
        .collect()
}

/// Three decimals of a millisecond.
struct Millis(Span);

impl std::fmt::Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1_000, micros % 1_000)
    }
}

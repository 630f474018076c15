//! Sampled exchanges on their way to the exporter: a bounded queue that workers push into and never wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use crossbeam_queue::ArrayQueue;

use super::TraceContext;
use crate::access_log::redact::Redaction;
use crate::clock::Span;
use crate::record::{Finished, Outcome, Part};

/// Exchanges that may wait for the exporter, over all workers.
const QUEUED_MAX: usize = 8_192;

/// One exchange, with all that its spans show.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub context: TraceContext,
    pub parent: Option<[u8; 8]>,
    pub began_unix_nanos: u64,
    pub ended_unix_nanos: u64,
    pub method: String,
    /// Redacted.
    pub target: String,
    pub client: String,
    pub status: u16,
    pub reason: Option<&'static str>,
    pub termination: &'static str,
    pub request_id: String,
    pub queue: Span,
    pub attempts: Vec<Attempt>,
}

/// One attempt, which has a span of its own.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub span_id: [u8; 8],
    pub backend: String,
    pub kind: &'static str,
    pub outcome: Outcome,
    pub began_unix_nanos: u64,
    pub ended_unix_nanos: u64,
    pub queue: Span,
    pub connect: Option<Span>,
    pub first_byte: Option<Span>,
}

/// What workers and the exporter share.
#[derive(Debug)]
pub struct Spans {
    queue: ArrayQueue<Box<Exchange>>,
    dropped: AtomicU64,
    exported: AtomicU64,
}

impl Spans {
    pub fn new() -> Arc<Spans> {
        Arc::new(Spans {
            queue: ArrayQueue::new(QUEUED_MAX),
            dropped: AtomicU64::new(0),
            exported: AtomicU64::new(0),
        })
    }

    /// Hands a sampled exchange on. For what is sampled only: it copies what it shows.
    #[cold]
    pub fn tell(&self, finished: &Finished<'_>, redaction: &Redaction) {
        let Some(traced) = finished.record.trace else {
            return;
        };
        if self.queue.is_full() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let exchange = copy(finished, traced.context, traced.parent, redaction);
        if self.queue.push(Box::new(exchange)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Up to `max` exchanges. For the exporter.
    pub fn take(&self, max: usize) -> Vec<Box<Exchange>> {
        std::iter::from_fn(|| self.queue.pop()).take(max).collect()
    }

    /// The collector did not take these exchanges.
    pub fn lost(&self, exchanges: usize) {
        self.dropped.fetch_add(exchanges as u64, Ordering::Relaxed);
    }

    pub fn sent(&self, exchanges: usize) {
        self.exported.fetch_add(exchanges as u64, Ordering::Relaxed);
    }

    /// Sampled exchanges that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Sampled exchanges that the collector has taken.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }
}

fn copy(
    finished: &Finished<'_>,
    context: TraceContext,
    parent: Option<[u8; 8]>,
    redaction: &Redaction,
) -> Exchange {
    let record = finished.record;
    let text = |part| {
        let bytes = record.captured.part(part).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut target = Vec::new();
    redaction.target(record.captured.part(Part::Target).unwrap_or_default(), |part| {
        target.extend_from_slice(part);
    });
    // What is measured is measured from the whole head on.
    let unix = finished
        .began_at()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as u64;
    let head_at = unix + record.head().as_nanos();
    let attempts = record.attempts.iter().map(|attempt| {
        let began = head_at + attempt.began.as_nanos();
        Attempt {
            span_id: attempt.span_id.to_be_bytes(),
            backend: finished
                .backend_of(attempt)
                .map_or_else(|| "weir".to_owned(), |backend| backend.name.clone()),
            kind: attempt.kind.word(),
            outcome: attempt.outcome,
            began_unix_nanos: began,
            ended_unix_nanos: began + attempt.took.as_nanos(),
            queue: attempt.queue,
            connect: attempt.connect,
            first_byte: attempt.first_byte,
        }
    });
    Exchange {
        context,
        parent,
        began_unix_nanos: unix,
        ended_unix_nanos: head_at + record.total().as_nanos(),
        method: text(Part::Method),
        target: String::from_utf8_lossy(&target).into_owned(),
        client: record
            .client
            .map_or_else(|| "unix".to_owned(), |client| client.to_string()),
        status: record.status,
        reason: record.reason.map(|reason| reason.word()),
        termination: record.termination.letters(),
        request_id: text(Part::RequestId),
        queue: record.queue,
        attempts: attempts.collect(),
    }
}

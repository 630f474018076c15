//! The access log: a line for every exchange, written by nobody who serves one.
//!
//! A worker formats the line of an exchange that is over into a buffer ([`line`]) and pushes it into a bounded lane of its
//! own; the thread `weir-access` ([`writer`]) collects from all lanes and writes in batches to the output
//! ([`output`]). A lane that is full drops the line; the drop is counted, in the metrics too, and said in the log. What a
//! line looks like and which exchanges have one is in [`Settings`], which come with every snapshot; where lines go is
//! settled at start.

mod clock;
mod escape;
pub mod line;
pub mod output;
pub mod redact;
pub mod template;
pub mod writer;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::clock::Span;
use crate::config::model::{AccessFormat, AccessLog as Config, AccessOnly, AccessOutput};
use crate::http1::{Known, RequestHead};
use crate::log::lane::{Bell, Lane};
use crate::record::{Captured, Finished, Part};
use clock::Wall;
use redact::Redaction;
use template::{Field, Piece};

/// Lines that a worker may be ahead of the writer.
const CAPACITY: usize = 8192;
/// Bytes of such lines, give or take one line: strangers make lines long.
const WAITING_BYTES: usize = 8 << 20;
/// Empty buffers kept for a worker: at the writer's pace of looking, 200,000 lines a second need no other.
const SPARE: usize = 2048;
/// A buffer that a long line made larger than this is not kept.
const SPARE_BYTES: usize = 2048;

/// What lines look like, and which exchanges have one.
#[derive(Clone, Debug)]
pub struct Settings {
    format: Format,
    only: AccessOnly,
    slow: Span,
    /// Of 2³², how many exchanges are looked at.
    sample: u64,
    /// Other headers, in lower case.
    headers: Vec<String>,
    redaction: Redaction,
    /// Lines go to journald, as fields.
    journal: bool,
    wants_agent: bool,
    wants_trace: bool,
}

#[derive(Clone, Debug)]
enum Format {
    Json,
    Common,
    Combined,
    Template(Vec<Piece>),
}

impl Settings {
    /// None: there is no access log.
    pub fn new(config: &Config) -> Option<Settings> {
        if config.output == AccessOutput::Off {
            return None;
        }
        let format = match &config.format {
            AccessFormat::Json => Format::Json,
            AccessFormat::Common => Format::Common,
            AccessFormat::Combined => Format::Combined,
            // It was checked when the configuration was read.
            AccessFormat::Template(text) => Format::Template(template::parse(text).unwrap_or_default()),
        };
        let mut headers = config.headers.clone();
        let (mut wants_agent, mut wants_trace) = match &format {
            Format::Json => (true, true),
            Format::Combined => (true, false),
            Format::Common | Format::Template(_) => (false, false),
        };
        if let Format::Template(pieces) = &format {
            for piece in pieces {
                match piece {
                    Piece::Header(name) if !headers.contains(name) => headers.push(name.clone()),
                    Piece::Field(Field::UserAgent | Field::Referer) => wants_agent = true,
                    Piece::Field(Field::TraceId) => wants_trace = true,
                    Piece::Header(_) | Piece::Field(_) | Piece::Text(_) => {}
                }
            }
        }
        Some(Settings {
            format,
            only: config.only,
            slow: Span(u64::try_from(config.slow.as_nanos()).unwrap_or(u64::MAX)),
            sample: (f64::from(config.sample) / 100.0 * 2f64.powi(32)).round() as u64,
            headers,
            redaction: Redaction {
                query: config.redact_query.clone(),
                headers: config.redact_headers.clone(),
            },
            journal: config.output == AccessOutput::Journald,
            wants_agent,
            wants_trace,
        })
    }

    /// Whether the next exchange may have a line at all.
    #[inline]
    pub fn samples(&self, random: &mut fastrand::Rng) -> bool {
        self.sample > u64::from(u32::MAX) || u64::from(random.u32(..)) < self.sample
    }

    /// Keeps what its line will show of the head.
    pub fn capture(&self, head: &RequestHead, bytes: &[u8], captured: &mut Captured) {
        for (name, value, known) in head.fields(bytes) {
            match known {
                Known::Host => captured.keep(Part::Host, value),
                Known::TraceParent if self.wants_trace => captured.keep(Part::ClientTraceParent, value),
                Known::Other if self.wants_agent => match name.len() {
                    10 if name.eq_ignore_ascii_case(b"user-agent") => captured.keep(Part::UserAgent, value),
                    7 if name.eq_ignore_ascii_case(b"referer") => captured.keep(Part::Referer, value),
                    _ => {}
                },
                _ => {}
            }
            if self
                .headers
                .iter()
                .any(|wanted| name.eq_ignore_ascii_case(wanted.as_bytes()))
            {
                captured.keep_header(name, value);
            }
        }
    }

    fn wants(&self, finished: &Finished<'_>) -> bool {
        match self.only {
            AccessOnly::All => true,
            AccessOnly::Errors => finished.record.status >= 500 || !finished.record.termination.is_complete(),
            AccessOnly::Slow => finished.record.total() >= self.slow,
        }
    }

    /// What must not be shown.
    pub fn redaction(&self) -> &Redaction {
        &self.redaction
    }
}

/// One worker's lines.
#[derive(Debug)]
struct WorkerLane {
    lines: Lane<Vec<u8>>,
    /// Bytes that the writer has taken out so far; wraps.
    taken: AtomicUsize,
}

/// What workers and the writer share.
#[derive(Debug)]
pub struct AccessLog {
    lanes: Box<[Arc<WorkerLane>]>,
    bell: Bell,
    dropped: AtomicU64,
    /// The file is to be opened again.
    reopen: AtomicBool,
}

impl AccessLog {
    /// For so many workers.
    pub fn new(workers: usize) -> AccessLog {
        AccessLog {
            lanes: (0..workers)
                .map(|_| {
                    Arc::new(WorkerLane {
                        lines: Lane::new(CAPACITY, SPARE, SPARE_BYTES),
                        taken: AtomicUsize::new(0),
                    })
                })
                .collect(),
            bell: Bell::default(),
            dropped: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
        }
    }

    /// Lines dropped since the start, because a lane was full or the output took nothing.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether the writer has taken all lines out.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.lines.is_empty())
    }

    /// Opens the file again, before the next line is written.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        self.bell.wake();
    }
}

/// One worker's end of the access log.
#[derive(Debug)]
pub struct Handle {
    log: Arc<AccessLog>,
    lane: Arc<WorkerLane>,
    /// Bytes put into the lane so far; wraps.
    put: Cell<usize>,
    wall: RefCell<Wall>,
}

impl Handle {
    /// None: there is no such worker.
    pub fn new(log: &Arc<AccessLog>, worker: usize) -> Option<Handle> {
        Some(Handle {
            lane: log.lanes.get(worker)?.clone(),
            log: log.clone(),
            put: Cell::new(0),
            wall: RefCell::new(Wall::now()),
        })
    }

    /// Writes the line of an exchange, if it has one; never waits.
    pub fn tell(&self, finished: &Finished<'_>, settings: &Settings) {
        if !settings.wants(finished) {
            return;
        }
        let WorkerLane { lines, taken } = &*self.lane;
        let put = self.put.get();
        if lines.is_full() || put.wrapping_sub(taken.load(Ordering::Relaxed)) >= WAITING_BYTES {
            self.log.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut buffer = lines.buffer();
        line::write(&mut buffer, finished, settings, &mut self.wall.borrow_mut());
        let length = buffer.len();
        if lines.push(buffer) {
            self.put.set(put.wrapping_add(length));
        } else {
            self.log.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.log.bell.ring();
    }
}

#[cfg(test)]
mod tests;

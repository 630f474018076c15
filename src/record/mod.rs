//! What is known of one exchange: when each of its phases was over, where its attempts went, and who ended it.
//!
//! A [`Record`] is lent by its worker with the tables of heads, filled by `proxy` as the exchange goes on, and read once
//! when it is over, as a [`Finished`]: by the metrics, the access log, the traces, and the list of exchanges worth a look.
//! Nothing here allocates once a worker is warm, and nothing here decides anything.
//!
//! # Phases
//! ```text
//!  began      head_at                                     first_byte_at              ended
//!    │ upload… │ queue │ connect │ send │     backend          │ …body, download │
//! ```
//! `total` is `ended − head_at`: a client that takes a minute to type its head is not slow because of weir.

mod captured;
mod termination;

use std::time::{Duration, SystemTime};

use crate::clock::{Moment, Span};
use crate::metrics::Phases;
use crate::reason::Reason;
use crate::snapshot::Pool;
use crate::trace::Traced;
use crate::transport::Peer;
use crate::upstream::backend::Backend;

pub use captured::{Captured, Part};
pub use termination::{By, Stage, Termination};

/// Attempts that a record has room for: the first, `retry.max_retries` at its largest, and some that met a dead connection
/// or went beside another. Further ones are counted only.
pub const ATTEMPTS_MAX: usize = 16;

/// Where an attempt went and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its backend's position in the pool; none: weir itself, for its own metrics.
    pub backend: Option<u16>,
    /// Why there was one.
    pub kind: Kind,
    pub outcome: Outcome,
    /// The id of its span; 0: it has none.
    pub span_id: u64,
    /// When it began, after `head_at`: what lies before went to the queue and to attempts before it.
    pub began: Span,
    /// What it waited for a slot of a backend, before it began.
    pub queue: Span,
    /// What connecting took; none: it took an idle connection.
    pub connect: Option<Span>,
    /// From its beginning to the head of the answer.
    pub first_byte: Option<Span>,
    /// From its beginning to its end.
    pub took: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    First,
    /// After another one that failed.
    Retry,
    /// Beside another one that took long.
    Hedge,
    /// The same again on a fresh connection: the idle one was dead.
    Repeat,
}

impl Kind {
    pub const fn word(self) -> &'static str {
        match self {
            Kind::First => "first",
            Kind::Retry => "retry",
            Kind::Hedge => "hedge",
            Kind::Repeat => "repeat",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, whatever the status.
    Status(u16),
    Failed(Reason),
    /// The client went away, or another attempt was faster: this says nothing of the backend.
    Abandoned,
}

impl Outcome {
    /// For people: the status, or the word of the reason.
    pub fn word(self) -> std::borrow::Cow<'static, str> {
        match self {
            Outcome::Status(status) => status.to_string().into(),
            Outcome::Failed(reason) => reason.word().into(),
            Outcome::Abandoned => "abandoned".into(),
        }
    }
}

/// See the module's documentation. All fields are as far as the exchange has come.
#[derive(Debug)]
pub struct Record {
    /// Who asked: the connection's peer, or whom a trusted proxy named.
    pub client: Peer,
    /// It may have a line in the access log.
    pub logged: bool,
    /// When its first byte was there; as `head_at` where all of the head came at once.
    pub began: Moment,
    /// As `began`, while the head is not whole.
    arriving: Option<Moment>,
    /// When its head was whole.
    pub head_at: Moment,
    /// When the head of the answer that was passed on was there.
    pub first_byte_at: Option<Moment>,
    pub ended: Moment,
    /// Waited for a slot of a backend, over all attempts.
    pub queue: Span,
    /// Spent connecting, over all attempts; none: nobody connected.
    pub connect: Option<Span>,
    /// Spent waiting for backends to answer or to go on, over all attempts.
    pub backend: Span,
    /// Waited for the client to send its body; none: it came with the head.
    pub upload: Option<Span>,
    /// Waited for the client to take the answer; none: it took all at once.
    pub download: Option<Span>,
    /// The first [`ATTEMPTS_MAX`] of them.
    pub attempts: Vec<Attempt>,
    /// How many attempts there were.
    pub attempts_total: u32,
    /// What the client got; 0: nothing.
    pub status: u16,
    /// Why weir itself answered or ended it.
    pub reason: Option<Reason>,
    /// Bytes received from the client, head and body, as they came.
    pub bytes_in: u64,
    /// Bytes sent to the client, head and body.
    pub bytes_out: u64,
    /// Of `bytes_out` the answer's head.
    pub head_out: u64,
    pub termination: Termination,
    /// None: weir takes no part in traces.
    pub trace: Option<Traced>,
    /// What is kept of the request's head.
    pub captured: Captured,
}

impl Default for Record {
    fn default() -> Self {
        let now = Moment::now();
        Record {
            client: None,
            logged: false,
            began: now,
            arriving: None,
            head_at: now,
            first_byte_at: None,
            ended: now,
            queue: Span::ZERO,
            connect: None,
            backend: Span::ZERO,
            upload: None,
            download: None,
            attempts: Vec::new(),
            attempts_total: 0,
            status: 0,
            reason: None,
            bytes_in: 0,
            bytes_out: 0,
            head_out: 0,
            termination: Termination::default(),
            trace: None,
            captured: Captured::default(),
        }
    }
}

impl Record {
    /// Lent anew: nothing is known of its exchange. Keeps its memory.
    pub fn clear(&mut self) {
        self.arriving = None;
        self.attempts.clear();
        self.captured.clear();
    }

    /// A part of the head is there.
    pub fn arrives(&mut self) {
        self.arriving.get_or_insert_with(Moment::now);
    }

    /// The head is whole, `now`. Until it is said otherwise, weir ended what follows.
    pub fn begin(&mut self, now: Moment) {
        self.client = None;
        self.logged = false;
        self.began = self.arriving.take().unwrap_or(now);
        self.head_at = now;
        self.first_byte_at = None;
        self.ended = now;
        self.queue = Span::ZERO;
        self.connect = None;
        self.backend = Span::ZERO;
        self.upload = None;
        self.download = None;
        self.attempts_total = 0;
        self.status = 0;
        self.reason = None;
        self.bytes_in = 0;
        self.bytes_out = 0;
        self.head_out = 0;
        self.termination = Termination::CUT;
        self.trace = None;
    }

    /// weir answers by itself.
    pub fn answered(&mut self, reason: Reason) {
        self.status = reason.status();
        self.reason = Some(reason);
        self.termination = Termination::of(reason);
        self.first_byte_at = None;
    }

    pub fn attempted(&mut self, attempt: Attempt) {
        self.attempts_total += 1;
        if self.attempts.len() < ATTEMPTS_MAX {
            self.attempts.push(attempt);
        }
    }

    /// From the whole head to the last byte.
    pub fn total(&self) -> Span {
        self.ended - self.head_at
    }

    /// What the client took to send the head.
    pub fn head(&self) -> Span {
        self.head_at - self.began
    }

    /// From the whole head to the head of the answer.
    pub fn first_byte(&self) -> Option<Span> {
        self.first_byte_at.map(|at| at - self.head_at)
    }

    /// What weir itself took: the total without what was waited for others.
    pub fn weir(&self) -> Span {
        let side = |wait: Option<Span>| wait.unwrap_or(Span::ZERO);
        let backends = self.queue + side(self.connect) + self.backend;
        self.total() - (backends + side(self.upload) + side(self.download))
    }

    /// The attempt whose answer the client got, or else the last one.
    pub fn deciding(&self) -> Option<&Attempt> {
        let last = self.attempts.last()?;
        let answered = |attempt: &&Attempt| attempt.outcome == Outcome::Status(self.status);
        if answered(&last) {
            return Some(last);
        }
        self.attempts.iter().rev().find(answered).or(Some(last))
    }

    /// What the metrics count besides totals. The time to first byte is the deciding attempt's own.
    pub fn phases(&self, deciding: &Attempt) -> Phases {
        Phases {
            first_byte: deciding.first_byte,
            connect: self.connect,
            queue: (!self.queue.is_zero()).then_some(self.queue),
            weir: Some(self.weir()),
            upload: self.upload,
            download: self.download,
        }
    }
}

/// One exchange that is over, as those see it who tell of it.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    pub record: &'a Record,
    /// Where its attempts went.
    pub pool: &'a Pool,
    pub worker: usize,
}

impl<'a> Finished<'a> {
    /// Who asked: the connection's peer, or whom a trusted proxy named. None: it came over a Unix socket.
    pub fn client(&self) -> Peer {
        self.record.client
    }

    /// The backend of an attempt; none: weir itself.
    pub fn backend_of(&self, attempt: &Attempt) -> Option<&'a Backend> {
        let index = usize::from(attempt.backend?);
        self.pool.backends.get(index).map(|backend| &**backend)
    }

    /// Whose answer the client got, or who was asked last.
    pub fn backend(&self) -> Option<&'a Backend> {
        self.record
            .deciding()
            .and_then(|attempt| self.backend_of(attempt))
    }

    /// When its first byte was there, by the wall clock.
    pub fn began_at(&self) -> SystemTime {
        SystemTime::now() - Duration::from(self.record.began.elapsed())
    }

    /// It was retried, was cut, or got an answer that says that something is wrong.
    pub fn is_troubled(&self) -> bool {
        let record = self.record;
        record.status >= 500 || record.attempts_total > 1 || !record.termination.is_complete()
    }
}

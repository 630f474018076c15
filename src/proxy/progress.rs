//! What the directions of one attempt tell each other while they run, and what they leave for the record.
//!
//! Cells in a box that is lent with the tables of heads: futures hold one pointer to it.

use std::cell::{Cell, RefCell};

use crate::clock::{Moment, Span};
use crate::record::Kind;
use crate::wire::Sent;

/// One attempt, as far as it has come.
#[derive(Debug)]
pub struct Progress {
    /// Why there is this attempt.
    pub kind: Cell<Kind>,
    /// The whole request body is with the backend.
    pub request_done: Cell<bool>,
    /// The final response head has come.
    pub head_seen: Cell<bool>,
    /// All of the request as far as it was received is still here.
    pub whole: Cell<bool>,
    /// Waited for a slot, before the attempt began.
    pub queue: Cell<Span>,
    /// What connecting took, where that was needed.
    pub connect: Cell<Option<Span>>,
    /// When the request was out and the wait for the answer began.
    pub sent_at: Cell<Option<Moment>>,
    /// When the final head came, and its status.
    pub head_at: Cell<Option<Moment>>,
    pub status: Cell<u16>,
    /// Waited for the backend to answer, to go on, or to take the request.
    pub backend: Cell<Span>,
    /// Waited for the client to go on with its body.
    pub upload: Cell<Option<Span>>,
    /// Waited for the client to take the answer.
    pub download: Cell<Option<Span>>,
    /// Bytes received from the client that did not come with its head.
    pub received: Cell<u64>,
    /// Bytes sent to the client, and those of them that were the answer's head.
    pub sent: Cell<u64>,
    pub head_sent: Cell<u64>,
    /// It is over and in the record.
    pub noted: Cell<bool>,
    /// The id of the attempt's span; 0: it has none.
    pub span_id: Cell<u64>,
    /// When the head of the request was whole, and when this attempt began; for `explained`.
    pub since: Cell<Option<(Moment, Moment)>>,
    /// Header lines that the answer is to carry, where the client may see what happened to its request.
    pub explained: RefCell<Vec<u8>>,
    /// Since when one side is waited for, once an answer's body takes longer than its head.
    mark: Cell<Option<Moment>>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            kind: Cell::new(Kind::First),
            request_done: Cell::default(),
            head_seen: Cell::default(),
            whole: Cell::default(),
            queue: Cell::default(),
            connect: Cell::default(),
            sent_at: Cell::default(),
            head_at: Cell::default(),
            status: Cell::default(),
            backend: Cell::default(),
            upload: Cell::default(),
            download: Cell::default(),
            received: Cell::default(),
            sent: Cell::default(),
            head_sent: Cell::default(),
            noted: Cell::default(),
            span_id: Cell::default(),
            since: Cell::default(),
            explained: RefCell::default(),
            mark: Cell::default(),
        }
    }
}

impl Progress {
    /// For another attempt of this kind.
    pub fn begin(&self, kind: Kind) {
        self.kind.set(kind);
        self.request_done.set(false);
        self.head_seen.set(false);
        self.whole.set(false);
        self.queue.set(Span::ZERO);
        self.connect.set(None);
        self.sent_at.set(None);
        self.head_at.set(None);
        self.status.set(0);
        self.backend.set(Span::ZERO);
        self.upload.set(None);
        self.download.set(None);
        self.received.set(0);
        self.sent.set(0);
        self.head_sent.set(0);
        self.noted.set(false);
        self.since.set(None);
        self.span_id.set(0);
        self.mark.set(None);
    }

    /// The whole request was here and has gone out.
    pub fn whole_request_sent(&self) {
        self.request_done.set(true);
        self.whole.set(true);
        self.sent_at.set(Some(Moment::now()));
    }

    /// The final head of the answer is there.
    pub fn head_came(&self, status: u16) {
        let now = Moment::now();
        self.head_seen.set(true);
        self.status.set(status);
        self.head_at.set(Some(now));
        if let Some(sent_at) = self.sent_at.get() {
            self.waited_for_backend(now - sent_at);
        }
    }

    pub fn waited_for_backend(&self, wait: Span) {
        self.backend.set(self.backend.get() + wait);
    }

    pub fn waited_for_upload(&self, wait: Span) {
        let before = self.upload.get().unwrap_or_default();
        self.upload.set(Some(before + wait));
    }

    /// The client took something.
    pub fn took(&self, sent: &Sent) {
        self.sent.set(self.sent.get() + sent.bytes as u64);
        if sent.in_parts && self.mark.get().is_none() {
            self.mark.set(self.head_at.get());
        }
    }

    /// From now on the backend is waited for, until [`Self::turn_to_client`].
    pub fn turn_to_backend(&self) {
        let now = Moment::now();
        if let Some(mark) = self.mark.replace(Some(now)) {
            self.waited_for_client(now - mark);
        }
    }

    /// From now on the client is waited for.
    pub fn turn_to_client(&self) {
        let now = Moment::now();
        if let Some(mark) = self.mark.replace(Some(now)) {
            self.waited_for_backend(now - mark);
        }
    }

    /// The last byte has gone to the client.
    pub fn all_taken(&self) {
        if let Some(mark) = self.mark.take() {
            self.waited_for_client(mark.elapsed());
        }
    }

    /// Whether the answer's body took longer than its head.
    pub fn has_streamed(&self) -> bool {
        self.download.get().is_some()
    }

    fn waited_for_client(&self, wait: Span) {
        let before = self.download.get().unwrap_or_default();
        self.download.set(Some(before + wait));
    }
}

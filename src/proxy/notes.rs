//! What is noted of an exchange on its way, and told when it is over.

use std::io;

use crate::balance::outcome::Outcome as Lesson;
use crate::clock::{Moment, Span};
use crate::config::strategy_name;
use crate::http1::Known;
use crate::proxy::attempt::outcome_of;
use crate::proxy::connection::Client;
use crate::proxy::context::Context;
use crate::proxy::exchange::Exchange;
use crate::proxy::explain;
use crate::proxy::tunnel::TunnelEnd;
use crate::reason::Reason;
use crate::record::{Attempt, By, Finished, Kind, Outcome, Part, Stage, Termination};
use crate::sys;
use crate::trace::{Sampler, TraceContext, Traced, request_id};

impl Exchange<'_> {
    /// Notes who asks for what.
    pub(super) fn introduce(&mut self) {
        let identity = self.identity();
        let bytes = self.request.inbound.buffer.filled();
        let heads = &mut *self.request.head;
        let (record, head) = (&mut heads.record, &heads.request);
        record.client = identity.client;
        record.bytes_in = self.request.head_len as u64;
        record.captured.keep(Part::Method, head.method_bytes(bytes));
        record.captured.keep(Part::Target, head.path(bytes));
        if let Some(sampler) = self.view.sampler {
            self.join_trace(sampler);
        }
        let bytes = self.request.inbound.buffer.filled();
        let heads = &mut *self.request.head;
        let (record, head) = (&mut heads.record, &heads.request);
        if let Some(log) = &self.view.access_log
            && log.samples(&mut self.worker.local.borrow_mut().random)
        {
            record.logged = true;
            record.captured.keep(Part::Version, head.version().name());
            log.capture(head, bytes, &mut record.captured);
        }
        if self.view.config.http.request_id {
            let theirs = if identity.trusted {
                head.field(bytes, b"x-request-id")
            } else {
                None
            };
            let theirs = theirs.filter(|id| request_id::is_good(id));
            match theirs {
                Some(id) => record.captured.keep(Part::RequestId, id),
                None => {
                    let random = &mut self.worker.local.borrow_mut().random;
                    let id = request_id::new(sys::coarse_unix_millis(), random);
                    record.captured.keep(Part::RequestId, &id);
                }
            }
        }
    }

    /// Finds the exchange's place in its trace.
    #[cold]
    fn join_trace(&mut self, sampler: Sampler) {
        let bytes = self.request.inbound.buffer.filled();
        let heads = &mut *self.request.head;
        let parent = heads
            .request
            .field(bytes, b"traceparent")
            .and_then(TraceContext::parse);
        let random = &mut self.worker.local.borrow_mut().random;
        let sampled = sampler.decide(parent.as_ref(), random);
        let context = match parent {
            Some(parent) => TraceContext {
                sampled,
                ..parent.child(random)
            },
            None => TraceContext::root(random, sampled),
        };
        heads.record.captured.keep(Part::TraceParent, &context.write());
        heads.record.trace = Some(Traced {
            context,
            parent: parent.map(|parent| parent.span_id),
        });
    }

    /// Gives the attempt that begins a span of its own, which its backend gets as its parent.
    #[inline]
    pub(super) fn begin_span(&mut self) {
        let heads = &mut *self.request.head;
        let Some(traced) = heads.record.trace else {
            return;
        };
        let span = traced.context.child(&mut self.worker.local.borrow_mut().random);
        heads.progress.span_id.set(u64::from_be_bytes(span.span_id));
        heads.record.captured.keep(Part::TraceParent, &span.write());
    }

    /// Whether the client is told what happened to its request: it asks so, and may.
    pub(super) fn is_traced(&self) -> bool {
        let head = &self.request.head.request;
        if !head.has(Known::WeirTrace) {
            return false;
        }
        let bytes = self.request.inbound.buffer.filled();
        let asked = head.field(bytes, b"x-weir-trace") == Some(b"1");
        let allow = &self.view.config.debug.allow;
        asked
            && self
                .client
                .peer
                .is_some_and(|peer| allow.iter().any(|network| network.contains(&peer.to_canonical())))
    }

    /// Writes what is known before the attempt under way is answered, for [`Response`](super::response::Response) to add
    /// the rest.
    #[cold]
    pub(super) fn explain(&mut self) {
        let finished = Finished {
            record: &self.request.head.record,
            pool: &self.view.pool,
            worker: self.worker.shard.number(),
        };
        let explained = &self.request.head.progress.explained;
        let strategy = strategy_name(self.view.config.strategy.kind);
        let eligible = self.view.pool.eligible();
        let Some(placed) = self.placed.as_ref().filter(|_| self.counted) else {
            return;
        };
        let backend = &placed.backend.name;
        let begun = self.request.head.record.head_at;
        self.request
            .head
            .progress
            .since
            .set(Some((begun, placed.started())));
        explain::write(
            &mut explained.borrow_mut(),
            &finished,
            strategy,
            eligible,
            backend,
        );
    }

    /// Notes the end of the attempt under way.
    pub(super) fn note(&mut self, outcome: Outcome, now: Moment) {
        let heads = &mut *self.request.head;
        let (record, progress) = (&mut heads.record, &heads.progress);
        let Some(placed) = &self.placed else {
            return;
        };
        if progress.noted.replace(true) {
            return;
        }
        let kind = progress.kind.get();
        // The same place, but not the same beginning.
        let started = match kind {
            Kind::Repeat => record.ended.max(placed.started()),
            Kind::First | Kind::Retry | Kind::Hedge => placed.started(),
        };
        let since = |at: Moment| at - started;
        record.attempted(Attempt {
            backend: u16::try_from(placed.index).ok().filter(|_| self.counted),
            kind,
            outcome,
            span_id: progress.span_id.get(),
            began: started - record.head_at,
            queue: progress.queue.get(),
            connect: progress.connect.get(),
            first_byte: progress.head_at.get().map(since),
            took: since(now),
        });
        record.ended = now;
        record.queue += progress.queue.get();
        record.connect = add(record.connect, progress.connect.get());
        record.backend += progress.backend.get();
        record.upload = add(record.upload, progress.upload.get());
        record.download = add(record.download, progress.download.get());
        record.first_byte_at = progress.head_at.get();
        record.bytes_in += progress.received.get();
        record.bytes_out += progress.sent.get();
        record.head_out = progress.head_sent.get();
    }

    /// Notes a second attempt that was slower than the first.
    pub(super) fn note_lost_hedge(&mut self, index: usize, began: Moment) {
        let record = &mut self.request.head.record;
        record.attempted(Attempt {
            backend: u16::try_from(index).ok(),
            kind: Kind::Hedge,
            outcome: Outcome::Abandoned,
            span_id: 0,
            began: began - record.head_at,
            queue: Default::default(),
            connect: None,
            first_byte: None,
            took: began.elapsed(),
        });
    }

    /// The client has a backend's answer, and the exchange ended so.
    pub(super) fn answered(&mut self, status: u16, termination: Termination) {
        self.record(Outcome::Status(status), Lesson::Status(status));
        let record = &mut self.request.head.record;
        record.status = status;
        record.termination = termination;
    }

    /// The backend failed when the client had a part of its answer.
    pub(super) fn cut(&mut self, reason: Reason) {
        self.record(Outcome::Failed(reason), outcome_of(reason));
        let heads = &mut *self.request.head;
        heads.record.status = heads.progress.status.get();
        heads.record.reason = Some(reason);
        heads.record.termination = Termination::cut_by(reason);
    }

    /// The client went away.
    pub(super) fn client_left(&mut self) {
        self.note(Outcome::Abandoned, Moment::now());
        let heads = &mut *self.request.head;
        let (record, progress) = (&mut heads.record, &heads.progress);
        let stage = if progress.sent.get() > 0 || !progress.request_done.get() {
            Stage::Data
        } else {
            Stage::Head
        };
        if progress.sent.get() > 0 {
            record.status = progress.status.get();
        }
        record.termination = Termination {
            by: By::Client,
            stage,
        };
    }

    pub(super) fn end_tunnel(&mut self, end: TunnelEnd) {
        let record = &mut self.request.head.record;
        record.ended = Moment::now();
        record.bytes_in += end.up;
        record.bytes_out += end.down;
        record.termination = end.broken.map_or(Termination::COMPLETE, |by| Termination {
            by,
            stage: Stage::Data,
        });
    }

    /// weir's own answer went out, or could not.
    pub(super) fn note_own_answer(&mut self, length: &io::Result<usize>) {
        let record = &mut self.request.head.record;
        record.ended = Moment::now();
        if let Ok(length) = length {
            record.bytes_out += *length as u64;
        }
    }

    /// Tells everybody who wants to know of the exchange, which is over.
    fn tell(&mut self) {
        if !self.counted {
            return;
        }
        if self.request.head.record.termination == Termination::CUT {
            let now = Moment::now();
            self.note(Outcome::Abandoned, now);
            self.request.head.record.ended = now;
        }
        let finished = Finished {
            record: &self.request.head.record,
            pool: &self.view.pool,
            worker: self.worker.shard.number(),
        };
        self.worker.tell(&finished, self.view);
    }
}

/// Tells of a head that did not become a request, and so not an exchange.
pub(super) fn tell_refusal(worker: &Context, client: &Client, reason: Reason, bytes_out: usize) {
    let view = worker.view();
    let mut heads = worker.heads.lend();
    let record = &mut heads.record;
    record.begin(Moment::now());
    record.client = client.peer;
    record.answered(reason);
    record.bytes_out = bytes_out as u64;
    record.logged = view
        .access_log
        .as_ref()
        .is_some_and(|log| log.samples(&mut worker.local.borrow_mut().random));
    let finished = Finished {
        record,
        pool: &view.pool,
        worker: worker.shard.number(),
    };
    worker.tell(&finished, &view);
}

/// An exchange is told of once, however it ends: also where its task is dropped in the middle.
impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

fn add(sum: Option<Span>, more: Option<Span>) -> Option<Span> {
    match (sum, more) {
        (Some(sum), Some(more)) => Some(sum + more),
        (sum, more) => sum.or(more),
    }
}

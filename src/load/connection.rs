//! One connection: requests one after another, and what became of each.
//!
//! Nothing is allocated for a request once the buffers and tables have grown: its bytes are copied from the plan into the
//! one buffer of the connection, which then takes the answer.

use std::time::Duration;

use super::schedule::{self, Schedule};
use super::tally::{ErrorKind, Sample, Timing};
use super::worker::Local;
use super::{BackendFrom, Target};
use crate::buffer::{self, Buffer};
use crate::clock::{self, Millis, Moment, Span};
use crate::http1::{Limits, RequestFacts, ResponseHead};
use crate::proxy::body::BodyFollower;
use crate::upstream::connect::connect_address;
use crate::wire::WatchedWire;

const LIMITS: Limits = Limits {
    max_head_bytes: 64 * 1024,
    max_headers: 256,
};
/// How long a connection waits after one that could not be made: a server that is gone is not hammered.
const AFTER_FAILURE: Duration = Duration::from_millis(10);
/// Bytes of a body in which a JSON member is looked for.
const JSON_BYTES: usize = 64 * 1024;
/// A request that is sent so much late counts as sent in time where that decides whether it belongs to the run.
const LATE: Span = Span::from_millis(10);

/// An answer, read to its end.
struct Answer {
    status: u16,
    bytes: u64,
    /// The number of its backend's name.
    backend: Option<usize>,
    keep_alive: bool,
}

/// Why there is none.
struct Failed {
    kind: ErrorKind,
    /// Not a byte of an answer had come.
    untouched: bool,
}

impl From<ErrorKind> for Failed {
    fn from(kind: ErrorKind) -> Failed {
        Failed {
            kind,
            untouched: false,
        }
    }
}

/// One request and what it came to.
struct Asked {
    id: u64,
    target: usize,
    /// From when it is measured.
    from: Moment,
    sent_at: Moment,
    ended_at: Moment,
    result: Result<Answer, ErrorKind>,
}

/// Asks until there is nothing more to ask.
pub(super) async fn run(local: &Local, number: usize) {
    let plan = &local.common.plan;
    let mut lane = Lane {
        local,
        wires: plan.targets.iter().map(|_| None).collect(),
        buffer: Buffer::none(),
        head: ResponseHead::new(),
        json: Vec::new(),
    };
    if wait_until(local, local.common.began).await.is_none() {
        return;
    }
    match plan.rate {
        None => lane.closed_loop().await,
        Some(rate) => {
            let schedule = Schedule::new(rate, number, plan.connections);
            lane.open_loop(schedule).await;
        }
    }
}

/// Waits for a point in time and gives the time that it is then; none: the run was stopped.
async fn wait_until(local: &Local, due: Moment) -> Option<Moment> {
    while !local.common.stopped() {
        let now = Moment::now();
        if now >= due {
            return Some(now);
        }
        local.pacer.wait(due).await;
    }
    None
}

/// A client with one request at a time, and a connection to each target.
struct Lane<'a> {
    local: &'a Local,
    wires: Vec<Option<WatchedWire>>,
    /// Of the request, then of the answer.
    buffer: Buffer,
    head: ResponseHead,
    /// The front of the body, where its backend is named there.
    json: Vec<u8>,
}

impl Lane<'_> {
    /// The next request when the answer before is here.
    async fn closed_loop(&mut self) {
        let mut now = Moment::now();
        while let Some(id) = self.local.common.next_id(now) {
            now = self.request(id, now, now).await;
        }
    }

    /// Requests when they are due, or as soon as the answer before is here.
    async fn open_loop(&mut self, mut schedule: Schedule) {
        let common = &self.local.common;
        let end = common.ends_at();
        let mut free_at = common.began;
        while schedule.due() < end {
            let due = common.began.after(schedule.due());
            let Some(sent_at) = wait_until(self.local, due).await else {
                break;
            };
            let counts_as = if sent_at <= due.after(LATE) { due } else { sent_at };
            let Some(id) = common.next_id(counts_as) else {
                break;
            };
            schedule.advance();
            let from = schedule::measured_from(due, free_at, sent_at);
            free_at = self.request(id, from, sent_at).await;
        }
        if common.counts_time() {
            let now = common.began.elapsed();
            self.local.tally.borrow_mut().unsent += schedule.due_before(end.min(now));
        }
    }

    /// One request, counted; when it was over.
    async fn request(&mut self, id: u64, from: Moment, sent_at: Moment) -> Moment {
        let target = (id % self.wires.len() as u64) as usize;
        let result = self.ask(target).await;
        let ended_at = Moment::now();
        let refused = matches!(result, Err(ErrorKind::Connect));
        self.count(Asked {
            id,
            target,
            from,
            sent_at,
            ended_at,
            result,
        });
        if !refused {
            return ended_at;
        }
        monoio::time::sleep(AFTER_FAILURE).await;
        Moment::now()
    }

    fn count(&self, asked: Asked) {
        let (local, plan) = (self.local, &self.local.common.plan);
        let time = Timing {
            response_ns: (asked.ended_at - asked.from).as_nanos(),
            service_ns: (asked.ended_at - asked.sent_at).as_nanos(),
        };
        let mut tally = local.tally.borrow_mut();
        let error = match &asked.result {
            Ok(answer) => {
                tally.answered(asked.target, time, answer.status, answer.bytes, answer.backend);
                let expected = |(first, last)| (first..=last).contains(&answer.status);
                (!plan.expect.is_none_or(expected)).then_some(ErrorKind::Status)
            }
            Err(kind) => Some(*kind),
        };
        if let Some(kind) = error {
            tally.failed(asked.target, kind);
        }
        drop(tally);
        local.answered_at(asked.ended_at);
        if local.wants_rows() {
            let answer = asked.result.as_ref().ok();
            let backend = answer.and_then(|answer| answer.backend);
            local.row(Sample {
                id: asked.id,
                start_ns: (asked.from - local.common.began).as_nanos(),
                latency_ns: time.response_ns,
                status: answer.map_or(0, |answer| answer.status),
                backend: backend.and_then(|number| local.names.borrow().name(number)),
                bytes: answer.map_or(0, |answer| answer.bytes),
                error,
            });
        }
    }

    /// Sends one request and reads its answer, within the time-out. Where a kept connection turns out to be closed and
    /// the request may be sent twice, it is sent again on a new one, once.
    async fn ask(&mut self, target: usize) -> Result<Answer, ErrorKind> {
        let local = self.local;
        let plan = &local.common.plan;
        let deadline = clock::now() + plan.timeout;
        let mut kept = self.wires[target].take();
        loop {
            let reused = kept.is_some();
            let wire = match kept.take() {
                Some(wire) => wire,
                None => connect(local, &plan.targets[target], deadline).await?,
            };
            wire.set_limit(deadline);
            match self.exchange(&plan.targets[target], &wire).await {
                Ok(answer) => {
                    if answer.keep_alive && plan.keep_alive {
                        wire.set_limit(Millis::NEVER);
                        self.wires[target] = Some(wire);
                    }
                    return Ok(answer);
                }
                Err(_) if wire.expired() => return Err(ErrorKind::Timeout),
                Err(failed) if failed.untouched && reused && plan.method.is_idempotent() => {
                    local.tally.borrow_mut().reconnects += 1;
                }
                Err(failed) => return Err(failed.kind),
            }
        }
    }

    async fn exchange(&mut self, target: &Target, wire: &WatchedWire) -> Result<Answer, Failed> {
        self.send(&target.request, wire).await;
        let mut bytes = 0;
        let head_len = self.read_head(wire, &mut bytes).await?;
        let backend_from = &self.local.common.plan.backend_from;
        let mut backend = by_header(backend_from, &self.head, self.buffer.filled())
            .map(|name| self.local.names.borrow_mut().number(name));
        self.buffer.consume(head_len);
        let ended_by_close = self.read_body(wire, &mut bytes).await?;
        if let BackendFrom::Json(member) = backend_from {
            backend = json_member(&self.json, member)
                .map(|name| self.local.names.borrow_mut().number(name.as_bytes()));
        }
        Ok(Answer {
            status: self.head.status(),
            bytes,
            backend,
            keep_alive: !ended_by_close && self.head.wants_keep_alive(),
        })
    }

    /// Sends a request. A failure is not told: a server may have answered without reading all of it, and reading finds out.
    async fn send(&mut self, mut request: &[u8], wire: &WatchedWire) {
        // A large one goes back to the pool; one that a lost operation kept is replaced.
        if self.buffer.capacity() != buffer::SMALL {
            self.buffer = buffer::small();
        }
        self.buffer.clear();
        while !request.is_empty() {
            let taken = self.buffer.append(request);
            let sent = wire
                .write_all(&mut self.buffer, self.local.common.plan.timeout)
                .await;
            self.buffer.clear();
            if !sent.is_ok() {
                return;
            }
            request = &request[taken..];
        }
    }

    /// Reads until the head of the final answer is whole; its length.
    async fn read_head(&mut self, wire: &WatchedWire, bytes: &mut u64) -> Result<usize, Failed> {
        self.head.reset();
        let facts = RequestFacts {
            method: self.local.common.plan.method,
            upgrade: false,
        };
        loop {
            if !self.buffer.is_empty() {
                let parsed = self.head.parse(self.buffer.filled(), &LIMITS, facts);
                match parsed.map_err(|_| ErrorKind::Malformed)? {
                    Some(head_len) if self.head.is_interim() => {
                        self.buffer.consume(head_len);
                        self.head.reset();
                        continue;
                    }
                    Some(head_len) => return Ok(head_len),
                    None => {}
                }
            }
            if self.buffer.spare() == 0 {
                let full = std::mem::replace(&mut self.buffer, Buffer::none());
                self.buffer = crate::proxy::connection::grow(full).ok_or(ErrorKind::Malformed)?;
            }
            match self.read(wire).await {
                Some(count) => *bytes += count,
                None => {
                    return Err(Failed {
                        kind: ErrorKind::Reset,
                        untouched: *bytes == 0,
                    });
                }
            }
        }
    }

    /// Reads the rest of the body, whose front is in the buffer; whether the end of the connection ended it.
    async fn read_body(&mut self, wire: &WatchedWire, bytes: &mut u64) -> Result<bool, Failed> {
        let wants_json = matches!(self.local.common.plan.backend_from, BackendFrom::Json(_));
        self.json.clear();
        let mut follower = BodyFollower::new(self.head.body(), wants_json);
        loop {
            let step = follower
                .follow(self.buffer.filled_mut())
                .map_err(|_| ErrorKind::Malformed)?;
            if wants_json && self.json.len() < JSON_BYTES {
                let payload = self.buffer.filled().get(..step.forward);
                self.json.extend_from_slice(payload.unwrap_or_default());
            }
            if follower.is_done() {
                // Nobody asked for more: what is behind the answer belongs to nothing.
                return match step.consumed == self.buffer.len() {
                    true => Ok(false),
                    false => Err(ErrorKind::Malformed.into()),
                };
            }
            self.buffer.clear();
            if follower.remaining() > buffer::SMALL as u64
                && self.buffer.capacity() < buffer::LARGE
                && let Some(large) = buffer::large()
            {
                self.buffer = large;
            }
            match self.read(wire).await {
                Some(count) => *bytes += count,
                None if follower.ends_with_connection() && !wire.expired() => return Ok(true),
                None => return Err(ErrorKind::Reset.into()),
            }
        }
    }

    /// None: the end, or a failure.
    async fn read(&mut self, wire: &WatchedWire) -> Option<u64> {
        match wire.read(&mut self.buffer).await {
            Ok(0) | Err(_) => None,
            Ok(count) => Some(count as u64),
        }
    }
}

async fn connect(local: &Local, target: &Target, deadline: Millis) -> Result<WatchedWire, ErrorKind> {
    let connecting = connect_address(&target.address, &local.settings, local.nonblocking);
    match monoio::time::timeout(deadline - clock::now(), connecting).await {
        Ok(Ok(transport)) => Ok(local.wires.watch(transport)),
        Ok(Err(_)) => Err(ErrorKind::Connect),
        Err(_) => Err(ErrorKind::Timeout),
    }
}

fn by_header<'a>(from: &BackendFrom, head: &ResponseHead, bytes: &'a [u8]) -> Option<&'a [u8]> {
    match from {
        BackendFrom::Usual => head
            .field(bytes, b"x-backend")
            .or_else(|| head.field(bytes, b"server")),
        BackendFrom::Header(name) => head.field(bytes, name.as_bytes()),
        BackendFrom::Json(_) => None,
    }
}

/// The string that a member of a JSON object is.
fn json_member(body: &[u8], member: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    value.get(member)?.as_str().map(str::to_owned)
}

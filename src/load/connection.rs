//! One connection: requests one after another, and what became of each.

use std::time::Duration;

use super::schedule::{self, Schedule};
use super::tally::{ErrorKind, Sample};
use super::worker::Local;
use super::{BackendFrom, Target};
use crate::buffer::{self, Buffer};
use crate::clock::{self, Moment, Span};
use crate::http1::{Limits, Method, RequestFacts, ResponseHead};
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
const JSON_BYTES: usize = 4096;

/// An answer, read to its end.
struct Answer {
    status: u16,
    bytes: u64,
    backend: Option<Vec<u8>>,
    keep_alive: bool,
}

/// Asks until there is nothing more to ask.
pub(super) async fn run(local: &Local, number: usize) {
    let plan = &local.common.plan;
    let began = local.common.began;
    let mut schedule = plan
        .rate
        .map(|rate| Schedule::new(rate, number, plan.connections));
    let mut wires: Vec<Option<WatchedWire>> = plan.targets.iter().map(|_| None).collect();
    let mut head = ResponseHead::new();
    let mut free_at = began;
    loop {
        let due = match &mut schedule {
            Some(schedule) => {
                let due = schedule.next();
                if local.common.ends_at().is_some_and(|end| due >= end) || !wait(local, began, due).await {
                    return;
                }
                Some(began.after(due))
            }
            None => None,
        };
        let Some(id) = local.common.next_id() else {
            return;
        };
        let which = (id % plan.targets.len() as u64) as usize;
        let (target, wire) = (&plan.targets[which], &mut wires[which]);
        let sent_at = Moment::now();
        let from = due.map_or(sent_at, |due| schedule::measured_from(due, free_at, sent_at));
        let asked = ask(local, target, wire, &mut head).await;
        free_at = Moment::now();
        let (response, service) = (free_at - from, free_at - sent_at);
        let pause = matches!(asked, Err(ErrorKind::Connect));
        count(local, which, id, from - began, response, service, asked, wire);
        if pause {
            monoio::time::sleep(AFTER_FAILURE).await;
        }
    }
}

/// Waits until a request is due; false: the run was stopped.
async fn wait(local: &Local, began: Moment, due: Span) -> bool {
    loop {
        let left = due - began.elapsed();
        if left.is_zero() || local.common.stopped() {
            return !local.common.stopped();
        }
        monoio::time::sleep(Duration::from(left).min(Duration::from_millis(500))).await;
    }
}

#[expect(clippy::too_many_arguments, reason = "all that one request came to")]
fn count(
    local: &Local,
    which: usize,
    id: u64,
    start: Span,
    response: Span,
    service: Span,
    asked: Result<Answer, ErrorKind>,
    wire: &mut Option<WatchedWire>,
) {
    let plan = &local.common.plan;
    let mut tally = local.tally.borrow_mut();
    tally.asked(which);
    let unexpected = |status: u16| {
        plan.expect
            .is_some_and(|(first, last)| !(first..=last).contains(&status))
    };
    let mut sample = Sample {
        id,
        start_ns: start.as_nanos(),
        latency_ns: response.as_nanos(),
        status: 0,
        backend: None,
        bytes: 0,
        error: None,
    };
    match asked {
        Ok(answer) => {
            tally.answered(
                response.as_nanos(),
                service.as_nanos(),
                answer.status,
                answer.bytes,
            );
            sample.status = answer.status;
            sample.bytes = answer.bytes;
            if let Some(backend) = &answer.backend {
                tally.answered_by(backend);
                if local.wants_rows() {
                    sample.backend = Some(String::from_utf8_lossy(backend).into_owned());
                }
            }
            if unexpected(answer.status) {
                tally.failed(ErrorKind::Status);
                sample.error = Some(ErrorKind::Status);
            }
            if !answer.keep_alive || !plan.keep_alive {
                *wire = None;
            }
        }
        Err(kind) => {
            tally.failed(kind);
            sample.error = Some(kind);
            *wire = None;
        }
    }
    drop(tally);
    if local.wants_rows() {
        local.row(sample);
    }
}

/// Sends one request and reads its answer, within the time-out. A connection that died while it was idle is made anew
/// once, if nothing came back.
async fn ask(
    local: &Local,
    target: &Target,
    wire: &mut Option<WatchedWire>,
    head: &mut ResponseHead,
) -> Result<Answer, ErrorKind> {
    let deadline = clock::now() + local.common.plan.timeout;
    loop {
        let (open, reused) = match wire {
            Some(open) => (open, true),
            None => (wire.insert(connect(local, target).await?), false),
        };
        open.set_limit(deadline);
        match exchange(local, target, open, head).await {
            Err((ErrorKind::Reset, true)) if reused => *wire = None,
            Err((_, _)) if open.expired() => return Err(ErrorKind::Timeout),
            Err((kind, _)) => return Err(kind),
            Ok(answer) => return Ok(answer),
        }
    }
}

async fn connect(local: &Local, target: &Target) -> Result<WatchedWire, ErrorKind> {
    let connecting = connect_address(&target.address, &local.settings, local.nonblocking);
    match monoio::time::timeout(local.common.plan.timeout, connecting).await {
        Ok(Ok(transport)) => Ok(local.wires.watch(transport)),
        Ok(Err(_)) => Err(ErrorKind::Connect),
        Err(_) => Err(ErrorKind::Timeout),
    }
}

/// An error: its kind, and whether not a byte had come.
async fn exchange(
    local: &Local,
    target: &Target,
    wire: &WatchedWire,
    head: &mut ResponseHead,
) -> Result<Answer, (ErrorKind, bool)> {
    let mut buffer = buffer::small();
    let mut request = &target.request[..];
    while !request.is_empty() {
        let taken = buffer.append(request);
        request = &request[taken..];
        if !wire
            .write_all(&mut buffer, local.common.plan.timeout)
            .await
            .is_ok()
        {
            return Err((ErrorKind::Reset, true));
        }
        buffer.clear();
    }
    head.reset();
    let facts = RequestFacts {
        method: if local.common.plan.head_only {
            Method::Head
        } else {
            Method::Get
        },
        upgrade: false,
    };
    let mut bytes = 0;
    let head_len = loop {
        if !buffer.is_empty() {
            let parsed = head.parse(buffer.filled(), &LIMITS, facts);
            match parsed.map_err(|_| (ErrorKind::Malformed, false))? {
                Some(head_len) if head.is_interim() => {
                    buffer.consume(head_len);
                    head.reset();
                    continue;
                }
                Some(head_len) => break head_len,
                None => {}
            }
        }
        if buffer.spare() == 0 {
            buffer = crate::proxy::connection::grow(buffer).ok_or((ErrorKind::Malformed, false))?;
        }
        bytes += read(wire, &mut buffer)
            .await
            .ok_or((ErrorKind::Reset, bytes == 0))?;
    };
    let mut backend = by_header(&local.common.plan.backend_from, head, buffer.filled());
    let mut follower = BodyFollower::new(head.body(), true);
    buffer.consume_front(head_len);
    let mut json = Vec::new();
    let clean = loop {
        let step = follower
            .follow(buffer.filled_mut())
            .map_err(|_| (ErrorKind::Malformed, false))?;
        if matches!(local.common.plan.backend_from, BackendFrom::Json(_)) && json.len() < JSON_BYTES {
            json.extend_from_slice(buffer.filled().get(..step.forward).unwrap_or_default());
        }
        if follower.is_done() {
            break step.consumed == buffer.len();
        }
        buffer.clear();
        match read(wire, &mut buffer).await {
            Some(count) => bytes += count,
            None if follower.ends_with_connection() && !wire.expired() => break false,
            None => return Err((ErrorKind::Reset, false)),
        }
    };
    if let BackendFrom::Json(member) = &local.common.plan.backend_from {
        backend = json_member(&json, member);
    }
    Ok(Answer {
        status: head.status(),
        bytes,
        backend,
        keep_alive: clean && head.wants_keep_alive() && !follower.ends_with_connection(),
    })
}

/// None: the end, or a failure.
async fn read(wire: &WatchedWire, buffer: &mut Buffer) -> Option<u64> {
    match wire.read(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(count) => Some(count as u64),
    }
}

fn by_header(from: &BackendFrom, head: &ResponseHead, bytes: &[u8]) -> Option<Vec<u8>> {
    let found = match from {
        BackendFrom::Usual => head
            .field(bytes, b"x-backend")
            .or_else(|| head.field(bytes, b"server")),
        BackendFrom::Header(name) => head.field(bytes, name.as_bytes()),
        BackendFrom::Json(_) => None,
    };
    found.map(<[u8]>::to_vec)
}

/// The string that a member of a JSON object is.
fn json_member(body: &[u8], member: &str) -> Option<Vec<u8>> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    value.get(member)?.as_str().map(|text| text.as_bytes().to_vec())
}

//! A client connection: requests are read off it one after another until somebody ends it.
//!
//! Between requests the connection waits for readability and holds no buffer and no admission; both come with the first
//! byte of a head. Pipelined bytes stay in the buffer they came in and are the next request.

use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use crate::buffer::{self, Admission, Buffer};
use crate::clock::{self, Millis};
use crate::http1::Method;
use crate::proxy::answer::{AnswerOptions, write_answer};
use crate::proxy::context::Context;
use crate::proxy::exchange::Exchange;
use crate::proxy::notes::tell_refusal;
use crate::proxy::placement::Limited;
use crate::proxy::tables::HeadSlot;
use crate::reason::Reason;
use crate::transport::Peer;
use crate::transport::Transport;
use crate::wire::{WatchedWire, Wire};

/// How long, and for how many bytes, a connection is read after its last answer, so that a close with unread bytes does
/// not reset the answer away (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A client connection and what is known of who is there.
pub struct Client {
    pub wire: WatchedWire,
    pub peer: Peer,
    /// Requests read so far.
    pub requests: u64,
}

impl Deref for Client {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

/// Bytes received from a client that belong to its next request, with the right to the memory they take.
pub struct Inbound {
    pub buffer: Buffer,
    /// None once a tunnel has given it back.
    pub admission: Option<Admission>,
}

/// A request whose head is complete.
pub struct Request {
    pub head: HeadSlot,
    /// Begins with the head; what follows is body or the next request.
    pub inbound: Inbound,
    pub head_len: usize,
    /// When its first byte was there.
    pub started: Millis,
}

/// How a client connection goes on after an exchange.
pub enum After {
    /// With the next request, of which some bytes may be here already.
    KeepAlive(Option<Inbound>),
    /// Closed: everything was read and answered.
    Close,
    /// Closed, but what the client still sends is read for a moment.
    Linger,
    /// Reset: the client must not take what it got for a whole answer.
    Abort,
}

/// A head that does not become a request.
struct Refusal {
    reason: Reason,
    detail: &'static str,
    /// It was a HEAD, as far as that could be seen.
    head_only: bool,
}

impl Refusal {
    fn new(reason: Reason, detail: &'static str) -> Self {
        Refusal {
            reason,
            detail,
            head_only: false,
        }
    }
}

/// Serves one client connection to its end.
pub async fn serve(worker: Rc<Context>, transport: Transport, peer: Peer) {
    let mut client = Client {
        wire: worker.wires.watch(transport),
        peer,
        requests: 0,
    };
    let mut carried = None;
    loop {
        let request = match next_request(&worker, &client, carried.take()).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(refusal) => return Box::pin(refuse(&worker, &client, &refusal)).await,
        };
        client.requests += 1;
        // An exchange ends by the snapshot that it began with.
        let view = worker.view();
        // Bound first, so that the exchange and its buffers are gone before what follows.
        let after = Exchange::new(&worker, &view, &client, request).run().await;
        match after {
            After::KeepAlive(inbound) => carried = inbound,
            After::Close => return,
            After::Linger => return Box::pin(linger(&client)).await,
            After::Abort => return client.transport().reset_on_close(),
        }
    }
}

/// Reads the next head; none when the client is done or was idle for too long.
async fn next_request(
    worker: &Rc<Context>,
    client: &Client,
    carried: Option<Inbound>,
) -> Result<Option<Request>, Refusal> {
    let request_head = worker.view().config.timeouts.request_head;
    let inbound = match carried {
        Some(inbound) => inbound,
        None => {
            if !wait_for_bytes(worker, client).await {
                return Ok(None);
            }
            let admission = Some(admission(client, request_head).await?);
            Inbound {
                buffer: buffer::small(),
                admission,
            }
        }
    };
    let started = clock::now();
    client.set_read_deadline(started + request_head);
    read_head(worker, client, inbound, started).await
}

/// Waits, with nothing held, until the client sends something; false: it is gone, or its time was up.
async fn wait_for_bytes(worker: &Context, client: &Client) -> bool {
    let now = clock::now();
    let patience = {
        let timeouts = &worker.view().config.timeouts;
        if client.requests == 0 {
            timeouts.request_head
        } else {
            timeouts.idle
        }
    };
    client.set_read_deadline(now + patience);
    client.set_idle_since(Some(now));
    let readable = client.transport().readable().await;
    client.set_idle_since(None);
    if client.take_expired() {
        // A request that came while its connection was being given up is answered all the same.
        return client.transport().has_bytes();
    }
    readable.is_ok()
}

async fn admission(client: &Client, patience: Duration) -> Result<Admission, Refusal> {
    if let Some(admission) = buffer::admit() {
        return Ok(admission);
    }
    if client.requests == 0 {
        return Err(Refusal::new(
            Reason::OutOfMemory,
            "limits.buffer_memory is in use",
        ));
    }
    client.set_read_deadline(clock::now() + patience);
    buffer::admitted(|| client.expired()).await.ok_or(Refusal::new(
        Reason::OutOfMemory,
        "limits.buffer_memory stayed in use",
    ))
}

async fn read_head(
    worker: &Rc<Context>,
    client: &Client,
    inbound: Inbound,
    started: Millis,
) -> Result<Option<Request>, Refusal> {
    let Inbound {
        mut buffer,
        admission,
    } = inbound;
    let mut head = worker.heads.lend();
    let limits = worker.view().head_limits;
    loop {
        if !buffer.is_empty()
            && let Some(head_len) =
                head.request
                    .parse(buffer.filled(), &limits)
                    .map_err(|reject| Refusal {
                        reason: reject.reason,
                        detail: reject.detail,
                        head_only: head.request.method() == Method::Head,
                    })?
        {
            client.set_read_deadline(Millis::NEVER);
            let inbound = Inbound { buffer, admission };
            return Ok(Some(Request {
                head,
                inbound,
                head_len,
                started,
            }));
        }
        if buffer.spare() == 0 {
            buffer = grow(buffer).ok_or(Refusal::new(Reason::OutOfMemory, "no buffer for a large head"))?;
        }
        if !buffer.is_empty() {
            head.record.arrives();
        }
        match client.read(&mut buffer).await {
            Ok(0) if client.expired() => {
                return Err(Refusal::new(Reason::HeadTimeout, "timeouts.request_head passed"));
            }
            Ok(0) if buffer.filled().iter().any(|byte| !byte.is_ascii_whitespace()) => {
                return Err(Refusal::new(
                    Reason::BadRequest,
                    "the connection ended within a head",
                ));
            }
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

/// Moves what is in a full buffer to the front, or into a larger one.
pub fn grow(mut full: Buffer) -> Option<Buffer> {
    full.compact();
    if full.spare() > 0 {
        return Some(full);
    }
    let mut larger = buffer::large()?;
    (larger.append(full.filled()) == full.len() && larger.spare() > 0).then_some(larger)
}

/// Answers a head that did not become a request, and closes.
async fn refuse(worker: &Context, client: &Client, refusal: &Refusal) {
    worker.shard.exchange_received();
    log_refusal(client, refusal.reason, refusal.detail);
    let answered = answer(worker, client, refusal.reason, None, true, refusal.head_only).await;
    tell_refusal(
        worker,
        client,
        refusal.reason,
        answered.as_ref().map_or(0, |&bytes| bytes),
    );
    if answered.is_ok() {
        linger(client).await;
    }
}

/// Says that weir answers by itself although no backend failed.
pub fn log_refusal(client: &Client, reason: Reason, detail: &str) {
    tracing::info!(reason = reason.word(), detail, client = %PeerName(client.peer), "request refused");
}

/// Sends an own answer and counts it; says how long it was. `limited`: what is told to a client that is past its rate.
///
/// # Errors
/// The client is gone.
pub(super) async fn answer(
    worker: &Context,
    client: &Client,
    reason: Reason,
    limited: Option<Limited>,
    close: bool,
    head_only: bool,
) -> io::Result<usize> {
    worker.shard.own_answer(reason);
    let view = worker.view();
    let options = AnswerOptions {
        close,
        head_only,
        reason_header: view.config.http.reason_header,
        retry_after: limited.as_ref().map(|limited| limited.retry_after),
        rate_limit: limited.map(|limited| limited.fields),
    };
    let mut out = buffer::small();
    write_answer(reason, options, &mut out);
    let length = out.len();
    let stall = view.config.timeouts.response_body;
    drop(view);
    client
        .write_all(&mut out, stall)
        .await
        .error
        .map_or(Ok(length), Err)
}

/// Ends the sending side and reads what the client still had under way, for a moment.
async fn linger(client: &Client) {
    client.transport().half_close();
    let now = clock::now();
    client.set_read_deadline(now + LINGER);
    // It may be closed to make room, or to stop, as one that waits for its next request may.
    client.set_idle_since(Some(now));
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        if client.transport().readable().await.is_err() {
            return;
        }
        let mut buffer = buffer::small();
        match client.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => left = left.saturating_sub(count),
        }
    }
}

/// A peer for logs.
pub struct PeerName(pub Peer);

impl std::fmt::Display for PeerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_result<A, B, C, F>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand idle connections are ten thousand of these futures.
    #[test]
    fn a_connection_costs_little() {
        let size = size_of_result(serve);
        assert!(
            size <= 1840,
            "the future of a client connection takes {size} bytes"
        );
        assert!(
            size_of::<Wire>() <= 176,
            "a wire takes {} bytes",
            size_of::<Wire>()
        );
    }
}

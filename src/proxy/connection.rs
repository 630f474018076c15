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
use crate::http1::Reject;
use crate::proxy::answer::{AnswerOptions, write_answer};
use crate::proxy::exchange;
use crate::reason::Reason;
use crate::server::listener::Peer;
use crate::server::tables::HeadSlot;
use crate::server::worker::Worker;
use crate::transport::Transport;
use crate::wire::{WatchedWire, Wire};

/// How long, and for how many bytes, a connection is read after its last answer, so that a close with unread bytes does
/// not reset the answer away (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// A client connection and what is known of who is there.
pub struct Client {
    wire: WatchedWire,
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
    pub admission: Admission,
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
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        Refusal {
            reason: reject.reason,
            detail: reject.detail,
        }
    }
}

impl Refusal {
    fn new(reason: Reason, detail: &'static str) -> Self {
        Refusal { reason, detail }
    }
}

/// Serves one client connection to its end.
pub async fn serve(worker: Rc<Worker>, transport: Transport, peer: Peer) {
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
            Err(refusal) => return refuse(&worker, &client, &refusal).await,
        };
        client.requests += 1;
        match exchange::run(&worker, &client, request).await {
            After::KeepAlive(inbound) => carried = inbound,
            After::Close => return,
            After::Linger => return linger(&client).await,
            After::Abort => return client.transport().reset_on_close(),
        }
    }
}

/// Reads the next head; none when the client is done or was idle for too long.
async fn next_request(
    worker: &Rc<Worker>,
    client: &Client,
    carried: Option<Inbound>,
) -> Result<Option<Request>, Refusal> {
    let timeouts = &worker.snapshot.config.timeouts;
    let inbound = match carried {
        Some(inbound) => inbound,
        None => {
            if !wait_for_bytes(worker, client).await {
                return Ok(None);
            }
            let admission = admission(client, timeouts.request_head).await?;
            Inbound {
                buffer: buffer::small(),
                admission,
            }
        }
    };
    let started = clock::now();
    client.set_read_deadline(started + timeouts.request_head);
    read_head(worker, client, inbound, started).await
}

/// Waits, with nothing held, until the client sends something; false: it is gone, or its time was up.
async fn wait_for_bytes(worker: &Worker, client: &Client) -> bool {
    let timeouts = &worker.snapshot.config.timeouts;
    let now = clock::now();
    let patience = if client.requests == 0 {
        timeouts.request_head
    } else {
        timeouts.idle
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
    buffer::admitted(|| client.expired()).await.ok_or(Refusal::new(
        Reason::OutOfMemory,
        "limits.buffer_memory stayed in use",
    ))
}

async fn read_head(
    worker: &Rc<Worker>,
    client: &Client,
    inbound: Inbound,
    started: Millis,
) -> Result<Option<Request>, Refusal> {
    let Inbound {
        mut buffer,
        admission,
    } = inbound;
    let mut head = worker.heads.lend();
    loop {
        if !buffer.is_empty()
            && let Some(head_len) = head.request.parse(buffer.filled(), &worker.head_limits)?
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
        let (read, back) = client.read(buffer).await;
        buffer = back;
        match read {
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
async fn refuse(worker: &Worker, client: &Client, refusal: &Refusal) {
    worker.shard.exchange_received();
    tracing::debug!(
        reason = refusal.reason.word(),
        detail = refusal.detail,
        client = %PeerName(client.peer),
        "request refused"
    );
    if answer(worker, client, refusal.reason, true, false).await.is_ok() {
        linger(client).await;
    }
}

/// Sends an own answer and counts it.
///
/// # Errors
/// The client is gone.
pub async fn answer(
    worker: &Worker,
    client: &Client,
    reason: Reason,
    close: bool,
    head_only: bool,
) -> io::Result<()> {
    worker.shard.own_answer(reason);
    let options = AnswerOptions {
        close,
        head_only,
        reason_header: worker.snapshot.config.http.reason_header,
    };
    let mut out = buffer::small();
    write_answer(reason, options, &mut out);
    let stall = worker.snapshot.config.timeouts.response_body;
    let (sent, _) = client.write_all(out, clock::now, stall).await;
    sent.error.map_or(Ok(()), Err)
}

/// Ends the sending side and reads what the client still had under way, for a moment.
async fn linger(client: &Client) {
    client.transport().half_close();
    client.set_read_deadline(clock::now() + LINGER);
    let mut left = LINGER_BYTES_MAX;
    let mut buffer = buffer::small();
    while left > 0 {
        buffer.clear();
        let (read, back) = client.read(buffer).await;
        buffer = back;
        match read {
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

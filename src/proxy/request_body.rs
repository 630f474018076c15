//! Moving the rest of a request body to the backend while the response may already be on its way back.

use std::time::Duration;

use crate::buffer::{self, Buffer};
use crate::clock::{self, Moment};
use crate::proxy::body::BodyFollower;
use crate::proxy::connection::Client;
use crate::proxy::progress::Progress;
use crate::reason::Reason;
use crate::snapshot::View;
use crate::upstream::pool::Connection;

/// Time spent waiting for a client's body before its average rate is looked at.
const RATE_GRACE: Duration = Duration::from_secs(10);

/// How the transfer ended.
#[derive(Debug, PartialEq, Eq)]
pub enum PumpEnd {
    /// All of the body is with the backend.
    Done,
    /// The backend takes no more; it may still answer.
    BackendClosed,
    /// The client is gone.
    ClientGone,
    /// The client sent what may not be passed on, or too slowly.
    Refused(Reason),
}

impl PumpEnd {
    /// Whether there is nobody, or nothing, to go on with the response for.
    pub fn stops_the_exchange(&self) -> bool {
        matches!(self, PumpEnd::ClientGone | PumpEnd::Refused(_))
    }
}

/// A request as it was received so far, for sending it again.
#[derive(Debug)]
pub struct Kept {
    buffer: Option<Buffer>,
    /// Body bytes that may still be added.
    room: usize,
}

impl Kept {
    /// Nothing is kept, and nothing will be.
    pub fn nothing() -> Self {
        Kept {
            buffer: None,
            room: 0,
        }
    }

    /// Keeps the first `sent` bytes of `inbound`, which begins with a head of `head_len` bytes, and up to `max` bytes of
    /// body in all; nothing if there is no memory for it.
    pub fn new(inbound: &Buffer, head_len: usize, sent: usize, max: usize) -> Self {
        let Some(room) = max.checked_sub(sent - head_len) else {
            return Kept::nothing();
        };
        let mut kept = Kept {
            buffer: buffer::large(),
            room: room + sent,
        };
        kept.add(inbound.filled().get(..sent).unwrap_or_default());
        kept
    }

    fn add(&mut self, bytes: &[u8]) {
        let Some(buffer) = &mut self.buffer else {
            return;
        };
        if bytes.len() > self.room || buffer.append(bytes) < bytes.len() {
            self.buffer = None;
        } else {
            self.room -= bytes.len();
        }
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.buffer.is_some()
    }

    /// Head and body as far as they were received; none if that was too much to keep.
    pub fn into_buffer(self) -> Option<Buffer> {
        self.buffer
    }
}

/// Counts a body against `http.max_body_bytes` and `http.min_body_rate`.
struct Meter {
    payload: u64,
    received: u64,
    waited: Duration,
}

/// Sends what is left of a body: `buffer` holds the bytes that came already, `follower` knows how many belong to it, and
/// `sent` payload bytes went out before. Gives back what the client sent behind the body; what was of the body is in `kept`,
/// as far as that goes.
#[expect(
    clippy::too_many_arguments,
    reason = "what two directions share, and no struct would be used twice"
)]
pub async fn pump(
    view: &View,
    client: &Client,
    backend: &Connection,
    progress: &Progress,
    follower: &mut BodyFollower,
    mut buffer: Buffer,
    sent: u64,
    kept: &mut Kept,
) -> (PumpEnd, Buffer) {
    let config = &view.config;
    let mut meter = Meter {
        payload: sent,
        received: sent,
        waited: Duration::ZERO,
    };
    let mut came_at = None;
    let end = loop {
        if !buffer.is_empty() {
            let forwarded = forward(view, backend, follower, &mut meter, buffer, kept).await;
            progress.whole.set(kept.is_whole());
            let rest = match forwarded {
                Ok(rest) => rest,
                Err((end, back)) => {
                    buffer = back;
                    break end;
                }
            };
            buffer = rest;
            if follower.is_done() {
                break PumpEnd::Done;
            }
        }
        buffer.clear();
        if buffer.capacity() == buffer::SMALL && follower.remaining() > buffer::LARGE as u64 {
            buffer = buffer::large().unwrap_or(buffer);
        }
        let asked = Moment::now();
        if let Some(came_at) = came_at {
            progress.waited_for_backend(asked - came_at);
        }
        match client
            .read_within(&mut buffer, config.timeouts.request_body)
            .await
        {
            Ok(0) if client.expired() => break PumpEnd::Refused(Reason::BodyTimeout),
            Ok(0) | Err(_) => break PumpEnd::ClientGone,
            Ok(count) => {
                let now = Moment::now();
                came_at = Some(now);
                meter.received += count as u64;
                meter.waited += Duration::from(now - asked);
                progress.received.set(progress.received.get() + count as u64);
                progress.waited_for_upload(now - asked);
            }
        }
        if meter.is_too_slow(config.http.min_body_rate) {
            break PumpEnd::Refused(Reason::BodyTimeout);
        }
    };
    progress.request_done.set(end == PumpEnd::Done);
    if !progress.head_seen.get() {
        progress.sent_at.set(Some(Moment::now()));
        backend.set_read_deadline(clock::now() + view.head_patience);
    }
    (end, buffer)
}

/// Sends the part of `buffer` that belongs to the body; gives back what does not.
async fn forward(
    view: &View,
    backend: &Connection,
    follower: &mut BodyFollower,
    meter: &mut Meter,
    mut buffer: Buffer,
    kept: &mut Kept,
) -> Result<Buffer, (PumpEnd, Buffer)> {
    let config = &view.config;
    let step = match follower.follow(buffer.filled_mut()) {
        Ok(step) => step,
        Err(reject) => return Err((PumpEnd::Refused(reject.reason), buffer)),
    };
    meter.payload += step.payload;
    if config.http.max_body_bytes.is_some_and(|max| meter.payload > max) {
        return Err((PumpEnd::Refused(Reason::BodyTooLarge), buffer));
    }
    // What a client pipelined behind a body is rare; it moves so that the body goes out of the buffer it came in.
    let mut rest = None;
    if step.consumed < buffer.len() {
        let behind = &buffer.filled()[step.consumed..];
        let mut own = if behind.len() <= buffer::SMALL {
            Some(buffer::small())
        } else {
            buffer::large()
        };
        match own.as_mut() {
            Some(own) => own.append(behind),
            None => return Err((PumpEnd::Refused(Reason::OutOfMemory), buffer)),
        };
        rest = own;
        buffer.truncate(step.consumed);
    }
    kept.add(buffer.filled());
    if !backend
        .write_all(&mut buffer, config.timeouts.response_head)
        .await
        .is_ok()
    {
        buffer.clear();
        return Err((PumpEnd::BackendClosed, rest.unwrap_or(buffer)));
    }
    Ok(rest.unwrap_or(buffer))
}

impl Meter {
    fn is_too_slow(&self, bytes_per_second: u64) -> bool {
        self.waited > RATE_GRACE
            && (self.received as u128) < u128::from(bytes_per_second) * self.waited.as_millis() / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_slow_client_past_the_grace_is_too_slow() {
        let mut meter = Meter {
            payload: 0,
            received: 100,
            waited: RATE_GRACE,
        };
        assert!(!meter.is_too_slow(1024));
        meter.waited += Duration::from_millis(1);
        assert!(meter.is_too_slow(1024));
        assert!(!meter.is_too_slow(0));
        meter.received = 1024 * 11;
        assert!(!meter.is_too_slow(1024));
    }
}

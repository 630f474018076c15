//! Bodies: whole, of a declared length, chunked, echoed, cut off, or an endless stream of events. None is held in memory
//! whole, but those that are made so.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::Stopping;

/// A prime, so that no block that was moved, doubled or lost goes unseen.
const PERIOD: usize = 251;

/// What a pattern body is sent from, one slice of it per frame: whole periods, about 64 KiB.
static BLOCK: [u8; PERIOD * 256] = {
    let mut block = [0; PERIOD * 256];
    let mut at = 0;
    while at < block.len() {
        block[at] = (at % PERIOD) as u8;
        at += 1;
    }
    block
};

/// The byte at `offset` of every `/bytes/N` and `/chunked/N` body.
pub fn pattern_byte(offset: u64) -> u8 {
    (offset % PERIOD as u64) as u8
}

/// The body of an answer.
pub(super) enum Body {
    Whole(Bytes),
    /// `left` more bytes of the pattern; `declared`: with a `Content-Length`, else chunked.
    Pattern {
        left: u64,
        declared: bool,
    },
    /// The request's own body, as it arrives, with its length if it declared one.
    Echo(Incoming),
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
    /// The first half of what it declares, and then, once that is certainly out, an error.
    Cut {
        half: Option<Bytes>,
        declared: u64,
        pause: Pin<Box<Sleep>>,
    },
}

/// Ends a response in its middle.
#[derive(Debug, thiserror::Error)]
#[error("the body was cut off, as it was told to be")]
struct CutOff;

/// How long a reset waits for the head before it to be read: what a reset overtakes in a queue may be lost.
const CUT_PAUSE: Duration = Duration::from_millis(5);

impl Body {
    /// `count` server-sent events (none: until the client or the backend goes), the first at once.
    pub fn events(count: Option<u64>, interval: Duration, stopping: Stopping) -> Body {
        let events = futures_util::stream::unfold((0, stopping), move |(number, mut stopping)| async move {
            if count.is_some_and(|count| number >= count) {
                return None;
            }
            if number > 0 && tokio::time::timeout(interval, stopping.stopped()).await.is_ok() {
                return None;
            }
            let event = format!("id: {number}\ndata: {{\"event\":{number}}}\n\n");
            Some((Bytes::from(event), (number + 1, stopping)))
        });
        Body::Events(Box::pin(events))
    }

    /// A body that ends half-way.
    pub fn cut(whole: &Bytes) -> Body {
        Body::Cut {
            half: Some(whole.slice(..whole.len() / 2)),
            // At least one byte is missing.
            declared: whole.len().max(1) as u64,
            pause: Box::pin(tokio::time::sleep(CUT_PAUSE)),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Pattern { left: 0, .. } => Poll::Ready(None),
            Body::Pattern { left, .. } => {
                // Every frame but the last is the whole block, so every frame starts a period.
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(BLOCK.len());
                *left -= length as u64;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&BLOCK[..length])))))
            }
            Body::Echo(incoming) => Pin::new(incoming)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(Into::into))),
            Body::Events(events) => events
                .as_mut()
                .poll_next(context)
                .map(|event| event.map(|e| Ok(Frame::data(e)))),
            Body::Cut { half, pause, .. } => match half.take().filter(|half| !half.is_empty()) {
                Some(half) => Poll::Ready(Some(Ok(Frame::data(half)))),
                None => pause.as_mut().poll(context).map(|()| Some(Err(CutOff.into()))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Whole(bytes) => bytes.is_empty(),
            Body::Pattern { left, declared } => *declared && *left == 0,
            Body::Echo(incoming) => incoming.is_end_stream(),
            Body::Events(_) | Body::Cut { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Pattern { left, declared: true } => SizeHint::with_exact(*left),
            Body::Echo(incoming) => incoming.size_hint(),
            Body::Cut { declared, .. } => SizeHint::with_exact(*declared),
            Body::Pattern { .. } | Body::Events(_) => SizeHint::default(),
        }
    }
}

//! `GET /stream`: server-sent events (HTML §9.2), one a second, with what happened since the last.
//!
//! The first message has everything that is remembered, or what came after the place where a client was cut off ([`Cursor`]);
//! so whoever comes back misses nothing. What is the same for all clients is made once a second, and only while somebody
//! watches; a client's own part is its rows and events.
//!
//! # Bounds
//! [`STREAMS_MAX`] clients at a time. A client that reads more slowly than messages come is dropped once [`AHEAD`] of them
//! wait for it. Each stream ends after [`LIFE`], before its connection does, and with weir.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::sleep;

use super::super::State;
use super::super::command::Refused;
use super::super::router::Answer;
use crate::events;
use crate::metrics::Series;

/// Streams that are served at a time.
pub(in crate::admin) const STREAMS_MAX: usize = 32;
/// Messages that may wait for a client.
const AHEAD: usize = 4;
/// A little less than the life of a connection of the admin listener, so that a stream ends by itself and not in the middle
/// of a message.
const LIFE: Duration = Duration::from_secs(50);
/// What the figures of the table look back over.
const WINDOW: Duration = Duration::from_secs(10);

/// What all streams have in common. On the control thread.
#[derive(Debug)]
pub struct Live {
    /// Tells this run of weir from the one before it: rows and events are numbered anew.
    run: u64,
    /// At each tick, the members of a message that are the same for everybody; none: weir ends.
    now: watch::Sender<Option<Arc<str>>>,
    places: Arc<Semaphore>,
}

impl Default for Live {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Live {
            run: since.as_millis() as u64,
            now: watch::Sender::new(Some(Arc::default())),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

impl Live {
    /// The history has a new row.
    pub(in crate::admin) fn tick(&self, state: &State) {
        if self.now.receiver_count() > 0 {
            self.now.send_replace(Some(members(state).into()));
        }
    }

    /// Streams that are being fed.
    #[cfg(test)]
    pub(in crate::admin) fn listeners(&self) -> usize {
        self.now.receiver_count()
    }

    /// Ends all streams.
    pub fn close(&self) {
        self.now.send_replace(None);
    }
}

/// Up to where a client has everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::admin) struct Cursor {
    /// Of which run of weir; 0: of this one. What another one numbered says nothing.
    pub(in crate::admin) run: u64,
    /// The first row that it has not.
    pub(in crate::admin) row: u64,
    /// The last event that it has.
    pub(in crate::admin) event: u64,
}

impl Cursor {
    /// What `Last-Event-ID` says; none without one that was given out here.
    pub(in crate::admin) fn of_header(headers: &HeaderMap) -> Option<Cursor> {
        let mut numbers = headers.get("last-event-id")?.to_str().ok()?.splitn(3, '-');
        let mut next = || numbers.next()?.parse().ok();
        Some(Cursor {
            run: next()?,
            row: next()?,
            event: next()?,
        })
    }
}

/// The stream for a client that has everything up to `cursor`.
pub(in crate::admin) fn answer(state: &Arc<State>, cursor: Cursor) -> Result<Answer, Refused> {
    let place = state.live.places.clone().try_acquire_owned().map_err(|_| {
        Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{STREAMS_MAX} streams are open already"),
        )
    })?;
    let (messages, mut waiting) = mpsc::channel(AHEAD);
    tokio::spawn(feed(state.clone(), cursor, messages, place));
    let frames = stream::poll_fn(move |cx| waiting.poll_recv(cx));
    let body = StreamBody::new(frames.map(|message| Ok::<_, Infallible>(Frame::data(message))));
    let mut answer = Response::new(body.boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// Feeds one client until it goes, is too slow, or the stream's time is over.
async fn feed(
    state: Arc<State>,
    mut cursor: Cursor,
    messages: mpsc::Sender<Bytes>,
    _place: OwnedSemaphorePermit,
) {
    let mut ticks = state.live.now.subscribe();
    if ticks.borrow_and_update().is_none() {
        return;
    }
    if ![0, state.live.run].contains(&cursor.run) {
        cursor = Cursor::default();
    }
    cursor.run = state.live.run;
    let mut now: Arc<str> = members(&state).into();
    let over = sleep(LIFE);
    tokio::pin!(over);
    loop {
        let (message, next) = message(&state, cursor, &now);
        if messages.try_send(message).is_err() {
            return;
        }
        cursor = next;
        tokio::select! {
            changed = ticks.changed() => if changed.is_err() { return },
            () = messages.closed() => return,
            () = &mut over => return,
        }
        now = match &*ticks.borrow_and_update() {
            Some(now) => now.clone(),
            None => return,
        };
    }
}

/// A message with what happened after `cursor`, and where that leaves the client. `now` are the members for everybody.
fn message(state: &State, cursor: Cursor, now: &str) -> (Bytes, Cursor) {
    let events = events::after(cursor.event);
    let history = state.history();
    let rows: Vec<_> = history.rows(cursor.row).collect();
    let next = Cursor {
        run: cursor.run,
        row: rows.last().map_or(cursor.row, |last| last.number + 1),
        event: events.last().map_or(cursor.event, |last| last.number),
    };
    let own = json!({ "rows": rows, "events": events }).to_string();
    // Two objects in one: the end of the first and the beginning of the second are a comma.
    let (own, now) = (own.trim_end_matches('}'), now.trim_start_matches('{'));
    let Cursor { run, row, event } = next;
    let text = format!("id: {run}-{row}-{event}\ndata: {own},{now}\n\n");
    (Bytes::from(text), next)
}

/// What everybody is told, as an object.
fn members(state: &State) -> String {
    let info = (state.info)();
    let views = (state.views)();
    let history = state.history();
    let known: Vec<_> = views
        .iter()
        .map(|view| history.backend_now(&view.name).unwrap_or_default())
        .collect();
    let picks = known.iter().map(|now| now.selections).sum::<u64>().max(1);
    let backends: Vec<Value> = views
        .iter()
        .zip(&known)
        .map(|(view, now)| {
            let window = history.window(Some(&view.name), Series::Total, WINDOW);
            let (recent, span) = window.unwrap_or_default();
            json!({
                "view": view,
                "requests": now.attempts,
                "failures": now.failures,
                "retries": now.retries,
                "share": now.selections as f64 / picks as f64,
                "rate": recent.count as f64 / span.as_secs_f64().max(1.0),
                "p50_ns": recent.quantile_ns(0.50),
                "p99_ns": recent.quantile_ns(0.99),
                "p50_ever_ns": now.p50_ns,
                "p99_ever_ns": now.p99_ns,
            })
        })
        .collect();
    let (recent, _) = history.window(None, Series::Total, WINDOW).unwrap_or_default();
    let recent = [0.5, 0.9, 0.99, 0.999].map(|share| recent.quantile_ns(share));
    let open = |row: &crate::metrics::history::Row| row.connections.iter().sum::<u64>();
    json!({
        "run": state.live.run,
        "version": env!("CARGO_PKG_VERSION"),
        "status": (state.phase)().word(),
        "strategy": info.algorithm,
        "uptime_ms": info.started.elapsed().as_millis() as u64,
        "requests": history.requests(),
        "connections": history.last().map_or(0, open),
        "missed": history.missed(),
        // Of the last seconds, over all backends.
        "recent": recent,
        "backends": backends,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_stream_is_three_numbers() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", HeaderValue::from_static(value));
            Cursor::of_header(&headers)
        };
        let cursor = Cursor {
            run: 1_700_000_000_000,
            row: 12,
            event: 3,
        };
        assert_eq!(of("1700000000000-12-3"), Some(cursor));
        for other in [
            "",
            "12",
            "1-2",
            "1-2-",
            "1-2-3-4",
            "a-2-3",
            "-1-2-3",
            "1-2-99999999999999999999999",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(Cursor::of_header(&HeaderMap::new()), None);
    }
}

//! `GET /stream`: server-sent events, one a second, with what happened since the last.
//!
//! The first one has everything that is remembered, or what came after `?after=` (the number of a row) and `?event=`; so
//! whoever was cut off misses nothing. A client that reads slowly gets fewer of them: a message is made when the one
//! before it is gone. At most [`STREAMS_MAX`] are served at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::super::command::Refused;
use super::super::router::Answer;
use super::super::{Phase, State};
use crate::events;
use crate::metrics::Series;

/// Pages that are fed at a time.
pub(in crate::admin) const STREAMS_MAX: usize = 16;
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the end of weir is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// What the figures of the table look back over.
const WINDOW: Duration = Duration::from_secs(10);

static STREAMS: AtomicUsize = AtomicUsize::new(0);

/// One stream's place among [`STREAMS_MAX`].
struct Place;

impl Place {
    fn take() -> Option<Place> {
        let taken = STREAMS.fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
            (taken < STREAMS_MAX).then_some(taken + 1)
        });
        taken.ok().map(|_| Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Feed {
    state: Arc<State>,
    /// The next row and event that the client has not seen.
    row: u64,
    event: u64,
    due: Instant,
    _place: Place,
}

/// The stream, from this row on and after this event.
pub(in crate::admin) fn answer(state: &Arc<State>, row: u64, event: u64) -> Result<Answer, Refused> {
    let Some(place) = Place::take() else {
        return Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{STREAMS_MAX} pages are open already"),
        ));
    };
    let feed = Feed {
        state: state.clone(),
        row,
        event,
        due: Instant::now(),
        _place: place,
    };
    let body = StreamBody::new(stream::unfold(feed, next)).boxed_unsync();
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

async fn next(mut feed: Feed) -> Option<(Result<Frame<Bytes>, std::convert::Infallible>, Feed)> {
    while Instant::now() < feed.due {
        if (feed.state.phase)() == Phase::Draining {
            return None;
        }
        sleep_until(feed.due.min(Instant::now() + LOOK)).await;
    }
    feed.due = Instant::now() + INTERVAL;
    let (message, row, event) = message(&feed.state, feed.row, feed.event);
    (feed.row, feed.event) = (row, event);
    let text = format!("id: {row}\ndata: {message}\n\n");
    Some((Ok(Frame::data(Bytes::from(text))), feed))
}

/// What happened from row `row` on and after event `event`, and what is to be asked for next time.
pub(in crate::admin) fn message(state: &State, row: u64, event: u64) -> (Value, u64, u64) {
    let snapshot = state.snapshot();
    let events = events::after(event);
    let history = state
        .history
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let rows: Vec<_> = history.rows(row).collect();
    let next_row = rows.last().map_or(row, |last| last.number + 1);
    let next_event = events.last().map_or(event, |last| last.number);
    let shown: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| {
            let mut value = json!(row);
            // The table shows backends as they are now.
            if index + 1 < rows.len() {
                value["backends"] = Value::Array(Vec::new());
            }
            value
        })
        .collect();
    let picks: u64 = snapshot.backends.iter().map(|backend| backend.selections).sum();
    let views = (state.views)();
    let backends: Vec<Value> = views
        .iter()
        .map(|view| {
            let totals = snapshot
                .backends
                .iter()
                .find(|totals| totals.info.name == view.name);
            let window = history.window(Some(&view.name), Series::Total, WINDOW);
            let (recent, span) = window.unwrap_or_default();
            let seconds = span.as_secs_f64().max(1.0);
            json!({
                "view": view,
                "requests": totals.map_or(0, |totals| totals.attempts()),
                "failures": totals.map_or(0, |totals| totals.failures),
                "retries": totals.map_or(0, |totals| totals.retries),
                "share": totals.map_or(0.0, |totals| totals.selections as f64 / picks.max(1) as f64),
                "rate": recent.count as f64 / seconds,
                "p50_ns": recent.quantile_ns(0.50),
                "p99_ns": recent.quantile_ns(0.99),
            })
        })
        .collect();
    let message = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "status": (state.phase)().word(),
        "strategy": snapshot.algorithm,
        "uptime_ms": snapshot.uptime.as_millis() as u64,
        "requests": snapshot.total(|worker| worker.exchanges),
        "connections": snapshot.total(|worker| worker.connections_open),
        "rows": shown,
        "backends": backends,
        "events": events,
    });
    (message, next_row, next_event)
}

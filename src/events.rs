//! What happened lately, for people: the last thousand events with their numbers.
//!
//! Workers, the health thread and the control thread push into a bounded queue that nobody waits for; whoever asks drains
//! it into the list. A queue that overflows loses its oldest, and the numbers show the gap.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_queue::ArrayQueue;
use serde::Serialize;

/// Events that are kept.
const KEPT: usize = 1_000;
/// Events on their way into the list.
const QUEUED: usize = 1_024;

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// One more for each event.
    pub number: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    /// `good`, `bad` or `neutral`.
    pub tone: Tone,
    /// Whom it is about; empty: weir itself.
    pub backend: String,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    Good,
    Bad,
    Neutral,
}

struct Events {
    queue: ArrayQueue<Event>,
    next: AtomicU64,
    kept: Mutex<VecDeque<Event>>,
}

fn events() -> &'static Events {
    static EVENTS: OnceLock<Events> = OnceLock::new();
    EVENTS.get_or_init(|| Events {
        queue: ArrayQueue::new(QUEUED),
        next: AtomicU64::new(1),
        kept: Mutex::default(),
    })
}

/// Notes that something happened. Never waits; to be called for what is rare.
pub fn note(tone: Tone, backend: &str, text: impl Into<String>) {
    let events = events();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    events.queue.force_push(Event {
        number: events.next.fetch_add(1, Ordering::Relaxed),
        at: now.as_millis() as u64,
        tone,
        backend: backend.to_owned(),
        text: text.into(),
    });
}

/// Those after number `after`, oldest first. For the control thread.
pub fn after(after: u64) -> Vec<Event> {
    let events = events();
    let mut kept = events.kept.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(event) = events.queue.pop() {
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
    }
    kept.iter()
        .filter(|event| event.number > after)
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_in_order() {
        for number in 0..3_000 {
            note(Tone::Neutral, "events-test", number.to_string());
            if number % 500 == 0 {
                after(0);
            }
        }
        let found = after(0);
        assert!(found.len() <= KEPT);
        assert!(found.windows(2).all(|pair| pair[0].number < pair[1].number));
        let last = found
            .iter()
            .rfind(|event| event.backend == "events-test")
            .unwrap();
        assert_eq!(last.text, "2999");
        assert!(after(last.number).iter().all(|event| event.number > last.number));
    }
}

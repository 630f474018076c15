//! What happened lately, for people: the last thousand events with their numbers.
//!
//! Workers, the health thread and the control thread push into a bounded queue that nobody waits for; whoever asks drains
//! it into the list and numbers what it finds. A queue that overflows loses its oldest, and the numbers show the gap.

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

#[derive(Debug)]
struct Events {
    queue: ArrayQueue<Event>,
    /// Events that found no place and were not numbered yet.
    lost: AtomicU64,
    /// Taken by who asks, never by who tells.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// The last number that was given.
    last: u64,
}

fn events() -> &'static Events {
    static EVENTS: OnceLock<Events> = OnceLock::new();
    EVENTS.get_or_init(Events::new)
}

/// Notes that something happened. Never waits; to be called for what is rare.
pub fn note(tone: Tone, backend: &str, text: impl Into<String>) {
    events().note(tone, backend, text.into());
}

/// Those after number `after`, oldest first. For the control thread.
pub fn after(after: u64) -> Vec<Event> {
    events().after(after)
}

impl Events {
    fn new() -> Events {
        Events {
            queue: ArrayQueue::new(QUEUED),
            lost: AtomicU64::new(0),
            kept: Mutex::default(),
        }
    }

    fn note(&self, tone: Tone, backend: &str, text: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = Event {
            number: 0,
            at: now.as_millis() as u64,
            tone,
            backend: backend.to_owned(),
            text,
        };
        if self.queue.force_push(event).is_some() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn after(&self, after: u64) -> Vec<Event> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Numbered here and not where they are noted: two threads could put theirs in the other order than they counted.
        kept.last += self.lost.swap(0, Ordering::Relaxed);
        // No more than there can be: a thread that goes on telling does not keep this one here.
        for _ in 0..QUEUED {
            let Some(mut event) = self.queue.pop() else {
                break;
            };
            kept.last += 1;
            event.number = kept.last;
            if kept.events.len() == KEPT {
                kept.events.pop_front();
            }
            kept.events.push_back(event);
        }
        let found = kept.events.iter().filter(|event| event.number > after);
        found.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_the_gap_shows() {
        let events = Events::new();
        for number in 0..500 {
            events.note(Tone::Neutral, "a", number.to_string());
        }
        assert_eq!(events.after(0).len(), 500);
        for number in 500..2_500 {
            events.note(Tone::Neutral, "a", number.to_string());
        }
        let found = events.after(500);
        assert_eq!(found.len(), KEPT);
        // 976 of 2,000 found no place.
        assert!(
            found
                .iter()
                .all(|event| event.text == (event.number - 1).to_string())
        );
        assert_eq!(found.last().map(|event| event.number), Some(2_500));
        assert!(events.after(2_500).is_empty());
    }

    #[test]
    fn who_asks_while_threads_tell_misses_nothing() {
        let events = Events::new();
        thread::scope(|scope| {
            for thread in 0..4 {
                let events = &events;
                scope.spawn(move || {
                    for number in 0..200 {
                        events.note(Tone::Good, &thread.to_string(), number.to_string());
                    }
                });
            }
            let (mut last, mut seen) = (0, 0);
            while seen < 800 {
                for event in events.after(last) {
                    assert_eq!(event.number, last + 1);
                    last = event.number;
                    seen += 1;
                }
            }
        });
    }
}

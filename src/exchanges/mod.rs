//! The last exchanges that were slow, failed or retried, with all that is known of them: `GET /exchanges`.
//!
//! A worker that is told of such an exchange writes it down as a line of the access log into a bounded queue of its
//! own, which loses its oldest when it is full; the control thread collects when somebody asks. An exchange that went well
//! costs two comparisons.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use serde_json::Value;

use crate::access_log::line;
use crate::access_log::redact::Redaction;
use crate::clock::Span;
use crate::record::Finished;

/// Exchanges that one worker keeps until somebody asks.
const QUEUED_MAX: usize = 1_024;

/// When an exchange began, in microseconds since 1970, and its line.
type Written = (u64, Vec<u8>);

/// What all workers share.
#[derive(Debug)]
pub struct Kept {
    queues: Box<[ArrayQueue<Written>]>,
    list: Mutex<VecDeque<(u64, Value)>>,
    /// How many are kept in all.
    max: usize,
}

impl Kept {
    /// Room for `max` exchanges of so many workers; `max` 0 keeps none.
    pub fn new(workers: usize, max: usize) -> Arc<Kept> {
        let queued = max.clamp(1, QUEUED_MAX);
        Arc::new(Kept {
            queues: (0..workers).map(|_| ArrayQueue::new(queued)).collect(),
            list: Mutex::default(),
            max,
        })
    }

    /// Keeps an exchange that is worth a look: it took `slow` or longer, or something went wrong. Never waits.
    #[inline]
    pub fn tell(&self, finished: &Finished<'_>, slow: Span, redaction: &Redaction) {
        if finished.record.total() < slow && !finished.is_troubled() {
            return;
        }
        self.keep(finished, redaction);
    }

    #[cold]
    fn keep(&self, finished: &Finished<'_>, redaction: &Redaction) {
        let Some(queue) = self.queues.get(finished.worker).filter(|_| self.max > 0) else {
            return;
        };
        // While trouble lasts the oldest gives its memory to the newest.
        let oldest = if queue.is_full() { queue.pop() } else { None };
        let mut text = oldest.map_or_else(Vec::new, |(_, text)| text);
        text.clear();
        line::write_json(&mut text, finished, redaction);
        let at = finished
            .began_at()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        queue.force_push((at.as_micros() as u64, text));
    }

    /// Those that match, newest first. For the control thread.
    pub fn list(&self, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Vec::new();
        for queue in &self.queues {
            // As many as there can be: a worker that keeps more meanwhile does not hold this up.
            for _ in 0..queue.capacity() {
                let Some((at, text)) = queue.pop() else { break };
                if let Ok(value) = serde_json::from_slice(&text) {
                    fresh.push((at, value));
                }
            }
        }
        list.extend(fresh);
        list.make_contiguous().sort_by_key(|(at, _)| *at);
        while list.len() > self.max {
            list.pop_front();
        }
        let newest_first = list.iter().rev().map(|(_, value)| value);
        newest_first.filter(|value| matches(value)).cloned().collect()
    }
}

//! What happened lately, as the admin API knows it: the history of the metrics.
//!
//! [`keep`] runs on the control thread for as long as weir serves and lets time pass once a second. Its lock is taken by
//! that thread alone, for the length of one call; no worker knows of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::State;
use crate::metrics::history::TICK;
use crate::metrics::{History, Standing};

/// See the module's documentation.
#[derive(Debug)]
pub struct Feed {
    history: Mutex<History>,
}

impl Feed {
    /// Nothing has happened yet.
    #[expect(clippy::new_without_default, reason = "it begins at a moment")]
    pub fn new() -> Feed {
        Feed {
            history: Mutex::new(History::new(Instant::now())),
        }
    }

    /// The metrics of the last 15 minutes. Not to be held over an `await`.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, state: &State) {
        // Nothing on this thread reloads between the two, so they are of the same backends in the same order.
        let (info, views) = ((state.info)(), (state.views)());
        let standing = |index: usize| match views.get(index) {
            Some(view) => Standing {
                in_flight: view.in_flight,
                state: view.state.word(),
            },
            None => Standing {
                in_flight: 0,
                state: "unknown",
            },
        };
        let missed = self
            .history()
            .tick(Instant::now(), SystemTime::now(), &state.shards, &info, standing);
        if missed > 0 {
            tracing::warn!(
                missed,
                "the history has a long second: the control thread was held up"
            );
        }
    }
}

/// Lets time pass once a second, without end.
pub async fn keep(state: Arc<State>) {
    let mut seconds = interval(TICK);
    // After a stall, one long second and then the old rhythm.
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first one comes at once.
    seconds.tick().await;
    loop {
        seconds.tick().await;
        state.feed.tick(&state);
    }
}

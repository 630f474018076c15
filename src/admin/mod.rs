//! What the outside may ask weir about itself and tell it to do: liveness, readiness, metrics, backends, reload.
//!
//! Runs on the control thread (tokio, one thread). It reads shards through [`crate::metrics`], and all else, as what is
//! live, through the functions in [`State`]; it changes nothing itself but hands each [`Command`] to whoever can. Who
//! serves calls [`serve()`] once per listener; the data path is not involved, except that a worker which gets a request
//! for the metrics on the main port passes it on to [`internal`].

mod command;
mod exchanges;
mod explain;
mod exposition;
mod guard;
mod hdr;
pub mod internal;
pub mod log_level;
mod page;
mod profiling;
mod router;
mod serve;
mod view;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use crate::exchanges::Kept;
use crate::metrics::history::History;
use crate::metrics::{BackendState, Dropped, Info, Shard, Snapshot};

pub use command::{Command, Commander, Refused};
pub use explain::{Asked, Explainer};
pub use guard::Guard;
pub use page::Live;
pub use serve::{Listener, serve};
pub use view::{BackendView, BreakerView, Condition, Connections, Ejections, Overrides, Probe};

/// The pool that paths without one mean.
pub const DEFAULT_POOL: &str = "default";

/// Where weir is in its life, as readiness sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The listeners are not all open yet.
    Starting,
    /// Serving.
    Ready,
    /// Told to stop.
    Draining,
}

impl Phase {
    /// The word in the body of `/readyz`.
    pub const fn word(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}

/// What a listener offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything, for those whom [`Guard`] admits.
    Admin,
    /// Only `/livez`, `/readyz`, `/metrics` and what is below it.
    Observe,
    /// Only profiles.
    Profiling,
    /// The metrics under any path: the main port's path for them is configurable, and the worker has checked it.
    Metrics,
}

/// Everything the answers are made from.
pub struct State {
    /// Worker 0 first.
    pub shards: Vec<Arc<Shard>>,
    /// The backends of the snapshot in force.
    pub info: Box<dyn Fn() -> Info + Send + Sync>,
    /// Asked at each request for readiness.
    pub phase: Box<dyn Fn() -> Phase + Send + Sync>,
    /// A backend as it is now, by index in what `info` gives.
    pub backend: Box<dyn Fn(usize) -> BackendState + Send + Sync>,
    /// Every backend of every pool as it is now, in the order of the configuration.
    pub views: Box<dyn Fn() -> Vec<BackendView> + Send + Sync>,
    /// What would be chosen for a request.
    pub explain: Box<Explainer>,
    /// What each worker's ring is at.
    pub rings: Box<dyn Fn() -> Vec<serde_json::Value> + Send + Sync>,
    /// Exchanges worth a look; none: none is kept.
    pub kept: Option<Arc<Kept>>,
    /// The last quarter of an hour.
    pub history: Arc<Mutex<History>>,
    /// Who has the page open.
    pub live: Live,
    /// What was dropped so far because nobody took it in time.
    pub dropped: Box<dyn Fn() -> Dropped + Send + Sync>,
    /// Does what a state-changing call asks for.
    pub command: Box<Commander>,
    /// Asked at each request of [`Surface::Admin`]: a reload may bring another token.
    pub guard: Box<dyn Fn() -> Arc<Guard> + Send + Sync>,
}

impl State {
    /// A second is over: remembers it, and tells whoever has the page open.
    pub fn tick(&self) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let missed = self
            .history()
            .tick(now, wall, &self.shards, &(self.info)(), &self.backend);
        if missed > 0 {
            tracing::warn!(
                missed,
                "the history has a long second: the control thread was held up"
            );
        }
        self.live.tick(self);
    }

    /// The last quarter of an hour. Not to be held over an `await`.
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.shards, &(self.info)(), &self.backend)
    }

    fn eligible(&self) -> usize {
        (0..(self.info)().backends.len())
            .filter(|&index| (self.backend)(index).eligible)
            .count()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("workers", &self.shards.len())
            .field("backends", &(self.info)().backends.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! What the workers serve by: one immutable view of the configuration and of the backends' shared state.
//!
//! The control thread builds it; workers hold it by reference count and read it once per exchange. A [`Backend`] in it is
//! shared with whatever snapshot comes next.

use std::sync::Arc;

use crate::balance::Strategy;
use crate::balance::liveness::Bitmap;
use crate::config::Config;
use crate::config::model::StrategyKind;
use crate::upstream::backend::Backend;

/// A named group of backends with one strategy.
#[derive(Debug)]
pub struct Pool {
    pub name: String,
    pub strategy: Strategy,
    pub backends: Vec<Arc<Backend>>,
    /// Who is up as the probes say. Until there are probes, everybody.
    pub probe_up: Bitmap,
}

impl Pool {
    pub fn new(name: &str, strategy: StrategyKind, backends: Vec<Arc<Backend>>) -> Self {
        Pool {
            name: name.to_owned(),
            strategy: Strategy::new(strategy),
            probe_up: Bitmap::new(backends.len(), true),
            backends,
        }
    }

    /// The backend for the next attempt; none if nobody is eligible.
    pub fn pick(&self) -> Option<&Arc<Backend>> {
        let index = self
            .strategy
            .pick(self.backends.len(), |index| self.is_eligible(index))?;
        self.backends.get(index)
    }

    /// Whether a backend may be chosen.
    pub fn is_eligible(&self, index: usize) -> bool {
        self.probe_up.get(index)
    }

    /// Backends that may be chosen.
    pub fn eligible(&self) -> usize {
        (0..self.backends.len())
            .filter(|&index| self.is_eligible(index))
            .count()
    }
}

/// The configuration in force with the pools it names.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Config,
    /// The pool that every request goes to.
    pub pool: Pool,
    /// Where `/metrics` on the main port is answered: the control thread, reached as if it were a backend.
    pub internal: Option<Arc<Backend>>,
}

impl Snapshot {
    /// Backends by index, the internal one last: the length of every per-backend table.
    pub fn backend_slots(&self) -> usize {
        self.pool.backends.len() + 1
    }
}

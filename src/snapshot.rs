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
    /// Who is in service as the operator says: a backend of weight 0 is not.
    pub in_service: Bitmap,
}

impl Pool {
    /// A pool of `backends`, of which those of weight 0 are out of service.
    pub fn new(name: &str, strategy: StrategyKind, backends: Vec<(Arc<Backend>, u16)>) -> Self {
        let in_service = Bitmap::new(backends.len(), true);
        for (index, _) in backends
            .iter()
            .enumerate()
            .filter(|(_, (_, weight))| *weight == 0)
        {
            in_service.set(index, false);
        }
        Pool {
            name: name.to_owned(),
            strategy: Strategy::new(strategy),
            probe_up: Bitmap::new(backends.len(), true),
            in_service,
            backends: backends.into_iter().map(|(backend, _)| backend).collect(),
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
        self.probe_up.get(index) && self.in_service.get(index)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_of_weight_0_is_never_picked() {
        let backend = |index: usize| {
            Arc::new(Backend::new(
                index,
                index.to_string(),
                String::new(),
                String::new(),
                Vec::new(),
            ))
        };
        let pool = Pool::new(
            "default",
            StrategyKind::RoundRobin,
            vec![(backend(0), 1), (backend(1), 0)],
        );
        for _ in 0..4 {
            assert_eq!(pool.pick().map(|backend| backend.index), Some(0));
        }
        assert_eq!(pool.eligible(), 1);
        pool.probe_up.set(0, false);
        assert!(pool.pick().is_none());
    }
}

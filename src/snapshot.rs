//! What the workers serve by: one immutable view of the configuration and of the backends' shared state.
//!
//! The control thread builds it; workers hold it by reference count and read it once per exchange. A [`Backend`] in it is
//! shared with whatever snapshot comes next.

use std::sync::Arc;

use crate::balance::pick::{Local, Member};
use crate::balance::pool::{Ask, Settings};
use crate::config::Config;
use crate::upstream::backend::Backend;

/// A named group of backends with one strategy.
#[derive(Debug)]
pub struct Pool {
    pub name: String,
    pub backends: Vec<Arc<Backend>>,
    pub balance: crate::balance::pool::Pool,
}

impl Pool {
    /// A pool of `backends`, of which those of weight 0 are out of service.
    pub fn new(name: &str, config: &Config, backends: Vec<(Arc<Backend>, u16)>) -> Self {
        let members = backends
            .iter()
            .map(|(backend, weight)| Member::new(backend.shared.clone(), &backend.url, *weight))
            .collect();
        Pool {
            name: name.to_owned(),
            balance: crate::balance::pool::Pool::new(Settings::of(config), members),
            backends: backends.into_iter().map(|(backend, _)| backend).collect(),
        }
    }

    /// The backend for the next attempt; none if nobody is eligible.
    pub fn pick(&self, ask: &Ask<'_>, local: &mut Local) -> Option<&Arc<Backend>> {
        let choice = self.balance.pick(ask, local)?;
        self.backends.get(choice.index)
    }

    /// Whether a backend may be chosen.
    pub fn is_eligible(&self, index: usize) -> bool {
        self.balance.eligible().get(index)
    }

    /// Backends that may be chosen.
    pub fn eligible(&self) -> usize {
        self.balance.eligible().count()
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

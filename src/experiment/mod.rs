//! Experiments with real processes: what clients see when a backend dies, slows down or comes back.
//!
//! `weir experiment` runs them. The processes are this very program (`weir backend`, `weir run`) on ports of the kernel's
//! choice; everything else is plain blocking code, for it measures milliseconds and serves nobody. It is no part of the
//! data path, and nothing but `cli` may call it. All time is bounded, and no process outlives the one that started it.
//!
//! | file | holds |
//! | --- | --- |
//! | `children.rs` | the processes and their directory |
//! | `client.rs` | a blocking HTTP/1.1 client and the closed-loop load |
//! | `stand.rs` | some backends and a weir before them |
//! | `circuit_breaker.rs`, `strategies.rs` | the experiments |
//! | `report.rs` | figures, tables, files |

mod children;
mod circuit_breaker;
mod client;
mod report;
mod stand;
mod strategies;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use circuit_breaker::CircuitBreaker;
pub use report::{Called, Report};
pub use strategies::Strategies;

/// Why an experiment has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("stopped by a signal")]
    Stopped,
    #[error("{program} did not start: {why}")]
    Start { program: String, why: String },
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |error| Error::Io { what, error }
    }
}

/// Says whether the experiment shall end early; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks for the end.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), Error> {
        if self.is_stopped() {
            Err(Error::Stopped)
        } else {
            Ok(())
        }
    }
}

//! Where the process is between its start and its end, in one atomic that the control thread writes and everybody reads.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// The stages in their order; no way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Not every worker accepts yet.
    Starting,
    Serving,
    /// Told to stop: no longer ready, still accepting (`shutdown.delay`).
    Draining,
    /// Listeners close, what is in flight is answered with `Connection: close`.
    Closing,
}

/// The stage, and the client connections that all workers together hold.
#[derive(Debug)]
pub struct Lifecycle {
    stage: AtomicU8,
    clients: AtomicUsize,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Lifecycle {
            stage: AtomicU8::new(Stage::Starting as u8),
            clients: AtomicUsize::new(0),
        }
    }
}

impl Lifecycle {
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            2 => Stage::Draining,
            _ => Stage::Closing,
        }
    }

    /// Goes on to `stage`; an earlier one than the present changes nothing.
    pub fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    /// Client connections over all workers.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    pub fn client_opened(&self) {
        self.clients.fetch_add(1, Ordering::Relaxed);
    }

    pub fn client_closed(&self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_only_advance() {
        let lifecycle = Lifecycle::default();
        for stage in [Stage::Starting, Stage::Serving, Stage::Draining, Stage::Closing] {
            lifecycle.advance(stage);
            assert_eq!(lifecycle.stage(), stage);
        }
        lifecycle.advance(Stage::Serving);
        assert_eq!(lifecycle.stage(), Stage::Closing);
    }
}

//! The way down: not ready, then no new connections, then nothing in flight, then the end.

use crate::cli::exit;
use crate::config::model::Shutdown;
use crate::control::signals::Signals;
use crate::control::workers::Crew;
use crate::events::{self, Tone};
use crate::server::lifecycle::{Lifecycle, Stage};
use crate::snapshot::Published;

/// How weir came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The process's exit code.
    pub code: u8,
    /// Nothing more is to be waited for.
    pub at_once: bool,
}

/// Waits for the signal to stop, calling `reload` for every SIGHUP and `reopen` for every SIGUSR1 until then, and stops. A second signal ends the wait at once.
pub async fn wait(
    signals: &mut Signals,
    crew: &mut Crew,
    lifecycle: &Lifecycle,
    published: &Published,
    reload: impl Fn(),
    reopen: impl Fn(),
) -> Stopped {
    let signal = tokio::select! {
        signal = signals.next_end(reload, reopen) => signal,
        worker = crew.next_end() => {
            events::note(Tone::Bad, "", format!("worker {} ended by itself", worker.worker));
            tracing::error!(worker = worker.worker, error = worker.error(), "a worker ended by itself");
            return Stopped { code: exit::CUT, at_once: true };
        }
    };
    let shutdown = &published.current().config.shutdown;
    lifecycle.advance(Stage::Draining);
    events::note(Tone::Neutral, "", format!("weir stops: {signal}"));
    tracing::info!(
        signal,
        delay_ms = shutdown.delay.as_millis() as u64,
        timeout_ms = shutdown.timeout.as_millis() as u64,
        clients = lifecycle.clients(),
        "stopping"
    );
    tokio::select! {
        code = drain(crew, lifecycle, shutdown) => Stopped { code, at_once: false },
        signal = signals.next() => {
            tracing::warn!(signal, clients = lifecycle.clients(), "second signal: ending at once");
            let code = if lifecycle.clients() > 0 { exit::CUT } else { exit::ANSWERED };
            Stopped { code, at_once: true }
        }
    }
}

async fn drain(crew: &mut Crew, lifecycle: &Lifecycle, shutdown: &Shutdown) -> u8 {
    tokio::time::sleep(shutdown.delay).await;
    lifecycle.advance(Stage::Closing);
    crew.wake_all();
    let mut cut = 0;
    let mut failed = false;
    while crew.running() > 0 {
        let end = crew.next_end().await;
        match end.result {
            Ok(end) => cut += end.cut,
            Err(ref error) => {
                failed = true;
                tracing::error!(worker = end.worker, %error, "a worker ended badly");
            }
        }
    }
    if cut > 0 {
        tracing::warn!(cut, "shutdown.timeout passed: connections were cut");
    }
    tracing::info!("stopped");
    if cut > 0 || failed {
        exit::CUT
    } else {
        exit::ANSWERED
    }
}

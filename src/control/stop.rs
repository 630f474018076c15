//! The way down: not ready, then no new connections, then nothing in flight, then the end.

use crate::cli::exit;
use crate::config::model::Shutdown;
use crate::control::signals::Signals;
use crate::control::workers::Crew;
use crate::server::lifecycle::{Lifecycle, Stage};

/// Waits for the signal to stop, stops, and gives the exit code. A second signal ends the wait at once.
pub async fn wait(signals: &mut Signals, crew: &mut Crew, lifecycle: &Lifecycle, shutdown: &Shutdown) -> u8 {
    let signal = tokio::select! {
        signal = signals.next() => signal,
        worker = crew.next_end() => {
            tracing::error!(worker = worker.worker, error = worker.error(), "a worker ended by itself");
            return exit::CUT;
        }
    };
    lifecycle.advance(Stage::Draining);
    tracing::info!(
        signal,
        delay_ms = shutdown.delay.as_millis() as u64,
        timeout_ms = shutdown.timeout.as_millis() as u64,
        clients = lifecycle.clients(),
        "stopping"
    );
    tokio::select! {
        code = drain(crew, lifecycle, shutdown) => code,
        signal = signals.next() => {
            tracing::warn!(signal, clients = lifecycle.clients(), "second signal: ending at once");
            exit::CUT
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

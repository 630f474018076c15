//! The thread `weir-access`: takes lines out of the lanes and writes them in batches. The only one that waits for the
//! output.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::AccessLog;
use super::output::Output;
use crate::config::model::AccessLog as Config;

/// Bytes of a batch that is written without waiting for more.
const BATCH_BYTES: usize = 256 << 10;
/// How often lost lines are spoken of.
const SAY_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end of the process may wait for the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps the access log going; writes what is left when dropped, waiting no longer than two seconds for an output that
/// takes nothing.
#[must_use = "the access log ends when its guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    log: Arc<AccessLog>,
    /// Disconnects when the writer is done.
    done: Receiver<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.log.bell.stop();
        // Either disconnected, which is what is waited for, or out of patience.
        let _ = self.done.recv_timeout(FLUSH_PATIENCE);
    }
}

/// The access log of a process: what workers write to, and the thread that writes it out.
#[derive(Debug, Default)]
pub struct Running {
    pub log: Option<Arc<AccessLog>>,
    guard: Option<Guard>,
}

impl Running {
    /// Opens the output that the configuration names, for so many workers.
    ///
    /// # Errors
    /// In words: the output cannot be opened, or there is no thread for it.
    pub fn start(config: &Config, workers: usize) -> Result<Running, String> {
        let Some(output) = Output::open(config)? else {
            return Ok(Running::default());
        };
        let log = Arc::new(AccessLog::new(workers));
        let guard = spawn(&log, output)
            .map_err(|error| format!("the access log's thread cannot be started: {error}"))?;
        Ok(Running {
            log: Some(log),
            guard: Some(guard),
        })
    }

    /// Opens the file again, before the next line is written.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// Writes what is left, as [`Guard`] does.
    pub fn end(&mut self) {
        self.guard = None;
    }
}

/// What was said of lines that were lost.
#[derive(Debug, Default)]
struct Said {
    lines: u64,
    at: Option<Instant>,
    /// The last reason that the output gave.
    why: Option<io::Error>,
}

/// Starts the writer of `log`.
fn spawn(log: &Arc<AccessLog>, mut output: Output) -> io::Result<Guard> {
    let (running, done) = mpsc::channel::<()>();
    let shared = log.clone();
    let thread = thread::Builder::new()
        .name("weir-access".to_owned())
        .spawn(move || {
            let mut said = Said::default();
            let nothing_waits = || shared.is_empty() && !shared.reopen.load(Ordering::Acquire);
            shared
                .bell
                .serve(|| turn(&shared, &mut output, &mut said), nothing_waits);
            drop(running);
        })?;
    log.bell.set_writer(thread.thread().clone());
    Ok(Guard {
        log: log.clone(),
        done,
    })
}

/// Collects and writes once; whether there was anything.
fn turn(log: &AccessLog, output: &mut Output, said: &mut Said) -> bool {
    // What was there before the file is opened again belongs to the old one.
    let reopen = log.reopen.swap(false, Ordering::AcqRel);
    let mut any = false;
    for lane in &log.lanes {
        // As many as there can be: a worker that is faster than this loop must not hold it.
        for _ in 0..super::CAPACITY {
            let Some(line) = lane.lines.pop() else { break };
            output.add(&line);
            // Nobody else adds to it.
            let taken = lane.taken.load(Ordering::Relaxed).wrapping_add(line.len());
            lane.taken.store(taken, Ordering::Relaxed);
            lane.lines.recycle(line);
            if output.bytes() >= BATCH_BYTES {
                flush(log, output, said);
                any = true;
            }
        }
    }
    if !output.is_empty() {
        flush(log, output, said);
        any = true;
    }
    if reopen {
        match output.reopen() {
            Ok(true) => tracing::info!("access log opened again"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the access log cannot be opened again; the old file stays in use");
            }
        }
    }
    say(log.dropped(), said);
    any
}

/// Says what was lost, once in a while.
fn say(dropped: u64, said: &mut Said) {
    if dropped == said.lines || said.at.is_some_and(|at| at.elapsed() < SAY_INTERVAL) {
        return;
    }
    let lines = dropped - said.lines;
    match said.why.take() {
        Some(error) => tracing::warn!(lines, %error, "access log lines could not be written"),
        None => tracing::warn!(
            lines,
            "access log lines were dropped: they came faster than they are written"
        ),
    }
    said.lines = dropped;
    said.at = Some(Instant::now());
}

fn flush(log: &AccessLog, output: &mut Output, said: &mut Said) {
    if let Err((lost, error)) = output.flush() {
        log.dropped.fetch_add(lost, Ordering::Relaxed);
        said.why = Some(error);
    }
}

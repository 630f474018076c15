//! The log: events by `tracing`, written by one thread, never waited for.
//!
//! A thread that logs formats its line into a ring of its own (`ring`) and goes on; the thread `weir-log` (`writer`)
//! collects from all rings and writes to standard output. A ring that is full drops the line, and the drop is counted
//! and said in the log itself. So neither a slow disk nor a reader that stopped reading can slow a worker.
//!
//! Logs go to standard output, as containers and journald expect of a service; complaints about the command line or the
//! configuration are the command line's own and go to standard error, before there is a log.

pub(crate) mod lane;
pub mod levels;
pub(crate) mod line;
mod panic;
mod ring;
mod subscriber;
pub(crate) mod timestamp;
pub(crate) mod writer;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::config::model::LogFormat;
use levels::Levels;
use line::Style;
use ring::Shared;
use subscriber::LogSubscriber;
use writer::{Stdout, Writer};

pub use panic::install_panic_hook;
pub use ring::register_worker;
pub use writer::Guard;

/// The log of the process, once [`init`] was called.
static GLOBAL: OnceLock<Arc<Shared>> = OnceLock::new();

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("the log was started before")]
    AlreadyStarted,
    #[error("standard output cannot be used for the log: {0}")]
    Output(io::Error),
    #[error("the log's thread cannot be started: {0}")]
    Thread(io::Error),
}

/// Starts the log of the process: lines up to `levels`, labelled with `environment`, to standard output, as text on a
/// terminal and as JSON elsewhere unless `format` says which. What was logged is written out when the guard is dropped.
pub fn init(levels: &Levels, format: Option<LogFormat>, environment: &str) -> Result<Guard, InitError> {
    let stdout = io::stdout();
    let terminal = stdout.is_terminal();
    let format = format.unwrap_or(if terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let style = Style::new(format, terminal && wants_colour(), environment);
    let output = Stdout::open().map_err(InitError::Output)?;
    let shared = Arc::new(Shared::new(levels, style));
    let guard = start(&shared, Box::new(output)).map_err(InitError::Thread)?;
    tracing::subscriber::set_global_default(LogSubscriber::new(Arc::clone(&shared)))
        .map_err(|_| InitError::AlreadyStarted)?;
    GLOBAL.set(shared).map_err(|_| InitError::AlreadyStarted)?;
    Ok(guard)
}

/// The levels in force; none before [`init`].
pub fn levels() -> Option<Levels> {
    GLOBAL.get().map(|shared| shared.levels())
}

/// Changes the levels while weir runs.
pub fn set_levels(levels: &Levels) {
    if let Some(shared) = GLOBAL.get() {
        shared.set_levels(levels);
        tracing::callsite::rebuild_interest_cache();
    }
}

/// `at` as it stands in log lines: RFC 3339 in UTC, with microseconds.
pub fn timestamp(at: SystemTime) -> String {
    let mut text = Vec::new();
    timestamp::write(&mut text, at);
    // It is ASCII.
    String::from_utf8(text).unwrap_or_default()
}

/// Lines dropped since the start, because a ring was full or standard output took nothing.
pub fn dropped() -> u64 {
    GLOBAL.get().map_or(0, |shared| shared.dropped())
}

/// Starts the writer of `shared`.
fn start(shared: &Arc<Shared>, output: Box<dyn Write + Send>) -> io::Result<Guard> {
    Writer::new(Arc::clone(shared), output).spawn()
}

/// <https://no-color.org>: any value but the empty one turns colour off.
fn wants_colour() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
mod tests;

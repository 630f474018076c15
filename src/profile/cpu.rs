//! `/debug/pprof/profile`: where all threads spend their time on CPUs, by stacks that a timer samples.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pprof::ProfilerGuard;

use super::pprof_file::zipped;

/// Only one profile is taken at a time: there is one timer.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Code in which a thread must not be unwound: the unwinder itself, and what has no tables for it. Not libc: all system
/// calls are made there, and they are most of what weir does.
const NOT_IN: &[&str] = &["libgcc", "vdso"];

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a profile is being taken already")]
    Busy,
    #[error("the profile cannot be taken: {0}")]
    Failed(String),
}

/// A running profile; it ends when dropped, also without having been read.
pub struct Running {
    guard: Option<ProfilerGuard<'static>>,
}

impl Running {
    /// Begins to sample, so many times a second of CPU time.
    ///
    /// # Errors
    /// Another one is running, or the timer cannot be set.
    pub fn start(hz: i32) -> Result<Running, Error> {
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(Error::Busy);
        }
        let mut running = Running { guard: None };
        let built = pprof::ProfilerGuardBuilder::default()
            .frequency(hz)
            .blocklist(NOT_IN)
            .build();
        running.guard = Some(built.map_err(|error| Error::Failed(error.to_string()))?);
        Ok(running)
    }

    /// Ends it, and gives the file. Takes its time to find names: not for a thread that others wait for.
    ///
    /// # Errors
    /// The samples cannot be read.
    pub fn finish(mut self) -> Result<Vec<u8>, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Failed(error.to_string());
        let Some(guard) = self.guard.take() else {
            return Err(Error::Failed("it has ended".to_owned()));
        };
        let report = guard.report().build().map_err(|error| failed(&error))?;
        drop(guard);
        let profile = report.pprof().map_err(|error| failed(&error))?;
        zipped(&profile).map_err(|error| failed(&error))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.guard = None;
        TAKEN.store(false, Ordering::Release);
    }
}

/// Samples for so long, on whatever waits for it.
///
/// # Errors
/// As [`Running::start`] and [`Running::finish`].
pub async fn take(time: Duration, hz: i32) -> Result<Vec<u8>, Error> {
    let running = Running::start(hz)?;
    tokio::time::sleep(time).await;
    // Finding names takes a second or so, which the admin API has not.
    tokio::task::spawn_blocking(move || running.finish())
        .await
        .unwrap_or_else(|error| Err(Error::Failed(error.to_string())))
}

//! Waking a worker from another thread: an eventfd that the worker's ring (or epoll) watches.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::sys;

/// The other threads' end. Writing never blocks: the counter only grows, and a full one is as good as a ring.
#[derive(Debug)]
pub struct WakeHandle(File);

/// The worker's end, before the worker's runtime exists.
#[derive(Debug)]
pub struct WakeReceiver(OwnedFd);

/// A pair of ends.
pub fn wake_pair() -> io::Result<(WakeHandle, WakeReceiver)> {
    let fd = sys::eventfd()?;
    Ok((WakeHandle(File::from(fd.try_clone()?)), WakeReceiver(fd)))
}

impl WakeHandle {
    pub fn wake(&self) {
        // An error can only be a full counter, which wakes too.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }
}

/// The worker's end inside its runtime.
pub struct WakeStream {
    counter: File,
    /// monoio has no type for "anything that can be polled"; only readiness is asked of it.
    poll: monoio::net::UnixStream,
}

impl WakeReceiver {
    /// Brings the descriptor into the current thread's runtime.
    pub fn into_stream(self) -> io::Result<WakeStream> {
        let counter = File::from(self.0.try_clone()?);
        let poll = monoio::net::UnixStream::from_std(UnixStream::from(self.0))?;
        Ok(WakeStream { counter, poll })
    }
}

impl WakeStream {
    /// Waits for the next wake, or takes those that came since the last.
    pub async fn wait(&mut self) -> io::Result<()> {
        self.poll.readable(false).await?;
        let mut count = [0; 8];
        match self.counter.read(&mut count) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

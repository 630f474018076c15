//! An HdrHistogram log (format 1.3): a line a second, tagged `response` and, in an open loop, `service`. Values are
//! nanoseconds; the column of maxima is in milliseconds, as the format wants it.
//!
//! It is written second by second, by a thread of its own: a run may be longer than memory.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::load::Interval;

/// Nanoseconds in the unit of the column of maxima.
const MAX_VALUE_DIVISOR: f64 = 1_000_000.0;
/// Seconds that may wait to be written.
const QUEUE: usize = 8;

/// The thread that writes the log.
pub struct Log {
    pub sender: SyncSender<Interval>,
    thread: JoinHandle<io::Result<()>>,
}

impl Log {
    /// `open_loop`: the times since sending go in too.
    ///
    /// # Errors
    /// No thread.
    pub fn start(file: File, open_loop: bool) -> io::Result<Log> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("weir-load-hlog".to_owned())
            .spawn(move || write(BufWriter::new(file), &receiver, open_loop))?;
        Ok(Log { sender, thread })
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// Some of it could not be.
    pub fn end(self) -> io::Result<()> {
        drop(self.sender);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    }
}

fn write(mut out: impl Write, intervals: &Receiver<Interval>, open_loop: bool) -> io::Result<()> {
    let began = SystemTime::now();
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(MAX_VALUE_DIVISOR)
        .with_start_time(began)
        .with_base_time(began)
        .add_comment("[weir load]")
        .begin_log_with(&mut out, &mut serializer)?;
    let tag = |word| Tag::new(word).ok_or_else(|| io::Error::other("a tag"));
    while let Ok(interval) = intervals.recv() {
        let length = interval.length.max(Duration::from_millis(1));
        let mut write = |word, histogram| {
            log.write_histogram(histogram, interval.at, length, Some(tag(word)?))
                .map_err(|error| io::Error::other(format!("{error:?}")))
        };
        write("response", &interval.tally.response)?;
        if open_loop {
            write("service", &interval.tally.service)?;
        }
    }
    drop(log);
    out.flush()
}

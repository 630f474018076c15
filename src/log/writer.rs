//! The thread `weir-log`: collects what all threads logged, in the order of time, and writes it out in batches.
//!
//! It is the only one that waits for the output. If the output is gone (a closed pipe) or takes nothing for
//! [`OUTPUT_PATIENCE`], the batch is counted as dropped and the next one is tried; weir goes on either way.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::line::Line;
use super::ring::{Entry, Shared};
use crate::config::model::Level;

/// How long to wait before a non-blocking output is tried again.
const POLL: Duration = Duration::from_millis(10);
/// What the batch's buffers keep after a burst.
const KEPT_BYTES: usize = 1024 * 1024;
/// How long a non-blocking output may take nothing.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);
/// How long the end of the process may wait for the last lines.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Keeps the log going; writes what is left when dropped, waiting no longer than two seconds for an output that nobody
/// reads. What is logged after that is lost.
#[must_use = "the log ends when its guard is dropped"]
pub struct Guard {
    shared: Arc<Shared>,
    /// Disconnects when the writer is done.
    done: Receiver<()>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.bell.stop();
        // Either disconnected, which is what is waited for, or out of patience.
        let _ = self.done.recv_timeout(FLUSH_PATIENCE);
    }
}

/// The state of the writing thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    output: Box<dyn Write + Send>,
    /// The texts of the batch, one behind the other in the order of the rings.
    texts: Vec<u8>,
    batch: Vec<Pending>,
    /// What is written: the batch in the order of time.
    lines: Vec<u8>,
    /// How many drops the log has spoken of.
    drops_said: u64,
}

struct Pending {
    at: SystemTime,
    text: Range<usize>,
    backtrace: Option<Box<std::backtrace::Backtrace>>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, output: Box<dyn Write + Send>) -> Writer {
        Writer {
            shared,
            output,
            texts: Vec::new(),
            batch: Vec::new(),
            lines: Vec::new(),
            drops_said: 0,
        }
    }

    pub(super) fn spawn(mut self) -> io::Result<Guard> {
        let shared = Arc::clone(&self.shared);
        let (running, done) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("weir-log".to_owned())
            .spawn(move || {
                self.run();
                drop(running);
            })?;
        shared.bell.set_writer(thread.thread().clone());
        Ok(Guard { shared, done })
    }

    fn run(&mut self) {
        let shared = self.shared.clone();
        let nothing_waits = || shared.rings().iter().all(|ring| ring.is_empty());
        shared.bell.serve(|| self.turn(), nothing_waits);
    }

    /// Collects and writes once; whether there was anything.
    fn turn(&mut self) -> bool {
        self.collect();
        let dropped = self.shared.dropped();
        if self.batch.is_empty() && dropped == self.drops_said {
            return false;
        }
        let lines = self.batch.len() as u64;
        self.render();
        self.say_drops(dropped);
        let written = write_patiently(&mut *self.output, &self.lines).is_ok();
        if written {
            self.drops_said = dropped;
        } else {
            self.shared.count_dropped(lines);
        }
        self.reset();
        // A notice alone that cannot be written must not keep the writer awake.
        lines > 0 || written
    }

    /// Takes everything out of the rings, and forgets the rings of threads that are gone.
    fn collect(&mut self) {
        let (texts, batch) = (&mut self.texts, &mut self.batch);
        self.shared.rings().retain(|ring| {
            let owned = Arc::strong_count(ring) > 1;
            // As many as there can be: a thread that logs faster than this loop must not hold it.
            for _ in 0..super::ring::CAPACITY {
                let Some(Entry { at, text, backtrace }) = ring.pop() else {
                    break;
                };
                let start = texts.len();
                texts.extend_from_slice(&text);
                ring.recycle(text);
                batch.push(Pending {
                    at,
                    text: start..texts.len(),
                    backtrace,
                });
            }
            owned || !ring.is_empty()
        });
    }

    fn render(&mut self) {
        self.batch.sort_by_key(|pending| pending.at);
        for pending in &self.batch {
            self.lines.extend_from_slice(&self.texts[pending.text.clone()]);
            let backtrace = pending.backtrace.as_ref().map(|backtrace| backtrace as _);
            Line::end(&mut self.lines, &self.shared.style, backtrace);
        }
    }

    fn say_drops(&mut self, dropped: u64) {
        let new = dropped - self.drops_said;
        if new == 0 {
            return;
        }
        let style = &self.shared.style;
        let mut line = Line::begin(
            &mut self.lines,
            style,
            SystemTime::now(),
            Level::Warn,
            module_path!(),
        );
        line.message(format_args!("{new} log lines were dropped"));
        line.labels(None, thread::current().name());
        Line::end(&mut self.lines, style, None);
    }

    /// Ready for the next batch, and no larger than an ordinary one needs.
    fn reset(&mut self) {
        self.batch.clear();
        self.batch.shrink_to(super::ring::CAPACITY);
        self.texts.clear();
        self.texts.shrink_to(KEPT_BYTES);
        self.lines.clear();
        self.lines.shrink_to(KEPT_BYTES);
    }
}

/// Writes all of `bytes`, also to an output that does not block; an error comes with how many were written.
pub(crate) fn write_patiently(output: &mut dyn Write, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut deadline = Instant::now() + OUTPUT_PATIENCE;
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => {
                written += more;
                deadline = Instant::now() + OUTPUT_PATIENCE;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(POLL);
            }
            Err(error) => return Err((written, error)),
        }
    }
    output.flush().map_err(|error| (written, error))
}

/// Whose turn it is to write to standard output.
static STDOUT: Mutex<()> = Mutex::new(());

/// Standard output, for the log and the access log. A pipe takes a large batch in pieces, so each of the two writers waits
/// until the other's batch is through: no line stands in the middle of another.
#[derive(Debug)]
pub(crate) struct Stdout(File);

impl Stdout {
    pub(crate) fn open() -> io::Result<Stdout> {
        let copy = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Stdout(File::from(copy)))
    }
}

impl Write for Stdout {
    /// Writes all, unless the output takes nothing for a while.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // It protects nothing that could be left half changed.
        let _turn = STDOUT.lock().unwrap_or_else(PoisonError::into_inner);
        match write_patiently(&mut self.0, bytes) {
            Ok(()) => Ok(bytes.len()),
            Err((0, error)) => Err(error),
            Err((written, _)) => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn batches_for_standard_output_do_not_mix() {
        let (reader, writer) = io::pipe().unwrap();
        let writers = [b'a', b'b'].map(|byte| {
            let mut output = Stdout(File::from(OwnedFd::from(writer.try_clone().unwrap())));
            thread::spawn(move || {
                let mut batch = vec![byte; 1000];
                batch.push(b'\n');
                // More than a pipe holds.
                let batch = batch.repeat(300);
                for _ in 0..10 {
                    write_patiently(&mut output, &batch).unwrap();
                }
            })
        });
        drop(writer);
        let lines: Vec<_> = BufReader::new(reader).split(b'\n').map(Result::unwrap).collect();
        assert_eq!(lines.len(), 2 * 300 * 10);
        for batch in lines.chunks(300) {
            assert!(batch.iter().all(|line| line == &batch[0] && line.len() == 1000));
            assert!(batch[0].iter().all(|byte| *byte == batch[0][0]));
        }
        for writer in writers {
            writer.join().unwrap();
        }
    }

    #[test]
    fn an_output_that_takes_no_more_says_how_much_it_took() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = self.0.min(bytes.len());
                self.0 -= taken;
                match taken {
                    0 => Err(io::ErrorKind::StorageFull.into()),
                    taken => Ok(taken),
                }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, error) = write_patiently(&mut Full(5), b"eleven bytes").unwrap_err();
        assert_eq!((written, error.kind()), (5, io::ErrorKind::StorageFull));
        assert!(write_patiently(&mut Full(12), b"eleven bytes").is_ok());
    }
}

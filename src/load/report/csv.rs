//! A row a request: `id,start_ns,latency_ns,status,backend,bytes,error`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::load::Sample;

pub const HEADER: &str = "id,start_ns,latency_ns,status,backend,bytes,error";

/// Bundles of rows that may wait: what is past it makes the tester wait.
const QUEUE: usize = 64;

/// The thread that writes rows.
pub struct Rows {
    pub sender: SyncSender<Vec<Sample>>,
    thread: JoinHandle<io::Result<()>>,
}

impl Rows {
    /// # Errors
    /// No thread.
    pub fn start(file: File) -> io::Result<Rows> {
        let file = BufWriter::with_capacity(1 << 20, file);
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = thread::Builder::new()
            .name("weir-load-csv".to_owned())
            .spawn(move || write(file, &receiver))?;
        Ok(Rows { sender, thread })
    }

    /// Waits until all rows are written.
    ///
    /// # Errors
    /// Some could not be.
    pub fn end(self) -> io::Result<()> {
        drop(self.sender);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
    }
}

fn write(mut out: impl Write, rows: &Receiver<Vec<Sample>>) -> io::Result<()> {
    writeln!(out, "{HEADER}")?;
    while let Ok(bundle) = rows.recv() {
        for row in bundle {
            let error = row.error.map_or("", |kind| kind.word());
            writeln!(
                out,
                "{},{},{},{},{},{},{error}",
                row.id,
                row.start_ns,
                row.latency_ns,
                row.status,
                field(row.backend.as_deref().unwrap_or_default()),
                row.bytes,
            )?;
        }
    }
    out.flush()
}

/// A field as RFC 4180 §2 has it, on one line.
fn field(text: &str) -> Cow<'_, str> {
    if text.contains(|character: char| matches!(character, ',' | '"') || character.is_control()) {
        let plain = text.replace('"', "\"\"").replace(char::is_control, " ");
        format!("\"{plain}\"").into()
    } else {
        text.into()
    }
}

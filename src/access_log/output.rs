//! Where lines go: a file, standard output, or a socket that takes a datagram a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::config::model::{AccessLog as Config, AccessOutput};
use crate::log::timestamp;
use crate::log::writer::{Stdout, write_patiently};

/// Who may read a new file: nobody but the owner and the group.
const MODE: u32 = 0o640;
/// How long a socket may take nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Facility local0, severity informational (RFC 5424 §6.2.1).
const PRIORITY: u32 = 16 * 8 + 6;

/// An open output.
#[derive(Debug)]
pub struct Output {
    kind: Kind,
    /// What is written next, one line behind the other.
    batch: Vec<u8>,
    /// Where each line of the batch ends.
    ends: Vec<usize>,
    /// The last write ended in the middle of a line.
    cut: bool,
    host: String,
}

#[derive(Debug)]
enum Kind {
    Stdout(Stdout),
    Named {
        file: File,
        path: PathBuf,
    },
    Socket {
        socket: Option<UnixDatagram>,
        path: PathBuf,
        journal: bool,
    },
}

impl Output {
    /// Opens what the configuration names; none: nothing is named.
    ///
    /// # Errors
    /// In words: it cannot be opened.
    pub fn open(config: &Config) -> Result<Option<Output>, String> {
        let socket = |standard: &str, journal| {
            let path = config.socket.clone().unwrap_or_else(|| PathBuf::from(standard));
            let socket = connect(&path)
                .map_err(|error| format!("access_log.socket: {} cannot be used: {error}", path.display()))?;
            Ok::<Kind, String>(Kind::Socket {
                socket: Some(socket),
                path,
                journal,
            })
        };
        let kind =
            match &config.output {
                AccessOutput::Off => return Ok(None),
                AccessOutput::Stdout => {
                    let stdout = Stdout::open();
                    Kind::Stdout(stdout.map_err(|error| {
                        format!("access_log.output: standard output cannot be used: {error}")
                    })?)
                }
                AccessOutput::File(path) => {
                    let file = open(path).map_err(|error| {
                        format!("access_log.output: {} cannot be opened: {error}", path.display())
                    })?;
                    Kind::Named {
                        file,
                        path: path.clone(),
                    }
                }
                AccessOutput::Syslog => socket("/dev/log", false)?,
                AccessOutput::Journald => socket("/run/systemd/journal/socket", true)?,
            };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "-".to_owned(),
            name => name.to_owned(),
        };
        Ok(Some(Output {
            kind,
            batch: Vec::new(),
            ends: Vec::new(),
            cut: false,
            host,
        }))
    }

    /// Adds a line to the batch.
    pub(super) fn add(&mut self, line: &[u8]) {
        self.batch.extend_from_slice(line);
        self.ends.push(self.batch.len());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.batch.len()
    }

    /// Writes the batch, which is empty then; says how many lines of it were lost, and why.
    pub(super) fn flush(&mut self) -> Result<(), (u64, io::Error)> {
        let result = match &mut self.kind {
            Kind::Stdout(stdout) => stream(stdout, &self.batch, &self.ends, &mut self.cut),
            Kind::Named { file, .. } => stream(file, &self.batch, &self.ends, &mut self.cut),
            Kind::Socket {
                socket,
                path,
                journal,
            } => {
                let head = (!*journal).then(|| syslog_head(&self.host));
                send(socket, path, &self.batch, &self.ends, head.as_deref())
            }
        };
        self.batch.clear();
        self.batch.shrink_to(1 << 20);
        self.ends.clear();
        result
    }

    /// Opens a named file again: somebody has moved the old one away. The old one stays in use if that fails. False: there
    /// is no file.
    pub(super) fn reopen(&mut self) -> io::Result<bool> {
        let Kind::Named { file, path } = &mut self.kind else {
            return Ok(false);
        };
        *file = open(path)?;
        self.cut = false;
        Ok(true)
    }
}

/// Without waiting for the reader of a pipe, now or when it is full.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// Writes a batch. A line that was cut is given its end before the next one, so that one is lost and not two; `ends` are
/// those of lines.
fn stream(
    output: &mut dyn Write,
    batch: &[u8],
    ends: &[usize],
    cut: &mut bool,
) -> Result<(), (u64, io::Error)> {
    let written = match std::mem::take(cut) {
        true => write_patiently(output, b"\n").map_err(|(_, error)| (0, error)),
        false => Ok(()),
    };
    let began = written.is_ok();
    let written = written.and_then(|()| write_patiently(output, batch));
    written.map_err(|(written, error)| {
        let whole = ends.partition_point(|&end| end <= written);
        *cut = !began || (written > 0 && ends.get(whole.wrapping_sub(1)) != Some(&written));
        ((ends.len() - whole) as u64, error)
    })
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// What stands before every message (RFC 5424 §6): no message id, no structured data.
fn syslog_head(host: &str) -> Vec<u8> {
    let mut head = Vec::new();
    // Writing to a `Vec` cannot fail.
    let _ = write!(head, "<{PRIORITY}>1 ");
    timestamp::write(&mut head, SystemTime::now());
    let _ = write!(head, " {host} weir {} - - ", std::process::id());
    head
}

/// Sends a datagram a line. A socket whose other end went away is connected anew once.
fn send(
    socket: &mut Option<UnixDatagram>,
    path: &Path,
    batch: &[u8],
    ends: &[usize],
    head: Option<&[u8]>,
) -> Result<(), (u64, io::Error)> {
    let mut start = 0;
    let (mut lost, mut why) = (0, None);
    let mut message = Vec::new();
    for &end in ends {
        let line = batch.get(start..end).unwrap_or_default();
        start = end;
        message.clear();
        message.extend_from_slice(head.unwrap_or_default());
        // A message is its own end; a journal entry ends with its last field's line.
        message.extend_from_slice(match head {
            Some(_) => line.strip_suffix(b"\n").unwrap_or(line),
            None => line,
        });
        if why.is_some() {
            // One that takes nothing is not asked again for every line.
            lost += 1;
            continue;
        }
        let mut sent = match socket {
            Some(socket) => socket.send(&message),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if sent.as_ref().is_err_and(|error| !is_full(error)) {
            *socket = connect(path).ok();
            if let Some(socket) = socket {
                sent = socket.send(&message);
            }
        }
        if let Err(error) = sent {
            lost += 1;
            // A line that is too long is lost alone.
            if error.raw_os_error() != Some(libc::EMSGSIZE) {
                why = Some(error);
            }
        }
    }
    match (lost, why) {
        (0, _) => Ok(()),
        (lost, why) => Err((
            lost,
            why.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE)),
        )),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        || error.raw_os_error() == Some(libc::EMSGSIZE)
}

//! The processes of an experiment and the directory that they share: gone when dropped, whatever happens.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Error, Stop};
use crate::sys;

/// How long a process may take until it serves, or to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at something that has no event to wait for.
const TURN: Duration = Duration::from_millis(2);

/// Lines of a process's output that an error shows.
const LAST_LINES: usize = 8;

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Result<Directory, Error> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weir-experiment-{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(Error::io(format!("cannot make {}", path.display())))?;
        Ok(Directory(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One running process of this program; killed when dropped, and by the kernel if this process dies first.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ready: PathBuf,
}

impl Process {
    /// Starts `weir ARGUMENTS… --ready-file …`. Call it on a thread that outlives the process: the kernel kills the
    /// process when that thread ends.
    pub fn start(directory: &Directory, name: &str, arguments: &[String]) -> Result<Process, Error> {
        let failed = |why: String| Error::Start {
            program: name.to_owned(),
            why,
        };
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let (log, ready) = (
            directory.path().join(format!("{name}.log")),
            directory.path().join(format!("{name}.json")),
        );
        // Of an earlier process of that name.
        let _ = fs::remove_file(&ready);
        let output = File::create(&log).map_err(|error| failed(error.to_string()))?;
        let errors = output.try_clone().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.args(arguments).arg("--ready-file").arg(&ready);
        // Variables of the environment would change the configuration.
        command.env_clear();
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // Ctrl-C is for this process, which then ends its children in order.
        command.process_group(0);
        sys::end_with_this_thread(&mut command);
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        Ok(Process {
            child,
            name: name.to_owned(),
            log,
            ready,
        })
    }

    /// Waits for the ready file and gives what it says.
    pub fn wait_ready(&mut self, stop: &Stop) -> Result<Value, Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            stop.check()?;
            if let Some(said) = fs::read(&self.ready)
                .ok()
                .and_then(|text| serde_json::from_slice(&text).ok())
            {
                return Ok(said);
            }
            let why = match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => {
                    thread::sleep(TURN);
                    continue;
                }
                Ok(None) => format!("not ready within {} s", PATIENCE.as_secs()),
                Ok(Some(status)) => format!("it ended with {status}"),
                Err(error) => error.to_string(),
            };
            return Err(Error::Start {
                program: self.name.clone(),
                why: format!("{why}\n{}", self.last_lines()),
            });
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        // An error is a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end; SIGKILL if that takes too long.
    pub fn terminate(&mut self) {
        sys::terminate(&mut self.child);
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(TURN);
        }
        self.kill();
    }

    fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address out of a ready file.
pub(super) fn address(said: &Value) -> Result<SocketAddr, Error> {
    let text = said.as_str().unwrap_or_default();
    text.parse().map_err(|error| Error::Start {
        program: "weir".to_owned(),
        why: format!("its ready file names no address but {said}: {error}"),
    })
}

//! The real binary, started with a configuration of the test's own and ended with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use super::http::Message;
use super::wire::Wire;
use super::{Backend, DEADLINE, Fickle, eventually, os};

/// The name of the configuration file.
const CONFIG: &str = "weir.toml";

pub const BINARY: &str = env!("CARGO_BIN_EXE_weir");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    pub fn word(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// Whether this kernel gives us a ring; says so where it does not.
pub fn io_uring_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    let works = *WORKS.get_or_init(|| io_uring::IoUring::new(8).is_ok());
    if !works {
        super::skipped("a kernel (and seccomp profile) that allows io_uring");
    }
    works
}

/// A configuration in the making: one worker, unpinned (tests run side by side), ports of the kernel's choice.
pub struct Setup {
    table: toml::Table,
    backends: Vec<toml::Value>,
    args: Vec<String>,
    nofile: Option<u64>,
}

impl Setup {
    /// Sets `section.key`.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Setup {
        let (section, key) = key.split_once('.').expect("a key has a section");
        let section = self
            .table
            .entry(section)
            .or_insert_with(|| toml::Table::new().into());
        section
            .as_table_mut()
            .expect("a section is a table")
            .insert(key.to_owned(), value.into());
        self
    }

    pub fn backend(self, backend: &Backend) -> Setup {
        let url = backend.url();
        self.backend_url(&url)
    }

    pub fn backend_url(mut self, url: &str) -> Setup {
        self.backends.push(backend_table(None, url));
        self
    }

    /// A backend that goes by its own name.
    pub fn fickle(self, backend: &Fickle) -> Setup {
        self.named(&backend.name, &backend.url())
    }

    pub fn fickles<'a>(self, backends: impl IntoIterator<Item = &'a Fickle>) -> Setup {
        backends.into_iter().fold(self, Setup::fickle)
    }

    pub fn named(mut self, name: &str, url: &str) -> Setup {
        self.backends.push(backend_table(Some(name), url));
        self
    }

    /// Sets a key of the backend that was added last.
    pub fn with(mut self, key: &str, value: impl Into<toml::Value>) -> Setup {
        let last = self.backends.last_mut().expect("a backend was added");
        last.as_table_mut()
            .expect("a backend is a table")
            .insert(key.to_owned(), value.into());
        self
    }

    /// A further command line argument.
    pub fn arg(mut self, arg: &str) -> Setup {
        self.args.push(arg.to_owned());
        self
    }

    /// Bounds the process's descriptors, soft and hard.
    pub fn nofile(mut self, limit: u64) -> Setup {
        self.nofile = Some(limit);
        self
    }

    /// Starts weir and waits until it serves.
    pub fn start(self) -> Weir {
        let mut weir = self.spawn();
        weir.wait_ready();
        weir
    }

    /// Starts weir without waiting.
    pub fn spawn(mut self) -> Weir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        self.table.insert("backends".to_owned(), self.backends.into());
        let config = dir.path().join(CONFIG);
        fs::write(&config, toml::to_string(&self.table).expect("a table is TOML"))
            .expect("a configuration file");
        let mut command = Command::new(BINARY);
        command
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--ready-file")
            .arg(dir.path().join("ready.json"));
        command.args(&self.args);
        command.env_clear().current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        os::fence(&mut command, self.nofile);
        let mut child = command.spawn().expect("the weir binary");
        let log = Arc::new(Log::default());
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        Weir {
            child,
            dir,
            table: self.table,
            log,
            status: None,
            listeners: Vec::new(),
            admin: None,
            observe: None,
            profiling: None,
        }
    }
}

/// One `[[backends]]`.
pub fn backend_table(name: Option<&str>, url: &str) -> toml::Value {
    let mut table = toml::Table::new();
    table.insert("url".to_owned(), url.into());
    if let Some(name) = name {
        table.insert("name".to_owned(), name.into());
    }
    table.into()
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Log {
    fn follow(self: &Arc<Self>, pipe: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                log.lines
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&line).into_owned());
                log.grown.notify_all();
            }
        });
    }
}

/// A running weir; killed when dropped.
pub struct Weir {
    child: Child,
    dir: tempfile::TempDir,
    /// What its configuration file says.
    table: toml::Table,
    log: Arc<Log>,
    status: Option<ExitStatus>,
    /// Actual addresses, `host:port` or `unix:/path`, in the order of the configuration.
    pub listeners: Vec<String>,
    pub admin: Option<String>,
    pub observe: Option<String>,
    pub profiling: Option<String>,
}

/// How a stopped weir ended.
#[derive(Debug)]
pub struct Stopped {
    pub code: Option<i32>,
    pub took: Duration,
}

impl Weir {
    /// A setup on this driver with nothing but ports and one worker in it.
    pub fn on(driver: Driver) -> Setup {
        let setup = Setup {
            table: toml::Table::new(),
            backends: Vec::new(),
            args: Vec::new(),
            nofile: None,
        };
        setup
            .set("server.address", "127.0.0.1:0")
            .set("admin.address", "127.0.0.1:0")
            .set("runtime.workers", 1)
            .set("runtime.pin", false)
            .set("health_check.type", "off")
            .arg("--set")
            .arg(&format!("runtime.driver={}", driver.word()))
    }

    /// One worker in front of one backend, all else default.
    pub fn before(driver: Driver, backend: &Backend) -> Weir {
        Weir::on(driver).backend(backend).start()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_ready(&mut self) {
        let path = self.dir.path().join("ready.json");
        let ready = eventually("the ready file", || {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                self.status = Some(status);
                panic!("weir ended with {status} before it served");
            }
            File::open(&path).ok()
        });
        let ready: serde_json::Value = serde_json::from_reader(ready).expect("the ready file is JSON");
        assert_eq!(ready["pid"], self.pid(), "{ready}");
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        self.listeners = ready["listeners"]
            .as_array()
            .expect("listeners")
            .iter()
            .filter_map(text)
            .collect();
        self.admin = text(&ready["admin"]);
        self.observe = text(&ready["observe"]);
        self.profiling = text(&ready["profiling"]);
    }

    /// The first listener's address.
    pub fn address(&self) -> &str {
        &self.listeners[0]
    }

    /// A new client connection to the first listener.
    pub fn client(&self) -> Wire {
        Wire::connect(self.address())
    }

    /// GETs `target` on a connection of its own from one of weir's addresses.
    pub fn get_from(&self, address: &str, target: &str) -> Message {
        let mut client = Wire::connect(address);
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            host_of(address)
        ));
        client.response("GET")
    }

    pub fn admin_get(&self, target: &str) -> Message {
        self.get_from(self.admin.as_deref().expect("admin is on"), target)
    }

    /// The metrics document, from the admin port.
    pub fn metrics(&self) -> serde_json::Value {
        let response = self.admin_get("/metrics");
        assert_eq!(response.status(), 200);
        serde_json::from_slice(&response.body).expect("metrics are JSON")
    }

    /// Changes the configuration file, whole at once; weir reads it when it is told to.
    pub fn rewrite(&mut self, change: impl FnOnce(&mut toml::Table)) {
        change(&mut self.table);
        self.write_config(&toml::to_string(&self.table).expect("a table is TOML"));
    }

    /// Replaces the configuration file by this text.
    pub fn write_config(&self, text: &str) {
        let fresh = self.dir.path().join("fresh.toml");
        fs::write(&fresh, text).expect("a configuration file");
        fs::rename(&fresh, self.dir.path().join(CONFIG)).expect("the same directory");
    }

    /// The lines of the log so far that have all of `needles`.
    pub fn log_lines(&self, needles: &[&str]) -> Vec<String> {
        let lines = self.log.lines.lock().unwrap();
        let has_all = |line: &&String| needles.iter().all(|needle| line.contains(needle));
        lines.iter().filter(has_all).cloned().collect()
    }

    /// Waits until `n` lines of the log have all of `needles`.
    #[track_caller]
    pub fn wait_log_lines(&self, needles: &[&str], n: usize) -> Vec<String> {
        eventually(&format!("{n} lines of the log with {needles:?}"), || {
            Some(self.log_lines(needles)).filter(|lines| lines.len() >= n)
        })
    }

    /// Whether a line of the log so far has `needle`.
    pub fn logged(&self, needle: &str) -> bool {
        self.log
            .lines
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(needle))
    }

    /// Waits for a line of the log that has `needle`.
    #[track_caller]
    pub fn wait_log(&self, needle: &str) -> String {
        let find = |lines: &Vec<String>| lines.iter().find(|line| line.contains(needle)).cloned();
        let lines = self.log.lines.lock().unwrap();
        let (lines, _) = self
            .log
            .grown
            .wait_timeout_while(lines, DEADLINE, |lines| find(lines).is_none())
            .unwrap();
        let found = find(&lines);
        drop(lines);
        found.unwrap_or_else(|| panic!("no {needle:?} in the log"))
    }

    pub fn signal(&self, signal: i32) {
        os::kill(self.pid(), signal);
    }

    pub fn is_running(&mut self) -> bool {
        self.status.is_none() && {
            self.status = self.child.try_wait().expect("a child of ours");
            self.status.is_none()
        }
    }

    /// Waits until the process ends by itself.
    #[track_caller]
    pub fn wait_exit(&mut self, within: Duration) -> Stopped {
        let start = Instant::now();
        while self.is_running() {
            assert!(start.elapsed() < within, "weir did not end within {within:?}");
            thread::sleep(Duration::from_millis(1));
        }
        Stopped {
            code: self.status.and_then(|status| status.code()),
            took: start.elapsed(),
        }
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> Stopped {
        self.signal(libc::SIGTERM);
        self.wait_exit(DEADLINE)
    }

    /// Resident bytes.
    pub fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a live process");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("kilobytes")
            * 1024
    }

    /// CPU time of all threads so far.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("a live process");
        let of = |path: std::path::PathBuf| fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let nanos = |text: String| {
            text.split(' ')
                .next()
                .and_then(|first| first.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Duration::from_nanos(tasks.flatten().map(|task| nanos(of(task.path()))).sum())
    }

    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a live process")
            .count()
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        if thread::panicking() {
            let lines = self
                .log
                .lines
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            eprintln!("--- weir's last lines ---");
            for line in lines.iter().skip(lines.len().saturating_sub(40)) {
                eprintln!("{line}");
            }
        }
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn host_of(address: &str) -> &str {
    if address.starts_with("unix:") {
        "localhost"
    } else {
        address
    }
}

//! The log as a whole, on outputs that the tests hold. Each test has a log of its own, set for its own thread.

use std::backtrace::Backtrace;
use std::io::{self, Write};
use std::panic::Location;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tracing::dispatcher::{Dispatch, with_default};

use super::line::{Line, MAX_BYTES, Style};
use super::ring::{CAPACITY, Shared};
use super::subscriber::LogSubscriber;
use super::{Guard, start};
use crate::config::model::{Level, LogFormat};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// An output that keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn json(&self) -> Vec<Value> {
        let text = self.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A log and what makes it the calling thread's.
struct TestLog {
    shared: Arc<Shared>,
    dispatch: Dispatch,
    guard: Guard,
}

fn log_to(output: impl Write + Send + 'static, level: Level, style: Style) -> TestLog {
    let shared = Arc::new(Shared::new(&level.into(), style));
    TestLog {
        guard: start(&shared, Box::new(output)).unwrap(),
        dispatch: Dispatch::new(LogSubscriber::new(Arc::clone(&shared))),
        shared,
    }
}

fn json() -> Style {
    Style::new(LogFormat::Json, false, "test")
}

fn text() -> Style {
    Style::new(LogFormat::Text, false, "test")
}

#[test]
fn json_lines_carry_the_event_its_fields_and_where_it_came_from() {
    let kept = Kept::default();
    let log = log_to(kept.clone(), Level::Info, json());
    with_default(&log.dispatch, || {
        tracing::warn!(attempt = 2_u64, ratio = 0.5, ok = true, left = -3, who = %"a b", r#type = "x", nan = f64::NAN, "over {}", 9);
    });
    drop(log.guard);
    let mut lines = kept.json();
    let mut line = lines.remove(0);
    assert!(lines.is_empty());
    let ts = line["ts"].take();
    let ts = ts.as_str().unwrap();
    assert_eq!((ts.len(), &ts[10..11], &ts[26..]), (27, "T", "Z"), "{ts}");
    let thread = thread::current().name().unwrap().to_owned();
    assert_eq!(
        line,
        serde_json::json!({
            "ts": null, "level": "warn", "target": "weir::log::tests", "msg": "over 9", "attempt": 2, "ratio": 0.5,
            "ok": true, "left": -3, "who": "a b", "type": "x", "nan": "NaN", "thread": thread, "env": "test",
        })
    );
}

#[test]
fn workers_are_named_by_number() {
    let kept = Kept::default();
    let log = log_to(kept.clone(), Level::Info, json());
    let dispatch = log.dispatch.clone();
    thread::spawn(move || {
        super::register_worker(3);
        with_default(&dispatch, || tracing::info!("up"));
    })
    .join()
    .unwrap();
    drop(log.guard);
    let line = &kept.json()[0];
    assert_eq!(line["worker"], 3);
    assert_eq!(line.get("thread"), None);
}

fn rendered(style: &Style, fill: impl FnOnce(&mut Line<'_>)) -> String {
    let mut out = Vec::new();
    let at = UNIX_EPOCH + Duration::from_micros(1);
    let mut line = Line::begin(&mut out, style, at, Level::Info, "weir::x");
    fill(&mut line);
    Line::end(&mut out, style, None);
    String::from_utf8(out).unwrap()
}

#[test]
fn text_lines_are_for_people() {
    let fill = |line: &mut Line<'_>| {
        line.message(format_args!("it \"is\" up"));
        line.field("plain", format_args!("127.0.0.1:80"));
        line.field("spaced", format_args!("a b"));
        line.field("quoted", format_args!("a\"b"));
        line.field("empty", format_args!(""));
        line.labels(Some(0), None);
    };
    assert_eq!(
        rendered(&text(), fill),
        "1970-01-01T00:00:00.000001Z info  weir::x: it \"is\" up plain=127.0.0.1:80 spaced=\"a b\" \
         quoted=\"a\\\"b\" empty=\"\" worker=0\n"
    );
    let coloured = rendered(&Style::new(LogFormat::Text, true, "test"), fill);
    assert!(coloured.contains("\x1b[32minfo \x1b[0m"), "{coloured:?}");
}

#[test]
fn what_strangers_send_cannot_end_a_line_or_steer_a_terminal() {
    let hostile = "a\nb\rc\td\x1b[2Je\0f\x7fg\u{9b}h\u{2028}i\u{202e}j\u{2066}k\u{e9}l";
    let fill = |line: &mut Line<'_>| {
        line.message(format_args!("{hostile}"));
        line.field("v", format_args!("{hostile}\"\\"));
    };
    let escaped = "a\\nb\\rc\\td\\u001b[2Je\\u0000f\\u007fg\\u009bh\\u2028i\\u202ej\\u2066k\u{e9}l";
    let line = rendered(&text(), fill);
    assert_eq!(
        line,
        format!("1970-01-01T00:00:00.000001Z info  weir::x: {escaped} v=\"{escaped}\\\"\\\\\"\n")
    );
    let line = rendered(&json(), fill);
    assert_eq!(line.matches(escaped).count(), 2);
    assert!(!line.trim_end().chars().any(char::is_control));
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["msg"], hostile);
    assert_eq!(line["v"], format!("{hostile}\"\\"));
}

#[test]
fn a_long_line_is_cut_and_stays_json() {
    let long = "\u{1}é".repeat(MAX_BYTES);
    let line = rendered(&json(), |line| {
        line.field("long", format_args!("{long}"));
        line.field("after", format_args!("x"));
        line.labels(Some(1), None);
    });
    assert!(line.len() < MAX_BYTES + 64, "{}", line.len());
    let line: Value = serde_json::from_str(&line).unwrap();
    let value = line["long"].as_str().unwrap();
    assert!(value.starts_with("\u{1}é\u{1}é") && value.ends_with('…'));
}

#[test]
fn the_level_can_change_and_other_crates_are_heard_from_warn_on() {
    let kept = Kept::default();
    let log = log_to(kept.clone(), Level::Info, json());
    let say = || {
        tracing::info!("info");
        tracing::debug!("debug");
        tracing::debug!(target: "hyper::proto", "theirs");
        tracing::warn!(target: "hyper::proto", "their warning");
    };
    let level = |level: Level| {
        log.shared.set_levels(&level.into());
        tracing::callsite::rebuild_interest_cache();
    };
    with_default(&log.dispatch, || {
        say();
        level(Level::Debug);
        say();
        level(Level::Error);
        say();
    });
    drop(log.guard);
    let said: Vec<_> = kept
        .json()
        .iter()
        .map(|line| line["msg"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(said, ["info", "their warning", "info", "debug", "their warning"]);
}

/// An output that says when a write begins, and ends it when it is told to.
struct Gate {
    entered: Sender<()>,
    open: Receiver<()>,
    kept: Kept,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Once the test is done with the gate, it stands open.
        let _ = self.entered.send(());
        let _ = self.open.recv();
        self.kept.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_ring_drops_counts_and_says_so() {
    let (entered, is_entered) = mpsc::channel();
    let (opener, open) = mpsc::channel();
    let kept = Kept::default();
    let log = log_to(
        Gate {
            entered,
            open,
            kept: kept.clone(),
        },
        Level::Info,
        json(),
    );
    with_default(&log.dispatch, || {
        tracing::info!(n = 0, "first");
        is_entered.recv_timeout(PATIENCE).unwrap();
        // The writer is held by its output: from here on the ring only fills.
        for n in 1..=CAPACITY + 5 {
            tracing::info!(n, "more");
        }
    });
    assert_eq!(log.shared.dropped(), 5);
    drop(opener);
    drop(log.guard);
    let lines = kept.json();
    let (last, written) = lines.split_last().unwrap();
    assert_eq!(last["msg"], "5 log lines were dropped");
    assert_eq!(last["level"], "warn");
    let numbers: Vec<_> = written.iter().map(|line| line["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..=CAPACITY as u64).collect::<Vec<_>>());
}

#[test]
fn many_threads_lose_nothing_and_the_end_flushes() {
    const LINES: u64 = 500;
    let kept = Kept::default();
    let log = log_to(kept.clone(), Level::Info, json());
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let dispatch = log.dispatch.clone();
            scope.spawn(move || {
                with_default(&dispatch, || {
                    for n in 0..LINES {
                        tracing::info!(from = thread, n, "line");
                    }
                });
            });
        }
    });
    drop(log.guard);
    let lines = kept.json();
    for thread in 0..4 {
        let of_thread = lines.iter().filter(|line| line["from"] == thread);
        let numbers: Vec<_> = of_thread.map(|line| line["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..LINES).collect::<Vec<_>>());
    }
    assert_eq!(log.shared.dropped(), 0);
}

/// Hands over every write.
struct Told(Sender<String>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_writer_that_sleeps_is_woken_by_the_first_line() {
    let (tell, told) = mpsc::channel();
    let log = log_to(Told(tell), Level::Info, text());
    with_default(&log.dispatch, || {
        for _ in 0..3 {
            // Nothing else logs, so the writer comes to rest.
            while !log.shared.bell.is_asleep() {
                thread::yield_now();
            }
            tracing::info!("wake up");
            assert!(told.recv_timeout(PATIENCE).unwrap().contains("wake up"));
        }
    });
}

/// A pipe that nobody reads any more, after the first write.
struct Broken {
    fails: Arc<AtomicBool>,
    told: Told,
}

impl Write for Broken {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.told.write(bytes)?;
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_output_that_fails_loses_lines_but_not_the_log() {
    let (tell, told) = mpsc::channel();
    let fails = Arc::new(AtomicBool::new(true));
    let output = Broken {
        fails: Arc::clone(&fails),
        told: Told(tell),
    };
    let log = log_to(output, Level::Info, text());
    with_default(&log.dispatch, || {
        tracing::info!("lost");
        assert!(told.recv_timeout(PATIENCE).unwrap().contains("lost"));
        while log.shared.dropped() == 0 {
            thread::yield_now();
        }
        fails.store(false, Ordering::SeqCst);
        tracing::info!("found");
    });
    drop(log.guard);
    let rest: String = told.iter().collect();
    assert!(
        rest.contains("found") && rest.contains("1 log lines were dropped"),
        "{rest}"
    );
    assert_eq!(log.shared.dropped(), 1);
}

#[test]
fn a_thread_that_ended_leaves_its_lines_and_no_ring() {
    let kept = Kept::default();
    let log = log_to(kept.clone(), Level::Info, text());
    let dispatch = log.dispatch.clone();
    thread::spawn(move || with_default(&dispatch, || tracing::info!("bye")))
        .join()
        .unwrap();
    while !log.shared.rings().is_empty() {
        thread::yield_now();
    }
    drop(log.guard);
    assert!(kept.text().contains("bye"));
}

/// Reports one panic that carries `boom` and a line break.
fn report_a_panic(log: &TestLog) {
    let backtrace = Box::new(Backtrace::force_capture());
    super::panic::report(&log.shared, &"boom\n", Some(Location::caller()), backtrace);
}

#[test]
fn a_panic_is_one_line_of_json_with_its_backtrace() {
    let kept = Kept::default();
    let log = log_to(kept.clone(), Level::Info, json());
    report_a_panic(&log);
    drop(log.guard);
    let lines = kept.json();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["msg"], "panicked: boom\n");
    assert!(lines[0]["location"].as_str().unwrap().contains("log/tests.rs:"));
    assert!(lines[0]["backtrace"].as_str().unwrap().contains("report_a_panic"));
}

#[test]
fn a_panic_in_text_has_its_backtrace_below() {
    let kept = Kept::default();
    let log = log_to(kept.clone(), Level::Info, text());
    report_a_panic(&log);
    drop(log.guard);
    let text = kept.text();
    let (first, frames) = text.split_once('\n').unwrap();
    assert!(first.contains("panicked: boom\\n location="), "{first}");
    assert!(frames.contains("report_a_panic"));
    assert!(frames.lines().all(|line| line.starts_with("    ")), "{frames}");
}

#[test]
fn lines_of_several_threads_are_written_in_the_order_of_time() {
    let (entered, is_entered) = mpsc::channel();
    let (opener, open) = mpsc::channel();
    let kept = Kept::default();
    let gate = Gate {
        entered,
        open,
        kept: kept.clone(),
    };
    let log = log_to(gate, Level::Info, json());
    with_default(&log.dispatch, || tracing::info!("first"));
    is_entered.recv_timeout(PATIENCE).unwrap();
    let mut before = SystemTime::now();
    for n in 0..6_u64 {
        let dispatch = log.dispatch.clone();
        let say = move || with_default(&dispatch, || tracing::info!(n, "turn"));
        if n % 2 == 0 {
            say();
        } else {
            thread::spawn(say).join().unwrap();
        }
        // A clock that stands still would leave the order open.
        while SystemTime::now() <= before {
            thread::yield_now();
        }
        before = SystemTime::now();
    }
    drop(opener);
    drop(log.guard);
    let numbers: Vec<_> = kept
        .json()
        .iter()
        .skip(1)
        .map(|line| line["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
}

/// Set in the process that the test below starts.
const CHILD: &str = "WEIR_TEST_LOG_CHILD";

#[test]
fn a_process_logs_to_standard_output_until_its_guard_is_dropped() {
    if std::env::var_os(CHILD).is_some() {
        return log_as_a_process_does();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "log::tests::a_process_logs_to_standard_output_until_its_guard_is_dropped",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    // What runs the test in that process writes to the same place.
    let lines = said
        .lines()
        .filter_map(|line| line.find("{\"ts\"").map(|start| &line[start..]));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<_> = lines.iter().map(|line| line["msg"].as_str().unwrap()).collect();
    assert_eq!(said, ["serving", "now in detail", "panicked: a bug in 7"]);
    for line in &lines {
        assert_eq!(
            (&line["worker"], &line["env"]),
            (&Value::from(2), &Value::from("staging"))
        );
    }
    assert!(
        lines[2]["backtrace"]
            .as_str()
            .unwrap()
            .contains("log_as_a_process_does")
    );
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("after the log") && !stderr.contains("a bug in 7"),
        "{stderr}"
    );
}

fn log_as_a_process_does() {
    super::install_panic_hook();
    let guard = super::init(&Level::Info.into(), None, "staging").unwrap();
    super::register_worker(2);
    assert!(matches!(
        super::init(&Level::Info.into(), None, "again"),
        Err(super::InitError::AlreadyStarted)
    ));
    tracing::info!("serving");
    tracing::debug!("not yet");
    super::set_levels(&Level::Debug.into());
    tracing::debug!("now in detail");
    let number = 7;
    assert!(std::panic::catch_unwind(|| panic!("a bug in {number}")).is_err());
    drop(guard);
    assert_eq!(super::dropped(), 0);
    assert!(std::panic::catch_unwind(|| panic!("after the log")).is_err());
}

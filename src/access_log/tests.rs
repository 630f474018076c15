//! Lines as a whole, of exchanges in which strangers sent what they like, read by parsers that are not weir's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use regex::bytes::Regex;
use serde_json::Value;
use tempfile::TempDir;

use super::output::Output;
use super::template::Field;
use super::writer::Running;
use super::{AccessLog, Handle, Settings, WAITING_BYTES};
use crate::balance::pick::Member;
use crate::clock::{Moment, Span};
use crate::config::Config;
use crate::config::model::{AccessFormat, AccessOutput};
use crate::reason::Reason;
use crate::record::{Attempt, Finished, Kind, Outcome, Part, Record, Termination};
use crate::snapshot::Pool;
use crate::upstream::backend::{Backend, Slots};

/// What a test waits at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// The combined format, by the documentation of Apache httpd's mod_log_config: host, identity, user, time, request,
/// status, bytes, referer, agent.
const COMBINED: &str = r#"(?-u)^(\S+) (\S+) (\S+) \[(\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} \+0000)\] "([^"]*)" (\d{1,3}) (\d+) "([^"]*)" "([^"]*)"\n$"#;

fn pool(name: &str) -> Pool {
    let backend = Arc::new(Backend::new(
        Slots::default().take(),
        name.to_owned(),
        "http://127.0.0.1:1".to_owned(),
        "127.0.0.1:1".to_owned(),
        Vec::new(),
        1,
    ));
    let member = Member::new(backend.shared.clone(), &backend.url, 1);
    Pool::new("default", &Config::default(), vec![(backend, member)])
}

/// An exchange that took 1.5 ms.
fn record() -> Record {
    let mut record = Record::default();
    let now = Moment::now();
    record.begin(now);
    record.client = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    record.ended = now.after(Span::from_micros(1_500));
    record.first_byte_at = Some(now.after(Span::from_micros(1_000)));
    record.status = 200;
    record.termination = Termination::COMPLETE;
    record
}

fn attempt(kind: Kind, outcome: Outcome) -> Attempt {
    Attempt {
        backend: Some(0),
        kind,
        outcome,
        span_id: 0,
        began: Span::ZERO,
        queue: Span::ZERO,
        connect: None,
        first_byte: None,
        took: Span::from_micros(700),
    }
}

fn config(format: AccessFormat) -> Config {
    let mut config = Config::default();
    config.access_log.output = AccessOutput::Stdout;
    config.access_log.format = format;
    config
}

/// The line of an exchange.
fn line(record: &Record, pool: &Pool, config: &Config) -> Vec<u8> {
    let log = Arc::new(AccessLog::new(1));
    let handle = Handle::new(&log, 0).unwrap();
    let settings = Settings::new(&config.access_log).unwrap();
    let finished = Finished {
        record,
        pool,
        worker: 0,
    };
    handle.tell(&finished, &settings);
    let line = log.lanes[0].lines.pop().unwrap();
    assert_eq!(handle.put.get(), line.len());
    line
}

const PARTS: [Part; 8] = [
    Part::Method,
    Part::Target,
    Part::Version,
    Part::Host,
    Part::UserAgent,
    Part::Referer,
    Part::RequestId,
    Part::TraceParent,
];

/// Bytes of a stranger: any, or such as mean something somewhere.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let special = prop::sample::select(b"\"\\\n\r\t\0\x1b\x7f[]{}%&?=; -\xc2\x85\xe2\x80\xa8\xff".to_vec());
    vec(prop_oneof![any::<u8>(), special], 0..40)
}

prop_compose! {
    fn any_record()(
        parts in vec(option::of(bytes()), PARTS.len()),
        headers in vec((bytes(), bytes()), 0..4),
        tries in 0_usize..4,
        status in 0_u16..1000,
        reason in option::of(prop::sample::select(Reason::ALL.to_vec())),
        peer in option::of(any::<IpAddr>()),
    ) -> Record {
        let mut record = record();
        for (part, value) in PARTS.into_iter().zip(&parts) {
            if let Some(value) = value {
                record.captured.keep(part, value);
            }
        }
        for (name, value) in &headers {
            record.captured.keep_header(name, value);
        }
        for _ in 0..tries {
            record.attempted(attempt(Kind::First, Outcome::Failed(Reason::ConnectRefused)));
            record.attempted(attempt(Kind::Retry, Outcome::Status(status)));
        }
        record.status = status;
        record.reason = reason;
        if let Some(reason) = reason {
            record.termination = Termination::of(reason);
        }
        record.client = peer;
        record
    }
}

proptest! {
    #[test]
    fn json_is_one_object_on_one_line_whatever_was_sent(record in any_record(), name in "\\PC{1,20}") {
        let line = line(&record, &pool(&name), &config(AccessFormat::Json));
        prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
        let entry: Value = serde_json::from_slice(&line).expect("JSON");
        prop_assert_eq!(entry["status"].as_u64(), Some(record.status.into()));
        let method = record.captured.part(Part::Method).and_then(|method| std::str::from_utf8(method).ok());
        if let Some(method) = method {
            prop_assert_eq!(entry["method"].as_str(), Some(method));
        }
        let tries = entry["tries"].as_array().map_or(0, Vec::len);
        prop_assert_eq!(tries, record.attempts.len());
        if tries > 0 {
            prop_assert_eq!(entry["backend"].as_str(), Some(&*name));
        }
    }

    #[test]
    fn combined_is_what_its_readers_expect_whatever_was_sent(record in any_record()) {
        let pattern = Regex::new(COMBINED).unwrap();
        let line = line(&record, &pool("one"), &config(AccessFormat::Combined));
        let found = pattern.captures(&line);
        prop_assert!(found.is_some(), "{}", line.escape_ascii());
        prop_assert!(line[..line.len() - 1].iter().all(|byte| (0x20..0x7f).contains(byte)));
    }

    #[test]
    fn a_journal_entry_has_as_many_fields_as_weir_gave_it(record in any_record()) {
        let mut config = config(AccessFormat::Json);
        config.access_log.output = AccessOutput::Journald;
        let entry = line(&record, &pool("one"), &config);
        let fields: Vec<_> = entry.split(|byte| *byte == b'\n').collect();
        prop_assert_eq!(fields.len(), 3 + 6 + 1);
        prop_assert!(fields.last().unwrap().is_empty());
        for field in &fields[..9] {
            let name = field.split(|byte| *byte == b'=').next().unwrap();
            prop_assert!(name.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_'));
        }
    }
}

#[test]
fn a_template_shows_what_it_names_and_no_secret() {
    let mut record = record();
    for (part, value) in [
        (Part::Method, &b"GET"[..]),
        (Part::Target, b"/a?x=1&Pass%77ord=S3CRET"),
        (Part::Referer, b"https://elsewhere/?token=S3CRET&y=2"),
    ] {
        record.captured.keep(part, value);
    }
    record.captured.keep_header(b"Cookie", b"S3CRET");
    record.captured.keep_header(b"Accept", b"*/*");
    record.attempted(attempt(Kind::First, Outcome::Status(200)));
    let shown = |template: &str| {
        let config = config(AccessFormat::Template(template.to_owned()));
        String::from_utf8(line(&record, &pool("a b\""), &config)).unwrap()
    };
    assert_eq!(
        shown("{method} {target} {path} {referer} {header:cookie} {header:accept} {header:none}"),
        "GET /a?x=1&Pass%77ord=[redacted] /a https://elsewhere/?token=[redacted]&y=2 [redacted] */* -\n"
    );
    assert_eq!(
        shown("{{{status}}}\t{total_us} {first_byte_us} {connect_us} {attempts} {backend} {host} {worker}"),
        "{200}\t1500 1000 - 1 a b\\x22 - 0\n"
    );
    for format in [AccessFormat::Json, AccessFormat::Combined, AccessFormat::Common] {
        let text = String::from_utf8(line(&record, &pool("one"), &config(format))).unwrap();
        assert!(!text.contains("S3CRET"), "{text}");
    }
}

#[test]
fn every_field_and_every_key_is_in_the_document() {
    let document = include_str!("../../docs/access-log.md");
    let told = |name: &str| document.contains(&format!("`{name}`"));
    for (name, _) in Field::ALL {
        assert!(told(name), "{name}");
    }
    let mut record = record();
    for part in PARTS {
        record
            .captured
            .keep(part, b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    }
    record.captured.keep_header(b"accept", b"*/*");
    record.attempted(attempt(Kind::First, Outcome::Abandoned));
    record.attempted(attempt(Kind::Hedge, Outcome::Status(200)));
    record.answered(Reason::BackendTimeout);
    let some = Span::from_micros(1);
    record.began = record.head_at;
    record.head_at = record.head_at.after(some);
    record.first_byte_at = Some(record.ended);
    (record.queue, record.backend) = (some, some);
    (record.connect, record.upload, record.download) = (Some(some), Some(some), Some(some));
    let line = line(&record, &pool("one"), &config(AccessFormat::Json));
    let entry: Value = serde_json::from_slice(&line).unwrap();
    let keys: Vec<_> = entry.as_object().unwrap().keys().collect();
    // All fields but those of templates alone, and the two lists.
    assert_eq!(keys.len(), Field::ALL.len() - 2 + 2, "{keys:?}");
    let tried = entry["tries"][0].as_object().unwrap().keys();
    for key in keys.into_iter().chain(tried) {
        assert!(told(key), "{key}");
    }
    for reason in Reason::ALL {
        let letters = Termination::of(reason).letters();
        for (letter, column) in letters.chars().zip(["| first |", "| second |"]) {
            let table = document
                .split(column)
                .nth(1)
                .unwrap()
                .split("\n\n")
                .next()
                .unwrap();
            assert!(table.contains(&format!("\n| `{letter}` |")), "{letters}");
        }
    }
}

#[test]
fn a_worker_that_is_ahead_by_too_many_bytes_drops_lines() {
    let log = Arc::new(AccessLog::new(1));
    let handle = Handle::new(&log, 0).unwrap();
    let settings = Settings::new(&config(AccessFormat::Json).access_log).unwrap();
    let mut record = record();
    // As long as a stranger can make it: every byte of it is escaped.
    for part in PARTS {
        record.captured.keep(part, &[1; 2048]);
    }
    let finished = Finished {
        record: &record,
        pool: &pool("one"),
        worker: 0,
    };
    while log.dropped() == 0 {
        handle.tell(&finished, &settings);
    }
    let mut bytes = 0;
    let mut longest = 0;
    while let Some(line) = log.lanes[0].lines.pop() {
        bytes += line.len();
        longest = longest.max(line.len());
    }
    assert!(longest > 50_000, "{longest}");
    assert!(
        (WAITING_BYTES..WAITING_BYTES + longest).contains(&bytes),
        "{bytes}"
    );
    // What is taken out makes room.
    log.lanes[0].taken.store(bytes, Ordering::Relaxed);
    handle.tell(&finished, &settings);
    assert_eq!(log.dropped(), 1);
    assert!(!log.is_empty());
}

#[test]
fn no_per_cent_is_none_and_a_hundred_are_all() {
    let mut random = fastrand::Rng::with_seed(7);
    for (sample, expected) in [(0.0, 0..1), (100.0, 100_000..100_001), (12.5, 12_000..13_000)] {
        let mut config = config(AccessFormat::Json);
        config.access_log.sample = sample;
        let settings = Settings::new(&config.access_log).unwrap();
        let lines = (0..100_000).filter(|_| settings.samples(&mut random)).count();
        assert!(expected.contains(&lines), "{lines} at {sample} %");
    }
}

/// A named pipe, and its open reader.
fn pipe() -> (TempDir, PathBuf, File) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let reader = reader_of(&path);
    (directory, path, reader)
}

fn reader_of(path: &Path) -> File {
    // For both, so that this does not wait for the other end; and what is not there is not waited for.
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    options.open(path).unwrap()
}

#[test]
fn a_pipe_that_nobody_reads_is_no_output_and_one_that_is_full_holds_nobody_up() {
    let (_directory, path, reader) = pipe();
    let mut config = config(AccessFormat::Json);
    config.access_log.output = AccessOutput::File(path.clone());
    drop(reader);
    let refused = Running::start(&config.access_log, 1).unwrap_err();
    assert!(refused.contains("cannot be opened"), "{refused}");

    let reader = reader_of(&path);
    let mut running = Running::start(&config.access_log, 1).unwrap();
    let log = running.log.clone().unwrap();
    let handle = Handle::new(&log, 0).unwrap();
    let settings = Settings::new(&config.access_log).unwrap();
    let record = record();
    let finished = Finished {
        record: &record,
        pool: &pool("one"),
        worker: 0,
    };
    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    while log.dropped() == 0 {
        assert!(begin.elapsed() < PATIENCE, "a pipe takes no end of lines");
        let now = Instant::now();
        handle.tell(&finished, &settings);
        slowest = slowest.max(now.elapsed());
    }
    // What a writer would wait for such a pipe; a worker that was only preempted is far from it.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    running.end();
    drop(reader);
}

#[test]
fn a_line_that_was_cut_does_not_take_the_next_one_with_it() {
    let (_directory, path, mut reader) = pipe();
    let mut config = config(AccessFormat::Json);
    config.access_log.output = AccessOutput::File(path);
    let mut output = Output::open(&config.access_log).unwrap().unwrap();
    let mut batch = |lines: usize| {
        for _ in 0..lines {
            output.add(format!("{}\n", "x".repeat(999)).as_bytes());
        }
        output.flush()
    };
    // A pipe holds 64 KiB; somebody reads only after the writer has lost its patience.
    let (lost, error) = batch(100).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(lost, 100 - 65);
    let mut taken = vec![0; 65_536];
    reader.read_exact(&mut taken).unwrap();
    batch(2).unwrap();
    let mut rest = vec![0; 1 + 2 * 1000];
    reader.read_exact(&mut rest).unwrap();
    let lines: Vec<_> = rest.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
    assert_eq!(lines, [0, 999, 999, 0]);
}

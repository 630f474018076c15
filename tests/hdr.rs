//! Exported histograms: what HdrHistogram's own tools read from them, that they agree with the metrics, and `weir hdr`.

#[macro_use]
mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;
use support::weir::BINARY;
use support::{Backend, Driver, Weir, eventually, ok};

on_both_drivers!(
    exports_and_metrics_agree_exactly,
    the_last_seconds_can_be_asked_for,
    the_observe_address_has_them_too,
);

/// Backends that take some milliseconds, and some of them longer.
fn uneven() -> Backend {
    Backend::answering(|request| {
        let slow = request.target().len() % 7;
        std::thread::sleep(Duration::from_micros(300 * (1 << slow)));
        ok(b"done")
    })
}

/// Sends `count` requests of different lengths and waits until all of them are counted.
fn ask(weir: &Weir, count: usize) -> Value {
    let before = weir.metrics()["total_requests"].as_u64().expect("a count");
    let mut client = weir.client();
    for number in 0..count {
        client.get(&format!("/{}", "x".repeat(number % 11)));
    }
    eventually("all counted", || {
        let metrics = weir.metrics();
        let idle = |backend: &Value| backend["in_flight"] == 0;
        (metrics["total_requests"] == before + count as u64
            && metrics["backends"].as_object()?.values().all(idle))
        .then_some(metrics)
    })
}

fn get(weir: &Weir, target: &str) -> String {
    let answer = weir.admin_get(target);
    let body = String::from_utf8(answer.body.clone()).expect("text");
    assert_eq!(answer.status(), 200, "{target}: {body}");
    assert_eq!(
        answer.get("content-type"),
        Some("text/plain; charset=utf-8"),
        "{target}"
    );
    body
}

/// By the library's own reader.
fn decoded(text: &str) -> Histogram<u64> {
    let bytes = STANDARD.decode(text.trim()).expect("base64");
    Deserializer::new()
        .deserialize(&mut &bytes[..])
        .expect("a histogram")
}

/// The tags of a log and their histograms.
fn log(text: &str) -> Vec<(String, Histogram<u64>)> {
    IntervalLogIterator::new(text.as_bytes())
        .filter_map(|entry| match entry.expect("a line of a log") {
            LogEntry::Interval(interval) => {
                let tag = interval.tag().expect("a tag").as_str().to_owned();
                Some((tag, decoded(interval.encoded_histogram())))
            }
            _ => None,
        })
        .collect()
}

/// What the JSON says of a quantile: the same cell, but never past the exact maximum.
fn nanos(histogram: &Histogram<u64>, quantile: f64, max: &Value) -> u64 {
    let micros = histogram.value_at_quantile(quantile);
    (micros * 1_000).min(max.as_u64().expect("a maximum"))
}

fn exports_and_metrics_agree_exactly(driver: Driver) {
    let backends = [uneven(), uneven()];
    let weir = Weir::on(driver)
        .named("[::1]:80", &backends[0].url())
        .named("second", &backends[1].url())
        .set("runtime.workers", 2)
        .start();
    let metrics = ask(&weir, 200);
    let mut sum: Option<Histogram<u64>> = None;
    for (backend, name, escaped) in [
        (&backends[0], "[::1]:80", "%5b::1%5D:80"),
        (&backends[1], "second", "second"),
    ] {
        let shown = &metrics["backends"][backend.url()];
        assert_eq!(shown["name"], name);
        // The default series is the one behind the JSON's percentiles.
        let total = decoded(&get(&weir, &format!("/metrics/hdr?backend={escaped}")));
        let named = decoded(&get(
            &weir,
            &format!("/metrics/hdr?series=total&backend={escaped}"),
        ));
        assert_eq!(total, named);
        assert_eq!((total.len(), total.sigfig()), (100, 3));
        for (field, quantile) in [
            ("p50_response", 0.50),
            ("p90_response", 0.90),
            ("p95_response", 0.95),
            ("p99_response", 0.99),
            ("p999_response", 0.999),
        ] {
            let expected = nanos(&total, quantile, &shown["max_response"]);
            assert_eq!(shown[field], expected, "{name} {field}");
        }
        assert!(shown["p50_response"].as_u64() < shown["p99_response"].as_u64());
        for series in ["first_byte", "connect", "queue", "weir", "upload", "download"] {
            let export = decoded(&get(
                &weir,
                &format!("/metrics/hdr?backend={escaped}&series={series}"),
            ));
            let phase = &shown["phases"][series];
            assert_eq!(
                (export.len(), export.sigfig()),
                (phase["count"].as_u64().expect("a count"), 2)
            );
            if export.is_empty() {
                continue;
            }
            for (field, quantile) in [("p50", 0.50), ("p95", 0.95), ("p99", 0.99)] {
                assert_eq!(
                    phase[field],
                    nanos(&export, quantile, &phase["max"]),
                    "{series} {field}"
                );
            }
        }
        match &mut sum {
            None => sum = Some(total),
            Some(sum) => sum.add(total).expect("the same layout"),
        }
    }
    let all = decoded(&get(&weir, "/metrics/hdr"));
    assert_eq!(Some(&all), sum.as_ref());
    let text = get(&weir, "/metrics/hdr.hlog");
    assert!(
        text.starts_with("#[Histogram log format version 1.3]\n#[StartTime: "),
        "{text}"
    );
    let lines = log(&text);
    let tags: Vec<&str> = lines.iter().map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(tags, ["[::1]:80", "second"]);
    assert_eq!(
        log(&get(&weir, "/metrics/hdr?format=hlog&backend=second")),
        lines[1..]
    );
    let mut added = lines[0].1.clone();
    added.add(&lines[1].1).expect("the same layout");
    assert_eq!(added, all);
}

fn the_last_seconds_can_be_asked_for(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver).named("one", &backend.url()).start();
    let count = |target: &str| decoded(&get(&weir, target)).len();
    ask(&weir, 20);
    eventually("the second is over", || {
        (count("/metrics/hdr?interval=60s&backend=one") == 20).then_some(())
    });
    eventually("they are past", || {
        (count("/metrics/hdr?interval=1s") == 0).then_some(())
    });
    assert_eq!(count("/metrics/hdr?interval=1m"), 20);
    let text = get(&weir, "/metrics/hdr.hlog?interval=60s&series=first_byte");
    assert_eq!(log(&text)[0].1.len(), 20);
    let interval = text.lines().last().expect("a line");
    let length: f64 = interval
        .split(',')
        .nth(2)
        .expect("a length")
        .parse()
        .expect("seconds");
    assert!(
        (0.9..60.0).contains(&length),
        "only as long as there is something to tell of: {text}"
    );
}

fn the_observe_address_has_them_too(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::on(driver)
        .backend(&backend)
        .set("observe.address", "127.0.0.1:0")
        .start();
    ask(&weir, 3);
    let observe = weir.observe.as_deref().expect("observe is on");
    let answer = weir.get_from(observe, "/metrics/hdr");
    assert_eq!(answer.status(), 200);
    assert_eq!(decoded(&String::from_utf8_lossy(&answer.body)).len(), 3);
}

#[test]
fn what_is_not_known_is_refused_with_what_is() {
    let backend = Backend::plain();
    let weir = Weir::on(Driver::Epoll).named("one", &backend.url()).start();
    for (target, status, told) in [
        ("/metrics/hdr?backend=two", 404, "there are: one"),
        ("/metrics/hdr.hlog?backend=two&interval=5s", 404, "there are: one"),
        (
            "/metrics/hdr?series=latency",
            400,
            "total, first_byte, connect, queue, weir, upload, download",
        ),
        ("/metrics/hdr?interval=2h", 400, "whole seconds from 1s to 60s"),
        ("/metrics/hdr?format=xml", 400, "base64, hlog"),
    ] {
        let answer = weir.admin_get(target);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status(), status, "{target}: {body}");
        assert!(body.contains(told), "{target}: {body}");
    }
}

// ---- weir hdr merge

fn merge(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(BINARY);
    command.args(["hdr", "merge"]).args(args);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the weir binary");
    let mut stdin = child.stdin.take().expect("piped");
    // It may refuse its arguments without reading.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[track_caller]
fn merged(args: &[&str], input: &str) -> String {
    let output = merge(args, input);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout).expect("text")
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().expect("text").to_owned()
}

#[test]
fn exports_of_two_instances_are_one() {
    let backend = uneven();
    let weirs = [0, 1].map(|_| Weir::on(Driver::Epoll).named("shared", &backend.url()).start());
    let dir = tempfile::tempdir().expect("a directory");
    let (a, b) = (path(dir.path(), "a.hlog"), path(dir.path(), "b.hdr"));
    ask(&weirs[0], 70);
    ask(&weirs[1], 30);
    let base64 = get(&weirs[1], "/metrics/hdr");
    fs::write(&a, get(&weirs[0], "/metrics/hdr.hlog")).expect("written");
    fs::write(&b, &base64).expect("written");
    let mut expected = log(&fs::read_to_string(&a).expect("a log")).remove(0).1;
    expected.add(decoded(&base64)).expect("the same layout");

    let json: Value = serde_json::from_str(&merged(&[&a, &b, "--json"], "")).expect("JSON");
    assert_eq!(
        (&json["total"]["count"], &json["unit"]),
        (&100.into(), &"us".into())
    );
    for (field, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)] {
        assert_eq!(
            json["total"][field],
            expected.value_at_quantile(quantile),
            "{field}"
        );
    }
    assert_eq!(
        (&json["tags"]["shared"]["count"], &json["tags"][""]["count"]),
        (&70.into(), &30.into())
    );
    assert_eq!(
        json,
        serde_json::from_str::<Value>(&merged(&[&a, "-", "--json"], &base64))
            .map(|mut read| {
                read["sources"][1] = b.clone().into();
                read
            })
            .expect("JSON")
    );

    let (out, svg) = (path(dir.path(), "sum.hlog"), path(dir.path(), "sum.svg"));
    let table = merged(&[&a, &b, "--out", &out, "--svg", &svg], "");
    assert!(
        table.contains("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"),
        "{table}"
    );
    assert!(table.contains("Total count    =          100]"), "{table}");
    let lines = fs::read_to_string(&out).expect("a log");
    assert!(lines.contains("\nTag=shared,"), "{lines}");
    assert_eq!(merged(&[&out], "").lines().count(), table.lines().count());
    let picture = fs::read_to_string(&svg).expect("a picture");
    assert!(picture.starts_with("<svg") && picture.contains("100 values of 2 exports"));
    let only: Value = serde_json::from_str(&merged(&[&a, "--tag", "shared", "--json"], "")).expect("JSON");
    assert_eq!(only["total"]["count"], 70);
}

#[test]
fn a_line_of_the_reference_implementation_is_read() {
    // The first interval of the log that HdrHistogram's own tests have, written by jHiccup: nanoseconds, two digits. Its
    // count and percentiles are those that another implementation finds in it.
    const LINE: &str = "0.127,1.007,2.769,HISTFAAAAEV42pNpmSzMwMCgyAABTBDKT4GBgdnNYMcCBvsPEBEJISEuATEZMQ4uASkhIR4nrxg9v2lMaxhvMekI\
        LGZkKmcCAEf2CsI=\n";
    let json: Value = serde_json::from_str(&merged(&["-", "--unit", "ns", "--json"], LINE)).expect("JSON");
    let total = &json["total"];
    assert_eq!(
        (&total["count"], &json["significant_digits"]),
        (&741.into(), &2.into()),
        "{json}"
    );
    assert_eq!(
        (&total["p50"], &total["p99"], &total["max"]),
        (&344_063.into(), &409_599.into(), &2_768_895.into())
    );
    assert!(merged(&["-", "--unit", "ns"], LINE).contains("#[Max     =     2.768895,"));
}

#[test]
fn what_cannot_be_merged_is_named_by_file_and_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let export = |values: &[u64], digits| {
        use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, digits).expect("bounds");
        for value in values {
            histogram.record(*value).expect("in range");
        }
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&histogram, &mut bytes)
            .expect("bytes");
        STANDARD.encode(bytes)
    };
    let good = export(&[1, 2, 3], 3);
    for (text, told) in [
        (
            format!("#\n{good}\nTag=a,nonsense\n"),
            "x.hlog:3: it is neither a comment, nor a line of a log",
        ),
        (
            format!("{good}\n{}", export(&[1], 2)),
            "x.hlog:2: it has 2 significant digits, those before it 3",
        ),
        (good[..good.len() - 8].to_owned(), "x.hlog:1: it "),
        (String::new(), "x.hlog: there is no histogram in it"),
        ("\u{0}\u{1}".to_owned(), "x.hlog:1: it is no base64"),
    ] {
        let file = path(dir.path(), "x.hlog");
        fs::write(&file, &text).expect("written");
        let output = merge(&[&file], "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}: {stderr}");
        assert!(stderr.contains(told), "{told}: {stderr}");
        assert!(output.stdout.is_empty());
    }
    let output = merge(&["/nonexistent.hlog"], "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent.hlog: cannot be read"));
    let output = merge(&["-", "--out", "/nonexistent/sum.hlog"], &good);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/sum.hlog: cannot be written"));
    assert_eq!(merge(&[], "").status.code(), Some(2));
}

// ---- another implementation: HdrHistogram for Python

/// A Python that has the package `hdrhistogram`, which `.ci/run` puts under target/.
fn python() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hdr-venv/bin/python");
    let has_it = |python: &PathBuf| {
        let output = Command::new(python)
            .args(["-c", "import hdrh.histogram, hdrh.log"])
            .output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = [venv, PathBuf::from("python3")].into_iter().find(has_it);
    if found.is_none() {
        // Not from Debian, so a machine that has everything else may lack it: the library's own reader is always asked.
        eprintln!(
            "SKIPPED: needs python3 with PyPI's hdrhistogram (python3 -m venv target/hdr-venv, then its pip install \
             hdrhistogram)"
        );
    }
    found
}

#[track_caller]
fn run(python: &Path, script: &str, args: &[&str]) -> String {
    let output = Command::new(python)
        .arg("-c")
        .arg(script)
        .args(args)
        .output()
        .expect("python");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn another_implementation_reads_the_exports_and_finds_the_same() {
    const READ: &str = "
import json, sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
def figures(h):
    return {'count': h.get_total_count(), 'p50': h.get_value_at_percentile(50),
            'p95': h.get_value_at_percentile(95), 'p99': h.get_value_at_percentile(99)}
one = HdrHistogram.decode(open(sys.argv[1]).read().strip())
reader, tags = HistogramLogReader(sys.argv[2], None), {}
while (h := reader.get_next_interval_histogram()) is not None:
    tags[h.get_tag()] = dict(figures(h), ms=h.get_end_time_stamp() - h.get_start_time_stamp())
print(json.dumps({'one': figures(one), 'tags': tags, 'start': reader.get_start_time_sec()}))
";
    let Some(python) = python() else { return };
    let backends = [uneven(), uneven()];
    let weir = Weir::on(Driver::Epoll)
        .named("a", &backends[0].url())
        .named("b", &backends[1].url())
        .start();
    let metrics = ask(&weir, 400);
    let dir = tempfile::tempdir().expect("a directory");
    let (one, all) = (path(dir.path(), "one.hdr"), path(dir.path(), "all.hlog"));
    fs::write(&one, get(&weir, "/metrics/hdr?backend=a")).expect("written");
    fs::write(&all, get(&weir, "/metrics/hdr.hlog")).expect("written");
    let read: Value = serde_json::from_str(&run(&python, READ, &[&one, &all])).expect("JSON");
    for (found, backend) in [
        (&read["one"], &backends[0]),
        (&read["tags"]["a"], &backends[0]),
        (&read["tags"]["b"], &backends[1]),
    ] {
        let shown = &metrics["backends"][backend.url()];
        assert_eq!(found["count"], 200);
        for percentile in ["p50", "p95", "p99"] {
            let micros = found[percentile].as_u64().expect("a value");
            let max = shown["max_response"].as_u64().expect("a maximum");
            assert_eq!(
                shown[format!("{percentile}_response")],
                (micros * 1_000).min(max),
                "{read}"
            );
        }
    }
    let uptime = weir.metrics()["uptime"].as_f64().expect("uptime") / 1e6;
    let ms = read["tags"]["a"]["ms"].as_f64().expect("a length");
    assert!(ms > 0.0 && ms <= uptime, "{read}");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let start = read["start"].as_f64().expect("a start");
    assert!((now.as_secs_f64() - start) * 1e3 >= ms, "{read}");
}

#[test]
fn another_implementation_finds_the_merge_of_its_exports_and_every_line_of_the_table_right() {
    const WRITE: &str = "
import sys
from hdrh.histogram import HdrHistogram
for part in range(4):
    histogram = HdrHistogram(1, 3600000000, 3)
    for index in range(part, 5000, 4):
        histogram.record_value((index * 2654435761) % (1 << (index % 28 + 1)))
    open(sys.argv[1 + part], 'wb').write(histogram.encode())
";
    // Says for each line of the table whether a value and a count stand in it that its own counts give.
    const JUDGE: &str = "
import json, math, sys
from fractions import Fraction
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
whole = HdrHistogram(1, 3600000000, 3)
for path in sys.argv[3:]:
    whole.decode_and_add(open(path).read())
cells, count = [], 0
for cell in whole.get_recorded_iterator():
    count += cell.count_at_value_iterated_to
    cells.append((whole.get_highest_equivalent_value(cell.value_iterated_to), count))
lines, wrong = 0, []
for line in open(sys.argv[1]):
    columns = line.split()
    if len(columns) < 3 or columns[0] == 'Value' or line.startswith('#'):
        continue
    lines += 1
    rank = max(1, math.ceil(Fraction(columns[1]) * count - Fraction(1, 10 ** 6)))
    value, below = next(cell for cell in cells if cell[1] >= rank)
    if (f'{value / 1000:.3f}', str(below)) != (columns[0], columns[2]):
        wrong.append([line, value, below])
merged = HistogramLogReader(sys.argv[2], None).get_next_interval_histogram()
print(json.dumps({'lines': lines, 'wrong': wrong, 'count': count, 'equal': bool(whole.equals(merged))}))
";
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let files = [0, 1, 2, 3].map(|part| path(dir.path(), &format!("{part}.hdr")));
    let files = files.each_ref().map(String::as_str);
    run(&python, WRITE, &files);
    let (table, sum) = (path(dir.path(), "table"), path(dir.path(), "sum.hlog"));
    let printed = merged(&[&files[..], &["--out", &sum]].concat(), "");
    fs::write(&table, printed).expect("written");
    let judged = run(&python, JUDGE, &[&[table.as_str(), &sum], &files[..]].concat());
    let judged: Value = serde_json::from_str(&judged).expect("JSON");
    assert_eq!(
        (&judged["wrong"], &judged["count"], &judged["equal"]),
        (&serde_json::json!([]), &5_000.into(), &true.into()),
        "{judged}"
    );
    assert!(judged["lines"].as_u64() > Some(50), "{judged}");
}

//! What there is to see, worked out from what weir answered.
//!
//! Rates are differences of two readings over the time between them. Percentiles are read from histograms, of the last
//! seconds or of all since the start, added over backends; none is an average of others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::hdr::read::{Item, Reader};
use crate::metrics::hlog::tag_of;

/// `GET /metrics`, as far as it is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metrics {
    pub total_requests: u64,
    /// Nanoseconds.
    pub uptime: u64,
    pub algorithm: String,
    /// By url.
    pub backends: BTreeMap<String, BackendMetrics>,
    pub weir: WeirMetrics,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct BackendMetrics {
    pub name: String,
    pub requests: u64,
    pub selections: u64,
    pub failures: u64,
    pub retries: u64,
    pub status_codes: BTreeMap<String, u64>,
    /// Nanoseconds, since the start.
    pub max_response: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct WeirMetrics {
    pub version: String,
    /// Of own answers.
    pub status_codes: BTreeMap<String, u64>,
    pub connections: Connections,
    pub workers: Vec<WorkerMetrics>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Connections {
    pub open: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct WorkerMetrics {
    pub worker: usize,
    pub requests: u64,
    pub connections: Connections,
    /// Nanoseconds on a CPU.
    pub busy: u64,
}

/// `GET /backends`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Backends {
    pub backends: Vec<View>,
}

/// One of them, as far as it is shown.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct View {
    pub pool: String,
    pub name: String,
    pub url: String,
    pub state: String,
    /// RFC 3339, UTC.
    pub since: String,
    pub why: String,
    pub eligible: bool,
    pub in_flight: u64,
    pub breaker: Breaker,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Breaker {
    pub state: String,
}

/// `GET /readyz`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Readiness {
    pub status: String,
}

/// `GET /history`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Rows {
    pub rows: Vec<Row>,
}

/// One second of all backends; latencies in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Row {
    pub number: u64,
    /// How long it was.
    pub ms: u64,
    pub requests: u64,
    pub errors: u64,
    pub p50: u64,
    pub p99: u64,
}

/// Histograms of backends in µs, by tag, and the time that they are of.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    by_tag: BTreeMap<String, Histogram<u64>>,
    pub length: Duration,
}

impl Windows {
    /// From a log of HdrHistogram.
    ///
    /// # Errors
    /// In words.
    pub fn parse(log: &str) -> Result<Windows, String> {
        let mut windows = Windows::default();
        for item in Reader::new(log) {
            let item = item.map_err(|problem| {
                format!(
                    "line {} of the histograms cannot be read: {}",
                    problem.line, problem.what
                )
            })?;
            if let Item::Interval(interval) = item {
                let length = interval.time.map_or(Duration::ZERO, |(_, length)| length);
                windows.length = windows.length.max(length);
                let tag = interval.tag.unwrap_or_default();
                windows.by_tag.insert(tag, interval.histogram);
            }
        }
        Ok(windows)
    }

    fn of(&self, name: &str) -> Option<&Histogram<u64>> {
        self.by_tag.get(&tag_of(name))
    }

    /// One histogram of all; none without any, or where they cannot be added.
    fn all(&self) -> Option<Histogram<u64>> {
        let mut histograms = self.by_tag.values();
        let mut sum = histograms.next()?.clone();
        for histogram in histograms {
            sum.add(histogram).ok()?;
        }
        Some(sum)
    }
}

/// Everything that was answered at one time.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When the metrics were read.
    pub at: Instant,
    pub clock: SystemTime,
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub backends: Vec<View>,
    /// Of the last seconds, and of all since the start.
    pub recent: Windows,
    pub whole: Windows,
    pub rows: Vec<Row>,
}

/// What is shown; as JSON what `--once --json` prints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shown {
    pub version: String,
    pub status: String,
    pub strategy: String,
    pub uptime_s: f64,
    /// Since the start.
    pub requests: u64,
    pub connections: u64,
    /// The time between the two readings that rates are of; none before the second one.
    pub interval_s: Option<f64>,
    pub requests_per_second: Option<f64>,
    pub errors_per_second: Option<f64>,
    /// Of the last seconds, over all backends.
    pub latency: Latency,
    /// The same since the start.
    pub latency_since_start: Latency,
    pub backends: Vec<BackendRow>,
    pub workers: Vec<WorkerRow>,
}

/// Percentiles of one histogram; none without a value in it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// The time that it is of.
    pub window_s: f64,
    pub count: u64,
    pub p50_ns: Option<u64>,
    pub p90_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    pub p99_9_ns: Option<u64>,
}

impl Latency {
    /// `max_ns`: no value is past it, which a cell's width does not know.
    fn of(histogram: Option<&Histogram<u64>>, length: Duration, max_ns: u64) -> Latency {
        let filled = histogram.filter(|histogram| !histogram.is_empty());
        let at = |quantile| {
            let micros = filled?.value_at_quantile(quantile);
            Some(micros.saturating_mul(1_000).min(max_ns))
        };
        Latency {
            window_s: length.as_secs_f64(),
            count: filled.map_or(0, Histogram::len),
            p50_ns: at(0.50),
            p90_ns: at(0.90),
            p99_ns: at(0.99),
            p99_9_ns: at(0.999),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct BackendRow {
    pub pool: String,
    pub name: String,
    pub url: String,
    pub state: String,
    pub why: String,
    pub since: String,
    /// Since `since`, by this machine's clock.
    pub since_s: Option<u64>,
    pub eligible: bool,
    pub in_flight: u64,
    /// Of all picks since the start.
    pub share: f64,
    /// Attempts that came to an end.
    pub requests_per_second: Option<f64>,
    /// Attempts without an answer, and answers with a status of 500 and more.
    pub errors_per_second: Option<f64>,
    pub latency: Latency,
    pub breaker: String,
    pub requests: u64,
    pub retries: u64,
    pub failures: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerRow {
    pub worker: usize,
    pub connections: u64,
    pub requests: u64,
    pub requests_per_second: Option<f64>,
    /// Of the requests between the two readings.
    pub share: Option<f64>,
    /// Of that time, on a CPU.
    pub busy: Option<f64>,
}

/// What two readings say; the first one is older. Without it there are no rates.
pub fn shown(before: Option<&Reading>, now: &Reading) -> Shown {
    let seconds = before.map(|before| now.at.saturating_duration_since(before.at).as_secs_f64());
    let rates = before.zip(seconds.filter(|seconds| *seconds > 0.0));
    let rate = |of: &dyn Fn(&Reading) -> u64| {
        rates.map(|(before, seconds)| of(now).saturating_sub(of(before)) as f64 / seconds)
    };
    let metrics = &now.metrics;
    let slowest = metrics
        .backends
        .values()
        .map(|backend| backend.max_response)
        .max();
    Shown {
        version: metrics.weir.version.clone(),
        status: now.readiness.status.clone(),
        strategy: metrics.algorithm.clone(),
        uptime_s: metrics.uptime as f64 / 1e9,
        requests: metrics.total_requests,
        connections: metrics.weir.connections.open,
        interval_s: rates.map(|(_, seconds)| seconds),
        requests_per_second: rate(&|reading| reading.metrics.total_requests),
        errors_per_second: rate(&|reading| errors(&reading.metrics)),
        latency: Latency::of(now.recent.all().as_ref(), now.recent.length, u64::MAX),
        latency_since_start: Latency::of(
            now.whole.all().as_ref(),
            now.whole.length,
            slowest.unwrap_or(u64::MAX),
        ),
        backends: backends(rates, now),
        workers: workers(rates, now),
    }
}

/// Own answers with a status of 500 and more, and backends' ones: what the page counts.
fn errors(metrics: &Metrics) -> u64 {
    let of_backends = metrics
        .backends
        .values()
        .map(|backend| fives(&backend.status_codes));
    fives(&metrics.weir.status_codes) + of_backends.sum::<u64>()
}

fn fives(statuses: &BTreeMap<String, u64>) -> u64 {
    let found = statuses
        .iter()
        .filter(|(status, _)| status.parse::<u16>().is_ok_and(|status| status >= 500));
    found.map(|(_, count)| count).sum()
}

fn backends(rates: Option<(&Reading, f64)>, now: &Reading) -> Vec<BackendRow> {
    fn by_name(reading: &Reading) -> BTreeMap<&str, &BackendMetrics> {
        let all = reading.metrics.backends.values();
        all.map(|backend| (backend.name.as_str(), backend)).collect()
    }
    let (known, picks) = (by_name(now), total_picks(now));
    let earlier = rates.map(|(before, seconds)| (by_name(before), seconds));
    let nothing = BackendMetrics::default();
    let row = |view: &View| {
        let figures = known.get(view.name.as_str()).copied().unwrap_or(&nothing);
        let rate = |count: &dyn Fn(&BackendMetrics) -> u64| {
            let (earlier, seconds) = earlier.as_ref()?;
            let earlier = earlier
                .get(view.name.as_str())
                .map_or(0, |earlier| count(earlier));
            Some(count(figures).saturating_sub(earlier) as f64 / seconds)
        };
        let since_s = moment(&view.since).and_then(|since| now.clock.duration_since(since).ok());
        BackendRow {
            pool: view.pool.clone(),
            name: view.name.clone(),
            url: view.url.clone(),
            state: view.state.clone(),
            why: view.why.clone(),
            since: view.since.clone(),
            since_s: since_s.map(|since| since.as_secs()),
            eligible: view.eligible,
            in_flight: view.in_flight,
            share: figures.selections as f64 / picks.max(1) as f64,
            requests_per_second: rate(&|backend| backend.requests),
            errors_per_second: rate(&|backend| backend.failures + fives(&backend.status_codes)),
            latency: Latency::of(now.recent.of(&view.name), now.recent.length, u64::MAX),
            breaker: view.breaker.state.clone(),
            requests: figures.requests,
            retries: figures.retries,
            failures: figures.failures,
        }
    };
    now.backends.iter().map(row).collect()
}

fn total_picks(reading: &Reading) -> u64 {
    let backends = reading.metrics.backends.values();
    backends.map(|backend| backend.selections).sum()
}

fn workers(rates: Option<(&Reading, f64)>, now: &Reading) -> Vec<WorkerRow> {
    let earlier = |worker: usize| {
        let (before, seconds) = rates?;
        let mut all = before.metrics.weir.workers.iter();
        all.find(|earlier| earlier.worker == worker)
            .map(|earlier| (earlier, seconds))
    };
    let gained = |worker: &WorkerMetrics| {
        earlier(worker.worker).map(|(earlier, _)| worker.requests.saturating_sub(earlier.requests))
    };
    let workers = &now.metrics.weir.workers;
    let all: u64 = workers.iter().filter_map(gained).sum();
    workers
        .iter()
        .map(|worker| {
            let earlier = earlier(worker.worker);
            WorkerRow {
                worker: worker.worker,
                connections: worker.connections.open,
                requests: worker.requests,
                requests_per_second: earlier.map(|(earlier, seconds)| {
                    worker.requests.saturating_sub(earlier.requests) as f64 / seconds
                }),
                share: gained(worker).map(|gained| gained as f64 / all.max(1) as f64),
                busy: earlier.map(|(earlier, seconds)| {
                    worker.busy.saturating_sub(earlier.busy) as f64 / 1e9 / seconds
                }),
            }
        })
        .collect()
}

/// `2026-01-31T09:05:07.000123Z`, as weir writes it; none for anything else.
fn moment(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, between: char| -> Option<[u64; 3]> {
        let parts: Result<Vec<u64>, _> = text.split(between).map(str::parse).collect();
        parts.ok()?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let sound = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sound || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years begin in March, so that the leap day comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(DAYS_TO_1970)?;
    Some(UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

/// From 1 March of year 0 to 1 January 1970.
const DAYS_TO_1970: u64 = 719_468;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::metrics::hdr::encode;
    use crate::metrics::hlog;

    /// A log with these values, in µs, of each backend.
    fn log(backends: &[(&str, &[u64])], seconds: u64) -> String {
        let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let intervals: Vec<_> = backends
            .iter()
            .map(|(name, values)| {
                let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds");
                for &value in *values {
                    histogram.record(value).expect("in range");
                }
                assert!(encode(&histogram).is_ok());
                hlog::Interval {
                    tag: Some(tag_of(name)),
                    from: start,
                    length: Duration::from_secs(seconds),
                    histogram,
                }
            })
            .collect();
        String::from_utf8(hlog::render(start, 1_000.0, &intervals).expect("a log")).expect("text")
    }

    /// Backends `a` and `b b`, two workers; after `second` seconds with 100 requests a second to `a`, 300 to `b b` and one
    /// error.
    pub(in crate::top) fn reading(start: Instant, second: u64) -> Reading {
        let metrics = format!(
            r#"{{"total_requests": {total}, "uptime": {uptime}, "algorithm": "p2c", "new": 1,
                "backends": {{
                  "http://a": {{"name": "a", "requests": {a}, "selections": {a}, "failures": 0, "retries": 2,
                    "status_codes": {{"200": {a}}}, "max_response": 900000}},
                  "http://b": {{"name": "b b", "requests": {b}, "selections": {b}, "failures": {second}, "retries": 0,
                    "status_codes": {{"200": 1, "503": {second}}}, "max_response": 5000000}}
                }},
                "weir": {{"version": "1.2.3", "status_codes": {{"400": 7, "502": 0}},
                  "connections": {{"open": 12, "accepted": 20}},
                  "workers": [
                    {{"worker": 0, "requests": {a}, "connections": {{"open": 5, "accepted": 9}}, "busy": {busy}}},
                    {{"worker": 1, "requests": {b}, "connections": {{"open": 7, "accepted": 9}}, "busy": 0}}
                  ]}}}}"#,
            total = 400 * second,
            uptime = second * 1_000_000_000,
            a = 100 * second,
            b = 300 * second,
            busy = 500_000_000 * second,
        );
        let backends = r#"{"backends": [
            {"pool": "default", "name": "a", "url": "http://a", "state": "up", "since": "2023-11-14T22:13:20.000000Z",
             "why": "it was added", "eligible": true, "in_flight": 3, "breaker": {"state": "CLOSED", "opened": 0}},
            {"pool": "default", "name": "b b", "url": "http://b", "state": "ejected", "since": "yesterday",
             "why": "5 failures\u001b[31m in a row", "eligible": false, "in_flight": 9, "breaker": {"state": "OPEN", "opened": 2}}
        ]}"#;
        let rows = (0..second).map(|number| Row {
            number,
            ms: 1_000,
            requests: 400,
            errors: 1,
            p50: 500,
            p99: 4_000,
        });
        let backends: Backends = serde_json::from_str(backends).expect("backends");
        Reading {
            at: start + Duration::from_secs(second),
            clock: UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 90),
            readiness: Readiness {
                status: "ready".to_owned(),
            },
            metrics: serde_json::from_str(&metrics).expect("metrics"),
            backends: backends.backends,
            recent: Windows::parse(&log(&[("a", &[800; 99]), ("b b", &[4_000; 1])], 10)).expect("windows"),
            whole: Windows::parse(&log(&[("a", &[900]), ("b b", &[5_000])], second)).expect("windows"),
            rows: rows.collect(),
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings() {
        let start = Instant::now();
        let (before, now) = (reading(start, 10), reading(start, 12));
        let shown = shown(Some(&before), &now);
        assert_eq!(
            (shown.interval_s, shown.requests_per_second),
            (Some(2.0), Some(400.0))
        );
        assert_eq!(shown.errors_per_second, Some(1.0));
        assert_eq!(
            (shown.version.as_str(), shown.status.as_str()),
            ("1.2.3", "ready")
        );
        let (a, b) = (&shown.backends[0], &shown.backends[1]);
        assert_eq!(
            (a.requests_per_second, b.requests_per_second),
            (Some(100.0), Some(300.0))
        );
        assert_eq!((a.share, b.share), (0.25, 0.75));
        assert_eq!((a.errors_per_second, b.errors_per_second), (Some(0.0), Some(2.0)));
        assert_eq!((a.since_s, b.since_s), (Some(90), None));
        let (first, second) = (&shown.workers[0], &shown.workers[1]);
        assert_eq!((first.share, second.share), (Some(0.25), Some(0.75)));
        assert_eq!((first.busy, second.requests_per_second), (Some(0.5), Some(300.0)));
    }

    #[test]
    fn before_the_second_reading_there_are_no_rates() {
        let now = reading(Instant::now(), 10);
        let shown = shown(None, &now);
        assert_eq!((shown.interval_s, shown.requests_per_second), (None, None));
        assert_eq!(shown.backends[0].requests_per_second, None);
        assert_eq!((shown.workers[0].busy, shown.workers[0].share), (None, None));
        assert_eq!(shown.requests, 4_000);
    }

    #[test]
    fn percentiles_are_of_one_histogram_of_all_backends() {
        let shown = shown(None, &reading(Instant::now(), 10));
        // 99 of 100 took 800 µs: the average of both backends' p99 would say 2.4 ms.
        assert_eq!(shown.latency.count, 100);
        assert_eq!(
            (shown.latency.p50_ns, shown.latency.p99_ns),
            (Some(800_000), Some(800_000))
        );
        assert_eq!(shown.latency.p99_9_ns, Some(4_001_000));
        assert_eq!(shown.latency.window_s, 10.0);
        assert_eq!(shown.backends[1].latency.p50_ns, Some(4_001_000));
        // Not past the slowest.
        assert_eq!(shown.latency_since_start.p99_ns, Some(5_000_000));
        let none = Latency::of(None, Duration::ZERO, u64::MAX);
        assert_eq!((none.count, none.p50_ns), (0, None));
    }

    #[test]
    fn moments() {
        let seconds = |text| {
            let at: SystemTime = moment(text)?;
            Some(at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs())
        };
        for (text, expected) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2000-02-28T23:59:59.999999Z", 951_782_399),
            ("2000-02-29T00:00:00.000000Z", 951_782_400),
            ("2024-03-01T00:00:00Z", 1_709_251_200),
            ("2100-03-01T00:00:00.5Z", 4_107_542_400),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "now",
            "2024-03-01T00:00:00",
            "2024-13-01T00:00:00Z",
            "1969-12-31T00:00:00Z",
            "a-b-cTd:e:fZ",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}

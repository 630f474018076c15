//! `GET /metrics/hdr`: the histograms themselves, for tools of HdrHistogram.
//!
//! `?backend=` (without: all of them), `?series=`, `?interval=` for what the last seconds brought instead of all since the
//! start, and `?format=`: one histogram in base64, or a log with a line for each backend.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};

use super::command::Refused;
use super::router::{self, Answer};
use super::{State, router::decoded};
use crate::backend::values::parse_duration;
use crate::metrics::history::{History, WINDOW};
use crate::metrics::{Distribution, Series, Snapshot, hdr, hlog};

/// Names that a refusal lists at most.
const NAMES_SHOWN: usize = 20;

/// As what it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Base64,
    Log,
}

/// What one request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// None: all of them.
    backend: Option<String>,
    series: Series,
    form: Form,
    /// None: since the start.
    interval: Option<Duration>,
}

/// What one backend's histogram gained in a time.
struct Part<'a> {
    name: &'a str,
    distribution: Distribution,
    from: SystemTime,
    length: Duration,
}

impl Asked {
    fn of<B>(request: &Request<B>, form: Option<Form>) -> Result<Asked, Refused> {
        let parameter = |name| router::parameter(request, name);
        let form = match (form, parameter("format")) {
            (Some(form), _) => form,
            (None, None | Some("base64")) => Form::Base64,
            (None, Some("hlog")) => Form::Log,
            (None, Some(other)) => {
                return Err(bad(format!(
                    "format {other:?} is not known; allowed: base64, hlog"
                )));
            }
        };
        Ok(Asked {
            backend: parameter("backend").map(decoded).transpose()?,
            series: parameter("series").map_or(Ok(Series::Total), series)?,
            form,
            interval: parameter("interval").map(interval).transpose()?,
        })
    }
}

fn bad(message: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, message)
}

fn series(word: &str) -> Result<Series, Refused> {
    let found = Series::ALL.into_iter().find(|series| series.word() == word);
    found.ok_or_else(|| {
        let allowed = Series::ALL.map(Series::word).join(", ");
        bad(format!("series {word:?} is not known; allowed: {allowed}"))
    })
}

/// Whole seconds, as long as they are remembered.
fn interval(text: &str) -> Result<Duration, Refused> {
    let whole =
        |length: &Duration| length.subsec_nanos() == 0 && (1..=WINDOW as u64).contains(&length.as_secs());
    let length = parse_duration(text).ok().filter(whole);
    length.ok_or_else(|| {
        bad(format!(
            "interval {text:?} is not known; allowed: whole seconds from 1s to {WINDOW}s"
        ))
    })
}

/// The answer to a request whose path gave `form`, or left it to the query.
pub(super) fn answer<B>(state: &State, request: &Request<B>, form: Option<Form>) -> Result<Answer, Refused> {
    let asked = Asked::of(request, form)?;
    let snapshot = state.snapshot();
    let history = state.history.lock().unwrap_or_else(PoisonError::into_inner);
    let parts = parts(&asked, &snapshot, &history)?;
    drop(history);
    let body = match asked.form {
        Form::Base64 => {
            let mut sum = Distribution::default();
            for part in &parts {
                sum.add(&part.distribution);
            }
            let text = hdr::encode(&hdr::histogram(asked.series, &sum));
            text.map(|text| format!("{text}\n").into_bytes())
        }
        Form::Log => {
            let intervals: Vec<_> = parts
                .iter()
                .map(|part| hlog::Interval {
                    tag: Some(hlog::tag_of(part.name)),
                    from: part.from,
                    length: part.length,
                    histogram: hdr::histogram(asked.series, &part.distribution),
                })
                .collect();
            let log = hlog::render(started(&snapshot), hlog::MICROS_PER_MILLI, &intervals);
            log.map_err(|error| error.to_string())
        }
    };
    let body = body.map_err(|why| {
        Refused::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the histogram could not be written: {why}"),
        )
    })?;
    let mut answer = Response::new(router::whole(Full::new(Bytes::from(body))));
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

fn started(snapshot: &Snapshot) -> SystemTime {
    snapshot.at - snapshot.uptime
}

/// The backends that are asked for, in the order of the configuration.
fn parts<'a>(asked: &Asked, snapshot: &'a Snapshot, history: &History) -> Result<Vec<Part<'a>>, Refused> {
    let position = Series::ALL
        .iter()
        .position(|series| *series == asked.series)
        .unwrap_or_default();
    let wanted = |name: &str| asked.backend.as_deref().is_none_or(|backend| backend == name);
    let parts: Vec<Part<'a>> = snapshot
        .backends
        .iter()
        .filter(|backend| wanted(&backend.info.name))
        .map(|backend| {
            let name = backend.info.name.as_str();
            match asked.interval {
                None => Part {
                    name,
                    distribution: backend.series[position].clone(),
                    from: started(snapshot),
                    length: snapshot.uptime,
                },
                Some(interval) => {
                    // Before its first second is over, a backend has no window.
                    let window = history.window(Some(name), asked.series, interval);
                    let (distribution, length) = window.unwrap_or_default();
                    let end = history
                        .last()
                        .map_or(snapshot.at, |row| UNIX_EPOCH + Duration::from_millis(row.at));
                    Part {
                        name,
                        distribution,
                        from: end - length,
                        length,
                    }
                }
            }
        })
        .collect();
    match &asked.backend {
        Some(backend) if parts.is_empty() => Err(unknown(backend, snapshot)),
        _ => Ok(parts),
    }
}

fn unknown(backend: &str, snapshot: &Snapshot) -> Refused {
    let names = snapshot.backends.iter().map(|backend| &*backend.info.name);
    let mut known: Vec<&str> = names.take(NAMES_SHOWN).collect();
    if snapshot.backends.len() > NAMES_SHOWN {
        known.push("…");
    }
    Refused::new(
        StatusCode::NOT_FOUND,
        format!("there is no backend {backend:?}; there are: {}", known.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<Asked, String> {
        let request = Request::get(format!("/metrics/hdr{query}"))
            .body(())
            .expect("a request");
        Asked::of(&request, None).map_err(|refused| refused.message)
    }

    #[test]
    fn what_is_not_said_is_the_total_of_all_since_the_start() {
        let everything = Asked {
            backend: None,
            series: Series::Total,
            form: Form::Base64,
            interval: None,
        };
        assert_eq!(asked(""), Ok(everything));
        let one = Asked {
            backend: Some("[::1]:80/x".to_owned()),
            series: Series::FirstByte,
            form: Form::Log,
            interval: Some(Duration::from_secs(60)),
        };
        let query = "?backend=%5b::1%5D:80%2Fx&series=first_byte&format=hlog&interval=1m";
        assert_eq!(asked(query), Ok(one));
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        for (query, told) in [
            (
                "?series=totals",
                "allowed: total, first_byte, connect, queue, weir, upload, download",
            ),
            ("?format=json", "allowed: base64, hlog"),
            ("?interval=10", "from 1s to 60s"),
            ("?interval=0", "from 1s to 60s"),
            ("?interval=61s", "from 1s to 60s"),
            ("?interval=1500ms", "from 1s to 60s"),
            ("?interval=", "from 1s to 60s"),
            ("?backend=%zz", "%zz is not percent-encoded"),
        ] {
            let error = asked(query).expect_err(query);
            assert!(error.contains(told), "{query}: {error}");
        }
    }
}

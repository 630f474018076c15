//! In which form the metrics are wanted: by `?format=`, by the path, or by `Accept` (RFC 9110 §12.5.1).

use std::sync::PoisonError;

use http_body_util::Full;
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Response, StatusCode};

use super::command::Refused;
use super::{State, router};
use crate::metrics::process::Process;
use crate::metrics::text::{self, Format};
use crate::metrics::{families, json, protobuf};

/// What the metrics can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As the original has them; what everybody gets who does not ask.
    Json,
    Text(Format),
    Protobuf,
}

const WORDS: [(&str, Form); 4] = [
    ("json", Form::Json),
    ("prometheus", Form::Text(Format::Prometheus)),
    ("openmetrics", Form::Text(Format::OpenMetrics)),
    ("protobuf", Form::Protobuf),
];

impl Form {
    /// The form that `?format=` names.
    pub(super) fn named(word: &str) -> Result<Form, Refused> {
        let found = WORDS.iter().find(|(known, _)| *known == word);
        found.map(|(_, form)| *form).ok_or_else(|| {
            let allowed = WORDS.map(|(word, _)| word).join(", ");
            Refused::new(
                StatusCode::NOT_ACCEPTABLE,
                format!("format {word:?} is not known; allowed: {allowed}"),
            )
        })
    }

    /// The first one known among those that are wanted most; JSON where nothing is asked for, or nothing that is known.
    pub(super) fn negotiated(headers: &HeaderMap) -> Form {
        let accepted = headers.get_all(ACCEPT).iter();
        let mut best: Option<(f32, Form)> = None;
        for range in accepted
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
        {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
            let quality = parameters
                .iter()
                .find_map(|parameter| parameter.strip_prefix("q="))
                .map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0));
            let Some(form) = of_media(&media, &parameters) else {
                continue;
            };
            if quality > 0.0 && best.is_none_or(|(known, _)| quality > known) {
                best = Some((quality, form));
            }
        }
        best.map_or(Form::Json, |(_, form)| form)
    }
}

fn of_media(media: &str, parameters: &[String]) -> Option<Form> {
    let has = |wanted: &str| {
        parameters
            .iter()
            .any(|parameter| parameter.replace('"', "") == wanted)
    };
    match media {
        "application/vnd.google.protobuf"
            if has("proto=io.prometheus.client.metricfamily") && has("encoding=delimited") =>
        {
            Some(Form::Protobuf)
        }
        "application/openmetrics-text" => Some(Form::Text(Format::OpenMetrics)),
        "text/plain" => Some(Form::Text(Format::Prometheus)),
        "application/json" | "application/*" | "*/*" => Some(Form::Json),
        _ => None,
    }
}

/// The metrics, now.
pub(super) fn answer(state: &State, form: Form) -> Result<router::Answer, Refused> {
    let snapshot = state.snapshot();
    let dropped = (state.dropped)();
    let (content_type, body) = match form {
        Form::Json => {
            let history = state.history.lock().unwrap_or_else(PoisonError::into_inner);
            let busy = history.last().map_or(&[][..], |row| &row.busy);
            let body = json::render(&snapshot, dropped, busy).map_err(|cause| {
                Refused::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the metrics could not be written: {cause}"),
                )
            })?;
            ("application/json", body)
        }
        Form::Text(format) => {
            let families = families::families(&snapshot, dropped, Process::now());
            (
                format.content_type(),
                text::render(&families, format).into_bytes(),
            )
        }
        Form::Protobuf => {
            let families = families::families(&snapshot, dropped, Process::now());
            (protobuf::CONTENT_TYPE, protobuf::render(&families))
        }
    };
    let mut answer = Response::new(router::whole(Full::from(body)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::try_from(accept).unwrap());
        Form::negotiated(&headers)
    }

    #[test]
    fn who_asks_for_what_gets_it() {
        assert_eq!(Form::negotiated(&HeaderMap::new()), Form::Json);
        for (accept, form) in [
            ("*/*", Form::Json),
            ("text/html", Form::Json),
            ("text/plain", Form::Text(Format::Prometheus)),
            ("text/plain;version=0.0.4;q=0.5, application/json", Form::Json),
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Form::Text(Format::OpenMetrics),
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                 application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Form::Protobuf,
            ),
            (
                "application/vnd.google.protobuf;encoding=text, text/plain;q=0.1",
                Form::Text(Format::Prometheus),
            ),
            ("text/plain;q=0", Form::Json),
        ] {
            assert_eq!(negotiated(accept), form, "{accept}");
        }
        assert!(Form::named("xml").is_err());
        assert_eq!(Form::named("protobuf").unwrap(), Form::Protobuf);
    }
}

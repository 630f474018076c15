//! Which path answers what.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{Phase, State, Surface};
use crate::log;
use crate::metrics;

type Answer = Response<Full<Bytes>>;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Livez,
    Readyz,
    Metrics,
    Backends,
}

/// The answer to one request. Its body, if it has one, is not read; hyper then ends the connection after the answer.
pub(super) fn answer<B>(request: &Request<B>, surface: Surface, state: &State) -> Answer {
    let path = request.uri().path();
    let Some(resource) = find(path, surface) else {
        return error(StatusCode::NOT_FOUND, format!("nothing is served at {path}"));
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = error(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{path} takes GET and HEAD, not {}", request.method()),
        );
        refused
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match resource {
        Resource::Livez => json(StatusCode::OK, &json!({ "status": "alive" })),
        Resource::Readyz => readyz(state, parameter(request, "backends") == Some("1")),
        Resource::Metrics => metrics(state, parameter(request, "format").unwrap_or("json")),
        Resource::Backends => backends(state),
    }
}

fn find(path: &str, surface: Surface) -> Option<Resource> {
    if surface == Surface::Metrics {
        return Some(Resource::Metrics);
    }
    match path {
        "/livez" => Some(Resource::Livez),
        "/readyz" => Some(Resource::Readyz),
        "/metrics" => Some(Resource::Metrics),
        "/backends" if surface == Surface::Admin => Some(Resource::Backends),
        _ => None,
    }
}

/// The first value of a query parameter, as it stands: none of those known here needs decoding.
fn parameter<'a, B>(request: &'a Request<B>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// Ready is: listeners open and not draining; with `need_backend`, also at least one eligible backend.
fn readyz(state: &State, need_backend: bool) -> Answer {
    let phase = (state.phase)();
    let mut body = json!({ "status": phase.word() });
    let mut ready = phase == Phase::Ready;
    if need_backend {
        let eligible = state.eligible();
        body["eligible"] = eligible.into();
        if ready && eligible == 0 {
            ready = false;
            body["status"] = "no_backend".into();
        }
    }
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, &body)
}

fn metrics(state: &State, format: &str) -> Answer {
    if format != "json" {
        return error(
            StatusCode::NOT_ACCEPTABLE,
            format!("format \"{format}\" is not known; allowed: json"),
        );
    }
    match metrics::json::render(&state.snapshot(), log::dropped()) {
        Ok(body) => with_type(StatusCode::OK, body),
        Err(cause) => error(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics could not be written: {cause}"),
        ),
    }
}

fn backends(state: &State) -> Answer {
    let list: Vec<Value> = state
        .info
        .backends
        .iter()
        .enumerate()
        .map(|(index, info)| {
            let now = (state.backend)(index);
            json!({
                "name": info.name,
                "url": info.url,
                "healthy": now.healthy,
                "eligible": now.eligible,
                "in_flight": now.in_flight,
            })
        })
        .collect();
    json(StatusCode::OK, &json!({ "backends": list }))
}

fn error(status: StatusCode, message: String) -> Answer {
    json(status, &json!({ "error": message }))
}

fn json(status: StatusCode, value: &Value) -> Answer {
    with_type(status, format!("{value}\n").into_bytes())
}

fn with_type(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

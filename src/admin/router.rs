//! Which path answers what.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::command::{Command, Refused};
use super::exchanges;
use super::exposition::{self, Form};
use super::log_level;
use super::page::{File, stream};
use super::profiling::Profile;
use super::view::BackendView;
use super::{Asked, DEFAULT_POOL, Phase, State, Surface, guard, hdr};
use crate::events;
use crate::metrics::text::Format;

/// What goes out: bytes that are there, or a stream of events.
pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A body that is there.
pub(super) fn whole(body: Full<Bytes>) -> UnsyncBoxBody<Bytes, Infallible> {
    body.boxed_unsync()
}

/// Bytes of a request's body.
const MAX_BODY_BYTES: usize = 4 * 1024;

/// The methods that change nothing.
const READ: &[Method] = &[Method::GET, Method::HEAD];

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Resource {
    Livez,
    Readyz,
    /// In this form, whatever is asked for.
    Metrics(Option<Form>),
    Profile(Profile),
    /// Histograms, in this form, whatever is asked for.
    Histograms(Option<hdr::Form>),
    /// A file of the page.
    File(File),
    /// What the page is fed with, as it comes.
    Stream,
    /// Events after a number.
    Events,
    /// Rows of the history.
    History,
    Exchanges,
    Explain,
    /// All backends, or those of one pool.
    Backends(Option<String>),
    Backend {
        pool: String,
        name: String,
    },
    /// What is logged, of all of weir or of one module.
    LogLevel(Option<String>),
    Change(Change),
}

/// What can be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Backend {
        pool: String,
        name: String,
        what: Aspect,
    },
    Reload,
}

/// The last part of a path below a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aspect {
    Drain,
    Ready,
    Maintenance,
    Weight,
    Override,
}

impl Resource {
    fn methods(&self) -> &'static [Method] {
        match self {
            Resource::Change(Change::Backend { what, .. }) => match what {
                Aspect::Drain | Aspect::Ready | Aspect::Maintenance => &[Method::POST],
                Aspect::Weight => &[Method::PUT],
                Aspect::Override => &[Method::DELETE],
            },
            Resource::Change(Change::Reload) => &[Method::POST],
            Resource::LogLevel(None) => &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE],
            Resource::LogLevel(Some(_)) => &[Method::DELETE],
            _ => READ,
        }
    }
}

/// The answer to one request. A body that is not read ends the connection after the answer.
pub(super) async fn answer(request: Request<Incoming>, surface: Surface, state: &Arc<State>) -> Answer {
    match admitted(request, surface, state).await {
        Ok(answer) => answer,
        Err(refused) => {
            let mut answer = error(refused.status, refused.message);
            if refused.status == StatusCode::UNAUTHORIZED {
                let challenge = HeaderValue::from_static("Bearer realm=\"weir\"");
                answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            answer
        }
    }
}

async fn admitted(
    request: Request<Incoming>,
    surface: Surface,
    state: &Arc<State>,
) -> Result<Answer, Refused> {
    let path = request.uri().path();
    if surface == Surface::Profiling {
        (state.guard)().check_host(&request)?;
    }
    if surface == Surface::Admin {
        let guard = (state.guard)();
        match File::at(path) {
            // They say nothing of this weir.
            Some(_) => guard.check_host(&request)?,
            None => guard.admit(&request)?,
        }
    }
    let Some(resource) = find(path, surface)? else {
        return Err(Refused::new(
            StatusCode::NOT_FOUND,
            format!("nothing is served at {path}"),
        ));
    };
    let methods = resource.methods();
    if !methods.contains(request.method()) {
        return Ok(not_allowed(path, request.method(), methods));
    }
    match resource {
        Resource::Livez => Ok(json(StatusCode::OK, &json!({ "status": "alive" }))),
        Resource::Readyz => Ok(readyz(state, parameter(&request, "backends") == Some("1"))),
        Resource::Metrics(form) => {
            let form = match (form, parameter(&request, "format")) {
                (Some(form), _) => form,
                (None, Some(word)) => Form::named(word)?,
                (None, None) => Form::negotiated(request.headers()),
            };
            exposition::answer(state, form)
        }
        Resource::Profile(profile) => {
            let given = |name: &str| {
                let is_there = parameter(&request, name).is_some();
                number(&request, name).map(|number| is_there.then_some(number))
            };
            profile.answer(state, given).await
        }
        Resource::Histograms(form) => hdr::answer(state, &request, form),
        Resource::File(file) => Ok(file.answer()),
        Resource::Stream => {
            let cursor = match stream::Cursor::of_header(request.headers()) {
                Some(cursor) => cursor,
                None => stream::Cursor {
                    run: number(&request, "run")?,
                    row: number(&request, "after")?,
                    event: number(&request, "event")?,
                },
            };
            stream::answer(state, cursor)
        }
        Resource::Events => {
            let events = events::after(number(&request, "after")?);
            Ok(json(StatusCode::OK, &json!({ "events": events })))
        }
        Resource::History => {
            let backend = parameter(&request, "backend").map(decoded).transpose()?;
            history(state, number(&request, "from")?, backend.as_deref())
        }
        Resource::Exchanges => {
            let decode = |name: &str| parameter(&request, name).map(decoded).transpose();
            let (backend, status, min) = (decode("backend")?, decode("status")?, decode("min")?);
            let filter = exchanges::Filter {
                backend: backend.as_deref(),
                status: status.as_deref(),
                min: min.as_deref(),
            };
            exchanges::answer(state, &filter).map(|value| json(StatusCode::OK, &value))
        }
        Resource::Explain => {
            let asked = Asked::read(request.uri().query().unwrap_or_default(), decoded)?;
            // In a large pool it may take a while, and this thread has others to answer.
            let state = state.clone();
            let told = tokio::task::spawn_blocking(move || (state.explain)(&asked)).await;
            let failed = |error: tokio::task::JoinError| {
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            };
            told.map_err(failed)?.map(|value| json(StatusCode::OK, &value))
        }
        Resource::Backends(pool) => backends(state, pool.as_deref()),
        Resource::Backend { pool, name } => {
            let view = backend(state, &pool, &name)?;
            Ok(json(StatusCode::OK, &json!(view)))
        }
        Resource::LogLevel(_) if READ.contains(request.method()) => {
            Ok(json(StatusCode::OK, &log_level::shown()))
        }
        Resource::LogLevel(module) => {
            guard::check_content_type(request.headers())?;
            let clears = request.method() == Method::DELETE;
            let body = body(request).await?;
            let change = if clears {
                log_level::clear(module.as_deref(), &body)?
            } else {
                log_level::set(&body)?
            };
            carry_out(state, Command::Levels(change)).await
        }
        Resource::Change(change) => {
            guard::check_content_type(request.headers())?;
            if let Change::Backend { pool, name, .. } = &change {
                backend(state, pool, name)?;
            }
            let body = body(request).await?;
            carry_out(state, command(change, &body)?).await
        }
    }
}

fn not_allowed(path: &str, method: &Method, methods: &[Method]) -> Answer {
    let join = |between: &str| {
        let words: Vec<&str> = methods.iter().map(Method::as_str).collect();
        words.join(between)
    };
    let message = format!("{path} takes {}, not {method}", join(" and "));
    let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, message);
    if let Ok(allow) = HeaderValue::try_from(join(", ")) {
        refused.headers_mut().insert(ALLOW, allow);
    }
    refused
}

/// What stands at `path`; an error where it cannot be read.
fn find(path: &str, surface: Surface) -> Result<Option<Resource>, Refused> {
    if surface == Surface::Metrics {
        return Ok(Some(Resource::Metrics(None)));
    }
    if surface == Surface::Profiling {
        return Ok(Profile::at(path).map(Resource::Profile));
    }
    let known = match path {
        "/livez" => Some(Resource::Livez),
        "/readyz" => Some(Resource::Readyz),
        "/metrics" => Some(Resource::Metrics(None)),
        "/metrics/prometheus" => Some(Resource::Metrics(Some(Form::Text(Format::Prometheus)))),
        "/metrics/hdr" => Some(Resource::Histograms(None)),
        "/metrics/hdr.hlog" => Some(Resource::Histograms(Some(hdr::Form::Log))),
        _ => None,
    };
    if known.is_some() || surface == Surface::Observe {
        return Ok(known);
    }
    if let Some(file) = File::at(path) {
        return Ok(Some(Resource::File(file)));
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    // Without a version and a pool: the only pool there is.
    let default = DEFAULT_POOL.to_owned();
    Ok(match *segments.as_slice() {
        ["stream"] => Some(Resource::Stream),
        ["events"] => Some(Resource::Events),
        ["history"] => Some(Resource::History),
        ["exchanges"] => Some(Resource::Exchanges),
        ["explain"] => Some(Resource::Explain),
        ["log-level"] => Some(Resource::LogLevel(None)),
        ["log-level", module] => Some(Resource::LogLevel(Some(decoded(module)?))),
        ["reload"] => Some(Resource::Change(Change::Reload)),
        ["backends"] => Some(Resource::Backends(None)),
        ["backends", name] => below(default, name, None)?,
        ["backends", name, what] => below(default, name, Some(what))?,
        ["v1", "pools", pool, "backends"] => Some(Resource::Backends(Some(decoded(pool)?))),
        ["v1", "pools", pool, "backends", name] => below(decoded(pool)?, name, None)?,
        ["v1", "pools", pool, "backends", name, what] => below(decoded(pool)?, name, Some(what))?,
        _ => None,
    })
}

fn below(pool: String, name: &str, what: Option<&str>) -> Result<Option<Resource>, Refused> {
    let name = decoded(name)?;
    let what = match what {
        None => return Ok(Some(Resource::Backend { pool, name })),
        Some("drain") => Aspect::Drain,
        Some("ready") => Aspect::Ready,
        Some("maintenance") => Aspect::Maintenance,
        Some("weight") => Aspect::Weight,
        Some("override") => Aspect::Override,
        Some(_) => return Ok(None),
    };
    Ok(Some(Resource::Change(Change::Backend { pool, name, what })))
}

/// A segment of a path without its percent-encoding (RFC 3986 §2.1): names hold colons, brackets and slashes.
pub(super) fn decoded(segment: &str) -> Result<String, Refused> {
    let refused = || {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!("{segment} is not percent-encoded UTF-8"),
        )
    };
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let (high, low) = (digit(rest.next()), digit(rest.next()));
            let value = high.zip(low).map(|(high, low)| high * 16 + low);
            value
                .and_then(|value| u8::try_from(value).ok())
                .ok_or_else(refused)?
        } else {
            byte
        });
    }
    String::from_utf8(bytes).map_err(|_| refused())
}

/// The first value of a query parameter, as it stands, undecoded.
pub(super) fn parameter<'a, B>(request: &'a Request<B>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find_map(|(key, value)| (key == name).then_some(value))
}

/// A query parameter that is a number; 0 where it is not there.
fn number<B>(request: &Request<B>, name: &str) -> Result<u64, Refused> {
    parameter(request, name).map_or(Ok(0), |text| {
        text.parse().map_err(|_| {
            Refused::new(
                StatusCode::BAD_REQUEST,
                format!("{name}={text} is not a whole number"),
            )
        })
    })
}

/// The members of the JSON object that a request carries; none without a body.
async fn body(request: Request<Incoming>) -> Result<Map<String, Value>, Refused> {
    let limited = Limited::new(request.into_body(), MAX_BODY_BYTES);
    let bytes = match limited.collect().await {
        Ok(body) => body.to_bytes(),
        Err(cause) if cause.is::<http_body_util::LengthLimitError>() => {
            return Err(Refused::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a body has {MAX_BODY_BYTES} bytes at most"),
            ));
        }
        Err(cause) => {
            return Err(Refused::new(
                StatusCode::BAD_REQUEST,
                format!("the body did not come: {cause}"),
            ));
        }
    };
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "the body is no JSON object",
        )),
        Err(cause) => Err(Refused::new(
            StatusCode::BAD_REQUEST,
            format!("the body is not JSON: {cause}"),
        )),
    }
}

/// What a change with this body asks for. Members that mean nothing are refused: they were meant to mean something.
fn command(change: Change, body: &Map<String, Value>) -> Result<Command, Refused> {
    let refused = |message: String| Refused::new(StatusCode::BAD_REQUEST, message);
    let takes: &[&str] = match &change {
        Change::Backend {
            what: Aspect::Weight, ..
        } => &["weight"],
        _ => &[],
    };
    if let Some(unknown) = body.keys().find(|key| !takes.contains(&key.as_str())) {
        return Err(refused(format!("{unknown:?} means nothing here")));
    }
    let Change::Backend { pool, name, what } = change else {
        return Ok(Command::Reload);
    };
    Ok(match what {
        Aspect::Drain => Command::Drain { pool, name },
        Aspect::Ready => Command::Ready { pool, name },
        Aspect::Maintenance => Command::Maintenance { pool, name },
        Aspect::Override => Command::ClearOverride { pool, name },
        Aspect::Weight => {
            let weight = body.get("weight").and_then(Value::as_u64);
            let Some(weight) = weight.and_then(|weight| u16::try_from(weight).ok()) else {
                return Err(refused(
                    "the body needs a weight from 0 to 65535: {\"weight\": 10}".to_owned(),
                ));
            };
            Command::Weight { pool, name, weight }
        }
    })
}

/// Hands a command to whoever carries it out, in a task of its own: a client that goes away does not leave it half done.
async fn carry_out(state: &State, command: Command) -> Result<Answer, Refused> {
    let (call, backend) = (command.word(), command.backend().unwrap_or("all").to_owned());
    let under_way = (state.command)(command);
    let told = tokio::spawn(async move {
        let result = under_way.await;
        match &result {
            Ok(_) => tracing::info!(call, backend, "admin call"),
            Err(refused) => {
                let status = refused.status.as_u16();
                tracing::warn!(call, backend, status, "admin call refused");
            }
        }
        result
    });
    let result = told.await.unwrap_or_else(|_| {
        Err(Refused::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the call came to a bad end; the log says more",
        ))
    });
    result.map(|value| json(StatusCode::OK, &value))
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

/// The rows from number `from` on, over all backends or of one.
fn history(state: &State, from: u64, backend: Option<&str>) -> Result<Answer, Refused> {
    let history = state.history();
    let rows: Vec<Value> = match backend {
        None => history.rows(from).map(|row| json!(row)).collect(),
        Some(name) => {
            let rows = history.backend_rows(name, from).ok_or_else(|| {
                let message = format!("there is no backend {name:?}, or it has no history yet");
                Refused::new(StatusCode::NOT_FOUND, message)
            })?;
            let numbered = rows.map(|(number, row)| {
                let mut value = json!(row);
                value["number"] = number.into();
                value
            });
            numbered.collect()
        }
    };
    Ok(json(StatusCode::OK, &json!({ "rows": rows })))
}

/// Every backend, or those of one pool, which must be there.
fn backends(state: &State, pool: Option<&str>) -> Result<Answer, Refused> {
    let mut views = (state.views)();
    if let Some(pool) = pool {
        views.retain(|view| view.pool == pool);
        if views.is_empty() {
            return Err(Refused::new(
                StatusCode::NOT_FOUND,
                format!("there is no pool {pool:?}"),
            ));
        }
    }
    Ok(json(StatusCode::OK, &json!({ "backends": views })))
}

fn backend(state: &State, pool: &str, name: &str) -> Result<BackendView, Refused> {
    let mut views = (state.views)().into_iter();
    let found = views.find(|view| view.pool == pool && view.name == name);
    found.ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            format!("there is no backend {name:?} in pool {pool:?}"),
        )
    })
}

fn error(status: StatusCode, message: String) -> Answer {
    json(status, &json!({ "error": message }))
}

fn json(status: StatusCode, value: &Value) -> Answer {
    with_type(status, format!("{value}\n").into_bytes())
}

fn with_type(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(whole(Full::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

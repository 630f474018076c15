//! The routes: what is asked for, and the answer to it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::TRAILER;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_VERSION,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Notify;

use super::body::Body;
use super::fate::{Fate, Outcome};
use super::json::{write_headers, write_number, write_string};
use super::meter::Meter;
use super::settings::Settings;
use super::tally::Tally;
use super::{After, Options, Stopping, websocket};

/// The longest body of `/bytes/N` and `/chunked/N`.
pub const BODY_LIMIT: u64 = 1 << 30;

/// The longest wait of `/delay/MS` and `/sse?interval=MS`, in milliseconds.
const WAIT_LIMIT: u64 = 3_600_000;

const X_BACKEND: HeaderName = HeaderName::from_static("x-backend");
const ENDPOINT_LOAD_METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Why a request gets no answer: it hung until the backend stopped, its body broke off, or a reset is its lot. Closes the
/// connection.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
pub(super) struct NoAnswer;

type Answer = Response<Body>;

/// What all connections of one backend share.
#[derive(Debug)]
pub(super) struct Backend {
    name: HeaderValue,
    /// The start of every JSON answer: an open object with name and port.
    prefix: Vec<u8>,
    /// Where load balancers ask for the load.
    probe_path: String,
    settings: Mutex<Settings>,
    /// What stalls are counted from.
    began: Instant,
    meter: Arc<Meter>,
    tally: Tally,
    /// The whole default answer, if its length is prescribed.
    fixed: Option<(HeaderValue, Bytes)>,
    /// Becomes true when exchanges in flight should come to their end.
    pub stopping: Stopping,
    /// Somebody posted `/_die` and has the answer.
    pub died: Notify,
}

impl Backend {
    pub fn new(options: &Options, port: u16, stopping: Stopping) -> io::Result<Backend> {
        let name = options.name.clone().unwrap_or_else(|| format!("backend-{port}"));
        let header = HeaderValue::from_str(&name).map_err(|_| {
            let message = format!("the backend name {name:?} holds a character that a header may not hold");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let mut prefix = b"{\"name\":".to_vec();
        write_string(&mut prefix, &name);
        prefix.extend_from_slice(format!(",\"port\":{port}").as_bytes());
        let fixed = options.body_bytes.map(|length| fixed_body(&prefix, length));
        Ok(Backend {
            name: header,
            prefix,
            probe_path: options.probe_path.clone(),
            settings: Mutex::new(Settings::new(options)),
            began: Instant::now(),
            meter: Arc::new(Meter::new()),
            tally: Tally::default(),
            fixed,
            stopping,
            died: Notify::new(),
        })
    }

    /// How it misbehaves now.
    pub fn settings(&self) -> Settings {
        *self.locked_settings()
    }

    fn locked_settings(&self) -> MutexGuard<'_, Settings> {
        // It is replaced whole.
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one request. `after` receives what the connection shall become afterwards, if not another exchange.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        fate: Fate,
        after: Arc<OnceLock<After>>,
    ) -> Result<Answer, NoAnswer> {
        if let Some(answer) = self.exempt(&request, &after).await {
            return Ok(answer);
        }
        self.tally.count(&request);
        let ticket = self.meter.enter();
        let answer = self.fated(request, fate, &after).await?;
        ticket.answered(answer.status().is_server_error());
        Ok(answer)
    }

    /// The routes that no misbehaviour touches, and that count as no load.
    async fn exempt(&self, request: &Request<Incoming>, after: &OnceLock<After>) -> Option<Answer> {
        let (method, uri) = (request.method(), request.uri());
        match uri.path() {
            "/health" | "/healthz" => Some(self.health().await),
            "/_die" => Some(self.die(method, after)),
            "/_set" => Some(self.set(method, uri.query().unwrap_or_default())),
            "/_count" => {
                let mut json = self.tally.json().to_string().into_bytes();
                json.push(b'\n');
                Some(self.response(StatusCode::OK, JSON, Body::Whole(json.into())))
            }
            path if path == self.probe_path => Some(self.load(uri.query())),
            _ => None,
        }
    }

    /// What becomes of a request that is subject to its fate.
    async fn fated(
        &self,
        mut request: Request<Incoming>,
        fate: Fate,
        after: &OnceLock<After>,
    ) -> Result<Answer, NoAnswer> {
        let stalled = self.settings().stall_left(self.began.elapsed());
        let wait = fate.delay.max(stalled);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        match fate.outcome {
            Outcome::Answer => {}
            Outcome::Fail => {
                // Else the connection would end with the answer.
                drain(request.body_mut()).await?;
                let sentence = "this backend was told to fail some requests (--error-rate)";
                return Ok(self.error(self.settings().error_status, sentence));
            }
            Outcome::Hang => {
                self.stopping.clone().stopped().await;
                return Err(NoAnswer);
            }
            Outcome::Abort => {
                drain(request.body_mut()).await?;
                let _ = after.set(After::Reset);
                return Err(NoAnswer);
            }
            Outcome::Reset => {
                let received = drain(request.body_mut()).await?;
                let _ = after.set(After::Reset);
                let answer = self.default_answer(self.settings().status, &request, received);
                return Ok(answer.map(|body| match body {
                    Body::Whole(whole) => Body::cut(&whole),
                    other => other,
                }));
            }
        }
        let path = request.uri().path();
        match path {
            "/echo" => return Ok(self.echo(request)),
            "/ws" => return Ok(self.websocket(&mut request, after)),
            _ => {}
        }
        self.routed(request).await
    }

    /// The routes that read a request's body whole: an answer that leaves it unread would cost the connection.
    async fn routed(&self, mut request: Request<Incoming>) -> Result<Answer, NoAnswer> {
        let received = drain(request.body_mut()).await?;
        let path = request.uri().path();
        let answered = match path {
            "/create-course" if request.method() == Method::POST => {
                Ok(self.default_answer(StatusCode::CREATED, &request, received))
            }
            "/create-course" => Ok(self.only_post("/create-course")),
            "/sse" => self.events(request.uri().query()),
            _ => match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
                Some(("bytes", length)) => self.pattern("/bytes/N", length, true),
                Some(("chunked", length)) => self.pattern("/chunked/N", length, false),
                Some(("status", status)) => number("/status/N", status, 200, 599).map(|status| {
                    let status = StatusCode::from_u16(status as u16).unwrap_or_default();
                    self.default_answer(status, &request, received)
                }),
                Some(("delay", delay)) => match number("/delay/MS", delay, 0, WAIT_LIMIT) {
                    Ok(delay) => {
                        tokio::time::sleep(Duration::from_millis(delay)).await;
                        Ok(self.default_answer(self.settings().status, &request, received))
                    }
                    Err(sentence) => Err(sentence),
                },
                _ => Ok(self.default_answer(self.settings().status, &request, received)),
            },
        };
        Ok(answered.unwrap_or_else(|sentence| self.error(StatusCode::BAD_REQUEST, &sentence)))
    }

    async fn health(&self) -> Answer {
        self.tally.count_health();
        let Settings {
            health_status,
            health_delay,
            ..
        } = self.settings();
        if !health_delay.is_zero() {
            tokio::time::sleep(health_delay).await;
        }
        let word = if health_status.is_success() {
            "ok"
        } else {
            "told to look ill"
        };
        self.sentence(health_status, "status", word)
    }

    /// The load, in the body and as an ORCA report in the head; `?orca=text` writes that as text.
    fn load(&self, query: Option<&str>) -> Answer {
        self.tally.count_probe();
        let load = self.meter.load();
        let mut json = self.prefix.clone();
        json.extend_from_slice(b",\"in_flight\":");
        write_number(&mut json, load.in_flight as u64);
        json.extend_from_slice(b",\"latency_us\":");
        write_number(&mut json, load.latency_us);
        json.extend_from_slice(b"}\n");
        let mut answer = self.response(StatusCode::OK, JSON, Body::Whole(json.into()));
        answer
            .headers_mut()
            .insert(ENDPOINT_LOAD_METRICS, load.orca(query == Some("orca=text")));
        answer
    }

    fn set(&self, method: &Method, query: &str) -> Answer {
        if method != Method::POST {
            return self.only_post("/_set");
        }
        let mut settings = self.locked_settings();
        match settings.changed(query) {
            Ok(changed) => {
                *settings = changed;
                let mut json = changed.json().to_string().into_bytes();
                json.push(b'\n');
                self.response(StatusCode::OK, JSON, Body::Whole(json.into()))
            }
            Err(sentence) => self.error(StatusCode::BAD_REQUEST, &sentence),
        }
    }

    /// Who answers and what was asked, or the body that was prescribed.
    fn default_answer(&self, status: StatusCode, request: &Request<Incoming>, received: u64) -> Answer {
        if let Some((content_type, body)) = &self.fixed {
            return self.response(status, content_type.clone(), Body::Whole(body.clone()));
        }
        let mut json = Vec::with_capacity(512);
        json.extend_from_slice(&self.prefix);
        json.extend_from_slice(b",\"method\":");
        write_string(&mut json, request.method().as_str());
        json.extend_from_slice(b",\"path\":");
        write_string(
            &mut json,
            request.uri().path_and_query().map_or("", |path| path.as_str()),
        );
        json.extend_from_slice(b",\"body_bytes\":");
        write_number(&mut json, received);
        json.extend_from_slice(b",\"headers\":");
        write_headers(&mut json, request.headers());
        json.extend_from_slice(b"}\n");
        self.response(status, JSON, Body::Whole(json.into()))
    }

    fn response(&self, status: StatusCode, content_type: HeaderValue, body: Body) -> Answer {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(X_BACKEND, self.name.clone());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }

    /// A JSON object with the backend's name and one more string.
    fn sentence(&self, status: StatusCode, key: &str, sentence: &str) -> Answer {
        let mut json = self.prefix.clone();
        json.extend_from_slice(format!(",\"{key}\":").as_bytes());
        write_string(&mut json, sentence);
        json.extend_from_slice(b"}\n");
        self.response(status, JSON, Body::Whole(json.into()))
    }

    fn error(&self, status: StatusCode, sentence: &str) -> Answer {
        self.sentence(status, "error", sentence)
    }

    fn only_post(&self, path: &str) -> Answer {
        let mut refusal = self.error(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} wants POST"));
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        refusal
    }

    fn die(&self, method: &Method, after: &OnceLock<After>) -> Answer {
        if method != Method::POST {
            return self.only_post("/_die");
        }
        // The first request decides; the connection ends behind it either way.
        let _ = after.set(After::Die);
        let mut last_words = self.sentence(StatusCode::OK, "status", "dying");
        last_words
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        last_words
    }

    fn echo(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let content_type = head.headers.get(CONTENT_TYPE).cloned().unwrap_or(OCTETS);
        let mut response = self.response(StatusCode::OK, content_type, Body::Echo(body));
        // Announced trailers are sent back behind the body.
        if let Some(trailer) = head.headers.get(TRAILER) {
            response.headers_mut().insert(TRAILER, trailer.clone());
        }
        response
    }

    fn websocket(&self, request: &mut Request<Incoming>, after: &OnceLock<After>) -> Answer {
        match websocket::accept(request.method(), request.headers()) {
            Ok(fields) => {
                let mut response = Response::new(Body::Whole(Bytes::new()));
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert(X_BACKEND, self.name.clone());
                response.headers_mut().extend(fields);
                // Only one request of a connection can be the one that upgrades it.
                let _ = after.set(After::WebSocket(hyper::upgrade::on(request)));
                response
            }
            Err((status, sentence)) => {
                let mut refusal = self.error(status, sentence);
                if status == StatusCode::UPGRADE_REQUIRED {
                    refusal
                        .headers_mut()
                        .insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                }
                refusal
            }
        }
    }

    fn pattern(&self, route: &str, length: &str, declared: bool) -> Result<Answer, String> {
        let left = number(route, length, 0, BODY_LIMIT)?;
        Ok(self.response(StatusCode::OK, OCTETS, Body::Pattern { left, declared }))
    }

    fn events(&self, query: Option<&str>) -> Result<Answer, String> {
        let (mut count, mut interval) = (None, 100);
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            match pair.split_once('=') {
                Some(("count", value)) => count = Some(number("/sse?count=N", value, 0, u64::MAX)?),
                Some(("interval", value)) => interval = number("/sse?interval=MS", value, 0, WAIT_LIMIT)?,
                _ => return Err(format!("/sse knows count=N and interval=MS, found {pair:?}")),
            }
        }
        let events = Body::events(count, Duration::from_millis(interval), self.stopping.clone());
        let mut response = self.response(StatusCode::OK, EVENTS, events);
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

/// A prescribed body: JSON with padding where it fits, else plain padding.
fn fixed_body(prefix: &[u8], length: usize) -> (HeaderValue, Bytes) {
    const MIDDLE: &[u8] = b",\"padding\":\"";
    const END: &[u8] = b"\"}\n";
    let Some(padding) = length.checked_sub(prefix.len() + MIDDLE.len() + END.len()) else {
        return (TEXT, vec![b'x'; length].into());
    };
    let mut body = Vec::with_capacity(length);
    body.extend_from_slice(prefix);
    body.extend_from_slice(MIDDLE);
    body.resize(body.len() + padding, b'x');
    body.extend_from_slice(END);
    (JSON, body.into())
}

/// Reads a request's body to its end; gives its length.
async fn drain(body: &mut Incoming) -> Result<u64, NoAnswer> {
    let mut received = 0;
    while !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(frame)) => received += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => return Err(NoAnswer),
            None => break,
        }
    }
    Ok(received)
}

/// A whole number in a path or query, or a sentence about what it should have been.
fn number(route: &str, text: &str, least: u64, most: u64) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "{route} wants a whole number from {least} to {most}, found {text:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prescribed_body_has_exactly_that_length() {
        for length in (0..200).chain([65_536]) {
            let (content_type, body) = fixed_body(b"{\"name\":\"a\",\"port\":8081", length);
            assert_eq!(body.len(), length);
            if content_type == JSON {
                serde_json::from_slice::<serde_json::Value>(&body).expect("JSON");
            }
        }
        assert_eq!(fixed_body(b"{\"name\":\"a\",\"port\":8081", 128).0, JSON);
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        assert_eq!(number("/n", "200", 200, 599), Ok(200));
        for bad in ["", "+5", "-1", "1e3", "600", "99999999999999999999"] {
            let sentence = number("/n", bad, 200, 599).expect_err(bad);
            assert!(sentence.contains("from 200 to 599"), "{sentence}");
        }
    }
}

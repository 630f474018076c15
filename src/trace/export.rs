//! Spans to a collector by OTLP/HTTP with protobuf, in batches, from the control thread.
//!
//! An exchange is a SERVER span; each of its attempts is a CLIENT span below it, whose id the backend gets as its parent; a
//! wait for a slot is an INTERNAL span. Names and attributes are those of OpenTelemetry's semantic conventions for HTTP;
//! what they do not know begins with `weir.`.
//!
//! A batch that the collector does not take within `tracing.timeout` is dropped and counted; one that it asks to have again
//! (429, 502, 503, 504) is sent once more, after `Retry-After` if that is short. Requests never wait for any of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use tokio::net::TcpStream;

use super::spans::{Attempt, Exchange, Spans};
use crate::config::model::{CollectorUrl, Tracing};
use crate::record::Outcome;

/// Exchanges in one batch.
const BATCH_MAX: usize = 512;
/// The longest `Retry-After` that is waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// How long the end of weir may wait for the last batch.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// How often a collector that takes nothing is spoken of.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

/// Why a batch was not taken.
#[derive(Debug)]
enum Failure {
    /// It may do so later.
    Busy(Option<Duration>, String),
    Other(String),
}

/// Sends what `spans` gets until `stop` completes, then what is left.
pub async fn run(spans: Arc<Spans>, settings: Tracing, stop: impl Future<Output = ()>) {
    let Some(collector) = settings.otlp.clone() else {
        return;
    };
    let resource = resource(&settings.service_name);
    let mut stop = std::pin::pin!(stop);
    let mut said: Option<std::time::Instant> = None;
    loop {
        let stopped = tokio::select! {
            () = &mut stop => true,
            () = tokio::time::sleep(settings.interval) => false,
        };
        loop {
            let batch = spans.take(BATCH_MAX);
            if batch.is_empty() {
                break;
            }
            let patience = if stopped { LAST_PATIENCE } else { settings.timeout };
            let count = batch.len();
            match send(&collector, encode(&resource, &batch), patience).await {
                Ok(()) => spans.sent(count),
                Err(why) => {
                    spans.lost(count);
                    if said.is_none_or(|at| at.elapsed() >= SAY_INTERVAL) {
                        said = Some(std::time::Instant::now());
                        let (collector, exchanges) = (&collector.authority, count);
                        tracing::warn!(
                            collector,
                            exchanges,
                            why,
                            "spans were dropped: the collector did not take them"
                        );
                    }
                    break;
                }
            }
        }
        if stopped {
            return;
        }
    }
}

async fn send(collector: &CollectorUrl, body: Bytes, patience: Duration) -> Result<(), String> {
    let once = || tokio::time::timeout(patience, post(collector, body.clone()));
    let late = |_| Failure::Other(format!("nothing came back within {} ms", patience.as_millis()));
    match once().await.map_err(late).and_then(|sent| sent) {
        Ok(()) => Ok(()),
        Err(Failure::Other(why)) => Err(why),
        Err(Failure::Busy(after, _)) => {
            let pause = after.unwrap_or(Duration::from_millis(100)).min(RETRY_AFTER_MAX);
            tokio::time::sleep(pause.min(patience)).await;
            match once().await.map_err(late).and_then(|sent| sent) {
                Ok(()) => Ok(()),
                Err(Failure::Busy(_, why) | Failure::Other(why)) => Err(why),
            }
        }
    }
}

async fn post(collector: &CollectorUrl, body: Bytes) -> Result<(), Failure> {
    let other = |error: &dyn std::fmt::Display| Failure::Other(error.to_string());
    let stream = TcpStream::connect(&collector.authority)
        .await
        .map_err(|error| other(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| other(&error))?;
    let driving = tokio::spawn(connection);
    let request = Request::post(&collector.path)
        .header(HOST, &collector.authority)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(body))
        .map_err(|error| other(&error))?;
    let answer = sender.send_request(request).await;
    driving.abort();
    let answer = answer.map_err(|error| other(&error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let why = format!("it answered {status}");
    let busy = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    if !busy.contains(&status) {
        return Err(Failure::Other(why));
    }
    let after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let after = after
        .and_then(|text| text.trim().parse().ok())
        .map(Duration::from_secs);
    Err(Failure::Busy(after, why))
}

fn resource(service: &str) -> Resource {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let instance = format!("{}-{}", host.trim(), std::process::id());
    Resource {
        attributes: vec![
            text("service.name", service),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", instance),
            text("host.name", host.trim()),
        ],
        ..Resource::default()
    }
}

fn encode(resource: &Resource, batch: &[Box<Exchange>]) -> Bytes {
    let spans = batch.iter().flat_map(|exchange| spans_of(exchange)).collect();
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "weir".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    Bytes::from(request.encode_to_vec())
}

/// The spans of one exchange, its own first.
fn spans_of(exchange: &Exchange) -> Vec<Span> {
    let (path, query) = exchange.target.split_once('?').unwrap_or((&exchange.target, ""));
    let mut attributes = vec![
        text("http.request.method", &*exchange.method),
        text("url.scheme", "http"),
        text("url.path", path),
        text("client.address", &*exchange.client),
        whole("http.response.status_code", exchange.status.into()),
        text("weir.termination", exchange.termination),
        whole("weir.attempts", exchange.attempts.len() as i64),
    ];
    if !query.is_empty() {
        attributes.push(text("url.query", query));
    }
    if let Some(reason) = exchange.reason {
        attributes.push(text("weir.reason", reason));
        attributes.push(text("error.type", reason));
    }
    if !exchange.request_id.is_empty() {
        attributes.push(text("weir.request_id", &*exchange.request_id));
    }
    let failed = exchange.status >= 500 || exchange.status == 0;
    let mut spans = vec![Span {
        trace_id: exchange.context.trace_id.to_vec(),
        span_id: exchange.context.span_id.to_vec(),
        parent_span_id: exchange.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: exchange.method.clone(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: exchange.began_unix_nanos,
        end_time_unix_nano: exchange.ended_unix_nanos,
        attributes,
        status: status(failed),
        ..Span::default()
    }];
    for attempt in &exchange.attempts {
        spans.extend(spans_of_attempt(exchange, attempt));
    }
    spans
}

fn spans_of_attempt(exchange: &Exchange, attempt: &Attempt) -> Vec<Span> {
    let mut attributes = vec![
        text("http.request.method", &*exchange.method),
        text("server.address", &*attempt.backend),
        text("weir.attempt", attempt.kind),
    ];
    let failed = match attempt.outcome {
        Outcome::Status(code) => {
            attributes.push(whole("http.response.status_code", code.into()));
            code >= 400
        }
        Outcome::Failed(reason) => {
            attributes.push(text("error.type", reason.word()));
            true
        }
        Outcome::Abandoned => {
            attributes.push(text("weir.outcome", "abandoned"));
            false
        }
    };
    for (name, span) in [
        ("weir.connect_us", attempt.connect),
        ("weir.first_byte_us", attempt.first_byte),
    ] {
        if let Some(span) = span {
            attributes.push(whole(name, span.as_micros() as i64));
        }
    }
    let span = |name: &str, kind: SpanKind| Span {
        trace_id: exchange.context.trace_id.to_vec(),
        parent_span_id: exchange.context.span_id.to_vec(),
        name: name.to_owned(),
        kind: kind.into(),
        ..Span::default()
    };
    let mut spans = vec![Span {
        span_id: attempt.span_id.to_vec(),
        start_time_unix_nano: attempt.began_unix_nanos,
        end_time_unix_nano: attempt.ended_unix_nanos,
        attributes,
        status: status(failed),
        ..span(&exchange.method, SpanKind::Client)
    }];
    if !attempt.queue.is_zero() {
        // No other span can have the complement of an id that was drawn by chance, but by the same chance.
        spans.push(Span {
            span_id: attempt.span_id.map(|byte| !byte).to_vec(),
            start_time_unix_nano: attempt.began_unix_nanos.saturating_sub(attempt.queue.as_nanos()),
            end_time_unix_nano: attempt.began_unix_nanos,
            ..span("queue", SpanKind::Internal)
        });
    }
    spans
}

fn status(failed: bool) -> Option<Status> {
    failed.then(|| Status {
        code: SpanStatus::Error.into(),
        ..Status::default()
    })
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn whole(key: &str, value: i64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

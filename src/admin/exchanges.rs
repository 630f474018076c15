//! `GET /exchanges`: those worth a look, newest first.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::State;
use super::command::Refused;
use crate::config::parse_duration;

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Filter<'a> {
    /// The name of a backend that was tried.
    pub(super) backend: Option<&'a str>,
    /// A status, or a class as `5xx`.
    pub(super) status: Option<&'a str>,
    /// A duration, as in the configuration.
    pub(super) min: Option<&'a str>,
}

pub(super) fn answer(state: &State, filter: &Filter<'_>) -> Result<Value, Refused> {
    let refused = |message: String| Refused::new(StatusCode::BAD_REQUEST, message);
    let least = match filter.min {
        Some(text) => {
            let span = parse_duration(text).map_err(|why| refused(format!("min={text} {why}")))?;
            span.as_micros() as u64
        }
        None => 0,
    };
    let (first, last) = match filter.status {
        None => (0, 999),
        Some(text) => range(text).ok_or_else(|| {
            refused(format!(
                "status={text} is neither a status, as 503, nor a class, as 5xx"
            ))
        })?,
    };
    let matches = |exchange: &Value| {
        let status = exchange["status"].as_u64().unwrap_or(0);
        let tried = |name: &str| {
            let tries = exchange["tries"].as_array();
            tries.is_some_and(|tries| tries.iter().any(|attempt| attempt["backend"] == name))
        };
        (first..=last).contains(&status)
            && exchange["total_us"].as_u64().unwrap_or(0) >= least
            && filter.backend.is_none_or(tried)
    };
    let kept = state.kept.as_ref().map(|kept| kept.list(matches));
    Ok(json!({ "exchanges": kept.unwrap_or_default() }))
}

fn range(text: &str) -> Option<(u64, u64)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u64 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let status = text.parse().ok()?;
    (status <= 999).then_some((status, status))
}

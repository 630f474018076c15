//! `GET /explain`, from the snapshot in force: what [`crate::balance`] says of a request that somebody describes, with what
//! is known of each backend beside it. The request is made of the same bytes, and read by the same code, as a real one.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::admin_state::Clocks;
use crate::admin::{Asked, Condition, Refused};
use crate::balance::explain::Figure;
use crate::balance::pool::{Ask, By, Explanation};
use crate::config::model::HashKey;
use crate::config::{hash_key_name, strategy_name};
use crate::http1::{BodyLength, RequestHead};
use crate::limits::{address, cookie};
use crate::log;
use crate::proxy::key;
use crate::reason::Reason;
use crate::snapshot::Snapshot;

/// What would be chosen for `asked` now.
///
/// # Errors
/// What is described is no request that weir would take.
pub fn explain(snapshot: &Snapshot, asked: &Asked) -> Result<Value, Refused> {
    let bytes = bytes(asked)?;
    let mut head = RequestHead::new();
    let taken = head.parse(&bytes, &snapshot.head_limits).map_err(|reject| {
        let (reason, detail) = (reject.reason.word(), reject.detail);
        refused(format!("weir would refuse that request: {detail} ({reason})"))
    })?;
    if taken != Some(bytes.len()) {
        return Err(refused("that is not one whole request".to_owned()));
    }
    let config = &snapshot.config;
    let pool = &snapshot.pool;
    if let (BodyLength::Length(length), Some(max)) = (head.body(), config.http.max_body_bytes)
        && length > max
    {
        let word = Reason::BodyTooLarge.word();
        return Err(refused(format!(
            "weir would refuse that request: http.max_body_bytes is {max} ({word})"
        )));
    }
    let internal = snapshot.internal_for(&head, &bytes, asked.client).is_some();
    let client = address::identify(&head, &bytes, asked.client, &config.server.trusted_proxies).client;
    let key = match &asked.key {
        Some(key) => key_of(&config.strategy.key, key)?,
        None => key::request_key(&config.strategy.key, &head, &bytes, client),
    }
    .filter(|_| pool.balance.settings().hashes());
    let sticky = snapshot.sticky.as_ref();
    let named = sticky.and_then(|sticky| sticky.find(cookie::lines(&head, &bytes)));
    let may_try = snapshot.retry.max_retries == 0 || snapshot.retry.is_repeatable(&head, &bytes);
    let clocks = Clocks::now();
    let ask = Ask {
        now: clocks.coarse,
        key,
        sticky: named,
        tried: &[],
        may_try,
    };
    let mut explanation = pool.balance.explain(&ask, config.limits.max_inflight);
    if internal {
        explanation
            .outlook
            .answered_by_weir("metrics.path: weir answers this request itself");
    }
    let name = |index: usize| pool.backends.get(index).map(|backend| backend.name.clone());
    let chosen = explanation.outlook.certain();
    let chances = explanation.outlook.chances();
    Ok(json!({
        "pool": pool.name,
        "strategy": strategy_name(config.strategy.kind),
        "request": {
            "method": asked.method,
            "path": asked.path,
            "client": client,
            "may_be_sent_again": may_try,
        },
        "key": pool.balance.settings().hashes().then(|| json!({
            "by": if asked.key.is_some() { "key".to_owned() } else { hash_key_name(&config.strategy.key) },
            "hash": key.map(hex),
        })),
        "sticky": sticky.map(|_| json!({
            "backend": named.and_then(name),
            "holds": named.is_some() && explanation.unstuck.is_none(),
            "why": explanation.unstuck.unwrap_or(match named {
                Some(_) => "it may go there",
                None => "the request has no cookie that names a backend",
            }),
        })),
        "eligible": pool.eligible(),
        "of": pool.backends.len(),
        "rule": explanation.rule,
        "panic": pool.balance.is_panicking(),
        "decided_by": if internal { "weir" } else { explanation.by.word() },
        "how": explanation.outlook.how,
        "chosen": chosen.and_then(name),
        "random": chosen.is_none() && chances.iter().any(|chance| *chance > 0.0),
        "waits": chances.iter().sum::<f64>() < 1e-9 && explanation.by != By::Nobody && !internal,
        "backends": rows(snapshot, &explanation, &clocks),
    }))
}

fn refused(message: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, message)
}

/// What a request is known by whose key, as `by` finds it, is `text`; none: it has none.
fn key_of(by: &HashKey, text: &str) -> Result<Option<u64>, Refused> {
    match by {
        HashKey::Ip => {
            let client = text.parse();
            let client = client
                .map_err(|_| refused(format!("key={text}: strategy.key is \"ip\", and that is none")))?;
            Ok(key::request_key(by, &RequestHead::new(), b"", Some(client)))
        }
        _ => Ok((!text.is_empty()).then(|| key::hash(text.as_bytes()))),
    }
}

fn hex(hash: u64) -> String {
    format!("{hash:#018x}")
}

/// The head as it would come.
fn bytes(asked: &Asked) -> Result<Vec<u8>, Refused> {
    let texts = asked.headers.iter().flat_map(|(name, value)| [name, value]);
    let mut texts = texts.chain([&asked.method, &asked.path]);
    if texts.any(|text| text.contains(['\r', '\n', '\0'])) {
        return Err(refused(
            "a line break or a NUL stands in no part of a head".to_owned(),
        ));
    }
    let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, asked.path);
    if !asked
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        head.push_str("Host: weir\r\n");
    }
    for (name, value) in &asked.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}

fn rows(snapshot: &Snapshot, explanation: &Explanation, clocks: &Clocks) -> Vec<Value> {
    let pool = &snapshot.pool;
    let configured = pool.backends.iter().zip(&snapshot.config.backends);
    let seats = explanation.outlook.seats.iter();
    configured
        .zip(seats)
        .enumerate()
        .map(|(index, ((backend, settings), seat))| {
            let standing = pool.balance.standing(index);
            let (since, why) = backend.history.last();
            let figures = seat.figures.iter();
            let sees: Map<String, Value> = figures
                .map(|&(name, figure)| {
                    let value = match figure {
                        Figure::Count(count) => json!(count),
                        Figure::Number(number) => json!((number * 1e6).round() / 1e6),
                        Figure::Hash(hash) => json!(hex(hash)),
                    };
                    (name.to_owned(), value)
                })
                .collect();
            json!({
                "name": backend.name,
                "url": backend.url,
                "state": Condition::of(&backend.shared, settings.weight),
                "since": log::timestamp(clocks.moment(since)),
                "why": why.phrase(),
                "eligible": standing.eligible,
                "standing": standing.words(),
                "until": standing.until.map(|until| log::timestamp(clocks.moment(until))),
                "weight": settings.weight,
                "priority": settings.priority,
                "backup": settings.backup,
                "in_flight": backend.in_flight() as u64,
                "ramp": pool.balance.ramp(index, clocks.coarse),
                "chance": seat.chance,
                "sees": sees,
                "because": if seat.why.is_empty() { standing.words() } else { seat.why.to_owned() },
            })
        })
        .collect()
}

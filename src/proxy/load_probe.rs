//! Asking backends for their load, for `prequal`: a GET of `strategy.probe_path` over the worker's own connections, in a
//! task of its own, so that no request waits for it. Not an attempt: it is neither counted in flight nor judged.
//!
//! A backend answers `{"in_flight": n, "latency_us": n}`, or with the ORCA header `endpoint-load-metrics`
//! (`xds.data.orca.v3.OrcaLoadReport`), as JSON or TEXT, with `in_flight` and `latency_us` among its `named_metrics`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::balance::pool::Ask;
use crate::buffer;
use crate::clock;
use crate::http1::Method;
use crate::http1::response::{RequestFacts, ResponseHead};
use crate::proxy::body::BodyFollower;
use crate::proxy::context::Context;
use crate::snapshot::View;
use crate::upstream::backend::Backend;
use crate::upstream::pool::Connection;

/// How long each step of a probe may take. An answer older than `prequal` uses would help nobody.
const PATIENCE: Duration = Duration::from_secs(1);

/// Longer answers are not read to their end.
const BODY_MAX: usize = 4096;

const ORCA: &[u8] = b"endpoint-load-metrics";

/// What a backend says of itself.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
struct Load {
    in_flight: u32,
    latency_us: f32,
}

/// What of an ORCA report matters here.
#[derive(Deserialize)]
struct Orca {
    named_metrics: OrcaMetrics,
}

#[derive(Deserialize)]
struct OrcaMetrics {
    /// ORCA's named metrics are doubles.
    in_flight: f32,
    latency_us: f32,
}

/// Starts the probes that one more request makes due.
pub fn send_due(worker: &Rc<Context>, view: &Rc<View>, ask: &Ask<'_>) {
    let due = view.pool.balance.probes_due(ask, &mut worker.local.borrow_mut());
    for &index in due.iter() {
        let index = usize::from(index);
        let (worker, view) = (worker.clone(), view.clone());
        monoio::spawn(async move {
            let load = match view.pool.backends.get(index) {
                Some(backend) => probe(&worker, &view, backend).await,
                None => None,
            };
            // After a reload positions mean other backends.
            if Rc::ptr_eq(&worker.view(), &view) {
                let probes = &mut worker.local.borrow_mut().probes;
                match load {
                    Some(load) => probes.add(index, load.in_flight, load.latency_us, clock::now()),
                    None => probes.failed(index),
                }
            }
        });
    }
}

/// One probe; none if it came to nothing.
async fn probe(worker: &Context, view: &View, backend: &Arc<Backend>) -> Option<Load> {
    let path = view.config.strategy.probe_path.as_deref()?;
    let _admission = buffer::admit()?;
    let connection = match worker.upstream.take_idle(backend, false, clock::now()) {
        Some(connection) => connection,
        None => {
            let settings = &view.config.upstream;
            worker.upstream.connect(backend, settings, PATIENCE).await.ok()?
        }
    };
    let mut request = buffer::small();
    for part in [
        "GET ",
        path,
        " HTTP/1.1\r\nHost: ",
        &backend.authority,
        "\r\n\r\n",
    ] {
        if request.append(part.as_bytes()) < part.len() {
            return None;
        }
    }
    if !connection.write_all(&mut request, PATIENCE).await.is_ok() {
        return None;
    }
    drop(request);
    read_answer(worker, view, connection).await
}

async fn read_answer(worker: &Context, view: &View, connection: Connection) -> Option<Load> {
    let facts = RequestFacts {
        method: Method::Get,
        upgrade: false,
    };
    let mut head = ResponseHead::new();
    let mut buffer = buffer::small();
    let head_len = loop {
        if !buffer.is_empty()
            && let Some(head_len) = head.parse(buffer.filled(), &view.head_limits, facts).ok()?
        {
            break head_len;
        }
        if buffer.spare() == 0 || connection.read_within(&mut buffer, PATIENCE).await.ok()? == 0 {
            return None;
        }
    };
    let mut load = head.field(buffer.filled(), ORCA).and_then(orca);
    let mut follower = BodyFollower::new(head.body(), true);
    buffer.consume_front(head_len);
    let mut body = [0; BODY_MAX];
    let mut len = 0;
    let clean = loop {
        let step = follower.follow(buffer.filled_mut()).ok()?;
        let part = buffer.filled().get(..step.forward)?;
        body.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
        if follower.is_done() {
            break step.consumed == buffer.len();
        }
        buffer.clear();
        if connection.read_within(&mut buffer, PATIENCE).await.ok()? == 0 {
            break false;
        }
    };
    if head.status() == 200 {
        load = load.or_else(|| serde_json::from_slice(body.get(..len)?).ok());
    }
    if clean && head.wants_keep_alive() {
        worker.upstream.keep(connection, false, clock::now());
    }
    load.filter(|load| load.latency_us.is_finite() && load.latency_us >= 0.0)
}

/// The load in an ORCA header's value.
fn orca(value: &[u8]) -> Option<Load> {
    let value = value.trim_ascii();
    if let Some(json) = value.strip_prefix(b"JSON ") {
        let metrics = serde_json::from_slice::<Orca>(json).ok()?.named_metrics;
        return Some(Load {
            in_flight: metrics.in_flight as u32,
            latency_us: metrics.latency_us,
        });
    }
    let text = std::str::from_utf8(value.strip_prefix(b"TEXT ")?).ok()?;
    let metric = |name: &str| {
        let pairs = text.split(',').filter_map(|pair| pair.trim().split_once('='));
        pairs
            .filter_map(|(key, value)| Some((key.trim().strip_prefix("named_metrics.")?, value)))
            .find(|(key, _)| *key == name)
            .and_then(|(_, value)| value.trim().parse::<f32>().ok())
    };
    Some(Load {
        in_flight: metric("in_flight")? as u32,
        latency_us: metric("latency_us")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_read_from_an_orca_header_of_either_form() {
        let expected = Some(Load {
            in_flight: 3,
            latency_us: 250.5,
        });
        let text = b"TEXT rps_fractional=10, named_metrics.in_flight=3, named_metrics.latency_us=250.5";
        assert_eq!(orca(text), expected);
        let json = br#"JSON {"eps": 1, "named_metrics": {"in_flight": 3, "latency_us": 250.5}}"#;
        assert_eq!(orca(json), expected);
        for nonsense in [
            &b""[..],
            b"BIN aaaa",
            b"TEXT named_metrics.in_flight=x",
            b"JSON {}",
            b"TEXT \xff",
        ] {
            assert_eq!(orca(nonsense), None);
        }
    }
}

//! What the backend was asked, so that a test can see what was sent twice, and to whom nothing is sent any more.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderName;
use hyper::{Method, Request};
use serde_json::{Value, json};

/// Names a request for [`Tally`].
pub(super) const X_REQUEST: HeaderName = HeaderName::from_static("x-request");

/// Different names that are counted one by one; further ones are counted together.
const NAMES: usize = 200_000;

/// Counts of one backend.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    by_method: BTreeMap<String, u64>,
    /// By `x-request`, POST only.
    posts: BTreeMap<String, u64>,
    unlisted_posts: u64,
    last: Option<Instant>,
    health: u64,
    probes: u64,
}

impl Tally {
    /// Counts a request whose head has arrived, whatever becomes of it then.
    pub fn count<B>(&self, request: &Request<B>) {
        let mut counts = self.counts();
        counts.requests += 1;
        counts.last = Some(Instant::now());
        if let Some(count) = counts.by_method.get_mut(request.method().as_str()) {
            *count += 1;
        } else if counts.by_method.len() < NAMES {
            counts.by_method.insert(request.method().as_str().to_owned(), 1);
        }
        if request.method() != Method::POST {
            return;
        }
        let Some(name) = request.headers().get(X_REQUEST) else {
            return;
        };
        let name = String::from_utf8_lossy(name.as_bytes());
        if let Some(count) = counts.posts.get_mut(name.as_ref()) {
            *count += 1;
        } else if counts.posts.len() < NAMES {
            counts.posts.insert(name.into_owned(), 1);
        } else {
            counts.unlisted_posts += 1;
        }
    }

    pub fn count_health(&self) {
        self.counts().health += 1;
    }

    pub fn count_probe(&self) {
        self.counts().probes += 1;
    }

    /// As `/_count` answers.
    pub fn json(&self) -> Value {
        let counts = self.counts();
        let micros = |age: Duration| u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        json!({
            "requests": counts.requests,
            "by_method": counts.by_method,
            "posts": counts.posts,
            "unlisted_posts": counts.unlisted_posts,
            "last_request_us_ago": counts.last.map(|last| micros(last.elapsed())),
            "health": counts.health,
            "probes": counts.probes,
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posts_are_counted_by_name() {
        let tally = Tally::default();
        for (method, name) in [("POST", "a"), ("POST", "b"), ("POST", "a"), ("GET", "a")] {
            let request = Request::builder().method(method).header(X_REQUEST, name).body(());
            tally.count(&request.expect("a request"));
        }
        tally.count_health();
        let mut json = tally.json();
        assert!(json["last_request_us_ago"].take().is_u64());
        let expected = json!({
            "requests": 4,
            "by_method": { "GET": 1, "POST": 3 },
            "posts": { "a": 2, "b": 1 },
            "unlisted_posts": 0,
            "last_request_us_ago": null,
            "health": 1,
            "probes": 0,
        });
        assert_eq!(json, expected);
    }
}

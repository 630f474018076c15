//! Tables of what strangers send, and properties over arbitrary bytes.

mod chunked;
mod properties;
mod request;
mod response;
mod rewrite;
mod target;

use super::{Limits, Method, RequestFacts, RequestHead, ResponseHead};
use crate::reason::Reason;

const LIMITS: Limits = Limits {
    max_head_bytes: 32 * 1024,
    max_headers: 128,
};

const GET: RequestFacts = RequestFacts {
    method: Method::Get,
    upgrade: false,
};

/// The head of a request that is whole and accepted.
fn request(bytes: &[u8]) -> RequestHead {
    let mut head = RequestHead::new();
    match head.parse(bytes, &LIMITS) {
        Ok(Some(length)) => assert_eq!(length, head.head_len()),
        other => panic!("{:?} for {:?}", other, String::from_utf8_lossy(bytes)),
    }
    head
}

/// Why a request is refused; none if it is accepted or not whole.
fn refusal(bytes: &[u8]) -> Option<Reason> {
    RequestHead::new()
        .parse(bytes, &LIMITS)
        .err()
        .map(|reject| reject.reason)
}

/// Asserts that a request is refused for that reason.
#[track_caller]
fn refused(bytes: &[u8], reason: Reason) {
    assert_eq!(
        refusal(bytes),
        Some(reason),
        "{:?}",
        String::from_utf8_lossy(bytes)
    );
}

/// The head of a response that is whole and accepted.
fn response(bytes: &[u8], facts: RequestFacts) -> ResponseHead {
    let mut head = ResponseHead::new();
    match head.parse(bytes, &LIMITS, facts) {
        Ok(Some(length)) => assert_eq!(length, head.head_len()),
        other => panic!("{:?} for {:?}", other, String::from_utf8_lossy(bytes)),
    }
    head
}

fn response_refused(bytes: &[u8], facts: RequestFacts) -> bool {
    match ResponseHead::new().parse(bytes, &LIMITS, facts) {
        Ok(_) => false,
        Err(reject) => {
            assert_eq!(reject.reason, Reason::BadResponse);
            true
        }
    }
}

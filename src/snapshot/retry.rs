//! Whether a failed attempt may be followed by another one: `[retry]`, made for looking up.
//!
//! What was never sent may always be sent elsewhere. What a backend may have seen is sent again only by methods that may
//! be repeated (RFC 9110 §9.2.2), only while all of the request is still here, and only within the budget.

use std::time::Duration;

use crate::balance::outcome::{FailureSet, Outcome};
use crate::config::model::Retry;
use crate::http1::{BodyLength, Method, RequestHead};

/// The rules of one snapshot.
#[derive(Clone, Debug, Default)]
pub struct RetryRules {
    /// Attempts after the first.
    pub max_retries: u32,
    /// One bit for each known method.
    methods: u32,
    /// Methods that weir has no name for.
    others: Vec<String>,
    on: FailureSet,
    /// Bytes of a body on its way that are kept to be sent again.
    pub buffer: usize,
    pub per_try_timeout: Option<Duration>,
}

impl RetryRules {
    pub fn new(retry: &Retry) -> Self {
        let mut rules = RetryRules {
            max_retries: retry.max_retries,
            on: FailureSet::new(&retry.on),
            buffer: retry.buffer,
            per_try_timeout: retry.per_try_timeout,
            ..RetryRules::default()
        };
        for name in &retry.methods {
            match Method::from_bytes(name.as_bytes()) {
                Method::Other => rules.others.push(name.clone()),
                method => rules.methods |= 1 << method as u32,
            }
        }
        rules
    }

    /// Whether a request of this method may be sent again although a backend may have seen it.
    #[inline]
    pub fn may_repeat(&self, method: Method, name: &[u8]) -> bool {
        match method {
            Method::Other => self.others.iter().any(|other| other.as_bytes() == name),
            method => self.methods >> method as u32 & 1 == 1,
        }
    }

    /// Whether a request may be sent again although a backend may have seen it: by its method, and by what is kept of its
    /// body.
    #[inline]
    pub fn is_repeatable(&self, head: &RequestHead, bytes: &[u8]) -> bool {
        if let BodyLength::Length(length) = head.body()
            && usize::try_from(length).map_or(true, |length| length > self.buffer)
        {
            return false;
        }
        self.may_repeat(head.method(), head.method_bytes(bytes))
    }

    /// Whether an attempt that ended so is followed by another one.
    #[inline]
    pub fn covers(&self, outcome: Outcome) -> bool {
        outcome == Outcome::Stale || self.on.contains(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Failure;

    #[test]
    fn methods_and_failures_are_those_of_the_configuration() {
        let mut rules = RetryRules::new(&Retry::default());
        assert!(rules.may_repeat(Method::Get, b"GET") && rules.may_repeat(Method::Delete, b"DELETE"));
        assert!(!rules.may_repeat(Method::Post, b"POST") && !rules.may_repeat(Method::Other, b"BREW"));
        assert!(rules.covers(Outcome::Status(503)) && !rules.covers(Outcome::Status(500)));
        assert!(rules.covers(Outcome::Stale));
        rules = RetryRules::new(&Retry {
            methods: vec!["BREW".to_owned(), "POST".to_owned()],
            on: vec![Failure::Class(5)],
            ..Retry::default()
        });
        assert!(rules.may_repeat(Method::Other, b"BREW") && rules.may_repeat(Method::Post, b"POST"));
        assert!(!rules.may_repeat(Method::Other, b"BREWED") && !rules.may_repeat(Method::Get, b"GET"));
        assert!(rules.covers(Outcome::Status(500)) && !rules.covers(Outcome::Reset));
    }
}

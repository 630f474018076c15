//! The circuit breaker of one backend: CLOSED, OPEN, HALF-OPEN, over all workers.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::clock::Millis;

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

/// `[circuit_breaker]`, and of an ejection the same in its own figures.
#[derive(Clone, Debug)]
pub struct Settings {
    pub failure_threshold: u32,
    pub reset_timeout: Duration,
    pub half_open_requests: u32,
    pub success_threshold: u32,
    /// Per cent of failures within `window` that opens it too.
    pub error_rate: Option<u8>,
    pub window: Duration,
    pub min_volume: u32,
}

/// The right to one attempt; goes back by [`Breaker::settle`] or [`Breaker::give_back`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// The breaker was closed (or not asked): nothing to give back.
    Free,
    /// One of the trials of a half-open breaker.
    Trial { generation: u32 },
}

/// What an attempt's end did to a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    /// It is due to open: the caller decides, by [`Breaker::open`] or [`Breaker::hold`].
    WantsToOpen,
    /// HALF-OPEN to CLOSED.
    Closed,
    /// HALF-OPEN to OPEN: a trial failed.
    Reopened,
}

/// State and generation in one word, shared by all workers.
#[derive(Debug, Default)]
pub struct Breaker {
    word: AtomicU64,
}

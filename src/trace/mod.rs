//! Knowing a request again: its id, and its place in a distributed trace.
//!
//! `proxy` asks [`context`] and [`request_id`] what goes to the backend, and hands sampled exchanges to [`spans`]; the control
//! thread sends them to a collector ([`export`]).

pub mod context;
pub mod export;
pub mod request_id;
pub mod spans;

pub use context::{Sampler, TraceContext};

/// An exchange's place in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Its own span.
    pub context: TraceContext,
    /// The caller's span; none: the trace begins here.
    pub parent: Option<[u8; 8]>,
}

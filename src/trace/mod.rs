//! Knowing a request again: its id, and its place in a distributed trace.
//!
//! `proxy` asks [`context`] and [`request_id`] what goes to the backend.

pub mod context;
pub mod request_id;

pub use context::TraceContext;

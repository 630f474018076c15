//! Tests of what `tests/loom.rs` includes by path: they run on std's atomics and so are not in those files.

mod breaker;
mod ejection;
mod explain;
mod precedence;
mod strategies;

//! The atomics of what `tests/loom.rs` builds a second time, on loom's instead of these.

pub use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

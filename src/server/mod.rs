//! Threads, listeners and runtimes: what carries the proxy.

pub mod driver;
pub mod lifecycle;
pub mod listener;
pub mod wake;
pub mod worker;

//! Threads, listeners and runtimes: what carries the proxy.

pub mod driver;
pub mod event;
pub mod lifecycle;
pub mod listener;
pub mod tables;
pub mod wake;
pub mod worker;

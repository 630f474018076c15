//! The backend side: who the backends are, and each worker's connections to them.

pub mod backend;
pub mod connect;
pub mod gauges;
pub mod history;
pub mod pool;
pub mod probes;

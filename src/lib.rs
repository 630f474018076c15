//! weir: an HTTP load balancer for Linux; see `docs/architecture.md` for how the parts meet.
//!
//! The library exists for the binary, the tests, the benches and the fuzz targets of this repository; it makes no
//! promise to other crates.

pub mod access_log;
pub mod admin;
pub mod backend;
pub mod balance;
pub mod buffer;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod event;
pub mod events;
pub mod exchanges;
pub mod experiment;
pub mod hdr;
pub mod health;
pub mod http1;
pub mod limits;
pub mod load;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod profile;
pub mod proxy;
pub mod reason;
pub mod record;
pub mod server;
pub mod simulate;
pub mod snapshot;
pub mod sys;
pub mod top;
pub mod trace;
pub mod transport;
pub mod upstream;
pub mod wire;

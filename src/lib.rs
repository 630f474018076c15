//! weir: an HTTP load balancer for Linux; see `docs/architecture.md` for how the parts meet.
//!
//! The library exists for the binary, the tests, the benches and the fuzz targets of this repository; it makes no
//! promise to other crates.

pub mod config;
pub mod http1;
pub mod reason;

//! What weir counts, and how it is read.
//!
//! Each worker owns one [`shard::Shard`] and is the only one that stores to it; the control thread reads all shards when
//! somebody asks ([`snapshot`]) and renders what it found ([`json`]). Nothing here locks, and a scrape never makes a
//! worker wait: a worker that records while it is read costs the reader at most one sample that it sees next time.

pub mod cell;
pub mod delta;
pub mod distribution;
pub mod exemplar;
pub mod families;
pub mod hdr;
pub mod histogram;
pub mod history;
pub mod hlog;
pub mod json;
pub mod process;
pub mod protobuf;
pub mod shard;
pub mod snapshot;
pub mod status;
pub mod text;

pub use distribution::Distribution;
pub use shard::{BackendCounts, Phases, Series, Shard, Tally};
pub use snapshot::{BackendInfo, BackendState, Dropped, Info, Snapshot};

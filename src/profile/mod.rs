//! What weir does with its time and memory, while it runs: CPU and heap profiles for `go tool pprof`, threads and rings.
//!
//! Served on an address of its own (`[profiling]`) by the control thread, through `admin`; taken from the process as it is.
//! Nothing here costs a request anything while nobody asks, except that allocations are counted when `heap_sample` is set
//! ([`heap`]).

pub mod cpu;
pub mod heap;
mod pprof_file;
pub mod rings;
pub mod threads;

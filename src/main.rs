//! The `weir` binary.

use std::process::ExitCode;

use weir::profile::heap::Sampled;

#[global_allocator]
static ALLOCATOR: Sampled<mimalloc::MiMalloc> = Sampled(mimalloc::MiMalloc);

fn main() -> ExitCode {
    weir::cli::main()
}

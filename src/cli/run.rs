//! `weir run`: the load balancer.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{RunArgs, exit};

pub fn main(args: RunArgs) -> ExitCode {
    let _ = args.sources;
    serve("", args.ready_file)
}

/// Serves a configuration that is not in a file, for `weir demo`.
pub fn serve(_configuration: &str, _ready_file: Option<PathBuf>) -> ExitCode {
    exit::because(exit::BAD_CONFIGURATION, "this build has no load balancer")
}

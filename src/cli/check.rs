//! `weir check`: the effective configuration, or what is wrong with it.

use std::process::ExitCode;

use super::{CheckArgs, exit};

pub fn main(args: CheckArgs) -> ExitCode {
    let _ = (args.sources, args.dns);
    exit::because(exit::BAD_CONFIGURATION, "this build reads no configuration")
}

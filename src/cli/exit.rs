//! Exit codes, and how a command says why it ends.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

/// Everything was answered.
pub const ANSWERED: u8 = 0;
/// Something was cut at the timeout or by a second signal; for `weir health`: not ready.
pub const CUT: u8 = 1;
/// Bad configuration or usage. clap uses the same for usage.
pub const BAD_CONFIGURATION: u8 = 2;
/// An address cannot be bound.
pub const CANNOT_BIND: u8 = 3;

/// Says on standard error why the process ends, and gives its exit code.
pub fn because(code: u8, reason: impl Display) -> ExitCode {
    eprintln!("weir: {reason}");
    ExitCode::from(code)
}

/// Why `address` cannot be listened on; `flags` is what changes it, as written on the command line.
pub fn cannot_bind(address: SocketAddr, error: &io::Error, flags: &str) -> ExitCode {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => format!("port {} is taken", address.port()),
        io::ErrorKind::PermissionDenied => format!("this user may not use port {}", address.port()),
        io::ErrorKind::AddrNotAvailable => format!("{} is no address of this machine", address.ip()),
        _ => error.to_string(),
    };
    because(
        CANNOT_BIND,
        format_args!("cannot listen on {address}: {reason}; choose another with {flags}"),
    )
}

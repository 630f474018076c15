//! `weir check`: the effective configuration, or what is wrong with it.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{CheckArgs, exit, run};
use crate::control;
use crate::upstream::backend::Address;

pub fn main(args: CheckArgs) -> ExitCode {
    let loaded = match run::load(&args.sources) {
        Ok(loaded) => loaded,
        Err(errors) => return run::refuse(&errors),
    };
    let mut text = loaded.render_effective();
    let complaint = match args.dns.then(|| look_up(&loaded.config.backends)) {
        Some(Ok(found)) => {
            text.push_str(&found);
            None
        }
        Some(Err(complaint)) => Some(complaint),
        None => None,
    };
    for notice in &loaded.notices {
        eprintln!("weir: note: {notice}");
    }
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return exit::because(exit::BAD_CONFIGURATION, format_args!("cannot print: {error}"));
        }
        _ => {}
    }
    match complaint {
        Some(complaint) => exit::because(exit::BAD_CONFIGURATION, complaint),
        None => ExitCode::from(exit::ANSWERED),
    }
}

/// The addresses of every backend, a comment line each.
fn look_up(backends: &[crate::config::model::Backend]) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot look up names: {error}"))?;
    let found = runtime
        .block_on(control::resolve_all(backends))
        .map_err(|errors| {
            errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        })?;
    let lines = backends.iter().zip(found).map(|(backend, addresses)| {
        let addresses: Vec<_> = addresses.iter().map(Address::to_string).collect();
        format!("# {} is at {}\n", backend.name, addresses.join(", "))
    });
    Ok(lines.collect())
}

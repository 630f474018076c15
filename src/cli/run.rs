//! `weir run`: the load balancer.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{ConfigArgs, RunArgs, exit};
use crate::config::{self, Errors, Loaded, Sources};
use crate::control;

/// Columns of an error report where the terminal's own width is not known.
const REPORT_WIDTH: usize = 110;

pub fn main(args: RunArgs) -> ExitCode {
    match load(&args.sources) {
        Ok(loaded) => {
            let source = loaded.file.as_ref().map(|file| file.display().to_string());
            let sources = args.sources;
            let reread = move || match load(&sources) {
                Ok(loaded) => Ok((loaded.config, loaded.notices)),
                Err(errors) => Err(config::render(&errors, false, REPORT_WIDTH)),
            };
            serve_loaded(loaded, args.ready_file, source, Some(Box::new(reread)))
        }
        Err(errors) => refuse(&errors),
    }
}

/// Serves a configuration that is not in a file, for `weir demo`; the environment does not concern it.
pub fn serve(configuration: &str, ready_file: Option<PathBuf>) -> ExitCode {
    match config::load_str("the demo's configuration", configuration, &[], &[]) {
        Ok(loaded) => serve_loaded(loaded, ready_file, Some("weir demo".to_owned()), None),
        Err(errors) => refuse(&errors),
    }
}

fn serve_loaded(
    loaded: Loaded,
    ready_file: Option<PathBuf>,
    source: Option<String>,
    reread: Option<control::Reread>,
) -> ExitCode {
    let options = control::Options {
        ready_file,
        notices: loaded.notices,
        source,
        reread,
    };
    control::serve(loaded.config, options)
}

/// Reads everything that the command line and the environment point to.
pub(super) fn load(args: &ConfigArgs) -> Result<Loaded, Errors> {
    let sets = args
        .set
        .iter()
        .map(|set| format!("{}={}", set.key, set.value))
        .collect();
    config::load(&Sources::of_process(args.config.clone(), sets))
}

/// Prints everything that is wrong.
pub(super) fn refuse(errors: &Errors) -> ExitCode {
    eprint!(
        "{}",
        config::render(errors, io::stderr().is_terminal(), REPORT_WIDTH)
    );
    ExitCode::from(exit::BAD_CONFIGURATION)
}

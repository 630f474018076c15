//! `weir completions` and `weir man`, made from the definitions of the command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, exit};

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir completions bash > /etc/bash_completion.d/weir
  weir completions fish > ~/.config/fish/completions/weir.fish")]
pub struct CompletionsArgs {
    /// The shell to print it for
    shell: Shell,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  weir man | man -l -
  weir man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write weir.1, weir-run.1 and so on into this directory, which must exist
    directory: Option<PathBuf>,
}

pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "weir", &mut script);
    print(&script)
}

pub fn man(args: &ManArgs) -> ExitCode {
    if let Some(directory) = &args.directory {
        return match clap_mangen::generate_to(Cli::command(), directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let reason = format!("cannot write man pages to {}: {error}", directory.display());
                exit::because(exit::BAD_CONFIGURATION, reason)
            }
        };
    }
    let mut page = Vec::new();
    match Man::new(Cli::command()).render(&mut page) {
        Ok(()) => print(&page),
        Err(error) => exit::because(exit::BAD_CONFIGURATION, error),
    }
}

/// Prints a page; a reader that has seen enough is no error.
fn print(page: &[u8]) -> ExitCode {
    match io::stdout().write_all(page) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            exit::because(exit::BAD_CONFIGURATION, format_args!("cannot print: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

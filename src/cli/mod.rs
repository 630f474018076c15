//! The command line: what `weir` can be told, and where it goes.
//!
//! The definitions here are the only ones: help, completions and man pages are made from them. Each command has a file
//! with its `main`, which gives the exit code.

mod admin;
mod backend;
mod check;
mod demo;
pub(crate) mod exit;
mod experiment;
mod explain;
mod hdr;
mod health;
mod load;
mod pages;
pub(crate) mod ready_file;
mod run;
mod simulate;
mod top;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand};

pub use demo::demo_config;

const AFTER_HELP: &str = "\
Examples:
  weir demo                               see it work: three backends and the load balancer
  weir check --config weir.toml           the effective configuration and where each value came from
  weir run --config weir.toml             the load balancer
  weir run --set server.address=:8000     one value changed
  weir explain --path /cart               where would that go now, and why?
  weir health                             is the weir on this machine ready?
  weir load http://127.0.0.1:8080/ -R 500 measured at 500 requests a second
  weir simulate --scenario kill-one       strategies compared in virtual time

Exit codes:
  0  everything was answered
  1  something was cut at the timeout or by a second signal (`weir health`: not ready)
  2  bad configuration or usage
  3  cannot bind";

/// An HTTP load balancer
///
/// weir spreads HTTP/1 requests over backends, with one io_uring runtime per core.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version = VERSION.as_str(),
    after_help = AFTER_HELP,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the load balancer
    ///
    /// It logs at start what it is and what it uses, one line per fact. SIGTERM or SIGINT ends it: what is in flight is
    /// answered first, for at most `shutdown.timeout`; a second signal ends it at once.
    Run(RunArgs),
    /// Print the effective configuration, or what is wrong with it
    ///
    /// Each value comes with its origin: default, file and line, environment, or flag.
    Check(CheckArgs),
    /// Try weir: some backends and the load balancer in one process
    ///
    /// Everything listens on 127.0.0.1. Ctrl-C ends it.
    Demo(demo::DemoArgs),
    /// Run one demo and test backend
    ///
    /// It answers JSON with its name and what it saw, secrets redacted, and the header x-backend.
    Backend(backend::BackendArgs),
    /// Try something with real processes: what clients see when a backend dies or slows down
    Experiment(experiment::ExperimentArgs),
    /// Say what a running weir would choose for a request now, and why
    ///
    /// Nothing is sent, and nothing changes.
    Explain(explain::ExplainArgs),
    /// Ask a running weir whether it is ready: exit code 0 if so, else 1
    ///
    /// Made for container health checks.
    Health(health::HealthArgs),
    /// Ask a server, as fast as it answers or at a rate, and measure
    ///
    /// With a rate (-R) answers are measured from when their requests were due, so that a stall of the server is not hidden.
    Load(Box<load::LoadArgs>),
    /// Merge exported histograms: exact percentiles over many instances
    Hdr(hdr::HdrArgs),
    /// Compare strategies in virtual time
    ///
    /// The code that chooses backends in `weir run`, with the configuration's breaker, retries and health checks, in a world
    /// that a scenario describes: arrivals, service times, and what goes wrong. Without --config it runs on weir's defaults
    /// and as many backends as the scenario says.
    Simulate(simulate::SimulateArgs),
    /// Watch a running weir in a terminal
    ///
    /// Requests, errors and latency over time, every backend with what it is and why, and the workers; backends can be
    /// drained and put back by a key.
    Top(top::TopArgs),
    /// Print a completion script for a shell
    Completions(pages::CompletionsArgs),
    /// Print the man page, or write those of all commands to a directory
    Man(pages::ManArgs),
}

/// Where the configuration comes from, apart from defaults and environment.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// Configuration file [default: config/weir.toml, then /etc/weir/weir.toml]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set one key, over file and environment; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = values::parse_setting)]
    pub set: Vec<Setting>,
}

/// One `--set section.key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `section.key`; not checked against the known ones here.
    pub key: String,
    /// As written; may be empty.
    pub value: String,
}

#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    #[command(flatten)]
    pub sources: ConfigArgs,

    /// Write pid and actual addresses there as JSON once weir serves
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

#[derive(Args, Clone, Debug, Default)]
pub struct CheckArgs {
    #[command(flatten)]
    pub sources: ConfigArgs,

    /// Look up the backends' names too
    #[arg(long)]
    pub dns: bool,
}

/// `0.0.1 (linux x86_64)`, with the commit if the build was told it, and a word if it is not optimised.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut facts = vec![format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)];
    facts.extend(option_env!("WEIR_COMMIT").map(|commit| format!("commit {commit}")));
    facts.extend(cfg!(debug_assertions).then(|| "debug build".to_owned()));
    format!("{} ({})", env!("CARGO_PKG_VERSION"), facts.join(", "))
});

/// Does what the process's arguments say. Help, version and usage errors end the process here.
pub fn main() -> ExitCode {
    dispatch(Cli::parse())
}

/// Runs one command to its end.
pub fn dispatch(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Run(args) => run::main(args),
        Command::Check(args) => check::main(args),
        Command::Demo(args) => demo::main(args),
        Command::Backend(args) => backend::main(args),
        Command::Experiment(args) => experiment::main(args),
        Command::Explain(args) => explain::main(args),
        Command::Hdr(args) => hdr::main(args),
        Command::Health(args) => health::main(args),
        Command::Load(args) => load::main(*args),
        Command::Simulate(args) => simulate::main(args),
        Command::Top(args) => top::main(args),
        Command::Completions(args) => pages::completions(&args),
        Command::Man(args) => pages::man(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_are_split_at_the_first_equals_sign() {
        let cli = Cli::try_parse_from(["weir", "run", "--set", "a.b=c=d", "--set=server.address=:1"]);
        let Ok(Cli {
            command: Command::Run(args),
        }) = cli
        else {
            panic!("{cli:?}");
        };
        let setting = |key: &str, value: &str| Setting {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        assert_eq!(
            args.sources.set,
            [setting("a.b", "c=d"), setting("server.address", ":1")]
        );
    }
}

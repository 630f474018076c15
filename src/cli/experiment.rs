//! `weir experiment`: real processes, a load, and trouble; what came of it as Markdown and JSON.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::{exit, values};
use crate::experiment::{Called, CircuitBreaker, Error, Report, Stop, Strategies};

const AFTER_HELP: &str = "\
It starts backends and load balancers of its own on free ports of 127.0.0.1 and ends them, at Ctrl-C too.

Examples:
  weir experiment circuit-breaker --requests 60 --kill-after 25
  weir experiment strategies --strategy p2c --strategy least-response --out p2c.md --json p2c.json";

#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct ExperimentArgs {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Clone, Debug, Subcommand)]
enum Experiment {
    /// Kill a backend under load, or let it fail: with and without the circuit breaker and retries
    CircuitBreaker(CircuitBreakerArgs),
    /// Make one backend slow, kill one, restart one: under each strategy
    Strategies(StrategiesArgs),
}

#[derive(Args, Clone, Debug)]
struct CircuitBreakerArgs {
    /// Requests in each run
    #[arg(long, value_name = "N", default_value = "60", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    requests: u32,

    /// Requests after which that happens
    #[arg(long, value_name = "N", default_value = "25")]
    kill_after: u32,

    /// Clients, each with one request at a time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,

    /// What a client waits for between an answer and its next request
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = values::parse_duration)]
    pause: Duration,

    /// Where the Markdown goes
    #[arg(
        long,
        value_name = "FILE",
        default_value = "scripts/circuit_breaker_results.md"
    )]
    out: PathBuf,

    /// Where the JSON goes
    #[arg(
        long,
        value_name = "FILE",
        default_value = "scripts/circuit_breaker_results.json"
    )]
    json: PathBuf,
}

#[derive(Args, Clone, Debug)]
struct StrategiesArgs {
    /// Only this one; may be repeated
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Strategies::NAMES))]
    strategy: Vec<String>,

    /// Each of the five phases
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = values::parse_duration)]
    phase: Duration,

    /// Clients, each with one request at a time
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,

    /// What a backend takes for a request
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = values::parse_duration)]
    delay: Duration,

    /// What the slow one takes
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = values::parse_duration)]
    slow: Duration,

    /// Where the Markdown goes
    #[arg(long, value_name = "FILE", default_value = "scripts/strategies_results.md")]
    out: PathBuf,

    /// Where the JSON goes
    #[arg(long, value_name = "FILE", default_value = "scripts/strategies_results.json")]
    json: PathBuf,
}

pub fn main(args: ExperimentArgs) -> ExitCode {
    let stop = match stop_at_signals() {
        Ok(stop) => stop,
        Err(error) => return exit::because(exit::BAD_CONFIGURATION, format_args!("cannot start: {error}")),
    };
    let (out, json) = match &args.experiment {
        Experiment::CircuitBreaker(args) => (&args.out, &args.json),
        Experiment::Strategies(args) => (&args.out, &args.json),
    };
    if let Experiment::CircuitBreaker(args) = &args.experiment
        && args.kill_after >= args.requests
    {
        let reason = "--kill-after has to be less than --requests: nothing would be seen otherwise";
        return exit::because(exit::BAD_CONFIGURATION, reason);
    }
    // Known before minutes are spent.
    for (path, flag) in [(out, "--out"), (json, "--json")] {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
        {
            let reason = format!(
                "there is no directory {}; choose another with {flag}",
                folder.display()
            );
            return exit::because(exit::BAD_CONFIGURATION, reason);
        }
    }
    let report = match &args.experiment {
        Experiment::CircuitBreaker(args) => circuit_breaker(args).run(&stop),
        Experiment::Strategies(args) => strategies(args).run(&stop),
    };
    match report.and_then(|report| write(&report, out, json).map(|()| report)) {
        Ok(report) => {
            let (out, json) = (out.display(), json.display());
            // Nobody has to read it.
            let _ = writeln!(io::stdout(), "{}\nWritten to {out} and {json}.", report.text);
            ExitCode::from(exit::ANSWERED)
        }
        Err(error @ Error::Stopped) => exit::because(exit::CUT, error),
        Err(error) => exit::because(exit::BAD_CONFIGURATION, error),
    }
}

fn circuit_breaker(args: &CircuitBreakerArgs) -> CircuitBreaker {
    CircuitBreaker {
        requests: args.requests as usize,
        kill_after: args.kill_after as usize,
        concurrency: usize::from(args.concurrency),
        pause: args.pause,
        called: called(),
    }
}

fn strategies(args: &StrategiesArgs) -> Strategies {
    Strategies {
        only: args.strategy.clone(),
        phase: args.phase,
        concurrency: usize::from(args.concurrency),
        delay: args.delay,
        slow: args.slow,
        called: called(),
    }
}

/// How this process was called, without the way to its program.
fn called() -> Called {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Called {
        command: format!("weir {}", arguments.join(" ")),
        version: super::VERSION.clone(),
    }
}

fn write(report: &Report, out: &Path, json: &Path) -> Result<(), Error> {
    let written = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| Error::Io {
            what: format!("cannot write {}", path.display()),
            error,
        })
    };
    written(out, &report.text)?;
    written(json, &format!("{:#}\n", report.json))
}

/// SIGINT and SIGTERM ask for an early end, which comes within the seconds that anything here may take.
fn stop_at_signals() -> io::Result<Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _entered = runtime.enter();
        super::backend::Signals::new()?
    };
    let stop = Stop::default();
    let asked = stop.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(signals.next());
            asked.stop();
        })?;
    Ok(stop)
}

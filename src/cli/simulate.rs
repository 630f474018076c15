//! `weir simulate`: strategies against each other in virtual time.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;

use super::{ConfigArgs, exit, run};
use crate::config::model::Config;
use crate::config::{self, Loaded};
use crate::simulate::arrivals::{self, Logged};
use crate::simulate::engine::{self, Plan};
use crate::simulate::report::{Report, Row};
use crate::simulate::scenario::{self, ArrivalType, Scenario};
use crate::simulate::{Contender, picture};

const AFTER_HELP: &str = "\
Examples:
  weir simulate                                      every strategy where nothing goes wrong
  weir simulate --scenario kill-one                  a scenario that weir brings along
  weir simulate --print-scenario kill-one > mine.toml    its text, to change it
  weir simulate --config weir.toml --scenario mine.toml --svg mine.svg
  weir simulate --scenario antagonist --strategies p2c,prequal --seed 7 --json
  weir simulate --scenario herd --set strategy.slow_start=5s

Scenarios: steady, unequal, hot-keys, slow-one, kill-one, fast-fail, burst, herd, antagonist

Exit codes:
  0  it ran
  2  bad configuration, scenario or usage, or a file that cannot be written";

#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct SimulateArgs {
    #[command(flatten)]
    sources: ConfigArgs,

    /// The world to run in: a scenario's name, or a TOML file
    #[arg(long, value_name = "NAME|FILE", default_value = "steady")]
    scenario: String,

    /// Print the text of a scenario that weir brings along, and run nothing
    #[arg(long, value_name = "NAME", exclusive = true)]
    print_scenario: Option<String>,

    /// Which strategies to compare [default: all]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_parser = parse_contender)]
    strategies: Vec<Contender>,

    /// What chance depends on: the same seed gives the same figures
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Draw what was found
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Say how many requests a second were simulated, too
    #[arg(long)]
    time: bool,
}

fn parse_contender(name: &str) -> Result<Contender, String> {
    Contender::by_name(name.trim()).ok_or_else(|| {
        let known: Vec<_> = Contender::all().map(Contender::name).collect();
        format!("the strategies are {}", known.join(", "))
    })
}

pub fn main(args: SimulateArgs) -> ExitCode {
    let done = match &args.print_scenario {
        Some(name) => print_scenario(name),
        None => simulate(&args),
    };
    match done {
        Ok(()) => ExitCode::from(exit::ANSWERED),
        Err(code) => code,
    }
}

fn bad(reason: impl std::fmt::Display) -> ExitCode {
    exit::because(exit::BAD_CONFIGURATION, reason)
}

/// Prints; a reader that has seen enough is no error.
fn print(text: &str) -> Result<(), ExitCode> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(bad(format_args!("cannot print: {error}")))
        }
        _ => Ok(()),
    }
}

fn names() -> String {
    let names: Vec<_> = scenario::PRESETS.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

fn print_scenario(name: &str) -> Result<(), ExitCode> {
    match scenario::preset(name) {
        Some(text) => print(text),
        None => Err(bad(format_args!(
            "no scenario is called {name}; there are {}",
            names()
        ))),
    }
}

/// A scenario, its name, and its text with the name that errors give it.
struct Read {
    scenario: Scenario,
    name: String,
    text: String,
    file: String,
}

fn read_scenario(asked: &str) -> Result<Read, ExitCode> {
    if let Some(text) = scenario::preset(asked) {
        return Ok(Read {
            scenario: scenario::parse(asked, text).map_err(bad)?,
            name: asked.to_owned(),
            text: text.to_owned(),
            file: asked.to_owned(),
        });
    }
    let path = Path::new(asked);
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => bad(format_args!(
            "{asked} is neither a file nor one of the scenarios {}",
            names()
        )),
        _ => bad(format_args!("{asked}: cannot be read: {error}")),
    })?;
    let mut scenario = scenario::parse(asked, &text).map_err(bad)?;
    scenario.beside(path);
    let name = path
        .file_stem()
        .map_or(asked.into(), |stem| stem.to_string_lossy());
    Ok(Read {
        scenario,
        name: name.into_owned(),
        text,
        file: asked.to_owned(),
    })
}

/// The configuration; without a file, weir's defaults and the backends that the scenario wants.
fn read_configuration(sources: &ConfigArgs, scenario: &Scenario) -> Result<Config, ExitCode> {
    let loaded = if sources.config.is_some() {
        run::load(sources)
    } else {
        let sets: Vec<String> = sources
            .set
            .iter()
            .map(|set| format!("{}={}", set.key, set.value))
            .collect();
        config::load_str(
            "the scenario's backends",
            &scenario.as_configuration(),
            &[],
            &sets,
        )
    };
    loaded
        .map(|Loaded { config, .. }| config)
        .map_err(|errors| run::refuse(&errors))
}

fn simulate(args: &SimulateArgs) -> Result<(), ExitCode> {
    let Read {
        scenario,
        name,
        text,
        file,
    } = read_scenario(&args.scenario)?;
    let config = read_configuration(&args.sources, &scenario)?;
    let count = config.backends.len();
    scenario::check_positions(&scenario, &file, &text, count).map_err(bad)?;
    let plan = Plan {
        scenario: &scenario,
        config: &config,
        log: read_log(&scenario)?,
        seed: args.seed,
    };
    let contenders = match args.strategies.as_slice() {
        [] => Contender::all().collect(),
        some => some.to_vec(),
    };
    let run = |contender: Contender| {
        let start = Instant::now();
        let tally = engine::run(&plan, contender);
        Row {
            contender,
            tally,
            wall: start.elapsed(),
        }
    };
    let report = Report {
        name: &name,
        scenario: &scenario,
        seed: args.seed,
        backends: config
            .backends
            .iter()
            .map(|backend| backend.name.clone())
            .collect(),
        named: (0..count).map(|at| engine::is_named(&scenario, at)).collect(),
        capacity: engine::capacity(&scenario, count),
        rows: contenders.into_iter().map(run).collect(),
    };
    if let Some(path) = &args.svg {
        let picture = picture::draw(&report).map_err(|error| bad(format_args!("cannot draw: {error}")))?;
        fs::write(path, picture)
            .map_err(|error| bad(format_args!("cannot write {}: {error}", path.display())))?;
    }
    if args.json {
        print(&format!("{:#}\n", report.json(args.time)))
    } else {
        print(&report.table(args.time))
    }
}

fn read_log(scenario: &Scenario) -> Result<Option<Arc<[Logged]>>, ExitCode> {
    let arrivals = scenario.arrivals.as_ref();
    let file = match (arrivals.r#type, &arrivals.file) {
        (ArrivalType::Log, Some(file)) => file,
        _ => return Ok(None),
    };
    let speed = arrivals.speed.map_or(1.0, |speed| speed.0);
    let logged = arrivals::read_log(file, speed).map_err(bad)?;
    Ok(Some(logged.into()))
}

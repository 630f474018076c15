//! `weir load`: the command line of the load tester.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{exit, values};
use crate::http1::Method;
use crate::load::check::{Expectation, check};
use crate::load::report::{Output, live, table};
use crate::load::{self, BackendFrom, End, Plan, RequestParts, Target};

const AFTER_HELP: &str = "\
Examples:
  weir load http://127.0.0.1:8080/ -c 64 -d 10s
  weir load http://127.0.0.1:8080/ -R 5000 -d 30s --html report.html     at a rate: stalls are not hidden
  weir load http://127.0.0.1:8080/ -n 1000 --csv rows.csv --json summary.json
  weir load check --csv rows.csv --expected 1000 --max-p99 50ms --balance-tolerance 5%

Exit codes:
  0  every request was answered, with the expected status if one is expected
  1  some were not, or none was sent (`weir load check`: something is wrong)
  2  bad usage, or a file that cannot be written";

#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct LoadArgs {
    #[command(subcommand)]
    command: Option<LoadCommand>,
    #[command(flatten)]
    run: Run,
}

#[derive(Clone, Debug, Subcommand)]
enum LoadCommand {
    /// Judge a file that --csv wrote
    Check(Check),
}

#[derive(Args, Clone, Debug)]
struct Run {
    /// What to ask: http://host:port/path or unix:/path; several are asked in turn
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,

    /// Connections over all workers
    #[arg(long, short, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,

    /// Worker threads
    #[arg(long, short = 't', value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,

    /// How long to ask [default: 10s]
    #[arg(long, short, value_name = "DURATION", value_parser = parse_time, conflicts_with = "requests")]
    duration: Option<Duration>,

    /// How many requests to send, exactly, instead
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// Requests a second over all connections, whatever the server does (open loop)
    #[arg(long, short = 'R', value_name = "RATE", value_parser = parse_rate)]
    rate: Option<f64>,

    /// What to ask with; a server that closed a kept connection is asked again only if the method is idempotent
    #[arg(long, value_name = "METHOD", default_value = "GET", value_parser = parse_method)]
    method: String,

    /// A header line; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<String>,

    /// The request's body
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file")]
    body: Option<String>,

    /// The same from a file
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,

    /// Keep connections open between requests; that is the default
    #[arg(long, conflicts_with = "no_keepalive")]
    keepalive: bool,

    /// A connection for each request
    #[arg(long)]
    no_keepalive: bool,

    /// HTTP version of the requests
    #[arg(long, value_name = "VERSION", default_value = "1.1", value_parser = ["1.0", "1.1"])]
    http_version: String,

    /// How long an answer may take, connecting included
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_time)]
    timeout: Duration,

    /// Count an answer with another status as an error: 200, 2xx or 200-399
    #[arg(long, value_name = "STATUS", value_parser = parse_expect)]
    expect_status: Option<(u16, u16)>,

    /// Where an answer names its backend: header:NAME or json:MEMBER [default: x-backend, then server]
    #[arg(long, value_name = "WHERE", value_parser = parse_backend_from)]
    backend_from: Option<BackendFrom>,

    /// A row for each request: id,start_ns,latency_ns,status,backend,bytes,error
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// The summary
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// An HdrHistogram log, a line a second, in nanoseconds
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,

    /// A page with figures and pictures
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Pin the workers to these cores
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    cores: Vec<usize>,

    /// Print nothing while it runs
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Args, Clone, Debug)]
struct Check {
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,

    /// Requests that there have to be
    #[arg(long, value_name = "N")]
    expected: u64,

    /// Which share may have failed: 0.01 or 1%
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share)]
    max_error_rate: f64,

    #[arg(long, value_name = "DURATION", value_parser = values::parse_duration)]
    max_p99: Option<Duration>,

    /// How far a backend may be from an even share: 0.05 or 5%
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    balance_tolerance: Option<f64>,

    /// Who has to have answered
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    backends: Vec<String>,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    match values::parse_duration(text)? {
        Duration::ZERO => Err("it must be more than nothing".to_owned()),
        time => Ok(time),
    }
}

fn parse_method(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err("methods are written in capitals, as GET and POST are".to_owned());
    }
    if text == "CONNECT" {
        return Err("CONNECT asks for a tunnel and not for an answer".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a number is needed".to_owned())?;
    if (0.001..=1e8).contains(&rate) {
        Ok(rate)
    } else {
        Err("it must be from 0.001 to 100000000".to_owned())
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let (number, divisor) = match text.strip_suffix('%') {
        Some(number) => (number.trim(), 100.0),
        None => (text, 1.0),
    };
    let share: f64 = number
        .parse()
        .map_err(|_| "a number or a percentage is needed".to_owned())?;
    let share = share / divisor;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err("it must be from 0 to 1, or from 0% to 100%".to_owned())
    }
}

fn parse_header(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once(':').ok_or("NAME: VALUE is needed")?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("{name:?} is no header name"));
    }
    if value
        .chars()
        .any(|character| character.is_control() && character != '\t')
    {
        return Err("the value holds a control character".to_owned());
    }
    Ok(format!("{name}: {}", value.trim()))
}

fn parse_expect(text: &str) -> Result<(u16, u16), String> {
    let allowed = || "a status (200), a class (2xx) or a range (200-399) is needed".to_owned();
    let status = |text: &str| {
        let status: Option<u16> = text.parse().ok();
        status
            .filter(|status| (100..=999).contains(status))
            .ok_or_else(allowed)
    };
    if let Some(class) = text.strip_suffix("xx") {
        let first = status(&format!("{class}00"))?;
        return Ok((first, first + 99));
    }
    match text.split_once('-') {
        Some((first, last)) => {
            let range = (status(first)?, status(last)?);
            if range.0 <= range.1 {
                Ok(range)
            } else {
                Err(allowed())
            }
        }
        None => status(text).map(|status| (status, status)),
    }
}

fn parse_backend_from(text: &str) -> Result<BackendFrom, String> {
    match text.split_once(':') {
        Some(("header", name)) if !name.is_empty() => Ok(BackendFrom::Header(name.to_ascii_lowercase())),
        Some(("json", member)) if !member.is_empty() => Ok(BackendFrom::Json(member.to_owned())),
        _ => Err("header:NAME or json:MEMBER is needed".to_owned()),
    }
}

pub fn main(args: LoadArgs) -> ExitCode {
    let result = match args.command {
        Some(LoadCommand::Check(args)) => judge(args),
        None => run(args.run),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => exit::because(exit::BAD_CONFIGURATION, error),
    }
}

/// Whether nothing is wrong.
fn judge(args: Check) -> Result<bool, String> {
    let named = |error: io::Error| format!("{} cannot be read: {error}", args.csv.display());
    let file = File::open(&args.csv).map_err(named)?;
    let expectation = Expectation {
        requests: args.expected,
        max_error_rate: args.max_error_rate,
        max_p99: args.max_p99,
        balance_tolerance: args.balance_tolerance,
        backends: args.backends,
    };
    let wrong = check(BufReader::new(file), &expectation).map_err(named)?;
    let mut out = io::stdout().lock();
    for finding in &wrong {
        let _ = writeln!(out, "{finding}");
    }
    if wrong.is_empty() {
        let _ = writeln!(out, "{} requests, nothing wrong", args.expected);
    }
    Ok(wrong.is_empty())
}

fn plan(args: &Run) -> Result<Plan, String> {
    let body = match (&args.body, &args.body_file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) => {
            std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?
        }
        (None, None) => Vec::new(),
    };
    let parts = RequestParts {
        method: args.method.clone(),
        http10: args.http_version == "1.0",
        keep_alive: !args.no_keepalive,
        headers: args.headers.clone(),
        body,
    };
    let targets: Result<Vec<Target>, _> = args.urls.iter().map(|url| Target::new(url, &parts)).collect();
    Ok(Plan {
        targets: targets.map_err(|error| error.to_string())?,
        connections: args.connections as usize,
        workers: usize::from(args.workers).min(args.connections as usize),
        end: match (args.requests, args.duration) {
            (Some(requests), _) => End::Requests(requests),
            (None, duration) => End::After(duration.unwrap_or(Duration::from_secs(10))),
        },
        rate: args.rate,
        keep_alive: !args.no_keepalive,
        method: Method::from_bytes(args.method.as_bytes()),
        timeout: args.timeout,
        expect: args.expect_status,
        backend_from: args.backend_from.clone().unwrap_or(BackendFrom::Usual),
        cores: args.cores.clone(),
    })
}

/// Whether all went well.
fn run(args: Run) -> Result<bool, String> {
    let plan = plan(&args)?;
    let output = Output {
        csv: args.csv,
        json: args.json,
        hlog: args.hdr,
        html: args.html,
    };
    let files = output.open(&plan)?;
    let _ = crate::sys::raise_open_files();
    let stop = stop_at_signals().map_err(|error| format!("cannot start: {error}"))?;
    let shown = !args.quiet && io::stderr().is_terminal();
    let outcome = load::run(&plan, files.rows(), &stop, |interval, total| {
        if shown {
            let share = match plan.end {
                End::After(time) => (interval.at + interval.length).as_secs_f64() / time.as_secs_f64(),
                End::Requests(max) => total.requests() as f64 / max.max(1) as f64,
            };
            let _ = write!(io::stderr(), "\r\x1b[K{}", live(&interval, total, share.min(1.0)));
        }
        files.take(interval);
    });
    let outcome = outcome.map_err(|error| format!("the load cannot be made: {error}"))?;
    if shown {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    files.end(&plan, &outcome)?;
    let _ = io::stdout().write_all(table(&plan, &outcome).as_bytes());
    Ok(outcome.total.failures() == 0 && outcome.total.requests() > 0)
}

/// SIGINT and SIGTERM end the run, and what was measured so far is reported.
fn stop_at_signals() -> io::Result<Arc<AtomicBool>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _entered = runtime.enter();
        super::backend::Signals::new()?
    };
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    std::thread::Builder::new()
        .name("weir-load-stop".to_owned())
        .spawn(move || {
            runtime.block_on(signals.next());
            asked.store(true, Ordering::Relaxed);
        })?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_people_write_them() {
        assert_eq!(parse_expect("2xx"), Ok((200, 299)));
        assert_eq!(parse_expect("200-399"), Ok((200, 399)));
        assert_eq!(parse_expect("404"), Ok((404, 404)));
        for bad in ["xx", "2x", "399-200", "99", "1000", ""] {
            assert!(parse_expect(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_share("5%"), Ok(0.05));
        assert_eq!(parse_share("0.05"), Ok(0.05));
        assert!(parse_share("101%").is_err() && parse_share("x").is_err());
        assert_eq!(parse_header("A:b "), Ok("A: b".to_owned()));
        assert!(parse_header("A b: c").is_err() && parse_header("a: b\r\nc: d").is_err());
        assert!(parse_rate("0").is_err() && parse_rate("1000").is_ok());
    }
}

//! `weir backend`: one demo and test backend until a signal or `POST /_die`.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hyper::StatusCode;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{exit, ready_file, values};
use crate::backend::{self, Ended, GRACE, Options};

const AFTER_HELP: &str = "\
Routes:
  /health, /healthz    200 (or --health-status), whatever the other options say
  /load                requests in flight and their latency, in JSON and as an ORCA header; ?orca=text; see --probe-path
  /create-course       201 to POST
  /bytes/N             N bytes with Content-Length, byte i being i modulo 251 (N up to 1 GiB)
  /chunked/N           the same, chunked
  /delay/MS            the default answer after MS milliseconds
  /status/N            the default answer with status N
  /echo                the request's body, streamed back as it arrives
  /sse                 an event every 100 ms, forever; ?count=N and ?interval=MS change that
  /ws                  a WebSocket that echoes
  /_set                POST changes how it behaves: ?delay=300ms&error_rate=0.3&error_status=503&hang=1&abort_rate=0.1
                       &reset_rate=0.1&status=503&health=503&health_delay=2s&jitter=5ms
                       &stall=1s&stall_every=10s
  /_count              how many requests there were, by method, and how often each POST by its x-request
  /_die                POST ends the backend at once, with all its connections
  everything else      the default answer: name, port, method, path, headers seen (secrets redacted)

Examples:
  weir backend --port 8081 --name a
  weir backend --port 8082 --name slow --delay 50ms --jitter 20ms
  weir backend --port 8083 --name bad --error-rate 0.1 --hang-rate 0.01 --seed 1
  weir backend --port 8084 --stall 1s --stall-every 10s
  curl -X POST 'localhost:8081/_set?delay=300ms'";

#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct BackendArgs {
    /// Port to listen on; 0: a free one, which is printed
    #[arg(long, short)]
    port: u16,

    /// Address to listen on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,

    /// Name in answers and in x-backend [default: backend-PORT]
    #[arg(long, value_parser = values::parse_name)]
    name: Option<String>,

    /// Wait before each answer
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = values::parse_duration)]
    delay: Duration,

    /// Wait up to this much longer, at random
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = values::parse_duration)]
    jitter: Duration,

    /// Share of requests that are answered with --error-status
    #[arg(long, value_name = "0..1", default_value = "0", value_parser = values::parse_rate)]
    error_rate: f64,

    /// Status of those
    #[arg(long, value_name = "STATUS", default_value = "500", value_parser = values::parse_status)]
    error_status: StatusCode,

    /// Share of requests that are never answered
    #[arg(long, value_name = "0..1", default_value = "0", value_parser = values::parse_rate)]
    hang_rate: f64,

    /// Share of requests that get a reset instead of an answer
    #[arg(long, value_name = "0..1", default_value = "0", value_parser = values::parse_rate)]
    abort_rate: f64,

    /// Share of requests that get a reset in the middle of the answer's body
    #[arg(long, value_name = "0..1", default_value = "0", value_parser = values::parse_rate)]
    reset_rate: f64,

    /// Status of the default answer
    #[arg(long, default_value = "200", value_parser = values::parse_status)]
    status: StatusCode,

    /// Status of /health
    #[arg(long, value_name = "STATUS", default_value = "200", value_parser = values::parse_status)]
    health_status: StatusCode,

    /// Wait before each answer of /health
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = values::parse_duration)]
    health_delay: Duration,

    /// Answer nothing for so long at the end of each --stall-every, on all connections together
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = values::parse_duration, requires = "stall_every")]
    stall: Duration,

    /// From the end of one stall to the end of the next
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = values::parse_duration, requires = "stall")]
    stall_every: Duration,

    /// Where the backend says how loaded it is
    #[arg(long, value_name = "PATH", default_value = "/load", value_parser = values::parse_path)]
    probe_path: String,

    /// Make the default answer's body exactly this long, without what the request held
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=64 << 20))]
    body_bytes: Option<u32>,

    /// Make random choices the same in every run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Write pid and actual address there as JSON once the backend serves
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub fn main(args: BackendArgs) -> ExitCode {
    if args.stall > args.stall_every {
        return exit::because(
            exit::BAD_CONFIGURATION,
            "--stall is longer than --stall-every: nothing would ever be answered",
        );
    }
    let address = SocketAddr::new(args.address, args.port);
    let listener = match backend::bind(address) {
        Ok(listener) => listener,
        Err(error) => return exit::cannot_bind(address, &error, "--port or --address"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(listener, args))) {
        Ok(code) => code,
        Err(error) => exit::because(exit::BAD_CONFIGURATION, error),
    }
}

async fn serve(listener: std::net::TcpListener, args: BackendArgs) -> io::Result<ExitCode> {
    // Before anybody is told that this process serves: a signal from now on is a graceful stop.
    let mut signals = Signals::new()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let name = args.name.unwrap_or_else(|| format!("backend-{}", address.port()));
    announce(&name, address, args.ready_file.as_deref())?;
    let options = Options {
        name: Some(name),
        delay: args.delay,
        jitter: args.jitter,
        error_rate: args.error_rate,
        error_status: args.error_status,
        hang_rate: args.hang_rate,
        abort_rate: args.abort_rate,
        reset_rate: args.reset_rate,
        status: args.status,
        health_status: args.health_status,
        health_delay: args.health_delay,
        stall: args.stall,
        stall_every: args.stall_every,
        probe_path: args.probe_path,
        body_bytes: args.body_bytes.map(|length| length as usize),
        seed: args.seed,
    };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let second_signal = async {
        signals.next().await;
        drop(stop);
        signals.next().await;
    };
    tokio::select! {
        ended = backend::serve(listener, options, stopped) => Ok(match ended? {
            Ended::Stopped | Ended::Died => ExitCode::from(exit::ANSWERED),
            Ended::Cut(open) => {
                exit::because(exit::CUT, format_args!("{open} connections were cut after {} s", GRACE.as_secs()))
            }
        }),
        () = second_signal => Ok(exit::because(exit::CUT, "a second signal cut what was in flight")),
    }
}

/// Says where the backend listens: on standard output, and in the ready file if there shall be one.
fn announce(name: &str, address: SocketAddr, ready_file: Option<&Path>) -> io::Result<()> {
    if let Some(path) = ready_file {
        let content = json!({ "pid": std::process::id(), "address": address.to_string() });
        ready_file::write(path, &content)?;
    }
    // Nobody has to read it.
    let _ = writeln!(io::stdout(), "backend {name} listens on {address}");
    Ok(())
}

/// SIGINT and SIGTERM, which mean the same.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

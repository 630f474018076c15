//! `weir demo`: backends and the load balancer in one process, to see it work in a minute.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{exit, run};
use crate::backend::{self, Options};

/// Where users of the original look for profiles.
const PROFILING_PORT: u16 = 6060;

const AFTER_HELP: &str = "\
Examples:
  weir demo
  weir demo --backends 5 --port 8000 --backend-port 8100

Exit codes: as `weir run`";

#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct DemoArgs {
    /// How many backends to start
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    backends: u16,

    /// The load balancer's port; 0: a free one
    #[arg(long, short, default_value_t = 8080)]
    port: u16,

    /// The first backend's port, the others following; 0: free ones
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    backend_port: u16,

    /// The admin port; 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 9070)]
    admin_port: u16,

    /// The port of profiles; 0: a free one [default: 6060, or a free one with --port 0]
    #[arg(long, value_name = "PORT")]
    profiling_port: Option<u16>,

    /// Write pid and actual addresses there as JSON once weir serves
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl DemoArgs {
    fn profiling_port(&self) -> u16 {
        let usual = if self.port == 0 { 0 } else { PROFILING_PORT };
        self.profiling_port.unwrap_or(usual)
    }
}

/// One demo backend as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoBackend {
    pub name: String,
    pub address: SocketAddr,
}

pub fn main(args: DemoArgs) -> ExitCode {
    if let Some(clash) = clash(&args) {
        return exit::because(exit::BAD_CONFIGURATION, clash);
    }
    let listeners = match bind_all(&args) {
        Ok(listeners) => listeners,
        Err(code) => return code,
    };
    let mut configured = Vec::with_capacity(listeners.len());
    let mut serving = Vec::with_capacity(listeners.len());
    for (index, (address, listener)) in listeners.into_iter().enumerate() {
        let name = format!("demo-{}", index + 1);
        let options = Options {
            name: Some(name.clone()),
            ..Options::default()
        };
        configured.push(DemoBackend { name, address });
        serving.push((listener, options));
    }
    let backends = match backend::spawn_all(serving) {
        Ok(backends) => backends,
        Err(error) => {
            return exit::because(
                exit::CANNOT_BIND,
                format_args!("cannot start the backends: {error}"),
            );
        }
    };
    // Nobody has to read it.
    let _ = io::stdout().write_all(what_to_try(&args, &configured).as_bytes());
    let addresses = [args.port, args.admin_port, args.profiling_port()].map(local);
    let configuration = demo_config(addresses, &configured);
    let code = run::serve(&configuration, args.ready_file);
    backends.stop();
    backends.join();
    code
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The ports of the backends; all 0 if the kernel shall choose. More than 65535 is [`clash`]'s to find.
fn backend_ports(args: &DemoArgs) -> impl Iterator<Item = u32> {
    let (first, count) = (u32::from(args.backend_port), u32::from(args.backends));
    (0..count).map(move |index| if first == 0 { 0 } else { first + index })
}

/// A port that two would listen on, or that does not exist.
fn clash(args: &DemoArgs) -> Option<String> {
    if backend_ports(args).any(|port| port > u32::from(u16::MAX)) {
        let (count, first) = (args.backends, args.backend_port);
        return Some(format!(
            "{count} backends do not fit between port {first} and 65535; see --backend-port"
        ));
    }
    let taken = |port: u16| port != 0 && backend_ports(args).any(|backend| backend == u32::from(port));
    if taken(args.port) {
        return Some(format!(
            "port {} is a backend's too; see --port and --backend-port",
            args.port
        ));
    }
    if taken(args.admin_port) {
        return Some(format!(
            "port {} is a backend's too; see --admin-port and --backend-port",
            args.admin_port
        ));
    }
    if taken(args.profiling_port()) {
        return Some(format!(
            "port {} is a backend's too; see --profiling-port and --backend-port",
            args.profiling_port()
        ));
    }
    for (port, flag) in [(args.port, "--port"), (args.admin_port, "--admin-port")] {
        if port != 0 && port == args.profiling_port() {
            return Some(format!(
                "port {port} cannot be both; see {flag} and --profiling-port"
            ));
        }
    }
    let shared = args.port != 0 && args.port == args.admin_port;
    shared.then(|| format!("port {} cannot be both; see --port and --admin-port", args.port))
}

/// Opens the backends' listeners, after a look whether the load balancer's own addresses are free: its own message
/// could not name the flags of the demo.
fn bind_all(args: &DemoArgs) -> Result<Vec<(SocketAddr, TcpListener)>, ExitCode> {
    for (port, flag) in [
        (args.port, "--port"),
        (args.admin_port, "--admin-port"),
        (args.profiling_port(), "--profiling-port"),
    ] {
        backend::bind(local(port)).map_err(|error| exit::cannot_bind(local(port), &error, flag))?;
    }
    let mut listeners = Vec::new();
    for port in backend_ports(args) {
        let address = local(port as u16);
        let bound = backend::bind(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
        listeners.push(bound.map_err(|error| exit::cannot_bind(address, &error, "--backend-port"))?);
    }
    Ok(listeners)
}

/// The demo's configuration, as a file would hold it.
pub fn demo_config(addresses: [SocketAddr; 3], backends: &[DemoBackend]) -> String {
    let [server, admin, profiling] = addresses;
    let mut toml = format!(
        "[server]\naddress = \"{server}\"\nenvironment = \"demo\"\n\n\
         [admin]\naddress = \"{admin}\"\n\n\
         [profiling]\naddress = \"{profiling}\"\n\n\
         [strategy]\ntype = \"round-robin\"\n\n\
         [health_check]\ninterval = \"500ms\"\ntimeout = \"500ms\"\n"
    );
    for DemoBackend { name, address } in backends {
        // Writing to a String cannot fail.
        let _ = write!(
            toml,
            "\n[[backends]]\nname = \"{name}\"\nurl = \"http://{address}\"\n"
        );
    }
    toml
}

fn what_to_try(args: &DemoArgs, backends: &[DemoBackend]) -> String {
    let base = |port: u16, unknown: &str| match port {
        0 => format!("http://127.0.0.1:{unknown}"),
        port => format!("http://127.0.0.1:{port}"),
    };
    let (server, admin) = (base(args.port, "PORT"), base(args.admin_port, "ADMIN_PORT"));
    let mut text = format!("weir demo: {server} in front of {} backends\n", backends.len());
    for DemoBackend { name, address } in backends {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name}  http://{address}");
    }
    let mut lines = vec![
        (format!("curl {server}/"), "the backends answer in turn"),
        (format!("curl {server}/metrics"), "what weir counted"),
        (format!("{admin}/"), "in a browser: the page"),
    ];
    // The only backend's end would be seen by everybody.
    if let [first, _, ..] = backends {
        lines.push((
            format!("curl -X POST http://{}/_die", first.address),
            "kill a backend, and then",
        ));
        lines.push((
            format!("curl -s -o /dev/null -w '%{{http_code}} ' '{server}/?[1-30]'; echo"),
            "30 requests: see no failure",
        ));
    }
    let width = lines
        .iter()
        .map(|(command, _)| command.len())
        .max()
        .unwrap_or_default();
    text.push_str("Try:\n");
    for (command, meaning) in lines {
        let _ = writeln!(text, "  {command:width$}   # {meaning}");
    }
    if args.port == 0 || args.admin_port == 0 {
        text.push_str("The kernel chooses what is a word here: the log and the ready file name it.\n");
    }
    text.push_str("Ctrl-C ends it.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(port: u16, backend_port: u16, admin_port: u16) -> DemoArgs {
        DemoArgs {
            backends: 3,
            port,
            backend_port,
            admin_port,
            profiling_port: None,
            ready_file: None,
        }
    }

    #[test]
    fn the_configuration_names_every_backend() {
        let backends: Vec<DemoBackend> = (1..=2)
            .map(|index| DemoBackend {
                name: format!("demo-{index}"),
                address: local(8080 + index),
            })
            .collect();
        let parsed: toml::Table = demo_config([8080, 9070, 6060].map(local), &backends)
            .parse()
            .expect("TOML");
        assert_eq!(parsed["server"]["address"].as_str(), Some("127.0.0.1:8080"));
        assert_eq!(parsed["admin"]["address"].as_str(), Some("127.0.0.1:9070"));
        assert_eq!(parsed["profiling"]["address"].as_str(), Some("127.0.0.1:6060"));
        assert_eq!(parsed["strategy"]["type"].as_str(), Some("round-robin"));
        assert_eq!(parsed["health_check"]["interval"].as_str(), Some("500ms"));
        let listed = parsed["backends"].as_array().expect("a list");
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[1]["name"].as_str(), Some("demo-2"));
        assert_eq!(listed[1]["url"].as_str(), Some("http://127.0.0.1:8082"));
    }

    #[test]
    fn what_to_try_kills_a_backend_if_another_is_left() {
        let backends: Vec<DemoBackend> = (1..=3)
            .map(|index| DemoBackend {
                name: format!("demo-{index}"),
                address: local(8080 + index),
            })
            .collect();
        let text = what_to_try(&args(8080, 8081, 9070), &backends);
        for command in [
            "\n  curl -X POST http://127.0.0.1:8081/_die ",
            "\n  curl -s -o /dev/null -w '%{http_code} ' 'http://127.0.0.1:8080/?[1-30]'; echo ",
        ] {
            assert!(text.contains(command), "{text}");
        }
        assert!(!what_to_try(&args(8080, 8081, 9070), &backends[..1]).contains("_die"));
    }

    #[test]
    fn ports_that_clash_are_named_with_their_flags() {
        assert_eq!(clash(&args(8080, 8081, 9070)), None);
        assert_eq!(clash(&args(0, 0, 0)), None);
        for (bad, flag) in [
            (args(8083, 8081, 9070), "--port"),
            (args(8080, 8081, 8081), "--admin-port"),
            (args(8080, 8081, 8080), "--admin-port"),
            (args(8080, 65534, 9070), "--backend-port"),
            (args(6060, 8081, 9070), "--profiling-port"),
            (args(8080, 6059, 9070), "--profiling-port"),
        ] {
            let message = clash(&bad).expect("a clash");
            assert!(message.contains(flag), "{message}");
        }
    }
}

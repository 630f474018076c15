//! Some backends and a weir before them, each a process.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::children::{Directory, Process, address};
use super::client::Client;
use super::{Error, Stop};

/// How long anything of the stand's own may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A backend of the stand: its process, if it is running, and where it listens in any case.
#[derive(Debug)]
pub(super) struct Backend {
    pub name: String,
    pub address: SocketAddr,
    process: Option<Process>,
    arguments: Vec<String>,
}

impl Backend {
    fn start(directory: &Directory, name: &str, arguments: &[String], stop: &Stop) -> Result<Backend, Error> {
        let mut backend = Backend {
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            process: None,
            arguments: arguments.to_vec(),
        };
        backend.start_again(directory, stop)?;
        Ok(backend)
    }

    /// Starts it where it was.
    pub fn start_again(&mut self, directory: &Directory, stop: &Stop) -> Result<(), Error> {
        let mut arguments: Vec<String> = ["backend", "--name", &self.name, "--port"]
            .map(str::to_owned)
            .to_vec();
        arguments.push(self.address.port().to_string());
        arguments.extend_from_slice(&self.arguments);
        let mut process = Process::start(directory, &self.name, &arguments)?;
        let said = process.wait_ready(stop)?;
        self.address = address(&said["address"])?;
        self.process = Some(process);
        Ok(())
    }

    /// Its end without a word.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Its end in order.
    pub fn terminate(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate();
        }
    }

    /// Changes how it behaves: `delay=30ms`.
    pub fn set(&self, query: &str) -> Result<(), Error> {
        let what = format!("{} cannot be told {query}", self.name);
        Client::new(self.address, TIMEOUT)
            .ask("POST", &format!("/_set?{query}"), "")
            .map(|_| ())
            .map_err(Error::io(what))
    }
}

/// What a stand is made of.
#[derive(Debug)]
pub(super) struct Blueprint<'a> {
    pub backends: &'a [&'a str],
    /// Further arguments of `weir backend`.
    pub arguments: &'a [String],
    /// Sections of weir's configuration, without `[server]`, `[admin]`, `[logging]`, `[runtime]` and backends.
    pub configuration: &'a str,
    /// The first backend of `backends` has the lowest priority number.
    pub with_priorities: bool,
}

/// Everything that runs. Fields are dropped in their order: the directory last.
#[derive(Debug)]
pub(super) struct Stand {
    _weir: Process,
    pub backends: Vec<Backend>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub directory: Directory,
}

impl Stand {
    pub fn start(blueprint: &Blueprint<'_>, stop: &Stop) -> Result<Stand, Error> {
        let directory = Directory::new()?;
        let backends = blueprint
            .backends
            .iter()
            .map(|name| Backend::start(&directory, name, blueprint.arguments, stop))
            .collect::<Result<Vec<_>, _>>()?;
        let file = directory.path().join("weir.toml");
        fs::write(&file, configuration(blueprint, &backends))
            .map_err(Error::io("cannot write the configuration"))?;
        let mut weir = Process::start(
            &directory,
            "weir",
            &[
                "run".to_owned(),
                "--config".to_owned(),
                file.display().to_string(),
            ],
        )?;
        let said = weir.wait_ready(stop)?;
        Ok(Stand {
            address: address(&said["listeners"][0])?,
            admin: address(&said["admin"])?,
            _weir: weir,
            backends,
            directory,
        })
    }

    /// What weir counted so far.
    pub fn counts(&self) -> Counts {
        Counts(Client::new(self.admin, TIMEOUT))
    }
}

fn configuration(blueprint: &Blueprint<'_>, backends: &[Backend]) -> String {
    let mut toml = format!(
        "[server]\naddress = \"127.0.0.1:0\"\n\n[admin]\naddress = \"127.0.0.1:0\"\n\n[runtime]\npin = false\n\n\
         [logging]\nlevel = \"warn\"\n\n{}\n",
        blueprint.configuration
    );
    for (priority, Backend { name, address, .. }) in backends.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(
            toml,
            "\n[[backends]]\nname = \"{name}\"\nurl = \"http://{address}\"\n"
        );
        if blueprint.with_priorities {
            let _ = writeln!(toml, "priority = {priority}");
        }
    }
    toml
}

/// Reads weir's metrics again and again over one connection.
#[derive(Debug)]
pub(super) struct Counts(Client);

impl Counts {
    /// How often each backend was picked, by name: the attempts.
    pub fn selections(&mut self) -> Result<Vec<(String, u64)>, Error> {
        // An admin connection has an end; the next one serves as well.
        let answer = self
            .0
            .ask("GET", "/metrics", "")
            .or_else(|_| self.0.ask("GET", "/metrics", ""))
            .map_err(Error::io("weir's metrics"))?;
        let metrics: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| Error::io("weir's metrics")(error.into()))?;
        let backends = metrics["backends"].as_object().into_iter().flatten();
        Ok(backends
            .map(|(_, backend)| {
                (
                    backend["name"].as_str().unwrap_or_default().to_owned(),
                    backend["selections"].as_u64().unwrap_or(0),
                )
            })
            .collect())
    }

    /// The same of one backend.
    pub fn selections_of(&mut self, name: &str) -> Result<u64, Error> {
        let all = self.selections()?;
        Ok(all
            .iter()
            .find(|(of, _)| of == name)
            .map_or(0, |(_, count)| *count))
    }
}

//! The configuration: what every key means, where its value came from, and why a bad one is refused.
//!
//! [`load`] puts it together in layers, the later over the earlier: defaults, the file, the original's short variables,
//! `WEIR_SECTION_KEY`, `--set`. All keys are in one table (`keys.rs`); each has a form (`forms/`) that reads and writes
//! its value. Everything that is wrong is found in one go and told together ([`Errors`], [`render`]).
//!
//! Reading a configuration touches nothing but its file: no name is looked up, no CPU counted, no socket opened.

mod assembly;
mod diagnostics;
mod effective;
mod environment;
mod file;
mod flags;
mod forms;
mod idle;
mod keys;
pub mod model;
mod node;
mod reference;
mod source;
mod suggest;
mod validate;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use assembly::{Assembly, Slot, Written};

pub use diagnostics::{Errors, Problem, render};
pub use forms::{Refusal, hash_key_name, parse_duration, parse_size, strategy_name};
pub use model::Config;
pub use reference::reference;
pub(crate) use suggest::nearest;

/// What to read the configuration from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// `--config`: this file, which must be there.
    pub path: Option<PathBuf>,
    /// Without a `path`: the first of these that is there.
    pub search: Vec<PathBuf>,
    /// Environment variables; those that are not weir's may be among them.
    pub env: Vec<(String, String)>,
    /// What followed each `--set`: `section.key=value`.
    pub sets: Vec<String>,
}

impl Default for Sources {
    /// The default places, an empty environment and no flags.
    fn default() -> Self {
        Sources {
            path: None,
            search: vec!["config/weir.toml".into(), "/etc/weir/weir.toml".into()],
            env: Vec::new(),
            sets: Vec::new(),
        }
    }
}

impl Sources {
    /// With the environment of this process.
    pub fn of_process(path: Option<PathBuf>, sets: Vec<String>) -> Sources {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let env = std::env::vars_os()
            .map(|(variable, value)| (text(variable), text(value)))
            .filter(|(variable, _)| environment::concerns(variable))
            .collect();
        Sources {
            path,
            env,
            sets,
            ..Sources::default()
        }
    }
}

/// A configuration that holds, and where it came from.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read; none if there was none.
    pub file: Option<PathBuf>,
    /// What a person should be told although nothing is wrong, a sentence each.
    pub notices: Vec<String>,
    slots: Vec<Slot>,
    backends: Vec<Written>,
}

/// The keys (`section.key`) whose values differ; backends aside.
pub fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    keys::KEYS
        .iter()
        .filter(|key| (key.show)(old) != (key.show)(new))
        .map(|key| key.path())
        .collect()
}

/// Reads all sources; on an error, everything that is wrong in any of them.
pub fn load(sources: &Sources) -> Result<Loaded, Errors> {
    let mut assembly = Assembly::new();
    let mut found = None;
    match &sources.path {
        Some(path) => match read(path) {
            Ok(text) => found = Some((path.clone(), text)),
            Err(error) => unreadable(&mut assembly, path, &error),
        },
        None => {
            for path in &sources.search {
                match read(path) {
                    Ok(text) => found = Some((path.clone(), text)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => unreadable(&mut assembly, path, &error),
                }
                break;
            }
        }
    }
    let file = found.as_ref().map(|(path, _)| path.clone());
    match &found {
        Some((path, text)) => file::apply(&mut assembly, &path.display().to_string(), text),
        None if assembly.problems.is_empty() => no_file(&mut assembly, sources),
        None => assembly.backends_named = true,
    }
    finish(assembly, file, &sources.env, &sources.sets)
}

/// Reads `text`, called `name` in errors and origins, as if it were the file.
pub fn load_str(name: &str, text: &str, env: &[(String, String)], sets: &[String]) -> Result<Loaded, Errors> {
    let mut assembly = Assembly::new();
    file::apply(&mut assembly, name, text);
    finish(assembly, None, env, sets)
}

fn finish(
    mut assembly: Assembly,
    file: Option<PathBuf>,
    env: &[(String, String)],
    sets: &[String],
) -> Result<Loaded, Errors> {
    environment::apply(&mut assembly, env);
    flags::apply(&mut assembly, sets);
    environment::apply_port(&mut assembly, env);
    validate::judge(&mut assembly);
    if !assembly.problems.is_empty() {
        return Err(Errors::new(assembly.problems));
    }
    Ok(Loaded {
        config: assembly.config,
        file,
        notices: assembly.notices,
        slots: assembly.slots,
        backends: assembly.backends,
    })
}

/// The text of a file of a bounded size.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(file::MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > file::MAX_FILE {
        return Err(io::Error::other(format!("longer than {} bytes", file::MAX_FILE)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + memchr::memchr_iter(b'\n', &error.as_bytes()[..good]).count();
        io::Error::other(format!("not UTF-8 in line {line}"))
    })
}

fn unreadable(assembly: &mut Assembly, path: &Path, error: &io::Error) {
    let problem = Problem::new(format!(
        "cannot read the configuration file {}: {error}",
        path.display()
    ));
    assembly.push(problem);
}

/// No file at the default places: wrong, unless the backends come from elsewhere.
fn no_file(assembly: &mut Assembly, sources: &Sources) {
    let places: Vec<String> = sources
        .search
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let places = places.join(" and ");
    let named_by_flag = |set: &String| {
        set.split_once('=')
            .is_some_and(|(path, _)| path == keys::BACKENDS)
    };
    let named_by_variable = |(variable, _): &(String, String)| variable == keys::BACKENDS_VARIABLE;
    if sources.sets.iter().any(named_by_flag) || sources.env.iter().any(named_by_variable) {
        assembly.notices.push(format!(
            "no configuration file at {places}: defaults, environment and flags alone"
        ));
        return;
    }
    assembly.backends_named = true;
    let problem = Problem::new(format!("no configuration file: searched {places}"));
    assembly.push(problem.help(
        "name one with --config FILE, or try `weir demo`, which needs none; with WEIR_BACKENDS=http://host:port,… weir runs \
         on its defaults",
    ));
}

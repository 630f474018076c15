//! The world of a simulation, as a TOML file writes it: who asks how often, what backends are made of, what goes wrong
//! and when. What is unknown or does not fit together is refused with file, line and key.

pub mod values;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::Nanos;
use super::distribution::Distribution;
use values::{Count, Fraction, Lasting, Positions, Positive, Skew, Span};

/// The scenarios that weir brings along, by name.
pub const PRESETS: &[(&str, &str)] = &[
    ("steady", include_str!("../scenarios/steady.toml")),
    ("unequal", include_str!("../scenarios/unequal.toml")),
    ("hot-keys", include_str!("../scenarios/hot-keys.toml")),
    ("slow-one", include_str!("../scenarios/slow-one.toml")),
    ("kill-one", include_str!("../scenarios/kill-one.toml")),
    ("fast-fail", include_str!("../scenarios/fast-fail.toml")),
    ("burst", include_str!("../scenarios/burst.toml")),
    ("herd", include_str!("../scenarios/herd.toml")),
    ("antagonist", include_str!("../scenarios/antagonist.toml")),
];

/// The text of the preset of that name.
pub fn preset(name: &str) -> Option<&'static str> {
    PRESETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, text)| *text)
}

/// A scenario that holds together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    #[serde(default)]
    pub about: String,
    /// How long requests arrive.
    pub duration: Lasting,
    /// What arrives before counts for nothing.
    pub warm_up: Option<Spanned<Span>>,
    /// How long what is under way may take after the last arrival.
    #[serde(default = "Scenario::default_drain")]
    pub drain: Span,
    /// How many, where the configuration names none.
    #[serde(default = "Scenario::default_backends")]
    pub backends: Count<4096>,
    /// Each with its own counts, its own health probes, breakers and budget.
    #[serde(default = "Scenario::one_balancer")]
    pub load_balancers: Count<10_000>,
    /// Of each load balancer: what they share is `balance`'s shared state.
    #[serde(default = "Scenario::one_worker")]
    pub workers: Count<256>,
    pub arrivals: Spanned<Arrivals>,
    #[serde(default)]
    pub keys: Keys,
    #[serde(default)]
    pub network: Network,
    pub service: Service,
    pub antagonist: Option<Antagonist>,
    /// Backends that are not like the others.
    #[serde(default)]
    pub special: Vec<Special>,
    /// What happens, in any order.
    #[serde(default)]
    pub events: Vec<Spanned<Incident>>,
}

/// When requests arrive, over all load balancers; each goes to any of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrivals {
    #[serde(default)]
    pub r#type: ArrivalType,
    /// Requests per second on average.
    pub rate: Option<Positive>,
    /// The same as a share of what all backends together can serve.
    pub load: Option<Positive>,
    /// `burst`: times the rate outside of bursts.
    pub burst_factor: Option<Positive>,
    pub burst_length: Option<Span>,
    /// From the beginning of one to the beginning of the next.
    pub burst_every: Option<Span>,
    /// `log`: a line for each request, `seconds` or `seconds,key`.
    pub file: Option<PathBuf>,
    /// `log`: times as fast as it was recorded.
    pub speed: Option<Positive>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArrivalType {
    /// Independent of each other.
    #[default]
    Poisson,
    /// One after the other at equal distances.
    Even,
    /// Poisson, with times of a higher rate.
    Burst,
    /// As recorded.
    Log,
}

/// What requests are known by, for strategies that hash.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Different ones.
    pub count: Count<1_000_000>,
    /// Zipf's exponent; 0: all are equally frequent.
    pub skew: Skew,
}

impl Default for Keys {
    fn default() -> Self {
        Keys {
            count: Count(10_000),
            skew: Skew(0.0),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// One way between a load balancer and a backend.
    pub delay: Distribution,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            delay: Distribution::Constant(100_000.0),
        }
    }
}

/// What backends are made of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Processor time of one request.
    pub time: Spanned<Distribution>,
    /// Requests that run at full speed at the same time.
    #[serde(default = "Service::one_core")]
    pub cores: Count<4096>,
    #[serde(default)]
    pub discipline: Discipline,
    /// Requests taken at a time: `cores` under `fifo`, without bound under `sharing`, unless set here.
    pub concurrency: Option<Count<1_000_000>>,
    /// Requests that may wait to be taken; more are answered 503 at once.
    #[serde(default = "Service::default_queue")]
    pub queue: Count<10_000_000>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discipline {
    /// In the order of arrival, one for each core.
    #[default]
    Fifo,
    /// All at the same time, each with its share of the cores.
    Sharing,
}

/// Others on the machines of the backends: each backend's processors are as many as they leave it, anew at random times.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Antagonist {
    /// Between two changes of one backend, on average (exponential).
    pub every: Lasting,
    pub levels: Spanned<Vec<Level>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// How often it is drawn, against the other levels' shares.
    pub share: Positive,
    /// Times `cores`.
    #[serde(default = "Level::whole")]
    pub capacity: Positive,
    /// Times the speed of each core.
    #[serde(default = "Level::whole")]
    pub speed: Positive,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Special {
    pub backends: Spanned<Positions>,
    pub cores: Option<Count<4096>>,
    pub time: Option<Distribution>,
    /// Times the speed of each core.
    pub speed: Option<Positive>,
    /// Of the configuration, where that names no backends.
    pub weight: Option<u16>,
    pub priority: Option<u16>,
    pub backup: Option<bool>,
}

/// One thing that happens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    pub r#type: IncidentType,
    pub at: Span,
    /// None: it stays so.
    pub until: Option<Span>,
    pub backends: Option<Spanned<Positions>>,
    /// `slow`: times the service time; `traffic`: times the rate.
    pub factor: Option<Positive>,
    /// `fail`: of the requests.
    pub share: Option<Fraction>,
    /// `fail`: with this status,
    pub status: Option<u16>,
    /// after this time.
    pub time: Option<Span>,
    /// Whether health probes go on being good.
    pub health: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentType {
    /// The process is gone: connections are reset, new ones refused.
    Crash,
    /// The machine is gone: nothing comes back.
    Gone,
    /// Requests are taken and nothing happens.
    Hang,
    Slow,
    Fail,
    /// Health probes fail, requests do not.
    Sick,
    /// More or fewer requests; concerns no backend.
    Traffic,
}

impl Scenario {
    fn default_drain() -> Span {
        Span::of(Duration::from_secs(10))
    }

    fn default_backends() -> Count<4096> {
        Count(10)
    }

    fn one_balancer() -> Count<10_000> {
        Count(1)
    }

    fn one_worker() -> Count<256> {
        Count(1)
    }
}

impl Service {
    fn one_core() -> Count<4096> {
        Count(1)
    }

    fn default_queue() -> Count<10_000_000> {
        Count(1024)
    }
}

impl Level {
    fn whole() -> Positive {
        Positive(1.0)
    }
}

impl Scenario {
    /// It stands in `file`: a log that it names is beside that.
    pub fn beside(&mut self, file: &Path) {
        if let Some(log) = &mut self.arrivals.as_mut().file
            && let Some(directory) = file.parent()
        {
            *log = directory.join(&*log);
        }
    }

    /// A configuration with its backends and nothing else.
    pub fn as_configuration(&self) -> String {
        let mut text = String::new();
        for at in 0..self.backends.0 {
            // Nobody connects there.
            let _ = write!(
                text,
                "[[backends]]\nname = \"backend-{at}\"\nurl = \"http://backend-{at}:80\"\n"
            );
            let special = || {
                let special = self.special.iter();
                special.filter(|special| special.backends.as_ref().contains(at))
            };
            if let Some(weight) = special().filter_map(|special| special.weight).next_back() {
                let _ = writeln!(text, "weight = {weight}");
            }
            if let Some(priority) = special().filter_map(|special| special.priority).next_back() {
                let _ = writeln!(text, "priority = {priority}");
            }
            if let Some(backup) = special().filter_map(|special| special.backup).next_back() {
                let _ = writeln!(text, "backup = {backup}");
            }
        }
        text
    }

    pub fn warm_up(&self) -> Nanos {
        self.warm_up.as_ref().map_or(0, |span| span.as_ref().nanos())
    }
}

impl Incident {
    /// When it is over; never if it stays.
    pub fn end(&self) -> Nanos {
        self.until.map_or(Nanos::MAX, Span::nanos)
    }
}

/// Why a scenario, or a file it names, is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Error {
    file: String,
    /// From 1; none: the file as a whole.
    line: Option<usize>,
    message: String,
    /// The line as it stands there.
    quoted: Option<String>,
}

impl Error {
    pub(super) fn whole(file: &str, message: impl Into<String>) -> Error {
        Error {
            file: file.to_owned(),
            line: None,
            message: message.into(),
            quoted: None,
        }
    }

    pub(super) fn line(file: &str, line: usize, quoted: &str, message: impl Into<String>) -> Error {
        Error {
            line: Some(line),
            quoted: Some(quoted.to_owned()),
            ..Error::whole(file, message)
        }
    }

    /// At byte `at` of a scenario's text; the key is the one that is written there.
    fn at(file: &str, text: &str, at: usize, message: &str) -> Error {
        let at = text.floor_char_boundary(at);
        let line = text[..at].matches('\n').count();
        let quoted = text.lines().nth(line).unwrap_or_default();
        let is_header = |line: &&str| line.trim_start().starts_with('[') && !line.contains('=');
        let section = text.lines().take(line + 1).filter(is_header).last();
        let section = section.map(|section| section.trim());
        let key = quoted.split_once('=').map(|(key, _)| key.trim());
        let place = match (section, key) {
            (Some(section), Some(key)) => format!("{section} {key}: "),
            (None, Some(key)) => format!("{key}: "),
            (Some(section), None) => format!("{section}: "),
            (None, None) => String::new(),
        };
        Error::line(file, line + 1, quoted, format!("{place}{message}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message)?,
            None => write!(f, "{}: {}", self.file, self.message)?,
        }
        match &self.quoted {
            Some(quoted) => write!(f, "\n    {}", quoted.trim()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Reads `text`, called `file` in errors.
pub fn parse(file: &str, text: &str) -> Result<Scenario, Error> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| match error.span() {
        Some(span) => Error::at(file, text, span.start, error.message()),
        None => Error::whole(file, error.message()),
    })?;
    match judge(&scenario) {
        Ok(()) => Ok(scenario),
        Err((at, message)) => Err(Error::at(file, text, at, &message)),
    }
}

/// What does not fit together, and the byte where it stands.
fn judge(scenario: &Scenario) -> Result<(), (usize, String)> {
    let arrivals = scenario.arrivals.as_ref();
    judge_arrivals(arrivals).map_err(|message| (scenario.arrivals.span().start, message.to_owned()))?;
    if let Some(warm_up) = &scenario.warm_up
        && warm_up.as_ref().nanos() >= scenario.duration.nanos()
    {
        let message = "not shorter than duration, so that nothing would count";
        return Err((warm_up.span().start, message.to_owned()));
    }
    let time = &scenario.service.time;
    if time.as_ref().mean() <= 0.0 {
        return Err((
            time.span().start,
            "requests that take no time load nobody".to_owned(),
        ));
    }
    if let Some(levels) = scenario.antagonist.as_ref().map(|antagonist| &antagonist.levels)
        && levels.as_ref().is_empty()
    {
        return Err((levels.span().start, "at least one level is needed".to_owned()));
    }
    for incident in &scenario.events {
        judge_incident(incident.as_ref()).map_err(|message| (incident.span().start, message))?;
    }
    Ok(())
}

fn judge_arrivals(arrivals: &Arrivals) -> Result<(), &'static str> {
    let bursts = (arrivals.burst_factor, arrivals.burst_length, arrivals.burst_every);
    match arrivals.r#type {
        ArrivalType::Log if arrivals.file.is_none() => return Err("type = \"log\" needs file"),
        ArrivalType::Log if arrivals.rate.is_some() || arrivals.load.is_some() => {
            return Err("a log has its own rate: neither rate nor load; see speed");
        }
        ArrivalType::Log => {}
        _ if arrivals.file.is_some() || arrivals.speed.is_some() => {
            return Err("file and speed belong to type = \"log\"");
        }
        _ if arrivals.rate.is_some() == arrivals.load.is_some() => {
            return Err(
                "either rate (requests per second) or load (share of the backends' capacity) is needed",
            );
        }
        _ => {}
    }
    match (arrivals.r#type, bursts) {
        (ArrivalType::Burst, (Some(_), Some(length), Some(every))) if length < every => Ok(()),
        (ArrivalType::Burst, (Some(_), Some(_), Some(_))) => Err("burst_length must be below burst_every"),
        (ArrivalType::Burst, _) => Err("type = \"burst\" needs burst_factor, burst_length and burst_every"),
        (_, (None, None, None)) => Ok(()),
        _ => Err("burst_factor, burst_length and burst_every belong to type = \"burst\""),
    }
}

fn judge_incident(incident: &Incident) -> Result<(), String> {
    if incident.until.is_some_and(|until| until <= incident.at) {
        return Err("until must be after at".to_owned());
    }
    let kind = incident.r#type;
    let given = [
        ("backends", incident.backends.is_some()),
        ("factor", incident.factor.is_some()),
        ("share", incident.share.is_some()),
        ("status", incident.status.is_some()),
        ("time", incident.time.is_some()),
        ("health", incident.health.is_some()),
    ];
    let (needed, allowed): (&[&str], &[&str]) = match kind {
        IncidentType::Crash | IncidentType::Gone | IncidentType::Sick => (&["backends"], &["backends"]),
        IncidentType::Hang => (&["backends"], &["backends", "health"]),
        IncidentType::Slow => (&["backends", "factor"], &["backends", "factor"]),
        IncidentType::Fail => (&["backends"], &["backends", "share", "status", "time", "health"]),
        IncidentType::Traffic => (&["factor"], &["factor"]),
    };
    for (key, is_given) in given {
        if is_given && !allowed.contains(&key) {
            return Err(format!("{key} does not belong to an event of this type"));
        }
        if !is_given && needed.contains(&key) {
            return Err(format!("an event of this type needs {key}"));
        }
    }
    match incident.status {
        Some(status) if !(200..=599).contains(&status) => {
            Err(format!("status: {status} where one from 200 to 599 is needed"))
        }
        _ => Ok(()),
    }
}

/// A backend that the scenario names is among the `count` that there are.
pub fn check_positions(scenario: &Scenario, file: &str, text: &str, count: usize) -> Result<(), Error> {
    let special = scenario.special.iter().map(|special| &special.backends);
    let events = scenario
        .events
        .iter()
        .filter_map(|incident| incident.as_ref().backends.as_ref());
    for positions in special.chain(events) {
        if let Some(last) = positions.as_ref().last().filter(|last| *last >= count) {
            let message = format!("backend {last} of {count}; positions begin at 0");
            return Err(Error::at(file, text, positions.span().start, &message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "duration = '10s'\n[arrivals]\nload = 0.5\n[service]\ntime = '5ms'\n";

    #[test]
    fn every_preset_holds_and_says_what_it_is_about() {
        for (name, text) in PRESETS {
            let scenario = parse(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert!(!scenario.about.is_empty(), "{name}");
            let count = scenario.backends.0;
            assert_eq!(check_positions(&scenario, name, text, count), Ok(()), "{name}");
        }
        assert_eq!(preset("nothing"), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_file_line_and_key() {
        let with = |more: &str| format!("{GOOD}{more}");
        for (text, told) in [
            (
                with("tme = '1ms'\n"),
                "f.toml:6: [service] tme: unknown field `tme`",
            ),
            (
                with("cores = 0\n"),
                "f.toml:6: [service] cores: 0 where a number from 1",
            ),
            (with("[servce]\n"), "f.toml:6: [servce]: unknown field"),
            (
                with("[network]\ndelay = { type = 'pareto', least = '1ms' }\n"),
                "f.toml:7: [network] delay: pareto times need",
            ),
            (
                GOOD.replace("10s", "10"),
                "f.toml:1: duration: \"10\" has no unit",
            ),
            (
                GOOD.replace("load", "type = 'log' #"),
                "f.toml:2: [arrivals]: type = \"log\" needs file",
            ),
            (
                GOOD.replace("load = 0.5", ""),
                "f.toml:2: [arrivals]: either rate",
            ),
            (
                GOOD.replace("load = 0.5", "load = -1"),
                "f.toml:3: [arrivals] load: -1 where",
            ),
            (
                with("[[events]]\ntype = 'slow'\nat = '1s'\nbackends = 0\n"),
                "f.toml:6: [[events]]: an event of this type needs factor",
            ),
            (
                with("[[events]]\ntype = 'crash'\nat = '1s'\nbackends = '5-3'\n"),
                "f.toml:9: [[events]] backends: invalid value",
            ),
            ("duration = ".to_owned(), "f.toml:1: duration:"),
        ] {
            let error = parse("f.toml", &text).expect_err(told).to_string();
            assert!(error.starts_with(told), "{error}\nwhere {told:?} was expected");
        }
    }

    #[test]
    fn a_backend_that_is_not_there_is_named_with_its_line() {
        let text = format!("{GOOD}[[events]]\ntype = 'crash'\nat = '1s'\nbackends = '1,3'\n");
        let scenario = parse("f.toml", &text).expect("a scenario");
        assert_eq!(check_positions(&scenario, "f.toml", &text, 4), Ok(()));
        let error = check_positions(&scenario, "f.toml", &text, 3).expect_err("there is no 3");
        assert!(
            error
                .to_string()
                .starts_with("f.toml:9: [[events]] backends: backend 3 of 3")
        );
    }
}

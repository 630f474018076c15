//! The layers of the environment: `WEIR_SECTION_KEY` for every key, and the original's short names.

use super::assembly::{Assembly, Layer};
use super::diagnostics::Problem;
use super::forms::at_commas;
use super::keys::{BACKENDS_VARIABLE, KEYS, position};
use super::model::ListenAddress;
use super::node::{Node, Raw, quote};
use super::source::{Place, Source};
use super::suggest::nearest;

/// The short names that the original has, besides [`PORT`], and the keys that they set.
pub(super) const SHORT_FORMS: &[(&str, &str, &str)] = &[
    ("SERVER_ADDRESS", "server", "address"),
    ("SERVER_ENVIRONMENT", "server", "environment"),
    ("HEALTH_CHECK_INTERVAL", "health_check", "interval"),
    ("STRATEGY_TYPE", "strategy", "type"),
    ("STRATEGY_VIRTUAL_NODES", "strategy", "virtual_nodes"),
    ("LOGGING_LEVEL", "logging", "level"),
    ("CIRCUIT_BREAKER_ENABLED", "circuit_breaker", "enabled"),
    (
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        "circuit_breaker",
        "failure_threshold",
    ),
    (
        "CIRCUIT_BREAKER_RESET_TIMEOUT",
        "circuit_breaker",
        "reset_timeout",
    ),
    ("RETRY_MAX_RETRIES", "retry", "max_retries"),
];

/// Replaces the port of `server.address` and nothing else.
pub(super) const PORT: &str = "PORT";

const PREFIX: &str = "WEIR_";

/// Whether weir reads, or judges, a variable of this name.
pub(super) fn concerns(variable: &str) -> bool {
    variable.starts_with(PREFIX)
        || variable == PORT
        || SHORT_FORMS.iter().any(|(short, _, _)| *short == variable)
}

/// What Kubernetes sets for a service called `weir`.
fn is_injected(variable: &str) -> bool {
    variable.starts_with("WEIR_SERVICE_") || variable == "WEIR_PORT" || variable.starts_with("WEIR_PORT_")
}

/// Reads the short names, then `WEIR_…`; `PORT` waits for [`apply_port`].
pub(super) fn apply(assembly: &mut Assembly, env: &[(String, String)]) {
    for (short, section, name) in SHORT_FORMS {
        for (variable, value) in env.iter().filter(|(variable, _)| variable == short) {
            if let Some(position) = position(section, name) {
                set(assembly, Layer::Short, variable, value, position);
            }
        }
    }
    let mut long: Vec<&(String, String)> = env
        .iter()
        .filter(|(variable, _)| variable.starts_with(PREFIX))
        .collect();
    long.sort();
    let mut injected = Vec::new();
    for (variable, value) in long {
        if is_injected(variable) {
            injected.push(variable.as_str());
        } else if variable == BACKENDS_VARIABLE {
            if let Some(node) = node(assembly, variable, value) {
                let source = Source::environment(variable, value);
                assembly.replace_backends(&source, &at_commas(value, node.span.start), variable);
            }
        } else if let Some(position) = KEYS.iter().position(|key| key.variable() == *variable) {
            set(assembly, Layer::Environment, variable, value, position);
        } else {
            assembly.push(unknown(variable, value));
        }
    }
    if !injected.is_empty() {
        let names = injected.join(", ");
        let notice =
            format!("ignored from the environment, being what Kubernetes sets for a service: {names}");
        assembly.notices.push(notice);
    }
}

fn set(assembly: &mut Assembly, layer: Layer, variable: &str, value: &str, position: usize) {
    match node(assembly, variable, value) {
        Some(node) => {
            let source = Source::environment(variable, value);
            assembly.set(layer, &source, position, &node, Some(variable));
        }
        None => assembly.slots[position].broken = true,
    }
}

/// The value of a variable, unless it can be none at all.
fn node(assembly: &mut Assembly, variable: &str, value: &str) -> Option<Node> {
    let reason = if value.trim().is_empty() {
        "is empty"
    } else if value.contains(char::REPLACEMENT_CHARACTER) {
        "is not UTF-8"
    } else {
        let start = variable.len() + 1;
        return Some(Node {
            raw: Raw::Bare(value.to_owned()),
            span: start..start + value.len(),
        });
    };
    let source = Source::environment(variable, value);
    let problem =
        Problem::new(format!("the variable {variable} {reason}")).at(Place::new(&source, 0..variable.len()));
    assembly.push(problem.help("give it a value or unset it"));
    None
}

fn unknown(variable: &str, value: &str) -> Problem {
    let source = Source::environment(variable, value);
    let place = Place::new(&source, 0..variable.len());
    let problem = Problem::new(format!("unknown variable {variable}")).at(place);
    if is_service_link(variable) {
        return problem.help(
            "if Kubernetes sets it for a service whose name begins with \"weir-\", set enableServiceLinks: false in the pod",
        );
    }
    // The prefix is alike in all; what is behind it must decide.
    let behind = |variable: &str| variable.strip_prefix(PREFIX).unwrap_or_default().to_owned();
    let known: Vec<String> = KEYS
        .iter()
        .map(|key| behind(&key.variable()))
        .chain([behind(BACKENDS_VARIABLE)])
        .collect();
    let problem = match nearest(&behind(variable), known.iter().map(String::as_str)) {
        Some(near) => problem.label(format!("did you mean {PREFIX}{near}?")),
        None => problem,
    };
    problem.help("variables are WEIR_SECTION_KEY, one for each key, and WEIR_BACKENDS")
}

/// Whether the name is of the kind that Kubernetes makes of a service's name.
fn is_service_link(variable: &str) -> bool {
    let ends = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
    ends.iter().any(|end| variable.ends_with(end))
        || variable.contains("_SERVICE_PORT_")
        || variable.contains("_TCP")
}

/// `PORT`, once all else is known: it gives way to an address that `WEIR_SERVER_ADDRESS` or a flag set.
pub(super) fn apply_port(assembly: &mut Assembly, env: &[(String, String)]) {
    let Some((_, value)) = env.iter().find(|(variable, _)| variable == PORT) else {
        return;
    };
    let source = Source::environment(PORT, value);
    let place = Place::new(&source, PORT.len() + 1..PORT.len() + 1 + value.len());
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let Some(port) = value.parse::<u16>().ok().filter(|_| digits) else {
        let found = if value.is_empty() {
            "empty".to_owned()
        } else {
            quote(value)
        };
        let problem = Problem::new(format!(
            "server.address (from PORT): {found} where a port is needed"
        ));
        assembly.push(problem.at(place).help("allowed: a whole number from 0 to 65535"));
        return;
    };
    let Some(position) = position("server", "address") else {
        return;
    };
    let slot = &mut assembly.slots[position];
    if slot.layer > Layer::Short || slot.broken {
        return;
    }
    let mut tcp = assembly
        .config
        .server
        .address
        .iter_mut()
        .filter(|address| !matches!(address, ListenAddress::Unix(_)));
    match (tcp.next(), tcp.next()) {
        (Some(ListenAddress::Any { port: own }), None) => *own = port,
        (Some(ListenAddress::Tcp(address)), None) => address.set_port(port),
        (first, _) => {
            let why = if first.is_some() {
                "has several addresses with ports"
            } else {
                "has no address with a port"
            };
            let problem = Problem::new(format!(
                "PORT cannot replace the port of server.address, which {why}"
            ))
            .at(place);
            let problem = problem.help("unset PORT, or set WEIR_SERVER_ADDRESS, which overrules it");
            assembly.push(problem);
            return;
        }
    }
    slot.layer = Layer::Short;
    slot.place = Some(place);
}

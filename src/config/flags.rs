//! The layer of `--set section.key=value`.

use super::assembly::{Assembly, Layer};
use super::diagnostics::Problem;
use super::forms::at_commas;
use super::keys::{BACKENDS, KEYS};
use super::node::{Node, Raw};
use super::source::{Place, Source};
use super::suggest::nearest;

const FLAG: &str = "--set";

/// Reads what followed each `--set`, in order.
pub(super) fn apply(assembly: &mut Assembly, sets: &[String]) {
    for text in sets {
        let source = Source::flag(text);
        let whole = || Place::new(&source, 0..text.len());
        let Some((path, value)) = text.split_once('=') else {
            let problem = Problem::new("--set without \"=\" between key and value").at(whole());
            assembly.push(problem.help("write --set section.key=value, as in --set server.address=:8080"));
            continue;
        };
        if value.trim().is_empty() {
            assembly.push(
                Problem::new(format!("{path} (from {FLAG}): no value behind \"=\""))
                    .at(whole())
                    .help("leave the flag out for the default"),
            );
            continue;
        }
        let start = path.len() + 1;
        let node = Node {
            raw: Raw::Bare(value.to_owned()),
            span: start..start + value.len(),
        };
        if path == BACKENDS {
            assembly.replace_backends(&source, &at_commas(value, start), FLAG);
        } else if let Some(position) = KEYS.iter().position(|key| key.path() == path) {
            assembly.set(Layer::Flag, &source, position, &node, Some(FLAG));
        } else {
            assembly.push(unknown(path).at(Place::new(&source, 0..path.len())));
        }
    }
}

fn unknown(path: &str) -> Problem {
    let problem = Problem::new(format!("unknown key {path} (from {FLAG})"));
    if path.starts_with("backends.") {
        return problem.help(
            "--set backends=http://host:port,… gives the urls of all backends; the file gives the rest",
        );
    }
    let known: Vec<String> = KEYS.iter().map(|key| key.path()).collect();
    if let Some(near) = nearest(path, known.iter().map(String::as_str)) {
        return problem.label(format!("did you mean {near}?"));
    }
    problem.help("keys are written section.key, as in server.address")
}

//! The layer of the configuration file: which sections and keys there are, and what to say of those there are not.

use std::sync::Arc;

use super::assembly::{Assembly, Layer};
use super::diagnostics::Problem;
use super::keys::{BACKEND_KEYS, BACKENDS, Draft, KEYS, Key, RESERVED, position, sections};
use super::node::{Name, Node, Raw, Table, parse_toml, quote};
use super::source::{Place, Source};
use super::suggest::nearest;

/// The longest file that is read, in bytes.
pub(super) const MAX_FILE: u64 = 1 << 20;

/// Reads `text`, called `name` in errors, into `assembly`.
pub(super) fn apply(assembly: &mut Assembly, name: &str, text: &str) {
    let source = Source::file(name, text);
    let (table, mut faults) = parse_toml(text);
    // Of the faults of one line, the later ones come from the first.
    faults.sort_by_key(|fault| fault.span.start);
    faults.dedup_by_key(|fault| source.line(fault.span.start));
    let faulty: Vec<usize> = faults.iter().map(|fault| source.line(fault.span.start)).collect();
    for fault in &faults {
        let start = text.floor_char_boundary(fault.span.start);
        let begin = text[..start].rfind('\n').map_or(0, |end| end + 1);
        let line = text[begin..].lines().next().unwrap_or_default();
        let place = Place::new(&source, fault.span.clone());
        assembly.push(explained(&fault.message, line, start - begin).at(place));
    }
    // Behind a fault the parser guesses: what it made of that very line, or took out of its section, is not worth a
    // second error.
    let before = assembly.problems.len();
    entries(assembly, &source, &table, faulty.is_empty());
    let sound = |problem: &Problem| problem.line().is_none_or(|(_, line)| !faulty.contains(&line));
    let mut found = assembly.problems.split_off(before);
    found.retain(sound);
    found.sort_by_key(Problem::start);
    assembly.problems.append(&mut found);
    // Nor is what is missing then.
    assembly.backends_named |= !faulty.is_empty();
}

/// A fault at byte `at` of `line`, in plainer words than the parser's where it is what is seen most: a value without its
/// quotes, or none at all.
fn explained(message: &str, line: &str, at: usize) -> Problem {
    let plain = |c: char| c.is_alphanumeric() || " _-./:*%".contains(c);
    let behind = |key: &str| at > key.len();
    match line.split_once('=').filter(|(key, _)| behind(key)) {
        Some((key, value)) if value.trim().is_empty() => {
            Problem::new(format!("not TOML: {} has no value", key.trim()))
        }
        Some((key, value)) if value.chars().all(plain) => {
            let value = quote(value.trim());
            let problem = Problem::new(format!("not TOML: {value} is not a value"));
            problem.help(format!("text stands in quotes: {} = {value}", key.trim()))
        }
        _ => Problem::new(format!("not TOML: {message}")),
    }
}

/// The top of the file. `sections_hold`: whether what stands outside of the known sections was meant to.
fn entries(assembly: &mut Assembly, source: &Arc<Source>, table: &Table, sections_hold: bool) {
    for (name, node) in table {
        let place = Place::new(source, name.span.clone());
        match (name.text.as_str(), &node.raw) {
            (BACKENDS, _) => backends(assembly, source, name, node),
            (section, _) if RESERVED.contains(&section) => {
                let problem = Problem::new(format!("[{section}] is not supported yet")).at(place);
                assembly.push(problem.help(
                    "this version has one listener and one pool: [server], [strategy] and [[backends]] make them",
                ));
            }
            (section, Raw::Table(table)) if sections().contains(&section) => {
                keys(assembly, source, section, table);
            }
            (section, other) if sections().contains(&section) => {
                let problem = match other {
                    Raw::List(_) => Problem::new(format!("[[{section}]] where [{section}] is needed")),
                    other => Problem::new(format!(
                        "{section}: {} where a section is needed",
                        other.describe()
                    )),
                };
                assembly.push(
                    problem
                        .at(place)
                        .help(format!("write [{section}], and its keys below it")),
                );
            }
            _ if !sections_hold => {}
            (unknown, Raw::Table(_) | Raw::List(_)) => assembly.push(unknown_section(unknown).at(place)),
            (unknown, _) => assembly.push(outside(unknown).at(place)),
        }
    }
}

fn keys(assembly: &mut Assembly, source: &Arc<Source>, section: &str, table: &Table) {
    for (name, node) in table {
        match position(section, &name.text) {
            Some(position) => assembly.set(Layer::File, source, position, node, None),
            None => {
                let place = Place::new(source, name.span.clone());
                assembly.push(unknown_key(section, &name.text).at(place));
            }
        }
    }
}

fn backends(assembly: &mut Assembly, source: &Arc<Source>, name: &Name, node: &Node) {
    assembly.backends_named = true;
    let Raw::List(list) = &node.raw else {
        let problem = Problem::new(format!(
            "backends: {} where [[backends]] is needed",
            node.raw.describe()
        ));
        let place = Place::new(source, name.span.clone());
        assembly.push(
            problem
                .at(place)
                .help("write [[backends]], once for each backend, and url = \"…\" below it"),
        );
        return;
    };
    if list.is_empty() {
        assembly.backends_named = false;
    }
    for node in list {
        let Raw::Table(table) = &node.raw else {
            let problem = Problem::new(format!(
                "backends: {} where a table is needed",
                node.raw.describe()
            ));
            let place = Place::new(source, node.span.clone());
            assembly.push(
                problem
                    .at(place)
                    .help("write [[backends]] and url = \"…\" below it, once for each backend"),
            );
            continue;
        };
        let mut known: Vec<(&Key<Draft>, Node)> = Vec::new();
        for (name, node) in table {
            match BACKEND_KEYS.iter().find(|key| key.name == name.text) {
                Some(key) => known.push((key, node.clone())),
                None => {
                    let place = Place::new(source, name.span.clone());
                    assembly.push(unknown_key(BACKENDS, &name.text).at(place));
                }
            }
        }
        assembly.backend(source, &known, node.span.clone());
    }
}

fn unknown_section(section: &str) -> Problem {
    let mut known = sections();
    known.push(BACKENDS);
    let problem = Problem::new(format!("unknown section [{section}]"));
    let problem = match nearest(section, known.iter().copied()) {
        Some(BACKENDS) => problem.label("did you mean [[backends]]?"),
        Some(near) => problem.label(format!("did you mean [{near}]?")),
        None => problem,
    };
    problem.help(format!("sections: {}", known.join(", ")))
}

/// A key above the first section.
fn outside(name: &str) -> Problem {
    let problem = Problem::new(format!("unknown key {name} outside of any section"));
    match homes(name).as_slice() {
        [] => problem.help("every key stands below a [section]"),
        homes => problem.help(format!("it is a key of {}", homes.join(", "))),
    }
}

fn unknown_key(section: &str, name: &str) -> Problem {
    let known = names(section);
    let mut problem = Problem::new(format!("unknown key {section}.{name}"));
    if let Some(near) = nearest(name, known.iter().copied()) {
        problem = problem.label(format!("did you mean {near}?"));
    } else if let [first, rest @ ..] = homes(name).as_slice() {
        let homes = rest
            .iter()
            .fold(first.clone(), |homes, home| format!("{homes} and {home}"));
        problem = problem.label(format!("{name} is a key of {homes}"));
    }
    let section = if section == BACKENDS {
        "[[backends]]".to_owned()
    } else {
        format!("[{section}]")
    };
    problem.help(format!("keys of {section}: {}", known.join(", ")))
}

/// The keys of one section.
fn names(section: &str) -> Vec<&'static str> {
    match section {
        BACKENDS => BACKEND_KEYS.iter().map(|key| key.name).collect(),
        section => KEYS
            .iter()
            .filter(|key| key.section == section)
            .map(|key| key.name)
            .collect(),
    }
}

/// The sections that have a key of this name.
fn homes(name: &str) -> Vec<String> {
    let own = KEYS
        .iter()
        .filter(|key| key.name == name)
        .map(|key| format!("[{}]", key.section));
    let backends = BACKEND_KEYS
        .iter()
        .filter(|key| key.name == name)
        .map(|_| "[[backends]]".to_owned());
    own.chain(backends).collect()
}

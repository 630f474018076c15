//! `/log-level`: what is logged, read and changed while weir runs.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::command::Refused;
use crate::config::model::Level;
use crate::config::nearest;
use crate::log;
use crate::log::levels::{Change, Levels, MODULES, Module, level_named, level_words, word};

/// The levels in force.
pub(super) fn shown() -> Value {
    log::levels().map_or(Value::Null, |levels| show(&levels))
}

/// Levels as the API shows them.
pub fn show(levels: &Levels) -> Value {
    let modules: Map<String, Value> = levels
        .modules
        .iter()
        .map(|(module, level)| (module.name().to_owned(), word(*level).into()))
        .collect();
    json!({ "level": word(levels.level), "modules": modules })
}

/// What a body asks for: `level`, for all or for one `module`, or `modules` with a level each.
pub(super) fn set(body: &Map<String, Value>) -> Result<Change, Refused> {
    if let Some(unknown) = body
        .keys()
        .find(|key| !["level", "module", "modules"].contains(&key.as_str()))
    {
        return Err(refused(format!("{unknown:?} means nothing here")));
    }
    let level = body.get("level").map(level).transpose()?;
    let change = match (level, body.get("module"), body.get("modules")) {
        (Some(level), Some(name), None) => Change::Set {
            level: None,
            modules: vec![(module(&text(name, "module")?)?, level)],
        },
        (level, None, Some(Value::Object(members))) if level.is_some() || !members.is_empty() => {
            let named = members
                .iter()
                .map(|(name, value)| Ok((module(name)?, self::level(value)?)));
            Change::Set {
                level,
                modules: named.collect::<Result<_, Refused>>()?,
            }
        }
        (Some(level), None, None) => Change::Set {
            level: Some(level),
            modules: Vec::new(),
        },
        _ => {
            return Err(refused(
                "the body needs a level, for all or for one module: {\"level\": \"debug\"}, {\"level\": \"debug\", \
                 \"module\": \"proxy\"} or {\"modules\": {\"proxy\": \"debug\"}}"
                    .to_owned(),
            ));
        }
    };
    Ok(change)
}

/// What a `DELETE` asks for.
pub(super) fn clear(name: Option<&str>, body: &Map<String, Value>) -> Result<Change, Refused> {
    if let Some(unknown) = body.keys().next() {
        return Err(refused(format!("{unknown:?} means nothing here")));
    }
    name.map_or(Ok(Change::ClearAll), |name| module(name).map(Change::Clear))
}

fn level(value: &Value) -> Result<Level, Refused> {
    let name = text(value, "a level")?;
    level_named(&name).ok_or_else(|| unknown("level", &name, &level_words()))
}

fn module(name: &str) -> Result<Module, Refused> {
    Module::named(name).ok_or_else(|| unknown("module that logs", name, &MODULES))
}

fn text(value: &Value, what: &str) -> Result<String, Refused> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| refused(format!("{value} is no text, where {what} is needed")))
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Refused {
    let meant = nearest(name, known.iter().copied())
        .map(|near| format!("did you mean {near:?}? "))
        .unwrap_or_default();
    refused(format!(
        "there is no {what} {name:?}; {meant}there are: {}",
        known.join(", ")
    ))
}

fn refused(message: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: Value) -> Result<Change, String> {
        let Value::Object(members) = body else {
            panic!("no object")
        };
        set(&members).map_err(|refused| refused.message)
    }

    #[test]
    fn bodies_and_what_they_ask_for() {
        let of = |name, level| (Module::named(name).unwrap(), level);
        for (body, level, modules) in [
            (json!({ "level": "debug" }), Some(Level::Debug), vec![]),
            (
                json!({ "level": "warn", "module": "proxy" }),
                None,
                vec![of("proxy", Level::Warn)],
            ),
            (
                json!({ "modules": { "proxy": "trace", "health": "error" } }),
                None,
                vec![of("proxy", Level::Trace), of("health", Level::Error)],
            ),
            (
                json!({ "level": "info", "modules": { "proxy": "trace" } }),
                Some(Level::Info),
                vec![of("proxy", Level::Trace)],
            ),
            (
                json!({ "level": "info", "modules": {} }),
                Some(Level::Info),
                vec![],
            ),
        ] {
            assert_eq!(asked(body.clone()), Ok(Change::Set { level, modules }), "{body}");
        }
    }

    #[test]
    fn bodies_that_ask_for_nothing_are_told_what_there_is() {
        for (body, why) in [
            (json!({}), "needs a level"),
            (json!({ "module": "proxy" }), "needs a level"),
            (json!({ "modules": {} }), "needs a level"),
            (json!({ "modules": "proxy" }), "needs a level"),
            (
                json!({ "level": "info", "module": "proxy", "modules": {} }),
                "needs a level",
            ),
            (json!({ "level": 3 }), "3 is no text"),
            (json!({ "level": "debug", "module": null }), "null is no text"),
            (json!({ "loud": true }), "\"loud\" means nothing"),
            (
                json!({ "level": "Debug" }),
                "no level \"Debug\"; did you mean \"debug\"? there are: error, warn, info, debug, trace",
            ),
            (json!({ "level": "x" }), "no level \"x\"; there are: error,"),
            (
                json!({ "modules": { "prxy": "debug" } }),
                "no module that logs \"prxy\"; did you mean \"proxy\"?",
            ),
            (json!({ "modules": { "proxy": "loud" } }), "no level \"loud\""),
        ] {
            let error = asked(body.clone()).expect_err("nothing is asked for");
            assert!(error.contains(why), "{body}: {error}");
        }
    }
}

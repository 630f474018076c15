//! The forms of values: how each kind is read, what it allows, and how it is written.
//!
//! A form reads from any source (a file's typed value, or the bare text of a variable or a flag) and writes what it would
//! read again, so that the effective configuration is itself a configuration.

mod access_log;
mod backend;
mod collector;
mod http;
mod list;
mod module_level;
mod net;
mod request;
mod scalars;
mod strategy;
mod units;
mod words;

use std::ops::Range;

use super::node::{Node, Raw, quote};

pub(super) use access_log::{AccessFormatForm, AccessOutputForm, LowerName};
pub(super) use backend::{BackendName, BackendUrl, Target};
pub(super) use collector::CollectorForm;
pub(super) use http::{FailureForm, HeaderForm, HostForm, HostName, MethodForm, PathForm, StatusRangeForm};
pub(super) use list::{List, at_commas};
pub(super) use module_level::ModuleLevel;
pub(super) use net::{FilePath, IpForm, ListenForm, NetForm, overlap, show_listen};
pub use request::hash_key_name;
pub(super) use request::{CookieName, CookiePath, HashKeyForm, RateKeyForm};
pub(super) use scalars::{Boolean, Decimal, Integer, Optional, Text};
pub(super) use strategy::StrategyForm;
pub use strategy::strategy_name;
pub(super) use units::{InMemory, Rate, Size, Time};
pub use units::{parse_duration, parse_size};
pub(super) use words::Words;

/// One kind of value.
pub(super) trait Form {
    type Out;

    /// What may be written, as a phrase: "a whole number from 1 to 65535".
    fn allowed(&self) -> String;

    /// The value that `node` holds; on `None`, `bad` got at least one reason.
    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<Self::Out>;

    /// The value in TOML.
    fn show(&self, value: &Self::Out) -> String;
}

/// Why one value was refused.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) span: Range<usize>,
    /// A sentence without the key: `"abc" is not a duration`.
    pub(super) reason: String,
    /// What to do about this very case, where that is more than the allowed values.
    pub(super) hint: Option<String>,
}

impl Bad {
    fn new(node: &Node, reason: impl Into<String>) -> Bad {
        Bad {
            span: node.span.clone(),
            reason: reason.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Bad {
        self.hint = Some(hint.into());
        self
    }
}

/// Why a text was refused, before anybody knows where it stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A predicate for the text: "has no unit".
    pub(super) reason: String,
    pub(super) hint: Option<String>,
}

impl Refusal {
    fn new(reason: impl Into<String>) -> Refusal {
        Refusal {
            reason: reason.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = Some(hint.into());
        self
    }

    fn at(self, node: &Node, text: &str) -> Bad {
        Bad {
            span: node.span.clone(),
            reason: format!("{} {}", quote(text), self.reason),
            hint: self.hint,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)?;
        self.hint.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

impl std::error::Error for Refusal {}

/// The text of `node`, or a refusal that says that a `what` is needed.
fn text<'a>(node: &'a Node, what: &str, bad: &mut Vec<Bad>) -> Option<&'a str> {
    match &node.raw {
        Raw::String(text) | Raw::Bare(text) if text.trim().is_empty() => {
            bad.push(Bad::new(node, format!("empty, where {what} is needed")));
            None
        }
        Raw::String(text) | Raw::Bare(text) => Some(text),
        other => {
            bad.push(Bad::new(
                node,
                format!("{} where {what} is needed", other.describe()),
            ));
            None
        }
    }
}

/// Reads the text of `node` by `parse`.
fn parsed<T>(
    node: &Node,
    what: &str,
    bad: &mut Vec<Bad>,
    parse: impl FnOnce(&str) -> Result<T, Refusal>,
) -> Option<T> {
    let text = text(node, what, bad)?;
    parse(text)
        .map_err(|refusal| bad.push(refusal.at(node, text)))
        .ok()
}

/// `text` as a TOML string.
pub(super) fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

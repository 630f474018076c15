//! A configuration text as a tree of values that know where they were written, whatever syntax they were written in.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// A value and the bytes of its source that it came from.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) raw: Raw,
    pub(super) span: Range<usize>,
}

/// What was written.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// A quoted string of a file.
    String(String),
    /// Bare text of an environment variable or a flag, whose type the key decides.
    Bare(String),
    Integer(i64),
    /// A number that is not an `i64`, as written.
    Number(String),
    Boolean(bool),
    Datetime(String),
    List(Vec<Node>),
    Table(Table),
}

/// The entries of a table, in the order in which they were written.
pub(super) type Table = Vec<(Name, Node)>;

/// The name of an entry and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

/// A fault of the syntax itself.
pub(super) struct SyntaxError {
    pub(super) message: String,
    pub(super) span: Range<usize>,
}

/// Reads TOML, going on behind a fault: what could be read, and every fault.
pub(super) fn parse_toml(text: &str) -> (Table, Vec<SyntaxError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .into_iter()
        .map(|error| SyntaxError {
            message: error.message().to_owned(),
            span: error.span().unwrap_or(0..0),
        })
        .collect();
    (entries(table.into_inner()), errors)
}

fn entries(table: DeTable<'_>) -> Table {
    let mut entries: Table = table
        .into_iter()
        .map(|(name, value)| (named(name), node(value)))
        .collect();
    entries.sort_by_key(|(name, _)| name.span.start);
    entries
}

fn named(name: Spanned<DeString<'_>>) -> Name {
    Name {
        span: name.span(),
        text: name.into_inner().into_owned(),
    }
}

fn node(value: Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let raw = match value.into_inner() {
        DeValue::String(text) => Raw::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(small) => Raw::Integer(small),
            Err(_) => Raw::Number(number.to_string()),
        },
        DeValue::Float(number) => Raw::Number(number.to_string()),
        DeValue::Boolean(value) => Raw::Boolean(value),
        DeValue::Datetime(value) => Raw::Datetime(value.to_string()),
        DeValue::Array(values) => Raw::List(values.into_iter().map(node).collect()),
        DeValue::Table(table) => Raw::Table(entries(table)),
    };
    Node { raw, span }
}

impl Raw {
    /// What this is, for the sentence "... where X is needed".
    pub(super) fn describe(&self) -> String {
        match self {
            Raw::String(text) | Raw::Bare(text) => quote(text),
            Raw::Integer(number) => format!("the number {number}"),
            Raw::Number(number) => format!("the number {}", shorten(number)),
            Raw::Boolean(value) => format!("{value}"),
            Raw::Datetime(text) => format!("the date {text}"),
            Raw::List(_) => "a list".to_owned(),
            Raw::Table(_) => "a table".to_owned(),
        }
    }
}

/// `text` in quotes, on one line, cut where it gets long.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", shorten(text))
}

fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

//! Whole numbers, yes and no, text, and values that may be turned off.

use std::fmt::Display;

use super::{Bad, Form, Refusal, parsed, text, toml_string};
use crate::config::node::{Node, Raw, quote};

/// A whole number within bounds, both included.
pub(in crate::config) struct Integer<T> {
    pub(in crate::config) min: T,
    pub(in crate::config) max: T,
}

impl<T: Copy + Display + TryFrom<i64> + PartialOrd> Form for Integer<T> {
    type Out = T;

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<T> {
        let number = match &node.raw {
            Raw::Integer(number) => *number,
            Raw::Bare(text) if is_whole(text) => match text.parse() {
                Ok(number) => number,
                Err(_) => {
                    bad.push(Bad::new(node, format!("{text} is out of range")));
                    return None;
                }
            },
            Raw::String(text) if is_whole(text) => {
                let reason = format!("{} in quotes, where a whole number is needed", quote(text));
                bad.push(Bad::new(node, reason).hint(format!("write {text} without the quotes")));
                return None;
            }
            other => {
                let reason = format!("{} where a whole number is needed", other.describe());
                bad.push(Bad::new(node, reason));
                return None;
            }
        };
        let value = T::try_from(number)
            .ok()
            .filter(|value| (self.min..=self.max).contains(value));
        if value.is_none() {
            bad.push(Bad::new(node, format!("{number} is out of range")));
        }
        value
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }
}

/// Digits, with a minus before them at most (the standard parser takes a plus too).
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// `true` or `false`.
pub(in crate::config) struct Boolean;

impl Form for Boolean {
    type Out = bool;

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<bool> {
        match &node.raw {
            Raw::Boolean(value) => Some(*value),
            Raw::Bare(text) if text == "true" => Some(true),
            Raw::Bare(text) if text == "false" => Some(false),
            Raw::String(text) if text == "true" || text == "false" => {
                let reason = format!("{} in quotes, where true or false is needed", quote(text));
                bad.push(Bad::new(node, reason).hint(format!("write {text} without the quotes")));
                None
            }
            other => {
                bad.push(Bad::new(
                    node,
                    format!("{} where true or false is needed", other.describe()),
                ));
                None
            }
        }
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// Text on one line.
pub(in crate::config) struct Text {
    /// In bytes.
    pub(in crate::config) max: usize,
}

impl Form for Text {
    type Out = String;

    fn allowed(&self) -> String {
        format!("text of 1 to {} bytes on one line", self.max)
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<String> {
        parsed(node, "text", bad, |text| {
            if text.chars().any(char::is_control) {
                return Err(Refusal::new("holds a control character or a line end"));
            }
            if text.len() > self.max {
                return Err(Refusal::new(format!("is {} bytes long", text.len())));
            }
            Ok(text.to_owned())
        })
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }
}

/// A value, or a word for having none.
pub(in crate::config) struct Optional<F> {
    pub(in crate::config) form: F,
    /// `none` and `off` are both read where one of them stands here; `auto` alone.
    pub(in crate::config) word: &'static str,
}

impl<F> Optional<F> {
    fn is_none(&self, text: &str) -> bool {
        let off = |word: &str| word == "none" || word == "off";
        text == self.word || (off(self.word) && off(text))
    }
}

impl<F: Form> Form for Optional<F> {
    type Out = Option<F::Out>;

    fn allowed(&self) -> String {
        format!("{}, or \"{}\"", self.form.allowed(), self.word)
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<Option<F::Out>> {
        match &node.raw {
            Raw::String(text) | Raw::Bare(text) if self.is_none(text) => return Some(None),
            Raw::Boolean(false) => {
                let hint = format!("write \"{}\"", self.word);
                bad.push(Bad::new(node, "false is not a value here").hint(hint));
                return None;
            }
            Raw::String(_) => {
                // An empty string is no way to say "none".
                text(node, "a value", bad)?;
            }
            _ => {}
        }
        self.form.read(node, bad).map(Some)
    }

    fn show(&self, value: &Option<F::Out>) -> String {
        match value {
            Some(value) => self.form.show(value),
            None => toml_string(self.word),
        }
    }
}

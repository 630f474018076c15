//! Numbers, yes and no, text, and values that may be turned off.

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

/// A number with or without decimals, within bounds, both included.
pub(in crate::config) struct Decimal {
    pub(in crate::config) min: f64,
    pub(in crate::config) max: f64,
    /// Whether 0 is allowed too, below `min` as it is: it turns off what the number is for.
    pub(in crate::config) or_zero: bool,
}

impl Form for Decimal {
    type Out = f32;

    fn allowed(&self) -> String {
        let zero = if self.or_zero { ", or 0 for off" } else { "" };
        format!("a number from {} to {}{zero}", self.min, self.max)
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<f32> {
        let (number, shown) = match &node.raw {
            Raw::Integer(number) => (Some(*number as f64), number.to_string()),
            Raw::Number(text) => (decimal(text), text.clone()),
            Raw::Bare(text) if decimal(text).is_some() => (decimal(text), text.clone()),
            Raw::String(text) if decimal(text).is_some() => {
                let reason = format!("{} in quotes, where a number is needed", quote(text));
                bad.push(Bad::new(node, reason).hint(format!("write {text} without the quotes")));
                return None;
            }
            Raw::String(text) | Raw::Bare(text) if self.or_zero && (text == "off" || text == "none") => {
                let reason = format!("{} where a number is needed", quote(text));
                bad.push(Bad::new(node, reason).hint("write 0"));
                return None;
            }
            other => (None, other.describe()),
        };
        let Some(number) = number else {
            bad.push(Bad::new(node, format!("{shown} where a number is needed")));
            return None;
        };
        let off = self.or_zero && number == 0.0;
        if !off && !(self.min..=self.max).contains(&number) {
            bad.push(Bad::new(node, format!("{shown} is out of range")));
            return None;
        }
        // Adding zero makes a zero of "-0".
        Some(number as f32 + 0.0)
    }

    fn show(&self, value: &f32) -> String {
        value.to_string()
    }
}

/// A finite number in digits; words that the standard parser takes for numbers are none here.
fn decimal(text: &str) -> Option<f64> {
    let known = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.filter(|_| text.bytes().all(known))
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
    /// `none` and `off` are read beside it, unless it is `auto`.
    pub(in crate::config) word: &'static str,
}

impl<F> Optional<F> {
    fn is_none(&self, text: &str) -> bool {
        text == self.word || (self.word != "auto" && (text == "none" || text == "off"))
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

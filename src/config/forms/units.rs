//! Durations, sizes and rates, as people write them: `1m30s`, `64KiB`, `1KiB/s`.

use std::time::Duration;

use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::node::{Node, Raw};

/// Largest first, in nanoseconds: the order in which a duration names them.
const TIME_UNITS: &[(&str, u128)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Largest first: the order in which a size tries them when it is shown.
const SIZE_UNITS: &[(&str, u128)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// A duration like `2s`, `500ms`, `1.5s` or `1h30m`; the units are d, h, m, s, ms, us and ns, each at most once, largest
/// first. Exact to the nanosecond.
pub fn parse_duration(text: &str) -> Result<Duration, Refusal> {
    let mut rest = text;
    let mut units = TIME_UNITS;
    let mut nanos: u128 = 0;
    if text.is_empty() {
        return Err(Refusal::new("is not a duration"));
    }
    while !rest.is_empty() {
        let (number, unit, behind) = amount(rest).ok_or_else(|| Refusal::new("is not a duration"))?;
        if unit.is_empty() {
            let hint = format!("write the unit too, as in \"{text}s\" or \"{text}ms\"");
            let refusal = Refusal::new("has no unit");
            return Err(if rest.len() == text.len() {
                refusal.hint(hint)
            } else {
                refusal
            });
        }
        let Some(at) = units.iter().position(|(name, _)| *name == unit) else {
            let known = TIME_UNITS.iter().any(|(name, _)| *name == unit);
            return Err(if known {
                Refusal::new("does not name its units from largest to smallest, each once")
            } else {
                Refusal::new(format!("has the unit \"{unit}\"")).hint("units are ms, s, m, h, d (and us, ns)")
            });
        };
        let part = scaled(number, units[at].1)?;
        nanos = nanos.checked_add(part).ok_or_else(too_large)?;
        units = &units[at + 1..];
        rest = behind;
    }
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| too_large())
}

/// A size in bytes: `64KiB`, `1MB`, `1.5GiB`, `512B`, or a plain number of bytes.
pub fn parse_size(text: &str) -> Result<u64, Refusal> {
    let (number, unit, behind) = amount(text).ok_or_else(|| Refusal::new("is not a size"))?;
    if !behind.is_empty() {
        return Err(Refusal::new("is not a size"));
    }
    let factor = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => {
            let refusal = Refusal::new(format!("has the unit \"{unit}\""));
            return Err(
                refusal.hint("units are KiB, MiB, GiB (powers of 1024), kB, MB, GB (powers of 1000) and B")
            );
        }
    };
    u64::try_from(scaled(number, factor)?).map_err(|_| too_large())
}

fn too_large() -> Refusal {
    Refusal::new("is too large")
}

/// Splits `12.5KiB…` into number, letters and what is behind; `None` unless it begins with a digit.
fn amount(text: &str) -> Option<(&str, &str, &str)> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let letters = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, behind) = rest.split_at(letters);
    let stuck = unit.is_empty() && !behind.is_empty();
    (number.starts_with(|c: char| c.is_ascii_digit()) && !stuck).then_some((number, unit, behind))
}

/// `number` (digits, perhaps with a decimal point) times `factor`, exactly.
fn scaled(number: &str, factor: u128) -> Result<u128, Refusal> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| text.parse::<u64>().map(u128::from);
    if fraction.is_empty() || fraction.contains('.') {
        return Err(Refusal::new("is not a number"));
    }
    if fraction.len() > 12 {
        return Err(Refusal::new("has too many decimals"));
    }
    let whole = digits(whole).map_err(|_| too_large())?;
    let fraction_of = 10u128.pow(fraction.len() as u32);
    let fraction = digits(fraction).map_err(|_| too_large())? * factor;
    if !fraction.is_multiple_of(fraction_of) {
        return Err(Refusal::new("is not a whole number of the smallest unit"));
    }
    let whole = whole.checked_mul(factor).ok_or_else(too_large)?;
    whole.checked_add(fraction / fraction_of).ok_or_else(too_large)
}

/// `1h30m`; what [`parse_duration`] reads as the same.
fn show_duration(value: Duration) -> String {
    let mut nanos = value.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in TIME_UNITS {
        let count = nanos / factor;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            nanos %= factor;
        }
    }
    text
}

/// With the largest unit that divides it; what [`parse_size`] reads as the same.
fn show_size(bytes: u64) -> String {
    let fits = |factor: u128| u128::from(bytes) >= factor && u128::from(bytes).is_multiple_of(factor);
    match SIZE_UNITS.iter().find(|(_, factor)| *factor > 1 && fits(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", u128::from(bytes) / factor),
        None => bytes.to_string(),
    }
}

/// A size in TOML: a string with a unit, or a plain number of bytes.
fn toml_size(bytes: u64) -> String {
    let shown = show_size(bytes);
    if shown.bytes().all(|byte| byte.is_ascii_digit()) {
        shown
    } else {
        toml_string(&shown)
    }
}

/// A duration within bounds, both included.
pub(in crate::config) struct Time {
    pub(in crate::config) min: Duration,
    pub(in crate::config) max: Duration,
}

impl Time {
    /// From a millisecond to a year.
    pub(in crate::config) const POSITIVE: Time = Time {
        min: Duration::from_millis(1),
        max: Duration::from_secs(365 * 86_400),
    };

    /// From nothing to a day.
    pub(in crate::config) const FROM_ZERO: Time = Time {
        min: Duration::ZERO,
        max: Duration::from_secs(86_400),
    };
}

impl Form for Time {
    type Out = Duration;

    fn allowed(&self) -> String {
        format!(
            "a duration like \"2s\", \"500ms\" or \"1h30m\", from {} to {}",
            show_duration(self.min),
            show_duration(self.max)
        )
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<Duration> {
        if let Raw::Integer(number) = node.raw {
            let reason = format!("the number {number} has no unit, where a duration is needed");
            let hint = format!("write \"{number}s\" or \"{number}ms\"");
            bad.push(Bad::new(node, reason).hint(hint));
            return None;
        }
        parsed(node, "a duration", bad, |text| {
            let value = parse_duration(text)?;
            if value < self.min {
                return Err(Refusal::new("is too short"));
            }
            if value > self.max {
                return Err(Refusal::new("is too long"));
            }
            Ok(value)
        })
    }

    fn show(&self, value: &Duration) -> String {
        toml_string(&show_duration(*value))
    }
}

/// A number of bytes within bounds, both included.
pub(in crate::config) struct Size {
    pub(in crate::config) min: u64,
    pub(in crate::config) max: u64,
}

impl Size {
    fn check(&self, bytes: u64) -> Result<u64, Refusal> {
        if bytes < self.min {
            return Err(Refusal::new("is too small"));
        }
        if bytes > self.max {
            return Err(too_large());
        }
        Ok(bytes)
    }
}

/// The bytes that a plain number stands for, judged by `check`.
fn plain_bytes(
    node: &Node,
    number: i64,
    bad: &mut Vec<Bad>,
    check: impl Fn(u64) -> Result<u64, Refusal>,
) -> Option<u64> {
    let bytes = u64::try_from(number)
        .map_err(|_| Refusal::new("is negative"))
        .and_then(check);
    bytes
        .map_err(|refusal| bad.push(Bad::new(node, format!("{number} {}", refusal.reason))))
        .ok()
}

impl Form for Size {
    type Out = u64;

    fn allowed(&self) -> String {
        let (min, max) = (show_size(self.min), show_size(self.max));
        format!("a size like \"64KiB\" or \"1MB\", or a number of bytes, from {min} to {max}")
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<u64> {
        if let Raw::Integer(number) = node.raw {
            return plain_bytes(node, number, bad, |bytes| self.check(bytes));
        }
        parsed(node, "a size", bad, |text| {
            parse_size(text).and_then(|bytes| self.check(bytes))
        })
    }

    fn show(&self, value: &u64) -> String {
        toml_size(*value)
    }
}

/// A form of `u64` whose values are kept as `usize`; its bounds keep it within 32 bits.
pub(in crate::config) struct InMemory<F>(pub(in crate::config) F);

impl<F: Form<Out = u64>> Form for InMemory<F> {
    type Out = usize;

    fn allowed(&self) -> String {
        self.0.allowed()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<usize> {
        self.0
            .read(node, bad)
            .and_then(|bytes| usize::try_from(bytes).ok())
    }

    fn show(&self, value: &usize) -> String {
        self.0.show(&(*value as u64))
    }
}

/// Bytes per second; 0 is written "off".
pub(in crate::config) struct Rate {
    pub(in crate::config) max: u64,
}

impl Rate {
    fn check(&self, bytes: u64) -> Result<u64, Refusal> {
        if bytes > self.max {
            Err(too_large())
        } else {
            Ok(bytes)
        }
    }
}

impl Form for Rate {
    type Out = u64;

    fn allowed(&self) -> String {
        format!(
            "a rate like \"1KiB/s\", up to {}/s, or \"off\"",
            show_size(self.max)
        )
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<u64> {
        if let Raw::Integer(number) = node.raw {
            return plain_bytes(node, number, bad, |bytes| self.check(bytes));
        }
        parsed(node, "a rate", bad, |text| {
            if text == "off" || text == "none" {
                return Ok(0);
            }
            let size = match text.strip_suffix("/s") {
                Some(size) => size,
                None if text.bytes().all(|byte| byte.is_ascii_digit()) => text,
                None => return Err(Refusal::new("is not a rate").hint("end it in /s, as in \"1KiB/s\"")),
            };
            parse_size(size).and_then(|bytes| self.check(bytes))
        })
    }

    fn show(&self, value: &u64) -> String {
        match value {
            0 => toml_string("off"),
            bytes if show_size(*bytes).ends_with('B') => toml_string(&format!("{}/s", show_size(*bytes))),
            bytes => toml_string(&format!("{bytes}B/s")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("2s", 2_000),
            ("500ms", 500),
            ("1m", 60_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("0s", 0),
            ("1d", 86_400_000),
            ("1h0m1s", 3_601_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("1us"), Ok(Duration::from_micros(1)));
    }

    #[test]
    fn durations_that_are_none() {
        for text in [
            "", " ", "s", "2", "2 s", "2x", "-2s", "+2s", "2s3", "1m1h", "1s1s", "1..5s", "1.s", ".5s",
            "1e3s", "2S", "∞",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert!(parse_duration("99999999999999999999s").is_err());
        assert!(parse_duration("600y").is_err());
        assert!(parse_duration("0.3ns").is_err());
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("1MiB", 1 << 20),
            ("1MB", 1_000_000),
            ("1kB", 1_000),
            ("1.5GiB", 3 << 29),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "1K",
            "64k",
            "1 MiB",
            "1kib",
            "-1",
            "1.5B",
            "1KiB1B",
            "99999999TiB",
            "0x10",
        ] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_shown(nanos: u64) {
            let value = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&show_duration(value)), Ok(value));
        }

        #[test]
        fn a_size_reads_back_as_shown(bytes: u64) {
            prop_assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn round_sizes_read_back_as_shown(count in 1u64..1000, unit in 0..SIZE_UNITS.len()) {
            let bytes = count * SIZE_UNITS[unit].1 as u64;
            prop_assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn any_text_gets_a_verdict(text: String) {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }

        #[test]
        fn text_that_is_nearly_right_gets_a_verdict(text in "[0-9.]{0,25}[a-zA-Z]{0,3}[0-9.]{0,25}[a-zA-Z/]{0,3}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}

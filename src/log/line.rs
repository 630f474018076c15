//! How one event becomes one line, as JSON or as text.
//!
//! A line is begun and filled by the thread that logs and ended by the writer, which may have something large to add
//! (a backtrace, whose symbols are looked up there and not on a worker). Whatever strangers managed to get into a value
//! is escaped: control characters, line separators and the characters that reverse the reading direction, so that a
//! line stays one line and a terminal shows what is there. A line is cut at [`MAX_BYTES`].

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::SystemTime;

use tracing::field::{Field, Visit};

use super::levels::word;
use super::timestamp;
use crate::config::model::{Level, LogFormat};

/// Where values are cut and further fields are left out. A few bytes of structure may follow.
pub(super) const MAX_BYTES: usize = 16 * 1024;

/// What marks a cut.
const CUT: &str = "…";

/// How lines look; fixed when the log starts.
#[derive(Debug)]
pub(super) struct Style {
    format: LogFormat,
    colour: bool,
    environment: String,
}

impl Style {
    pub(super) fn new(format: LogFormat, colour: bool, environment: &str) -> Style {
        Style {
            format,
            colour,
            environment: environment.to_owned(),
        }
    }
}

/// A line that is being written into a buffer.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    style: &'a Style,
    /// Where the line began in `out`.
    start: usize,
}

impl<'a> Line<'a> {
    /// Begins a line: when, how bad, from where.
    pub(super) fn begin(
        out: &'a mut Vec<u8>,
        style: &'a Style,
        at: SystemTime,
        level: Level,
        target: &str,
    ) -> Line<'a> {
        let start = out.len();
        let mut line = Line { out, style, start };
        match style.format {
            LogFormat::Json => {
                line.raw("{\"ts\":\"");
                timestamp::write(line.out, at);
                line.raw("\",\"level\":\"");
                line.raw(word(level));
                line.raw("\",\"target\":\"");
                line.escaped(format_args!("{target}"), Quotes::Escape);
                line.raw("\"");
            }
            LogFormat::Text => {
                line.coloured("\x1b[2m", |line| timestamp::write(line.out, at));
                line.raw(" ");
                // Writing into a Vec cannot fail.
                line.coloured(colour(level), |line| drop(write!(line.out, "{:5}", word(level))));
                line.raw(" ");
                line.coloured("\x1b[2m", |line| {
                    line.escaped(format_args!("{target}"), Quotes::Keep)
                });
                line.raw(":");
            }
        }
        line
    }

    /// The event's message.
    pub(super) fn message(&mut self, message: fmt::Arguments<'_>) {
        match self.style.format {
            LogFormat::Json => self.field("msg", message),
            LogFormat::Text => {
                self.raw(" ");
                self.escaped(message, Quotes::Keep);
            }
        }
    }

    /// A field whose value is text.
    pub(super) fn field(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if !self.begin_field(name) {
            return;
        }
        match self.style.format {
            LogFormat::Json => {
                self.raw("\"");
                self.escaped(value, Quotes::Escape);
                self.raw("\"");
            }
            LogFormat::Text => {
                let start = self.out.len();
                self.escaped(value, Quotes::Escape);
                let written = &self.out[start..];
                if written.is_empty() || written.iter().any(|byte| matches!(byte, b' ' | b'=' | b'\\')) {
                    self.out.insert(start, b'"');
                    self.raw("\"");
                }
            }
        }
    }

    /// A field whose value JSON can hold as it is: a number, a truth value.
    fn literal(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if self.begin_field(name) {
            // Writing into a Vec cannot fail.
            let _ = self.out.write_fmt(value);
        }
    }

    /// Who logged: a worker by its number, another thread by its name. The environment goes into JSON only: text is
    /// read where it comes from.
    pub(super) fn labels(&mut self, worker: Option<usize>, thread: Option<&str>) {
        match (worker, thread) {
            (Some(worker), _) => self.literal("worker", format_args!("{worker}")),
            (None, Some(thread)) => self.field("thread", format_args!("{thread}")),
            (None, None) => {}
        }
        if self.style.format == LogFormat::Json {
            let style = self.style;
            self.field("env", format_args!("{}", style.environment));
        }
    }

    /// Ends a line that was begun and filled before; `backtrace` stands last, in text on lines of its own.
    pub(super) fn end(out: &mut Vec<u8>, style: &Style, backtrace: Option<&dyn fmt::Display>) {
        let start = out.len();
        let mut line = Line { out, style, start };
        match (style.format, backtrace) {
            (LogFormat::Json, backtrace) => {
                if let Some(backtrace) = backtrace {
                    line.field("backtrace", format_args!("{backtrace}"));
                }
                line.raw("}\n");
            }
            (LogFormat::Text, None) => line.raw("\n"),
            (LogFormat::Text, Some(backtrace)) => {
                line.raw("\n");
                for frame in backtrace.to_string().lines() {
                    line.raw("    ");
                    line.escaped(format_args!("{frame}"), Quotes::Keep);
                    line.raw("\n");
                }
            }
        }
    }

    /// Writes what precedes a value; false if the line is full.
    fn begin_field(&mut self, name: &str) -> bool {
        if self.room() == 0 {
            return false;
        }
        match self.style.format {
            LogFormat::Json => {
                self.raw(",\"");
                self.escaped(format_args!("{name}"), Quotes::Escape);
                self.raw("\":");
            }
            LogFormat::Text => {
                self.raw(" ");
                self.coloured("\x1b[2m", |line| {
                    line.escaped(format_args!("{name}="), Quotes::Keep)
                });
            }
        }
        true
    }

    fn room(&self) -> usize {
        MAX_BYTES.saturating_sub(self.out.len() - self.start)
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn coloured(&mut self, code: &str, write: impl FnOnce(&mut Self)) {
        let colour = self.style.colour;
        if colour {
            self.raw(code);
        }
        write(self);
        if colour {
            self.raw("\x1b[0m");
        }
    }

    fn escaped(&mut self, value: fmt::Arguments<'_>, quotes: Quotes) {
        let room = self.room();
        let mut escape = Escape {
            out: self.out,
            quotes,
            room,
            cut: false,
        };
        // A value whose own formatting fails is left as far as it came.
        let _ = escape.write_fmt(value);
        if escape.cut {
            self.raw(CUT);
        }
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message(format_args!("{value:?}"));
        } else {
            self.field(name(field), format_args!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message(format_args!("{value}"));
        } else {
            self.field(name(field), format_args!("{value}"));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(name(field), format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(name(field), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(name(field), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.literal(name(field), format_args!("{value}"));
        } else {
            self.field(name(field), format_args!("{value}"));
        }
    }
}

/// A field's name without the marker of a raw identifier.
fn name(field: &Field) -> &'static str {
    field.name().trim_start_matches("r#")
}

/// Whether `"` and `\` are escaped too, as within quotes they must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Escape,
    Keep,
}

/// Escapes what is formatted into it, up to `room` bytes; the rest is swallowed.
struct Escape<'a> {
    out: &'a mut Vec<u8>,
    quotes: Quotes,
    room: usize,
    cut: bool,
}

impl Escape<'_> {
    fn push(&mut self, escaped: &str) {
        if self.cut || escaped.len() > self.room {
            self.cut = true;
            return;
        }
        self.room -= escaped.len();
        self.out.extend_from_slice(escaped.as_bytes());
    }
}

impl fmt::Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.cut {
                break;
            }
            match character {
                '\n' => self.push("\\n"),
                '\r' => self.push("\\r"),
                '\t' => self.push("\\t"),
                '"' if self.quotes == Quotes::Escape => self.push("\\\""),
                '\\' if self.quotes == Quotes::Escape => self.push("\\\\"),
                _ if is_unsafe(character) => {
                    let hex = HEX.map(|shift| HEX_DIGITS[(character as usize >> shift) & 15]);
                    let escaped = [b'\\', b'u', hex[0], hex[1], hex[2], hex[3]];
                    self.push(std::str::from_utf8(&escaped).unwrap_or_default());
                }
                _ => self.push(character.encode_utf8(&mut [0; 4])),
            }
        }
        Ok(())
    }
}

/// The shifts that give the four hexadecimal digits of a character of the basic plane, as all unsafe ones are.
const HEX: [u32; 4] = [12, 8, 4, 0];
const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Controls (C0, DEL, C1), line and paragraph separator, and the bidirectional controls.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug => "\x1b[34m",
        Level::Trace => "\x1b[35m",
    }
}

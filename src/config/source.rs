//! Where a value was written: the texts that configuration comes from, and places within them.
//!
//! A file, one environment variable and one `--set` are all a [`Source`]: a name and a text that an error can quote.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::NamedSource;

/// What kind of text a [`Source`] is; decides how its places are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    File,
    Environment,
    Flag,
}

/// One text with values in it.
#[derive(Debug)]
pub(super) struct Source {
    kind: SourceKind,
    quoted: NamedSource<String>,
}

impl Source {
    /// A configuration file, or text that stands for one.
    pub(super) fn file(name: &str, text: &str) -> Arc<Source> {
        Source::new(SourceKind::File, name, text)
    }

    /// One environment variable; its text is `VARIABLE=value`.
    pub(super) fn environment(variable: &str, value: &str) -> Arc<Source> {
        Source::new(
            SourceKind::Environment,
            "environment",
            &format!("{variable}={value}"),
        )
    }

    /// What followed one `--set`.
    pub(super) fn flag(text: &str) -> Arc<Source> {
        Source::new(SourceKind::Flag, "--set", text)
    }

    fn new(kind: SourceKind, name: &str, text: &str) -> Arc<Source> {
        Arc::new(Source {
            kind,
            quoted: NamedSource::new(printable(name), printable(text)),
        })
    }

    pub(super) fn quoted(&self) -> &NamedSource<String> {
        &self.quoted
    }

    pub(super) fn name(&self) -> &str {
        self.quoted.name()
    }

    fn text(&self) -> &str {
        self.quoted.inner()
    }

    /// The line, counted from 1, that byte `offset` is on.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = &self.text().as_bytes()[..offset.min(self.text().len())];
        1 + memchr::memchr_iter(b'\n', before).count()
    }

    /// The nearest range that can be quoted: inside the text and on character boundaries.
    pub(super) fn clamp(&self, span: Range<usize>) -> Range<usize> {
        let text = self.text();
        let start = text.floor_char_boundary(span.start);
        let end = text.ceil_char_boundary(span.end.max(start));
        start..end
    }
}

/// `text` at the same length, without the control characters that a terminal would obey.
fn printable(text: &str) -> String {
    let hide = |c: char| c.is_ascii_control() && !matches!(c, '\n' | '\r' | '\t');
    text.chars().map(|c| if hide(c) { '?' } else { c }).collect()
}

/// A stretch of a [`Source`].
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
}

impl Place {
    pub(super) fn new(source: &Arc<Source>, span: Range<usize>) -> Place {
        Place {
            source: Arc::clone(source),
            span: source.clamp(span),
        }
    }

    fn variable(&self) -> &str {
        self.source
            .text()
            .split_once('=')
            .map_or("", |(variable, _)| variable)
    }
}

/// As in `config/weir.toml:12`, `environment WEIR_SERVER_BACKLOG`, `flag --set`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.kind {
            SourceKind::File => write!(f, "{}:{}", self.source.name(), self.source.line(self.span.start)),
            SourceKind::Environment => write!(f, "environment {}", self.variable()),
            SourceKind::Flag => f.write_str("flag --set"),
        }
    }
}

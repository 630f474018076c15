//! What is wrong with a configuration, told to a person: all of it at once, each with the place, what was found and
//! what is allowed.

use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};

use super::source::Place;

/// One thing that is wrong.
#[derive(Debug)]
pub struct Problem {
    message: String,
    place: Option<Place>,
    label: Option<String>,
    /// A second place of the same source, and what it has to do with this.
    other: Option<(Place, String)>,
    help: Vec<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Problem {
        Problem {
            message: message.into(),
            place: None,
            label: None,
            other: None,
            help: Vec::new(),
        }
    }

    /// Where it is.
    pub(super) fn at(mut self, place: Place) -> Problem {
        self.place = Some(place);
        self
    }

    /// What stands under the quoted place.
    pub(super) fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = Some(label.into());
        self
    }

    /// A second place that has to do with it; words instead of a quotation if it is in another source.
    pub(super) fn also(mut self, other: Place, label: &str) -> Problem {
        let same = |place: &Place| std::sync::Arc::ptr_eq(&place.source, &other.source);
        if self.place.as_ref().is_some_and(same) {
            self.other = Some((other, label.to_owned()));
            self
        } else {
            self.help(format!("{label}: {other}"))
        }
    }

    /// A line on what is allowed or what to do.
    pub(super) fn help(mut self, line: impl Into<String>) -> Problem {
        self.help.push(line.into());
        self
    }

    /// The file (or `environment`, `--set`) and the line, counted from 1; none if it has no single place.
    pub fn line(&self) -> Option<(&str, usize)> {
        let place = self.place.as_ref()?;
        Some((place.source.name(), place.source.line(place.span.start)))
    }

    pub(super) fn start(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.span.start)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.help.is_empty()).then(|| Box::new(self.help.join("\n")) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place
            .as_ref()
            .map(|place| place.source.quoted() as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.place.as_ref()?;
        let first = LabeledSpan::new_primary_with_span(self.label.clone(), place.span.clone());
        let second = self
            .other
            .as_ref()
            .map(|(place, label)| LabeledSpan::new_with_span(Some(label.clone()), place.span.clone()));
        Some(Box::new(std::iter::once(first).chain(second)))
    }
}

/// Everything that is wrong; at least one [`Problem`], in the order file, environment, flags, whole.
#[derive(Debug)]
pub struct Errors {
    problems: Vec<Problem>,
}

impl Errors {
    pub(super) fn new(problems: Vec<Problem>) -> Errors {
        Errors { problems }
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// Without colour, for logs and for the admin API.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 110;
        f.write_str(&render(self, false, WIDTH))
    }
}

impl std::error::Error for Errors {}

/// The errors as `weir check` and `weir run` print them on stderr: each with the lines it is about, then their number.
/// `colour` belongs on a terminal only; `width` is in columns.
pub fn render(errors: &Errors, colour: bool, width: usize) -> String {
    let theme = if colour {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_width(width.max(40));
    let mut text = String::new();
    for problem in &errors.problems {
        if handler.render_report(&mut text, problem).is_err() {
            // Only a place outside of its source can fail; the sentence is what matters then.
            text.push_str(&format!("  × {problem}\n"));
        }
        text.push('\n');
    }
    let plural = if errors.problems.len() == 1 { "" } else { "s" };
    text.push_str(&format!(
        "{} error{plural} in the configuration\n",
        errors.problems.len()
    ));
    text
}

//! What a run leaves: text for people, JSON, an HdrHistogram log, a page. Rows of single requests are written as they
//! come, by [`csv`].

pub mod csv;
mod hlog;
mod html;
mod json;
mod text;

use std::io;
use std::path::PathBuf;

use super::{Outcome, Plan};

pub use text::{live, table};

/// Files to be written at the end.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub json: Option<PathBuf>,
    pub hlog: Option<PathBuf>,
    pub html: Option<PathBuf>,
}

impl Output {
    /// Writes them.
    ///
    /// # Errors
    /// In words: which one could not be written, and why.
    pub fn write(&self, plan: &Plan, outcome: &Outcome) -> Result<(), String> {
        let named = |path: &PathBuf, result: io::Result<()>| {
            result.map_err(|error| format!("{} cannot be written: {error}", path.display()))
        };
        if let Some(path) = &self.json {
            let text = format!("{:#}\n", json::summary(plan, outcome));
            named(path, std::fs::write(path, text))?;
        }
        if let Some(path) = &self.hlog {
            named(path, hlog::write(path, plan, outcome))?;
        }
        if let Some(path) = &self.html {
            let page = html::page(plan, outcome).map_err(io::Error::other);
            named(path, page.and_then(|page| std::fs::write(path, page)))?;
        }
        Ok(())
    }
}

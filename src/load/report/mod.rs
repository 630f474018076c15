//! What a run leaves: text for people, JSON, a page; and, as it goes, rows of single requests and an HdrHistogram log.
//!
//! All files are opened before the run: that one cannot be written is known before minutes are spent.

mod csv;
mod hlog;
mod html;
mod json;
mod text;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::{Interval, Outcome, Plan, Sample};

pub use csv::HEADER;
pub use text::{live, table};

/// Where everything goes that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub csv: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub hlog: Option<PathBuf>,
    pub html: Option<PathBuf>,
}

/// Open files.
pub struct Files {
    output: Output,
    json: Option<File>,
    html: Option<File>,
    rows: Option<csv::Rows>,
    log: Option<hlog::Log>,
}

impl Output {
    /// Opens the files and starts who writes while the run goes on.
    ///
    /// # Errors
    /// In words: which one cannot be written, and why.
    pub fn open(self, plan: &Plan) -> Result<Files, String> {
        let create = |path: &Option<PathBuf>| {
            let created = path.as_deref().map(|path| named(path, File::create(path)));
            created.transpose()
        };
        let no_thread = |error: io::Error| format!("no thread to write with: {error}");
        let (csv, json) = (create(&self.csv)?, create(&self.json)?);
        let (hlog, html) = (create(&self.hlog)?, create(&self.html)?);
        Ok(Files {
            json,
            html,
            rows: csv.map(csv::Rows::start).transpose().map_err(no_thread)?,
            log: hlog
                .map(|file| hlog::Log::start(file, plan.rate.is_some()))
                .transpose()
                .map_err(no_thread)?,
            output: self,
        })
    }
}

impl Files {
    /// Who wants rows.
    pub fn rows(&self) -> Option<&SyncSender<Vec<Sample>>> {
        self.rows.as_ref().map(|rows| &rows.sender)
    }

    /// Takes a second that is over.
    pub fn take(&self, interval: Interval) {
        if let Some(log) = &self.log {
            // Whoever is gone says why at the end.
            let _ = log.sender.send(interval);
        }
    }

    /// Writes the rest.
    ///
    /// # Errors
    /// In words: which one could not be written, and why.
    pub fn end(self, plan: &Plan, outcome: &Outcome) -> Result<(), String> {
        let Output {
            csv,
            json,
            hlog,
            html,
        } = &self.output;
        if let (Some(rows), Some(path)) = (self.rows, csv) {
            named(path, rows.end())?;
        }
        if let (Some(log), Some(path)) = (self.log, hlog) {
            named(path, log.end())?;
        }
        if let (Some(mut file), Some(path)) = (self.json, json) {
            named(path, writeln!(file, "{:#}", json::summary(plan, outcome)))?;
        }
        if let (Some(mut file), Some(path)) = (self.html, html) {
            let page = html::page(plan, outcome).map_err(io::Error::other);
            named(path, page.and_then(|page| file.write_all(page.as_bytes())))?;
        }
        Ok(())
    }
}

fn named<T>(path: &Path, result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

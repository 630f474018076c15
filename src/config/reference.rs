//! The tables of docs/configuration.md, so that a test can hold the document to what the code reads.

use super::keys::{BACKEND_KEYS, BACKENDS, Draft, KEYS, sections};
use super::model::Config;

/// One Markdown table for each section, by the section's name.
pub fn reference() -> Vec<(&'static str, String)> {
    let defaults = Config::default();
    let mut tables = Vec::new();
    for section in sections() {
        let mut table = String::from(
            "| key | meaning and allowed values | default | variable |\n| --- | --- | --- | --- |\n",
        );
        for key in KEYS.iter().filter(|key| key.section == section) {
            let (name, allowed) = (key.name, cell(&(key.allowed)()));
            let default = cell(&(key.show)(&defaults));
            table.push_str(&format!(
                "| `{name}` | {}<br>{allowed} | `{default}` | `{}` |\n",
                cell(key.doc),
                key.variable()
            ));
        }
        tables.push((section, table));
    }
    let mut table = String::from("| key | meaning and allowed values | default |\n| --- | --- | --- |\n");
    for key in BACKEND_KEYS {
        let default = match (key.show)(&Draft::default()) {
            shown if shown.is_empty() => String::new(),
            shown => format!("`{shown}`"),
        };
        table.push_str(&format!(
            "| `{}` | {}<br>{} | {default} |\n",
            key.name,
            cell(key.doc),
            cell(&(key.allowed)())
        ));
    }
    tables.push((BACKENDS, table));
    tables
}

/// `text` as it stands in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

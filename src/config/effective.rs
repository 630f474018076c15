//! The effective configuration as `weir check` prints it: TOML that would load to the same, with each value's origin.

use super::Loaded;
use super::assembly::{Slot, Written};
use super::forms::toml_string;
use super::keys::{BACKEND_KEYS, BACKENDS, KEYS, sections};
use super::source::Place;

/// The column, in characters, at which the origins stand.
const ORIGIN: usize = 48;

impl Loaded {
    /// Every key with its value and, as a comment behind it, where the value came from.
    pub fn render_effective(&self) -> String {
        let mut text = String::new();
        for section in sections() {
            text.push_str(&format!("[{section}]\n"));
            for (key, slot) in KEYS
                .iter()
                .zip(&self.slots)
                .filter(|(key, _)| key.section == section)
            {
                line(&mut text, key.name, &(key.show)(&self.config), origin(slot));
            }
            text.push('\n');
        }
        for backend in &self.backends {
            self.backend(&mut text, backend);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    fn backend(&self, text: &mut String, written: &Written) {
        text.push_str(&format!("[[{BACKENDS}]]\n"));
        for (key, place) in BACKEND_KEYS.iter().zip(&written.places) {
            let value = (key.show)(&written.draft);
            if value.is_empty() {
                let authority = written.draft.url.as_ref().map_or("", |target| target.authority());
                // A socket's path is no name that could be written.
                let comment = if authority.contains('/') { "# " } else { "" };
                let name = format!("{comment}{}", key.name);
                line(
                    text,
                    &name,
                    &toml_string(authority),
                    "default: the url's authority".to_owned(),
                );
            } else {
                line(text, key.name, &value, described(place.as_ref()));
            }
        }
        text.push('\n');
    }
}

fn line(text: &mut String, name: &str, value: &str, origin: String) {
    let setting = format!("{name} = {value}");
    text.push_str(&format!("{setting:<ORIGIN$}  # {origin}\n"));
}

fn origin(slot: &Slot) -> String {
    described(slot.place.as_ref())
}

fn described(place: Option<&Place>) -> String {
    // A line end in a name would end the comment.
    place.map_or_else(
        || "default".to_owned(),
        |place| place.to_string().replace(['\n', '\r'], " "),
    )
}

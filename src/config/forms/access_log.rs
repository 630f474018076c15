//! Where access log lines go, and what they look like.

use std::path::PathBuf;

use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::access_log::template::{self, Field};
use crate::config::model::{AccessFormat, AccessOutput};
use crate::config::node::Node;
use crate::config::suggest::nearest;

/// A word, or the path of a file.
pub(in crate::config) struct AccessOutputForm;

impl Form for AccessOutputForm {
    type Out = AccessOutput;

    fn allowed(&self) -> String {
        "\"off\", \"stdout\", \"syslog\", \"journald\", or the path of a file, which has a slash".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<AccessOutput> {
        parsed(node, "an output", bad, |text| match text {
            "off" | "none" => Ok(AccessOutput::Off),
            "stdout" => Ok(AccessOutput::Stdout),
            "syslog" => Ok(AccessOutput::Syslog),
            "journald" => Ok(AccessOutput::Journald),
            path if path.contains('/') && !path.ends_with('/') && !path.chars().any(char::is_control) => {
                Ok(AccessOutput::File(PathBuf::from(path)))
            }
            word => {
                let refusal = Refusal::new("is neither an output nor the path of a file");
                match nearest(word, ["off", "stdout", "syslog", "journald"]) {
                    Some(near) => Err(refusal.hint(format!("did you mean \"{near}\"?"))),
                    None => Err(refusal.hint(format!("a file here is written \"./{word}\""))),
                }
            }
        })
    }

    fn show(&self, value: &AccessOutput) -> String {
        match value {
            AccessOutput::Off => toml_string("off"),
            AccessOutput::Stdout => toml_string("stdout"),
            AccessOutput::Syslog => toml_string("syslog"),
            AccessOutput::Journald => toml_string("journald"),
            AccessOutput::File(path) => toml_string(&path.to_string_lossy()),
        }
    }
}

/// A word, or a template.
pub(in crate::config) struct AccessFormatForm;

impl Form for AccessFormatForm {
    type Out = AccessFormat;

    fn allowed(&self) -> String {
        "\"json\", \"common\", \"combined\", or a template with fields in braces, such as \"{client} {status} {total_us}\""
            .to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<AccessFormat> {
        parsed(node, "a format", bad, |text| match text {
            "json" => Ok(AccessFormat::Json),
            "common" => Ok(AccessFormat::Common),
            "combined" => Ok(AccessFormat::Combined),
            text if text.contains('{') => match template::parse(text) {
                Ok(_) => Ok(AccessFormat::Template(text.to_owned())),
                Err(error) => {
                    let refusal = Refusal::new(format!("is no template: {error}"));
                    Err(match (&error, error.near()) {
                        (_, Some(near)) => refusal.hint(format!("did you mean {{{near}}}?")),
                        (template::Error::Unknown(_), None) => {
                            let names = Field::ALL.map(|(name, _)| name).join(", ");
                            refusal.hint(format!("fields are {names} and header:NAME"))
                        }
                        (_, None) => refusal,
                    })
                }
            },
            word => {
                let refusal = Refusal::new("is neither a format nor a template with {fields}");
                match nearest(word, ["json", "common", "combined"]) {
                    Some(near) => Err(refusal.hint(format!("did you mean \"{near}\"?"))),
                    None => Err(refusal),
                }
            }
        })
    }

    fn show(&self, value: &AccessFormat) -> String {
        match value {
            AccessFormat::Json => toml_string("json"),
            AccessFormat::Common => toml_string("common"),
            AccessFormat::Combined => toml_string("combined"),
            AccessFormat::Template(text) => toml_string(text),
        }
    }
}

/// The name of a header or of a query parameter, in lower case.
pub(in crate::config) struct LowerName;

impl Form for LowerName {
    type Out = String;

    fn allowed(&self) -> String {
        "a name of letters, digits, `-`, `_` and `.`".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<String> {
        parsed(node, "a name", bad, |text| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if text.len() > 128 || !text.bytes().all(known) {
                return Err(Refusal::new("is no such name"));
            }
            Ok(text.to_ascii_lowercase())
        })
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }
}

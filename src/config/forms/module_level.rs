//! Levels of single modules in the log.

use super::words::one_of;
use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::model::Level;
use crate::config::node::Node;
use crate::config::suggest::nearest;
use crate::log::levels::{MODULES, Module, level_named, level_words, word};

/// `module=level`.
pub(in crate::config) struct ModuleLevel;

impl Form for ModuleLevel {
    type Out = (Module, Level);

    fn allowed(&self) -> String {
        format!(
            "a module and its level, such as \"proxy=debug\"; the modules are {}",
            MODULES.join(", ")
        )
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<(Module, Level)> {
        parsed(node, "a module and its level", bad, |text| {
            let Some((name, level)) = text.split_once('=') else {
                return Err(Refusal::new("has no \"=\" between module and level"));
            };
            let (name, level) = (name.trim(), level.trim());
            let module = Module::named(name).ok_or_else(|| {
                let refusal = Refusal::new("names no module that logs");
                match nearest(name, MODULES) {
                    Some(near) => refusal.hint(format!("did you mean \"{near}={level}\"?")),
                    None => refusal,
                }
            })?;
            let level = level_named(level).ok_or_else(|| {
                let refusal = Refusal::new("names no level");
                match nearest(level, level_words()) {
                    Some(near) => refusal.hint(format!("did you mean \"{name}={near}\"?")),
                    None => refusal.hint(format!("levels are {}", one_of(&level_words()))),
                }
            })?;
            Ok((module, level))
        })
    }

    fn show(&self, (module, level): &(Module, Level)) -> String {
        toml_string(&format!("{}={}", module.name(), word(*level)))
    }
}

//! The names of strategies: those of this version, and those that a configuration may already name.

use super::words::one_of;
use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::model::StrategyKind;
use crate::config::node::Node;
use crate::config::suggest::nearest;

/// Every strategy by its name; those without a kind are refused, never replaced by another. `-` and `_` are the same.
const STRATEGIES: &[(&str, Option<StrategyKind>)] = &[
    ("round-robin", Some(StrategyKind::RoundRobin)),
    ("weighted-round-robin", None),
    ("random", None),
    ("least-conn", None),
    ("least-response", None),
    ("p2c", None),
    ("consistent_hash", None),
    ("maglev", None),
    ("prequal", None),
    ("failover", None),
];

/// A strategy of this version.
pub(in crate::config) struct StrategyForm;

impl Form for StrategyForm {
    type Out = StrategyKind;

    fn allowed(&self) -> String {
        one_of(&available())
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<StrategyKind> {
        parsed(node, "the name of a strategy", bad, |text| {
            let asked = text.replace('_', "-");
            let found = STRATEGIES
                .iter()
                .find(|(name, _)| name.replace('_', "-") == asked);
            match found {
                Some((_, Some(kind))) => Ok(*kind),
                Some((_, None)) => {
                    let reason = format!(
                        "is not available in this version; available: {}",
                        available().join(", ")
                    );
                    Err(Refusal::new(reason))
                }
                None => {
                    let reason = format!("is not a strategy; available: {}", available().join(", "));
                    let near = nearest(text, STRATEGIES.iter().map(|(name, _)| *name));
                    Err(match near {
                        Some(near) => Refusal::new(reason).hint(format!("did you mean \"{near}\"?")),
                        None => Refusal::new(reason),
                    })
                }
            }
        })
    }

    fn show(&self, value: &StrategyKind) -> String {
        let name = STRATEGIES
            .iter()
            .find(|(_, kind)| *kind == Some(*value))
            .map_or("", |(name, _)| name);
        toml_string(name)
    }
}

fn available() -> Vec<&'static str> {
    STRATEGIES
        .iter()
        .filter(|(_, kind)| kind.is_some())
        .map(|(name, _)| *name)
        .collect()
}

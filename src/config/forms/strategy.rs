//! The names of strategies.

use super::words::one_of;
use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::model::StrategyKind;
use crate::config::node::Node;
use crate::config::suggest::nearest;

/// Every strategy by its name. `-` and `_` are the same.
const STRATEGIES: &[(&str, StrategyKind)] = &[
    ("round-robin", StrategyKind::RoundRobin),
    ("weighted-round-robin", StrategyKind::WeightedRoundRobin),
    ("random", StrategyKind::Random),
    ("least-conn", StrategyKind::LeastConn),
    ("p2c", StrategyKind::P2c),
    ("least-response", StrategyKind::LeastResponse),
    ("consistent_hash", StrategyKind::ConsistentHash),
    ("maglev", StrategyKind::Maglev),
    ("prequal", StrategyKind::Prequal),
    ("failover", StrategyKind::Failover),
];

/// The name of a strategy, as it stands in configurations, logs and metrics.
pub fn strategy_name(kind: StrategyKind) -> &'static str {
    STRATEGIES
        .iter()
        .find(|(_, known)| *known == kind)
        .map_or("", |(name, _)| name)
}

/// The name of a strategy.
pub(in crate::config) struct StrategyForm;

impl Form for StrategyForm {
    type Out = StrategyKind;

    fn allowed(&self) -> String {
        let names: Vec<&str> = STRATEGIES.iter().map(|(name, _)| *name).collect();
        one_of(&names)
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<StrategyKind> {
        parsed(node, "the name of a strategy", bad, |text| {
            let asked = text.replace('_', "-");
            let found = STRATEGIES
                .iter()
                .find(|(name, _)| name.replace('_', "-") == asked);
            match found {
                Some((_, kind)) => Ok(*kind),
                None => {
                    let refusal = Refusal::new("is not a strategy");
                    let near = nearest(text, STRATEGIES.iter().map(|(name, _)| *name));
                    Err(match near {
                        Some(near) => refusal.hint(format!("did you mean \"{near}\"?")),
                        None => refusal,
                    })
                }
            }
        })
    }

    fn show(&self, value: &StrategyKind) -> String {
        toml_string(strategy_name(*value))
    }
}

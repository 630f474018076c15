//! Keys that somebody set although nothing depends on them as things stand: no error, but worth a notice.

use super::assembly::Assembly;
use super::forms::strategy_name;
use super::keys::{KEYS, position};
use super::model::{AccessOutput, Config, StrategyKind};

/// Keys of one section that have an effect only under a condition.
struct Idle {
    section: &'static str,
    keys: &'static [&'static str],
    /// Whether the condition holds.
    matters: fn(&Config) -> bool,
    /// The condition: "it has no effect …".
    unless: &'static str,
}

const IDLE: &[Idle] = &[
    Idle {
        section: "strategy",
        keys: &["virtual_nodes"],
        matters: |config| config.strategy.kind == StrategyKind::ConsistentHash,
        unless: "without strategy.type \"consistent_hash\"",
    },
    Idle {
        section: "strategy",
        keys: &["key", "max_load"],
        matters: |config| {
            matches!(
                config.strategy.kind,
                StrategyKind::ConsistentHash | StrategyKind::Maglev
            )
        },
        unless: "without strategy.type \"consistent_hash\" or \"maglev\"",
    },
    Idle {
        section: "strategy",
        keys: &["probe_path"],
        matters: |config| config.strategy.kind == StrategyKind::Prequal,
        unless: "without strategy.type \"prequal\"",
    },
    Idle {
        section: "strategy",
        keys: &["probe_rate", "probes_max_per_second"],
        matters: |config| {
            config.strategy.kind == StrategyKind::Prequal && config.strategy.probe_path.is_some()
        },
        unless: "without strategy.type \"prequal\" and a strategy.probe_path",
    },
    Idle {
        section: "strategy",
        keys: &["tier_min"],
        matters: |config| config.strategy.kind == StrategyKind::Failover,
        unless: "without strategy.type \"failover\"",
    },
    Idle {
        section: "limits",
        keys: &["queue", "queue_timeout"],
        matters: |config| config.limits.max_inflight.is_some(),
        unless: "without a limits.max_inflight",
    },
    Idle {
        section: "access_log",
        keys: &["format", "only", "slow", "sample", "headers"],
        matters: |config| config.access_log.output != AccessOutput::Off,
        unless: "while access_log.output is \"off\"",
    },
    Idle {
        section: "access_log",
        keys: &["socket"],
        matters: |config| {
            matches!(
                config.access_log.output,
                AccessOutput::Syslog | AccessOutput::Journald
            )
        },
        unless: "without an access_log.output of \"syslog\" or \"journald\"",
    },
    Idle {
        section: "admin",
        keys: &["token_file", "hosts"],
        matters: |config| config.admin.address.is_some(),
        unless: "while admin.address is \"off\"",
    },
    Idle {
        section: "rate_limit",
        keys: &["per", "burst", "key", "exempt", "max_keys"],
        matters: |config| config.rate_limit.requests.is_some(),
        unless: "while rate_limit.requests is \"off\"",
    },
    Idle {
        section: "admission",
        keys: &["interval"],
        matters: |config| config.admission.target.is_some(),
        unless: "while admission.target is \"off\"",
    },
    Idle {
        section: "sticky",
        keys: &["secret_file", "secure", "max_age", "path"],
        matters: |config| config.sticky.cookie.is_some(),
        unless: "while sticky.cookie is \"off\"",
    },
];

/// Adds a notice for each key whose value, other than its default, changes nothing.
pub(super) fn notice(assembly: &mut Assembly) {
    let defaults = Config::default();
    let mut notices = Vec::new();
    for idle in IDLE.iter().filter(|idle| !(idle.matters)(&assembly.config)) {
        for name in idle.keys {
            let Some(position) = position(idle.section, name) else {
                continue;
            };
            let (key, slot) = (&KEYS[position], &assembly.slots[position]);
            let value = (key.show)(&assembly.config);
            if let Some(place) = &slot.place
                && value != (key.show)(&defaults)
            {
                let (path, unless) = (key.path(), idle.unless);
                notices.push(format!("{path} = {value} has no effect {unless} ({place})"));
            }
        }
    }
    notices.extend(backends(&assembly.config));
    assembly.notices.append(&mut notices);
}

/// What backends say that this strategy does not ask; one notice for all of them.
fn backends(config: &Config) -> Vec<String> {
    let kind = config.strategy.kind;
    let mut notices = Vec::new();
    let weighed = |weight: u16| weight > 1;
    if kind == StrategyKind::RoundRobin && config.backends.iter().any(|backend| weighed(backend.weight)) {
        notices.push(format!(
            "backends.weight has no effect with strategy.type \"{}\", 0 aside; \"{}\" gives each its share",
            strategy_name(kind),
            strategy_name(StrategyKind::WeightedRoundRobin)
        ));
    }
    if kind != StrategyKind::Failover && config.backends.iter().any(|backend| backend.priority != 0) {
        notices.push("backends.priority has no effect without strategy.type \"failover\"".to_owned());
    }
    notices
}

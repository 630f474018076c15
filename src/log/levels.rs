//! Which lines are wanted: a level for all of weir, and others for single modules of it.
//!
//! [`Levels`] are a value, as configured or as somebody asked for at run time; [`Filter`] is what is in force. It is asked
//! when a place in the code that logs is met for the first time and again after a change, not for every line: `tracing`
//! remembers the answer with the place. So a line that is not wanted costs a load and a branch, with modules or without.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::config::model::Level;

/// The modules that log, by the first part of their path within weir.
pub const MODULES: [&str; 8] = [
    "access_log",
    "admin",
    "control",
    "health",
    "proxy",
    "server",
    "snapshot",
    "trace",
];

/// All levels, the worst first.
const LEVELS: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

/// What a module has that goes by the level for all.
const AS_ALL: u8 = u8::MAX;

/// One of [`MODULES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module(u8);

impl Module {
    pub fn named(name: &str) -> Option<Module> {
        let position = MODULES.iter().position(|known| *known == name)?;
        u8::try_from(position).ok().map(Module)
    }

    pub fn name(self) -> &'static str {
        MODULES[usize::from(self.0)]
    }

    /// That of a line's target, which is the path of a Rust module.
    fn of(target: &str) -> Option<Module> {
        let path = target.strip_prefix("weir::")?;
        Module::named(path.split("::").next()?)
    }
}

/// The level of this name, as the configuration spells it.
pub fn level_named(name: &str) -> Option<Level> {
    LEVELS.into_iter().find(|level| word(*level) == name)
}

/// The names of all levels, the worst first.
pub fn level_words() -> [&'static str; LEVELS.len()] {
    LEVELS.map(word)
}

/// A level's name.
pub const fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// The worse, the lower.
pub(super) const fn rank(level: Level) -> u8 {
    match level {
        Level::Error => 0,
        Level::Warn => 1,
        Level::Info => 2,
        Level::Debug => 3,
        Level::Trace => 4,
    }
}

/// The level for all of weir, and those of modules that have their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    pub level: Level,
    pub modules: BTreeMap<Module, Level>,
}

impl From<Level> for Levels {
    /// The same for all.
    fn from(level: Level) -> Levels {
        Levels {
            level,
            modules: BTreeMap::new(),
        }
    }
}

/// What somebody asks for while weir runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// These; what is not named stays.
    Set {
        level: Option<Level>,
        modules: Vec<(Module, Level)>,
    },
    /// This module as configured.
    Clear(Module),
    /// Everything as configured.
    ClearAll,
}

impl Change {
    /// What `now` becomes by it.
    pub fn of(&self, mut now: Levels, configured: &Levels) -> Levels {
        match self {
            Change::Set { level, modules } => {
                now.level = level.unwrap_or(now.level);
                now.modules.extend(modules.iter().copied());
            }
            Change::Clear(module) => match configured.modules.get(module) {
                Some(level) => drop(now.modules.insert(*module, *level)),
                None => drop(now.modules.remove(module)),
            },
            Change::ClearAll => now = configured.clone(),
        }
        now
    }
}

/// The levels in force. Whoever asks meets no lock.
#[derive(Debug)]
pub(super) struct Filter {
    level: AtomicU8,
    modules: [AtomicU8; MODULES.len()],
}

impl Filter {
    pub(super) fn new(levels: &Levels) -> Filter {
        let filter = Filter {
            level: AtomicU8::new(0),
            modules: [const { AtomicU8::new(AS_ALL) }; MODULES.len()],
        };
        filter.set(levels);
        filter
    }

    /// Puts other levels in force. Places that were met before are asked anew only after
    /// `tracing::callsite::rebuild_interest_cache`.
    pub(super) fn set(&self, levels: &Levels) {
        self.level.store(rank(levels.level), Ordering::Relaxed);
        for (index, own) in (0..).zip(&self.modules) {
            let level = levels.modules.get(&Module(index)).copied();
            own.store(level.map_or(AS_ALL, rank), Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> Levels {
        let modules = (0..).zip(&self.modules);
        Levels {
            level: level_of(self.level.load(Ordering::Relaxed)),
            modules: modules
                .map(|(index, own)| (Module(index), own.load(Ordering::Relaxed)))
                .filter(|(_, rank)| *rank != AS_ALL)
                .map(|(module, rank)| (module, level_of(rank)))
                .collect(),
        }
    }

    /// Whether lines of this level and origin are wanted. Other crates are heard from `warn` on only.
    pub(super) fn wants(&self, target: &str, level: Level) -> bool {
        let ours = target == "weir" || target.starts_with("weir::");
        let own = Module::of(target).map_or(AS_ALL, |module| {
            self.modules[usize::from(module.0)].load(Ordering::Relaxed)
        });
        let most = match own {
            AS_ALL => self.level.load(Ordering::Relaxed),
            own => own,
        };
        rank(level) <= most && (ours || rank(level) <= rank(Level::Warn))
    }

    /// The least severe level that anybody logs.
    pub(super) fn most(&self) -> Level {
        let own = self.modules.iter().map(|own| own.load(Ordering::Relaxed));
        let most = own.filter(|rank| *rank != AS_ALL).max().unwrap_or(0);
        level_of(most.max(self.level.load(Ordering::Relaxed)))
    }
}

fn level_of(rank: u8) -> Level {
    LEVELS.get(usize::from(rank)).copied().unwrap_or(Level::Trace)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn module(name: &str) -> Module {
        Module::named(name).unwrap()
    }

    #[test]
    fn every_module_that_logs_can_be_named() {
        fn logs(path: &Path) -> bool {
            if path.is_dir() {
                let mut entries = fs::read_dir(path).unwrap();
                return entries.any(|entry| logs(&entry.unwrap().path()));
            }
            let text = fs::read_to_string(path).unwrap();
            // Put together here, so that this file does not hold them.
            LEVELS
                .iter()
                .any(|level| text.contains(&format!("tracing::{}!", word(*level))))
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found: Vec<String> = fs::read_dir(source)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| logs(path))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            // Only its tests do.
            .filter(|name| name != "log")
            .collect();
        found.sort();
        assert_eq!(found, MODULES);
    }

    #[test]
    fn a_module_has_its_own_level_or_that_of_all() {
        let filter = Filter::new(&Level::Info.into());
        assert!(filter.wants("weir::proxy::retry", Level::Info));
        assert!(!filter.wants("weir::proxy::retry", Level::Debug));
        assert_eq!(filter.most(), Level::Info);
        let levels = Levels {
            level: Level::Warn,
            modules: [(module("proxy"), Level::Debug), (module("health"), Level::Error)].into(),
        };
        filter.set(&levels);
        assert_eq!(filter.get(), levels);
        assert_eq!(filter.most(), Level::Debug);
        for (target, level, wanted) in [
            ("weir::proxy", Level::Debug, true),
            ("weir::proxy::retry", Level::Debug, true),
            ("weir::proxy", Level::Trace, false),
            // Begins alike, and is another one.
            ("weir::proxy_more", Level::Debug, false),
            ("weir::health::checker", Level::Warn, false),
            ("weir::health::checker", Level::Error, true),
            ("weir::server", Level::Info, false),
            ("weir::server", Level::Warn, true),
            ("weir", Level::Warn, true),
            ("proxy", Level::Debug, false),
            ("hyper::proxy", Level::Warn, true),
        ] {
            assert_eq!(filter.wants(target, level), wanted, "{target} {level:?}");
        }
        filter.set(&Level::Trace.into());
        assert!(filter.wants("weir::health", Level::Trace) && !filter.wants("hyper", Level::Info));
    }

    #[test]
    fn what_is_cleared_is_as_configured() {
        let configured = Levels {
            level: Level::Info,
            modules: [(module("health"), Level::Debug)].into(),
        };
        let set = Change::Set {
            level: Some(Level::Warn),
            modules: vec![(module("health"), Level::Trace), (module("proxy"), Level::Debug)],
        };
        let now = set.of(configured.clone(), &configured);
        assert_eq!(now.level, Level::Warn);
        assert_eq!(now.modules.len(), 2);
        let now = Change::Clear(module("proxy")).of(now, &configured);
        assert_eq!(now.modules, [(module("health"), Level::Trace)].into());
        let now = Change::Clear(module("health")).of(now, &configured);
        assert_eq!((now.level, &now.modules), (Level::Warn, &configured.modules));
        assert_eq!(Change::ClearAll.of(now, &configured), configured);
    }

    #[test]
    fn words_are_those_of_the_configuration() {
        for level in LEVELS {
            assert_eq!(serde_json::to_value(level).unwrap(), word(level));
            assert_eq!(level_named(word(level)), Some(level));
            assert_eq!(level_of(rank(level)), level);
        }
        assert_eq!(level_named("Info"), None);
    }
}

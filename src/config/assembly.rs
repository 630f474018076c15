//! A configuration while it is being put together: defaults, then one layer over the other, and everything that was
//! wrong on the way.

use std::ops::Range;
use std::sync::Arc;

use super::diagnostics::Problem;
use super::forms::Bad;
use super::keys::{BACKEND_KEYS, BACKENDS, Draft, KEYS, Key};
use super::model::Config;
use super::node::{Node, Raw};
use super::source::{Place, Source};

/// Who may overrule whom: the later one the earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    Default,
    File,
    /// The original's short variables.
    Short,
    /// `WEIR_…`.
    Environment,
    Flag,
}

/// Where the value of one key came from.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) layer: Layer,
    /// None: the default.
    pub(super) place: Option<Place>,
    /// Whether a value was refused, so that nothing more should be concluded from this key.
    pub(super) broken: bool,
}

/// One backend and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) draft: Draft,
    /// The whole of it.
    pub(super) place: Place,
    /// Of each of [`BACKEND_KEYS`]; none: the default.
    pub(super) places: Vec<Option<Place>>,
    /// Whether a value of it was refused.
    pub(super) broken: bool,
}

/// The layers so far.
pub(super) struct Assembly {
    /// All sections but the backends.
    pub(super) config: Config,
    /// One for each of [`KEYS`].
    pub(super) slots: Vec<Slot>,
    pub(super) backends: Vec<Written>,
    /// Whether anybody tried to name backends, however badly.
    pub(super) backends_named: bool,
    pub(super) problems: Vec<Problem>,
    pub(super) notices: Vec<String>,
}

impl Assembly {
    pub(super) fn new() -> Assembly {
        let slot = Slot {
            layer: Layer::Default,
            place: None,
            broken: false,
        };
        Assembly {
            config: Config::default(),
            slots: vec![slot; KEYS.len()],
            backends: Vec::new(),
            backends_named: false,
            problems: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Puts `node` into the key at `position`; `via` is the variable or flag that said it, for errors.
    pub(super) fn set(
        &mut self,
        layer: Layer,
        source: &Arc<Source>,
        position: usize,
        node: &Node,
        via: Option<&str>,
    ) {
        let key = &KEYS[position];
        let mut bad = Vec::new();
        let good = (key.read)(&mut self.config, node, &mut bad);
        let slot = &mut self.slots[position];
        slot.layer = layer;
        slot.broken |= !good;
        slot.place = Some(Place::new(source, node.span.clone()));
        let fallback = (key.show)(&Config::default());
        let allowed = format!("allowed: {} (default: {fallback})", (key.allowed)());
        self.refuse(source, &said(&key.path(), via), &allowed, bad);
    }

    /// One `[[backends]]`: its entries, and the whole of it.
    pub(super) fn backend(
        &mut self,
        source: &Arc<Source>,
        entries: &[(&Key<Draft>, Node)],
        whole: Range<usize>,
    ) {
        let mut written = Written {
            draft: Draft::default(),
            place: Place::new(source, whole),
            places: vec![None; BACKEND_KEYS.len()],
            broken: false,
        };
        for (key, node) in entries {
            let mut bad = Vec::new();
            written.broken |= !(key.read)(&mut written.draft, node, &mut bad);
            if let Some(position) = BACKEND_KEYS.iter().position(|known| known.name == key.name) {
                written.places[position] = Some(Place::new(source, node.span.clone()));
            }
            let allowed = format!("allowed: {}", (key.allowed)());
            self.refuse(source, &key.path(), &allowed, bad);
        }
        self.backends.push(written);
    }

    /// `WEIR_BACKENDS` or `--set backends=`: urls with commas between, in place of all others.
    pub(super) fn replace_backends(&mut self, source: &Arc<Source>, urls: &[Node], via: &str) {
        self.backends_named = true;
        self.backends.clear();
        let url = &BACKEND_KEYS[0];
        for node in urls {
            if matches!(&node.raw, Raw::Bare(text) if text.is_empty()) {
                let problem = Problem::new(format!("{}: an empty url", said(BACKENDS, Some(via))));
                let problem = problem.at(Place::new(source, node.span.clone()));
                self.problems
                    .push(problem.help(format!("allowed: {}, with commas between", (url.allowed)())));
                continue;
            }
            self.backend(source, &[(url, node.clone())], node.span.clone());
        }
    }

    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn refuse(&mut self, source: &Arc<Source>, said: &str, allowed: &str, bad: Vec<Bad>) {
        for bad in bad {
            let problem = Problem::new(format!("{said}: {}", bad.reason));
            let problem = bad.hint.into_iter().fold(problem, Problem::help);
            self.problems
                .push(problem.at(Place::new(source, bad.span)).help(allowed));
        }
    }
}

/// How an error calls a key that `via` set.
fn said(path: &str, via: Option<&str>) -> String {
    match via {
        Some(via) => format!("{path} (from {via})"),
        None => path.to_owned(),
    }
}

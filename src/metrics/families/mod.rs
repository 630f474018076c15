//! Everything that the metrics say, as Prometheus thinks of it: families of samples with labels. What is written from it,
//! and how, is [`super::text`]'s and [`super::protobuf`]'s.
//!
//! Names and units follow Prometheus' conventions: base units (seconds, bytes), `_total` for counters. Labels have bounded
//! values: what strangers choose (paths, methods, headers) is in none of them, and a status code that is not registered
//! counts under its class.

mod backends;
mod instance;

use std::borrow::Cow;

use super::distribution::Distribution;
use super::exemplar::Exemplar;
use super::process::Process;
use super::snapshot::{BackendTotals, Dropped, Snapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric with all of its label sets.
#[derive(Debug)]
pub struct Family<'a> {
    /// Without the `_total` of a counter.
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
    pub samples: Vec<Sample<'a>>,
}

#[derive(Debug)]
pub struct Sample<'a> {
    pub labels: Vec<(&'static str, Cow<'a, str>)>,
    pub value: Value<'a>,
}

#[derive(Debug)]
pub enum Value<'a> {
    Whole(u64),
    Real(f64),
    Histogram {
        distribution: &'a Distribution,
        /// By bucket; empty: there are none.
        exemplars: &'a [Option<Exemplar>],
    },
}

/// All families, in the order in which they are documented.
pub fn families(snapshot: &Snapshot, dropped: Dropped, process: Process) -> Vec<Family<'_>> {
    let mut all = Vec::new();
    backends::put(&mut all, snapshot);
    instance::put(&mut all, snapshot, dropped, process);
    all
}

fn single<'a>(name: &'static str, help: &'static str, kind: Kind, value: Value<'a>) -> Family<'a> {
    Family {
        name,
        help,
        kind,
        samples: vec![Sample {
            labels: Vec::new(),
            value,
        }],
    }
}

fn by_backend<'a>(
    snapshot: &'a Snapshot,
    name: &'static str,
    help: &'static str,
    kind: Kind,
    value: impl Fn(&'a BackendTotals) -> Value<'a>,
) -> Family<'a> {
    let samples = snapshot.backends.iter().map(|backend| Sample {
        labels: labels_of(snapshot, backend),
        value: value(backend),
    });
    Family {
        name,
        help,
        kind,
        samples: samples.collect(),
    }
}

fn labels_of<'a>(snapshot: &'a Snapshot, backend: &'a BackendTotals) -> Vec<(&'static str, Cow<'a, str>)> {
    vec![
        ("pool", Cow::Borrowed(&snapshot.pool)),
        ("backend", Cow::Borrowed(&backend.info.name)),
    ]
}

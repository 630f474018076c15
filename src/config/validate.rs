//! What must hold between keys, once each of them is good for itself.

use std::collections::HashMap;

use super::assembly::{Assembly, Written};
use super::diagnostics::Problem;
use super::forms::{overlap, show_listen};
use super::keys::{BACKEND_KEYS, position};
use super::model::{Backend, BackendAddress, ListenAddress};

/// The most backends of a pool: their liveness and their metrics are tables of that size.
pub(super) const MAX_BACKENDS: usize = 4096;

/// Adds to `assembly` what does not fit together, and turns what was written of backends into backends.
pub(super) fn judge(assembly: &mut Assembly) {
    runtime(assembly);
    listeners(assembly);
    intervals(assembly);
    backends(assembly);
}

impl Assembly {
    /// Whether the key has a good value.
    fn sound(&self, section: &str, name: &str) -> bool {
        position(section, name).is_some_and(|position| !self.slots[position].broken)
    }

    /// `problem`, at the place where the key was written; a default has none.
    fn push_at(&mut self, section: &str, name: &str, problem: Problem) {
        let place = position(section, name).and_then(|position| self.slots[position].place.clone());
        self.problems.push(match place {
            Some(place) => problem.at(place),
            None => problem,
        });
    }
}

fn runtime(assembly: &mut Assembly) {
    let runtime = assembly.config.runtime.clone();
    let (workers, cores) = (runtime.workers, runtime.cores.len());
    let sound = assembly.sound("runtime", "workers") && assembly.sound("runtime", "cores");
    if sound && workers != 0 && cores != 0 && workers != cores {
        let reason = format!("runtime.cores: {cores} CPUs for runtime.workers = {workers}");
        let help = "name as many CPUs as there are workers, or leave workers at 0: one for each CPU named";
        assembly.push_at("runtime", "cores", Problem::new(reason).help(help));
    }
    if cores != 0 && !runtime.pin && assembly.sound("runtime", "pin") {
        let reason = "runtime.pin: false, although runtime.cores names the CPUs to pin to";
        assembly.push_at(
            "runtime",
            "pin",
            Problem::new(reason).help("remove cores, or leave pin at true"),
        );
    }
    if !runtime.ring_entries.is_power_of_two() && assembly.sound("runtime", "ring_entries") {
        let entries = runtime.ring_entries;
        let (below, above) = (1 << entries.ilog2(), entries.next_power_of_two());
        let reason = format!("runtime.ring_entries: {entries} is not a power of two");
        assembly.push_at(
            "runtime",
            "ring_entries",
            Problem::new(reason).help(format!("nearest: {below} or {above}")),
        );
    }
}

fn listeners(assembly: &mut Assembly) {
    let config = &assembly.config;
    let mut all: Vec<(&str, ListenAddress)> = Vec::new();
    all.extend(
        config
            .server
            .address
            .iter()
            .map(|address| ("server", address.clone())),
    );
    all.extend(
        config
            .admin
            .address
            .iter()
            .map(|address| ("admin", address.clone())),
    );
    all.extend(
        config
            .observe
            .address
            .iter()
            .map(|address| ("observe", address.clone())),
    );
    all.retain(|(section, _)| assembly.sound(section, "address"));
    for (at, (section, address)) in all.iter().enumerate() {
        let Some((other, taken)) = all[..at].iter().find(|(_, before)| overlap(before, address)) else {
            continue;
        };
        let (address, taken) = (show_listen(address), show_listen(taken));
        let reason = format!("{section}.address: \"{address}\" collides with \"{taken}\" of {other}.address");
        let problem = Problem::new(reason).help("every listener needs a port or a path of its own");
        // Point at what was written, not at a default.
        let written =
            |section: &str| position(section, "address").is_some_and(|at| assembly.slots[at].place.is_some());
        let to_blame = if written(section) { *section } else { *other };
        assembly.push_at(to_blame, "address", problem);
    }
}

fn intervals(assembly: &mut Assembly) {
    let check = &assembly.config.health_check;
    let (interval, fast) = (check.interval, check.fast_interval);
    let sound = assembly.sound("health_check", "interval") && assembly.sound("health_check", "fast_interval");
    if sound && fast.is_some_and(|fast| fast > interval) {
        let reason = "health_check.fast_interval: longer than health_check.interval";
        assembly.push_at("health_check", "fast_interval", Problem::new(reason));
    }
}

fn backends(assembly: &mut Assembly) {
    if !assembly.backends_named {
        let problem = Problem::new("no backends: there is nothing to forward to");
        assembly.push(problem.help(
            "write [[backends]] and url = \"http://host:port\" below it, once for each backend, or set WEIR_BACKENDS",
        ));
        return;
    }
    let written = std::mem::take(&mut assembly.backends);
    if written.len() > MAX_BACKENDS {
        let reason = format!("backends: {} of them, of {MAX_BACKENDS} at most", written.len());
        assembly.push(Problem::new(reason).at(written[MAX_BACKENDS].place.clone()));
    }
    for backend in written
        .iter()
        .filter(|backend| backend.draft.url.is_none() && !backend.broken)
    {
        let problem = Problem::new("[[backends]] without a url").at(backend.place.clone());
        assembly.push(problem.help(format!("allowed: {}", (BACKEND_KEYS[0].allowed)())));
    }
    duplicates(assembly, &written);
    if let Some(first) = written.first()
        && written
            .iter()
            .all(|backend| backend.draft.weight == 0 && !backend.broken)
    {
        let problem = Problem::new("backends.weight: 0 for every backend, so that none would ever be chosen");
        let place = first.places[2].as_ref().unwrap_or(&first.place);
        assembly.push(
            problem
                .at(place.clone())
                .help("give at least one backend a weight from 1 to 65535"),
        );
    }
    assembly.config.backends = written.iter().filter_map(build).collect();
    assembly.backends = written;
}

fn build(written: &Written) -> Option<Backend> {
    let target = written.draft.url.as_ref()?;
    Some(Backend {
        url: target.url.clone(),
        address: target.address.clone(),
        name: written.name()?.to_owned(),
        weight: written.draft.weight,
        priority: 0,
        backup: false,
    })
}

impl Written {
    /// The name that it has or is given by its url.
    fn name(&self) -> Option<&str> {
        let given = self.draft.name.as_deref();
        given.or_else(|| self.draft.url.as_ref().map(|target| target.authority()))
    }
}

fn duplicates(assembly: &mut Assembly, written: &[Written]) {
    let mut addresses: HashMap<&BackendAddress, &Written> = HashMap::new();
    let mut names: HashMap<&str, &Written> = HashMap::new();
    for backend in written {
        let place =
            |backend: &Written, key: usize| backend.places[key].as_ref().unwrap_or(&backend.place).clone();
        if let Some(target) = &backend.draft.url
            && let Some(first) = addresses.insert(&target.address, backend)
        {
            let reason = format!("backends.url: \"{}\" is there twice", target.url);
            let problem = Problem::new(reason).at(place(backend, 0)).label("again here");
            let problem = problem.also(place(first, 0), "first here");
            assembly.push(problem.help("each backend stands once; its share is its weight"));
            continue;
        }
        if let Some(name) = backend.name()
            && let Some(first) = names.insert(name, backend)
        {
            let reason = format!("backends.name: two backends are called \"{name}\"");
            let at = |backend: &Written| place(backend, if backend.draft.name.is_some() { 1 } else { 0 });
            let problem = Problem::new(reason).at(at(backend)).label("again here");
            assembly.push(
                problem
                    .also(at(first), "first here")
                    .help("without a name, a backend has its url's authority"),
            );
        }
    }
}

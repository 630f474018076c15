//! What must hold between keys, once each of them is good for itself.

use std::collections::HashMap;

use super::assembly::{Assembly, Written};
use super::diagnostics::Problem;
use super::forms::{overlap, show_listen};
use super::idle;
use super::keys::{BACKEND_KEYS, position};
use super::model::{Backend, BackendAddress, ListenAddress};
use super::source::Place;

/// The most backends of a pool: their liveness and their metrics are tables of that size.
pub(super) const MAX_BACKENDS: usize = 4096;

/// Adds to `assembly` what does not fit together, and turns what was written of backends into backends.
pub(super) fn judge(assembly: &mut Assembly) {
    runtime(assembly);
    listeners(assembly);
    intervals(assembly);
    logging(assembly);
    admin(assembly);
    profiling(assembly);
    sticky(assembly);
    backends(assembly);
    if assembly.problems.is_empty() {
        idle::notice(assembly);
    }
}

impl Assembly {
    /// Whether the key has a good value.
    fn sound(&self, section: &str, name: &str) -> bool {
        position(section, name).is_some_and(|position| !self.slots[position].broken)
    }

    /// Whether anybody wrote the key.
    fn written(&self, section: &str, name: &str) -> bool {
        position(section, name).is_some_and(|position| self.slots[position].place.is_some())
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

fn logging(assembly: &mut Assembly) {
    let modules = &assembly.config.logging.modules;
    let twice = modules
        .iter()
        .enumerate()
        .find(|(at, (module, _))| modules[..*at].iter().any(|(before, _)| before == module));
    if let Some((_, (module, _))) = twice {
        let reason = format!("logging.modules: {} has more than one level", module.name());
        assembly.push_at("logging", "modules", Problem::new(reason));
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
    all.extend(
        config
            .profiling
            .address
            .iter()
            .map(|address| ("profiling", address.clone())),
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
        let to_blame = if assembly.written(section, "address") {
            *section
        } else {
            *other
        };
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
    let admission = &assembly.config.admission;
    let (target, interval) = (admission.target, admission.interval);
    let sound = assembly.sound("admission", "target") && assembly.sound("admission", "interval");
    if sound && target.is_some_and(|target| target > interval) {
        let reason = "admission.target: longer than admission.interval";
        assembly.push_at("admission", "target", Problem::new(reason));
    }
}

/// A profile says much of what weir does, and nobody is asked who they are.
fn profiling(assembly: &mut Assembly) {
    let Some(address) = &assembly.config.profiling.address else {
        return;
    };
    if is_local(address) || !assembly.sound("profiling", "address") {
        return;
    }
    let address = show_listen(address);
    let reason = format!("profiling.address: \"{address}\" is not of this machine alone");
    assembly.push_at(
        "profiling",
        "address",
        Problem::new(reason).help("profiles are served on loopback or a Unix socket only"),
    );
}

fn is_local(address: &ListenAddress) -> bool {
    match address {
        ListenAddress::Any { .. } => false,
        ListenAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
        ListenAddress::Unix(_) => true,
    }
}

/// Whoever reaches the admin address can take backends out of service.
fn admin(assembly: &mut Assembly) {
    let admin = &assembly.config.admin;
    let Some(address) = &admin.address else { return };
    let local = is_local(address);
    let sound = assembly.sound("admin", "address") && assembly.sound("admin", "token_file");
    if local || admin.token_file.is_some() || !sound {
        return;
    }
    let address = show_listen(address);
    let reason = format!(
        "admin.address: \"{address}\" is not of this machine alone, and there is no admin.token_file"
    );
    assembly.push_at(
        "admin",
        "address",
        Problem::new(reason)
            .help("admin on anything but loopback or a Unix socket needs `[admin] token_file`")
            .help("for probes and scrapers of other machines there is observe.address, which needs none"),
    );
}

/// What browsers do not take (RFC 6265bis, cookie name prefixes), and what others could forge.
fn sticky(assembly: &mut Assembly) {
    let sticky = assembly.config.sticky.clone();
    let Some(cookie) = &sticky.cookie else { return };
    let begins = |prefix: &str| {
        cookie
            .get(..prefix.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(prefix))
    };
    let (host, secure) = (begins("__Host-"), begins("__Secure-"));
    let mut wrong = Vec::new();
    if (host || secure) && !sticky.secure && assembly.sound("sticky", "secure") {
        wrong.push("sticky.secure = true");
    }
    if host && sticky.path != "/" && assembly.sound("sticky", "path") {
        wrong.push("sticky.path = \"/\"");
    }
    if !wrong.is_empty() {
        let wrong = wrong.join(" and ");
        let reason = format!("sticky.cookie: browsers take \"{cookie}\" only with {wrong}");
        assembly.push_at("sticky", "cookie", Problem::new(reason));
    }
    if sticky.secret_file.is_none() && assembly.sound("sticky", "secret_file") {
        assembly.notices.push(
            "sticky.cookie without sticky.secret_file: whoever knows the backends' names can make a cookie for each"
                .to_owned(),
        );
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
        assembly.push(
            problem
                .at(first.place_of("weight"))
                .help("give at least one backend a weight from 1 to 65535"),
        );
    }
    if let Some(first) = written.first()
        && written
            .iter()
            .all(|backend| backend.draft.backup && !backend.broken)
    {
        let reason = "backends.backup: true for every backend, so that they would stand in for nobody";
        let place = first.place_of("backup");
        assembly.push(
            Problem::new(reason)
                .at(place)
                .help("leave backup out for those that serve when all is well"),
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
        priority: written.draft.priority,
        backup: written.draft.backup,
    })
}

impl Written {
    /// The name that it has or is given by its url.
    fn name(&self) -> Option<&str> {
        let given = self.draft.name.as_deref();
        given.or_else(|| self.draft.url.as_ref().map(|target| target.authority()))
    }

    /// Where the key was written; the whole backend for one that was not.
    fn place_of(&self, name: &str) -> Place {
        let position = BACKEND_KEYS.iter().position(|key| key.name == name);
        let place = position.and_then(|position| self.places[position].as_ref());
        place.unwrap_or(&self.place).clone()
    }
}

fn duplicates(assembly: &mut Assembly, written: &[Written]) {
    let mut addresses: HashMap<&BackendAddress, &Written> = HashMap::new();
    let mut names: HashMap<&str, &Written> = HashMap::new();
    for backend in written {
        if let Some(target) = &backend.draft.url
            && let Some(first) = addresses.insert(&target.address, backend)
        {
            let reason = format!("backends.url: \"{}\" is there twice", target.url);
            let problem = Problem::new(reason)
                .at(backend.place_of("url"))
                .label("again here");
            let problem = problem.also(first.place_of("url"), "first here");
            assembly.push(problem.help("each backend stands once; its share is its weight"));
            continue;
        }
        if let Some(name) = backend.name()
            && let Some(first) = names.insert(name, backend)
        {
            let reason = format!("backends.name: two backends are called \"{name}\"");
            let named = |backend: &Written| backend.draft.name.is_some();
            let at = |backend: &Written| backend.place_of(if named(backend) { "name" } else { "url" });
            let problem = Problem::new(reason).at(at(backend)).label("again here");
            assembly.push(
                problem
                    .also(at(first), "first here")
                    .help("without a name, a backend has its url's authority"),
            );
        }
    }
}

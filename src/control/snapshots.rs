//! Making snapshots: the first one, and those of reloads, in which backends that stay are the same ones.

use std::sync::{Arc, OnceLock};

use crate::balance::pick::Member;
use crate::clock;
use crate::config::Config;
use crate::config::model::{Backend as Settings, BackendAddress};
use crate::limits::Secret;
use crate::limits::rate::RateTable;
use crate::limits::sticky::Sticky;
use crate::server::wake::WakeHandle;
use crate::snapshot::{Pool, Snapshot};
use crate::upstream::backend::{Address, Backend, Slots};

/// The shortest secret, in bytes.
const SECRET_MIN: usize = 16;

/// What all snapshots of a process have in common.
#[derive(Debug)]
pub struct Maker {
    slots: Slots,
    workers: usize,
    internal: Arc<Backend>,
    health: Arc<OnceLock<Arc<WakeHandle>>>,
    /// Of this process, for tables that strangers fill.
    secret: Secret,
}

impl Maker {
    /// For `workers` workers; `internal` is the abstract name on which the control thread answers for `/metrics`.
    pub fn new(workers: usize, internal: Vec<u8>, secret: Secret) -> Self {
        let slots = Slots::default();
        let internal = Arc::new(Backend::new(
            slots.take(),
            "weir".to_owned(),
            "internal".to_owned(),
            "localhost".to_owned(),
            vec![Address::Abstract(internal)],
            workers,
        ));
        Maker {
            slots,
            workers,
            internal,
            health: Arc::default(),
            secret,
        }
    }

    /// From now on a worker that wants a probe wakes the health thread so.
    pub fn set_health(&self, wake: Arc<WakeHandle>) {
        // There is one health thread in a process's life.
        let _ = self.health.set(wake);
    }

    /// The snapshot of `config`, whose backends have these addresses. A backend of `before` with the same url, name and
    /// addresses goes on with all that is known of it.
    pub fn make(
        &self,
        config: Config,
        addresses: Vec<Vec<Address>>,
        sticky_secret: Option<&[u8]>,
        before: Option<&Snapshot>,
    ) -> Snapshot {
        let backends = config
            .backends
            .iter()
            .zip(addresses)
            .map(|(settings, addresses)| {
                let known = before
                    .iter()
                    .flat_map(|before| &before.pool.backends)
                    .find(|known| {
                        known.url == settings.url
                            && known.name == settings.name
                            && known.addresses == addresses
                    });
                let backend = match known {
                    Some(known) => known.clone(),
                    None => Arc::new(self.backend(settings, addresses)),
                };
                let member = Member::new(backend.shared.clone(), &settings.url, settings.weight)
                    .in_tier(settings.priority, settings.backup);
                (backend, member)
            })
            .collect();
        let mut pool = Pool::new("default", &config, backends);
        pool.health = self.health.clone();
        let internal = config.metrics.path.is_some().then(|| self.internal.clone());
        let rate = match before {
            Some(before) if before.config.rate_limit == config.rate_limit => before.rate.clone(),
            _ => RateTable::new(&config.rate_limit, self.secret).map(Arc::new),
        };
        let names: Vec<&str> = pool.backends.iter().map(|backend| &*backend.name).collect();
        let sticky = Sticky::new(&config.sticky, sticky_secret, &names);
        if let Some(before) = before {
            ramp_up_added(&pool, &before.pool);
        }
        Snapshot::new(config, pool, internal)
            .with_rate(rate)
            .with_sticky(sticky)
    }

    fn backend(&self, settings: &Settings, addresses: Vec<Address>) -> Backend {
        let authority = match &settings.address {
            BackendAddress::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            BackendAddress::Tcp { host, port } => format!("{host}:{port}"),
            BackendAddress::Unix(_) => "localhost".to_owned(),
        };
        Backend::new(
            self.slots.take(),
            settings.name.clone(),
            settings.url.clone(),
            authority,
            addresses,
            self.workers,
        )
    }
}

/// Whoever was not in the pool before begins with little.
fn ramp_up_added(pool: &Pool, before: &Pool) {
    for (index, backend) in pool.backends.iter().enumerate() {
        if !before.backends.iter().any(|known| Arc::ptr_eq(known, backend)) {
            pool.balance.begin_ramp(index, clock::now());
        }
    }
}

/// The secret of sticky cookies, from its file; none if none is configured.
///
/// # Errors
/// In words: the file cannot be read, or is empty.
pub fn sticky_secret(config: &Config) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = config
        .sticky
        .secret_file
        .as_ref()
        .filter(|_| config.sticky.cookie.is_some())
    else {
        return Ok(None);
    };
    let refused = |why: &dyn std::fmt::Display| format!("sticky.secret_file: {} {why}", path.display());
    let bytes = std::fs::read(path).map_err(|error| refused(&format_args!("cannot be read: {error}")))?;
    let secret = bytes.trim_ascii();
    if secret.len() < SECRET_MIN {
        return Err(refused(&format_args!(
            "holds {} bytes, of {SECRET_MIN} at least",
            secret.len()
        )));
    }
    Ok(Some(secret.to_vec()))
}

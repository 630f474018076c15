//! Making snapshots: the first one, and those of reloads, in which backends that stay are the same ones.

use std::sync::{Arc, OnceLock};

use crate::balance::pick::Member;
use crate::config::Config;
use crate::config::model::{Backend as Settings, BackendAddress};
use crate::server::wake::WakeHandle;
use crate::snapshot::{Pool, Snapshot};
use crate::upstream::backend::{Address, Backend, Slots};

/// What all snapshots of a process have in common.
#[derive(Debug)]
pub struct Maker {
    slots: Slots,
    workers: usize,
    internal: Arc<Backend>,
    health: Arc<OnceLock<Arc<WakeHandle>>>,
}

impl Maker {
    /// For `workers` workers; `internal` is the abstract name on which the control thread answers for `/metrics`.
    pub fn new(workers: usize, internal: Vec<u8>) -> Self {
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
        }
    }

    /// From now on a worker that wants a probe wakes the health thread so.
    pub fn set_health(&self, wake: Arc<WakeHandle>) {
        // There is one health thread in a process's life.
        let _ = self.health.set(wake);
    }

    /// The snapshot of `config`, whose backends have these addresses. A backend of `before` with the same url, name and
    /// addresses goes on with all that is known of it.
    pub fn make(&self, config: Config, addresses: Vec<Vec<Address>>, before: Option<&Snapshot>) -> Snapshot {
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
        Snapshot::new(config, pool, internal)
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

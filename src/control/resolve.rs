//! Looking up backends' names, on the control thread.

use crate::config::model::{Backend, BackendAddress};
use crate::upstream::backend::Address;

/// A name that gave no address.
#[derive(Debug, thiserror::Error)]
#[error("backend {backend}: cannot look up {host}: {error}")]
pub struct ResolveError {
    pub backend: String,
    pub host: String,
    pub error: String,
}

/// The addresses of every backend, in their order.
///
/// # Errors
/// All names that gave no address.
pub async fn resolve_all(backends: &[Backend]) -> Result<Vec<Vec<Address>>, Vec<ResolveError>> {
    let lookups = futures_util::future::join_all(backends.iter().map(resolve)).await;
    let (mut found, mut errors) = (Vec::with_capacity(backends.len()), Vec::new());
    for lookup in lookups {
        match lookup {
            Ok(addresses) => found.push(addresses),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

async fn resolve(backend: &Backend) -> Result<Vec<Address>, ResolveError> {
    let (host, port) = match &backend.address {
        BackendAddress::Tcp { host, port } => (host, *port),
        BackendAddress::Unix(path) => return Ok(vec![Address::Unix(path.clone())]),
    };
    let error = |error: String| ResolveError {
        backend: backend.name.clone(),
        host: host.clone(),
        error,
    };
    let mut addresses = Vec::new();
    for address in tokio::net::lookup_host((host.as_str(), port))
        .await
        .map_err(|e| error(e.to_string()))?
    {
        let address = Address::Tcp(address);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        Err(error("no address".to_owned()))
    } else {
        Ok(addresses)
    }
}

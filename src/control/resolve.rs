//! Looking up backends' names, and checking that they can be reached from where the configuration says.

use std::net::{IpAddr, SocketAddr, TcpListener};

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

/// Whether connections can be made from `upstream.source_address` to every backend.
///
/// # Errors
/// In words: no interface has the address, or a backend has only addresses of the other family.
pub fn check_source(source: Option<IpAddr>, backends: &[Vec<Address>]) -> Result<(), String> {
    let Some(source) = source else {
        return Ok(());
    };
    if let Err(error) = TcpListener::bind(SocketAddr::new(source, 0)) {
        return Err(format!(
            "upstream.source_address: {source} cannot be used on this machine: {error}"
        ));
    }
    let same_family = |address: &Address| match address {
        Address::Tcp(address) => address.is_ipv4() == source.is_ipv4(),
        Address::Unix(_) | Address::Abstract(_) => true,
    };
    match backends
        .iter()
        .find(|addresses| !addresses.iter().any(same_family))
    {
        Some(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            Err(format!(
                "upstream.source_address: {source} cannot reach {}: the other address family",
                addresses.join(", ")
            ))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_address_must_be_ours_and_of_the_backends_family() {
        let backends = [vec![Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)))]];
        let check = |source: &str| check_source(Some(source.parse().expect("an address")), &backends);
        assert_eq!(check("127.0.0.1"), Ok(()));
        assert!(check("192.0.2.1").expect_err("not ours").contains("192.0.2.1"));
        assert!(check("::1").expect_err("IPv6 to IPv4").contains("127.0.0.1:1"));
        assert_eq!(check_source(None, &backends), Ok(()));
    }
}

//! What one client may use up, and who a client is.
//!
//! * [`address`]: whom a request comes from, where trusted proxies stand between.
//! * [`rate`]: requests per time and key, over all workers.
//! * [`connections`]: connections per address, over all workers.
//! * [`queue`]: exchanges that wait until a backend has room.
//! * [`admission`]: shedding load while a queue stands.
//!
//! Tables are of a fixed size, made at start, and shared as atomics; none has a lock. What strangers send is hashed with a
//! secret of the process, so that nobody can choose which place of a table he fills. Time is an argument. `proxy` and
//! `server` ask; nothing here does I/O.

pub mod address;
pub mod admission;
pub mod connections;
pub mod cookie;
pub mod queue;
pub mod rate;
pub mod sticky;

use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// A process's secret for hashing what strangers send.
pub type Secret = [u64; 2];

/// The network that counts as one client: an IPv4 address, or the /64 of an IPv6 one, which is what a single subscriber is
/// given (RFC 6177). IPv4 mapped into IPv6 is IPv4.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// A keyed hash of the [`subscriber`] that an address belongs to.
fn hash_subscriber(address: IpAddr, secret: Secret) -> u64 {
    match subscriber(address) {
        IpAddr::V4(address) => hash_bytes(&address.octets(), secret),
        IpAddr::V6(address) => hash_bytes(&address.octets(), secret),
    }
}

/// SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012).
fn hash_bytes(bytes: &[u8], [first, second]: Secret) -> u64 {
    SipHasher13::new_with_keys(first, second).hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_is_an_ipv4_address_or_an_ipv6_64() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(subscriber(address).to_string(), expected);
        }
        let hash = |text: &str| hash_subscriber(text.parse().expect("an address"), [1, 2]);
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:1"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_ne!(
            hash("192.0.2.1"),
            hash_subscriber(IpAddr::from([192, 0, 2, 1]), [1, 3])
        );
    }
}

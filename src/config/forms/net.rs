//! Addresses to listen on and to send from, and networks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::model::ListenAddress;
use crate::config::node::{Node, Raw};

/// What a socket's path may hold: `sun_path` has 108 bytes, one of them the NUL at its end (unix(7)).
const MAX_UNIX_PATH: usize = 107;

/// A port: digits only, where the standard parser takes a plus too.
pub(super) fn port(text: &str, min: u16) -> Result<u16, Refusal> {
    let digits = !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port >= min => Ok(port),
        _ => Err(Refusal::new(format!(
            "has the port {text:?}, which is not a number from {min} to 65535"
        ))),
    }
}

/// The path of a Unix socket, `text` being what follows `unix:`.
pub(super) fn unix_path(text: &str) -> Result<PathBuf, Refusal> {
    if !text.starts_with('/') {
        return Err(Refusal::new("has no absolute path behind \"unix:\"").hint("write unix:/run/weir.sock"));
    }
    if text.contains('\0') {
        return Err(Refusal::new("has a NUL in its path"));
    }
    // `unix:///run/x` is how urls are often written.
    let path = format!("/{}", text.trim_start_matches('/'));
    if path.len() > MAX_UNIX_PATH {
        let reason = format!(
            "has a path of {} bytes, where sockets take {MAX_UNIX_PATH} at most",
            path.len()
        );
        return Err(Refusal::new(reason));
    }
    if path.ends_with('/') {
        return Err(Refusal::new("names a directory, where a socket is needed"));
    }
    Ok(PathBuf::from(path))
}

fn listen_address(text: &str) -> Result<ListenAddress, Refusal> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_path(path).map(ListenAddress::Unix);
    }
    if text.contains("://") {
        return Err(Refusal::new("is a url").hint("an address to listen on has no scheme: \":8080\""));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::new("has no address").hint(format!("write \":{text}\" for every address")));
    }
    if text.starts_with('/') {
        return Err(Refusal::new("is a path").hint(format!("write \"unix:{text}\" for a Unix socket")));
    }
    let Some((host, digits)) = split_port(text) else {
        return Err(Refusal::new("has no port").hint(format!("write \"{text}:8080\"")));
    };
    let port = port(digits, 0)?;
    match host {
        "" => Ok(ListenAddress::Any { port }),
        "localhost" => Ok(ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
        "*" => Err(Refusal::new("has a star for its address").hint(format!("write \":{digits}\""))),
        host if host.contains(':') && !host.starts_with('[') => {
            let hint = format!("an IPv6 address stands in brackets: \"[::1]:{digits}\"");
            Err(Refusal::new("is not an address").hint(hint))
        }
        _ => text.parse().map(ListenAddress::Tcp).map_err(|_| {
            let hint =
                "weir listens on addresses, not on names: \":8080\", \"127.0.0.1:8080\", \"[::1]:8080\"";
            Refusal::new("has no literal address before its port").hint(hint)
        }),
    }
}

/// `host:port` at the colon that is not part of a bracketed address.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, digits) = text.rsplit_once(':')?;
    (!digits.contains(']')).then_some((host, digits))
}

/// `:8080`, `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080` or `unix:/path`.
pub(in crate::config) struct ListenForm;

impl Form for ListenForm {
    type Out = ListenAddress;

    fn allowed(&self) -> String {
        "an address like \":8080\", \"127.0.0.1:8080\", \"[::1]:8080\" or \"unix:/run/weir.sock\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<ListenAddress> {
        if let Raw::Integer(number @ 0..=65535) = node.raw {
            let hint = format!("write \":{number}\" for every address");
            bad.push(Bad::new(node, format!("the number {number}, where an address is needed")).hint(hint));
            return None;
        }
        parsed(node, "an address", bad, listen_address)
    }

    fn show(&self, value: &ListenAddress) -> String {
        toml_string(&show_listen(value))
    }
}

/// As [`ListenForm`] reads it.
pub(in crate::config) fn show_listen(value: &ListenAddress) -> String {
    match value {
        ListenAddress::Any { port } => format!(":{port}"),
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// The path of a file that weir reads when it starts.
pub(in crate::config) struct FilePath;

impl Form for FilePath {
    type Out = PathBuf;

    fn allowed(&self) -> String {
        "the path of a file like \"/etc/weir/token\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<PathBuf> {
        parsed(node, "the path of a file", bad, |text| {
            if text.chars().any(char::is_control) {
                return Err(Refusal::new("holds a control character"));
            }
            if text.starts_with("~/") {
                return Err(
                    Refusal::new("begins with \"~\", which only a shell knows").hint("write the whole path")
                );
            }
            if text.ends_with('/') {
                return Err(Refusal::new("names a directory, where a file is needed"));
            }
            Ok(PathBuf::from(text))
        })
    }

    fn show(&self, value: &PathBuf) -> String {
        toml_string(&value.display().to_string())
    }
}

/// A literal address of this machine to send from.
pub(in crate::config) struct IpForm;

impl Form for IpForm {
    type Out = IpAddr;

    fn allowed(&self) -> String {
        "an address of this machine like \"10.0.0.5\" or \"fd00::5\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<IpAddr> {
        parsed(node, "an address", bad, |text| {
            let address: IpAddr = text.parse().map_err(|_| Refusal::new("is not an IP address"))?;
            if address.is_unspecified() || address.is_multicast() {
                return Err(Refusal::new("is not the address of a machine"));
            }
            Ok(address)
        })
    }

    fn show(&self, value: &IpAddr) -> String {
        toml_string(&value.to_string())
    }
}

/// A network, `10.0.0.0/8`, or one address.
pub(in crate::config) struct NetForm;

impl Form for NetForm {
    type Out = IpNet;

    fn allowed(&self) -> String {
        "a network like \"10.0.0.0/8\" or \"fd00::/8\", or an address".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<IpNet> {
        parsed(node, "a network", bad, |text| {
            if let Ok(address) = text.parse::<IpAddr>() {
                return Ok(IpNet::from(address));
            }
            let net: IpNet = text.parse().map_err(|_| Refusal::new("is not a network"))?;
            if net.trunc() != net {
                let hint = format!("write \"{}\" for that network", net.trunc());
                return Err(Refusal::new("has address bits behind its prefix").hint(hint));
            }
            Ok(net)
        })
    }

    fn show(&self, value: &IpNet) -> String {
        let single = value.prefix_len() == value.max_prefix_len();
        toml_string(&if single {
            value.addr().to_string()
        } else {
            value.to_string()
        })
    }
}

/// Whether two listeners cannot both be opened: the same path, or the same port on addresses that overlap.
pub(in crate::config) fn overlap(a: &ListenAddress, b: &ListenAddress) -> bool {
    match (a, b) {
        (ListenAddress::Unix(a), ListenAddress::Unix(b)) => a == b,
        (ListenAddress::Unix(_), _) | (_, ListenAddress::Unix(_)) => false,
        (a, b) => {
            let (Some((a, port)), Some((b, other))) = (tcp(a), tcp(b)) else {
                return false;
            };
            port == other && port != 0 && addresses_overlap(a, b)
        }
    }
}

/// The address (none: every one) and the port.
fn tcp(address: &ListenAddress) -> Option<(Option<IpAddr>, u16)> {
    match address {
        ListenAddress::Any { port } => Some((None, *port)),
        ListenAddress::Tcp(address) => Some((Some(address.ip()), address.port())),
        ListenAddress::Unix(_) => None,
    }
}

fn addresses_overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (None, _) | (_, None) => true,
        (Some(a), Some(b)) => {
            a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn listen_addresses() {
        let tcp = |text: &str| ListenAddress::Tcp(text.parse().expect("a literal address"));
        assert_eq!(listen_address(":8080"), Ok(ListenAddress::Any { port: 8080 }));
        assert_eq!(listen_address(":0"), Ok(ListenAddress::Any { port: 0 }));
        assert_eq!(listen_address("127.0.0.1:80"), Ok(tcp("127.0.0.1:80")));
        assert_eq!(listen_address("[::]:8080"), Ok(tcp("[::]:8080")));
        assert_eq!(listen_address("localhost:9"), Ok(tcp("127.0.0.1:9")));
        assert_eq!(
            listen_address("unix:/run/a.sock"),
            Ok(ListenAddress::Unix("/run/a.sock".into()))
        );
        assert_eq!(
            listen_address("unix:///run/a.sock"),
            Ok(ListenAddress::Unix("/run/a.sock".into()))
        );
        let long = format!("unix:/{}", "x".repeat(MAX_UNIX_PATH));
        for text in [
            "8080",
            "",
            ":",
            ":65536",
            ":+80",
            ":-1",
            "a.b:80",
            "::1:80",
            "[::1]",
            "127.0.0.1",
            "unix:",
            "unix:a",
            &long,
        ] {
            assert!(listen_address(text).is_err(), "{text:?}");
        }
        assert!(listen_address(&long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn listeners_that_cannot_both_be_opened() {
        let both = |a: &str, b: &str| {
            overlap(
                &listen_address(a).expect("one"),
                &listen_address(b).expect("other"),
            )
        };
        assert!(both(":80", "127.0.0.1:80"));
        assert!(both("0.0.0.0:80", "127.0.0.1:80"));
        assert!(both("unix:/a", "unix:/a"));
        assert!(!both(":80", ":81"));
        assert!(!both("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!both("0.0.0.0:80", "[::1]:80"));
        assert!(!both(":0", ":0"));
        assert!(!both("unix:/a", ":80"));
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(text: String, near in "(unix:|)[\\[\\]:./@a-c0-9 ü]{0,20}") {
            let _ = listen_address(&text);
            let _ = listen_address(&near);
        }
    }
}

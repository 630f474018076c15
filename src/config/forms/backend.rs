//! Where backends are, and what they are called.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::net::{port, unix_path};
use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::model::BackendAddress;
use crate::config::node::Node;

/// The longest name that DNS knows (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// A backend's url as written, and where it leads.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Target {
    pub(in crate::config) url: String,
    pub(in crate::config) address: BackendAddress,
}

impl Target {
    /// The url's authority, which names the backend unless it has a name.
    pub(in crate::config) fn authority(&self) -> &str {
        match &self.address {
            BackendAddress::Unix(_) => &self.url,
            BackendAddress::Tcp { .. } => {
                let behind = self
                    .url
                    .split_once("://")
                    .map_or(self.url.as_str(), |(_, behind)| behind);
                behind.trim_end_matches('/')
            }
        }
    }
}

/// `http://host:port` or `unix:/path`.
pub(in crate::config) struct BackendUrl;

impl Form for BackendUrl {
    type Out = Target;

    fn allowed(&self) -> String {
        "a url like \"http://host:8081\", \"http://[::1]:8081\" or \"unix:/run/app.sock\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<Target> {
        parsed(node, "a url", bad, |url| {
            backend_address(url).map(|address| Target {
                url: url.to_owned(),
                address,
            })
        })
    }

    fn show(&self, value: &Target) -> String {
        toml_string(&value.url)
    }
}

fn backend_address(url: &str) -> Result<BackendAddress, Refusal> {
    if let Some(path) = url.strip_prefix("unix:") {
        return unix_path(path).map(BackendAddress::Unix);
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(Refusal::new("has no scheme").hint(format!("write \"http://{url}\"")));
    };
    if scheme.eq_ignore_ascii_case("https") {
        let hint = "backends are reached by http:// or unix:";
        return Err(Refusal::new("asks for https, which is not supported yet").hint(hint));
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Refusal::new(format!("has the scheme {scheme:?}"))
            .hint("backends are reached by http:// or unix:"));
    }
    if rest.contains('?') {
        return Err(Refusal::new("has a query, which a backend cannot have"));
    }
    if rest.contains('#') {
        return Err(Refusal::new("has a fragment, which a backend cannot have"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if path.len() > 1 {
        let hint = "requests keep their own path; write the url without one";
        return Err(Refusal::new(format!("has the path {path:?}")).hint(hint));
    }
    if authority.contains('@') {
        return Err(Refusal::new("has a user name, which weir would not send"));
    }
    let (host, port) = authority_parts(authority)?;
    Ok(BackendAddress::Tcp { host, port })
}

/// The host, spelled in one way and without brackets, and the port (80 if none is written).
fn authority_parts(authority: &str) -> Result<(String, u16), Refusal> {
    const HTTP: u16 = 80;
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) = rest
            .split_once(']')
            .ok_or_else(|| Refusal::new("has no bracket behind its address"))?;
        let address: Ipv6Addr = host
            .parse()
            .map_err(|_| Refusal::new("has no IPv6 address between its brackets"))?;
        let port = match behind.strip_prefix(':') {
            Some(digits) => port(digits, 1)?,
            None if behind.is_empty() => HTTP,
            None => return Err(Refusal::new("has something else than a port behind its address")),
        };
        return Ok((address.to_string(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((_, rest)) if rest.contains(':') => {
            let hint = "an IPv6 address stands in brackets: \"http://[::1]:8081\"";
            return Err(Refusal::new("has more than one port").hint(hint));
        }
        Some((host, digits)) => (host, port(digits, 1)?),
        None => (authority, HTTP),
    };
    host_name(host)?;
    Ok((host.to_ascii_lowercase(), port))
}

/// Whether `host` is a literal IPv4 address or a name that a resolver could know. Underscores are no part of host names
/// (RFC 952), but names of containers have them.
pub(super) fn host_name(host: &str) -> Result<(), Refusal> {
    if host.is_empty() {
        return Err(Refusal::new("has no host"));
    }
    if !host.is_ascii() {
        return Err(Refusal::new("has a host with letters outside of ASCII").hint("write its \"xn--\" form"));
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label =
        |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(known) && !label.starts_with('-');
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > MAX_HOST || !name.split('.').all(label) {
        return Err(Refusal::new(format!("has the host {host:?}, which is no name")));
    }
    // A last label of digits only is meant as an IPv4 address by every resolver (WHATWG URL, "ends in a number").
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) && name.parse::<Ipv4Addr>().is_err() {
        return Err(Refusal::new(format!(
            "has the host {host:?}, which is no IPv4 address"
        )));
    }
    Ok(())
}

/// What a backend is called in metrics, logs and the admin API's paths.
pub(in crate::config) struct BackendName;

/// The longest name of a backend, in bytes.
const MAX_NAME: usize = 128;

impl Form for BackendName {
    type Out = String;

    fn allowed(&self) -> String {
        format!("up to {MAX_NAME} letters, digits, and any of . _ - : [ ]")
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<String> {
        parsed(node, "a name", bad, |name| {
            let known = |c: char| c.is_ascii_alphanumeric() || "._-:[]".contains(c);
            if let Some(other) = name.chars().find(|c| !known(*c)) {
                return Err(Refusal::new(format!("holds {other:?}")));
            }
            if name.len() > MAX_NAME {
                return Err(Refusal::new(format!("is {} characters long", name.len())));
            }
            Ok(name.to_owned())
        })
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn backend_urls() {
        let tcp = |host: &str, port| {
            Ok(BackendAddress::Tcp {
                host: host.to_owned(),
                port,
            })
        };
        assert_eq!(backend_address("http://127.0.0.1:8081"), tcp("127.0.0.1", 8081));
        assert_eq!(
            backend_address("http://App_1.local:8081/"),
            tcp("app_1.local", 8081)
        );
        assert_eq!(backend_address("HTTP://a"), tcp("a", 80));
        assert_eq!(backend_address("http://[::1]:81"), tcp("::1", 81));
        assert_eq!(backend_address("unix:/a"), Ok(BackendAddress::Unix("/a".into())));
        for url in [
            "",
            "a:80",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:",
            "http://a:80:81",
            "http://a b",
            "http://[::1",
            "http://[a]:80",
            "http://[::1]x",
            "http://a/x",
            "http://a?x",
            "http://a#x",
            "http://u@a",
            "https://a",
            "ftp://a",
            "http://1.2.3",
            "http://256.0.0.1",
            "http://-a",
            "http://a..b",
            "http://ä",
            "http://a//",
            "unix:/a/",
        ] {
            assert!(backend_address(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn a_backend_without_a_name_has_its_authority() {
        let authority = |url: &str| {
            let address = backend_address(url).expect("a url");
            Target {
                url: url.to_owned(),
                address,
            }
            .authority()
            .to_owned()
        };
        assert_eq!(authority("http://Host:8081/"), "Host:8081");
        assert_eq!(authority("http://[::1]:8081"), "[::1]:8081");
        assert_eq!(authority("unix:/run/a"), "unix:/run/a");
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(text: String) {
            let _ = backend_address(&text);
        }

        #[test]
        fn what_passes_can_be_connected_to(url in "(http://|unix:|)[\\[\\]:./@?#a-c0-9 ü]{0,20}") {
            if let Ok(BackendAddress::Tcp { host, port }) = backend_address(&url) {
                prop_assert!(!host.is_empty() && port > 0);
            }
        }
    }
}

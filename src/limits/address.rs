//! Whom a request comes from, where trusted proxies stand between (`server.trusted_proxies`).
//!
//! A proxy adds the address that it got the request from at the right end of `X-Forwarded-For` or `Forwarded` (RFC 7239).
//! So both are read from the right: while whoever sent is trusted, the next address to the left is believed. The first one
//! that is not trusted is the client, and what stands to the left of it is anybody's invention. From a peer that is not
//! trusted nothing is believed at all.
//!
//! * Several lines of a field are one list, in order (RFC 9110 §5.3); empty members are skipped.
//! * An address is IPv4 or IPv6, with or without brackets and port, in `Forwarded` with or without quotes; IPv4 mapped into
//!   IPv6 is IPv4.
//! * What names no address (`unknown`, `_hidden`, anything broken) ends the walk: the client is then the last
//!   address before it, which is the nearest that is known.
//! * If every address is trusted, the leftmost is the client.
//! * At most [`HOPS_MAX`] members are read.
//! * Where both fields are there, `X-Forwarded-For` counts, as everywhere: nearly every proxy writes it, few write
//!   `Forwarded`, and one that writes only the former passes on what a stranger put into the latter. A proxy that writes only
//!   `Forwarded` must therefore remove `X-Forwarded-For`.
//!
//! No allocation; work is linear in the length of the fields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::http1::RequestHead;
use crate::http1::known::is_x_forwarded_for;
use crate::http1::{Known, head::trim};

/// Members that are read, from the right: nobody stands behind that many proxies.
pub const HOPS_MAX: usize = 32;

/// `[v6]:port` at its longest, with room for what is not canonical.
const NODE_BYTES_MAX: usize = 64;

/// Who is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// None: it came over a Unix socket, which no network contains.
    pub client: Option<IpAddr>,
    /// The peer is one of the trusted: what it says about where a request came from goes on.
    pub trusted: bool,
}

/// Whether a peer may say on whose behalf it asks.
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    if trusted.is_empty() {
        return false;
    }
    let peer = peer.to_canonical();
    trusted.iter().any(|network| network.contains(&peer))
}

/// Whom a request comes from.
pub fn identify(head: &RequestHead, bytes: &[u8], peer: Option<IpAddr>, trusted: &[IpNet]) -> Identity {
    let Some(peer) = peer.map(|peer| peer.to_canonical()) else {
        return Identity {
            client: None,
            trusted: false,
        };
    };
    if !is_trusted(peer, trusted) {
        return Identity {
            client: Some(peer),
            trusted: false,
        };
    }
    let x_forwarded_for = head
        .fields(bytes)
        .filter(|&(name, _, known)| known == Known::XForwarded && is_x_forwarded_for(name))
        .map(|(_, value, _)| value);
    let forwarded = head
        .fields(bytes)
        .filter(|&(_, _, known)| known == Known::Forwarded)
        .map(|(_, value, _)| value);
    Identity {
        client: Some(client_address(peer, trusted, x_forwarded_for, forwarded)),
        trusted: true,
    }
}

/// The client's address, given the values of the lines of each field in their order.
pub fn client_address<'a>(
    peer: IpAddr,
    trusted: &[IpNet],
    x_forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    forwarded: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let mut hops = x_forwarded_for
        .rev()
        .flat_map(|line| FromRight::new(line, b','))
        .map(trim)
        .filter(|member| !member.is_empty())
        .map(parse_node)
        .peekable();
    if hops.peek().is_some() {
        return walk(peer, trusted, hops);
    }
    let hops = forwarded
        .rev()
        .flat_map(|line| FromRight::new(line, b','))
        .map(trim)
        .filter(|element| !element.is_empty())
        .map(forwarded_for);
    walk(peer, trusted, hops)
}

/// Goes from proxy to proxy while they are trusted; `hops` are from the nearest on.
fn walk(peer: IpAddr, trusted: &[IpNet], hops: impl Iterator<Item = Option<IpAddr>>) -> IpAddr {
    let mut client = peer;
    for hop in hops.take(HOPS_MAX) {
        let Some(address) = hop else {
            break;
        };
        client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// The members of a list from right to left. Separators within quoted strings do not count.
///
/// Quotes are matched from the right too: what a stranger put at the left cannot swallow what a proxy added behind it. A
/// quote that a backslash precedes is part of the string (RFC 9110 §5.6.4).
struct FromRight<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> FromRight<'a> {
    fn new(list: &'a [u8], separator: u8) -> Self {
        FromRight {
            rest: Some(list),
            separator,
        }
    }
}

impl<'a> Iterator for FromRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let list = self.rest?;
        let (mut quoted, mut at) = (false, list.len());
        while let Some((&byte, before)) = list.get(..at).and_then(<[u8]>::split_last) {
            at -= 1;
            if byte == b'"' {
                let slashes = before.iter().rev().take_while(|&&byte| byte == b'\\').count();
                if slashes % 2 == 0 {
                    quoted = !quoted;
                } else {
                    // What is escaped was stepped over with its backslashes.
                    at -= slashes;
                }
            } else if byte == self.separator && !quoted {
                self.rest = Some(before);
                return list.get(at + 1..);
            }
        }
        self.rest = None;
        Some(list)
    }
}

/// The address of a `forwarded-element` (RFC 7239 §4); none if it names none, or more than one.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut named = FromRight::new(element, b';').filter_map(|pair| {
        let (name, value) = split_once(trim(pair), b'=')?;
        name.eq_ignore_ascii_case(b"for").then_some(value)
    });
    let value = named.next()?;
    if named.next().is_some() {
        return None;
    }
    let unquoted = value
        .strip_prefix(b"\"")
        .map_or(Some(value), |inside| inside.strip_suffix(b"\""))?;
    parse_node(unquoted)
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(separator, bytes)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

/// `nodename [ ":" node-port ]` of RFC 7239 §6, and an IPv6 address without brackets, as `X-Forwarded-For` has it.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    if node.len() > NODE_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(node).ok()?;
    let address = if let Some(bracketed) = text.strip_prefix('[') {
        let (inside, port) = bracketed.split_once(']')?;
        check_port(port.strip_prefix(':').or(port.is_empty().then_some("0"))?)?;
        IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?)
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (before, port) = text.split_once(':')?;
        check_port(port)?;
        IpAddr::V4(before.parse::<Ipv4Addr>().ok()?)
    };
    Some(address.to_canonical())
}

/// `node-port`: digits, or an obfuscated one, which begins with an underscore. It is not used.
fn check_port(port: &str) -> Option<()> {
    let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_number || port.starts_with('_')).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "10.0.0.1";

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8"]
            .map(|network| network.parse().expect("a network"))
            .to_vec()
    }

    #[track_caller]
    fn client(peer: &str, x: &[&str], forwarded: &[&str]) -> String {
        let lines =
            |lines: &[&str]| -> Vec<Vec<u8>> { lines.iter().map(|line| line.as_bytes().to_vec()).collect() };
        let (x, forwarded) = (lines(x), lines(forwarded));
        client_address(
            peer.parse().expect("an address"),
            &trusted(),
            x.iter().map(Vec::as_slice),
            forwarded.iter().map(Vec::as_slice),
        )
        .to_string()
    }

    #[test]
    fn a_stranger_is_who_he_is() {
        assert_eq!(
            client("192.0.2.1", &["10.0.0.9, 1.1.1.1"], &["for=1.1.1.1"]),
            "192.0.2.1"
        );
        assert_eq!(client("::ffff:192.0.2.1", &["1.1.1.1"], &[]), "192.0.2.1");
        let nobody = client_address(
            "10.0.0.1".parse().expect("an address"),
            &[],
            [&b"1.1.1.1"[..]].into_iter(),
            [].into_iter(),
        );
        assert_eq!(nobody.to_string(), "10.0.0.1");
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right() {
        for (lines, expected) in [
            (&[][..], PEER),
            (&[""], PEER),
            (&[" , ,"], PEER),
            (&["192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6,192.0.2.1 , 10.0.0.2,, 10.0.0.3"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1", "10.0.0.2"], "192.0.2.1"),
            (&["192.0.2.1", "10.0.0.2", ""], "192.0.2.1"),
            // All of them trusted: the farthest.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            // What names no address ends it at the last that is known.
            (&["192.0.2.1, unknown"], PEER),
            (&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["192.0.2.1, x.example, 10.0.0.2"], "10.0.0.2"),
            (&["192.0.2.1:80"], "192.0.2.1"),
            (&["192.0.2.1:_x"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:443"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, fd00::7, ::ffff:10.3.3.3"], "192.0.2.1"),
            (&["192.0.2.1:"], PEER),
            (&["192.0.2.1:999999"], PEER),
            (&["192.0.2.1:80x"], PEER),
            (&["[192.0.2.1]"], PEER),
            (&["[2001:db8::1"], PEER),
            (&["[2001:db8::1]x"], PEER),
            (&["fe80::1%eth0"], PEER),
            (&["192.0.2.01"], PEER),
            (&["3221225985"], PEER),
        ] {
            assert_eq!(client(PEER, lines, &[]), expected, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_from_the_right() {
        for (lines, expected) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (&["For=\"192.0.2.1:80\";proto=http;by=203.0.113.43"], "192.0.2.1"),
            (&["proto=http; FOR=192.0.2.1 "], "192.0.2.1"),
            (&["for=\"[2001:db8::1]:47\""], "2001:db8::1"),
            (&["for=\"[2001:db8::1]\", for=10.0.0.2"], "2001:db8::1"),
            (
                &["for=6.6.6.6, for=192.0.2.1", "for=10.0.0.2,for=10.0.0.3"],
                "192.0.2.1",
            ),
            (&["for=192.0.2.1;host=\"a,b;for=6.6.6.6\""], "192.0.2.1"),
            (&["for=192.0.2.1;host=\"a\\\",for=6.6.6.6\""], "192.0.2.1"),
            (&["for=192.0.2.1;host=\"\\\\\""], "192.0.2.1"),
            (&["for=192.0.2.1, for=unknown"], PEER),
            (&["for=192.0.2.1, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=192.0.2.1, proto=http"], PEER),
            (&["for=192.0.2.1;for=6.6.6.6"], PEER),
            (&["for=\"192.0.2.1"], PEER),
            (&["for="], PEER),
            (&["192.0.2.1"], PEER),
            // A stranger's open quote does not swallow what the proxy adds.
            (&["for=\"6.6.6.6, for=192.0.2.1"], "192.0.2.1"),
            (&["for=\"6.6.6.6, for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=\"", "for=192.0.2.1"], "192.0.2.1"),
        ] {
            assert_eq!(client(PEER, &[], lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn x_forwarded_for_counts_where_both_are() {
        assert_eq!(client(PEER, &["192.0.2.1"], &["for=6.6.6.6"]), "192.0.2.1");
        assert_eq!(client(PEER, &["unknown"], &["for=6.6.6.6"]), PEER);
        assert_eq!(client(PEER, &[" "], &["for=192.0.2.1"]), "192.0.2.1");
    }

    #[test]
    fn the_walk_is_bounded() {
        let many = "192.0.2.1".to_owned() + &", 10.0.0.2".repeat(HOPS_MAX);
        assert_eq!(client(PEER, &[&many], &[]), "10.0.0.2");
        let fewer = "192.0.2.1".to_owned() + &", 10.0.0.2".repeat(HOPS_MAX - 1);
        assert_eq!(client(PEER, &[&fewer], &[]), "192.0.2.1");
    }

    #[test]
    fn a_request_is_identified_by_its_fields() {
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: b\r\n\
                      x-forwarded-for: 192.0.2.1\r\nX_Forwarded_For: 7.7.7.7\r\nX-Forwarded-For-: 8.8.8.8\r\n\r\n";
        let mut head = RequestHead::new();
        let limits = crate::http1::Limits {
            max_head_bytes: 4096,
            max_headers: 16,
        };
        assert!(head.parse(bytes, &limits).expect("a request").is_some());
        let from = |peer: Option<&str>| {
            identify(
                &head,
                bytes,
                peer.map(|peer| peer.parse().expect("an address")),
                &trusted(),
            )
        };
        let identity = |client: Option<&str>, trusted| Identity {
            client: client.map(|client| client.parse().expect("an address")),
            trusted,
        };
        assert_eq!(from(Some(PEER)), identity(Some("192.0.2.1"), true));
        assert_eq!(from(Some("::ffff:10.0.0.1")), identity(Some("192.0.2.1"), true));
        assert_eq!(from(Some("203.0.113.1")), identity(Some("203.0.113.1"), false));
        assert_eq!(from(None), identity(None, false));
    }

    proptest! {
        /// Whatever a stranger sends, what the trusted proxy added behind it counts.
        #[test]
        fn nothing_to_the_left_changes_what_the_proxy_added(left in proptest::collection::vec(any::<u8>(), 0..80)) {
            let x: Vec<u8> = [&left[..], b", 192.0.2.1"].concat();
            let forwarded: Vec<u8> = [&left[..], b",for=192.0.2.1"].concat();
            let peer = PEER.parse().expect("an address");
            let none = || [].into_iter();
            let expected: IpAddr = "192.0.2.1".parse().expect("an address");
            prop_assert_eq!(client_address(peer, &trusted(), [&x[..]].into_iter(), none()), expected);
            prop_assert_eq!(client_address(peer, &trusted(), none(), [&forwarded[..]].into_iter()), expected);
        }
    }
}

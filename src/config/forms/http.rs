//! Parts of HTTP messages: methods, headers, paths, hosts, statuses, and what counts as a failure.

use super::backend::host_name;
use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::model::{Failure, HostMode, StatusRange};
use crate::config::node::{Node, Raw};
use crate::config::suggest::nearest;

/// Whether `text` is a token (RFC 9110 §5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(known)
}

/// A method other than CONNECT, in capitals.
pub(in crate::config) struct MethodForm;

impl Form for MethodForm {
    type Out = String;

    fn allowed(&self) -> String {
        "a method in capitals like \"GET\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<String> {
        parsed(node, "a method", bad, |method| {
            if !is_token(method) || method.len() > 32 {
                return Err(Refusal::new("is not a method"));
            }
            if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
                let hint = format!("write \"{}\"", method.to_ascii_uppercase());
                return Err(Refusal::new("is not in capitals, as methods are").hint(hint));
            }
            if method == "CONNECT" {
                return Err(Refusal::new("has no meaning here"));
            }
            Ok(method.to_owned())
        })
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }
}

/// A header line, `Name: value`.
pub(in crate::config) struct HeaderForm;

/// What frames or routes a message is weir's to write.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "expect",
    "te",
    "trailer",
    "keep-alive",
];

impl Form for HeaderForm {
    type Out = (String, String);

    fn allowed(&self) -> String {
        "a header line like \"X-Probe: weir\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<(String, String)> {
        parsed(node, "a header line", bad, |line| {
            let Some((name, value)) = line.split_once(':') else {
                return Err(Refusal::new("has no colon between name and value"));
            };
            if !is_token(name) {
                return Err(Refusal::new("has no valid name before its colon"));
            }
            if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(Refusal::new("is a header that weir writes itself"));
            }
            let value = value.trim_matches([' ', '\t']);
            if value.chars().any(|c| c.is_control() && c != '\t') {
                return Err(Refusal::new("has a control character in its value"));
            }
            Ok((name.to_owned(), value.to_owned()))
        })
    }

    fn show(&self, (name, value): &(String, String)) -> String {
        toml_string(&format!("{name}: {value}"))
    }
}

/// An absolute path.
pub(in crate::config) struct PathForm {
    /// Whether a query may follow.
    pub(in crate::config) query: bool,
    /// Whether `/` alone will do.
    pub(in crate::config) root: bool,
}

/// The longest path of a key, in bytes.
const MAX_PATH: usize = 1024;

impl Form for PathForm {
    type Out = String;

    fn allowed(&self) -> String {
        let query = if self.query {
            "with or without a query"
        } else {
            "without a query"
        };
        let root = if self.root { "" } else { ", other than \"/\"" };
        format!("a path that begins with \"/\", {query}{root}")
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<String> {
        parsed(node, "a path", bad, |path| {
            if !path.starts_with('/') {
                return Err(Refusal::new("does not begin with \"/\"").hint(format!("write \"/{path}\"")));
            }
            if path == "/" && !self.root {
                return Err(Refusal::new("would take every request for the root"));
            }
            if !self.query && path.contains('?') {
                return Err(Refusal::new("has a query"));
            }
            if let Some(other) = path
                .chars()
                .find(|c| !c.is_ascii_graphic() || "#\"<>\\^`{|}".contains(*c))
            {
                return Err(Refusal::new(format!("holds {other:?}")).hint("write it percent-encoded"));
            }
            if path.len() > MAX_PATH {
                return Err(Refusal::new(format!("is longer than {MAX_PATH} bytes")));
            }
            Ok(path.to_owned())
        })
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }
}

/// What backends see as `Host`.
pub(in crate::config) struct HostForm;

impl Form for HostForm {
    type Out = HostMode;

    fn allowed(&self) -> String {
        "\"preserve\", \"backend\", or a host like \"app.example:8080\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<HostMode> {
        parsed(node, "a host", bad, |text| match text {
            "preserve" => Ok(HostMode::Preserve),
            "backend" => Ok(HostMode::Backend),
            name => {
                // A bare word this close to one of weir's own is a slip, not the name of a host.
                if let Some(near) =
                    nearest(name, ["preserve", "backend"]).filter(|_| !name.contains(['.', ':']))
                {
                    let hint = format!("did you mean \"{near}\"? A host of this name is written \"{name}.\"");
                    return Err(Refusal::new("is close to a word with a meaning here").hint(hint));
                }
                host_field(name)?;
                Ok(HostMode::Name(name.to_owned()))
            }
        })
    }

    fn show(&self, value: &HostMode) -> String {
        toml_string(match value {
            HostMode::Preserve => "preserve",
            HostMode::Backend => "backend",
            HostMode::Name(name) => name,
        })
    }
}

/// A host name without a port, in lower case.
pub(in crate::config) struct HostName;

impl Form for HostName {
    type Out = String;

    fn allowed(&self) -> String {
        "a host name like \"weir.example\", without a port".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<String> {
        parsed(node, "a host name", bad, |text| {
            if text.contains('/') {
                return Err(Refusal::new("is not a host name").hint("write it without a scheme and a path"));
            }
            let inner = text.trim_start_matches('[').trim_end_matches(']');
            if inner.parse::<std::net::IpAddr>().is_ok() {
                return Err(Refusal::new("is an address, and those are always accepted"));
            }
            if text.contains('*') {
                return Err(Refusal::new("holds a star").hint("write each name in full"));
            }
            if let Some((name, _)) = text.split_once(':') {
                return Err(
                    Refusal::new("has a port").hint(format!("write \"{name}\": it holds for every port"))
                );
            }
            host_name(text)?;
            Ok(text.trim_end_matches('.').to_ascii_lowercase())
        })
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }
}

/// Checks `host[:port]` as a `Host` field carries it (RFC 9110 §7.2).
fn host_field(text: &str) -> Result<(), Refusal> {
    if text.contains('/') {
        return Err(Refusal::new("is not a host").hint("write it without a scheme and a path"));
    }
    let literal = |text: &str| text.parse::<std::net::SocketAddrV6>().is_ok() || bracketed(text);
    if text.starts_with('[') {
        return if literal(text) {
            Ok(())
        } else {
            Err(Refusal::new("has no IPv6 address in its brackets"))
        };
    }
    let (host, port) = text.split_once(':').unwrap_or((text, "1"));
    host_name(host)?;
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || port.parse::<u16>().map_or(true, |port| port == 0) {
        return Err(Refusal::new(format!(
            "has the port {port:?}, which is not a number from 1 to 65535"
        )));
    }
    Ok(())
}

fn bracketed(text: &str) -> bool {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inner.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// `200` or `200-399`.
pub(in crate::config) struct StatusRangeForm;

/// A status of a final answer: three digits, 200 to 599.
fn status(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|status| digits && (200..=599).contains(status))
}

impl Form for StatusRangeForm {
    type Out = StatusRange;

    fn allowed(&self) -> String {
        "a status or a range like \"200\" or \"200-399\", within 200 to 599".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<StatusRange> {
        if let Raw::Integer(number) = node.raw {
            let range = status(&number.to_string()).map(|status| StatusRange {
                first: status,
                last: status,
            });
            if range.is_none() {
                bad.push(Bad::new(
                    node,
                    format!("{number} is not a status of a final answer"),
                ));
            }
            return range;
        }
        parsed(node, "a status", bad, |text| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            match (status(first.trim()), status(last.trim())) {
                (Some(first), Some(last)) if first <= last => Ok(StatusRange { first, last }),
                (Some(_), Some(_)) => Err(Refusal::new("ends before it begins")),
                _ => Err(Refusal::new("is not a status or a range of them")),
            }
        })
    }

    fn show(&self, value: &StatusRange) -> String {
        let StatusRange { first, last } = value;
        toml_string(&if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        })
    }
}

/// One way in which an attempt goes wrong: a word, a status or a class of statuses.
pub(in crate::config) struct FailureForm {
    /// Whether a stale connection is one.
    pub(in crate::config) stale: bool,
}

const FAILURE_WORDS: &[(&str, Failure)] = &[
    ("connect-failure", Failure::ConnectFailure),
    ("reset", Failure::Reset),
    ("timeout", Failure::Timeout),
    ("stale-connection", Failure::StaleConnection),
];

impl FailureForm {
    fn words(&self) -> impl Iterator<Item = &'static (&'static str, Failure)> {
        let stale = self.stale;
        FAILURE_WORDS
            .iter()
            .filter(move |(_, failure)| stale || *failure != Failure::StaleConnection)
    }
}

impl Form for FailureForm {
    type Out = Failure;

    fn allowed(&self) -> String {
        let words: Vec<String> = self.words().map(|(word, _)| format!("\"{word}\"")).collect();
        format!(
            "{}, a status from \"400\" to \"599\", \"4xx\" or \"5xx\"",
            words.join(", ")
        )
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<Failure> {
        if let Raw::Integer(number) = node.raw {
            let failure = failure_status(&number.to_string());
            if failure.is_none() {
                bad.push(Bad::new(node, format!("{number} is not the status of a failure")));
            }
            return failure;
        }
        parsed(node, "a kind of failure", bad, |text| {
            if let Some((_, failure)) = self.words().find(|(word, _)| *word == text) {
                return Ok(*failure);
            }
            match text {
                "4xx" => return Ok(Failure::Class(4)),
                "5xx" => return Ok(Failure::Class(5)),
                _ => {}
            }
            failure_status(text).ok_or_else(|| {
                let refusal = Refusal::new("is not a kind of failure known here");
                match nearest(text, self.words().map(|(word, _)| *word)) {
                    Some(near) => refusal.hint(format!("did you mean \"{near}\"?")),
                    None => refusal,
                }
            })
        })
    }

    fn show(&self, value: &Failure) -> String {
        let word = FAILURE_WORDS
            .iter()
            .find(|(_, failure)| failure == value)
            .map(|(word, _)| (*word).to_owned());
        let text = match value {
            Failure::Status(status) => status.to_string(),
            Failure::Class(class) => format!("{class}xx"),
            _ => word.unwrap_or_default(),
        };
        toml_string(&text)
    }
}

fn failure_status(text: &str) -> Option<Failure> {
    status(text).filter(|status| *status >= 400).map(Failure::Status)
}

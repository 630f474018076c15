//! The address of an OTLP collector.

use super::{Bad, Form, Refusal, parsed, toml_string};
use crate::config::model::CollectorUrl;
use crate::config::node::Node;

/// The port of OTLP/HTTP.
const PORT: u16 = 4318;
const PATH: &str = "/v1/traces";

/// `http://host[:port][/path]`
pub(in crate::config) struct CollectorForm;

impl Form for CollectorForm {
    type Out = CollectorUrl;

    fn allowed(&self) -> String {
        "a url like \"http://127.0.0.1:4318\"".to_owned()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<CollectorUrl> {
        parsed(node, "a url", bad, |text| {
            let refused = |reason: &str| Err(Refusal::new(reason));
            let Some(rest) = text.strip_prefix("http://") else {
                return refused("does not begin with http://");
            };
            let (authority, path) = match rest.find('/') {
                Some(at) => (&rest[..at], &rest[at..]),
                None => (rest, ""),
            };
            let Ok(parsed) = authority.parse::<hyper::http::uri::Authority>() else {
                return refused("names no host");
            };
            if parsed.host().is_empty() || authority.contains('@') {
                return refused("names no host");
            }
            if path.parse::<hyper::http::uri::PathAndQuery>().is_err() && !path.is_empty() {
                return refused("has a path that is none");
            }
            let port = match parsed.port() {
                Some(port) => port.as_u16(),
                None if authority.ends_with(':')
                    || authority.rsplit(']').next().is_some_and(|end| end.contains(':')) =>
                {
                    return refused("has a port that is none");
                }
                None => PORT,
            };
            Ok(CollectorUrl {
                authority: format!("{}:{port}", parsed.host()),
                path: if path.is_empty() || path == "/" {
                    PATH
                } else {
                    path
                }
                .to_owned(),
            })
        })
    }

    fn show(&self, value: &CollectorUrl) -> String {
        toml_string(&format!("http://{}{}", value.authority, value.path))
    }
}

//! `GET /explain`: what would be chosen for a request now, and why. Nothing is sent and nothing changes; who knows the
//! pools is given in [`State`](super::State), here the question is read.

use std::net::IpAddr;

use hyper::StatusCode;
use serde_json::Value;

use super::command::Refused;

/// Headers of one question.
const HEADERS_MAX: usize = 64;

/// A request as somebody describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Who sends it; none: it comes over a Unix socket.
    pub client: Option<IpAddr>,
    /// What it is known by, instead of what `strategy.key` finds in it.
    pub key: Option<String>,
    /// Names and values in their order, cookies among them.
    pub headers: Vec<(String, String)>,
}

/// Explains one.
pub type Explainer = dyn Fn(&Asked) -> Result<Value, Refused> + Send + Sync;

impl Asked {
    /// From the query of a url. Parameters that mean nothing are refused: they were meant to mean something.
    pub(super) fn read(
        query: &str,
        decoded: impl Fn(&str) -> Result<String, Refused>,
    ) -> Result<Asked, Refused> {
        let refused = |message: String| Refused::new(StatusCode::BAD_REQUEST, message);
        let mut asked = Asked {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            client: None,
            key: None,
            headers: Vec::new(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            match name {
                "method" => asked.method = value,
                "path" => asked.path = value,
                "client" => {
                    let address = value.parse();
                    let address = address.map_err(|_| refused(format!("client={value} is no IP address")))?;
                    asked.client = Some(address);
                }
                "key" => asked.key = Some(value),
                "cookie" => asked.headers.push(("cookie".to_owned(), value)),
                "header" => {
                    let (name, value) = value
                        .split_once(':')
                        .ok_or_else(|| refused(format!("header={value} is not NAME:VALUE")))?;
                    asked
                        .headers
                        .push((name.trim().to_owned(), value.trim().to_owned()));
                }
                _ => {
                    return Err(refused(format!(
                        "{name:?} means nothing here; method, path, client, key, cookie and header do"
                    )));
                }
            }
        }
        if asked.headers.len() > HEADERS_MAX {
            return Err(refused(format!("more than {HEADERS_MAX} headers")));
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Asked, String> {
        Asked::read(query, |text| Ok(text.replace("%20", " "))).map_err(|refused| refused.message)
    }

    #[test]
    fn a_question_is_read_from_its_parameters() {
        let asked = read(
            "method=POST&path=/a?b&client=2001:db8::1&key=k&cookie=a=b;%20c=d&header=X-User:%20u&header=a:",
        );
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            asked,
            Ok(Asked {
                method: "POST".to_owned(),
                path: "/a?b".to_owned(),
                client: Some("2001:db8::1".parse().unwrap()),
                key: Some("k".to_owned()),
                headers: vec![
                    header("cookie", "a=b; c=d"),
                    header("X-User", "u"),
                    header("a", "")
                ],
            })
        );
        let plain = read("").unwrap();
        assert_eq!((&*plain.method, &*plain.path, plain.client), ("GET", "/", None));
        for (bad, says) in [
            ("client=x", "no IP address"),
            ("header=x", "NAME:VALUE"),
            ("pth=/", "\"pth\" means nothing here"),
        ] {
            assert!(read(bad).unwrap_err().contains(says), "{bad}");
        }
        assert!(
            read(&"header=a:b&".repeat(65))
                .unwrap_err()
                .contains("64 headers")
        );
    }
}

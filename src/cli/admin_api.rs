//! One question to the admin API of a running weir, over TCP or a Unix socket, for commands that print what it says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::admin::Guard;

/// Bytes of one answer.
const ANSWER_MAX: usize = 64 << 20;

/// Where the admin API is, and the way in.
pub(super) struct Admin {
    address: Address,
    token: Option<String>,
}

enum Address {
    /// A host without brackets, and a port.
    Tcp(String, u16),
    Unix(PathBuf),
}

impl Admin {
    /// From `http://HOST:PORT` or `unix:/PATH`, and a file with a token.
    ///
    /// # Errors
    /// What is allowed, or what is wrong with the file.
    pub(super) fn new(url: &str, token_file: Option<&Path>) -> Result<Admin, String> {
        let token = match token_file {
            None => None,
            Some(path) => {
                let refused = |why: String| format!("--token-file: {} {why}", path.display());
                let text = std::fs::read_to_string(path)
                    .map_err(|error| refused(format!("cannot be read: {error}")))?;
                Some(Guard::token_of(&text).map_err(refused)?)
            }
        };
        let address = Address::parse(url).map_err(|why| format!("--admin {url:?}: {why}"))?;
        Ok(Admin { address, token })
    }

    /// The JSON at `target`.
    ///
    /// # Errors
    /// In words, also what weir said where it refused.
    pub(super) fn get(&self, target: &str, patience: Duration) -> Result<Value, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        let asked = runtime.block_on(async { tokio::time::timeout(patience, self.ask(target)).await });
        asked.unwrap_or_else(|_| Err(format!("{}: no answer within {patience:?}", self.host())))
    }

    async fn ask(&self, target: &str) -> Result<Value, String> {
        let host = self.host();
        let cannot = |error: std::io::Error| format!("{host}: cannot connect: {error}");
        let answer = match &self.address {
            Address::Tcp(name, port) => {
                let stream = TcpStream::connect((name.as_str(), *port)).await.map_err(cannot)?;
                self.over(TokioIo::new(stream), target).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(cannot)?;
                self.over(TokioIo::new(stream), target).await
            }
        };
        let (status, body) = answer.map_err(|error| format!("{host}: {error}"))?;
        let value: Value = serde_json::from_slice(&body)
            .map_err(|error| format!("{host} answered {status} and nothing that a weir says: {error}"))?;
        match status {
            StatusCode::OK => Ok(value),
            StatusCode::UNAUTHORIZED => {
                Err(format!("{host}: a token is needed, or another one: --token-file FILE"))
            }
            _ => Err(format!("{host}: {}", value["error"].as_str().unwrap_or(status.as_str()))),
        }
    }

    async fn over<T>(&self, stream: T, target: &str) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error>>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let mut request = Request::get(target)
            .header(HOST, self.host())
            .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let (mut sender, connection) = http1::handshake(stream).await?;
        // It ends with the sender; what goes wrong shows in the answer.
        tokio::spawn(connection);
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX);
        let body = body.collect().await.map_err(|error| format!("the answer broke off: {error}"))?;
        Ok((status, body.to_bytes()))
    }

    fn host(&self) -> String {
        match &self.address {
            Address::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp(host, port) => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl Address {
    fn parse(text: &str) -> Result<Address, &'static str> {
        const ALLOWED: &str = "the admin address is http://HOST:PORT or unix:/PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return path.is_absolute().then_some(Address::Unix(path)).ok_or(ALLOWED);
        }
        let uri: Uri = text.parse().map_err(|_| ALLOWED)?;
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
        // What else an authority holds is a user's name, or no port.
        let plain = uri.authority().is_some_and(|authority| {
            authority.as_str() == host || authority.as_str() == format!("{host}:{port}")
        });
        if uri.scheme_str() != Some("http") || host.is_empty() || !plain || uri.path() != "/" {
            return Err(ALLOWED);
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Address::Tcp(host, port))
    }
}

/// A part of a query: all but unreserved characters percent-encoded (RFC 3986 §2.3).
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, host) in [
            ("http://127.0.0.1:9070", "127.0.0.1:9070"),
            ("http://[::1]:9070/", "[::1]:9070"),
            ("http://weir", "weir:80"),
            ("unix:/run/weir.sock", "localhost"),
        ] {
            let admin = Admin::new(text, None).map_err(|why| format!("{text}: {why}")).unwrap();
            assert_eq!(admin.host(), host);
        }
        for bad in ["", "https://weir", "http://u@weir", "http://weir/metrics", "unix:weir", "weir:9070"] {
            assert!(Admin::new(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn whatever_is_encoded_stays_one_parameter() {
        assert_eq!(encoded("a: b&c=ä"), "a%3A%20b%26c%3D%C3%A4");
    }
}

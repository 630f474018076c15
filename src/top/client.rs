//! Asks the admin API of a running weir, over TCP or a Unix socket, and waits no longer than it may. `weir explain` asks
//! through it too.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::model::{Backends, Metrics, Readiness, Reading, Rows, Windows};

/// For everything that is asked at once.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of one answer.
const MAX_ANSWER: usize = 64 << 20;

/// Where the admin API is, and the way in.
#[derive(Clone)]
pub struct Admin {
    address: Address,
    token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    /// A host without brackets, and a port.
    Tcp(String, u16),
    Unix(PathBuf),
}

impl fmt::Debug for Admin {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "http://[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "http://{host}:{port}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What an operator may do to a backend from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Drain,
    Ready,
}

impl Action {
    pub const fn word(self) -> &'static str {
        match self {
            Action::Drain => "drain",
            Action::Ready => "ready",
        }
    }
}

/// One backend, to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub pool: String,
    pub name: String,
    pub action: Action,
}

impl Admin {
    /// From `http://HOST:PORT`, `HOST:PORT` or `unix:PATH`, and the token if there is one.
    ///
    /// # Errors
    /// What is allowed.
    pub fn new(text: &str, token: Option<String>) -> Result<Admin, String> {
        const ALLOWED: &str = "the admin address is http://HOST:PORT or unix:/PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            let address = path.is_absolute().then_some(Address::Unix(path)).ok_or(ALLOWED)?;
            return Ok(Admin { address, token });
        }
        let whole = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let uri: Uri = whole.parse().map_err(|error| format!("{ALLOWED} ({error})"))?;
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(80));
        // What else an authority holds is a user's name, or no port.
        let plain = uri.authority().is_some_and(|authority| {
            authority.as_str() == host || authority.as_str() == format!("{host}:{port}")
        });
        if uri.scheme_str() != Some("http") || host.is_empty() || !plain || uri.path() != "/" {
            return Err(ALLOWED.to_owned());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Admin {
            address: Address::Tcp(host, port),
            token,
        })
    }

    /// The JSON at `target`, within `patience`.
    ///
    /// # Errors
    /// In words, with the address: also what weir said to it.
    pub async fn get<T: DeserializeOwned>(&self, target: &str, patience: Duration) -> Result<T, String> {
        self.within(patience, async { self.open().await?.json(target, false).await })
            .await
    }

    /// Everything that is shown. `window`: what percentiles look back over; `rows_from`: the first second of the history
    /// that is not known yet.
    ///
    /// # Errors
    /// In words, with the address.
    pub async fn read(&self, window: Duration, rows_from: u64) -> Result<Reading, String> {
        self.within(DEADLINE, async {
            let mut session = self.open().await?;
            let readiness: Readiness = session.json("/readyz", true).await?;
            let metrics: Metrics = session.json("/metrics", false).await?;
            let at = Instant::now();
            let backends: Backends = session.json("/backends", false).await?;
            let seconds = window.as_secs().max(1);
            let recent = session
                .text(&format!("/metrics/hdr.hlog?interval={seconds}s"))
                .await?;
            let whole = session.text("/metrics/hdr.hlog").await?;
            let rows: Rows = session.json(&format!("/history?from={rows_from}"), false).await?;
            Ok(Reading {
                at,
                clock: SystemTime::now(),
                readiness,
                metrics,
                backends: backends.backends,
                recent: Windows::parse(&recent)?,
                whole: Windows::parse(&whole)?,
                rows: rows.rows,
            })
        })
        .await
    }

    /// Changes one backend.
    ///
    /// # Errors
    /// In words, with the address: also what weir said to it.
    pub async fn change(&self, change: &Change) -> Result<(), String> {
        self.within(DEADLINE, async {
            let mut session = self.open().await?;
            let target = format!(
                "/v1/pools/{}/backends/{}/{}",
                encoded(&change.pool),
                encoded(&change.name),
                change.action.word()
            );
            session.send(Method::POST, &target, "{}", false).await.map(drop)
        })
        .await
    }

    async fn within<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        match timeout(patience, work).await {
            Ok(result) => result.map_err(|why| format!("{self}: {why}")),
            Err(_) => Err(format!("{self}: no answer within {patience:?}")),
        }
    }

    async fn open(&self) -> Result<Session<'_>, String> {
        let cannot = |error: std::io::Error| format!("cannot connect: {error}");
        let sender = match &self.address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(cannot)?;
                handshake(TokioIo::new(stream)).await
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(cannot)?;
                handshake(TokioIo::new(stream)).await
            }
        };
        Ok(Session {
            admin: self,
            sender: sender.map_err(|error| format!("cannot speak HTTP: {error}"))?,
        })
    }

    fn host(&self) -> String {
        match &self.address {
            Address::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Address::Tcp(host, port) => format!("{host}:{port}"),
            Address::Unix(_) => "localhost".to_owned(),
        }
    }
}

async fn handshake<T>(stream: T) -> hyper::Result<SendRequest<Full<Bytes>>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(stream).await?;
    // It ends when the sender is dropped; what goes wrong is told to whoever waits for an answer.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// One connection, for some requests one after the other.
struct Session<'a> {
    admin: &'a Admin,
    sender: SendRequest<Full<Bytes>>,
}

impl Session<'_> {
    /// The body of a good answer; with `any`, of whatever answer.
    async fn send(
        &mut self,
        method: Method,
        target: &str,
        body: &'static str,
        any: bool,
    ) -> Result<Bytes, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, self.admin.host())
            .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.admin.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let broken = |error: hyper::Error| format!("{target} was not answered: {error}");
        let request = request
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .map_err(|error| format!("{target} cannot be asked for: {error}"))?;
        self.sender.ready().await.map_err(broken)?;
        let answer = self.sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| format!("the answer of {target} broke off: {error}"))?
            .to_bytes();
        match status {
            StatusCode::UNAUTHORIZED => {
                Err("a token is needed, or another one: --token-file FILE".to_owned())
            }
            _ if any || status.is_success() => Ok(body),
            _ => {
                let said: Option<Said> = serde_json::from_slice(&body).ok();
                let said = said.map_or_else(String::new, |said| format!(": {}", said.error));
                Err(format!("{target} was answered {status}{said}"))
            }
        }
    }

    async fn text(&mut self, target: &str) -> Result<String, String> {
        let body = self.send(Method::GET, target, "", false).await?;
        String::from_utf8(body.into()).map_err(|_| format!("the answer of {target} is no text"))
    }

    async fn json<T: DeserializeOwned>(&mut self, target: &str, any: bool) -> Result<T, String> {
        let body = self.send(Method::GET, target, "", any).await?;
        serde_json::from_slice(&body)
            .map_err(|error| format!("the answer of {target} is not what a weir says: {error}"))
    }
}

/// Why something was refused.
#[derive(serde::Deserialize)]
struct Said {
    error: String,
}

/// A segment of a path or a part of a query: all but unreserved characters percent-encoded (RFC 3986 §2.3).
pub fn encoded(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, shown, host) in [
            ("http://127.0.0.1:9070", "http://127.0.0.1:9070", "127.0.0.1:9070"),
            (
                "http://127.0.0.1:9070/",
                "http://127.0.0.1:9070",
                "127.0.0.1:9070",
            ),
            ("localhost:9070", "http://localhost:9070", "localhost:9070"),
            ("http://[::1]:9070", "http://[::1]:9070", "[::1]:9070"),
            ("http://weir", "http://weir:80", "weir:80"),
            ("unix:/run/weir.sock", "unix:/run/weir.sock", "localhost"),
        ] {
            let admin = Admin::new(text, None).expect(text);
            assert_eq!(
                (admin.to_string(), admin.host()),
                (shown.to_owned(), host.to_owned())
            );
        }
        for bad in [
            "",
            "https://weir:9070",
            "http://user@weir:9070",
            "http://weir:99999",
            "http://weir:9070/metrics",
            "unix:weir.sock",
            "http://",
        ] {
            assert!(
                Admin::new(bad, None).expect_err(bad).contains("http://HOST:PORT"),
                "{bad}"
            );
        }
    }

    #[test]
    fn names_fit_into_paths_and_tokens_into_no_text() {
        assert_eq!(encoded("[::1]:80/a b"), "%5B%3A%3A1%5D%3A80%2Fa%20b");
        let admin = Admin::new("weir:1", Some("secret".to_owned())).expect("an address");
        assert!(!format!("{admin:?} {admin}").contains("secret"));
    }
}

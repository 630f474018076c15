//! Request heads: found, cut into fields and judged (RFC 9112 §2, §3, §5, §6).
//!
//! Beside what [`super`] lists: CONNECT and TRACE are refused (weir is no tunnel, and TRACE echoes credentials); a
//! method is at most [`METHOD_BYTES_MAX`] long; `Host` is needed once in HTTP/1.1 and never allowed twice, and may be
//! empty (RFC 9110 §7.2). `Expect` and `Upgrade` mean nothing in HTTP/1.0 (RFC 9110 §10.1.1, §7.8).

use super::Reject;
use super::framing::{self, BodyLength};
use super::head::{self, Limits, Method, Options, Progress, Span, Table, Version};
use super::known::Known;
use super::target::{self, Path, Target};
use crate::reason::Reason;

/// The longest method name taken.
pub const METHOD_BYTES_MAX: usize = 32;

/// A request head as offsets into the bytes it was parsed from; every accessor that takes `bytes` wants those.
///
/// Before [`parse`](Self::parse) has returned a length, the accessors answer for an empty `GET /` of HTTP/1.1.
#[derive(Clone, Debug)]
pub struct RequestHead {
    progress: Progress,
    length: usize,
    method: Method,
    method_span: Span,
    version: Version,
    target: Target,
    body: BodyLength,
    expects_continue: bool,
    options: Options,
    pub(super) table: Table,
}

impl Default for RequestHead {
    fn default() -> Self {
        RequestHead::new()
    }
}

impl RequestHead {
    pub fn new() -> Self {
        RequestHead {
            progress: Progress::default(),
            length: 0,
            method: Method::Get,
            method_span: Span::default(),
            version: Version::Http11,
            target: Target {
                path: Path::Root,
                authority: None,
            },
            body: BodyLength::None,
            expects_continue: false,
            options: Options::default(),
            table: Table::default(),
        }
    }

    /// Forgets the head and how far it had come; keeps the table's memory.
    pub fn reset(&mut self) {
        let mut table = std::mem::take(&mut self.table);
        table.clear();
        *self = RequestHead {
            table,
            ..RequestHead::new()
        };
    }

    /// Looks for a whole head at the start of `bytes` and judges it.
    ///
    /// `Ok(None)`: more bytes are needed; call again with the same bytes and more behind them. `Ok(Some(length))`: the
    /// head is `bytes[..length]`, including an empty line that was skipped in front; what follows is its body or the
    /// next request. After that, [`reset`](Self::reset) before the next head.
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
        let window = &bytes[..bytes.len().min(limits.head_bytes())];
        let bare_lf = |_| Reject::new(Reason::BadRequest, "a line that does not end in CRLF");
        if !self.progress.worth_trying(window).map_err(bare_lf)? {
            return incomplete(window, limits);
        }
        let Some(skipped) = skip_empty_line(window)? else {
            return incomplete(window, limits);
        };
        let mut headers = head::no_headers();
        let mut request = httparse::Request::new(&mut []);
        let outcome = request.parse_with_uninit_headers(&window[skipped..], &mut headers[..limits.headers()]);
        match outcome {
            Ok(httparse::Status::Complete(length)) => {
                self.judge(window, skipped, skipped + length, &request)?;
                self.length = skipped + length;
                Ok(Some(self.length))
            }
            Ok(httparse::Status::Partial) => {
                self.progress.tried(window).map_err(bare_lf)?;
                incomplete(window, limits)
            }
            Err(httparse::Error::Version) => match judge_version(&window[skipped..]) {
                Some(reject) => Err(reject),
                None => {
                    self.progress.tried(window).map_err(bare_lf)?;
                    incomplete(window, limits)
                }
            },
            Err(error) => Err(explain(error)),
        }
    }

    fn judge(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
        request: &httparse::Request<'_, '_>,
    ) -> Result<(), Reject> {
        let bad = |detail| Reject::new(Reason::BadRequest, detail);
        let method = request.method.unwrap_or_default().as_bytes();
        if method.is_empty() || method.len() > METHOD_BYTES_MAX {
            return Err(bad("a method of more than 32 bytes"));
        }
        self.method = Method::from_bytes(method);
        if matches!(self.method, Method::Connect | Method::Trace) {
            return Err(Reject::new(
                Reason::MethodRefused,
                "the methods CONNECT and TRACE are not served",
            ));
        }
        self.method_span = Span::new(start, start + method.len());
        self.version = if request.version == Some(0) {
            Version::Http10
        } else {
            Version::Http11
        };

        let target_start = start + method.len() + 1;
        let target = Span::new(
            target_start,
            target_start + request.path.unwrap_or_default().len(),
        );
        self.target = target::judge(bytes, target, self.method).map_err(bad)?;

        let fields_start = target.end as usize + " HTTP/1.1\r\n".len();
        if bytes.get(fields_start - 2..fields_start) != Some(b"\r\n") {
            return Err(bad("a request line that does not end in CRLF"));
        }
        self.table
            .fill(bytes, request.headers, fields_start, end)
            .map_err(bad)?;
        self.options = self.table.options(bytes).map_err(bad)?;
        self.judge_host(bytes).map_err(bad)?;
        self.judge_upgrade(bytes).map_err(bad)?;
        self.expects_continue = self.version == Version::Http11
            && self
                .table
                .members(Known::Expect, bytes)
                .any(|member| member.eq_ignore_ascii_case(b"100-continue"));
        self.body = framing::declared(&self.table, bytes, self.version)
            .map_err(|detail| Reject::new(Reason::Framing, detail))?
            .unwrap_or(BodyLength::None);
        Ok(())
    }

    /// RFC 9112 §3.2.
    fn judge_host(&self, bytes: &[u8]) -> Result<(), &'static str> {
        if self.table.is_repeated(Known::Host) {
            return Err("more than one Host");
        }
        match self.table.single(Known::Host, bytes) {
            Some([]) => Ok(()),
            Some(host) => target::check_authority(host),
            None if self.version == Version::Http11 => Err("no Host in HTTP/1.1"),
            None => Ok(()),
        }
    }

    /// `token [ "/" token ]` (RFC 9110 §7.8), where an upgrade is asked for at all.
    fn judge_upgrade(&self, bytes: &[u8]) -> Result<(), &'static str> {
        if !self.upgrade_asked() {
            return Ok(());
        }
        let valid = self.table.members(Known::Upgrade, bytes).all(head::is_protocol);
        if valid {
            Ok(())
        } else {
            Err("an Upgrade that names no protocol")
        }
    }

    fn upgrade_asked(&self) -> bool {
        self.version == Version::Http11 && self.options.upgrade && self.table.has(Known::Upgrade)
    }

    /// Bytes of the head, 0 before there is one.
    pub fn head_len(&self) -> usize {
        self.length
    }

    pub fn method(&self) -> Method {
        self.method
    }

    pub fn method_bytes<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.method_span.of(bytes)
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// The target as origin-form or `*`.
    ///
    /// One shape starts with `?`: an absolute-form with a query and no path (`http://a?q`); [`super::write_request`]
    /// sends it with the `/` that it means.
    pub fn path<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self.target.path {
            Path::At(span) => span.of(bytes),
            Path::Root => b"/",
            Path::Asterisk => b"*",
        }
    }

    /// Whom the request is for: the authority of an absolute-form target, else the value of `Host` (maybe empty).
    pub fn authority<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self.target.authority {
            Some(span) => Some(span.of(bytes)),
            None => self.table.single(Known::Host, bytes),
        }
    }

    /// The authority of an absolute-form target, which is to go out as `Host`.
    pub(super) fn target_authority<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.target.authority.map(|span| span.of(bytes))
    }

    /// Bytes of what [`authority`](Self::authority) gives.
    pub(super) fn authority_len(&self) -> usize {
        let host = || self.table.all(Known::Host).next().map(|field| field.value);
        self.target.authority.or_else(host).map_or(0, Span::len)
    }

    pub fn body(&self) -> BodyLength {
        self.body
    }

    /// Whether the client wants to send another request on its connection (RFC 9112 §9.3).
    pub fn wants_keep_alive(&self) -> bool {
        self.options.persist(self.version)
    }

    /// Whether the client may be waiting for a 100 before it sends the body (RFC 9110 §10.1.1). Never in HTTP/1.0, never
    /// without a body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue && self.body != BodyLength::None
    }

    /// The protocol that the client would best like to change to; `None` if it asks for none that weir lets through.
    pub fn upgrade<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        self.upgrade_protocols(bytes).next()
    }

    /// Every protocol that is passed on in `Upgrade`: asked for in HTTP/1.1, with `Connection: upgrade`, and not HTTP/2 in
    /// clear text (`h2c`), which would leave weir blind to the requests inside.
    pub fn upgrade_protocols<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let members = self
            .upgrade_asked()
            .then(|| self.table.members(Known::Upgrade, bytes));
        members
            .into_iter()
            .flatten()
            .filter(|protocol| !head::is_http2(protocol))
    }

    /// Whether the client takes trailers (RFC 9110 §10.1.4).
    pub(super) fn takes_trailers(&self, bytes: &[u8]) -> bool {
        self.version == Version::Http11
            && self
                .table
                .members(Known::Te, bytes)
                .any(|member| member.eq_ignore_ascii_case(b"trailers"))
    }

    /// Whether there is a `Forwarded`, any `X-Forwarded-…` or a `Via`: it came through another proxy, or says so.
    pub fn has_forwarding_fields(&self) -> bool {
        self.has(Known::Forwarded) || self.has(Known::XForwarded) || self.has(Known::Via)
    }

    pub fn has(&self, known: Known) -> bool {
        self.table.has(known)
    }

    /// The value of the first field of that name (any case).
    pub fn field<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.table.find(bytes, name)
    }

    /// Every field line in order: name, value without the whitespace around it, what it is.
    pub fn fields<'a>(
        &self,
        bytes: &'a [u8],
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8], Known)> {
        self.table.iter(bytes)
    }
}

/// The answer to a head that is not whole: wait, or give up.
fn incomplete(window: &[u8], limits: &Limits) -> Result<Option<usize>, Reject> {
    if window.len() < limits.head_bytes() {
        return Ok(None);
    }
    let line = window.strip_prefix(b"\r\n").unwrap_or(window);
    if memchr::memchr(b'\n', line).is_none() {
        return Err(Reject::new(
            Reason::UriTooLong,
            "a request line longer than a head may be",
        ));
    }
    Err(Reject::new(
        Reason::HeadTooLarge,
        "a request head longer than http.max_head_bytes",
    ))
}

/// How many bytes to skip in front of the request line (RFC 9112 §2.2); `None` if that cannot be told yet.
fn skip_empty_line(bytes: &[u8]) -> Result<Option<usize>, Reject> {
    let skipped = match bytes {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    match bytes.get(skipped) {
        None => Ok(None),
        Some(b'\r' | b'\n') => Err(Reject::new(
            Reason::BadRequest,
            "an empty line where a request line belongs",
        )),
        Some(_) => Ok(Some(skipped)),
    }
}

/// What the version in a request line is, once the tokeniser has found it to be neither 1.0 nor 1.1; `None` if its end has
/// not come yet.
fn judge_version(bytes: &[u8]) -> Option<Reject> {
    let version = bytes.splitn(3, |&byte| byte == b' ').nth(2).unwrap_or_default();
    let fits = version
        .iter()
        .zip(b"HTTP/0.0\r")
        .all(|(&byte, &want)| match want {
            b'0' => byte.is_ascii_digit(),
            _ => byte == want,
        });
    match (fits, version.len() > "HTTP/0.0".len()) {
        (false, _) => Some(Reject::new(
            Reason::BadRequest,
            "a request line that does not end in an HTTP version",
        )),
        (true, true) => Some(Reject::new(
            Reason::Version,
            "a version other than HTTP/1.0 and HTTP/1.1",
        )),
        (true, false) => None,
    }
}

fn explain(error: httparse::Error) -> Reject {
    use httparse::Error;
    let (reason, detail) = match error {
        Error::TooManyHeaders => (Reason::HeadTooLarge, "more fields than http.max_headers"),
        Error::HeaderName => (
            Reason::BadRequest,
            "a field line that is folded, has no colon right behind its name, or an invalid character in it",
        ),
        Error::HeaderValue => (Reason::BadRequest, "a control character in a field value"),
        Error::NewLine => (
            Reason::BadRequest,
            "a CR that no LF follows, or something behind the version",
        ),
        Error::Token => (
            Reason::BadRequest,
            "a request line that is not `method target version`",
        ),
        Error::Status | Error::Version => (Reason::BadRequest, "a malformed request line"),
    };
    Reject::new(reason, detail)
}

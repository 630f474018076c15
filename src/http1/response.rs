//! Response heads: found, cut into fields and judged (RFC 9112 §4, §5, §6.3). A backend is a stranger too.
//!
//! Every refusal is [`Reason::BadResponse`]. Decisions where the RFCs leave room:
//!
//! * A status line without the space behind the code is taken (many servers leave it out); it goes out with the space.
//!   Codes are three digits from 100 to 999; what is past 599 has no class and passes.
//! * 1xx, 204, 304 and answers to HEAD have no body, whatever the fields say; the fields must still be well-formed.
//!   `Transfer-Encoding` or a `Content-Length` other than 0 on a 1xx or 204 (RFC 9110 §8.6, RFC 9112 §6.1 forbid both) is
//!   refused: such a backend probably sends a body as well.
//! * A 101 is refused unless the request asked, and unless it is HTTP/1.1 with `Upgrade` (not h2c) and `Connection:
//!   upgrade` (RFC 9110 §7.8, §15.2.2). What follows it is a tunnel and no body.
//! * Without framing fields the body runs until the backend closes (RFC 9112 §6.3 rule 8).

use super::Reject;
use super::framing::{self, BodyLength};
use super::head::{self, Limits, Method, Options, Progress, Span, Table, Version};
use super::known::Known;
use crate::reason::Reason;

/// What of the request decides how its response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    pub method: Method,
    /// An upgrade was passed on to the backend.
    pub upgrade: bool,
}

/// A response head as offsets into the bytes it was parsed from; every accessor that takes `bytes` wants those.
///
/// Before [`parse`](Self::parse) has returned a length, the accessors answer for an empty 200 of HTTP/1.1.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    progress: Progress,
    length: usize,
    version: Version,
    status: u16,
    reason: Span,
    body: BodyLength,
    options: Options,
    pub(super) table: Table,
}

impl Default for ResponseHead {
    fn default() -> Self {
        ResponseHead::new()
    }
}

/// `HTTP/1.1 200`: where the code ends.
const CODE_END: usize = 12;

impl ResponseHead {
    pub fn new() -> Self {
        ResponseHead {
            progress: Progress::default(),
            length: 0,
            version: Version::Http11,
            status: 200,
            reason: Span::default(),
            body: BodyLength::None,
            options: Options::default(),
            table: Table::default(),
        }
    }

    /// Forgets the head and how far it had come; keeps the table's memory.
    pub fn reset(&mut self) {
        let mut table = std::mem::take(&mut self.table);
        table.clear();
        *self = ResponseHead {
            table,
            ..ResponseHead::new()
        };
    }

    /// Looks for a whole head at the start of `bytes` and judges it; see [`super::RequestHead::parse`].
    ///
    /// After an [interim](Self::is_interim) response, [`reset`](Self::reset) and parse what follows it.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        request: RequestFacts,
    ) -> Result<Option<usize>, Reject> {
        let found = self.find(bytes, limits, request);
        found.map_err(|detail| Reject::new(Reason::BadResponse, detail))
    }

    fn find(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        request: RequestFacts,
    ) -> Result<Option<usize>, &'static str> {
        let window = &bytes[..bytes.len().min(limits.head_bytes())];
        let incomplete = || {
            if window.len() < limits.head_bytes() {
                return Ok(None);
            }
            Err("a response head longer than http.max_head_bytes")
        };
        let bare_lf = |_| "a line that does not end in CRLF";
        if window.is_empty() || !self.progress.worth_trying(window).map_err(bare_lf)? {
            return incomplete();
        }
        if window[0] != b'H' {
            return Err("something other than a status line");
        }
        let mut headers = head::no_headers();
        let mut response = httparse::Response::new(&mut []);
        let outcome = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            window,
            &mut headers[..limits.headers()],
        );
        match outcome.map_err(explain)? {
            httparse::Status::Complete(length) => {
                self.judge(window, length, &response, request)?;
                self.length = length;
                Ok(Some(length))
            }
            httparse::Status::Partial => {
                self.progress.tried(window).map_err(bare_lf)?;
                incomplete()
            }
        }
    }

    fn judge(
        &mut self,
        bytes: &[u8],
        end: usize,
        response: &httparse::Response<'_, '_>,
        request: RequestFacts,
    ) -> Result<(), &'static str> {
        self.version = if response.version == Some(0) {
            Version::Http10
        } else {
            Version::Http11
        };
        self.status = response.code.unwrap_or_default();
        if self.status < 100 {
            return Err("a status code below 100");
        }
        let line_end = memchr::memchr(b'\n', bytes).unwrap_or_default();
        if line_end <= CODE_END || bytes[line_end - 1] != b'\r' {
            return Err("a status line that does not end in CRLF");
        }
        self.reason = Span::new((CODE_END + 1).min(line_end - 1), line_end - 1);
        self.table.fill(bytes, response.headers, line_end + 1, end)?;
        self.options = self.table.options(bytes)?;
        let declared = framing::declared(&self.table, bytes, self.version)?;
        if self.status == 101 {
            self.judge_upgrade(bytes, request)?;
        }
        let chunked_or_longer = !matches!(declared, None | Some(BodyLength::None));
        self.body = match self.status {
            100..=199 | 204 if chunked_or_longer => return Err("a 1xx or 204 that announces a body"),
            100..=199 | 204 | 304 => BodyLength::None,
            _ if request.method == Method::Head => BodyLength::None,
            _ => declared.unwrap_or(BodyLength::UntilClose),
        };
        Ok(())
    }

    fn judge_upgrade(&self, bytes: &[u8], request: RequestFacts) -> Result<(), &'static str> {
        if !request.upgrade {
            return Err("a 101 that nobody asked for");
        }
        if self.version == Version::Http10 || !self.options.upgrade {
            return Err("a 101 without `Connection: upgrade`");
        }
        let mut protocols = self.table.members(Known::Upgrade, bytes).peekable();
        if protocols.peek().is_none()
            || !protocols.all(|name| head::is_protocol(name) && !head::is_http2(name))
        {
            return Err("a 101 to no protocol that was asked for");
        }
        Ok(())
    }

    /// Bytes of the head, 0 before there is one.
    pub fn head_len(&self) -> usize {
        self.length
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as it came, maybe empty.
    pub fn reason_phrase<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        self.reason.of(bytes)
    }

    pub fn body(&self) -> BodyLength {
        self.body
    }

    /// 1xx except 101: another response head follows.
    pub fn is_interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }

    /// Whether the backend will take another request on this connection, as far as its head says (RFC 9112 §9.3).
    pub fn wants_keep_alive(&self) -> bool {
        self.options.persist(self.version) && self.body != BodyLength::UntilClose && self.status != 101
    }

    /// Protocols that the backend offers or has changed to, without HTTP/2 in clear text.
    pub(super) fn upgrade_protocols<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let valid = |name: &&[u8]| head::is_protocol(name) && !head::is_http2(name);
        self.table.members(Known::Upgrade, bytes).filter(valid)
    }

    pub fn has(&self, known: Known) -> bool {
        self.table.has(known)
    }

    /// The value of the first field of that name (any case).
    pub fn field<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.table.find(bytes, name)
    }

    /// Every field line in order: name, value without the whitespace around it, what it is.
    pub fn fields<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8], Known)> {
        self.table.iter(bytes)
    }
}

fn explain(error: httparse::Error) -> &'static str {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => "more fields than http.max_headers",
        Error::HeaderName => {
            "a field line that is folded, has no colon right behind its name, or an invalid character in it"
        }
        Error::HeaderValue => "a control character in a field value",
        Error::NewLine => "a CR that no LF follows",
        Error::Version => "a version other than HTTP/1.0 and HTTP/1.1",
        Error::Status | Error::Token => "a status line that is not `version code reason`",
    }
}

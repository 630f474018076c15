//! What request and response heads share: the table of fields, the search for the head's end, `Connection` options.
//!
//! `httparse` cuts the head into tokens; it refuses bare CR, NUL, folded lines and whitespace before a colon by itself,
//! but takes a bare LF for a line end and skips any number of empty lines. `Table::fill` therefore checks that start
//! line, field lines and the empty line adjoin one another with exactly CRLF between them, so that no byte of the head
//! is left unexplained.

use std::mem::MaybeUninit;

use super::known::Known;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Start line, fields and the empty line, in bytes; what is past [`HEAD_BYTES_MAX`] counts as that.
    pub max_head_bytes: usize,
    /// Field lines; what is past [`HEADERS_MAX`] counts as that.
    pub max_headers: usize,
}

/// The most field lines that any configuration allows.
pub const HEADERS_MAX: usize = 512;
/// The largest head that any configuration allows; keeps offsets in 32 bits.
pub const HEAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// `Connection` options looked at in one head; more are refused, or options × fields could cost real time.
pub const CONNECTION_OPTIONS_MAX: usize = 64;

impl Limits {
    pub(super) fn head_bytes(&self) -> usize {
        self.max_head_bytes.min(HEAD_BYTES_MAX)
    }

    pub(super) fn headers(&self) -> usize {
        self.max_headers.min(HEADERS_MAX)
    }
}

/// The protocol version of a message (RFC 9112 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
}

impl Version {
    /// As it stands in a start line.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
        }
    }
}

/// A request method (RFC 9110 §9; PATCH from RFC 5789). Names are case-sensitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Connect,
    Patch,
    Other,
}

impl Method {
    pub fn from_bytes(name: &[u8]) -> Method {
        match name {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// RFC 9110 §9.2.1.
    pub const fn is_safe(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options | Method::Trace)
    }

    /// RFC 9110 §9.2.2: doing it twice is like doing it once.
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Method::Put | Method::Delete)
    }
}

/// A stretch of the head, as offsets into the bytes that were parsed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// Both ends are below [`HEAD_BYTES_MAX`].
    pub fn new(start: usize, end: usize) -> Span {
        Span {
            start: start as u32,
            end: end as u32,
        }
    }

    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Empty if `bytes` are not those that were parsed and too short.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// One field line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub name: Span,
    /// Without the whitespace around it.
    pub value: Span,
    pub known: Known,
    /// `Connection` names it: it ends here (RFC 9110 §7.6.1).
    pub nominated: bool,
    /// The line reads `name: value CRLF` exactly and may be copied as it is.
    pub plain: bool,
}

/// What the `Connection` fields say to weir itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

impl Options {
    /// RFC 9112 §9.3: `close` wins, HTTP/1.0 must ask.
    pub fn persist(self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }
}

/// The fields of a head, in order; reused from message to message.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub fields: Vec<Field>,
    /// Bit sets of [`Known::bit`]: there is one, there is more than one.
    seen: u32,
    repeated: u32,
}

impl Table {
    pub fn clear(&mut self) {
        self.fields.clear();
        self.seen = 0;
        self.repeated = 0;
    }

    pub fn has(&self, known: Known) -> bool {
        self.seen & known.bit() != 0
    }

    pub fn is_repeated(&self, known: Known) -> bool {
        self.repeated & known.bit() != 0
    }

    /// Every field of that kind, in order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &Field> {
        let count = if self.has(known) { self.fields.len() } else { 0 };
        self.fields[..count]
            .iter()
            .filter(move |field| field.known == known)
    }

    /// The value of the only field of that kind; `None` if there is none or more than one.
    pub fn single<'a>(&self, known: Known, bytes: &'a [u8]) -> Option<&'a [u8]> {
        if self.is_repeated(known) {
            return None;
        }
        self.all(known).next().map(|field| field.value.of(bytes))
    }

    /// Every member of every field of that kind (RFC 9110 §5.6.1); empty members are skipped.
    pub fn members<'a>(&self, known: Known, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.all(known)
            .flat_map(move |field| members(field.value.of(bytes)))
    }

    /// The value of the first field of that name, in any case.
    pub fn find<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let named = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name);
        self.fields.iter().find(named).map(|field| field.value.of(bytes))
    }

    pub fn iter<'a>(&self, bytes: &'a [u8]) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8], Known)> {
        self.fields
            .iter()
            .map(|field| (field.name.of(bytes), field.value.of(bytes), field.known))
    }

    /// Takes over what `httparse` found in `bytes[start..end]`, `start` being right behind the start line's CRLF.
    pub fn fill(
        &mut self,
        bytes: &[u8],
        headers: &[httparse::Header<'_>],
        start: usize,
        end: usize,
    ) -> Result<(), &'static str> {
        const BARE_LF: &str = "a line that does not end in CRLF";
        self.clear();
        let base = bytes.as_ptr() as usize;
        let mut at = start;
        for header in headers {
            let name_start = (header.name.as_ptr() as usize).wrapping_sub(base);
            let name_end = name_start.wrapping_add(header.name.len());
            let value_start = (header.value.as_ptr() as usize).wrapping_sub(base);
            let value_end = value_start.wrapping_add(header.value.len());
            let mut line_end = value_end;
            while matches!(bytes.get(line_end), Some(b' ' | b'\t')) {
                line_end += 1;
            }
            if name_start != at
                || bytes
                    .get(line_end..)
                    .is_none_or(|rest| !rest.starts_with(b"\r\n"))
            {
                return Err(BARE_LF);
            }
            at = line_end + 2;
            let known = Known::classify(header.name.as_bytes());
            self.repeated |= self.seen & known.bit();
            self.seen |= known.bit();
            self.fields.push(Field {
                name: Span::new(name_start, name_end),
                value: Span::new(value_start, value_end),
                known,
                nominated: false,
                plain: line_end == value_end
                    && value_start == name_end + 2
                    && bytes.get(name_end + 1) == Some(&b' '),
            });
        }
        if bytes.get(at..end) == Some(b"\r\n") {
            Ok(())
        } else {
            Err(BARE_LF)
        }
    }

    /// Reads the `Connection` fields and marks the fields they name.
    pub fn options(&mut self, bytes: &[u8]) -> Result<Options, &'static str> {
        let mut options = Options::default();
        if !self.has(Known::Connection) {
            return Ok(options);
        }
        let mut count = 0;
        for index in 0..self.fields.len() {
            if self.fields[index].known != Known::Connection {
                continue;
            }
            for option in members(self.fields[index].value.of(bytes)) {
                count += 1;
                if count > CONNECTION_OPTIONS_MAX {
                    return Err("more than 64 Connection options");
                }
                if option.eq_ignore_ascii_case(b"keep-alive") {
                    options.keep_alive = true;
                } else if option.eq_ignore_ascii_case(b"close") {
                    options.close = true;
                } else if option.eq_ignore_ascii_case(b"upgrade") {
                    options.upgrade = true;
                } else if is_token(option) {
                    self.nominate(option, bytes);
                } else {
                    return Err("a Connection option that is no token");
                }
            }
        }
        Ok(options)
    }

    fn nominate(&mut self, option: &[u8], bytes: &[u8]) {
        for field in &mut self.fields {
            if field.known.may_be_nominated() && field.name.of(bytes).eq_ignore_ascii_case(option) {
                field.nominated = true;
            }
        }
    }
}

/// The members of a comma-separated list, whitespace around them removed, empty ones skipped (RFC 9110 §5.6.1.2).
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// Without the spaces and tabs at both ends.
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `tchar` of RFC 9110 §5.6.2.
pub(super) const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// `token` of RFC 9110 §5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_tchar(byte))
}

/// `protocol` of RFC 9110 §7.8: `token [ "/" token ]`.
pub(super) fn is_protocol(bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(2, |&byte| byte == b'/');
    parts.all(is_token)
}

/// HTTP/2 as a protocol to upgrade to: `h2c` (RFC 7540 §3.2, withdrawn by RFC 9113) and what may be meant for it.
pub(super) fn is_http2(protocol: &[u8]) -> bool {
    [&b"h2c"[..], b"h2", b"HTTP/2", b"HTTP/2.0"]
        .iter()
        .any(|name| protocol.eq_ignore_ascii_case(name))
}

/// Room for the headers that `httparse` finds: 16 KiB of stack that nobody clears.
pub(super) type Headers<'b> = [MaybeUninit<httparse::Header<'b>>; HEADERS_MAX];

pub(super) const fn no_headers<'b>() -> Headers<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// What is remembered of a head that has come in part, so that one trickled byte by byte costs linear time.
///
/// The first try goes straight to the tokeniser: nearly every head comes whole. After that only new bytes are searched
/// for line ends, and the tokeniser runs again when the empty line is there or the head has doubled (which shows an
/// error early and costs at most twice the head in all).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    scanned: usize,
    tried: usize,
}

/// A line that ends in LF alone.
pub(super) struct BareLf;

impl Progress {
    /// Whether tokenising can find anything new.
    pub fn worth_trying(&mut self, bytes: &[u8]) -> Result<bool, BareLf> {
        if bytes.len() < self.scanned {
            *self = Progress::default();
        }
        if self.tried == 0 {
            return Ok(true);
        }
        let ended = self.scan(bytes)?;
        Ok(ended || bytes.len() >= self.tried.saturating_mul(2))
    }

    /// Notes that `bytes` were tokenised and are not a whole head.
    pub fn tried(&mut self, bytes: &[u8]) -> Result<(), BareLf> {
        self.tried = bytes.len();
        self.scan(bytes).map(|_| ())
    }

    /// Looks at the bytes not yet seen; true at the empty line that ends the head.
    fn scan(&mut self, bytes: &[u8]) -> Result<bool, BareLf> {
        let from = self.scanned;
        for lf in memchr::memchr_iter(b'\n', bytes.get(from..).unwrap_or_default()) {
            let before = &bytes[..from + lf];
            if !before.ends_with(b"\r") {
                return Err(BareLf);
            }
            if before.ends_with(b"\r\n\r") {
                self.scanned = from + lf;
                return Ok(true);
            }
        }
        self.scanned = bytes.len();
        Ok(false)
    }
}

//! A small strict reading of HTTP/1 heads: what is not plainly well-formed is an error. Bytes become text as Latin-1,
//! so that every byte string has exactly one text and the other way round.

use std::fmt;

/// Latin-1 text of some bytes.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Start line and fields of a message, in their order and spelling.
#[derive(Clone, Default)]
pub struct Head {
    pub start: String,
    pub fields: Vec<(String, String)>,
    pub raw: Vec<u8>,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", text(&self.raw))
    }
}

impl Head {
    /// Parses a head that ends in its empty line.
    pub fn parse(raw: &[u8]) -> Result<Head, String> {
        let whole = text(raw);
        let lines = whole.strip_suffix("\r\n\r\n").ok_or("no empty line at the end")?;
        let mut lines = lines.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines.clone() {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| format!("no colon in {line:?}"))?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(format!("not a field name: {name:?}"));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        if let Some(bad) = whole
            .split("\r\n")
            .flat_map(str::chars)
            .find(|c| matches!(c, '\r' | '\n' | '\0'))
        {
            return Err(format!("{bad:?} inside a line"));
        }
        Ok(Head {
            start,
            fields,
            raw: raw.to_vec(),
        })
    }

    /// The value of a field that occurs at most once.
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(
            all.len() <= 1,
            "{name} occurs {} times in {:?}",
            all.len(),
            self.start
        );
        all.first().copied()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields
            .iter()
            .filter(same)
            .map(|field| field.1.as_str())
            .collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether the comma-separated list of that name has `token`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// The status code of a response.
    pub fn status(&self) -> u16 {
        let mut parts = self.start.splitn(3, ' ');
        let version = parts.next().unwrap_or_default();
        assert!(
            matches!(version, "HTTP/1.1" | "HTTP/1.0"),
            "not a status line: {:?}",
            self.start
        );
        parts
            .next()
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("no status: {:?}", self.start))
    }

    /// The method of a request.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// weir's own word for why it answered.
    pub fn reason(&self) -> Option<&str> {
        self.get("x-weir-reason")
    }

    /// How the body of a request is framed.
    pub fn request_framing(&self) -> Result<Framing, String> {
        let parts: Vec<&str> = self.start.split(' ').collect();
        if parts.len() != 3 || parts[0].is_empty() || !parts[0].bytes().all(is_token) || parts[1].is_empty() {
            return Err(format!("not a request line: {:?}", self.start));
        }
        if !matches!(parts[2], "HTTP/1.1" | "HTTP/1.0") {
            return Err(format!("not a version: {:?}", self.start));
        }
        if self.all("host").len() != 1 {
            return Err(format!("{} Host fields", self.all("host").len()));
        }
        Ok(self.framing()?.unwrap_or(Framing::None))
    }

    /// How the body of a response to `method` is framed.
    pub fn response_framing(&self, method: &str) -> Result<Framing, String> {
        let framing = self.framing()?;
        if method == "HEAD" || matches!(self.status(), 100..200 | 204 | 304) {
            return Ok(Framing::None);
        }
        Ok(framing.unwrap_or(Framing::Close))
    }

    fn framing(&self) -> Result<Option<Framing>, String> {
        match (
            self.all("content-length").as_slice(),
            self.all("transfer-encoding").as_slice(),
        ) {
            ([], []) => Ok(None),
            ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Some(Framing::Length(
                    length
                        .parse()
                        .map_err(|error| format!("Content-Length: {error}"))?,
                )))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            (lengths, codings) => Err(format!("framed by {lengths:?} and {codings:?}")),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    Close,
}

/// A whole message. `body` is what it carries; `raw_body` is how that came, with chunk lines and trailers.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: Head,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub raw_body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// 1xx heads that came before it.
    pub interim: Vec<Head>,
}

impl std::ops::Deref for Message {
    type Target = Head;

    fn deref(&self) -> &Head {
        &self.head
    }
}

pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

//! Templates of access log lines: text with fields in braces, `{{` and `}}` for braces themselves.

use std::fmt;

use crate::config::nearest;
use crate::log::line::is_unsafe;

/// What a field shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Time,
    TimeCommon,
    Client,
    Method,
    Target,
    Path,
    Protocol,
    Host,
    Status,
    BytesIn,
    BytesOut,
    BodyBytes,
    HeadUs,
    QueueUs,
    ConnectUs,
    FirstByteUs,
    BackendUs,
    UploadUs,
    DownloadUs,
    WeirUs,
    TotalUs,
    Attempts,
    Backend,
    Reason,
    Termination,
    EndedBy,
    RequestId,
    TraceId,
    Worker,
    UserAgent,
    Referer,
}

impl Field {
    /// All fields by name, in the order of the documentation.
    pub const ALL: [(&'static str, Field); 31] = [
        ("time", Field::Time),
        ("time_common", Field::TimeCommon),
        ("client", Field::Client),
        ("method", Field::Method),
        ("target", Field::Target),
        ("path", Field::Path),
        ("protocol", Field::Protocol),
        ("host", Field::Host),
        ("status", Field::Status),
        ("bytes_in", Field::BytesIn),
        ("bytes_out", Field::BytesOut),
        ("body_bytes", Field::BodyBytes),
        ("head_us", Field::HeadUs),
        ("queue_us", Field::QueueUs),
        ("connect_us", Field::ConnectUs),
        ("first_byte_us", Field::FirstByteUs),
        ("backend_us", Field::BackendUs),
        ("upload_us", Field::UploadUs),
        ("download_us", Field::DownloadUs),
        ("weir_us", Field::WeirUs),
        ("total_us", Field::TotalUs),
        ("attempts", Field::Attempts),
        ("backend", Field::Backend),
        ("reason", Field::Reason),
        ("termination", Field::Termination),
        ("ended_by", Field::EndedBy),
        ("request_id", Field::RequestId),
        ("trace_id", Field::TraceId),
        ("worker", Field::Worker),
        ("user_agent", Field::UserAgent),
        ("referer", Field::Referer),
    ];
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Field(Field),
    /// `{header:NAME}`, the name in lower case.
    Header(String),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    Unclosed,
    /// A `}` that closes nothing.
    Stray,
    Unknown(String),
    BadHeader(String),
    /// A line's end, or another control character than a tab: a line would be more than one, or steer a terminal.
    Control(char),
}

impl Error {
    /// The field that was probably meant.
    pub fn near(&self) -> Option<&'static str> {
        match self {
            Error::Unknown(name) => nearest(name, Field::ALL.iter().map(|(name, _)| *name)),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Unclosed => f.write_str("a { is not closed; {{ is a brace"),
            Error::Stray => f.write_str("a } closes nothing; }} is a brace"),
            Error::Unknown(name) => write!(f, "there is no field {{{name}}}"),
            Error::BadHeader(name) => write!(f, "{name:?} is no header name"),
            Error::Control(character) => write!(f, "{character:?} is no part of a line"),
        }
    }
}

/// Cuts a template into its pieces.
pub fn parse(text: &str) -> Result<Vec<Piece>, Error> {
    if let Some(control) = text
        .chars()
        .find(|&character| is_unsafe(character) && character != '\t')
    {
        return Err(Error::Control(control));
    }
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(Error::Stray);
        }
        let end = rest.find('}').ok_or(Error::Unclosed)?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(field(&rest[..end])?);
        rest = &rest[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn field(name: &str) -> Result<Piece, Error> {
    if let Some(header) = name.strip_prefix("header:") {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if header.is_empty() || !header.bytes().all(token) {
            return Err(Error::BadHeader(header.to_owned()));
        }
        return Ok(Piece::Header(header.to_ascii_lowercase()));
    }
    let found = Field::ALL.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, field)| Piece::Field(*field))
        .ok_or_else(|| Error::Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_fields_headers_and_braces() {
        assert_eq!(
            parse("a {status}{header:X-Id} {{b}}"),
            Ok(vec![
                Piece::Text("a ".to_owned()),
                Piece::Field(Field::Status),
                Piece::Header("x-id".to_owned()),
                Piece::Text(" {b}".to_owned()),
            ])
        );
        assert_eq!(parse("{status"), Err(Error::Unclosed));
        assert_eq!(parse("status}"), Err(Error::Stray));
        assert_eq!(parse("{header:a b}"), Err(Error::BadHeader("a b".to_owned())));
        assert_eq!(parse("{status}\n{path}"), Err(Error::Control('\n')));
        assert_eq!(parse("a\tb"), Ok(vec![Piece::Text("a\tb".to_owned())]));
        let unknown = parse("{statsu}").unwrap_err();
        assert_eq!(unknown.near(), Some("status"));
    }

    #[test]
    fn every_field_can_be_named() {
        for (index, (name, field)) in Field::ALL.iter().enumerate() {
            assert_eq!(*field as usize, index);
            assert_eq!(parse(&format!("{{{name}}}")), Ok(vec![Piece::Field(*field)]));
        }
    }

    fn written(piece: &Piece) -> String {
        match piece {
            Piece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
            Piece::Field(field) => format!("{{{}}}", Field::ALL[*field as usize].0),
            Piece::Header(name) => format!("{{header:{name}}}"),
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict_and_a_template_can_be_written_again(
            text in "(\\PC|[{}:\n\t]|\\{status\\}|\\{header:x\\})*",
        ) {
            let Ok(pieces) = parse(&text) else {
                return Ok(());
            };
            let again: String = pieces.iter().map(written).collect();
            prop_assert_eq!(parse(&again), Ok(pieces));
            prop_assert!(!again.contains('\n'));
        }
    }
}

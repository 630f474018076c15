//! One exchange as one line.
//!
//! Durations are whole microseconds, by the phases of [`crate::record`]. What an exchange does not have is left out in
//! JSON and is `-` elsewhere.

use std::net::IpAddr;

use super::clock::Wall;
use super::redact::Redaction;
use super::template::{Field, Piece};
use super::{Format, Settings, escape};
use crate::clock::Span;
use crate::record::{Attempt, Finished, Outcome, Part};
use crate::trace::TraceContext;
use crate::trace::context::put;

/// Appends an exchange as one JSON object, with all of its attempts.
pub fn write_json(out: &mut Vec<u8>, finished: &Finished<'_>, redaction: &Redaction) {
    let mut wall = Wall::now();
    let record = finished.record;
    let micros = wall.at(record.began, record.ended.max(record.began));
    let line = Line {
        finished,
        redaction,
        wall: &wall,
        micros,
        all_tries: true,
    };
    line.json(out);
}

/// Appends the line of an exchange, with its end, or the fields of a journal entry.
pub(super) fn write(out: &mut Vec<u8>, finished: &Finished<'_>, settings: &Settings, wall: &mut Wall) {
    let record = finished.record;
    let micros = wall.at(record.began, record.ended.max(record.began));
    let line = Line {
        finished,
        redaction: &settings.redaction,
        wall,
        micros,
        all_tries: false,
    };
    if settings.journal {
        line.journal(out, &settings.format);
        return;
    }
    line.text(out, &settings.format);
    out.push(b'\n');
}

struct Line<'a> {
    finished: &'a Finished<'a>,
    redaction: &'a Redaction,
    wall: &'a Wall,
    micros: u32,
    /// Attempts are shown also where there was only one.
    all_tries: bool,
}

impl Line<'_> {
    fn text(&self, out: &mut Vec<u8>, format: &Format) {
        match format {
            Format::Json => self.json(out),
            Format::Common => self.common(out),
            Format::Combined => {
                self.common(out);
                for field in [Field::Referer, Field::UserAgent] {
                    out.extend_from_slice(b" \"");
                    self.field(out, field);
                    out.push(b'"');
                }
            }
            Format::Template(pieces) => self.template(out, pieces),
        }
    }

    /// The protocol of systemd's journal: a field a line; none of the values has a line's end.
    fn journal(&self, out: &mut Vec<u8>, format: &Format) {
        out.extend_from_slice(b"MESSAGE=");
        self.text(out, format);
        out.extend_from_slice(b"\nPRIORITY=6\nSYSLOG_IDENTIFIER=weir\n");
        for (name, field) in [
            ("WEIR_STATUS=", Field::Status),
            ("WEIR_BACKEND=", Field::Backend),
            ("WEIR_TOTAL_US=", Field::TotalUs),
            ("WEIR_TERMINATION=", Field::Termination),
            ("WEIR_REASON=", Field::Reason),
            ("WEIR_REQUEST_ID=", Field::RequestId),
        ] {
            out.extend_from_slice(name.as_bytes());
            self.field(out, field);
            out.push(b'\n');
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        let record = self.finished.record;
        out.extend_from_slice(b"{\"time\":\"");
        self.time(out);
        out.extend_from_slice(b"\",\"client\":\"");
        client(out, self.finished.client());
        out.push(b'"');
        for (name, part) in [
            (&b",\"method\":\""[..], Part::Method),
            (b",\"host\":\"", Part::Host),
        ] {
            json_text(out, name, record.captured.part(part));
        }
        if let Some(target) = record.captured.part(Part::Target) {
            out.extend_from_slice(b",\"target\":\"");
            self.redaction.target(target, |part| escape::json(out, part));
            out.push(b'"');
        }
        json_text(out, b",\"protocol\":\"", record.captured.part(Part::Version));
        number(out, b",\"status\":", record.status.into());
        number(out, b",\"bytes_in\":", record.bytes_in);
        number(out, b",\"bytes_out\":", record.bytes_out);
        number(
            out,
            b",\"body_bytes\":",
            record.bytes_out.saturating_sub(record.head_out),
        );
        number(out, b",\"total_us\":", record.total().as_micros());
        for (name, span) in self.phases() {
            if let Some(span) = span {
                number(out, name, span.as_micros());
            }
        }
        number(out, b",\"attempts\":", record.attempts_total.into());
        if let Some(backend) = self.finished.backend() {
            json_text(out, b",\"backend\":\"", Some(backend.name.as_bytes()));
        }
        if let Some(reason) = record.reason {
            json_text(out, b",\"reason\":\"", Some(reason.word().as_bytes()));
        }
        out.extend_from_slice(b",\"termination\":\"");
        out.extend_from_slice(record.termination.letters().as_bytes());
        out.push(b'"');
        json_text(
            out,
            b",\"ended_by\":\"",
            record.termination.by_word().map(str::as_bytes),
        );
        json_text(out, b",\"request_id\":\"", record.captured.part(Part::RequestId));
        if let Some(trace_id) = self.trace_id() {
            json_text(out, b",\"trace_id\":\"", Some(&trace_id));
        }
        number(out, b",\"worker\":", self.finished.worker as u64);
        if let Some(referer) = record.captured.part(Part::Referer) {
            out.extend_from_slice(b",\"referer\":\"");
            self.redaction.target(referer, |part| escape::json(out, part));
            out.push(b'"');
        }
        json_text(out, b",\"user_agent\":\"", record.captured.part(Part::UserAgent));
        self.json_headers(out);
        if record.attempts_total > 1 || self.all_tries {
            self.json_tries(out);
        }
        out.push(b'}');
    }

    /// The parts of the total that this exchange has, by their keys in JSON.
    fn phases(&self) -> [(&'static [u8], Option<Span>); 8] {
        let record = self.finished.record;
        let some = |span: Span| (!span.is_zero()).then_some(span);
        [
            (b",\"head_us\":", some(record.head())),
            (b",\"queue_us\":", some(record.queue)),
            (b",\"connect_us\":", record.connect),
            (b",\"first_byte_us\":", record.first_byte()),
            (b",\"backend_us\":", some(record.backend)),
            (b",\"upload_us\":", record.upload),
            (b",\"download_us\":", record.download),
            (b",\"weir_us\":", Some(record.weir())),
        ]
    }

    fn json_headers(&self, out: &mut Vec<u8>) {
        let mut before: &[u8] = b",\"headers\":[";
        for (name, value) in self.finished.record.captured.headers() {
            out.extend_from_slice(before);
            out.extend_from_slice(b"{\"name\":\"");
            escape::json(out, name);
            out.extend_from_slice(b"\",\"value\":\"");
            escape::json(out, self.shown(name, value));
            out.extend_from_slice(b"\"}");
            before = b",";
        }
        if before == b"," {
            out.push(b']');
        }
    }

    fn json_tries(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"tries\":[");
        for (index, attempt) in self.finished.record.attempts.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.push(b'{');
            json_text(out, b"\"backend\":\"", Some(self.backend_name(attempt)));
            json_text(out, b",\"kind\":\"", Some(attempt.kind.word().as_bytes()));
            outcome(out, attempt.outcome);
            number(out, b",\"began_us\":", attempt.began.as_micros());
            number(out, b",\"took_us\":", attempt.took.as_micros());
            out.push(b'}');
        }
        out.push(b']');
    }

    fn backend_name(&self, attempt: &Attempt) -> &[u8] {
        self.finished
            .backend_of(attempt)
            .map_or(b"weir", |backend| backend.name.as_bytes())
    }

    /// The format of NCSA's httpd, as Apache and nginx write it.
    fn common(&self, out: &mut Vec<u8>) {
        client(out, self.finished.client());
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(self.wall.common());
        out.extend_from_slice(b"] \"");
        self.ascii_part(out, Part::Method);
        out.push(b' ');
        self.field(out, Field::Target);
        out.push(b' ');
        self.ascii_part(out, Part::Version);
        out.extend_from_slice(b"\" ");
        self.field(out, Field::Status);
        out.push(b' ');
        self.field(out, Field::BodyBytes);
    }

    fn template(&self, out: &mut Vec<u8>, pieces: &[Piece]) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Field(field) => self.field(out, *field),
                Piece::Header(name) => {
                    let mut headers = self.finished.record.captured.headers();
                    match headers.find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())) {
                        Some((_, value)) => escape::ascii(out, self.shown(name.as_bytes(), value)),
                        None => out.push(b'-'),
                    }
                }
            }
        }
    }

    fn field(&self, out: &mut Vec<u8>, field: Field) {
        let record = self.finished.record;
        match field {
            Field::Time => self.time(out),
            Field::TimeCommon => out.extend_from_slice(self.wall.common()),
            Field::Client => client(out, self.finished.client()),
            Field::Method => self.ascii_part(out, Part::Method),
            Field::Target | Field::Path => match record.captured.part(Part::Target) {
                Some(target) if field == Field::Path => {
                    let path = target.split(|&byte| byte == b'?').next();
                    escape::ascii(out, path.unwrap_or_default());
                }
                Some(target) => self.redaction.target(target, |part| escape::ascii(out, part)),
                None => out.push(b'-'),
            },
            Field::Protocol => self.ascii_part(out, Part::Version),
            Field::Host => self.ascii_part(out, Part::Host),
            Field::Status => number(out, b"", record.status.into()),
            Field::BytesIn => number(out, b"", record.bytes_in),
            Field::BytesOut => number(out, b"", record.bytes_out),
            Field::BodyBytes => number(out, b"", record.bytes_out.saturating_sub(record.head_out)),
            Field::HeadUs => number(out, b"", record.head().as_micros()),
            Field::QueueUs => number(out, b"", record.queue.as_micros()),
            Field::ConnectUs => span(out, record.connect),
            Field::FirstByteUs => span(out, record.first_byte()),
            Field::BackendUs => number(out, b"", record.backend.as_micros()),
            Field::UploadUs => span(out, record.upload),
            Field::DownloadUs => span(out, record.download),
            Field::WeirUs => number(out, b"", record.weir().as_micros()),
            Field::TotalUs => number(out, b"", record.total().as_micros()),
            Field::Attempts => number(out, b"", record.attempts_total.into()),
            Field::Backend => ascii_or_dash(
                out,
                self.finished.backend().map(|backend| backend.name.as_bytes()),
            ),
            Field::Reason => ascii_or_dash(out, record.reason.map(|reason| reason.word().as_bytes())),
            Field::Termination => out.extend_from_slice(record.termination.letters().as_bytes()),
            Field::EndedBy => ascii_or_dash(out, record.termination.by_word().map(str::as_bytes)),
            Field::RequestId => self.ascii_part(out, Part::RequestId),
            Field::TraceId => ascii_or_dash(out, self.trace_id().as_ref().map(|id| &id[..])),
            Field::Worker => number(out, b"", self.finished.worker as u64),
            Field::UserAgent => self.ascii_part(out, Part::UserAgent),
            // It is a target of somebody's, and has parameters like one.
            Field::Referer => match record.captured.part(Part::Referer) {
                Some(referer) if !referer.is_empty() => {
                    self.redaction.target(referer, |part| escape::ascii(out, part));
                }
                _ => out.push(b'-'),
            },
        }
    }

    fn time(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.wall.iso());
        let mut text = *b".000000Z";
        let mut left = self.micros;
        for digit in text[1..7].iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        out.extend_from_slice(&text);
    }

    /// Of the trace that the client belongs to, or that began here.
    fn trace_id(&self) -> Option<[u8; 32]> {
        let captured = &self.finished.record.captured;
        let parent = captured
            .part(Part::TraceParent)
            .or(captured.part(Part::ClientTraceParent))?;
        let mut text = [0; 32];
        put(&mut text, &TraceContext::parse(parent)?.trace_id);
        Some(text)
    }

    fn ascii_part(&self, out: &mut Vec<u8>, part: Part) {
        ascii_or_dash(out, self.finished.record.captured.part(part));
    }

    fn shown<'a>(&self, name: &[u8], value: &'a [u8]) -> &'a [u8] {
        if self.redaction.hides_header(name) {
            super::redact::REDACTED
        } else {
            value
        }
    }
}

/// `name`, which opens a string, then the text and a quote; nothing if there is none.
fn json_text(out: &mut Vec<u8>, name: &[u8], text: Option<&[u8]>) {
    if let Some(text) = text {
        out.extend_from_slice(name);
        escape::json(out, text);
        out.push(b'"');
    }
}

fn number(out: &mut Vec<u8>, name: &[u8], number: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn outcome(out: &mut Vec<u8>, outcome: Outcome) {
    let name = b",\"outcome\":\"";
    match outcome {
        Outcome::Status(status) => number(out, name, status.into()),
        Outcome::Failed(_) | Outcome::Abandoned => {
            out.extend_from_slice(name);
            out.extend_from_slice(outcome.word().as_bytes());
        }
    }
    out.push(b'"');
}

fn span(out: &mut Vec<u8>, span: Option<Span>) {
    match span {
        Some(span) => number(out, b"", span.as_micros()),
        None => out.push(b'-'),
    }
}

fn ascii_or_dash(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) if !text.is_empty() => escape::ascii(out, text),
        _ => out.push(b'-'),
    }
}

/// An address; `unix` for who came over a Unix socket.
fn client(out: &mut Vec<u8>, client: Option<IpAddr>) {
    use std::io::Write;
    match client {
        None => out.extend_from_slice(b"unix"),
        Some(IpAddr::V4(address)) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                let before: &[u8] = if index > 0 { b"." } else { b"" };
                number(out, before, octet.into());
            }
        }
        // Writing to a `Vec` cannot fail.
        Some(IpAddr::V6(address)) => {
            let _ = write!(out, "{address}");
        }
    }
}

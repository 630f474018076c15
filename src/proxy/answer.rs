//! weir's own answers: a short body, one stable reason word, and `Connection: close` where the exchange cannot go on.

use std::io::Write;

use crate::buffer::Buffer;
use crate::limits::rate::Fields;
use crate::reason::Reason;

/// What an own answer depends on besides its reason.
#[derive(Clone, Copy, Debug)]
pub struct AnswerOptions {
    /// The connection closes behind it.
    pub close: bool,
    /// The request was HEAD: no body follows (RFC 9110 §9.3.2).
    pub head_only: bool,
    /// `http.reason_header`
    pub reason_header: bool,
    /// Seconds for `Retry-After` (RFC 9110 §10.2.3). Where no backend is eligible or has room it is 1 unless told.
    pub retry_after: Option<u64>,
    /// For `RateLimit-Policy` and `RateLimit`.
    pub rate_limit: Option<Fields>,
}

/// The standard phrase of a status code that weir answers with (RFC 9110 §15, RFC 6585).
fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// Writes a whole answer into an empty buffer.
pub fn write_answer(reason: Reason, options: AnswerOptions, out: &mut Buffer) {
    let status = reason.status();
    let (phrase, word) = (phrase(status), reason.word());
    // "502 Bad Gateway (connect_refused)\n"
    let length = 3 + 1 + phrase.len() + 2 + word.len() + 2;
    let out = out.tail();
    // Writing into a vector cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n"
    );
    if options.reason_header {
        let _ = write!(out, "x-weir-reason: {word}\r\n");
    }
    let soon = matches!(
        reason,
        Reason::NoBackend | Reason::QueueFull | Reason::QueueTimeout
    )
    .then_some(1);
    if let Some(seconds) = options.retry_after.or(soon) {
        let _ = write!(out, "Retry-After: {seconds}\r\n");
    }
    if let Some(fields) = options.rate_limit {
        let _ = write!(out, "{fields}");
    }
    let _ = write!(
        out,
        "Connection: {}\r\n\r\n",
        if options.close { "close" } else { "keep-alive" }
    );
    if !options.head_only {
        let _ = writeln!(out, "{status} {phrase} ({word})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_the_body_for_every_reason() {
        for reason in Reason::ALL {
            let mut buffer = crate::buffer::small();
            let options = AnswerOptions {
                close: true,
                head_only: false,
                reason_header: true,
                retry_after: None,
                rate_limit: None,
            };
            write_answer(reason, options, &mut buffer);
            let text = String::from_utf8(buffer.filled().to_vec()).expect("ASCII");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(
                head.contains(&format!("Content-Length: {}", body.len())),
                "{text}"
            );
            assert!(head.contains(&format!("x-weir-reason: {}", reason.word())));
            assert!(!head.contains(" Error\r\n"), "{reason:?} has no phrase");
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let mut buffer = crate::buffer::small();
        let options = AnswerOptions {
            close: false,
            head_only: true,
            reason_header: false,
            retry_after: None,
            rate_limit: None,
        };
        write_answer(Reason::NoBackend, options, &mut buffer);
        let text = String::from_utf8(buffer.filled().to_vec()).expect("ASCII");
        assert!(text.ends_with("Connection: keep-alive\r\n\r\n"), "{text}");
        assert!(!text.contains("x-weir-reason"));
    }

    #[test]
    fn a_refusal_by_limit_says_when_to_come_back() {
        let of = |reason, retry_after, rate_limit| {
            let mut buffer = crate::buffer::small();
            let options = AnswerOptions {
                close: false,
                head_only: true,
                reason_header: false,
                retry_after,
                rate_limit,
            };
            write_answer(reason, options, &mut buffer);
            String::from_utf8(buffer.filled().to_vec()).expect("ASCII")
        };
        let fields = Fields {
            quota: 100,
            window: 1,
            remaining: 0,
            reset: 30,
        };
        let limited = of(Reason::RateLimited, Some(30), Some(fields));
        assert!(
            limited.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
            "{limited}"
        );
        assert!(
            limited.contains(
                "\r\nRetry-After: 30\r\nRateLimit-Policy: \"default\";q=100;w=1\r\nRateLimit: \"default\";r=0;t=30\r\n"
            ),
            "{limited}"
        );
        assert!(of(Reason::NoBackend, None, None).contains("\r\nRetry-After: 1\r\n"));
        assert!(of(Reason::NoBackend, Some(7), None).contains("\r\nRetry-After: 7\r\n"));
        assert!(of(Reason::Overload, Some(2), None).contains("\r\nRetry-After: 2\r\n"));
        assert!(!of(Reason::Overload, None, None).contains("Retry-After"));
    }
}

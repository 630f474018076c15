//! Properties of the head parsers and of what is written, over arbitrary and over well-formed heads.

use proptest::prelude::*;

use super::{GET, LIMITS};
use crate::config::model::ForwardedMode;
use crate::http1::{
    HostRewrite, Known, Limits, RequestFacts, RequestHead, RequestRewrite, ResponseHead, ResponseRewrite,
    request_bound, response_bound, write_request, write_response,
};
use crate::reason::Reason;

/// Well-formed requests that use most of the grammar.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        "(GET|HEAD|POST|PUT|X-METHOD) /[!-\"$-~]{0,20}",
        "(GET|OPTIONS) (http|HTTPS)://[a-z0-9.-]{1,10}(:[1-9][0-9]{0,3})?(/[a-z]{0,5})?(\\?[a-z]{0,3})?",
        "OPTIONS \\*",
    ];
    let field = prop_oneof![
        5 => "[Q-Zq-z][A-Za-z0-9-]{0,8}:[ \t]{0,2}([!-~\u{e4}]([ -~]{0,10}[!-~])?)?[ \t]{0,2}",
        1 => "Connection: (keep-alive|close|upgrade|TE|q-hop|, x-a)",
        1 => "(Upgrade: (websocket|h2c|h2c, a/1, b)|TE: (trailers|gzip, trailers))",
        1 => "(X-Forwarded-For|Forwarded|X-Forwarded-Host|Via): [a-z]{1,8}",
        1 => "(Keep-Alive|Proxy-Connection|HTTP2-Settings|Trailer|Expect|Q-Hop|X-A): [a-z]{1,8}",
    ];
    let framing = prop_oneof![
        Just(String::new()),
        "Content-Length: [0-9]{1,5}\r\n",
        Just("Transfer-Encoding: chunked\r\n".into())
    ];
    (
        line,
        proptest::collection::vec(field, 0..8),
        framing,
        any::<bool>(),
    )
        .prop_map(|(line, fields, framing, skip)| {
            let start = if skip { "\r\n" } else { "" };
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            format!("{start}{line} HTTP/1.1\r\n{fields}Host: example:80\r\n{framing}\r\n").into_bytes()
        })
}

fn responses() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        4 => "[Q-Zq-z][A-Za-z0-9-]{0,8}:[ \t]{0,2}([!-~\u{e4}]([ -~]{0,10}[!-~])?)?[ \t]{0,2}",
        1 => "Connection: (keep-alive|close|upgrade|q-hop)",
        1 => "(Keep-Alive|Q-Hop|Upgrade|Date|Server): [a-z]{1,8}",
    ];
    let framing = prop_oneof![
        Just(String::new()),
        "Content-Length: [0-9]{1,5}\r\n",
        Just("Transfer-Encoding: chunked\r\n".into())
    ];
    (
        "HTTP/1\\.1 [2-9][0-9]{2}( [ -~]{0,12})?",
        proptest::collection::vec(field, 0..8),
        framing,
    )
        .prop_filter("204 allows no length", |(line, ..)| {
            !line.starts_with("HTTP/1.1 204")
        })
        .prop_map(|(line, fields, framing)| {
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            format!("{line}\r\n{fields}{framing}\r\n").into_bytes()
        })
}

/// Everything but hop-by-hop and forwarding fields, in order.
fn end_to_end(head: &RequestHead, bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let nominated: Vec<Vec<u8>> = head
        .fields(bytes)
        .filter(|(_, _, known)| *known == Known::Connection)
        .flat_map(|(_, value, _)| {
            value
                .split(|&byte| byte == b',')
                .map(|name| name.trim_ascii().to_ascii_lowercase())
        })
        .collect();
    head.fields(bytes)
        .filter(|(name, _, known)| match known {
            Known::Other | Known::Expect | Known::Trailer => !nominated.contains(&name.to_ascii_lowercase()),
            Known::ContentLength | Known::TransferEncoding | Known::Via => true,
            _ => false,
        })
        .map(|(name, value, _)| (name.to_vec(), value.to_vec()))
        .collect()
}

/// Feeds growing prefixes that end at `cuts`; the answer to the last one.
fn feed<T>(bytes: &[u8], cuts: &[usize], mut parse: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
    for &cut in cuts.iter().filter(|&&cut| cut < bytes.len()) {
        if let Some(early) = parse(&bytes[..cut]) {
            return Some(early);
        }
    }
    parse(bytes)
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), upgrade: bool) {
        let _ = RequestHead::new().parse(&bytes, &LIMITS);
        let _ = ResponseHead::new().parse(&bytes, &LIMITS, RequestFacts { upgrade, ..GET });
        let _ = ResponseHead::new().parse(&[b"HTTP/1.1 200 ", &bytes[..]].concat(), &LIMITS, GET);
    }

    #[test]
    fn small_limits_never_panic(bytes in requests(), max_head_bytes in 0..200usize, max_headers in 0..6usize) {
        let limits = Limits { max_head_bytes, max_headers };
        if let Ok(Some(length)) = RequestHead::new().parse(&bytes, &limits) {
            prop_assert!(length <= max_head_bytes);
        }
    }

    /// A change of one byte gives a verdict, and what is then accepted and written is accepted again.
    #[test]
    fn mutated_heads_are_judged(bytes in requests(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = bytes;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut head = RequestHead::new();
        if let Ok(Some(length)) = head.parse(&bytes, &LIMITS) {
            let end = &bytes[..length];
            let newlines = end.iter().filter(|&&byte| byte == b'\n').count();
            let line_ends = end.windows(2).filter(|pair| pair == b"\r\n").count();
            let returns = end.iter().filter(|&&byte| byte == b'\r').count();
            prop_assert_eq!((newlines, returns), (line_ends, line_ends));
            prop_assert!(!end.contains(&0));
            check_written(&head, &bytes)?;
        }
    }

    #[test]
    fn cuts_do_not_matter(
        bytes in requests(),
        behind in proptest::collection::vec(any::<u8>(), 0..10),
        cuts in proptest::collection::vec(0..200usize, 0..6),
        change in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = [bytes, behind].concat();
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut cuts = cuts;
        cuts.sort_unstable();
        let verdict = |head: &mut RequestHead, bytes: &[u8]| match head.parse(bytes, &LIMITS) {
            Ok(None) => None,
            Ok(Some(length)) => Some(Ok(length)),
            Err(_) => Some(Err(())),
        };
        let mut whole = RequestHead::new();
        let mut pieces = RequestHead::new();
        let expected = verdict(&mut whole, &bytes);
        let found = feed(&bytes, &cuts, |prefix| verdict(&mut pieces, prefix));
        match expected {
            // An error may show later in pieces, and is then found when the head ends.
            Some(Err(())) => prop_assert!(!matches!(found, Some(Ok(_)))),
            _ => prop_assert_eq!(found, expected),
        }
        if let Some(Ok(_)) = expected {
            prop_assert!(whole.fields(&bytes).eq(pieces.fields(&bytes)));
            prop_assert_eq!(whole.path(&bytes), pieces.path(&bytes));
        }
    }

    #[test]
    fn a_well_formed_head_is_taken_at_its_last_byte_only(bytes in requests()) {
        let mut head = RequestHead::new();
        for end in 0..bytes.len() {
            prop_assert_eq!(head.parse(&bytes[..end], &LIMITS), Ok(None));
            prop_assert_eq!(RequestHead::new().parse(&bytes[..end], &LIMITS), Ok(None));
        }
        prop_assert_eq!(head.parse(&bytes, &LIMITS), Ok(Some(bytes.len())));
    }

    #[test]
    fn a_written_request_means_the_same(bytes in requests()) {
        let mut head = RequestHead::new();
        prop_assert_eq!(head.parse(&bytes, &LIMITS), Ok(Some(bytes.len())));
        check_written(&head, &bytes)?;
    }

    #[test]
    fn a_written_response_means_the_same(bytes in responses(), close: bool) {
        let mut head = ResponseHead::new();
        prop_assert_eq!(head.parse(&bytes, &LIMITS, GET), Ok(Some(bytes.len())));
        for end in 0..bytes.len() {
            prop_assert_eq!(ResponseHead::new().parse(&bytes[..end], &LIMITS, GET), Ok(None));
        }
        let rewrite = ResponseRewrite { close, via: true, ..ResponseRewrite::default() };
        let mut out = Vec::new();
        write_response(&head, &bytes, &rewrite, &mut out);
        prop_assert!(out.len() <= response_bound(&head, &rewrite));
        let mut again = ResponseHead::new();
        prop_assert_eq!(again.parse(&out, &LIMITS, GET), Ok(Some(out.len())));
        prop_assert_eq!((again.status(), again.body()), (head.status(), head.body()));
        prop_assert_eq!(again.reason_phrase(&out), head.reason_phrase(&bytes));
        let hop = [Known::KeepAlive, Known::Te, Known::ProxyConnection];
        prop_assert!(hop.into_iter().all(|known| !again.has(known)));
        prop_assert_eq!(again.field(&out, b"date").is_some(), head.field(&bytes, b"date").is_some());
    }

    #[test]
    fn mutated_responses_are_judged(bytes in responses(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = bytes;
        let at = at.index(bytes.len());
        bytes[at] = byte;
        match ResponseHead::new().parse(&bytes, &LIMITS, GET) {
            Ok(Some(length)) => {
                let lone = bytes[..length].iter().filter(|&&byte| byte == b'\n').count();
                prop_assert_eq!(lone, bytes[..length].windows(2).filter(|pair| pair == b"\r\n").count());
            }
            Ok(None) => {}
            Err(reject) => prop_assert_eq!(reject.reason, Reason::BadResponse),
        }
    }
}

/// Writes the head and reads it again: the same request, nothing left that ends at weir.
fn check_written(head: &RequestHead, bytes: &[u8]) -> Result<(), TestCaseError> {
    let rewrite = RequestRewrite {
        host: HostRewrite::Preserve {
            fallback: b"fallback",
        },
        forwarded: ForwardedMode::Both,
        client: Some([192, 0, 2, 1].into()),
        trusted: false,
        scheme: "http",
        via: false,
        request_id: None,
        trace_parent: None,
    };
    let mut out = Vec::new();
    write_request(head, bytes, &rewrite, &mut out);
    prop_assert!(out.len() <= request_bound(head, &rewrite));
    let mut again = RequestHead::new();
    prop_assert_eq!(again.parse(&out, &LIMITS), Ok(Some(out.len())));
    prop_assert_eq!(again.method_bytes(&out), head.method_bytes(bytes));
    prop_assert_eq!(again.body(), head.body());
    let slash: &[u8] = if head.path(bytes).starts_with(b"?") {
        b"/"
    } else {
        b""
    };
    prop_assert_eq!(again.path(&out), [slash, head.path(bytes)].concat());
    prop_assert_eq!(again.authority(&out), head.authority(bytes).or(Some(b"fallback")));
    prop_assert!(again.upgrade_protocols(&out).eq(head.upgrade_protocols(bytes)));
    prop_assert!(
        ![Known::KeepAlive, Known::ProxyConnection, Known::Http2Settings]
            .into_iter()
            .any(|known| again.has(known))
    );
    prop_assert_eq!(
        again.has(Known::Connection),
        again.has(Known::Upgrade) || again.has(Known::Te)
    );
    let forwarded: Vec<_> = again
        .fields(&out)
        .filter(|(_, _, known)| *known == Known::Forwarded)
        .collect();
    prop_assert_eq!(forwarded.len(), 1);
    prop_assert!(forwarded[0].1.starts_with(b"for=192.0.2.1"));
    let mut expected = end_to_end(head, bytes);
    if head.version() == crate::http1::Version::Http10 {
        expected.retain(|(name, _)| !name.eq_ignore_ascii_case(b"expect"));
    }
    prop_assert_eq!(end_to_end(&again, &out), expected);
    Ok(())
}

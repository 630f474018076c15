//! Any bytes as a request head. What is accepted must be written within its bound and read again as the same request.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::config::model::ForwardedMode;
use weir::http1::{HostRewrite, Limits, RequestHead, RequestRewrite, request_bound, write_request};

const LIMITS: Limits = Limits {
    max_head_bytes: 32 * 1024,
    max_headers: 128,
};

fuzz_target!(|bytes: &[u8]| {
    let mut head = RequestHead::new();
    let Ok(Some(length)) = head.parse(bytes, &LIMITS) else {
        return;
    };
    // Nothing is accepted before its last byte, and a head in two pieces is the same head.
    let mut pieces = RequestHead::new();
    assert!(pieces.parse(&bytes[..length - 1], &LIMITS) == Ok(None));
    assert!(pieces.parse(bytes, &LIMITS) == Ok(Some(length)));

    let rewrite = RequestRewrite {
        host: HostRewrite::Preserve {
            fallback: b"fallback",
        },
        forwarded: ForwardedMode::Off,
        client: None,
        trusted: false,
        scheme: "http",
        via: false,
        request_id: None,
        trace_parent: None,
    };
    let mut out = Vec::new();
    write_request(&head, bytes, &rewrite, &mut out);
    assert!(out.len() <= request_bound(&head, &rewrite));
    let wide = Limits {
        max_head_bytes: usize::MAX,
        max_headers: usize::MAX,
    };
    let mut again = RequestHead::new();
    assert!(again.parse(&out, &wide) == Ok(Some(out.len())));
    assert!(again.body() == head.body());
    assert!(again.method_bytes(&out) == head.method_bytes(bytes));
    assert!(again.authority(&out) == head.authority(bytes).or(Some(b"fallback")));
    assert!(again.path(&out).ends_with(head.path(bytes)));
});

//! Any bytes as a response head. What is accepted must be written within its bound and read again as the same response.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::http1::{
    Limits, Method, RequestFacts, ResponseHead, ResponseRewrite, response_bound, write_response,
};

const LIMITS: Limits = Limits {
    max_head_bytes: 32 * 1024,
    max_headers: 128,
};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    let facts = RequestFacts {
        method: if choice & 1 == 0 {
            Method::Get
        } else {
            Method::Head
        },
        upgrade: choice & 2 != 0,
    };
    let mut head = ResponseHead::new();
    let Ok(Some(length)) = head.parse(bytes, &LIMITS, facts) else {
        return;
    };
    let mut pieces = ResponseHead::new();
    assert!(pieces.parse(&bytes[..length - 1], &LIMITS, facts) == Ok(None));
    assert!(pieces.parse(bytes, &LIMITS, facts) == Ok(Some(length)));

    let rewrite = ResponseRewrite {
        upgrade: facts.upgrade,
        ..ResponseRewrite::default()
    };
    let mut out = Vec::new();
    write_response(&head, bytes, &rewrite, &mut out);
    assert!(out.len() <= response_bound(&head, &rewrite));
    let wide = Limits {
        max_head_bytes: usize::MAX,
        max_headers: usize::MAX,
    };
    let mut again = ResponseHead::new();
    assert!(again.parse(&out, &wide, facts) == Ok(Some(out.len())));
    assert!((again.status(), again.body()) == (head.status(), head.body()));
    assert!(again.reason_phrase(&out) == head.reason_phrase(bytes));
});

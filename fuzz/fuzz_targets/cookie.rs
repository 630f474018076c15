//! Any bytes as `Cookie`: every pair is part of it, and what weir has set is found behind whatever stands there.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir::config::model;
use weir::limits::cookie;
use weir::limits::sticky::Sticky;

static STICKY: LazyLock<Sticky> = LazyLock::new(|| {
    let settings = model::Sticky {
        cookie: Some("w".to_owned()),
        ..model::Sticky::default()
    };
    Sticky::new(&settings, Some(b"secret"), &["a", "b"]).expect("there is a cookie")
});

fuzz_target!(|bytes: &[u8]| {
    let lines = || bytes.split(|&byte| byte == b'\n');
    for (name, value) in lines().flat_map(cookie::pairs) {
        assert!(!name.is_empty() && !name.contains(&b'=') && !name.contains(&b';'));
        assert!(!value.contains(&b';') && name.len() + value.len() < bytes.len());
    }
    let pair = |index| {
        let mut parts = STICKY.set_cookie(index).split(|&byte| byte == b';');
        parts.next().expect("a pair")
    };
    if let Some(index) = STICKY.find(lines()) {
        let value = &pair(index)[2..];
        assert!(bytes.windows(value.len()).any(|window| window == value));
    }
    // Further ones of that name are looked at up to a bound.
    if lines().flat_map(cookie::pairs).all(|(name, _)| name != b"w") {
        assert!(STICKY.find(lines().chain([pair(1)])) == Some(1));
    }
});

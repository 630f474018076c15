//! Reading `Cookie` (RFC 6265 §4.2, §5.4): pairs of name and value, as bytes.
//!
//! Anything may stand there: what is no pair is skipped, and nothing is decoded. No allocation; work is linear in the
//! field's length. Quotes are part of a value, as browsers have it.

use crate::http1::{RequestHead, head::trim};

/// The pairs of one `Cookie` line.
pub fn pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    line.split(|&byte| byte == b';').filter_map(|pair| {
        let at = memchr::memchr(b'=', pair)?;
        let (name, value) = (trim(pair.get(..at)?), trim(pair.get(at + 1..)?));
        (!name.is_empty()).then_some((name, value))
    })
}

/// The values of the `Cookie` lines of a request.
pub fn lines<'a>(head: &RequestHead, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    head.fields(bytes)
        .filter(|(name, _, _)| name.eq_ignore_ascii_case(b"cookie"))
        .map(|(_, value, _)| value)
}

/// The values of every cookie of that name (case matters), in order.
pub fn values<'a, 'n>(
    lines: impl Iterator<Item = &'a [u8]> + 'n,
    name: &'n [u8],
) -> impl Iterator<Item = &'a [u8]> + 'n
where
    'a: 'n,
{
    lines
        .flat_map(pairs)
        .filter(move |&(candidate, _)| candidate == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_whatever_stands_between_them() {
        let line = b"a=1; b = 2 ;;c; =d; e==f=; g=\"h\";i=\xff; a=3;";
        let found: Vec<_> = pairs(line).collect();
        let expected: [(&[u8], &[u8]); 6] = [
            (b"a", b"1"),
            (b"b", b"2"),
            (b"e", b"=f="),
            (b"g", b"\"h\""),
            (b"i", b"\xff"),
            (b"a", b"3"),
        ];
        assert_eq!(found, expected);
        let named: Vec<_> = values([&line[..], b"A=4; a=5"].into_iter(), b"a").collect();
        assert_eq!(named, [b"1", b"3", b"5"]);
        assert_eq!(pairs(b"").count() + pairs(b";= ;=").count(), 0);
    }
}

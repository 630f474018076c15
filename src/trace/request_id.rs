//! `x-request-id`: one name for an exchange in everybody's logs.

use uuid::Builder;

/// Bytes of a UUID as text.
pub const LENGTH: usize = 36;

/// Bytes of another proxy's id at most.
const TRUSTED_MAX: usize = 128;

/// A new id: a UUID of version 7 (RFC 9562 §5.7), so that ids sort by time.
pub fn new(unix_millis: u64, random: &mut fastrand::Rng) -> [u8; LENGTH] {
    let noise = random.u128(..).to_be_bytes();
    let tail = noise.first_chunk().unwrap_or(&[0; 10]);
    let mut text = [0; LENGTH];
    let id = Builder::from_unix_timestamp_millis(unix_millis, tail).into_uuid();
    id.hyphenated().encode_lower(&mut text);
    text
}

/// Whether an id that a trusted proxy gave can go on: visible ASCII, and not endless.
pub fn is_good(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= TRUSTED_MAX && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7_and_sorts_by_time() {
        let mut random = fastrand::Rng::with_seed(7);
        let first = new(1_700_000_000_000, &mut random);
        let text = std::str::from_utf8(&first).unwrap();
        let parsed = uuid::Uuid::parse_str(text).unwrap();
        assert_eq!(parsed.get_version_num(), 7);
        assert_eq!(parsed.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(parsed.get_timestamp().unwrap().to_unix(), (1_700_000_000, 0));
        assert!(new(1_700_000_000_001, &mut random) > first);
        assert_ne!(new(1_700_000_000_000, &mut random), first);
    }

    #[test]
    fn only_short_visible_ids_go_on() {
        assert!(is_good(b"a-1_2/3"));
        for bad in [&b""[..], b"a b", b"a\xc3\xa4", &[b'x'; 129]] {
            assert!(!is_good(bad));
        }
    }
}

//! One histogram from base64: HdrHistogram's V2 encoding, compressed or not.
//!
//! The library trusts lengths that stand in the bytes, so they are held against what is there before it sees them.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

/// Bytes of one histogram before compression. The largest that weir writes has 210 KB; what has 5 digits over all of 64
/// bits may need more, but not in practice.
const MAX_BYTES: usize = 16 << 20;
/// Cookie, payload's length, normalizing offset, digits, lowest and highest value, and a ratio.
const HEADER_BYTES: usize = 40;

/// What begins an encoding: a base, and in the second nibble the version's words. These are of V2.
const PLAIN: u32 = 0x1c84_9313;
const COMPRESSED: u32 = 0x1c84_9314;
/// The same without the nibble that differs between V0, V1 and V2.
const ANY_VERSION: u32 = 0x1c84_9300;

/// The histogram that `text` is.
///
/// # Errors
/// In words, as a predicate: "is no base64", "ends in the middle", …
pub fn decode(text: &str) -> Result<Histogram<u64>, String> {
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|error| format!("is no base64: {error}"))?;
    let plain = match cookie(&bytes)? {
        PLAIN => bytes,
        COMPRESSED => inflate(&bytes)?,
        other if other & !0xff == ANY_VERSION => {
            return Err("is in the encoding V0 or V1 of HdrHistogram; only V2 is read".to_owned());
        }
        _ => return Err("is no histogram: it does not begin as one".to_owned()),
    };
    check(&plain)?;
    Deserializer::new()
        .deserialize(&mut plain.as_slice())
        .map_err(|error| format!("is no histogram: {error}"))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_be_bytes(*word))
}

fn cookie(bytes: &[u8]) -> Result<u32, String> {
    word(bytes, 0).ok_or_else(|| "is no histogram: it is too short".to_owned())
}

/// What is within a compressed one: a plain one.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let ends = || "ends in the middle".to_owned();
    let length = word(bytes, 4).ok_or_else(ends)? as usize;
    let compressed = bytes
        .get(8..)
        .and_then(|rest| rest.get(..length))
        .ok_or_else(ends)?;
    let mut plain = Vec::new();
    ZlibDecoder::new(compressed)
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|error| format!("cannot be inflated: {error}"))?;
    if cookie(&plain)? != PLAIN {
        return Err("is no histogram: something else is compressed in it".to_owned());
    }
    Ok(plain)
}

/// What the library does not check: that the payload is as long as it says, and that its numbers can be negated.
fn check(plain: &[u8]) -> Result<(), String> {
    if plain.len() > MAX_BYTES {
        return Err(format!("has more than {MAX_BYTES} bytes"));
    }
    let length = word(plain, 4).unwrap_or_default() as usize;
    let payload = plain.get(HEADER_BYTES..).and_then(|rest| rest.get(..length));
    let payload = payload.ok_or_else(|| "ends in the middle".to_owned())?;
    // Nine such bytes are the one number (-2⁶³) that has no opposite, or counts beyond all measure around it.
    if payload.windows(9).any(|bytes| bytes == [0xff; 9]) {
        return Err("holds a count that is none".to_owned());
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// An encoding written down by hand after the format's description.
    pub(in crate::hdr) fn by_hand(digits: u32, low: u64, high: u64, payload: &[u8]) -> Vec<u8> {
        let mut bytes = PLAIN.to_be_bytes().to_vec();
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(0_u32.to_be_bytes());
        bytes.extend(digits.to_be_bytes());
        bytes.extend(low.to_be_bytes());
        bytes.extend(high.to_be_bytes());
        bytes.extend(1.0_f64.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn compressed(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).expect("in memory");
        let deflated = encoder.finish().expect("in memory");
        let mut bytes = COMPRESSED.to_be_bytes().to_vec();
        bytes.extend((deflated.len() as u32).to_be_bytes());
        bytes.extend(deflated);
        bytes
    }

    #[test]
    fn an_encoding_made_by_hand_holds_what_was_put_in() {
        // ZigZag LEB128: one zero skipped (-1 → 1), 3 at cell 1 (6), 98 zeros skipped (-98 → 195 = 0xc3 0x01), 64 at cell
        // 100 (128 = 0x80 0x01).
        let plain = by_hand(3, 1, 3_600_000_000, &[1, 6, 0xc3, 0x01, 0x80, 0x01]);
        for bytes in [plain.clone(), compressed(&plain)] {
            let histogram = decode(&STANDARD.encode(bytes)).expect("a histogram");
            assert_eq!((histogram.count_at(1), histogram.count_at(100)), (3, 64));
            assert_eq!(
                (histogram.len(), histogram.max(), histogram.sigfig()),
                (67, 100, 3)
            );
        }
    }

    #[test]
    fn what_is_none_is_told() {
        let plain = by_hand(3, 1, 3_600_000_000, &[1, 6]);
        let mut longer = plain.clone();
        longer[7] = 200;
        let mut old = plain.clone();
        old[3] = 0x03;
        let mut twice = by_hand(3, 1, 1_000, &[0xff; 9]);
        let bomb = compressed(&vec![0; MAX_BYTES * 2]);
        let large = {
            let mut large = plain.clone();
            large.resize(MAX_BYTES * 2, 0);
            compressed(&large)
        };
        for (bytes, told) in [
            (Vec::new(), "too short"),
            (b"hello world".to_vec(), "does not begin as one"),
            (longer, "ends in the middle"),
            (compressed(&plain)[..12].to_vec(), "ends in the middle"),
            (old, "only V2 is read"),
            (by_hand(9, 1, 1_000, &[]), "is no histogram"),
            (by_hand(3, 0, 1_000, &[]), "is no histogram"),
            (
                by_hand(3, 1, 2_000, &[0xff, 0xff, 0xff, 0x7f, 2]),
                "is no histogram",
            ),
            (std::mem::take(&mut twice), "a count that is none"),
            (bomb, "something else"),
            (large, "more than"),
        ] {
            let error = decode(&STANDARD.encode(&bytes)).expect_err(told);
            assert!(error.contains(told), "{told}: {error}");
        }
        assert!(decode("über").expect_err("no base64").contains("is no base64"));
    }

    proptest! {
        #[test]
        fn any_header_and_any_payload_get_a_verdict(
            digits in 0..8_u32,
            low in prop_oneof![0..10_u64, any::<u64>()],
            high in any::<u64>(),
            payload in vec(prop_oneof![Just(0xff_u8), any::<u8>()], 0..60),
            cut in 0..100_usize,
        ) {
            let mut plain = by_hand(digits, low, high, &payload);
            let _ = decode(&STANDARD.encode(compressed(&plain)));
            if let Ok(histogram) = decode(&STANDARD.encode(&plain)) {
                let _ = (histogram.max(), histogram.mean(), histogram.value_at_quantile(0.99));
            }
            plain.truncate(cut);
            let _ = decode(&STANDARD.encode(&plain));
        }
    }
}

//! Hashes that every worker, every instance and every version agree on: fixed seeds, no dependence on the machine.
//!
//! Not for tables that strangers fill: whoever knows the seeds can make collisions.

use std::collections::HashMap;

use super::pick::Member;

/// Odd constants without structure, from the digits of π.
const SEED: u64 = 0x243f_6a88_85a3_08d3;
const STEP: u64 = 0xa409_3822_299f_31d1;

/// A 64 × 64 bit product with its halves folded together: cheap, and good where the operand is a hash already.
#[inline]
pub fn fold(value: u64) -> u64 {
    let product = u128::from(value) * u128::from(STEP);
    (product as u64) ^ (product >> 64) as u64
}

/// Makes a hash of a number whose bits may have structure (the finaliser of SplitMix64, Steele et al. 2014).
#[inline]
pub fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(SEED);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Hashes bytes: what a request is known by, or a backend.
#[inline]
pub fn bytes(bytes: &[u8]) -> u64 {
    let mut hash = mix(bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        hash = mix(hash ^ u64::from_le_bytes(last));
    }
    hash
}

/// The hash of each member's identity, by position. Members of the same identity are told apart by their order.
pub(super) fn identities(members: &[Member]) -> Box<[u64]> {
    let mut seen: HashMap<&str, u64> = HashMap::new();
    members
        .iter()
        .map(|member| {
            let times = seen.entry(&member.identity).or_default();
            let hash = bytes(member.identity.as_bytes()).wrapping_add(times.wrapping_mul(STEP));
            *times += 1;
            hash
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes these moves the keys of everybody who upgrades.
    #[test]
    fn hashes_are_what_they_always_were() {
        assert_eq!(bytes(b""), 0xe9e0_033e_3bad_af36);
        assert_eq!(bytes(b"10.0.0.1"), 0xa39c_6c23_e394_42cc);
        assert_eq!(bytes(b"http://127.0.0.1:9001"), 0x5a93_d7f9_ac8f_799b);
        assert_eq!(mix(1), 0xeab2_9de4_08aa_52fd);
        assert_eq!(fold(1), STEP);
    }

    #[test]
    fn every_bit_of_the_input_matters() {
        let text = *b"a key of some length";
        for at in 0..text.len() * 8 {
            let mut other = text;
            other[at / 8] ^= 1 << (at % 8);
            let changed = (bytes(&text) ^ bytes(&other)).count_ones();
            assert!((12..=52).contains(&changed), "bit {at} changes {changed} bits");
        }
        assert_ne!(bytes(b"a"), bytes(b"a\0"));
    }
}

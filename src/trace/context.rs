//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): reading and writing `traceparent`.
//!
//! `tracestate` goes on untouched; weir has no entry of its own in it.

/// Bytes of a `traceparent` of version 00.
pub const LENGTH: usize = 55;

/// Who a request belongs to, and who is its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// The caller records, and may have told others to.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; none: it is none, and whoever gets it begins a new trace (§3.2.2).
    ///
    /// A later version is read as far as 00 reaches, if what follows begins with a dash (§3.2.4).
    pub fn parse(value: &[u8]) -> Option<TraceContext> {
        let value = value.trim_ascii();
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let version = hex(known.get(..2)?.try_into().ok()?)?;
        let follows = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        if !follows || !dashes {
            return None;
        }
        let trace_id: [u8; 16] = bytes(&known[3..35])?;
        let span_id: [u8; 8] = bytes(&known[36..52])?;
        let [flags] = bytes::<1>(&known[53..])?;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(TraceContext {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// A trace that begins here.
    pub fn root(random: &mut fastrand::Rng, sampled: bool) -> TraceContext {
        TraceContext {
            // All zeros is no id; one in 2¹²⁸ would be.
            trace_id: random.u128(1..).to_be_bytes(),
            span_id: random.u64(1..).to_be_bytes(),
            sampled,
        }
    }

    /// A span of the same trace.
    pub fn child(self, random: &mut fastrand::Rng) -> TraceContext {
        TraceContext {
            span_id: random.u64(1..).to_be_bytes(),
            ..self
        }
    }

    /// As it goes out.
    pub fn write(&self) -> [u8; LENGTH] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put(&mut out[3..35], &self.trace_id);
        put(&mut out[36..52], &self.span_id);
        out[54] = b'0' + u8::from(self.sampled);
        out
    }
}

/// Whether a span is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Of the traces that begin here, 0 to 1.
    pub ratio: f64,
    /// What the caller decided counts.
    pub parent: bool,
}

impl Sampler {
    pub fn decide(&self, parent: Option<&TraceContext>, random: &mut fastrand::Rng) -> bool {
        match parent {
            Some(parent) if self.parent => parent.sampled,
            _ => random.f64() < self.ratio,
        }
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes `bytes` in lower-case hexadecimal into `out`, which is twice as long.
pub fn put(out: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// `N` bytes of lower-case hexadecimal; upper case is no valid `traceparent` (§3.2.2.3).
fn bytes<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = hex([pair[0], pair[1]])?;
    }
    Some(out)
}

fn hex([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_a_traceparent_and_what_is_none() {
        let good = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert!(good.sampled);
        assert_eq!(good.write(), GOOD.as_bytes());
        for later in ["-", "-more"] {
            let later = format!("cc{}{later}", &GOOD[2..]);
            assert_eq!(TraceContext::parse(later.as_bytes()), Some(good), "{later}");
        }
        for none in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &GOOD.replace("0af7", "0AF7"),
            &format!("ff{}", &GOOD[2..]),
            &format!("cc{}more", &GOOD[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn children_keep_the_trace_and_the_decision() {
        let mut random = fastrand::Rng::with_seed(1);
        let root = TraceContext::root(&mut random, true);
        let child = root.child(&mut random);
        assert_eq!((child.trace_id, child.sampled), (root.trace_id, true));
        assert_ne!(child.span_id, root.span_id);
    }

    #[test]
    fn the_parent_decides_where_it_may() {
        let mut random = fastrand::Rng::with_seed(1);
        let parent = TraceContext::parse(GOOD.as_bytes()).unwrap();
        let unsampled = TraceContext {
            sampled: false,
            ..parent
        };
        let never = Sampler {
            ratio: 0.0,
            parent: true,
        };
        assert!(never.decide(Some(&parent), &mut random));
        assert!(!never.decide(None, &mut random));
        let always = Sampler {
            ratio: 1.0,
            parent: false,
        };
        assert!(always.decide(Some(&unsampled), &mut random));
        let half = Sampler {
            ratio: 0.5,
            parent: true,
        };
        let sampled = (0..10_000).filter(|_| half.decide(None, &mut random)).count();
        assert!((4_700..5_300).contains(&sampled), "{sampled}");
    }

    proptest! {
        #[test]
        fn any_bytes_get_a_verdict(bytes in vec(any::<u8>(), 0..80)) {
            if let Some(context) = TraceContext::parse(&bytes) {
                prop_assert_eq!(TraceContext::parse(&context.write()), Some(context));
            }
        }

        #[test]
        fn what_is_written_reads_back(seed: u64, sampled: bool) {
            let context = TraceContext::root(&mut fastrand::Rng::with_seed(seed), sampled);
            prop_assert_eq!(TraceContext::parse(&context.write()), Some(context));
        }
    }
}

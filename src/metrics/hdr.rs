//! A histogram as tools of HdrHistogram read it: its V2 encoding, compressed, in base64.
//!
//! The unit is 1 µs, from 1 µs to 1 h, with 3 significant digits for the total and 2 for the other series, whether it holds
//! values or not: exports of one series can always be added. Values past an hour stand in the last cell. What the encoding
//! has no room for, the exact sum and maximum, is in the JSON metrics.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

use super::distribution::Distribution;
use super::histogram::{Coarse, Fine};
use super::shard::Series;

/// The same counts, in the layout that the series has in every export.
pub fn histogram(series: Series, distribution: &Distribution) -> Histogram<u64> {
    // An empty sum of distributions knows of no digits.
    match (distribution.count, series) {
        (0, Series::Total) => Fine::empty_hdr(),
        (0, _) => Coarse::empty_hdr(),
        _ => distribution.to_hdr(),
    }
}

/// V2, compressed, base64; one line without its end.
///
/// # Errors
/// In words: the library refuses a count past 2⁶³.
pub fn encode(histogram: &Histogram<u64>) -> Result<String, String> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hdrhistogram::serialization::Deserializer;

    use super::*;
    use crate::metrics::histogram::{Histogram as Recorded, Merged};

    fn of<const CELLS: usize>(values: &[u64]) -> Distribution {
        let recorded = Recorded::<CELLS>::new();
        for &us in values {
            recorded.record(Duration::from_micros(us));
        }
        let mut merged = Merged::new();
        merged.add(&recorded);
        merged.distribution()
    }

    fn back(text: &str) -> Histogram<u64> {
        let bytes = STANDARD.decode(text).expect("base64");
        Deserializer::new()
            .deserialize(&mut &bytes[..])
            .expect("a histogram")
    }

    #[test]
    fn what_comes_back_is_what_went_in() {
        let values = [0, 1, 999, 1_000, 1_000_001, 3_600_000_000, 9_000_000_000];
        let total = histogram(Series::Total, &of::<1024>(&values));
        assert_eq!(back(&encode(&total).expect("text")), total);
        assert_eq!((total.len(), total.sigfig()), (7, 3));
        let weir = histogram(Series::Weir, &of::<128>(&values));
        assert_eq!(back(&encode(&weir).expect("text")), weir);
        assert_eq!((weir.len(), weir.sigfig()), (7, 2));
    }

    #[test]
    fn an_empty_one_has_the_layout_of_its_series() {
        for series in Series::ALL {
            let digits = if series == Series::Total { 3 } else { 2 };
            for empty in [Distribution::default(), of::<128>(&[])] {
                let empty = back(&encode(&histogram(series, &empty)).expect("text"));
                assert_eq!((empty.len(), empty.sigfig()), (0, digits), "{series:?}");
            }
        }
    }
}

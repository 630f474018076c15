//! Prometheus' protobuf exposition, where histograms are native ones: sparse, with buckets that grow by a constant factor.
//!
//! The messages are those of `io.prometheus.client` (metrics.proto of prometheus/client_model), as far as they are used,
//! by its field numbers. A stream of `MetricFamily` messages, each with its length in front.
//!
//! # From cells to native buckets
//! Schema 3: a bucket ends where the one before ended times 2^(1/8), so bucket *i* holds (2^((i−1)/8), 2^(i/8)] seconds. A
//! cell of an HdrHistogram is much narrower (1/1,024 or 1/128 of its value) and counts whole under the bucket that holds
//! its middle: no value is further from its bucket than its own cell is wide, and no count is lost.

use prost::Message;

use super::distribution::{Distribution, EDGES_US};
use super::exemplar::Exemplar;
use super::families::{Family, Kind, Sample, Value};

pub const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Buckets a power of two: 2³.
const SCHEMA: i32 = 3;
/// Below this, in seconds, values count as zero: half of the unit of the histograms.
const ZERO: f64 = 0.5e-6;

#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Number {
    #[prost(double, optional, tag = "1")]
    pub value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ExemplarMessage {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    #[prost(double, optional, tag = "2")]
    pub value: Option<f64>,
    #[prost(message, optional, tag = "3")]
    pub timestamp: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    pub cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub upper_bound: Option<f64>,
    #[prost(message, optional, tag = "3")]
    pub exemplar: Option<ExemplarMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub struct BucketSpan {
    #[prost(sint32, optional, tag = "1")]
    pub offset: Option<i32>,
    #[prost(uint32, optional, tag = "2")]
    pub length: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub bucket: Vec<Bucket>,
    #[prost(sint32, optional, tag = "5")]
    pub schema: Option<i32>,
    #[prost(double, optional, tag = "6")]
    pub zero_threshold: Option<f64>,
    #[prost(uint64, optional, tag = "7")]
    pub zero_count: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    pub positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    pub positive_delta: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub histogram: Option<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
pub struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub help: Option<String>,
    /// 0: counter, 1: gauge, 4: histogram.
    #[prost(int32, optional, tag = "3")]
    pub r#type: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    pub metric: Vec<Metric>,
}

/// All families, each behind its length.
pub fn render(families: &[Family<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 << 10);
    for family in families {
        let total = if family.kind == Kind::Counter {
            "_total"
        } else {
            ""
        };
        let message = MetricFamily {
            name: Some(format!("{}{total}", family.name)),
            help: Some(family.help.to_owned()),
            r#type: Some(match family.kind {
                Kind::Counter => 0,
                Kind::Gauge => 1,
                Kind::Histogram => 4,
            }),
            metric: family
                .samples
                .iter()
                .map(|sample| metric(sample, family.kind))
                .collect(),
        };
        // A `Vec` grows as needed.
        let _ = message.encode_length_delimited(&mut out);
    }
    out
}

fn metric(sample: &Sample<'_>, kind: Kind) -> Metric {
    let labels = sample.labels.iter().map(|(name, value)| LabelPair {
        name: (*name).to_owned(),
        value: value.to_string(),
    });
    let mut metric = Metric {
        label: labels.collect(),
        ..Metric::default()
    };
    let value = match &sample.value {
        Value::Whole(value) => *value as f64,
        Value::Real(value) => *value,
        Value::Histogram {
            distribution,
            exemplars,
        } => {
            metric.histogram = Some(histogram(distribution, exemplars));
            return metric;
        }
    };
    let number = Some(Number { value: Some(value) });
    match kind {
        Kind::Counter => metric.counter = number,
        Kind::Gauge | Kind::Histogram => metric.gauge = number,
    }
    metric
}

fn histogram(distribution: &Distribution, exemplars: &[Option<Exemplar>]) -> Histogram {
    let below = distribution.below_edges();
    let bounds = EDGES_US.iter().map(|&edge| edge as f64 / 1e6);
    let infinite = std::iter::once((f64::INFINITY, distribution.count));
    let buckets = bounds.zip(below).chain(infinite).enumerate();
    let bucket = buckets.map(|(index, (bound, count))| Bucket {
        cumulative_count: Some(count),
        upper_bound: Some(bound),
        exemplar: exemplars
            .get(index)
            .copied()
            .flatten()
            .map(|found| exemplar(&found)),
    });
    let (zero_count, native) = native(distribution);
    let (positive_span, positive_delta) = spans(&native);
    Histogram {
        sample_count: Some(distribution.count),
        sample_sum: Some(distribution.sum_ns as f64 / 1e9),
        bucket: bucket.collect(),
        schema: Some(SCHEMA),
        zero_threshold: Some(ZERO),
        zero_count: Some(zero_count),
        positive_span,
        positive_delta,
    }
}

/// How many values are zero, and the count of every native bucket that holds anything, by its index.
fn native(distribution: &Distribution) -> (u64, Vec<(i32, u64)>) {
    let (mut zeros, mut buckets) = (0, Vec::<(i32, u64)>::new());
    for (lowest, highest, count) in distribution.cells() {
        // A cell ends where the next one begins.
        let middle = (lowest + highest + 1) as f64 / 2.0 / 1e6;
        if middle <= ZERO {
            zeros += count;
            continue;
        }
        let index = (middle.log2() * f64::from(1 << SCHEMA)).ceil() as i32;
        match buckets.last_mut() {
            Some((last, sum)) if *last == index => *sum += count,
            _ => buckets.push((index, count)),
        }
    }
    (zeros, buckets)
}

/// The buckets as runs of neighbours, and each count as its difference from the one before.
fn spans(buckets: &[(i32, u64)]) -> (Vec<BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas) = (Vec::<BucketSpan>::new(), Vec::new());
    let (mut next, mut before) = (0, 0);
    for &(index, count) in buckets {
        match spans.last_mut() {
            Some(span) if index == next => span.length = span.length.map(|length| length + 1),
            _ => spans.push(BucketSpan {
                offset: Some(index - next),
                length: Some(1),
            }),
        }
        deltas.push(count as i64 - before);
        before = count as i64;
        next = index + 1;
    }
    (spans, deltas)
}

fn exemplar(exemplar: &Exemplar) -> ExemplarMessage {
    let mut trace_id = vec![0; 32];
    crate::trace::context::put(&mut trace_id, &exemplar.trace_id);
    ExemplarMessage {
        label: vec![LabelPair {
            name: "trace_id".to_owned(),
            value: String::from_utf8(trace_id).unwrap_or_default(),
        }],
        value: Some(exemplar.elapsed_ns as f64 / 1e9),
        timestamp: Some(Timestamp {
            seconds: (exemplar.unix_millis / 1_000) as i64,
            nanos: (exemplar.unix_millis % 1_000 * 1_000_000) as i32,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::histogram::{Fine, Merged};

    fn distribution(micros: &[u64]) -> Distribution {
        let histogram = Fine::new();
        for &us in micros {
            histogram.record(Duration::from_micros(us));
        }
        let mut merged = Merged::new();
        merged.add(&histogram);
        merged.distribution()
    }

    /// The buckets that spans and deltas say, read as Prometheus reads them.
    fn read(spans: &[BucketSpan], deltas: &[i64]) -> Vec<(i32, u64)> {
        let (mut index, mut count, mut deltas) = (0, 0, deltas.iter());
        let mut buckets = Vec::new();
        for span in spans {
            index += span.offset.unwrap_or(0);
            for _ in 0..span.length.unwrap_or(0) {
                count += deltas.next().copied().unwrap_or(0);
                buckets.push((index, count as u64));
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        buckets
    }

    proptest! {
        #[test]
        fn no_count_is_lost_and_none_is_far_from_its_bucket(micros in vec(0_u64..100_000_000, 1..200)) {
            let distribution = distribution(&micros);
            let histogram = histogram(&distribution, &[]);
            let buckets = read(&histogram.positive_span, &histogram.positive_delta);
            let (zeros, expected) = native(&distribution);
            prop_assert_eq!(&buckets, &expected);
            let counted: u64 = buckets.iter().map(|(_, count)| count).sum();
            prop_assert_eq!(counted + zeros, micros.len() as u64);
            // Every value's own bucket, or a neighbour's within its cell.
            let mut sorted = micros.clone();
            sorted.sort_unstable();
            let mut values = sorted.into_iter().skip(zeros as usize);
            for (index, count) in buckets {
                let upper = 2_f64.powf(f64::from(index) / 8.0);
                let lower = 2_f64.powf(f64::from(index - 1) / 8.0);
                for _ in 0..count {
                    let seconds = values.next().unwrap() as f64 / 1e6;
                    let cell = seconds / 1_000.0 + 1e-6;
                    prop_assert!(lower - cell <= seconds && seconds <= upper + cell);
                }
            }
        }
    }
}

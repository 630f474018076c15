//! An HdrHistogram log (format 1.3): a line a second, tagged `response` and, in an open loop, `service`. Values are
//! nanoseconds; the column of maxima is in milliseconds, as the format wants it.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::load::{Outcome, Plan};

/// Nanoseconds in the unit of the column of maxima.
const MAX_VALUE_DIVISOR: f64 = 1_000_000.0;

pub(super) fn write(path: &Path, plan: &Plan, outcome: &Outcome) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(MAX_VALUE_DIVISOR)
        .with_start_time(outcome.began)
        .with_base_time(outcome.began)
        .add_comment("[weir load]")
        .begin_log_with(&mut out, &mut serializer)?;
    let tag = |word| Tag::new(word).ok_or_else(|| io::Error::other("a tag"));
    for interval in &outcome.intervals {
        let length = interval.length.max(Duration::from_millis(1));
        let mut write = |word, histogram| {
            log.write_histogram(histogram, interval.at, length, Some(tag(word)?))
                .map_err(|error| io::Error::other(format!("{error:?}")))
        };
        write("response", &interval.tally.response)?;
        if plan.rate.is_some() {
            write("service", &interval.tally.service)?;
        }
    }
    Ok(())
}

//! The log format of HdrHistogram (`.hlog`), version 1.3, which its tools merge and plot.
//!
//! A line is one histogram with the time that it is of, in seconds after the log's start, and a tag. Its column of maxima
//! is for people: by convention in milliseconds, whatever the unit of the histograms. The format has no word for that unit;
//! the divisor that makes milliseconds of it stands in a comment (`MaxValueDivisor`), so that a reader can tell.

use std::fmt::Write;
use std::io;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// What makes milliseconds of weir's unit, 1 µs.
pub const MICROS_PER_MILLI: f64 = 1_000.0;

/// The names of the columns, as the reference implementation writes them; the tag has none.
const LEGEND: &[u8] =
    b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// One line.
#[derive(Clone, Debug)]
pub struct Interval {
    /// As [`tag_of`] gives it; none: the line has no tag.
    pub tag: Option<String>,
    pub from: SystemTime,
    pub length: Duration,
    pub histogram: Histogram<u64>,
}

/// The whole text. `started` is what times count from; `divisor` makes milliseconds of the histograms' unit.
///
/// # Errors
/// A tag that holds a comma, a blank or a line's end, or a count past 2⁶³.
pub fn render(started: SystemTime, divisor: f64, intervals: &[Interval]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    // The writer has no line of columns, so it is begun twice: for what stands before it and for what stands behind.
    IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .with_start_time(started)
        .with_base_time(started)
        .begin_log_with(&mut out, &mut serializer)?;
    out.extend_from_slice(LEGEND);
    let mut log = IntervalLogWriterBuilder::new()
        .with_max_value_divisor(divisor)
        .begin_log_with(&mut out, &mut serializer)?;
    for interval in intervals {
        let tag = match &interval.tag {
            None => None,
            Some(tag) => Some(Tag::new(tag).ok_or_else(|| io::Error::other(format!("{tag:?} is no tag")))?),
        };
        let from = interval.from.duration_since(started).unwrap_or_default();
        log.write_histogram(&interval.histogram, from, interval.length, tag)
            .map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(out)
}

/// A name as a tag: what a tag cannot hold is percent-encoded (RFC 3986 §2.1).
pub fn tag_of(name: &str) -> String {
    let mut tag = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(character, ',' | ' ' | '%') || character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                // Writing into a String cannot fail.
                let _ = write!(tag, "%{byte:02X}");
            }
        } else {
            tag.push(character);
        }
    }
    tag
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    fn interval(tag: Option<&str>, from: u64, value: u64) -> Interval {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds");
        histogram.record(value).expect("in range");
        Interval {
            tag: tag.map(str::to_owned),
            from: UNIX_EPOCH + Duration::from_millis(from),
            length: Duration::from_millis(1_500),
            histogram,
        }
    }

    #[test]
    fn it_is_laid_out_as_the_format_says() {
        let started = UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        let intervals = [
            interval(Some("a"), 1_700_000_001_000, 1_000),
            interval(None, 1_700_000_002_000, 1_000_000),
        ];
        let text = render(started, MICROS_PER_MILLI, &intervals).expect("a log");
        let text = String::from_utf8(text).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..5],
            [
                "#[Histogram log format version 1.3]",
                "#[StartTime: 1700000000.250 (seconds since epoch)]",
                "#[BaseTime: 1700000000.250 (seconds since epoch)]",
                "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"",
                "#[MaxValueDivisor: 1000.000]",
            ]
        );
        // HISTFAAA is how every compressed V2 histogram begins.
        assert!(lines[5].starts_with("Tag=a,0.750,1.500,1.000,HISTFAAA"), "{text}");
        assert!(lines[6].starts_with("1.750,1.500,1000.447,HISTFAAA"), "{text}");
        let read: Vec<_> = IntervalLogIterator::new(text.as_bytes())
            .map(|entry| entry.expect("a line"))
            .filter(|entry| matches!(entry, LogEntry::Interval(_)))
            .collect();
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn any_name_can_be_a_tag_and_stays_itself() {
        for (name, tag) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("a b,c%\n", "a%20b%2Cc%25%0A"),
            ("grün", "grün"),
        ] {
            assert_eq!(tag_of(name), tag);
            assert!(Tag::new(&tag_of(name)).is_some());
        }
        let bad = [interval(Some("a b"), 0, 1)];
        assert!(render(UNIX_EPOCH, 1_000.0, &bad).is_err());
    }
}

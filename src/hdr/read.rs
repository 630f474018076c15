//! An export, line by line: a log of HdrHistogram, or lines that are a histogram in base64 each, or both.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogHistogram, IntervalLogIterator, LogEntry};

use super::Unit;
use super::decode::decode;

/// By how much a time must lie before the log's start to be counted from it: the reference implementation's rule for logs
/// without a base time.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What a line brings.
#[derive(Debug)]
pub enum Item {
    Interval(Box<Interval>),
    /// The values of all histograms are of this unit.
    Unit(Unit),
    /// What follows was written by `weir load`, which writes each request under two tags.
    WeirLoad,
}

/// A histogram.
#[derive(Debug)]
pub struct Interval {
    /// Counted from 1.
    pub line: usize,
    pub tag: Option<String>,
    /// When it began, since 1970, and how long it was. None: the export does not say.
    pub time: Option<(Duration, Duration)>,
    pub histogram: Histogram<u64>,
}

/// Why a line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// What it is, as a sentence.
    pub what: String,
}

/// Gives what the lines of a text bring, until one cannot be read.
#[derive(Debug)]
pub struct Reader<'a> {
    lines: std::iter::Enumerate<std::str::SplitInclusive<'a, char>>,
    /// `StartTime` and `BaseTime`, since 1970.
    start: Option<Duration>,
    base: Option<Duration>,
    ended: bool,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Reader<'a> {
        Reader {
            lines: text.split_inclusive('\n').enumerate(),
            start: None,
            base: None,
            ended: false,
        }
    }

    /// `whole` is a line with its end. None: it is a comment, or what the reader keeps for itself.
    fn line(&mut self, number: usize, whole: &str) -> Result<Option<Item>, String> {
        let line = whole.trim();
        if line.is_empty() || line.starts_with("\"StartTimestamp\"") {
            return Ok(None);
        }
        if line.starts_with('#') {
            return Ok(self.comment(whole));
        }
        if !line.contains(',') {
            let histogram = decode(line).map_err(|what| format!("it {what}"))?;
            return Ok(Some(interval(number, None, None, histogram)));
        }
        match entry(whole) {
            Some(Entry::Interval(found)) => {
                let histogram = decode(found.encoded_histogram())
                    .map_err(|what| format!("what stands in its last column {what}"))?;
                let time = self.time(found.start_timestamp(), found.duration())?;
                let tag = found.tag().map(|tag| tag.as_str().to_owned());
                Ok(Some(interval(number, tag, Some(time), histogram)))
            }
            _ => Err(
                "it is neither a comment, nor a line of a log (Tag=NAME,START,LENGTH,MAX,HISTOGRAM with times as \
                 12.345, in seconds; the tag may be missing), nor a histogram in base64"
                    .to_owned(),
            ),
        }
    }

    fn comment(&mut self, whole: &str) -> Option<Item> {
        match entry(whole) {
            Some(Entry::Start(start)) => self.start = Some(start),
            Some(Entry::Base(base)) => self.base = Some(base),
            _ => {}
        }
        let line = whole.trim();
        if line == "#[weir load]" {
            return Some(Item::WeirLoad);
        }
        let divisor = line.strip_prefix("#[MaxValueDivisor: ")?.strip_suffix(']')?;
        Unit::of_divisor(divisor.trim().parse().ok()?).map(Item::Unit)
    }

    /// When an interval began, since 1970.
    fn time(&self, at: Duration, length: Duration) -> Result<(Duration, Duration), String> {
        let origin = match (self.base, self.start) {
            (Some(base), _) => base,
            (None, Some(start)) if at.checked_add(A_YEAR).is_some_and(|later| later < start) => start,
            _ => Duration::ZERO,
        };
        let begins = origin.checked_add(at);
        let begins = begins.filter(|begins| begins.checked_add(length).is_some());
        begins
            .map(|begins| (begins, length))
            .ok_or_else(|| "its times are past all calendars".to_owned())
    }
}

fn interval(
    line: usize,
    tag: Option<String>,
    time: Option<(Duration, Duration)>,
    histogram: Histogram<u64>,
) -> Item {
    Item::Interval(Box::new(Interval {
        line,
        tag,
        time,
        histogram,
    }))
}

/// What the library makes of one line with its end.
enum Entry<'a> {
    Start(Duration),
    Base(Duration),
    Interval(IntervalLogHistogram<'a>),
}

fn entry(line: &str) -> Option<Entry<'_>> {
    let mut entries = IntervalLogIterator::new(line.trim_start().as_bytes());
    match entries.next()?.ok()? {
        LogEntry::StartTime(start) => Some(Entry::Start(start)),
        LogEntry::BaseTime(base) => Some(Entry::Base(base)),
        LogEntry::Interval(interval) => Some(Entry::Interval(interval)),
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Item, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let (index, line) = self.lines.next()?;
            let read = if line.ends_with('\n') {
                self.line(index + 1, line)
            } else {
                self.line(index + 1, &format!("{line}\n"))
            };
            match read {
                Ok(None) => {}
                Ok(Some(item)) => return Some(Ok(item)),
                Err(what) => {
                    self.ended = true;
                    return Some(Err(Problem {
                        line: index + 1,
                        what,
                    }));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::hdr::encode;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds");
        for &value in values {
            histogram.record(value).expect("in range");
        }
        histogram
    }

    fn text(values: &[u64]) -> String {
        encode(&histogram(values)).expect("text")
    }

    /// Tag, beginning and length in milliseconds, and count of an interval.
    type Line = (Option<String>, Option<(u128, u128)>, u64);

    fn intervals(log: &str) -> Result<Vec<Line>, Problem> {
        let mut found = Vec::new();
        for item in Reader::new(log) {
            if let Item::Interval(interval) = item? {
                let time = interval
                    .time
                    .map(|(from, length)| (from.as_millis(), length.as_millis()));
                found.push((interval.tag, time, interval.histogram.len()));
            }
        }
        Ok(found)
    }

    #[test]
    fn logs_and_bare_histograms_are_read() {
        let (one, two) = (text(&[5]), text(&[5, 6]));
        let log = format!(
            "#[Histogram log format version 1.3]\n#[BaseTime: 100.500 (seconds since epoch)]\r\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n\n\
             Tag=a,0.500,2.000,0.005,{one}\r\n  {two}\n3.000,1.000,0.005,{two}"
        );
        let expected = [
            (Some("a".to_owned()), Some((101_000, 2_000)), 1),
            (None, None, 2),
            (None, Some((103_500, 1_000)), 2),
        ];
        assert_eq!(intervals(&log).expect("a log"), expected);
        assert_eq!(intervals("").expect("nothing"), []);
    }

    #[test]
    fn times_count_from_where_the_format_says() {
        let one = text(&[5]);
        let begins = |head: &str, at: &str| {
            let log = format!("{head}{at},1.000,0.1,{one}\n");
            let first = intervals(&log).expect("a log").remove(0);
            first.1.expect("a time").0
        };
        let start = "#[StartTime: 1700000000.000 (seconds since epoch), Tue Nov 14 2023]\n";
        let base = "#[BaseTime: 1600000000.000 (seconds since epoch)]\n";
        assert_eq!(begins("", "7.000"), 7_000);
        assert_eq!(begins(start, "7.000"), 1_700_000_007_000);
        assert_eq!(begins(start, "1700000007.000"), 1_700_000_007_000);
        assert_eq!(begins(&format!("{start}{base}"), "7.000"), 1_600_000_007_000);
    }

    #[test]
    fn comments_tell_the_unit_and_who_wrote_it() {
        let items = |text: &str| -> Vec<String> {
            let items = Reader::new(text).map(|item| format!("{:?}", item.expect("a comment")));
            items.collect()
        };
        assert_eq!(items("#[MaxValueDivisor: 1000.000]\n"), ["Unit(Micros)"]);
        assert_eq!(
            items("#[weir load]\n#[MaxValueDivisor: 1000000.000]"),
            ["WeirLoad", "Unit(Nanos)"]
        );
        assert_eq!(items("#[MaxValueDivisor: 7]\n#[MaxValueDivisor: x]\n#"), [""; 0]);
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line() {
        let one = text(&[5]);
        for (log, line, told) in [
            (format!("{one}\nnonsense!"), 2, "it is no base64"),
            ("#\n\n1.000,2.000,0.5".to_owned(), 3, "neither a comment"),
            (format!("1,2,0.5,{one}"), 1, "neither a comment"),
            (
                format!("{one}\n1.000,2.000,0.5,aGVsbG8gd29ybGQ=\n"),
                2,
                "in its last column is no histogram",
            ),
            (
                format!("#[BaseTime: 18446744073709551615.0 (s)]\n1.000,2.000,0.5,{one}\n"),
                2,
                "past all calendars",
            ),
        ] {
            let problem = intervals(&log).expect_err(told);
            assert_eq!(problem.line, line, "{problem:?}");
            assert!(problem.what.contains(told), "{told}: {problem:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gets_a_verdict(text in "(\\PC|[\n\r\t,.#0-9=])*") {
            let mut reader = Reader::new(&text);
            let problems = reader.by_ref().filter(Result::is_err).count();
            prop_assert!(problems <= 1 && reader.next().is_none());
        }

        #[test]
        fn any_spoiled_log_gets_a_verdict(
            values in vec(0..3_600_000_000_u64, 0..50),
            spoils in vec((any::<usize>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = format!(
                "#[StartTime: 1700000000.000 (seconds since epoch)]\nTag=a,0.500,2.000,0.005,{0}\n{0}\n",
                text(&values)
            )
            .into_bytes();
            let intact = spoils.is_empty();
            for (at, byte) in spoils {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let read = intervals(&String::from_utf8_lossy(&bytes));
            if intact {
                let counts: Vec<u64> = read.expect("a log").into_iter().map(|interval| interval.2).collect();
                prop_assert_eq!(counts, [values.len() as u64; 2]);
            }
        }
    }
}

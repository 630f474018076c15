//! Exports of many instances, added up.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;

use super::Unit;
use super::read::{Interval, Item, Reader};
use crate::metrics::hlog;

/// Tags that a merge holds at most: each is a histogram in memory.
const TAGS_MAX: usize = 1_000;

/// The sum of everything that was read, whole and by tag.
#[derive(Debug, Default)]
pub struct Merge {
    /// Only these tags, if any are named.
    only: Vec<String>,
    /// Without tag first.
    parts: BTreeMap<Option<String>, Part>,
    /// Of the values, and who said so.
    unit: Option<(Unit, String)>,
    /// How many histograms were added.
    pub histograms: usize,
    /// Where they came from, in the order in which they were read.
    pub sources: Vec<String>,
}

/// What has one tag.
#[derive(Debug)]
pub struct Part {
    pub histogram: Histogram<u64>,
    /// When the first one began and the last one ended, since 1970; none where no export said.
    pub time: Option<(Duration, Duration)>,
}

impl Merge {
    /// Nothing yet. `only`: histograms with other tags are passed over; empty: none is. `unit`: what the user says that the
    /// values are.
    pub fn new(only: Vec<String>, unit: Option<Unit>) -> Merge {
        Merge {
            only,
            unit: unit.map(|unit| (unit, "--unit".to_owned())),
            ..Merge::default()
        }
    }

    /// Adds everything in `text`; `name` is what errors call it.
    ///
    /// # Errors
    /// `NAME:LINE: …` for the first line that cannot be read or added.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let before = self.histograms;
        let (mut both, mut seen) = (false, Vec::new());
        for item in Reader::new(text) {
            match item.map_err(|problem| format!("{name}:{}: {}", problem.line, problem.what))? {
                Item::Unit(unit) => self.say_unit(unit, name)?,
                Item::WeirLoad => both = true,
                Item::Interval(interval) => {
                    if !self.wants(interval.tag.as_deref()) {
                        continue;
                    }
                    if both && !seen.contains(&interval.tag) {
                        seen.push(interval.tag.clone());
                    }
                    if seen.len() > 1 {
                        return Err(format!(
                            "{name}:{}: this log of weir load holds each request twice, as response and as service; \
                             choose one with --tag",
                            interval.line
                        ));
                    }
                    let line = interval.line;
                    self.add_interval(*interval)
                        .map_err(|what| format!("{name}:{line}: {what}"))?;
                }
            }
        }
        if self.histograms == before {
            let of = if self.only.is_empty() {
                ""
            } else {
                " with that tag"
            };
            return Err(format!("{name}: there is no histogram{of} in it"));
        }
        self.sources.push(name.to_owned());
        Ok(())
    }

    fn wants(&self, tag: Option<&str>) -> bool {
        self.only.is_empty() || tag.is_some_and(|tag| self.only.iter().any(|only| only == tag))
    }

    fn say_unit(&mut self, unit: Unit, name: &str) -> Result<(), String> {
        match &self.unit {
            Some((known, who)) if *known != unit => Err(format!(
                "{name}: its values are in {}, those of {who} in {}",
                unit.word(),
                known.word()
            )),
            Some(_) => Ok(()),
            None => {
                self.unit = Some((unit, name.to_owned()));
                Ok(())
            }
        }
    }

    fn add_interval(&mut self, interval: Interval) -> Result<(), String> {
        let Interval {
            tag, time, histogram, ..
        } = interval;
        if let Some(part) = self.parts.values().next() {
            check_layout(&part.histogram, &histogram)?;
        }
        let tags = self.parts.len();
        match self.parts.get_mut(&tag) {
            Some(part) => {
                add(&mut part.histogram, &histogram)?;
                part.time = hull(part.time, time);
            }
            None if tags == TAGS_MAX => return Err(format!("there are more than {TAGS_MAX} tags")),
            None => {
                let mut histogram = histogram;
                // A later one may reach further.
                histogram.auto(true);
                let time = hull(None, time);
                self.parts.insert(tag, Part { histogram, time });
            }
        }
        self.histograms += 1;
        Ok(())
    }

    /// What the values are; where nobody said, what weir exports.
    pub fn unit(&self) -> Unit {
        self.unit.as_ref().map(|(unit, _)| *unit).unwrap_or_default()
    }

    pub fn parts(&self) -> &BTreeMap<Option<String>, Part> {
        &self.parts
    }

    /// One histogram of everything.
    ///
    /// # Errors
    /// There is nothing, or more than fits.
    pub fn total(&self) -> Result<Histogram<u64>, String> {
        let mut parts = self.parts.values();
        let first = parts.next().ok_or("nothing was read")?;
        let mut total = first.histogram.clone();
        for part in parts {
            add(&mut total, &part.histogram)?;
        }
        Ok(total)
    }

    /// The sum as a log, a line for each tag.
    ///
    /// # Errors
    /// A count past 2⁶³.
    pub fn log(&self) -> io::Result<Vec<u8>> {
        let times = self.parts.values().filter_map(|part| part.time);
        let start = times.map(|(from, _)| from).min().unwrap_or_default();
        let intervals: Vec<_> = self
            .parts
            .iter()
            .map(|(tag, part)| {
                let (from, until) = part.time.unwrap_or((start, start));
                hlog::Interval {
                    tag: tag.clone(),
                    from: UNIX_EPOCH + from,
                    length: until - from,
                    histogram: part.histogram.clone(),
                }
            })
            .collect();
        hlog::render(UNIX_EPOCH + start, self.unit().per_milli(), &intervals)
    }
}

/// The least time that holds both; `new` is a beginning and a length.
fn hull(
    known: Option<(Duration, Duration)>,
    new: Option<(Duration, Duration)>,
) -> Option<(Duration, Duration)> {
    let new = new.map(|(from, length)| (from, from.saturating_add(length)));
    match (known, new) {
        (Some(known), Some(new)) => Some((known.0.min(new.0), known.1.max(new.1))),
        (known, new) => known.or(new),
    }
}

/// Only what has the same cells can be added without error.
fn check_layout(known: &Histogram<u64>, new: &Histogram<u64>) -> Result<(), String> {
    if known.sigfig() != new.sigfig() {
        return Err(format!(
            "it has {} significant digits, those before it {}: a sum would not be exact",
            new.sigfig(),
            known.sigfig()
        ));
    }
    if known.low() != new.low() {
        return Err(format!(
            "its lowest value is {}, of those before it {}: a sum would not be exact",
            new.low(),
            known.low()
        ));
    }
    Ok(())
}

fn add(to: &mut Histogram<u64>, from: &Histogram<u64>) -> Result<(), String> {
    let fits = to.len().checked_add(from.len()).is_some_and(|sum| sum < u64::MAX);
    if !fits {
        return Err("it brings more values than can be counted".to_owned());
    }
    to.add(from)
        .map_err(|error| format!("it cannot be added: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::decode::tests::by_hand;
    use super::*;
    use crate::metrics::hdr::encode;

    fn of(values: &[u64], high: u64, digits: u8) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, high, digits).expect("bounds");
        for &value in values {
            histogram.record(value).expect("in range");
        }
        histogram
    }

    fn text(values: &[u64]) -> String {
        encode(&of(values, 3_600_000_000, 3)).expect("text")
    }

    proptest! {
        #[test]
        fn exports_of_four_are_one_histogram_that_saw_everything(
            values in vec(vec(prop_oneof![0..2_048_u64, 0..3_600_000_000_u64], 0..200), 4),
            tagged in any::<bool>(),
        ) {
            let mut merge = Merge::new(Vec::new(), None);
            for (index, values) in values.iter().enumerate() {
                let export = if tagged {
                    format!("Tag={},1.000,2.000,0.0,{}\n", index % 2, text(values))
                } else {
                    text(values)
                };
                merge.add("export", &export).expect("an export");
            }
            let expected = of(&values.concat(), 3_600_000_000, 3);
            let total = merge.total().expect("a sum");
            prop_assert_eq!(&total, &expected);
            for thousandth in 0..=1_000 {
                let quantile = f64::from(thousandth) / 1_000.0;
                prop_assert_eq!(total.value_at_quantile(quantile), expected.value_at_quantile(quantile));
            }
            // What it writes is read as the same again.
            let log = String::from_utf8(merge.log().expect("a log")).expect("text");
            let mut again = Merge::new(Vec::new(), None);
            again.add("log", &log).expect("a log");
            prop_assert_eq!(&again.total().expect("a sum"), &expected);
            prop_assert_eq!(again.unit(), Unit::Micros);
        }

        #[test]
        fn ranges_may_differ_without_loss(short in vec(0..1_000_u64, 1..50), long in vec(0..u64::MAX / 2, 1..50)) {
            let mut merge = Merge::new(Vec::new(), None);
            merge.add("short", &encode(&of(&short, 1_000, 3)).expect("text")).expect("an export");
            merge.add("long", &encode(&of(&long, u64::MAX / 2, 3)).expect("text")).expect("an export");
            let (total, expected) = (merge.total().expect("a sum"), of(&[short, long].concat(), u64::MAX / 2, 3));
            prop_assert_eq!(total.len(), expected.len());
            for value in expected.iter_recorded() {
                prop_assert_eq!(total.count_at(value.value_iterated_to()), value.count_at_value());
            }
        }
    }

    #[test]
    fn times_and_tags_are_kept() {
        let log = |start: u32, tag: &str| {
            format!(
                "#[BaseTime: {start}.000 (seconds since epoch)]\nTag={tag},1.000,2.000,0.0,{}\n",
                text(&[7])
            )
        };
        let mut merge = Merge::new(Vec::new(), None);
        for (start, tag) in [(100, "a"), (90, "a"), (200, "b")] {
            merge.add("log", &log(start, tag)).expect("a log");
        }
        assert_eq!(merge.histograms, 3);
        let time = |tag: &str| {
            let (from, until) = merge.parts()[&Some(tag.to_owned())].time.expect("a time");
            (from.as_secs(), until.as_secs())
        };
        assert_eq!((time("a"), time("b")), ((91, 103), (201, 203)));
        let mut only = Merge::new(vec!["b".to_owned()], None);
        let error = only.add("log", &log(100, "a")).expect_err("another tag");
        assert_eq!(error, "log: there is no histogram with that tag in it");
        only.add("log", &log(100, "b")).expect("its tag");
    }

    #[test]
    fn what_cannot_be_added_exactly_is_refused_with_its_place() {
        let refused = |exports: &[&str]| {
            let mut merge = Merge::new(Vec::new(), None);
            let results: Result<Vec<()>, String> =
                exports.iter().map(|export| merge.add("x.hlog", export)).collect();
            results.expect_err("it cannot be added")
        };
        let one = text(&[5]);
        let coarse = encode(&of(&[5], 3_600_000_000, 2)).expect("text");
        let units = "#[MaxValueDivisor: 1000000.000]\n";
        let micros = format!("#[MaxValueDivisor: 1000.000]\n{one}");
        let both =
            format!("#[weir load]\nTag=response,1.000,2.000,0.0,{one}\nTag=service,1.000,2.000,0.0,{one}");
        // 2⁶² twice, and again: each number is one that a histogram can hold.
        let many: Vec<u8> = [0x80_u8; 8].into_iter().chain([0x80]).collect();
        let many = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            by_hand(3, 1, 3_600_000_000, &many),
        );
        for (exports, told) in [
            (
                vec![one.as_str(), &coarse],
                "x.hlog:1: it has 2 significant digits, those before it 3",
            ),
            (
                vec![micros.as_str(), units],
                "x.hlog: its values are in ns, those of x.hlog in us",
            ),
            (
                vec![both.as_str()],
                "x.hlog:3: this log of weir load holds each request twice",
            ),
            (vec!["#\n"], "x.hlog: there is no histogram in it"),
            (
                vec![many.as_str(); 5],
                "x.hlog:1: it brings more values than can be counted",
            ),
        ] {
            let error = refused(&exports);
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}

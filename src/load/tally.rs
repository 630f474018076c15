//! What is counted: answers, errors by kind, times, and who answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hdrhistogram::Histogram;

/// Nanoseconds to 1 h; longer is counted as that.
const MAX_NS: u64 = 3_600_000_000_000;
/// Significant digits of what is reported, and of what is reported of one target among several.
const DIGITS: u8 = 3;
const TARGET_DIGITS: u8 = 2;
/// Names of backends that are told apart, and bytes of a name: a server that makes up names does not fill the memory.
const NAMES_MAX: usize = 1_000;
const NAME_BYTES: usize = 128;
/// What names beyond those are counted as.
const OTHERS: &str = "(others)";

/// Why a request got no answer, or not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// No connection could be made.
    Connect,
    /// No whole answer within the time-out.
    Timeout,
    /// The connection was closed or reset before a whole answer.
    Reset,
    /// What came is no HTTP answer, or more than one.
    Malformed,
    /// The status is none of those expected.
    Status,
}

impl ErrorKind {
    pub const ALL: [ErrorKind; 5] = [
        ErrorKind::Connect,
        ErrorKind::Timeout,
        ErrorKind::Reset,
        ErrorKind::Malformed,
        ErrorKind::Status,
    ];

    pub const fn word(self) -> &'static str {
        match self {
            ErrorKind::Connect => "connect",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Reset => "reset",
            ErrorKind::Malformed => "malformed",
            ErrorKind::Status => "status",
        }
    }
}

/// One request, for the rows of a file.
#[derive(Clone, Debug)]
pub struct Sample {
    pub id: u64,
    /// When it was due, or sent where nothing says when; after the beginning.
    pub start_ns: u64,
    pub latency_ns: u64,
    /// 0: none came.
    pub status: u16,
    pub backend: Option<Arc<str>>,
    pub bytes: u64,
    pub error: Option<ErrorKind>,
}

/// The names of backends that a worker has seen, by number.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Vec<Arc<str>>,
    numbers: HashMap<Box<[u8]>, usize>,
}

impl Names {
    /// The number of a name; a new one for one that is new.
    pub(super) fn number(&mut self, name: &[u8]) -> usize {
        let name = name.get(..NAME_BYTES).unwrap_or(name);
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.known.len().min(NAMES_MAX);
        if number == self.known.len() {
            let shown = match number {
                NAMES_MAX => OTHERS.into(),
                _ => String::from_utf8_lossy(name),
            };
            self.known.push(shown.into());
        }
        if number < NAMES_MAX {
            self.numbers.insert(name.into(), number);
        }
        number
    }

    pub(super) fn name(&self, number: usize) -> Option<Arc<str>> {
        self.known.get(number).cloned()
    }
}

/// What one of several targets was asked and answered.
#[derive(Clone, Debug)]
pub struct TargetTally {
    pub requests: u64,
    pub errors: u64,
    /// As [`Tally::response`], with two significant digits.
    pub response: Histogram<u64>,
}

/// Counts of one worker and second, or of everything.
#[derive(Clone, Debug)]
pub struct Tally {
    /// From when a request was due, or sent where nothing says when; answers only.
    pub response: Histogram<u64>,
    /// From when it was sent.
    pub service: Histogram<u64>,
    response_sum: u128,
    service_sum: u128,
    pub statuses: BTreeMap<u16, u64>,
    pub errors: [u64; ErrorKind::ALL.len()],
    /// By what an answer says of who gave it.
    pub backends: BTreeMap<Arc<str>, u64>,
    /// The same by the worker's numbers, until it is handed in.
    by_number: Vec<u64>,
    /// Bytes received, heads and bodies.
    pub bytes: u64,
    /// By target; empty if there is only one.
    pub targets: Vec<TargetTally>,
    /// Requests that were sent again because their kept connection had been closed.
    pub reconnects: u64,
    /// Requests of an open loop that were due and not sent before its end.
    pub unsent: u64,
}

/// What one request came to, beside its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) response_ns: u64,
    pub(super) service_ns: u64,
}

impl Tally {
    /// An empty one; `targets` that are told apart.
    pub fn new(targets: usize) -> Tally {
        let empty =
            |digits| Histogram::new_with_bounds(1, MAX_NS, digits).expect("constant bounds that are valid");
        let target = TargetTally {
            requests: 0,
            errors: 0,
            response: empty(TARGET_DIGITS),
        };
        Tally {
            response: empty(DIGITS),
            service: empty(DIGITS),
            response_sum: 0,
            service_sum: 0,
            statuses: BTreeMap::new(),
            errors: [0; ErrorKind::ALL.len()],
            backends: BTreeMap::new(),
            by_number: Vec::new(),
            bytes: 0,
            targets: vec![target; if targets > 1 { targets } else { 0 }],
            reconnects: 0,
            unsent: 0,
        }
    }

    /// Counts an answer; `backend` is the number of who gave it.
    pub(super) fn answered(
        &mut self,
        target: usize,
        time: Timing,
        status: u16,
        bytes: u64,
        backend: Option<usize>,
    ) {
        self.response.saturating_record(time.response_ns.max(1));
        self.service.saturating_record(time.service_ns.max(1));
        self.response_sum += u128::from(time.response_ns);
        self.service_sum += u128::from(time.service_ns);
        *self.statuses.entry(status).or_default() += 1;
        self.bytes += bytes;
        if let Some(number) = backend {
            if self.by_number.len() <= number {
                self.by_number.resize(number + 1, 0);
            }
            self.by_number[number] += 1;
        }
        if let Some(target) = self.targets.get_mut(target) {
            target.requests += 1;
            target.response.saturating_record(time.response_ns.max(1));
        }
    }

    /// Counts a request that failed; one whose status was not expected has been [answered](Self::answered) besides.
    pub(super) fn failed(&mut self, target: usize, kind: ErrorKind) {
        self.errors[kind as usize] += 1;
        if let Some(target) = self.targets.get_mut(target) {
            target.requests += u64::from(kind != ErrorKind::Status);
            target.errors += 1;
        }
    }

    pub fn add(&mut self, other: &Tally) {
        // Same bounds: nothing can be refused.
        let _ = self.response.add(&other.response);
        let _ = self.service.add(&other.service);
        self.response_sum += other.response_sum;
        self.service_sum += other.service_sum;
        for (&status, count) in &other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (sum, count) in self.errors.iter_mut().zip(other.errors) {
            *sum += count;
        }
        for (name, count) in &other.backends {
            *self.backends.entry(name.clone()).or_default() += count;
        }
        self.bytes += other.bytes;
        for (sum, target) in self.targets.iter_mut().zip(&other.targets) {
            sum.requests += target.requests;
            sum.errors += target.errors;
            let _ = sum.response.add(&target.response);
        }
        self.reconnects += other.reconnects;
        self.unsent += other.unsent;
    }

    /// Answers of any status.
    pub fn answers(&self) -> u64 {
        self.response.len()
    }

    /// Requests that got no answer, or not the expected one.
    pub fn failures(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// Requests that got no answer.
    pub fn unanswered(&self) -> u64 {
        self.failures() - self.errors[ErrorKind::Status as usize]
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.answers() + self.unanswered()
    }

    /// Exact.
    pub fn response_mean(&self) -> u64 {
        mean(self.response_sum, self.response.len())
    }

    /// Exact.
    pub fn service_mean(&self) -> u64 {
        mean(self.service_sum, self.service.len())
    }

    /// Empty again; gives what was counted, by the names of backends.
    pub(super) fn take(&mut self, names: &Names) -> Tally {
        let mut taken = std::mem::replace(self, Tally::new(self.targets.len()));
        for (name, count) in names.known.iter().zip(taken.by_number.drain(..)) {
            if count > 0 {
                *taken.backends.entry(name.clone()).or_default() += count;
            }
        }
        taken
    }
}

fn mean(sum: u128, count: u64) -> u64 {
    match count {
        0 => 0,
        count => u64::try_from(sum / u128::from(count)).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Timing = Timing {
        response_ns: 2_000,
        service_ns: 1_000,
    };

    #[test]
    fn sums_of_parts_are_what_one_tally_would_have_counted() {
        let (mut all, mut sum) = (Tally::new(2), Tally::new(2));
        let mut names = Names::default();
        let (a, b) = (names.number(b"a"), names.number(b"b"));
        for part in 0..3 {
            let mut tally = Tally::new(2);
            for tally in [&mut tally, &mut all] {
                tally.answered(part % 2, TIME, 200, 10, Some(a));
                tally.answered(1, TIME, 503, 10, Some(b));
                tally.failed(1, ErrorKind::Status);
                tally.failed(0, ErrorKind::Reset);
            }
            sum.add(&tally.take(&names));
        }
        let all = all.take(&names);
        assert_eq!((sum.requests(), sum.answers(), sum.failures()), (9, 6, 6));
        assert_eq!(sum.response, all.response);
        assert_eq!((sum.response_mean(), sum.service_mean()), (2_000, 1_000));
        assert_eq!((&sum.statuses, &sum.backends), (&all.statuses, &all.backends));
        let targets: Vec<_> = sum
            .targets
            .iter()
            .map(|target| (target.requests, target.errors, target.response.len()))
            .collect();
        assert_eq!(targets, [(5, 3, 2), (4, 3, 4)]);
    }

    #[test]
    fn invented_names_are_counted_together() {
        let mut names = Names::default();
        let mut tally = Tally::new(1);
        for number in 0..NAMES_MAX + 50 {
            let number = names.number(format!("{number}").as_bytes());
            tally.answered(0, TIME, 200, 0, Some(number));
        }
        let long = names.number(&[b'x'; 100_000]);
        assert_eq!(names.name(long).as_deref(), Some(OTHERS));
        assert_eq!(names.number(b"7"), 7);
        let taken = tally.take(&names);
        assert_eq!(
            (taken.backends.len(), taken.backends[OTHERS]),
            (NAMES_MAX + 1, 50)
        );
        assert_eq!(tally.take(&names).backends.len(), 0);
    }
}

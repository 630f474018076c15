//! What is counted: answers, errors by kind, times, and who answered.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Nanoseconds to 1 h, with 3 significant digits.
const MAX_NS: u64 = 3_600_000_000_000;
/// Names of backends that are told apart.
const BACKENDS_MAX: usize = 1_000;

/// Why a request got no answer, or not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// No connection could be made.
    Connect,
    /// No whole answer within the time-out.
    Timeout,
    /// The connection was closed or reset before a whole answer.
    Reset,
    /// What came is no HTTP answer.
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
    /// After the beginning.
    pub start_ns: u64,
    pub latency_ns: u64,
    /// 0: none came.
    pub status: u16,
    pub backend: Option<String>,
    pub bytes: u64,
    pub error: Option<ErrorKind>,
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
    pub backends: Vec<(String, u64)>,
    /// Bytes received, heads and bodies.
    pub bytes: u64,
    /// By target: answers and errors.
    pub targets: Vec<u64>,
}

impl Tally {
    pub fn new() -> Tally {
        let empty = || Histogram::new_with_bounds(1, MAX_NS, 3).expect("constant bounds that are valid");
        Tally {
            response: empty(),
            service: empty(),
            response_sum: 0,
            service_sum: 0,
            statuses: BTreeMap::new(),
            errors: [0; ErrorKind::ALL.len()],
            backends: Vec::new(),
            bytes: 0,
            targets: Vec::new(),
        }
    }

    /// Counts an answer.
    pub fn answered(&mut self, response_ns: u64, service_ns: u64, status: u16, bytes: u64) {
        self.response.saturating_record(response_ns.max(1));
        self.service.saturating_record(service_ns.max(1));
        self.response_sum += u128::from(response_ns);
        self.service_sum += u128::from(service_ns);
        *self.statuses.entry(status).or_default() += 1;
        self.bytes += bytes;
    }

    pub fn failed(&mut self, kind: ErrorKind) {
        self.errors[kind as usize] += 1;
    }

    /// Counts who answered.
    pub fn answered_by(&mut self, backend: &[u8]) {
        let known = self
            .backends
            .iter()
            .position(|(name, _)| name.as_bytes() == backend);
        match known {
            Some(index) => self.backends[index].1 += 1,
            // A server that makes up names does not fill the memory.
            None if self.backends.len() < BACKENDS_MAX => {
                self.backends
                    .push((String::from_utf8_lossy(backend).into_owned(), 1));
            }
            None => {}
        }
    }

    pub fn asked(&mut self, target: usize) {
        if self.targets.len() <= target {
            self.targets.resize(target + 1, 0);
        }
        self.targets[target] += 1;
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
            match self.backends.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += count,
                None => self.backends.push((name.clone(), *count)),
            }
        }
        self.bytes += other.bytes;
        if self.targets.len() < other.targets.len() {
            self.targets.resize(other.targets.len(), 0);
        }
        for (sum, count) in self.targets.iter_mut().zip(&other.targets) {
            *sum += count;
        }
    }

    /// Answers of any status.
    pub fn answers(&self) -> u64 {
        self.response.len()
    }

    /// Requests that got no answer, or not the expected one.
    pub fn failures(&self) -> u64 {
        self.errors.iter().sum()
    }

    /// All requests: an answer with an unexpected status is both.
    pub fn requests(&self) -> u64 {
        self.answers() + self.failures() - self.errors[ErrorKind::Status as usize]
    }

    /// Exact.
    pub fn response_mean(&self) -> u64 {
        mean(self.response_sum, self.response.len())
    }

    /// Exact.
    pub fn service_mean(&self) -> u64 {
        mean(self.service_sum, self.service.len())
    }

    /// Empty again; gives what was counted.
    pub fn take(&mut self) -> Tally {
        std::mem::take(self)
    }
}

impl Default for Tally {
    fn default() -> Self {
        Tally::new()
    }
}

fn mean(sum: u128, count: u64) -> u64 {
    match count {
        0 => 0,
        count => u64::try_from(sum / u128::from(count)).unwrap_or(u64::MAX),
    }
}

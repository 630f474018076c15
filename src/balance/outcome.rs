//! How an attempt ended, as everything that learns from attempts sees it.

use crate::config::model::Failure;

/// The end of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response head came with this status, and its body was whole or ended by the client; or, as 502, a response that is
    /// none.
    Status(u16),
    /// Nobody listens there, or the way there does not exist.
    ConnectRefused,
    ConnectTimeout,
    /// Closed or reset before the response was whole.
    Reset,
    /// Silent past its time.
    Timeout,
    /// A kept-alive connection turned out to be closed: no fault.
    Stale,
    /// The client went away, or weir itself could not go on: says nothing about the backend.
    Nothing,
}

impl Outcome {
    /// The gateway's kind of failure: no answer of the application, or one that says so (502, 503, 504).
    pub fn is_gateway_failure(self) -> bool {
        match self {
            Outcome::Status(status) => matches!(status, 502..=504),
            Outcome::ConnectRefused | Outcome::ConnectTimeout | Outcome::Reset | Outcome::Timeout => true,
            Outcome::Stale | Outcome::Nothing => false,
        }
    }

    /// A failure of any kind on the backend's side: a 5xx, or no whole answer.
    pub fn is_failure(self) -> bool {
        matches!(self, Outcome::Status(500..)) || self.is_gateway_failure()
    }

    /// Whether the backend can be judged by it.
    pub fn says_something(self) -> bool {
        !matches!(self, Outcome::Stale | Outcome::Nothing)
    }
}

/// A configured list of failures, made for looking up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureSet {
    connect: bool,
    reset: bool,
    timeout: bool,
    stale: bool,
    /// One bit for each status below 1024.
    statuses: [u64; 16],
}

impl FailureSet {
    pub fn new(failures: &[Failure]) -> Self {
        let mut set = FailureSet::default();
        for failure in failures {
            match *failure {
                Failure::ConnectFailure => set.connect = true,
                Failure::Reset => set.reset = true,
                Failure::Timeout => set.timeout = true,
                Failure::StaleConnection => set.stale = true,
                Failure::Status(status) => set.add(status),
                Failure::Class(class) => {
                    let first = u16::from(class) * 100;
                    (first..first + 100).for_each(|status| set.add(status));
                }
            }
        }
        set
    }

    fn add(&mut self, status: u16) {
        if let Some(word) = self.statuses.get_mut(usize::from(status) / 64) {
            *word |= 1 << (status % 64);
        }
    }

    #[inline]
    pub fn contains(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Status(status) => self
                .statuses
                .get(usize::from(status) / 64)
                .is_some_and(|word| word >> (status % 64) & 1 == 1),
            Outcome::ConnectRefused | Outcome::ConnectTimeout => self.connect,
            Outcome::Reset => self.reset,
            Outcome::Timeout => self.timeout,
            Outcome::Stale => self.stale,
            Outcome::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_listed_and_nothing_else() {
        let set = FailureSet::new(&[Failure::Timeout, Failure::Status(418), Failure::Class(5)]);
        for (outcome, held) in [
            (Outcome::Timeout, true),
            (Outcome::Reset, false),
            (Outcome::ConnectRefused, false),
            (Outcome::Status(418), true),
            (Outcome::Status(417), false),
            (Outcome::Status(500), true),
            (Outcome::Status(599), true),
            (Outcome::Status(600), false),
            (Outcome::Status(9999), false),
            (Outcome::Nothing, false),
        ] {
            assert_eq!(set.contains(outcome), held, "{outcome:?}");
        }
    }
}

//! When the requests of one connection are due.
//!
//! The rate of all connections is divided among them, and each begins its own fraction of a gap later than the one before,
//! so that requests are spread evenly.

use crate::clock::{Moment, Span};

/// A timer fires up to so much late: a request that was late by less, on a connection that was free when it was due, was
/// late because of the tester and not because of the server.
pub const TIMER_SLACK: Span = Span::from_millis(3);

/// Due times of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Nanoseconds between two requests.
    gap: f64,
    /// Of the first request, after the beginning.
    offset: f64,
    next: u64,
}

impl Schedule {
    /// Connection `number` of `connections` at `rate` requests a second in all.
    pub fn new(rate: f64, number: usize, connections: usize) -> Schedule {
        let gap = 1e9 * connections as f64 / rate;
        Schedule {
            gap,
            offset: gap * number as f64 / connections as f64,
            next: 0,
        }
    }

    /// When the next request is due, after the beginning.
    pub fn next(&mut self) -> Span {
        let due = self.offset + self.gap * self.next as f64;
        self.next += 1;
        Span(due as u64)
    }
}

/// From when on an answer is measured: from when its request was due, except where only a timer was late.
pub fn measured_from(due: Moment, free_at: Moment, sent_at: Moment) -> Moment {
    if free_at <= due && sent_at - due <= TIMER_SLACK {
        sent_at
    } else {
        due.min(sent_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_the_rate_evenly() {
        let mut due: Vec<u64> = (0..4)
            .flat_map(|number| {
                let mut schedule = Schedule::new(1_000.0, number, 4);
                (0..5)
                    .map(move |_| schedule.next().as_nanos())
                    .collect::<Vec<_>>()
            })
            .collect();
        due.sort_unstable();
        let expected: Vec<u64> = (0..20).map(|index| index * 1_000_000).collect();
        assert_eq!(due, expected);
    }

    #[test]
    fn a_server_that_kept_the_connection_is_measured_from_when_the_request_was_due() {
        let start = Moment::now();
        let at = |ms: u64| start.after(Span::from_millis(ms));
        // Free in time, sent by a late timer.
        assert_eq!(measured_from(at(10), at(5), at(12)), at(12));
        // The answer before came late.
        assert_eq!(measured_from(at(10), at(500), at(500)), at(10));
        // Free, but much later than a timer can be: somebody stalled.
        assert_eq!(measured_from(at(10), at(5), at(100)), at(10));
    }
}

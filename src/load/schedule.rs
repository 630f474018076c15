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
    pub fn due(&self) -> Span {
        Span((self.offset + self.gap * self.next as f64) as u64)
    }

    /// On to the request behind that.
    pub fn advance(&mut self) {
        self.next += 1;
    }

    /// How many requests from the next one on are due before `end`.
    pub fn due_before(&self, end: Span) -> u64 {
        // Some billions at most, where an `f64` is exact; rounding is settled by the very times that `due` gives.
        let guess = ((end.as_nanos() as f64 - self.offset) / self.gap).ceil().max(0.0) as u64;
        let mut later = Schedule {
            next: guess.saturating_sub(2).max(self.next),
            ..*self
        };
        while later.due() < end {
            later.advance();
        }
        later.next - self.next
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
    use proptest::prelude::*;

    use super::*;

    fn take(schedule: &mut Schedule) -> u64 {
        let due = schedule.due();
        schedule.advance();
        due.as_nanos()
    }

    #[test]
    fn connections_share_the_rate_evenly() {
        let mut due: Vec<u64> = (0..4)
            .flat_map(|number| {
                let mut schedule = Schedule::new(1_000.0, number, 4);
                (0..5).map(move |_| take(&mut schedule)).collect::<Vec<_>>()
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

    proptest! {
        #[test]
        fn all_connections_together_have_the_rate(
            rate in 0.5f64..5_000.0,
            connections in 1usize..40,
            seconds in 1u64..20,
        ) {
            let end = Span::from_millis(seconds * 1_000);
            let mut sum = 0;
            for number in 0..connections {
                let mut schedule = Schedule::new(rate, number, connections);
                let all = schedule.due_before(end);
                let mut counted = 0;
                while schedule.due() < end {
                    prop_assert_eq!(schedule.due_before(end), all - counted);
                    schedule.advance();
                    counted += 1;
                }
                prop_assert_eq!(counted, all);
                prop_assert_eq!(schedule.due_before(end), 0);
                sum += all;
            }
            prop_assert!((sum as f64 - rate * seconds as f64).abs() <= 1.0, "{} of {}", sum, rate * seconds as f64);
        }
    }
}

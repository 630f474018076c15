//! The wall clock of lines: the date is worked out once a second, not once a line.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::{Moment, Span};
use crate::log::timestamp;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// How far the monotonic clock may go before the wall clock is asked again: it may have been set.
const TRUSTED: Span = Span::from_millis(1_000);

/// What one worker knows of the time.
#[derive(Debug)]
pub(super) struct Wall {
    /// The two clocks at one moment.
    moment: Moment,
    unix_nanos: u64,
    /// The second that the texts are of.
    second: u64,
    /// `2026-01-31T09:05:07`
    iso: [u8; 19],
    /// `31/Jan/2026:09:05:07 +0000`
    common: [u8; 26],
}

impl Wall {
    pub(super) fn now() -> Wall {
        let mut wall = Wall {
            moment: Moment::now(),
            unix_nanos: unix_nanos(),
            second: 0,
            iso: [0; 19],
            common: [0; 26],
        };
        wall.turn_to(wall.unix_nanos / 1_000_000_000);
        wall
    }

    /// Microseconds of the second in which `at` lies; the texts are of that second then. `now` is not before it.
    pub(super) fn at(&mut self, at: Moment, now: Moment) -> u32 {
        if now - self.moment > TRUSTED {
            self.moment = Moment::now();
            self.unix_nanos = unix_nanos();
        }
        let unix = if at >= self.moment {
            self.unix_nanos + (at - self.moment).as_nanos()
        } else {
            self.unix_nanos.saturating_sub((self.moment - at).as_nanos())
        };
        let second = unix / 1_000_000_000;
        if second != self.second {
            self.turn_to(second);
        }
        (unix % 1_000_000_000 / 1_000) as u32
    }

    pub(super) fn iso(&self) -> &[u8] {
        &self.iso
    }

    pub(super) fn common(&self) -> &[u8] {
        &self.common
    }

    fn turn_to(&mut self, second: u64) {
        self.second = second;
        let (year, month, day) = timestamp::date(second / 86_400);
        let (hour, minute, second) = (second / 3_600 % 24, second / 60 % 60, second % 60);
        let two = |number: u64| [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8];
        let [century, years] = [two(year / 100), two(year % 100)];
        let name = MONTHS[(month as usize).clamp(1, 12) - 1];
        self.iso = *b"0000-00-00T00:00:00";
        self.common = *b"00/Jan/0000:00:00:00 +0000";
        for (at, pair) in [
            (0, century),
            (2, years),
            (5, two(month)),
            (8, two(day)),
            (11, two(hour)),
            (14, two(minute)),
            (17, two(second)),
        ] {
            self.iso[at..at + 2].copy_from_slice(&pair);
        }
        self.common[3..6].copy_from_slice(name);
        for (at, pair) in [
            (0, two(day)),
            (7, century),
            (9, years),
            (12, two(hour)),
            (15, two(minute)),
            (18, two(second)),
        ] {
            self.common[at..at + 2].copy_from_slice(&pair);
        }
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_texts_are_of_the_same_second() {
        let mut wall = Wall::now();
        wall.turn_to(1_769_850_307);
        assert_eq!(wall.iso(), b"2026-01-31T09:05:07");
        assert_eq!(wall.common(), b"31/Jan/2026:09:05:07 +0000");
        wall.turn_to(951_782_399);
        assert_eq!(wall.iso(), b"2000-02-28T23:59:59");
    }

    #[test]
    fn a_moment_is_where_it_was() {
        let mut wall = Wall::now();
        let before = SystemTime::now();
        let micros = wall.at(Moment::now(), Moment::now());
        let mut text = Vec::new();
        timestamp::write(&mut text, before);
        let expected = before.duration_since(UNIX_EPOCH).unwrap();
        let found = wall.second * 1_000_000 + u64::from(micros);
        assert!(found.abs_diff(expected.as_micros() as u64) < 1_000_000, "{found}");
    }
}

//! Counts by status code, with room for all of 100–999 and memory only for the hundreds that occur.

use std::sync::OnceLock;

use super::cell::Counter;

/// The codes that a status line can carry: three digits, the first not zero (RFC 9112 §4, RFC 9110 §15).
const FIRST: u16 = 100;
const CLASSES: usize = 9;
const CLASS_SIZE: usize = 100;

type Class = [Counter; CLASS_SIZE];

/// A counter per status code, allocated a hundred at a time on first use (800 bytes each).
#[derive(Debug, Default)]
pub struct StatusCodes {
    classes: [OnceLock<Box<Class>>; CLASSES],
}

impl StatusCodes {
    /// Counts one answer; false, and nothing counted, if `status` is no three-digit code. Single writer.
    #[inline]
    pub fn count(&self, status: u16) -> bool {
        let offset = usize::from(status.wrapping_sub(FIRST));
        let Some(class) = self.classes.get(offset / CLASS_SIZE) else {
            return false;
        };
        class.get_or_init(new_class)[offset % CLASS_SIZE].add(1);
        true
    }

    /// Calls `each` with every code that was counted, in ascending order, and its count.
    pub fn for_each(&self, mut each: impl FnMut(u16, u64)) {
        for (class, first) in self.classes.iter().zip((FIRST..).step_by(CLASS_SIZE)) {
            let Some(class) = class.get() else { continue };
            for (counter, status) in class.iter().zip(first..) {
                match counter.get() {
                    0 => {}
                    count => each(status, count),
                }
            }
        }
    }
}

#[cold]
fn new_class() -> Box<Class> {
    Box::new([const { Counter::new() }; CLASS_SIZE])
}

#[cfg(test)]
mod tests {
    use super::StatusCodes;

    #[test]
    fn every_three_digit_code_has_its_own_counter_and_nothing_else_has_one() {
        let codes = StatusCodes::default();
        for status in 0..=1100 {
            assert_eq!(codes.count(status), (100..=999).contains(&status), "{status}");
        }
        assert!(!codes.count(u16::MAX));
        let mut seen = Vec::new();
        codes.for_each(|status, count| seen.push((status, count)));
        assert_eq!(seen, (100..=999).map(|status| (status, 1)).collect::<Vec<_>>());
    }

    #[test]
    fn memory_is_taken_only_for_the_hundreds_that_occur() {
        let codes = StatusCodes::default();
        codes.count(204);
        codes.count(200);
        codes.count(503);
        let taken: Vec<bool> = codes.classes.iter().map(|class| class.get().is_some()).collect();
        assert_eq!(
            taken,
            [false, true, false, false, true, false, false, false, false]
        );
    }
}

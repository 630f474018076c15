//! Whom an exchange must not be sent to again.

/// Backends that one exchange can remember: more than it may try.
pub const TRIED_MAX: usize = 16;

/// Backends that one exchange has tried, by position.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    positions: [u16; TRIED_MAX],
    len: u8,
}

impl Tried {
    pub fn push(&mut self, position: usize) {
        // A position is below config's bound of backends.
        if let (Some(place), Ok(position)) = (
            self.positions.get_mut(usize::from(self.len)),
            u16::try_from(position),
        ) {
            *place = position;
            self.len += 1;
        }
    }

    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn as_slice(&self) -> &[u16] {
        &self.positions[..usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_fit_are_forgotten_and_nothing_breaks() {
        let mut tried = Tried::default();
        (0..100).for_each(|position| tried.push(position));
        assert_eq!(tried.as_slice().len(), TRIED_MAX);
        tried.clear();
        assert!(tried.as_slice().is_empty());
    }
}

//! What a pick would come to now, and why: for people, never for the data path.
//!
//! Each strategy's `explain` stands beside its `pick` and reads what that reads, but moves no cursor, takes no trial's place
//! and draws nothing: where `pick` draws, it gives probabilities. `tests/explain.rs` holds the two together: what explains
//! itself as certain is what the next pick does, and 10,000 draws come out as foretold.

use std::cell::Cell;

use super::pick::Pick;

/// Looks at backends that one explanation may spend on choices that are turned down and made anew: some tenths of a second.
const LOOKS_MAX: usize = 1_000_000;

/// A chance smaller than this is not followed on its own.
const SMALL: f64 = 1e-4;

/// What is left of [`LOOKS_MAX`], over all that is turned down within what is turned down. When it is spent, what is left is
/// spread as if nobody else was turned down.
#[derive(Debug)]
pub struct Effort {
    left: Cell<usize>,
    /// Looks that one choice takes.
    choice: usize,
}

impl Effort {
    pub fn new(choice: usize) -> Self {
        Effort {
            left: Cell::new(LOOKS_MAX),
            choice,
        }
    }

    /// Whether one more choice may be followed.
    fn spend(&self) -> bool {
        let left = self.left.get().checked_sub(self.choice);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// What a strategy goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    Count(u64),
    Number(f64),
    /// A hash, or a place that one names.
    Hash(u64),
}

/// One backend, as a strategy sees it for one pick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seat {
    /// With which probability it is the choice.
    pub chance: f64,
    /// What the strategy goes by, by name.
    pub figures: Vec<(&'static str, Figure)>,
    /// Why it has that chance; empty for who is no candidate.
    pub why: &'static str,
}

/// What would come of one pick.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// How the choice is made, for people.
    pub how: String,
    /// By position. The chances add up to 1, or to 0 if nobody can be chosen.
    pub seats: Vec<Seat>,
}

impl Outlook {
    /// Nobody has a chance yet.
    pub(super) fn new(pick: &Pick<'_>, how: impl Into<String>) -> Self {
        Outlook {
            how: how.into(),
            seats: vec![Seat::default(); pick.members.len()],
        }
    }

    pub fn chances(&self) -> Vec<f64> {
        self.seats.iter().map(|seat| seat.chance).collect()
    }

    /// The one that is certain to be chosen.
    pub fn certain(&self) -> Option<usize> {
        self.seats.iter().position(|seat| seat.chance > 1.0 - 1e-9)
    }

    /// No backend is asked.
    pub fn answered_by_weir(&mut self, how: &str) {
        how.clone_into(&mut self.how);
        for seat in &mut self.seats {
            seat.chance = 0.0;
            seat.why = "no backend is asked";
        }
    }

    pub(super) fn replace_chances(&mut self, chances: &[f64]) {
        for (seat, chance) in self.seats.iter_mut().zip(chances) {
            seat.chance = *chance;
        }
    }

    pub(super) fn add(&mut self, index: usize, chance: f64) {
        if let Some(seat) = self.seats.get_mut(index) {
            seat.chance += chance;
        }
    }

    /// Divides `chance` in proportion to the shares; alike if they are all 0.
    pub(super) fn share(&mut self, chance: f64, shares: &[(usize, f64)]) {
        let total: f64 = shares.iter().map(|(_, share)| share).sum();
        for &(index, share) in shares {
            let part = if total > 0.0 {
                share / total
            } else {
                1.0 / shares.len() as f64
            };
            self.add(index, chance * part);
        }
    }

    pub(super) fn figure(&mut self, index: usize, name: &'static str, figure: Figure) {
        if let Some(seat) = self.seats.get_mut(index) {
            seat.figures.push((name, figure));
        }
    }

    pub(super) fn say(&mut self, index: usize, why: &'static str) {
        if let Some(seat) = self.seats.get_mut(index) {
            seat.why = why;
        }
    }

    /// Gives every candidate that has none a reason, by its chance: certain, possible, none.
    pub(super) fn because(mut self, pick: &Pick<'_>, [certain, possible, none]: [&'static str; 3]) -> Self {
        for index in pick.candidates.iter() {
            if let Some(seat) = self.seats.get_mut(index).filter(|seat| seat.why.is_empty()) {
                seat.why = if seat.chance > 1.0 - 1e-9 {
                    certain
                } else if seat.chance > 0.0 {
                    possible
                } else {
                    none
                };
            }
        }
        self
    }

    /// Of candidates in the order of their turns, the one at which `cursor` stands.
    pub(super) fn take_turns(mut self, pick: &Pick<'_>, order: &[usize], cursor: usize) -> Self {
        let count = order.len().max(1);
        let turn = cursor % count;
        for (place, &index) in order.iter().enumerate() {
            let away = (place + count - turn) % count;
            self.figure(index, "turns_away", Figure::Count(away as u64));
            self.add(index, if away == 0 { 1.0 } else { 0.0 });
        }
        self.because(pick, ["it is its turn", "", "it is not its turn"])
    }

    /// The key belongs to that one.
    pub(super) fn settle_key(mut self, pick: &Pick<'_>, chosen: Option<usize>) -> Self {
        if let Some(index) = chosen {
            self.add(index, 1.0);
        }
        self.because(pick, ["the key belongs to it", "", "the key belongs to another"])
    }

    /// As a retry is chosen by those that take turns.
    pub(super) fn draw_alike(mut self, pick: &Pick<'_>, among: &[usize]) -> Self {
        "a retry takes nobody's turn: it is drawn among the others".clone_into(&mut self.how);
        let shares: Vec<_> = among.iter().map(|&index| (index, 1.0)).collect();
        self.share(1.0, &shares);
        self.because(
            pick,
            [
                "nobody else is left",
                "drawn, each alike",
                "it does not take part",
            ],
        )
    }
}

/// Those that weigh least, which draw among themselves.
pub(super) fn lightest<T: PartialOrd + Copy>(loads: &[(usize, T)]) -> Vec<usize> {
    let mut equals: Vec<usize> = Vec::new();
    let mut least: Option<T> = None;
    for &(index, load) in loads {
        if least.is_some_and(|least| load > least) {
            continue;
        }
        if least.is_none_or(|least| load < least) {
            least = Some(load);
            equals.clear();
        }
        equals.push(index);
    }
    equals
}

/// A choice that may be turned down, and is then made again among the others.
pub(super) struct Again<'a> {
    pub effort: &'a Effort,
    /// Choices that may be turned down one after the other.
    pub tries: usize,
    /// The chances of everybody, when these were tried.
    pub choose: &'a mut dyn FnMut(&[u16]) -> Vec<f64>,
    /// With which probability a choice is turned down.
    pub refusal: &'a dyn Fn(usize) -> f64,
    /// Who gets it if all were turned down, or nobody else is left; the first that was chosen is given.
    pub last: &'a dyn Fn(Option<usize>) -> Option<usize>,
}

impl Again<'_> {
    /// Everybody's chances in the end. `first` are those of the first choice.
    pub fn settle(mut self, tried: &[u16], first: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; first.len()];
        self.follow(&mut tried.to_vec(), None, 1, (1.0, first), &mut out);
        out
    }

    fn follow(
        &mut self,
        tried: &mut Vec<u16>,
        first: Option<usize>,
        level: usize,
        (mass, chances): (f64, &[f64]),
        out: &mut [f64],
    ) {
        let give = |index: Option<usize>, mass: f64, out: &mut [f64]| {
            if let Some(slot) = index.and_then(|index| out.get_mut(index)) {
                *slot += mass;
            }
        };
        if chances.iter().sum::<f64>() <= 0.0 {
            return give((self.last)(first), mass, out);
        }
        let taken = |index: usize| chances[index] * (1.0 - (self.refusal)(index).clamp(0.0, 1.0));
        let taken_by_all: f64 = (0..chances.len()).map(taken).sum();
        // What is not followed comes to the last resort where all the tries that are left are turned down, too. Nobody is
        // tried twice.
        let left = chances.iter().filter(|chance| **chance > 0.0).count() as f64 - 1.0;
        let refusing = (left + 1.0) * (1.0 - taken_by_all / chances.iter().sum::<f64>()) - 1.0;
        let unheard: f64 = (0..self.tries.saturating_sub(level))
            .map(|tried| tried as f64)
            .map(|tried| ((refusing - tried) / (left - tried).max(1.0)).clamp(0.0, 1.0))
            .product();
        let mut loose = 0.0;
        for (index, &chance) in chances.iter().enumerate().filter(|(_, chance)| **chance > 0.0) {
            let refused = (self.refusal)(index).clamp(0.0, 1.0);
            let chance = mass * chance;
            give(Some(index), chance * (1.0 - refused), out);
            let refused = chance * refused;
            let first = first.or(Some(index));
            if refused <= 0.0 {
                continue;
            }
            if level >= self.tries {
                give((self.last)(first), refused, out);
            } else if refused < SMALL || !self.effort.spend() {
                give((self.last)(first), refused * unheard, out);
                loose += refused * (1.0 - unheard);
            } else if let Ok(position) = u16::try_from(index) {
                tried.push(position);
                let others = (self.choose)(tried);
                self.follow(tried, first, level + 1, (refused, &others), out);
                tried.pop();
            }
        }
        if loose > 0.0 {
            for (index, chance) in chances.iter().enumerate() {
                let taken = chance * (1.0 - (self.refusal)(index).clamp(0.0, 1.0));
                give(Some(index), loose * taken / taken_by_all, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_lightest_all_equals_are_named() {
        assert_eq!(lightest(&[(0, 3), (1, 1), (2, 2), (5, 1)]), [1, 5]);
        assert_eq!(lightest::<u32>(&[]), Vec::<usize>::new());
    }

    #[test]
    fn what_is_turned_down_goes_to_the_others() {
        let mut alike = |tried: &[u16]| -> Vec<f64> {
            let is_left = |index: u16| !tried.contains(&index);
            let count = (0..4).filter(|&index| is_left(index)).count() as f64;
            (0..4)
                .map(|index| if is_left(index) { 1.0 / count } else { 0.0 })
                .collect()
        };
        let effort = Effort::new(4);
        let again = Again {
            effort: &effort,
            tries: 4,
            choose: &mut alike,
            refusal: &|index| if index < 2 { 1.0 } else { 0.0 },
            last: &|_| None,
        };
        let chances = again.settle(&[], &[0.25; 4]);
        assert!(
            (chances[2] - 0.5).abs() < 1e-9 && (chances[3] - 0.5).abs() < 1e-9,
            "{chances:?}"
        );
        // Nobody takes it: it falls to whom `last` names.
        let again = Again {
            effort: &effort,
            tries: 2,
            choose: &mut alike,
            refusal: &|_| 1.0,
            last: &|first| first,
        };
        let chances = again.settle(&[], &[1.0, 0.0, 0.0, 0.0]);
        assert_eq!(chances, [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn what_is_too_much_to_follow_is_spread() {
        let mut asked = 0;
        let mut alike = |tried: &[u16]| -> Vec<f64> {
            asked += 1;
            let is_left = |index: u16| !tried.contains(&index);
            let count = (0..12).filter(|&index| is_left(index)).count() as f64;
            (0..12)
                .map(|index| f64::from(u8::from(is_left(index))) / count)
                .collect()
        };
        let effort = Effort::new(LOOKS_MAX / 100);
        let again = Again {
            effort: &effort,
            tries: 12,
            choose: &mut alike,
            refusal: &|index| if index < 10 { 1.0 } else { 0.0 },
            last: &|_| None,
        };
        let chances = again.settle(&[], &[1.0 / 12.0; 12]);
        assert!(
            (chances[10] - 0.5).abs() < 1e-9 && (chances[11] - 0.5).abs() < 1e-9,
            "{chances:?}"
        );
        assert_eq!(asked, 100);
    }
}

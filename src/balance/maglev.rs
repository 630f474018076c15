//! Maglev (Eisenbud et al., NSDI 2016): consistent hashing by one look into a table.
//!
//! As `consistent_hash`, but the shares are exact to a slot in 65,537, and a pick costs less. The price: when a backend is
//! taken out of the configuration, some keys of others move as well (about one in 400, of ten backends). When one
//! only goes down, its own keys move and no others, as the table stays and they try other slots. Keys, `max_load` and
//! requests without a key are as under `consistent_hash`.
//!
//! Each backend has a preference of its own among the slots, by its identity; backends take turns, as many as their weights
//! say, and each takes the slot that it likes best of those left. Turns go by identity, so that the order in the
//! configuration means nothing.

use super::explain::{Figure, Outlook};
use super::hash::{identities, mix};
use super::keyed::{Bound, rendezvous};
use super::p2c::P2c;
use super::pick::{Local, Member, Pick};
use super::schedule::{quantise, spread};

/// Slots, a prime: every step other than 0 goes through all of them.
const SLOTS: u64 = 65_537;

/// Slots that a key tries before it is placed by rendezvous.
const MAX_TRIES: u64 = 16;

#[derive(Debug)]
pub struct Maglev {
    /// Whose each slot is; empty where nobody has a weight.
    slots: Box<[u16]>,
    identities: Box<[u64]>,
    bound: Bound,
    keyless: P2c,
}

impl Maglev {
    pub fn new(members: &[Member], max_load: f32) -> Self {
        let identities = identities(members);
        Maglev {
            slots: populate(members, &identities),
            identities,
            bound: Bound::new(max_load),
            keyless: P2c::new(members),
        }
    }

    /// The backend of the key among the candidates.
    #[inline]
    pub fn pick(&self, pick: &Pick<'_>, local: &mut Local) -> Option<usize> {
        let Some(key) = pick.key else {
            return self.keyless.pick(pick, local);
        };
        let key = mix(key);
        let mut per_weight = None;
        let mut place = key;
        for attempt in 1..=MAX_TRIES {
            let Some(&owner) = self.slots.get((place % SLOTS) as usize) else {
                break;
            };
            let index = usize::from(owner);
            if pick.candidates.contains(index) && !self.bound.is_full(index, pick, &mut per_weight) {
                return Some(index);
            }
            place = mix(key ^ attempt);
        }
        rendezvous(key, &self.identities, pick.members, &pick.candidates, |at| {
            self.bound.is_full(at, pick, &mut per_weight)
        })
    }

    /// What [`Self::pick`] would come to.
    pub fn explain(&self, pick: &Pick<'_>) -> Outlook {
        let Some(key) = pick.key else {
            let mut outlook = self.keyless.explain(pick);
            outlook.how.insert_str(0, "the request has no key: ");
            return outlook;
        };
        let key = mix(key);
        let mut outlook = Outlook::new(
            pick,
            format!(
                "the key's slot is {} of {SLOTS}, and further ones while its owner may not be chosen{}",
                key % SLOTS,
                self.bound.words()
            ),
        );
        let (mut chosen, mut per_weight) = (None, None);
        let mut place = key;
        for attempt in 1..=MAX_TRIES {
            let Some(&owner) = self.slots.get((place % SLOTS) as usize) else {
                break;
            };
            let index = usize::from(owner);
            if outlook
                .seats
                .get(index)
                .is_some_and(|seat| seat.figures.is_empty())
            {
                outlook.figure(index, "slot", Figure::Count(place % SLOTS));
                outlook.figure(index, "look", Figure::Count(attempt));
            }
            if chosen.is_none() && pick.candidates.contains(index) {
                if self.bound.explain_full(index, pick, &mut per_weight) {
                    outlook.say(index, "passed over: it has more than max_load allows in flight");
                } else {
                    chosen = Some(index);
                }
            }
            place = mix(key ^ attempt);
        }
        let full = |at| self.bound.explain_full(at, pick, &mut per_weight);
        let chosen =
            chosen.or_else(|| rendezvous(key, &self.identities, pick.members, &pick.candidates, full));
        outlook.settle_key(pick, chosen)
    }
}

fn populate(members: &[Member], identities: &[u64]) -> Box<[u16]> {
    let mut order: Vec<usize> = (0..members.len().min(usize::from(u16::MAX) + 1)).collect();
    order.sort_unstable_by_key(|&at| identities[at]);
    let weights: Vec<u16> = order.iter().map(|&at| members[at].weight).collect();
    if weights.iter().all(|&weight| weight == 0) {
        return Box::default();
    }
    // Where each begins and how it goes on: its permutation of the slots.
    let mut walks: Vec<(u64, u64)> = order
        .iter()
        .map(|&at| {
            (
                mix(identities[at]) % SLOTS,
                mix(!identities[at]) % (SLOTS - 1) + 1,
            )
        })
        .collect();
    let mut slots: Vec<Option<u16>> = vec![None; SLOTS as usize];
    for turn in spread(&quantise(&weights, SLOTS as usize)) {
        let (next, step) = &mut walks[usize::from(turn)];
        while slots[*next as usize].is_some() {
            *next = (*next + *step) % SLOTS;
        }
        slots[*next as usize] = Some(order[usize::from(turn)] as u16);
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::hash;
    use super::super::testing::{Bench, members};
    use super::*;

    fn owners(maglev: &Maglev) -> Vec<usize> {
        let mut counts = vec![0; maglev.identities.len()];
        maglev
            .slots
            .iter()
            .for_each(|&owner| counts[usize::from(owner)] += 1);
        counts
    }

    fn homes(bench: &mut Bench, maglev: &Maglev) -> Vec<Box<str>> {
        (0..50_000)
            .map(|key| {
                bench.key = Some(key);
                let index = bench.pick(|pick, local| maglev.pick(pick, local)).unwrap();
                bench.members[index].identity.clone()
            })
            .collect()
    }

    #[test]
    fn slots_follow_the_weights_to_the_slot() {
        let equal = owners(&Maglev::new(&members(&[7; 10]), 0.0));
        assert!(
            equal.iter().all(|&slots| slots == 6_553 || slots == 6_554),
            "{equal:?}"
        );
        let weighted = owners(&Maglev::new(&members(&[1, 2, 0, 3]), 0.0));
        assert_eq!(weighted.iter().sum::<usize>(), 65_537);
        for (slots, weight) in weighted.iter().zip([1.0, 2.0, 0.0, 3.0]) {
            assert!(
                (*slots as f64 - 65_537.0 * weight / 6.0).abs() <= 1.0,
                "{weighted:?}"
            );
        }
        assert!(
            owners(&Maglev::new(&members(&[1; 1000]), 0.0))
                .iter()
                .all(|slots| (65..=66).contains(slots))
        );
        assert_eq!(owners(&Maglev::new(&members(&[65_535, 1]), 0.0)), [65_536, 1]);
        assert!(Maglev::new(&members(&[0, 0]), 0.0).slots.is_empty());
    }

    #[test]
    fn one_leaving_of_ten_disturbs_few_and_going_down_nobody() {
        let mut all = Bench::new(&[1; 10]);
        let maglev = Maglev::new(&all.members, 0.0);
        let before = homes(&mut all, &maglev);
        for gone in 0..10 {
            let name = all.members[gone].identity.clone();
            all.all_up();
            all.eligible.set(gone, false);
            let down = homes(&mut all, &maglev);
            let moved = before.iter().zip(&down).filter(|(before, down)| before != down);
            assert!(moved.clone().all(|(before, _)| *before == name));
            for heir in all.members.iter().filter(|member| member.identity != name) {
                let inherited = moved.clone().filter(|(_, down)| **down == heir.identity).count();
                let expected = moved.clone().count() as f64 / 9.0;
                assert!(
                    (inherited as f64 / expected - 1.0).abs() < 0.25,
                    "{inherited} of {expected}"
                );
            }

            let mut left = Bench::of(all.members.clone());
            left.members.remove(gone);
            let mut left = Bench::of(left.members);
            let rebuilt = Maglev::new(&left.members, 0.0);
            let after = homes(&mut left, &rebuilt);
            let others = before
                .iter()
                .zip(&after)
                .filter(|(before, after)| **before != name && before != after);
            let disturbed = others.count() as f64 / before.len() as f64;
            println!(
                "without {name}: {:.2} % of the keys of others moved",
                disturbed * 100.0
            );
            assert!(disturbed < 0.03, "{disturbed}");
        }
    }

    #[test]
    fn the_order_in_the_file_changes_nothing() {
        let mut one = Bench::new(&[1, 2, 3, 4, 5]);
        let mut other = Bench::of(one.members.iter().rev().cloned().collect());
        let tables = [Maglev::new(&one.members, 0.0), Maglev::new(&other.members, 0.0)];
        assert!(homes(&mut one, &tables[0]) == homes(&mut other, &tables[1]));
    }

    #[test]
    fn a_hot_key_overflows_at_the_bound_and_the_last_one_is_found() {
        let mut bench = Bench::new(&[1; 10]);
        let maglev = Maglev::new(&bench.members, 1.25);
        bench.key = Some(hash::bytes(b"hot"));
        for _ in 0..400 {
            let index = bench.pick(|pick, local| maglev.pick(pick, local)).unwrap();
            bench.begin(index, 1);
        }
        assert!(bench.members.iter().all(|member| member.shared.in_flight() <= 50));
        (0..10)
            .filter(|&at| at != 6)
            .for_each(|at| bench.eligible.set(at, false));
        for key in 0..1_000 {
            bench.key = Some(key);
            assert_eq!(bench.pick(|pick, local| maglev.pick(pick, local)), Some(6));
        }
        bench.eligible.set(6, false);
        assert_eq!(bench.pick(|pick, local| maglev.pick(pick, local)), None);
    }
}

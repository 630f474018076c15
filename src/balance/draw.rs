//! Drawing among candidates, shared by the strategies: by weight, uniformly, and the lightest of many.
//!
//! Who is a candidate may change between two looks. Nothing here trusts that a count and a later look agree, and whoever
//! is a candidate the whole time is found.

use super::liveness::Candidates;
use super::pick::{Member, Pick};

/// Draws by position that may hit somebody who is no candidate, before all candidates are looked at.
const TRIES: usize = 6;

/// The weights of a pool, prepared for drawing in constant time: Walker's alias method, built as in Vose 1991.
#[derive(Debug)]
pub struct Weights {
    weights: Box<[u16]>,
    /// Empty while all weights are equal.
    aliases: Box<[Alias]>,
}

/// A position's own share of its slot, of 2³², and who has the rest.
#[derive(Clone, Copy, Debug)]
struct Alias {
    own: u32,
    other: u32,
}

impl Weights {
    pub fn new(members: &[Member]) -> Self {
        let weights: Box<[u16]> = members.iter().map(|member| member.weight).collect();
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        Weights {
            aliases: if equal { Box::default() } else { aliases(&weights) },
            weights,
        }
    }

    /// Whether a draw by weight is a uniform one.
    #[inline]
    pub fn are_equal(&self) -> bool {
        self.aliases.is_empty()
    }

    /// A position by weight, candidate or not.
    #[inline]
    fn position(&self, random: u64) -> usize {
        let at = scale(random >> 32, self.weights.len());
        match self.aliases.get(at) {
            Some(alias) if random as u32 >= alias.own => alias.other as usize,
            _ => at,
        }
    }

    /// A candidate by weight.
    #[inline]
    pub fn draw(&self, candidates: &Candidates<'_>, random: &mut fastrand::Rng) -> Option<usize> {
        if self.are_equal() {
            return self.draw_uniform(candidates, random);
        }
        for _ in 0..TRIES {
            let at = self.position(random.u64(..));
            if candidates.contains(at) {
                return Some(at);
            }
        }
        by_weight(candidates, random, |at| {
            f64::from(self.weights.get(at).copied().unwrap_or(0))
        })
    }

    /// In which proportion [`Self::draw`] comes to each candidate; one at least is more than 0.
    pub fn shares(&self, candidates: &Candidates<'_>) -> Vec<(usize, f64)> {
        let weight = |at: usize| f64::from(self.weights.get(at).copied().unwrap_or(0));
        let mut shares: Vec<_> = candidates
            .iter()
            .map(|at| (at, if self.are_equal() { 1.0 } else { weight(at) }))
            .collect();
        if shares.iter().all(|(_, share)| *share <= 0.0)
            && let Some((_, share)) = shares.last_mut()
        {
            *share = 1.0;
        }
        shares
    }

    /// A candidate, each with the same probability.
    #[inline]
    pub fn draw_uniform(&self, candidates: &Candidates<'_>, random: &mut fastrand::Rng) -> Option<usize> {
        for _ in 0..TRIES {
            let at = scale(u64::from(random.u32(..)), self.weights.len());
            if candidates.contains(at) {
                return Some(at);
            }
        }
        uniform_exact(candidates, None, random)
    }

    /// A candidate other than `except`, each with the same probability.
    #[inline]
    pub fn draw_other(
        &self,
        candidates: &Candidates<'_>,
        except: usize,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let others = self.weights.len().saturating_sub(1);
        for _ in 0..TRIES {
            let at = scale(u64::from(random.u32(..)), others);
            let at = if at >= except { at + 1 } else { at };
            if candidates.contains(at) {
                return Some(at);
            }
        }
        uniform_exact(candidates, Some(except), random)
    }
}

/// 32 random bits as a number below `below`.
#[inline]
fn scale(bits: u64, below: usize) -> usize {
    ((bits * below as u64) >> 32) as usize
}

fn aliases(weights: &[u16]) -> Box<[Alias]> {
    let count = weights.len() as u64;
    let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    // What each has of its slot, in units in which a whole slot is `total`.
    let mut left: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) * count).collect();
    let mut aliases: Vec<Alias> = (0..weights.len())
        .map(|at| Alias {
            own: u32::MAX,
            other: at as u32,
        })
        .collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&at| left[at] < total);
    while let (Some(&to), Some(from)) = (large.last(), small.pop()) {
        aliases[from] = Alias {
            own: ((left[from] << 32) / total) as u32,
            other: to as u32,
        };
        left[to] -= total - left[from];
        if left[to] < total {
            large.pop();
            small.push(to);
        }
    }
    aliases.into()
}

/// One of the candidates but `except`, each with the same probability; looks at all of them.
fn uniform_exact(
    candidates: &Candidates<'_>,
    except: Option<usize>,
    random: &mut fastrand::Rng,
) -> Option<usize> {
    let mut lightest = Lightest::new(0);
    each(candidates, |at| {
        if Some(at) != except {
            lightest.offer(at, 0, random);
        }
    });
    lightest.index()
}

/// One of the candidates with a probability in proportion to its weight, as of now; looks at all of them. Those of weight 0
/// only where there is nobody else.
pub fn by_weight(
    candidates: &Candidates<'_>,
    random: &mut fastrand::Rng,
    weight: impl Fn(usize) -> f64,
) -> Option<usize> {
    let mut total = 0.0;
    each(candidates, |at| total += weight(at));
    let mut left = random.f64() * total;
    let (mut drawn, mut last, mut any) = (None, None, None);
    each(candidates, |at| {
        any = Some(at);
        let weight = weight(at);
        if weight > 0.0 && drawn.is_none() {
            last = Some(at);
            if left < weight {
                drawn = Some(at);
            }
            left -= weight;
        }
    });
    drawn.or(last).or(any)
}

/// Calls `visit` with every candidate in order.
#[inline]
pub fn each(candidates: &Candidates<'_>, mut visit: impl FnMut(usize)) {
    for at in 0..candidates.words() {
        let mut bits = candidates.word(at);
        while bits != 0 {
            visit(at * 64 + bits.trailing_zeros() as usize);
            bits &= bits - 1;
        }
    }
}

/// Calls `visit` with every candidate in order, and with its position.
#[inline]
pub fn each_member(pick: &Pick<'_>, mut visit: impl FnMut(usize, &Member)) {
    for (word, members) in pick.members.chunks(64).enumerate() {
        let bits = pick.candidates.word(word);
        if bits.count_ones() as usize == members.len() {
            // Everybody, which is the rule.
            for (bit, member) in members.iter().enumerate() {
                visit(word * 64 + bit, member);
            }
            continue;
        }
        let mut bits = bits;
        while bits != 0 {
            let bit = bits.trailing_zeros() as usize;
            if let Some(member) = members.get(bit) {
                visit(word * 64 + bit, member);
            }
            bits &= bits - 1;
        }
    }
}

/// Calls `visit` with up to `limit` candidates, beginning at the position `start` and going on at 0 after the last. In a
/// pool of no more than `limit` these are all, whatever `start`.
#[inline]
pub fn window(pick: &Pick<'_>, start: usize, limit: usize, mut visit: impl FnMut(usize, &Member)) {
    if pick.members.len() <= limit {
        return each_member(pick, visit);
    }
    let words = pick.candidates.words();
    let (first, below) = (start / 64, (1u64 << (start % 64)) - 1);
    let mut left = limit;
    for step in 0..=words {
        let at = if first + step < words {
            first + step
        } else {
            first + step - words
        };
        let mut bits = pick.candidates.word(at);
        if step == 0 {
            bits &= !below;
        } else if step == words {
            bits &= below;
        }
        while bits != 0 {
            if left == 0 {
                return;
            }
            left -= 1;
            let index = at * 64 + bits.trailing_zeros() as usize;
            if let Some(member) = pick.members.get(index) {
                visit(index, member);
            }
            bits &= bits - 1;
        }
    }
}

/// Finds the least of what it is offered; of equals each with the same probability.
#[derive(Debug)]
pub struct Lightest<T> {
    index: usize,
    load: T,
    /// Offers as light as the lightest, and which one of them may be the next to replace it.
    equals: u32,
    next: u32,
}

/// Of so many equals each is drawn for by itself.
const FEW: u32 = 16;

impl<T: PartialOrd + Copy> Lightest<T> {
    /// Nothing offered is more than `most`.
    #[inline]
    pub fn new(most: T) -> Self {
        Lightest {
            index: 0,
            load: most,
            equals: 0,
            next: 1,
        }
    }

    #[inline]
    pub fn offer(&mut self, index: usize, load: T, random: &mut fastrand::Rng) {
        if load > self.load {
            return;
        }
        if load < self.load {
            self.load = load;
            self.equals = 0;
            self.next = 1;
        }
        self.equals += 1;
        if self.equals < self.next {
            return;
        }
        let draw = random.u64(..);
        if self.equals <= FEW {
            // The k-th replaces the one before with probability 1 / k, without a branch that could be mispredicted.
            let replaces = scale(draw >> 32, self.equals as usize) == 0;
            self.index = if replaces { index } else { self.index };
            self.next = self.equals + 1;
        } else {
            self.index = index;
        }
        if self.equals >= FEW {
            // The same, but drawn is which one replaces it: what was chosen at the k-th outlives the m-th with k / m.
            let uniform = (draw as u32 as f32 + 1.0) * (1.0 / 4_294_967_296.0);
            self.next = ((self.equals as f32 / uniform) as u32).saturating_add(1);
        }
    }

    /// The lightest, if anything was offered.
    #[inline]
    pub fn index(&self) -> Option<usize> {
        (self.equals > 0).then_some(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::liveness::Bitmap;
    use super::super::testing::{Bench, chi_square, members};
    use super::*;

    #[test]
    fn draws_follow_the_weights() {
        let weights = [1, 0, 5, 700, 65_535, 30_000, 12];
        let drawing = Weights::new(&members(&weights));
        let mut random = fastrand::Rng::with_seed(5);
        let mut counts = vec![0; weights.len()];
        (0..500_000).for_each(|_| counts[drawing.position(random.u64(..))] += 1);
        assert_eq!(counts[1], 0);
        chi_square(&counts, &weights.map(f64::from));
    }

    #[test]
    fn draws_among_few_candidates_follow_the_weights_too() {
        let weights: Vec<u16> = (0..500).collect();
        let drawing = Weights::new(&members(&weights));
        let eligible = Bitmap::new(500, false);
        let few = [3, 70, 71, 400];
        few.iter().for_each(|&at| eligible.set(at, true));
        let tried = [70];
        let candidates = Candidates::new(&eligible, &tried);
        let mut random = fastrand::Rng::with_seed(6);
        let mut counts = vec![0; 500];
        for _ in 0..100_000 {
            counts[drawing.draw(&candidates, &mut random).unwrap()] += 1;
        }
        let expected: Vec<f64> = (0..500)
            .map(|at| {
                if few.contains(&at) && at != 70 {
                    at as f64
                } else {
                    0.0
                }
            })
            .collect();
        chi_square(&counts, &expected);
    }

    #[test]
    fn of_equals_each_is_the_lightest_as_often() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; 40];
        for _ in 0..200_000 {
            let mut lightest = Lightest::new(f32::MAX);
            for at in 0..40 {
                lightest.offer(at, if at % 2 == 0 { 1.0 } else { 2.0 + at as f32 }, &mut random);
            }
            counts[lightest.index().unwrap()] += 1;
        }
        let expected: Vec<f64> = (0..40).map(|at| f64::from(u8::from(at % 2 == 0))).collect();
        chi_square(&counts, &expected);
        assert_eq!(Lightest::new(0).index(), None);
    }

    #[test]
    fn a_window_wraps_and_sees_nobody_twice() {
        let mut bench = Bench::new(&[1; 200]);
        bench.eligible.set(7, false);
        let mut seen = |start, limit| {
            let mut seen = Vec::new();
            bench.pick(|pick, _| {
                window(pick, start, limit, |at, _| seen.push(at));
                None
            });
            seen
        };
        for start in [0, 1, 63, 64, 150, 199] {
            let expected: Vec<usize> = (0..200)
                .map(|step| (start + step) % 200)
                .filter(|&at| at != 7)
                .collect();
            assert_eq!(seen(start, 199), expected);
            assert_eq!(seen(start, 3), expected[..3]);
        }
        assert_eq!(seen(9, 200).len(), 199);
        Bench::new(&[]).pick(|pick, _| {
            window(pick, 0, 5, |_, _| panic!("nobody is there"));
            None
        });
    }
}

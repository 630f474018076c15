//! What the tests of strategies share: a pool without a network.

use std::sync::Arc;
use std::time::Duration;

use super::liveness::{Bitmap, Candidates};
use super::pick::{Local, Member, Pick};
use crate::clock::Millis;

/// Backends of these weights, named by address.
pub fn members(weights: &[u16]) -> Vec<Member> {
    let named = |(at, weight): (usize, &u16)| {
        let name = format!("http://10.0.{}.{}:8080", at / 250, at % 250);
        Member::new(Arc::default(), &name, *weight)
    };
    weights.iter().enumerate().map(named).collect()
}

/// A pool, and one worker's own state.
pub struct Bench {
    pub members: Vec<Member>,
    pub eligible: Bitmap,
    pub local: Local,
    pub now: Millis,
    pub key: Option<u64>,
    pub slow_start: Option<Duration>,
    pub tried: Vec<u16>,
}

impl Bench {
    pub fn new(weights: &[u16]) -> Self {
        Bench::of(members(weights))
    }

    pub fn of(members: Vec<Member>) -> Self {
        Bench {
            eligible: Bitmap::new(members.len(), true),
            members,
            local: Local::new(1),
            now: Millis(100_000),
            key: None,
            slow_start: None,
            tried: Vec::new(),
        }
    }

    pub fn pick(&mut self, choose: impl FnOnce(&Pick<'_>, &mut Local) -> Option<usize>) -> Option<usize> {
        let pick = Pick {
            members: &self.members,
            candidates: Candidates::new(&self.eligible, &self.tried),
            now: self.now,
            key: self.key,
            slow_start: self.slow_start,
        };
        choose(&pick, &mut self.local)
    }

    /// Who was chosen, pick by pick.
    pub fn picks(
        &mut self,
        picks: usize,
        choose: impl Fn(&Pick<'_>, &mut Local) -> Option<usize>,
    ) -> Vec<usize> {
        (0..picks)
            .map(|_| self.pick(&choose).expect("somebody is eligible"))
            .collect()
    }

    /// How often each was chosen.
    pub fn counts(
        &mut self,
        picks: usize,
        choose: impl Fn(&Pick<'_>, &mut Local) -> Option<usize>,
    ) -> Vec<usize> {
        let mut counts = vec![0; self.members.len()];
        for _ in 0..picks {
            counts[self.pick(&choose).expect("somebody is eligible")] += 1;
        }
        counts
    }

    /// Keeps `concurrent` attempts under way, of which a random one ends at each step: the share that each backend has of
    /// them, on average.
    pub fn closed_loop(
        &mut self,
        concurrent: usize,
        steps: usize,
        choose: impl Fn(&Pick<'_>, &mut Local) -> Option<usize>,
    ) -> Vec<f64> {
        let mut under_way = Vec::new();
        let mut held = vec![0.0; self.members.len()];
        for _ in 0..steps {
            while under_way.len() < concurrent {
                let index = self.pick(&choose).expect("somebody is eligible");
                self.begin(index, 1);
                under_way.push(index);
            }
            for (held, member) in held.iter_mut().zip(&self.members) {
                *held += f64::from(member.shared.in_flight()) / (concurrent * steps) as f64;
            }
            let ends = self.local.random.usize(..concurrent);
            self.members[under_way.swap_remove(ends)].shared.end();
        }
        self.all_idle();
        held
    }

    pub fn begin(&self, index: usize, attempts: u32) {
        (0..attempts).for_each(|_| self.members[index].shared.begin(self.now));
    }

    pub fn all_idle(&self) {
        for member in &self.members {
            (0..member.shared.in_flight()).for_each(|_| member.shared.end());
        }
    }

    pub fn all_up(&self) {
        (0..self.members.len()).for_each(|at| self.eligible.set(at, true));
    }
}

/// Fails where `counts` do not look drawn in proportion to `expected`: Pearson's test at about one false alarm in 100,000.
pub fn chi_square(counts: &[usize], expected: &[f64]) {
    let (drawn, total): (usize, f64) = (counts.iter().sum(), expected.iter().sum());
    let (mut statistic, mut classes) = (0.0, 0.0);
    // Classes too small for the test are added up.
    let (mut rare, mut rare_expected) = (0.0, 0.0);
    for (&count, &expected) in counts.iter().zip(expected) {
        let (count, expected) = (count as f64, expected / total * drawn as f64);
        assert!(
            expected > 0.0 || count == 0.0,
            "drawn though impossible: {counts:?}"
        );
        if expected < 5.0 {
            rare += count;
            rare_expected += expected;
        } else {
            statistic += (count - expected).powi(2) / expected;
            classes += 1.0;
        }
    }
    if rare_expected >= 1.0 {
        statistic += (rare - rare_expected).powi(2) / rare_expected;
        classes += 1.0;
    }
    // Wilson and Hilferty's approximation: the cube root is nearly normal.
    let freedom: f64 = classes - 1.0;
    if freedom < 1.0 {
        return;
    }
    let spread = 2.0 / (9.0 * freedom);
    let z = ((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt();
    assert!(
        z < 4.3,
        "χ² = {statistic:.1} at {freedom} degrees: {counts:?} for {expected:?}"
    );
}

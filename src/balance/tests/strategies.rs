//! What must hold under every strategy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use crate::balance::Strategy;
use crate::balance::liveness::{Bitmap, Candidates};
use crate::balance::pick::{Local, Pick};
use crate::balance::testing::{Bench, members};
use crate::clock::Millis;
use crate::config::model;
use crate::config::model::StrategyKind;

pub(super) const KINDS: [StrategyKind; 10] = [
    StrategyKind::RoundRobin,
    StrategyKind::WeightedRoundRobin,
    StrategyKind::Random,
    StrategyKind::LeastConn,
    StrategyKind::P2c,
    StrategyKind::LeastResponse,
    StrategyKind::ConsistentHash,
    StrategyKind::Maglev,
    StrategyKind::Prequal,
    StrategyKind::Failover,
];

fn strategy(kind: StrategyKind, bench: &Bench) -> Strategy {
    let settings = model::Strategy {
        kind,
        probe_path: Some("/_load".to_owned()),
        ..model::Strategy::default()
    };
    Strategy::new(&settings, &bench.members)
}

fn keyed(kind: StrategyKind) -> bool {
    matches!(kind, StrategyKind::ConsistentHash | StrategyKind::Maglev)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_candidate_is_chosen_if_there_is_one(
        backends in prop::collection::vec((0u16..100, any::<bool>(), 0u32..4, any::<bool>()), 0..140),
        tried in prop::collection::vec(0u16..140, 0..4),
        keys in prop::collection::vec(prop::option::of(any::<u64>()), 6),
        slow_start in any::<bool>(),
    ) {
        let weights: Vec<u16> = backends.iter().map(|(weight, ..)| *weight).collect();
        for kind in KINDS {
            let mut bench = Bench::new(&weights);
            let strategy = strategy(kind, &bench);
            for (at, (_, up, busy, ramping)) in backends.iter().enumerate() {
                bench.eligible.set(at, *up);
                bench.begin(at, *busy);
                bench.members[at].shared.set_ramp(ramping.then_some(bench.now));
            }
            bench.slow_start = slow_start.then_some(Duration::from_secs(10));
            bench.tried.clone_from(&tried);
            let any = (0..backends.len()).any(|at| backends[at].1 && !tried.contains(&(at as u16)));
            for &key in &keys {
                bench.key = key;
                let chosen = bench.pick(|pick, local| strategy.pick(pick, local));
                prop_assert_eq!(chosen.is_some(), any, "{:?}", kind);
                if let Some(chosen) = chosen {
                    prop_assert!(backends[chosen].1 && !tried.contains(&(chosen as u16)), "{:?}", kind);
                }
            }
        }
    }
}

#[test]
fn who_ramps_up_gets_that_share_of_its_weight() {
    for kind in KINDS {
        let mut bench = Bench::new(&[1; 5]);
        let strategy = strategy(kind, &bench);
        bench.slow_start = Some(Duration::from_secs(10));
        bench.members[2].shared.set_ramp(Some(Millis(100_000)));
        for (passed, ramp) in [(0, 0.05), (3_000, 0.3), (7_000, 0.7), (10_000, 1.0)] {
            bench.now = Millis(100_000 + passed);
            let mut counts = [0; 5];
            for key in 0..20_000 {
                bench.key = keyed(kind).then_some(key);
                let index = bench.pick(|pick, local| strategy.pick(pick, local)).unwrap();
                // Nobody is forgotten, so that no trickle counts.
                bench.begin(index, 1);
                bench.all_idle();
                counts[index] += 1;
            }
            let others: usize = counts.iter().sum::<usize>() - counts[2];
            let share = counts[2] as f64 / (others as f64 / 4.0);
            assert!(
                (share - ramp).abs() < 0.12,
                "{kind:?} after {passed} ms: {share:.2}, {counts:?}"
            );
        }
    }
}

#[test]
fn a_key_moves_once_while_its_backend_ramps_up() {
    for kind in KINDS.into_iter().filter(|kind| keyed(*kind)) {
        let mut bench = Bench::new(&[1; 5]);
        let strategy = strategy(kind, &bench);
        let homes = |bench: &mut Bench| -> Vec<usize> {
            let home = |key| {
                bench.key = Some(key);
                bench.pick(|pick, local| strategy.pick(pick, local)).unwrap()
            };
            (0..2_000).map(home).collect()
        };
        let whole = homes(&mut bench);
        bench.eligible.set(1, false);
        let mut before = homes(&mut bench);
        bench.eligible.set(1, true);
        bench.slow_start = Some(Duration::from_secs(10));
        bench.members[1].shared.set_ramp(Some(bench.now));
        for _ in 0..=10 {
            let after = homes(&mut bench);
            let moved = before
                .iter()
                .zip(&after)
                .filter(|(before, after)| before != after);
            assert!(moved.into_iter().all(|(_, after)| *after == 1), "{kind:?}");
            before = after;
            bench.now.0 += 1_000;
        }
        assert!(before == whole, "{kind:?}");
    }
}

#[test]
fn a_pick_never_fails_while_others_come_and_go() {
    let members = members(&[1; 200]);
    for kind in KINDS {
        let mut bench = Bench::of(members.clone());
        bench.eligible = Bitmap::new(200, false);
        let strategy = strategy(kind, &bench);
        let done = AtomicBool::new(false);
        // One is always eligible, but never the same for long: the next is in before it is out.
        std::thread::scope(|scope| {
            bench.eligible.set(0, true);
            bench.eligible.set(199, true);
            scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(2);
                while !done.load(Ordering::Relaxed) {
                    bench.eligible.set(random.usize(..199), random.bool());
                }
            });
            let mut local = Local::new(3);
            for key in 0..20_000 {
                let pick = Pick {
                    members: &members,
                    candidates: Candidates::new(&bench.eligible, &[]),
                    now: Millis(5_000),
                    key: (key % 2 == 0).then_some(key),
                    slow_start: None,
                };
                assert!(strategy.pick(&pick, &mut local).is_some(), "{kind:?}");
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

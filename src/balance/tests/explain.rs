//! What explains itself, held against what is then done.

use std::time::Duration;

use proptest::prelude::*;

use super::strategies::KINDS;
use crate::balance::Strategy;
use crate::balance::ejection::EjectReason;
use crate::balance::explain::{Figure, Outlook};
use crate::balance::outcome::Outcome;
use crate::balance::pick::{Local, Member};
use crate::balance::pool::{Ask, By, Explanation, Pool, Settings, Verdict};
use crate::balance::shared::Flag;
use crate::balance::testing::{Bench, chi_square, members};
use crate::clock::Millis;
use crate::config::Config;
use crate::config::model::{self, StrategyKind};

const PICKS: usize = 10_000;

fn explain(bench: &mut Bench, strategy: &Strategy) -> Outlook {
    let mut found = None;
    bench.pick(|pick, _| {
        found = Some(strategy.explain(pick, &strategy.effort(pick.members.len())));
        None
    });
    found.expect("an outlook")
}

fn strategy(kind: StrategyKind, bench: &Bench, max_load: f32) -> Strategy {
    let settings = model::Strategy {
        kind,
        max_load,
        tier_min: 2,
        ..model::Strategy::default()
    };
    Strategy::new(&settings, &bench.members)
}

/// Whether picks move something that the next explanation sees.
fn takes_turns(kind: StrategyKind) -> bool {
    matches!(
        kind,
        StrategyKind::RoundRobin | StrategyKind::WeightedRoundRobin | StrategyKind::Failover
    )
}

/// Picks come out as they explain themselves: certain ones exactly, others as often as they say.
fn agrees(bench: &mut Bench, kind: StrategyKind, strategy: &Strategy, picks: usize) {
    let mut outlook = explain(bench, strategy);
    if bench.pick(|pick, _| pick.candidates.nth(0)).is_none() {
        assert_eq!(outlook.chances().iter().sum::<f64>(), 0.0, "{kind:?}");
        assert_eq!(bench.pick(|pick, local| strategy.pick(pick, local)), None);
        return;
    }
    let mut counts = vec![0; bench.members.len()];
    let mut expected = vec![0.0; bench.members.len()];
    for _ in 0..picks {
        if takes_turns(kind) {
            outlook = explain(bench, strategy);
        }
        let chances = outlook.chances();
        let sum: f64 = chances.iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{kind:?}: {sum} of {chances:?}");
        let chosen = bench
            .pick(|pick, local| strategy.pick(pick, local))
            .expect("a candidate");
        assert!(chances[chosen] > 0.0, "{kind:?}: {chosen} of {chances:?}");
        if let Some(certain) = outlook.certain() {
            assert_eq!(chosen, certain, "{kind:?}");
        }
        counts[chosen] += 1;
        expected
            .iter_mut()
            .zip(&chances)
            .for_each(|(sum, chance)| *sum += chance);
    }
    // What is certain is exact; of the rest the test sees the sums.
    expected
        .iter_mut()
        .for_each(|sum| *sum = if *sum < 1e-6 { 0.0 } else { *sum });
    chi_square(&counts, &expected);
}

/// A pool with something of everything, by a seed.
fn scene(seed: u64, size: usize) -> Bench {
    let mut random = fastrand::Rng::with_seed(seed);
    let equal = random.bool();
    let weights: Vec<u16> = (0..size)
        .map(|_| if equal { 3 } else { random.u16(1..12) })
        .collect();
    let tiers = members(&weights).into_iter();
    let mut bench = Bench::of(
        tiers
            .map(|member| member.in_tier(random.u16(..3), false))
            .collect(),
    );
    bench.local = Local::new(seed);
    let busy = random.u32(..5);
    for at in 0..size {
        bench.begin(at, random.u32(..=busy));
        bench.eligible.set(at, random.u8(..4) > 0);
        let shared = &bench.members[at].shared;
        let millis = random.u64(1..40);
        (0..random.u32(..12)).for_each(|_| shared.latency().record(Duration::from_millis(millis), bench.now));
        if random.u8(..4) == 0 {
            shared.set_ramp(Some(Millis(bench.now.0 - random.u64(..9_000))));
        }
    }
    bench.slow_start = random.bool().then_some(Duration::from_secs(10));
    bench.now.0 += random.u64(..3_000);
    if random.u8(..4) == 0 {
        bench.tried = vec![random.u16(..size as u16)];
    }
    bench
}

#[test]
fn picks_come_out_as_they_explain_themselves() {
    for kind in KINDS {
        for seed in 0..24 {
            let mut bench = scene(seed, [1, 2, 3, 5, 7, 8][seed as usize % 6]);
            let strategy = strategy(kind, &bench, 1.5);
            // Requests with a key are certain.
            for key in [Some(seed), Some(!seed), None] {
                bench.key = key;
                let picks = if key.is_some() && !takes_turns(kind) {
                    200
                } else {
                    PICKS / 4
                };
                agrees(&mut bench, kind, &strategy, picks);
            }
        }
    }
}

#[test]
fn ten_thousand_draws_of_a_large_pool_come_out_as_foretold() {
    for kind in KINDS {
        let mut bench = scene(99, 40);
        bench.slow_start = None;
        let strategy = strategy(kind, &bench, 0.0);
        agrees(&mut bench, kind, &strategy, PICKS);
    }
}

#[test]
fn explaining_changes_nothing() {
    for kind in KINDS {
        let run = |explained: bool| {
            let mut bench = scene(5, 30);
            let strategy = strategy(kind, &bench, 1.2);
            (0..300u64)
                .map(|request| {
                    bench.key = request.is_multiple_of(2).then_some(request);
                    if explained {
                        explain(&mut bench, &strategy);
                    }
                    bench.pick(|pick, local| strategy.pick(pick, local))
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(run(false), run(true), "{kind:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chances_add_up_whatever_the_pool(seed: u64, size in 1usize..120, key in prop::option::of(any::<u64>())) {
        for kind in KINDS {
            let mut bench = scene(seed, size);
            bench.key = key;
            let strategy = strategy(kind, &bench, 1.2);
            let chances = explain(&mut bench, &strategy).chances();
            let sum: f64 = chances.iter().sum();
            let chosen = bench.pick(|pick, local| strategy.pick(pick, local));
            match chosen {
                None => prop_assert_eq!(sum, 0.0),
                Some(chosen) => {
                    prop_assert!((sum - 1.0).abs() < 1e-6, "{kind:?}: {sum}");
                    prop_assert!(chances[chosen] > 0.0, "{kind:?}: {chosen} of {chances:?}");
                }
            }
        }
    }
}

#[test]
fn figures_are_those_that_decide() {
    let mut bench = Bench::new(&[1, 2, 1]);
    bench.begin(0, 3);
    let load = |outlook: &Outlook, at: usize| outlook.seats[at].figures[0];
    let least = strategy(StrategyKind::LeastConn, &bench, 0.0);
    let outlook = explain(&mut bench, &least);
    assert_eq!(load(&outlook, 0), ("load", Figure::Number(4.0)));
    assert_eq!(load(&outlook, 1), ("load", Figure::Number(0.5)));
    assert_eq!(outlook.seats[0].why, "it has more in flight over its weight");
    let turns = strategy(StrategyKind::RoundRobin, &bench, 0.0);
    bench.eligible.set(1, false);
    bench.pick(|pick, local| turns.pick(pick, local));
    let outlook = explain(&mut bench, &turns);
    assert_eq!(outlook.certain(), Some(2));
    assert_eq!(load(&outlook, 0), ("turns_away", Figure::Count(1)));
    assert!(outlook.seats[1].figures.is_empty() && outlook.seats[1].why.is_empty());
    bench.all_up();
    bench.key = Some(7);
    for kind in [StrategyKind::ConsistentHash, StrategyKind::Maglev] {
        let hashing = strategy(kind, &bench, 0.0);
        let outlook = explain(&mut bench, &hashing);
        let home = outlook.certain().expect("a key has one backend");
        assert!(!outlook.seats[home].figures.is_empty());
        // Its heir is the one that its figures name next.
        bench.eligible.set(home, false);
        assert_ne!(explain(&mut bench, &hashing).certain(), Some(home));
        bench.all_up();
    }
}

/// A pool in virtual time.
struct Fixture {
    pool: Pool,
    now: Millis,
    local: Local,
}

impl Fixture {
    fn of(members: Vec<Member>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.strategy.slow_start = Duration::ZERO;
        change(&mut config);
        Fixture {
            pool: Pool::new(Settings::of(&config), members),
            now: Millis(1_000_000),
            local: Local::new(3),
        }
    }

    fn new(weights: &[u16], change: impl FnOnce(&mut Config)) -> Self {
        Fixture::of(members(weights), change)
    }

    fn ask<'a>(&self) -> Ask<'a> {
        Ask {
            now: self.now,
            key: None,
            sticky: None,
            tried: &[],
            may_try: true,
        }
    }

    fn set(&self, index: usize, flag: Flag) {
        self.pool.set_by_operator(index, flag, true, &mut |_| {});
    }

    /// Ejects one, until the time of that is over.
    fn on_trial(&mut self, index: usize) {
        let shared = &self.pool.members()[index].shared;
        shared.ejection.eject(self.now, Duration::from_secs(1));
        shared.ejection.set_reason(EjectReason::ALL[0]);
        shared.set(Flag::Ejected, true);
        self.pool.publish(&mut |_| {});
        self.now.0 += 2_000;
        self.pool.tick(self.now, &mut |_| {});
    }

    /// Explains `ask`, and picks as often as that says.
    fn agrees(&mut self, ask: &Ask<'_>) -> Explanation {
        let explanation = self.pool.explain(ask, None);
        let chances = explanation.outlook.chances();
        let mut counts = vec![0; chances.len()];
        let certain = explanation.outlook.certain();
        for _ in 0..PICKS / 4 {
            let Some(choice) = self.pool.pick(ask, &mut self.local) else {
                assert_eq!(explanation.by, By::Nobody);
                return explanation;
            };
            counts[choice.index] += 1;
            assert!(certain.is_none_or(|certain| certain == choice.index));
            let log = &mut |_| {};
            self.pool
                .settle(choice, Outcome::Nothing, Duration::ZERO, self.now, log);
        }
        chi_square(&counts, &chances);
        explanation
    }
}

fn random(config: &mut Config) {
    config.strategy.kind = StrategyKind::Random;
}

#[test]
fn the_first_reason_of_the_table_is_given() {
    let mut members = members(&[1, 1, 0, 1, 1, 1, 1]);
    members[6].backup = true;
    let fixture = Fixture::of(members, random);
    fixture.set(0, Flag::Maintenance);
    fixture.set(0, Flag::Draining);
    fixture.set(1, Flag::Draining);
    let probe = |index, verdict| fixture.pool.probe(index, verdict, fixture.now, &mut |_| {});
    probe(3, Verdict::Dead);
    let why = |index| {
        (
            fixture.pool.standing(index).eligible,
            fixture.pool.standing(index).why,
        )
    };
    assert_eq!(why(0), (false, "the operator has it in maintenance"));
    assert!(why(1).1.starts_with("the operator drains it"));
    assert_eq!(why(2), (false, "its weight is 0"));
    assert_eq!(why(3), (false, "nobody listens there"));
    assert_eq!(why(4), (true, ""));
    assert_eq!(why(6), (false, "a backup: enough of the others are well"));
    assert!(
        fixture
            .pool
            .explain(&fixture.ask(), None)
            .rule
            .starts_with("who is well")
    );
    [4, 5].into_iter().for_each(|index| probe(index, Verdict::Sick));
    assert_eq!(why(5), (false, "its probes say down"));
    assert_eq!(why(6), (true, "a backup: too few of the others are well"));
    probe(6, Verdict::Sick);
    assert_eq!(why(5), (true, "its probes say down"));
    assert!(
        fixture
            .pool
            .explain(&fixture.ask(), None)
            .rule
            .starts_with("panic")
    );
}

#[test]
fn an_ejection_says_until_when() {
    let fixture = Fixture::new(&[1; 3], random);
    let shared = &fixture.pool.members()[1].shared;
    shared.ejection.eject(fixture.now, Duration::from_secs(30));
    shared.ejection.set_reason(EjectReason::Latency);
    shared.set(Flag::Ejected, true);
    fixture.pool.publish(&mut |_| {});
    let standing = fixture.pool.standing(1);
    assert_eq!(standing.words(), "ejected for what its traffic showed: latency");
    assert_eq!(standing.until, Some(fixture.now + Duration::from_secs(30)));
    // Maintenance comes first, and ends when somebody ends it.
    fixture.set(1, Flag::Maintenance);
    let standing = fixture.pool.standing(1);
    assert_eq!(standing.words(), "the operator has it in maintenance");
    assert_eq!(standing.until, None);
}

#[test]
fn an_open_breaker_says_until_when() {
    let mut fixture = Fixture::new(&[1; 3], |config| {
        random(config);
        config.outlier.consecutive_gateway = None;
    });
    let ask = fixture.ask();
    let threshold = Config::default().circuit_breaker.failure_threshold;
    let mut failures = 0;
    while failures < threshold {
        let choice = fixture.pool.pick(&ask, &mut fixture.local).expect("a backend");
        let outcome = if choice.index == 1 {
            Outcome::Reset
        } else {
            Outcome::Nothing
        };
        failures += u32::from(choice.index == 1);
        fixture
            .pool
            .settle(choice, outcome, Duration::ZERO, fixture.now, &mut |_| {});
    }
    let standing = fixture.pool.standing(1);
    assert_eq!(
        (standing.eligible, &*standing.words()),
        (false, "its breaker is open")
    );
    let reset = Config::default().circuit_breaker.reset_timeout;
    assert_eq!(standing.until, Some(fixture.now + reset));
    assert_eq!(fixture.agrees(&ask).outlook.seats[1].chance, 0.0);
}

#[test]
fn cookies_trials_and_doubts_come_before_the_strategy() {
    let mut fixture = Fixture::new(&[1, 2, 3], random);
    let sticky = Ask {
        sticky: Some(0),
        ..fixture.ask()
    };
    assert_eq!(fixture.agrees(&sticky).by, By::Sticky);
    fixture.set(0, Flag::Draining);
    assert_eq!(
        fixture.agrees(&sticky).by,
        By::Sticky,
        "draining holds what sticks"
    );
    fixture.set(0, Flag::Maintenance);
    let explained = fixture.agrees(&sticky);
    assert_eq!(explained.by, By::Strategy);
    assert_eq!(explained.unstuck, Some("the operator has it in maintenance"));

    let mut fixture = Fixture::new(&[1, 2, 3], random);
    fixture.on_trial(1);
    let ask = fixture.ask();
    let first = fixture.pool.explain(&ask, None);
    assert_eq!((first.by, first.outlook.certain()), (By::Trial, Some(1)));
    assert_eq!(fixture.agrees(&ask).by, By::Trial, "explaining took no place");
    let once = Ask {
        may_try: false,
        ..ask
    };
    let explained = fixture.agrees(&once);
    assert_eq!(
        (explained.by, explained.outlook.seats[1].chance),
        (By::Strategy, 0.0)
    );
    // While the trial is out nobody else may go there.
    let trial = fixture.pool.pick(&ask, &mut fixture.local).expect("a trial");
    assert_eq!(trial.index, 1);
    assert_eq!(
        fixture.pool.standing(1).why,
        "on trial, and as many are out as may be"
    );
    fixture.agrees(&ask);

    let mut fixture = Fixture::new(&[1, 2, 3, 1], random);
    fixture.pool.members()[2]
        .shared
        .doubt(fixture.now + Duration::from_secs(1));
    let once = Ask {
        may_try: false,
        ..fixture.ask()
    };
    let explained = fixture.agrees(&once);
    assert_eq!(explained.outlook.seats[2].chance, 0.0);
    assert!((explained.outlook.seats[1].chance - 0.5).abs() < 1e-9);
    let ask = fixture.ask();
    assert!((fixture.agrees(&ask).outlook.seats[2].chance - 3.0 / 7.0).abs() < 1e-9);
}

#[test]
fn who_is_full_is_passed_over_and_if_all_are_the_request_waits() {
    let fixture = Fixture::new(&[1, 2, 3], random);
    let begin = |index: usize| fixture.pool.members()[index].shared.begin(fixture.now);
    begin(2);
    let explained = fixture.pool.explain(&fixture.ask(), Some(1));
    let chances = explained.outlook.chances();
    assert!(
        (chances[0] - 1.0 / 3.0).abs() < 1e-9 && chances[2] == 0.0,
        "{chances:?}"
    );
    assert_eq!(explained.outlook.seats[2].why, "it is full (limits.max_inflight)");
    // A full one that the cookie names is left for what the strategy says.
    let sticky = Ask {
        sticky: Some(2),
        ..fixture.ask()
    };
    let explained = fixture.pool.explain(&sticky, Some(1));
    assert_eq!(explained.by, By::Strategy);
    assert_eq!(explained.unstuck, Some("it is full (limits.max_inflight)"));
    assert!((explained.outlook.chances()[0] - 1.0 / 3.0).abs() < 1e-9);
    (0..2).for_each(begin);
    let explained = fixture.pool.explain(&fixture.ask(), Some(1));
    assert_eq!(explained.outlook.chances(), [0.0; 3]);
    assert_eq!(explained.by, By::Strategy);
}

/// 4,096 backends of which a third ramps up, nearly all full, and a request that could not be sent again: choices within choices.
#[test]
fn the_largest_pool_in_the_worst_state_is_explained_in_bounded_time() {
    for kind in KINDS {
        let fixture = Fixture::new(&[1; 4_096], |config| {
            config.strategy.kind = kind;
            config.strategy.slow_start = Duration::from_secs(10);
        });
        for (index, member) in fixture.pool.members().iter().enumerate().skip(1) {
            if index % 3 == 0 {
                fixture.pool.begin_ramp(index, fixture.now);
            }
            member.shared.begin(fixture.now);
            member.shared.doubt(fixture.now + Duration::from_secs(1));
        }
        let ask = Ask {
            may_try: false,
            key: Some(7),
            ..fixture.ask()
        };
        let began = std::time::Instant::now();
        let explained = fixture.pool.explain(&ask, Some(1));
        let took = began.elapsed();
        let sum: f64 = explained.outlook.chances().iter().sum();
        assert!((sum - 1.0).abs() < 1e-6, "{kind:?}: {sum}");
        assert!(took < Duration::from_secs(5), "{kind:?}: {took:?}");
    }
}

#[test]
fn nobody_is_nobody() {
    let mut fixture = Fixture::new(&[1, 1], random);
    fixture.set(0, Flag::Maintenance);
    fixture.set(1, Flag::Draining);
    let ask = fixture.ask();
    assert_eq!(fixture.agrees(&ask).by, By::Nobody);
}

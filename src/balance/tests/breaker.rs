use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::balance::breaker::{Breaker, Effect, Permit, Settings, State};
use crate::clock::Millis;

fn settings() -> Settings {
    Settings {
        failure_threshold: 3,
        reset_timeout: Duration::from_millis(100),
        half_open_requests: 2,
        success_threshold: 2,
        error_rate: None,
        window: Duration::from_secs(10),
        min_volume: 20,
    }
}

fn at(now: u64) -> Millis {
    Millis(now)
}

/// A breaker that opened at `now` and is due for trials.
fn half_open(settings: &Settings, now: u64) -> Breaker {
    let breaker = Breaker::default();
    assert!(breaker.open(at(now)));
    assert!(breaker.due(at(now) + settings.reset_timeout, settings));
    breaker
}

#[test]
fn failures_in_a_row_ask_to_open_and_a_success_between_them_starts_again() {
    let (breaker, settings) = (Breaker::default(), settings());
    let settle = |failed| breaker.settle(Permit::Free, failed, at(7), &settings);
    for failed in [true, true, false, true, true] {
        assert_eq!(settle(failed), Effect::None);
    }
    assert_eq!(breaker.failures(), 2);
    assert_eq!(settle(true), Effect::WantsToOpen);
    // Whoever asks decides; until then it stays closed.
    assert_eq!(breaker.state(), State::Closed);
    assert!(breaker.open(at(7)));
    assert!(!breaker.open(at(8)), "opened twice");
    assert_eq!((breaker.state(), breaker.since()), (State::Open, at(7)));
    assert_eq!(breaker.admit(&settings), None);
}

#[test]
fn a_held_breaker_stays_closed_and_asks_again_at_every_further_failure() {
    let (breaker, settings) = (Breaker::default(), settings());
    for n in 1..=1_000 {
        let effect = breaker.settle(Permit::Free, true, at(n), &settings);
        assert_eq!(effect == Effect::WantsToOpen, n >= 3);
        if effect == Effect::WantsToOpen {
            breaker.hold();
        }
    }
    assert_eq!((breaker.held(), breaker.failures()), (998, 1_000));
    assert_eq!(breaker.admit(&settings), Some(Permit::Free));
    assert_eq!(
        breaker.settle(Permit::Free, false, at(2_000), &settings),
        Effect::None
    );
    assert_eq!(breaker.failures(), 0);
}

#[test]
fn it_is_open_for_reset_timeout_and_then_lets_trials_through() {
    let (breaker, settings) = (Breaker::default(), settings());
    assert!(breaker.open(at(1_000)));
    assert!(!breaker.due(at(1_099), &settings));
    assert_eq!(breaker.state(), State::Open);
    assert!(!breaker.trials_free(&settings));
    assert!(breaker.due(at(1_100), &settings));
    assert!(!breaker.due(at(1_100), &settings), "made half-open twice");
    assert_eq!(breaker.state(), State::HalfOpen);
    let first = breaker.admit(&settings);
    assert!(matches!(first, Some(Permit::Trial { .. })));
    assert!(breaker.trials_free(&settings));
    assert_eq!(breaker.admit(&settings), first);
    assert_eq!(breaker.admit(&settings), None);
    assert!(!breaker.trials_free(&settings));
}

#[test]
fn good_trials_close_it() {
    let settings = settings();
    let breaker = half_open(&settings, 0);
    let trials = [(); 2].map(|()| breaker.admit(&settings).unwrap());
    assert_eq!(breaker.settle(trials[0], false, at(200), &settings), Effect::None);
    assert_eq!(
        breaker.settle(trials[1], false, at(201), &settings),
        Effect::Closed
    );
    assert_eq!((breaker.state(), breaker.failures()), (State::Closed, 0));
}

#[test]
fn a_bad_trial_opens_it_again_for_the_whole_time_and_the_other_trials_mean_nothing() {
    let settings = settings();
    let breaker = half_open(&settings, 0);
    let trials = [(); 2].map(|()| breaker.admit(&settings).unwrap());
    assert_eq!(
        breaker.settle(trials[0], true, at(500), &settings),
        Effect::Reopened
    );
    assert_eq!((breaker.state(), breaker.since()), (State::Open, at(500)));
    assert_eq!(breaker.settle(trials[1], true, at(550), &settings), Effect::None);
    assert_eq!(breaker.since(), at(500));
    assert!(!breaker.due(at(599), &settings));
    assert!(breaker.due(at(600), &settings));
    // Of the round before: neither its success nor its place counts in this one.
    breaker.give_back(trials[1]);
    assert_eq!(breaker.settle(trials[1], false, at(601), &settings), Effect::None);
    let trials = [(); 2].map(|()| breaker.admit(&settings));
    assert!(trials.iter().all(Option::is_some));
    assert_eq!(breaker.admit(&settings), None);
}

#[test]
fn what_began_before_an_opening_changes_nothing_after_it() {
    let settings = settings();
    let breaker = Breaker::default();
    assert!(breaker.open(at(10)));
    for failed in [true, false] {
        assert_eq!(
            breaker.settle(Permit::Free, failed, at(20), &settings),
            Effect::None
        );
        assert_eq!(breaker.state(), State::Open);
    }
    assert!(breaker.half_open());
    assert!(!breaker.half_open());
    for failed in [true, false] {
        for _ in 0..5 {
            assert_eq!(
                breaker.settle(Permit::Free, failed, at(30), &settings),
                Effect::None
            );
        }
        assert_eq!(breaker.state(), State::HalfOpen);
    }
}

#[test]
fn a_trial_whose_client_went_away_gives_its_place_back_once() {
    let settings = settings();
    let breaker = half_open(&settings, 0);
    let trials = [(); 2].map(|()| breaker.admit(&settings).unwrap());
    assert_eq!(breaker.admit(&settings), None);
    breaker.give_back(trials[0]);
    assert_eq!(breaker.admit(&settings), Some(trials[0]));
    assert_eq!(breaker.admit(&settings), None);
    for _ in 0..5 {
        breaker.give_back(trials[0]);
    }
    for _ in 0..2 {
        assert!(breaker.admit(&settings).is_some());
    }
    assert_eq!(
        breaker.admit(&settings),
        None,
        "places given back more often than taken"
    );
}

#[test]
fn closing_it_by_hand_forgets_everything() {
    let settings = settings();
    let breaker = half_open(&settings, 0);
    let trial = breaker.admit(&settings).unwrap();
    assert!(breaker.close());
    assert!(!breaker.close());
    assert_eq!(breaker.settle(trial, true, at(300), &settings), Effect::None);
    assert_eq!((breaker.state(), breaker.failures()), (State::Closed, 0));
    breaker.settle(Permit::Free, true, at(301), &settings);
    assert!(!breaker.close(), "it was closed");
    assert_eq!(breaker.failures(), 0);
}

#[test]
fn a_share_of_failures_within_the_window_asks_to_open() {
    let settings = Settings {
        failure_threshold: 1_000,
        error_rate: Some(50),
        window: Duration::from_secs(10),
        min_volume: 20,
        ..settings()
    };
    let breaker = Breaker::default();
    let settle = |failed, now| breaker.settle(Permit::Free, failed, at(now), &settings);
    // Every second one fails: 50 % is reached, and the volume with the 20th attempt.
    let asked: Vec<u64> = (1..=24)
        .filter(|&n| settle(n % 2 == 0, n) == Effect::WantsToOpen)
        .collect();
    assert_eq!(asked, [20, 22, 24]);
    // Eleven seconds later they are forgotten.
    assert_eq!(settle(true, 12_000), Effect::None);
    // Closing forgets them too: the next failure is not judged by what went before.
    for n in 0..30 {
        settle(true, 12_000 + n);
    }
    assert!(breaker.open(at(12_100)));
    assert!(breaker.close());
    assert_eq!(settle(true, 12_101), Effect::None);
    // So do good trials.
    for n in 0..30 {
        settle(true, 12_200 + n);
    }
    assert!(breaker.open(at(12_300)) && breaker.half_open());
    for effect in [Effect::None, Effect::Closed] {
        let trial = breaker.admit(&settings).unwrap();
        assert_eq!(breaker.settle(trial, false, at(12_400), &settings), effect);
    }
    assert_eq!(settle(true, 12_401), Effect::None);
}

#[test]
fn without_an_error_rate_the_window_is_not_touched() {
    let breaker = Breaker::default();
    let before = format!("{breaker:?}");
    for now in 0..100 {
        breaker.settle(Permit::Free, false, at(now), &settings());
    }
    assert_eq!(format!("{breaker:?}"), before);
}

/// What a breaker must do, in the plainest form.
#[derive(Debug)]
enum Model {
    Closed { failures: u32 },
    Open { since: u64 },
    HalfOpen { out: BTreeSet<usize>, good: u32 },
}

#[derive(Clone, Debug)]
enum Step {
    Admit,
    /// Of the permits that were ever given, even those that went back.
    Settle(prop::sample::Index, bool),
    GiveBack(prop::sample::Index),
    Wait(u64),
    Open,
    Due,
    HalfOpen,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Admit),
        8 => any::<(prop::sample::Index, bool)>().prop_map(|(at, failed)| Step::Settle(at, failed)),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
        2 => (0..80_u64).prop_map(Step::Wait),
        1 => Just(Step::Open),
        3 => Just(Step::Due),
        1 => Just(Step::HalfOpen),
        1 => Just(Step::Close),
    ];
    vec(step, 0..120)
}

impl Model {
    fn state(&self) -> State {
        match self {
            Model::Closed { .. } => State::Closed,
            Model::Open { .. } => State::Open,
            Model::HalfOpen { .. } => State::HalfOpen,
        }
    }

    fn new_round() -> Model {
        Model::HalfOpen {
            out: BTreeSet::new(),
            good: 0,
        }
    }

    fn settle(&mut self, id: usize, trial: bool, failed: bool, now: u64, settings: &Settings) -> Effect {
        match self {
            Model::Closed { failures } if !trial && !failed => *failures = 0,
            Model::Closed { failures } if !trial => {
                *failures += 1;
                if *failures >= settings.failure_threshold {
                    return Effect::WantsToOpen;
                }
            }
            Model::HalfOpen { out, good } => {
                if !out.remove(&id) {
                    return Effect::None;
                }
                if failed {
                    *self = Model::Open { since: now };
                    return Effect::Reopened;
                }
                *good += 1;
                if *good >= settings.success_threshold {
                    *self = Model::Closed { failures: 0 };
                    return Effect::Closed;
                }
            }
            _ => {}
        }
        Effect::None
    }
}

fn follows_the_model(steps: &[Step], settings: &Settings) {
    let breaker = Breaker::default();
    let mut model = Model::Closed { failures: 0 };
    let mut now = 0;
    // Each permit, and whether it is still with the attempt.
    let mut permits: Vec<(Permit, bool)> = Vec::new();
    for step in steps {
        match step {
            Step::Admit => {
                let expected = match &mut model {
                    Model::Closed { .. } => Some(false),
                    Model::Open { .. } => None,
                    Model::HalfOpen { out, .. } => {
                        ((out.len() as u32) < settings.half_open_requests).then(|| {
                            out.insert(permits.len());
                            true
                        })
                    }
                };
                let permit = breaker.admit(settings);
                assert_eq!(
                    permit.map(|permit| matches!(permit, Permit::Trial { .. })),
                    expected
                );
                permits.extend(permit.map(|permit| (permit, true)));
            }
            Step::Settle(at, failed) if !permits.is_empty() => {
                let id = at.index(permits.len());
                let (permit, held) = &mut permits[id];
                let trial = matches!(permit, Permit::Trial { .. });
                if std::mem::take(held) {
                    assert_eq!(
                        breaker.settle(*permit, *failed, Millis(now), settings),
                        model.settle(id, trial, *failed, now, settings)
                    );
                }
            }
            Step::GiveBack(at) if !permits.is_empty() => {
                let id = at.index(permits.len());
                let (permit, held) = &mut permits[id];
                if std::mem::take(held) {
                    breaker.give_back(*permit);
                    if let Model::HalfOpen { out, .. } = &mut model {
                        out.remove(&id);
                    }
                }
            }
            Step::Settle(..) | Step::GiveBack(_) => {}
            Step::Wait(millis) => now += millis,
            Step::Open => {
                let expected = matches!(model, Model::Closed { .. });
                assert_eq!(breaker.open(Millis(now)), expected);
                if expected {
                    model = Model::Open { since: now };
                }
            }
            Step::Due | Step::HalfOpen => {
                let reset = settings.reset_timeout.as_millis() as u64;
                let at_once = matches!(step, Step::HalfOpen);
                let expected = matches!(model, Model::Open { since } if at_once || now >= since + reset);
                let done = if at_once {
                    breaker.half_open()
                } else {
                    breaker.due(Millis(now), settings)
                };
                assert_eq!(done, expected);
                if expected {
                    model = Model::new_round();
                }
            }
            Step::Close => {
                assert_eq!(breaker.close(), !matches!(model, Model::Closed { .. }));
                model = Model::Closed { failures: 0 };
            }
        }
        assert_eq!(breaker.state(), model.state());
        match &model {
            Model::Closed { failures } => assert_eq!(breaker.failures(), *failures),
            Model::Open { since } => assert_eq!(breaker.since(), Millis(*since)),
            Model::HalfOpen { out, .. } => assert_eq!(
                breaker.trials_free(settings),
                (out.len() as u32) < settings.half_open_requests
            ),
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_the_plain_model_does(
        steps in steps(),
        failure_threshold in 1..5_u32,
        half_open_requests in 1..4_u32,
        success_threshold in 1..4_u32,
    ) {
        let settings = Settings { failure_threshold, half_open_requests, success_threshold, ..settings() };
        follows_the_model(&steps, &settings);
    }
}

/// Threads that try, fail, succeed and give back at once. Never are more trials of one round out than may be, and each
/// transition has one author.
#[test]
fn threads_share_the_trials_of_a_round() {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 2_000;
    for half_open_requests in [1, 3] {
        let settings = Settings {
            half_open_requests,
            success_threshold: 1,
            ..settings()
        };
        let breaker = Breaker::default();
        let barrier = Barrier::new(THREADS);
        let (opened, begun, admitted) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        let (closed, reopened) = (AtomicU32::new(0), AtomicU32::new(0));
        let count = |counter: &AtomicU32, by: bool| counter.fetch_add(u32::from(by), Ordering::SeqCst);
        let run = |thread: usize| {
            let mut random = fastrand::Rng::with_seed(thread as u64);
            for round in 0..ROUNDS {
                let now = at(round * 1_000);
                // Everybody wants to open it, then everybody wants the trials.
                barrier.wait();
                count(&opened, breaker.open(now));
                barrier.wait();
                count(&begun, breaker.due(now + settings.reset_timeout, &settings));
                barrier.wait();
                // Nobody has given anything back or ended yet: exactly as many as may be.
                let permit = breaker.admit(&settings);
                count(&admitted, permit.is_some());
                barrier.wait();
                let mut left = 1;
                let mut permit = permit;
                while let Some(trial) = permit {
                    if left > 0 && random.bool() {
                        left -= 1;
                        breaker.give_back(trial);
                        permit = breaker.admit(&settings);
                        continue;
                    }
                    match breaker.settle(trial, random.bool(), now, &settings) {
                        Effect::Closed => count(&closed, true),
                        Effect::Reopened => count(&reopened, true),
                        Effect::None | Effect::WantsToOpen => 0,
                    };
                    permit = None;
                }
                barrier.wait();
                // Whatever came of it, the next round begins closed.
                if thread == 0 {
                    breaker.close();
                }
            }
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || run(thread));
            }
        });
        let rounds = ROUNDS as u32;
        assert_eq!(opened.into_inner(), rounds);
        assert_eq!(begun.into_inner(), rounds);
        assert_eq!(admitted.into_inner(), rounds * half_open_requests);
        let decided = closed.into_inner() + reopened.into_inner();
        assert!(decided <= rounds && decided > rounds / 2, "{decided}");
    }
}

/// The count of trials that are out, kept beside the breaker by those that hold them, never passes the limit.
#[test]
fn never_more_trials_are_out_than_may_be() {
    let settings = Settings {
        half_open_requests: 2,
        // More than all threads together can end well: it stays HALF-OPEN, also where each admission succeeds.
        success_threshold: u32::MAX,
        ..settings()
    };
    let breaker = half_open(&settings, 0);
    let (out, passed) = (AtomicU32::new(0), AtomicU32::new(0));
    let barrier = Barrier::new(4);
    let run = || {
        // Long enough that the threads are at it together, however many cores there are.
        barrier.wait();
        for turn in 0..500_000 {
            let Some(trial) = breaker.admit(&settings) else {
                continue;
            };
            assert!(out.fetch_add(1, Ordering::SeqCst) < 2);
            passed.fetch_add(1, Ordering::Relaxed);
            out.fetch_sub(1, Ordering::SeqCst);
            if turn % 2 == 0 {
                breaker.give_back(trial);
            } else {
                assert_eq!(breaker.settle(trial, false, at(0), &settings), Effect::None);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(run);
        }
    });
    assert!(passed.into_inner() >= 500_000);
    for _ in 0..2 {
        assert!(breaker.admit(&settings).is_some());
    }
    assert_eq!(breaker.admit(&settings), None);
}

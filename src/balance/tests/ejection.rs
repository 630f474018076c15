use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::balance::breaker::Permit;
use crate::balance::ejection::{EjectReason, Ejection, EjectionEffect, LONGEST, Standing};
use crate::clock::Millis;

const BASE: Duration = Duration::from_secs(30);
const BASE_MS: u64 = 30_000;

/// Lets a backend that is out at `now` back in.
fn bring_back(ejection: &Ejection, now: Millis) {
    assert!(ejection.trial_now());
    let trial = ejection.admit().unwrap();
    assert_eq!(ejection.settle(trial, false, now, BASE), EjectionEffect::Returned);
}

#[test]
fn it_is_out_for_its_time_and_returns_by_one_trial() {
    let ejection = Ejection::default();
    assert_eq!(ejection.admit(), Some(Permit::Free));
    assert_eq!(ejection.eject(Millis(1_000), BASE), Some(BASE));
    assert_eq!(ejection.eject(Millis(1_001), BASE), None, "ejected twice");
    assert_eq!(ejection.until(), Some(Millis(31_000)));
    assert_eq!((ejection.standing(), ejection.admit()), (Standing::Out, None));
    assert!(!ejection.due(Millis(30_999)));
    assert!(ejection.due(Millis(31_000)));
    assert!(!ejection.due(Millis(31_000)), "put on trial twice");
    assert_eq!((ejection.standing(), ejection.until()), (Standing::Trial, None));
    assert_eq!(ejection.eject(Millis(31_001), BASE), None, "the trial decides");
    assert!(ejection.trial_free());
    let trial = ejection.admit().unwrap();
    assert_eq!(ejection.admit(), None, "two trials at once");
    assert!(!ejection.trial_free());
    assert_eq!(
        ejection.settle(trial, false, Millis(31_050), BASE),
        EjectionEffect::Returned
    );
    assert_eq!(ejection.standing(), Standing::In);
    assert_eq!(
        ejection.settle(trial, true, Millis(31_060), BASE),
        EjectionEffect::None
    );
    assert_eq!(ejection.admit(), Some(Permit::Free));
}

#[test]
fn each_failed_trial_makes_the_next_ejection_longer_up_to_ten_times() {
    let ejection = Ejection::default();
    let mut now = Millis(5_000);
    ejection.eject(now, BASE);
    for n in 1..=15 {
        let lasts = BASE * n.min(LONGEST);
        assert_eq!(ejection.until(), Some(now + lasts), "the {n}th");
        now = now + lasts;
        assert!(ejection.due(now));
        let trial = ejection.admit().unwrap();
        assert_eq!(
            ejection.settle(trial, true, now, BASE),
            EjectionEffect::EjectedAgain
        );
    }
    assert_eq!(ejection.count(), 16);
}

#[test]
fn each_base_time_spent_in_makes_the_next_ejection_shorter() {
    for (spent_in, expected) in [
        (0, 4),
        (BASE_MS - 1, 4),
        (BASE_MS, 3),
        (2 * BASE_MS, 2),
        (20 * BASE_MS, 1),
    ] {
        let ejection = Ejection::default();
        let now = Millis(7_000_000);
        for n in 1..=3 {
            assert_eq!(ejection.eject(now, BASE), Some(BASE * n));
            bring_back(&ejection, now);
        }
        assert_eq!(
            ejection.eject(Millis(now.0 + spent_in), BASE),
            Some(BASE * expected),
            "{spent_in} ms"
        );
    }
}

#[test]
fn a_trial_whose_client_went_away_goes_again() {
    let ejection = Ejection::default();
    ejection.eject(Millis(0), BASE);
    assert!(ejection.trial_now());
    assert!(!ejection.trial_now());
    let trial = ejection.admit().unwrap();
    ejection.give_back(trial);
    ejection.give_back(trial);
    assert_eq!(ejection.admit(), Some(trial));
    assert_eq!(ejection.admit(), None);
}

#[test]
fn what_began_before_the_ejection_changes_nothing() {
    let ejection = Ejection::default();
    ejection.eject(Millis(0), BASE);
    for failed in [false, true] {
        assert_eq!(
            ejection.settle(Permit::Free, failed, Millis(1), BASE),
            EjectionEffect::None
        );
    }
    ejection.give_back(Permit::Free);
    assert_eq!(ejection.standing(), Standing::Out);
}

#[test]
fn the_operator_may_forget_it_all() {
    let ejection = Ejection::default();
    assert!(!ejection.clear(Millis(0)));
    for _ in 0..3 {
        ejection.eject(Millis(0), BASE);
        bring_back(&ejection, Millis(0));
    }
    ejection.eject(Millis(0), BASE);
    assert!(ejection.clear(Millis(10)));
    assert_eq!(ejection.standing(), Standing::In);
    assert_eq!(ejection.eject(Millis(20), BASE), Some(BASE));
}

#[test]
fn the_reason_is_kept_and_has_a_word_of_its_own() {
    let ejection = Ejection::default();
    assert_eq!(ejection.reason(), None);
    let mut words = BTreeSet::new();
    for reason in EjectReason::ALL {
        ejection.set_reason(reason);
        assert_eq!(ejection.reason(), Some(reason));
        assert!(words.insert(reason.word()));
    }
    ejection.hold();
    assert_eq!((ejection.held(), ejection.count()), (1, 0));
}

#[test]
fn lengths_do_not_overflow() {
    let ejection = Ejection::default();
    let forever = Duration::MAX;
    assert_eq!(ejection.eject(Millis(u64::MAX - 1), forever), Some(forever));
    assert!(!ejection.due(Millis(0)));
    assert!(ejection.trial_now());
    let ejection = Ejection::default();
    assert_eq!(ejection.eject(Millis(7), Duration::ZERO), Some(Duration::ZERO));
    assert!(ejection.due(Millis(7)));
}

proptest! {
    /// Whatever happens: out for between one and ten base times, one trial at a time, and a return only by a good one.
    #[test]
    fn its_rules_hold_in_any_order(steps in vec((0..7_u8, 0..70_000_u64), 0..200)) {
        let ejection = Ejection::default();
        let mut now = 0;
        let mut trial: Option<Permit> = None;
        let mut old: Vec<Permit> = Vec::new();
        for (step, wait) in steps {
            let before = ejection.standing();
            match step {
                0 => {
                    let length = ejection.eject(Millis(now), BASE);
                    prop_assert_eq!(length.is_some(), before == Standing::In);
                    if let Some(length) = length {
                        prop_assert!(length >= BASE && length <= BASE * LONGEST);
                        prop_assert_eq!(ejection.until(), Some(Millis(now) + length));
                    }
                }
                1 => {
                    let over = ejection.until().is_some_and(|until| until <= Millis(now));
                    prop_assert_eq!(ejection.due(Millis(now)), over);
                }
                2 => prop_assert_eq!(ejection.trial_now(), before == Standing::Out),
                3 => match (before, ejection.admit()) {
                    (Standing::In, permit) => prop_assert_eq!(permit, Some(Permit::Free)),
                    (Standing::Out, permit) => prop_assert_eq!(permit, None),
                    (Standing::Trial, permit) => {
                        prop_assert_eq!(permit.is_some(), trial.is_none());
                        trial = trial.or(permit);
                    }
                },
                4 | 5 => {
                    let failed = step == 4;
                    let effect = trial.map(|trial| ejection.settle(trial, failed, Millis(now), BASE));
                    let expected = if failed { EjectionEffect::EjectedAgain } else { EjectionEffect::Returned };
                    prop_assert_eq!(effect, trial.map(|_| expected));
                    old.extend(trial.take());
                    for permit in old.iter().chain([&Permit::Free]) {
                        let late = ejection.settle(*permit, failed, Millis(now), BASE);
                        prop_assert_eq!(late, EjectionEffect::None);
                    }
                }
                _ => now += wait,
            }
        }
    }
}

/// Threads that all eject, all put on trial, all ask: each is done by one.
#[test]
fn one_thread_does_what_all_want() {
    const THREADS: usize = 4;
    const ROUNDS: u64 = 2_000;
    let ejection = Ejection::default();
    let barrier = Barrier::new(THREADS);
    let [ejected, put, asked, ended] = [(); 4].map(|()| AtomicU32::new(0));
    let count = |counter: &AtomicU32, by: bool| counter.fetch_add(u32::from(by), Ordering::SeqCst);
    let run = || {
        for round in 0..ROUNDS {
            let now = Millis(round * 1_000);
            barrier.wait();
            count(&ejected, ejection.eject(now, BASE).is_some());
            barrier.wait();
            count(&put, ejection.trial_now());
            barrier.wait();
            let permit = ejection.admit();
            count(&asked, permit.is_some());
            barrier.wait();
            if let Some(permit) = permit {
                let effect = ejection.settle(permit, false, now, BASE);
                count(&ended, effect == EjectionEffect::Returned);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(run);
        }
    });
    for counter in [ejected, put, asked, ended] {
        assert_eq!(counter.into_inner(), ROUNDS as u32);
    }
    assert_eq!(ejection.count(), ROUNDS as u32);
}

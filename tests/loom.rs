//! The words that workers share, under every order in which two or three threads can touch them: the sources of
//! `balance` once more, on loom's atomics in place of std's.

use std::time::Duration;

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32 as Count, Ordering::Relaxed, Ordering::SeqCst};
use loom::thread;

// What the included files name by path.
use weir::clock;
mod sync {
    pub use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
}
#[path = "../src/balance/breaker.rs"]
#[expect(dead_code, reason = "not all of it is of interest here")]
mod breaker;
#[path = "../src/balance/ejection.rs"]
#[expect(dead_code, reason = "not all of it is of interest here")]
mod ejection;
#[path = "../src/balance/gate.rs"]
mod gate;
#[path = "../src/balance/window.rs"]
mod window;

use breaker::{Breaker, Effect, Permit, Settings, State};
use clock::Millis;
use ejection::{Ejection, EjectionEffect, Standing};

fn settings(half_open_requests: u32) -> Settings {
    Settings {
        failure_threshold: 2,
        reset_timeout: Duration::from_millis(100),
        half_open_requests,
        success_threshold: 1,
        error_rate: None,
        window: Duration::from_secs(10),
        min_volume: 20,
    }
}

/// A point at which loom changes threads in all ways. It would not everywhere: of a word it only knows who touched it last,
/// so a thread that reads and then writes it hides from loom that another one had read it before.
struct Turns(Count);

impl Turns {
    fn take(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Every order of `run` in `threads` threads on what `make` made, then `check`; but for orders in which threads interrupt
/// each other more than three times.
fn model<T: Send + Sync + 'static>(
    threads: usize,
    make: impl Fn() -> T + Send + Sync + 'static,
    run: impl Fn(usize, &T, &Turns) + Copy + Send + Sync + 'static,
    check: impl Fn(&T) + Send + Sync + 'static,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let shared = Arc::new((make(), Turns(Count::new(0))));
        let others: Vec<_> = (1..threads)
            .map(|thread| {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.1.take();
                    run(thread, &shared.0, &shared.1);
                })
            })
            .collect();
        shared.1.take();
        run(0, &shared.0, &shared.1);
        for other in others {
            other.join().unwrap();
        }
        check(&shared.0);
    });
}

/// A breaker that is half-open, and counters beside it.
fn half_open() -> (Breaker, Count, Count) {
    let breaker = Breaker::default();
    assert!(breaker.open(Millis(0)) && breaker.half_open());
    (breaker, Count::new(0), Count::new(0))
}

#[test]
fn exactly_as_many_trials_pass_as_may() {
    for (threads, allowed) in [(2, 1), (3, 1), (3, 2)] {
        model(
            threads,
            half_open,
            move |_, (breaker, passed, _), _| {
                if let Some(permit) = breaker.admit(&settings(allowed)) {
                    assert!(matches!(permit, Permit::Trial { .. }));
                    passed.fetch_add(1, SeqCst);
                }
            },
            move |(_, passed, _)| assert_eq!(passed.load(SeqCst), allowed),
        );
    }
}

#[test]
fn a_trial_that_gives_its_place_back_makes_room_for_one() {
    model(
        2,
        half_open,
        |_, (breaker, out, passed), turns| {
            if let Some(permit) = breaker.admit(&settings(1)) {
                assert_eq!(out.fetch_add(1, SeqCst), 0, "two trials at once");
                passed.fetch_add(1, SeqCst);
                turns.take();
                out.fetch_sub(1, SeqCst);
                breaker.give_back(permit);
            }
        },
        |(breaker, _, passed)| {
            assert!(passed.load(SeqCst) >= 1);
            assert!(breaker.trials_free(&settings(1)));
            assert!(breaker.admit(&settings(1)).is_some());
            assert!(breaker.admit(&settings(1)).is_none());
        },
    );
}

#[test]
fn one_of_all_that_fail_opens_it() {
    for threads in [2, 3] {
        model(
            threads,
            || (Breaker::default(), Count::new(0), Count::new(0)),
            |_, (breaker, asked, opened), turns| {
                if breaker.settle(Permit::Free, true, Millis(7), &settings(1)) == Effect::WantsToOpen {
                    asked.fetch_add(1, SeqCst);
                    turns.take();
                    if breaker.open(Millis(7)) {
                        opened.fetch_add(1, SeqCst);
                    }
                }
            },
            move |(breaker, asked, opened)| {
                assert_eq!(opened.load(SeqCst), 1);
                // Failures that came after the opening are those of attempts from before it: not counted.
                let asked = asked.load(SeqCst) as usize;
                assert!(asked >= 1 && asked < threads);
                assert_eq!((breaker.state(), breaker.since()), (State::Open, Millis(7)));
            },
        );
    }
}

#[test]
fn one_makes_it_half_open_and_nobody_does_too_early() {
    model(
        3,
        || (Breaker::default(), Count::new(0), Count::new(0)),
        |thread, (breaker, due, _), turns| match thread {
            0 => assert!(breaker.open(Millis(50))),
            // 100 ms after an opening at 0 ms, which is none.
            1 => assert!(!breaker.due(Millis(149), &settings(1))),
            _ => {
                for _ in 0..2 {
                    turns.take();
                    due.fetch_add(u32::from(breaker.due(Millis(150), &settings(1))), SeqCst);
                }
            }
        },
        |(breaker, due, _)| {
            let half_open = breaker.state() == State::HalfOpen;
            assert_eq!(due.load(SeqCst), u32::from(half_open));
        },
    );
}

/// One trial ends well and one badly: whichever is first decides, and the other belongs to a round that is over.
#[test]
fn one_end_of_two_trials_decides() {
    model(
        2,
        half_open,
        |thread, (breaker, closed, reopened), turns| {
            let Some(permit) = breaker.admit(&settings(2)) else {
                return;
            };
            turns.take();
            match breaker.settle(permit, thread == 1, Millis(9), &settings(2)) {
                Effect::Closed => closed.fetch_add(1, SeqCst),
                Effect::Reopened => reopened.fetch_add(1, SeqCst),
                Effect::None | Effect::WantsToOpen => 0,
            };
        },
        |(breaker, closed, reopened)| {
            assert_eq!(closed.load(SeqCst) + reopened.load(SeqCst), 1);
            let expected = if closed.load(SeqCst) == 1 {
                State::Closed
            } else {
                State::Open
            };
            assert_eq!(breaker.state(), expected);
        },
    );
}

/// A trial of the round before ends while the next round's begins: it neither decides nor frees a place.
#[test]
fn a_late_trial_leaves_the_next_round_alone() {
    model(
        2,
        || {
            let (breaker, passed, other) = half_open();
            let late = breaker.admit(&settings(2)).unwrap();
            let failing = breaker.admit(&settings(2)).unwrap();
            assert_eq!(
                breaker.settle(failing, true, Millis(5), &settings(2)),
                Effect::Reopened
            );
            (breaker, passed, other, late)
        },
        |thread, (breaker, passed, _, late), turns| {
            if thread == 0 {
                assert_eq!(
                    breaker.settle(*late, false, Millis(6), &settings(1)),
                    Effect::None
                );
            } else {
                assert!(breaker.half_open());
                for _ in 0..2 {
                    turns.take();
                    passed.fetch_add(u32::from(breaker.admit(&settings(1)).is_some()), SeqCst);
                }
            }
        },
        |(breaker, passed, ..)| {
            assert_eq!(breaker.state(), State::HalfOpen);
            assert_eq!(passed.load(SeqCst), 1);
        },
    );
}

#[test]
fn an_ejection_has_one_author_and_one_trial() {
    const BASE: Duration = Duration::from_secs(30);
    model(
        2,
        || (Ejection::default(), Count::new(0), Count::new(0)),
        |_, (ejection, ejected, passed), turns| {
            ejected.fetch_add(u32::from(ejection.eject(Millis(1_000), BASE).is_some()), SeqCst);
            turns.take();
            ejection.trial_now();
            turns.take();
            passed.fetch_add(u32::from(ejection.admit().is_some()), SeqCst);
        },
        |(ejection, ejected, passed)| {
            assert_eq!(ejected.load(SeqCst), 1);
            assert_eq!(passed.load(SeqCst), 1);
            assert_eq!(ejection.standing(), Standing::Trial);
        },
    );
}

#[test]
fn a_good_trial_returns_it_while_others_still_complain() {
    const BASE: Duration = Duration::from_secs(30);
    model(
        2,
        || {
            let ejection = Ejection::default();
            assert!(ejection.eject(Millis(0), BASE).is_some() && ejection.trial_now());
            let trial = ejection.admit().unwrap();
            (ejection, trial)
        },
        |thread, (ejection, trial), _| {
            if thread == 0 {
                let effect = ejection.settle(*trial, false, Millis(40_000), BASE);
                assert_eq!(effect, EjectionEffect::Returned);
            } else if let Some(length) = ejection.eject(Millis(40_000), BASE) {
                // After the return only, and then for longer than the first time.
                assert_eq!(length, BASE * 2);
            }
        },
        |(ejection, _)| assert_ne!(ejection.standing(), Standing::Trial),
    );
}

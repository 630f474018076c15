//! The table of precedence, row by row (docs/resilience.md, "One table of precedence").

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::ejection::EjectReason;
use crate::balance::outcome::Outcome;
use crate::balance::pick::{Local, Member};
use crate::balance::pool::{Ask, Choice, Event, Pool, Settings, Verdict};
use crate::balance::shared::Flag;
use crate::clock::Millis;
use crate::config::Config;

const START: Millis = Millis(1_000_000);

/// A pool in virtual time, and everything that it said.
struct Fixture {
    pool: Pool,
    now: Millis,
    local: Local,
    said: Vec<Event>,
}

impl Fixture {
    fn new(weights: &[u16], change: impl FnOnce(&mut Config)) -> Self {
        let members = weights.iter().enumerate();
        let members = members
            .map(|(index, &weight)| Member::new(Arc::default(), &format!("http://10.0.0.{index}"), weight));
        Fixture::of(members.collect(), change)
    }

    fn of(members: Vec<Member>, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        Fixture {
            pool: Pool::new(Settings::of(&config), members),
            now: START,
            local: Local::new(7),
            said: Vec::new(),
        }
    }

    fn eligible(&self) -> Vec<usize> {
        let bits = self.pool.eligible();
        (0..bits.len()).filter(|&index| bits.get(index)).collect()
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

    fn pick(&mut self) -> Option<Choice> {
        let ask = self.ask();
        self.pool.pick(&ask, &mut self.local)
    }

    fn settle(&mut self, choice: Choice, outcome: Outcome) {
        let said = &mut self.said;
        self.pool.settle(
            choice,
            outcome,
            Duration::from_millis(1),
            self.now,
            &mut |event| said.push(event),
        );
    }

    /// Who is picked in `count` picks that all go well.
    fn picked(&mut self, count: usize) -> BTreeSet<usize> {
        (0..count)
            .map(|_| {
                let choice = self.pick().expect("somebody is eligible");
                let index = choice.index;
                self.settle(choice, Outcome::Status(200));
                index
            })
            .collect()
    }

    /// Picks until it is `index`'s turn.
    fn turn_of(&mut self, index: usize) -> Choice {
        for _ in 0..1_000 {
            let choice = self.pick().expect("somebody is eligible");
            if choice.index == index {
                return choice;
            }
            self.settle(choice, Outcome::Nothing);
        }
        panic!("{index} is never picked");
    }

    fn fail(&mut self, index: usize, outcome: Outcome, times: usize) {
        for _ in 0..times {
            let choice = self.turn_of(index);
            self.settle(choice, outcome);
        }
    }

    fn probe(&mut self, index: usize, verdict: Verdict) {
        let said = &mut self.said;
        self.pool
            .probe(index, verdict, self.now, &mut |event| said.push(event));
    }

    fn operator(&mut self, index: usize, flag: Flag, value: bool) {
        self.pool.set_by_operator(index, flag, value, &mut |_| {});
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        let said = &mut self.said;
        self.pool.tick(self.now, &mut |event| said.push(event));
    }

    fn eject(&mut self, index: usize) {
        let said = &mut self.said;
        self.pool
            .eject(index, EjectReason::SuccessRate, self.now, &mut |event| {
                said.push(event)
            });
    }

    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.said.iter().filter(|event| wanted(event)).count()
    }
}

#[test]
fn row_1_the_operator_is_overruled_by_nothing() {
    let mut f = Fixture::new(&[1, 0, 1, 1], |_| {});
    f.operator(2, Flag::Draining, true);
    f.operator(3, Flag::Maintenance, true);
    assert_eq!(f.eligible(), [0]);
    // Panic brings back nobody whom the operator took out, and neither does everybody's death.
    f.probe(0, Verdict::Sick);
    assert!(f.pool.is_panicking());
    assert_eq!(f.eligible(), [0]);
    f.probe(0, Verdict::Dead);
    assert_eq!(f.eligible(), [0]);
    f.operator(0, Flag::Draining, true);
    assert_eq!(f.eligible(), Vec::<usize>::new());
    assert!(f.pick().is_none());
}

#[test]
fn row_1_what_sticks_to_one_that_drains_goes_on() {
    let mut f = Fixture::new(&[1, 1, 0], |_| {});
    f.operator(0, Flag::Draining, true);
    let stick = |f: &mut Fixture, index| {
        let ask = Ask {
            sticky: Some(index),
            ..f.ask()
        };
        f.pool.pick(&ask, &mut f.local).map(|choice| choice.index)
    };
    assert_eq!(stick(&mut f, 0), Some(0));
    assert_eq!(stick(&mut f, 2), Some(2), "weight 0 takes no new work only");
    f.operator(0, Flag::Maintenance, true);
    assert_eq!(stick(&mut f, 0), Some(1));
    f.operator(0, Flag::Maintenance, false);
    f.probe(0, Verdict::Sick);
    assert_eq!(stick(&mut f, 0), Some(1));
    let tried = [1];
    let ask = Ask {
        sticky: Some(1),
        tried: &tried,
        ..f.ask()
    };
    assert!(
        f.pool.pick(&ask, &mut f.local).is_none(),
        "a retry leaves out what was tried"
    );
}

#[test]
fn row_2_a_refused_connect_takes_out_at_once_and_panic_does_not_bring_back() {
    let mut f = Fixture::new(&[1; 4], |_| {});
    f.fail(0, Outcome::ConnectRefused, 1);
    assert_eq!(f.eligible(), [1, 2, 3]);
    assert_eq!(f.count(|event| *event == Event::ProbeWanted { index: 0 }), 1);
    for index in 1..4 {
        f.probe(index, Verdict::Sick);
    }
    assert!(f.pool.is_panicking());
    assert_eq!(f.eligible(), [1, 2, 3], "the sick, not the dead");
    for index in 1..4 {
        f.probe(index, Verdict::Dead);
    }
    assert_eq!(f.eligible(), [0, 1, 2, 3], "the dead where nobody else is left");
    // The probe that was asked for finds that it was a blip.
    f.probe(0, Verdict::Up);
    assert_eq!(f.eligible(), [0]);
}

#[test]
fn row_2_without_probes_a_dead_backend_is_tried_again_by_a_trial() {
    let mut f = Fixture::new(&[1; 3], |config| {
        config.health_check.kind = crate::config::model::HealthCheckKind::Off;
    });
    f.fail(0, Outcome::ConnectRefused, 1);
    assert_eq!(f.eligible(), [1, 2]);
    f.pass(Duration::from_millis(1_100));
    let trial = f.pick().expect("the trial");
    assert_eq!(trial.index, 0, "a trial comes before any strategy");
    f.settle(trial, Outcome::ConnectRefused);
    assert_eq!(f.eligible(), [1, 2], "and one that fails is out for longer");
    f.pass(Duration::from_millis(1_100));
    assert_eq!(f.eligible(), [1, 2]);
}

#[test]
fn row_3_panic_brings_back_the_sick() {
    let mut f = Fixture::new(&[1; 4], |_| {});
    f.probe(0, Verdict::Sick);
    f.probe(1, Verdict::Sick);
    assert_eq!(f.eligible(), [2, 3], "half is enough");
    f.probe(2, Verdict::Sick);
    assert_eq!(f.eligible(), [0, 1, 2, 3]);
    assert_eq!(f.count(|event| *event == Event::PanicBegan { well: 1, of: 4 }), 1);
    f.probe(2, Verdict::Up);
    assert_eq!(f.eligible(), [2, 3]);
    assert_eq!(f.count(|event| *event == Event::PanicEnded { well: 2, of: 4 }), 1);
}

#[test]
fn row_3_without_a_panic_threshold_nobody_is_brought_back() {
    let mut f = Fixture::new(&[1; 2], |config| config.health_check.panic_threshold = 0);
    f.probe(0, Verdict::Sick);
    f.probe(1, Verdict::Sick);
    assert!(f.pick().is_none());
}

#[test]
fn row_4_an_ejection_ends_by_one_trial_and_not_by_a_good_probe() {
    let mut f = Fixture::new(&[1; 4], |_| {});
    f.eject(0);
    assert_eq!(f.eligible(), [1, 2, 3]);
    f.probe(0, Verdict::Up);
    assert_eq!(
        f.eligible(),
        [1, 2, 3],
        "a probe that was good all along changes nothing"
    );
    f.pass(Duration::from_secs(29));
    assert_eq!(f.eligible(), [1, 2, 3]);
    f.pass(Duration::from_secs(2));
    let trial = f.pick().expect("the trial");
    assert_eq!(trial.index, 0);
    assert!(!f.picked(20).contains(&0), "one at a time");
    f.settle(trial, Outcome::Status(200));
    assert_eq!(f.count(|event| *event == Event::Returned { index: 0 }), 1);
    assert!(f.picked(20).contains(&0));
}

#[test]
fn row_4_panic_ignores_ejections() {
    let mut f = Fixture::new(&[1; 4], |_| {});
    f.eject(0);
    f.probe(1, Verdict::Sick);
    f.probe(2, Verdict::Sick);
    assert_eq!(f.eligible(), [0, 1, 2, 3]);
}

#[test]
fn row_5_an_open_breaker_takes_out_until_its_time_is_over() {
    let mut f = Fixture::new(&[1; 3], |_| {});
    f.fail(0, Outcome::Status(500), 5);
    assert_eq!(f.count(|event| *event == Event::BreakerOpened { index: 0 }), 1);
    assert_eq!(f.eligible(), [1, 2]);
    f.pass(Duration::from_secs(31));
    assert_eq!(f.count(|event| *event == Event::BreakerHalfOpen { index: 0 }), 1);
    let trial = f.pick().expect("the trial");
    assert_eq!(trial.index, 0);
    assert!(!f.picked(20).contains(&0));
    f.settle(trial, Outcome::Status(500));
    assert_eq!(f.count(|event| *event == Event::BreakerReopened { index: 0 }), 1);
    assert_eq!(f.eligible(), [1, 2]);
}

#[test]
fn row_5_panic_overrules_a_breaker_unless_told_not_to() {
    for ignore_panic in [false, true] {
        let mut f = Fixture::new(&[1; 4], |config| {
            config.circuit_breaker.ignore_panic = ignore_panic
        });
        f.fail(0, Outcome::Status(500), 5);
        for index in 1..4 {
            f.probe(index, Verdict::Sick);
        }
        assert!(f.pool.is_panicking());
        let expected: &[usize] = if ignore_panic { &[1, 2, 3] } else { &[0, 1, 2, 3] };
        assert_eq!(f.eligible(), expected);
    }
}

#[test]
fn row_6_what_would_leave_too_few_is_held() {
    let mut f = Fixture::new(&[1; 3], |_| {});
    f.fail(0, Outcome::Status(503), 5);
    assert_eq!(f.eligible(), [1, 2]);
    f.fail(1, Outcome::Status(503), 50);
    f.eject(2);
    assert_eq!(f.eligible(), [1, 2]);
    let held = |index: usize| f.count(|event| matches!(event, Event::Held { index: at, .. } if *at == index));
    assert_eq!((held(1), held(2)), (1, 1), "said once, however often it happens");
    assert!(f.pool.members()[1].shared.held() >= 40);
    assert!(f.pool.members()[1].shared.has(Flag::Held));
}

#[test]
fn row_6_the_only_backend_is_never_shut_off_unless_told_so() {
    for ignore_panic in [false, true] {
        let mut f = Fixture::new(&[1], |config| config.circuit_breaker.ignore_panic = ignore_panic);
        f.fail(0, Outcome::Status(500), 5);
        let expected: &[usize] = if ignore_panic { &[] } else { &[0] };
        assert_eq!(f.eligible(), expected);
    }
}

#[test]
fn row_7_a_trial_waits_for_a_request_that_may_be_sent_again() {
    let mut f = Fixture::new(&[1; 2], |_| {});
    f.fail(0, Outcome::Status(500), 5);
    f.pass(Duration::from_secs(31));
    let post = Ask {
        may_try: false,
        ..f.ask()
    };
    for _ in 0..20 {
        assert_eq!(
            f.pool.pick(&post, &mut f.local).map(|choice| choice.index),
            Some(1)
        );
    }
    f.pass(Duration::from_secs(6));
    let post = Ask {
        may_try: false,
        ..f.ask()
    };
    assert_eq!(
        f.pool.pick(&post, &mut f.local).map(|choice| choice.index),
        Some(0),
        "but not for ever"
    );
}

#[test]
fn row_7_a_trial_whose_client_goes_away_gives_its_place_back() {
    let mut f = Fixture::new(&[1; 2], |_| {});
    f.fail(0, Outcome::Status(500), 5);
    f.pass(Duration::from_secs(31));
    let trial = f.pick().expect("the trial");
    assert_eq!(trial.index, 0);
    f.settle(trial, Outcome::Nothing);
    assert_eq!(f.pick().map(|choice| choice.index), Some(0));
}

#[test]
fn row_7_a_probe_that_turns_up_gives_a_trial_at_once() {
    let mut f = Fixture::new(&[1; 4], |_| {});
    f.fail(0, Outcome::Status(500), 5);
    f.probe(0, Verdict::Dead);
    f.eject(1);
    f.probe(1, Verdict::Sick);
    f.probe(0, Verdict::Up);
    f.probe(1, Verdict::Up);
    let (one, two) = (f.pick().expect("a trial"), f.pick().expect("a trial"));
    assert_eq!(BTreeSet::from([one.index, two.index]), BTreeSet::from([0, 1]));
    f.settle(one, Outcome::Status(200));
    f.settle(two, Outcome::Status(200));
    assert_eq!(f.eligible(), [0, 1, 2, 3]);
}

#[test]
fn row_7_no_trial_goes_where_the_probe_says_down() {
    let mut f = Fixture::new(&[1; 3], |_| {});
    f.fail(0, Outcome::Status(500), 5);
    f.probe(0, Verdict::Sick);
    f.pass(Duration::from_secs(31));
    assert!(!f.picked(30).contains(&0));
}

#[test]
fn row_8_who_comes_back_alone_ramps_up_and_many_together_do_not() {
    let slow = |config: &mut Config| config.strategy.slow_start = Duration::from_secs(10);
    let mut f = Fixture::new(&[1; 5], slow);
    f.probe(0, Verdict::Sick);
    f.probe(0, Verdict::Up);
    assert!(f.pool.members()[0].shared.ramp_from().is_some());
    let mut first = 0;
    for _ in 0..1_000 {
        let choice = f.pick().expect("all are eligible");
        first += usize::from(choice.index == 0);
        f.settle(choice, Outcome::Status(200));
    }
    assert!(first < 100, "{first} of 1000 at the ramp's foot");
    f.pass(Duration::from_secs(11));
    assert!(f.pool.members()[0].shared.ramp_from().is_none());

    let mut f = Fixture::new(&[1; 4], slow);
    for index in [0, 1] {
        f.probe(index, Verdict::Sick);
    }
    for index in [0, 1] {
        f.probe(index, Verdict::Up);
    }
    assert!(
        f.pool
            .members()
            .iter()
            .all(|member| member.shared.ramp_from().is_none())
    );
}

#[test]
fn row_9_backups_join_where_too_few_are_well() {
    let members = (0..3).map(|index| {
        Member::new(Arc::default(), &format!("http://10.0.0.{index}"), 1).in_tier(0, index == 2)
    });
    let mut f = Fixture::of(members.collect(), |_| {});
    assert_eq!(f.eligible(), [0, 1]);
    f.probe(0, Verdict::Sick);
    assert_eq!(f.eligible(), [1], "half is enough");
    f.probe(1, Verdict::Sick);
    assert_eq!(f.eligible(), [2]);
    assert!(!f.pool.is_panicking());
    f.probe(2, Verdict::Sick);
    assert_eq!(
        f.eligible(),
        [0, 1],
        "panic is what comes where no backup is well either"
    );
}

#[test]
fn after_an_outage_of_all_everybody_is_back_with_the_probes() {
    let mut f = Fixture::new(&[1; 3], |_| {});
    for index in 0..3 {
        f.fail(index, Outcome::ConnectRefused, 1);
        f.probe(index, Verdict::Dead);
    }
    assert_eq!(f.eligible(), [0, 1, 2]);
    for _ in 0..50 {
        let choice = f.pick().expect("all the dead are back");
        f.settle(choice, Outcome::ConnectRefused);
    }
    for index in 0..3 {
        f.probe(index, Verdict::Up);
    }
    assert_eq!(f.picked(30), BTreeSet::from([0, 1, 2]));
    assert_eq!(f.eligible(), [0, 1, 2]);
}

#[test]
fn a_clients_abort_is_nobodys_failure() {
    let mut f = Fixture::new(&[1; 2], |_| {});
    f.fail(0, Outcome::Nothing, 100);
    f.fail(0, Outcome::Stale, 100);
    assert_eq!(f.eligible(), [0, 1]);
    assert!(f.said.is_empty());
}

#[test]
fn what_can_be_sent_only_once_is_kept_from_who_gave_no_answer() {
    let mut f = Fixture::new(&[1; 3], |_| {});
    f.fail(0, Outcome::Reset, 1);
    let post = |f: &mut Fixture| {
        let ask = Ask {
            may_try: false,
            ..f.ask()
        };
        f.pool.pick(&ask, &mut f.local).map(|choice| choice.index)
    };
    assert!((0..30).all(|_| post(&mut f) != Some(0)));
    assert!(
        f.picked(3).contains(&0),
        "others may find out, and clear it by that"
    );
    assert!((0..30).any(|_| post(&mut f) == Some(0)));
    f.fail(0, Outcome::Timeout, 1);
    f.pass(Duration::from_millis(1_100));
    assert!((0..30).any(|_| post(&mut f) == Some(0)), "or time does");
    // Where everybody is doubtful nobody is spared.
    for index in 0..3 {
        f.fail(index, Outcome::Reset, 1);
    }
    assert!(post(&mut f).is_some());
}

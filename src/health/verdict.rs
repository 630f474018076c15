//! What probes make of a backend: a run of good ones brings it up, a run of bad ones takes it down. No I/O, no clock.
//!
//! Two ways of being down are told apart, because panic may bring back the one and not the other. *Dead*: nobody listens
//! there. *Sick*: somebody does, and is not well. From down to down a verdict changes with the first probe that shows it:
//! neither gets traffic in ordinary times, so nothing flaps. A connect that only timed out is the exception. It may be a
//! full queue of a backend under load, so it takes a run of them, or one that confirms what traffic saw.

use crate::config::model::HealthStart;

pub use crate::balance::pool::Verdict;

/// What one probe showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    Good,
    /// Connected, and anything that is not good afterwards.
    Bad,
    /// Nobody listens there, or there is no way there.
    Refused,
    /// No answer to the connect in time.
    Unreached,
    /// weir itself could not probe: says nothing about the backend.
    Nothing,
}

/// How many in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Good ones that bring up.
    pub rise: u32,
    /// Bad ones that take down.
    pub fall: u32,
}

/// A verdict that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// None: there was no verdict before.
    pub from: Option<Verdict>,
    pub to: Verdict,
    /// Probes in a row that led to it.
    pub probes: u32,
}

/// The state of one backend between probes.
#[derive(Clone, Debug)]
pub struct Machine {
    verdict: Option<Verdict>,
    /// Probes in a row that were good; that were not; that did not even get an answer to their connect.
    good: u32,
    bad: u32,
    unreached: u32,
}

impl Machine {
    pub fn new(start: HealthStart) -> Self {
        Machine {
            verdict: match start {
                HealthStart::Up => Some(Verdict::Up),
                HealthStart::Down => Some(Verdict::Sick),
                HealthStart::Check => None,
            },
            good: 0,
            bad: 0,
            unreached: 0,
        }
    }

    /// None until the first probe, under `start = "check"`.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// Whether probes are being counted toward a change, or nothing is known yet.
    pub fn is_changing(&self) -> bool {
        match self.verdict {
            None => true,
            Some(Verdict::Up) => self.bad > 0,
            Some(Verdict::Sick | Verdict::Dead) => self.good > 0,
        }
    }

    /// Takes a probe's finding. `asked`: somebody's connect had failed, and the probe was made to know at once; one that
    /// does not get a connection either settles it, without a run.
    pub fn observe(&mut self, finding: Finding, asked: bool, rules: Rules) -> Option<Change> {
        match finding {
            Finding::Nothing => return None,
            Finding::Good => {
                self.good = self.good.saturating_add(1);
                (self.bad, self.unreached) = (0, 0);
            }
            Finding::Bad | Finding::Refused | Finding::Unreached => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                let unreached = finding == Finding::Unreached;
                self.unreached = if unreached {
                    self.unreached.saturating_add(1)
                } else {
                    0
                };
            }
        }
        let to = self.judge(finding, asked, rules);
        let from = self.verdict.replace(to);
        (from != Some(to)).then_some(Change {
            from,
            to,
            probes: self.good.max(self.bad),
        })
    }

    fn judge(&self, finding: Finding, asked: bool, rules: Rules) -> Verdict {
        let down = match finding {
            Finding::Refused | Finding::Unreached => Verdict::Dead,
            Finding::Good | Finding::Bad | Finding::Nothing => Verdict::Sick,
        };
        match (self.verdict, finding) {
            (None, Finding::Good) => Verdict::Up,
            (None, _) => down,
            (Some(Verdict::Up), Finding::Good) => Verdict::Up,
            (Some(Verdict::Up), _) => {
                let settled = asked && down == Verdict::Dead;
                if settled || self.bad >= rules.fall {
                    down
                } else {
                    Verdict::Up
                }
            }
            (Some(_), Finding::Good) if self.good >= rules.rise => Verdict::Up,
            (Some(Verdict::Sick), Finding::Unreached) if !asked && self.unreached < rules.fall => {
                Verdict::Sick
            }
            (Some(_), _) => down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULES: Rules = Rules { rise: 2, fall: 3 };

    /// The verdict after each of `findings`, none of them asked for.
    fn walk(start: HealthStart, findings: &[Finding]) -> Vec<Option<Verdict>> {
        let mut machine = Machine::new(start);
        findings
            .iter()
            .map(|finding| {
                machine.observe(*finding, false, RULES);
                machine.verdict()
            })
            .collect()
    }

    #[test]
    fn it_takes_a_run_to_fall_and_a_run_to_rise() {
        use Finding::{Bad, Good};
        let findings = [Bad, Bad, Good, Bad, Bad, Bad, Good, Bad, Good, Good];
        let words: String = walk(HealthStart::Up, &findings)
            .iter()
            .map(|verdict| if *verdict == Some(Verdict::Up) { 'u' } else { 'd' })
            .collect();
        assert_eq!(words, "uuuuuddddu");
    }

    #[test]
    fn the_first_probe_decides_alone_under_check() {
        for (finding, verdict) in [
            (Finding::Good, Some(Verdict::Up)),
            (Finding::Bad, Some(Verdict::Sick)),
            (Finding::Refused, Some(Verdict::Dead)),
            (Finding::Unreached, Some(Verdict::Dead)),
            (Finding::Nothing, None),
        ] {
            assert_eq!(walk(HealthStart::Check, &[finding]), [verdict], "{finding:?}");
        }
        assert_eq!(Machine::new(HealthStart::Up).verdict(), Some(Verdict::Up));
        assert_eq!(Machine::new(HealthStart::Down).verdict(), Some(Verdict::Sick));
    }

    #[test]
    fn an_asked_probe_that_gets_no_connection_settles_it() {
        for finding in [Finding::Refused, Finding::Unreached] {
            let mut machine = Machine::new(HealthStart::Up);
            let change = machine.observe(finding, true, RULES).expect("a change");
            assert_eq!(
                (change.from, change.to, change.probes),
                (Some(Verdict::Up), Verdict::Dead, 1)
            );
        }
        let mut machine = Machine::new(HealthStart::Up);
        assert_eq!(machine.observe(Finding::Bad, true, RULES), None);
        assert_eq!(machine.observe(Finding::Good, true, RULES), None, "a blip");
        assert!(!machine.is_changing());
    }

    #[test]
    fn dead_and_sick_turn_into_each_other_at_once_but_for_a_connect_that_times_out() {
        use Finding::{Bad, Good, Refused, Unreached};
        let findings = [
            Bad, Refused, Good, Refused, Bad, Unreached, Unreached, Bad, Unreached,
        ];
        use Verdict::{Dead, Sick};
        let expected = [Sick, Dead, Sick, Dead, Sick, Sick, Sick, Sick, Sick].map(Some);
        assert_eq!(walk(HealthStart::Check, &findings), expected);
        let findings = [Bad, Unreached, Unreached, Unreached];
        assert_eq!(
            walk(HealthStart::Check, &findings),
            [Sick, Sick, Sick, Dead].map(Some)
        );
        let mut machine = Machine::new(HealthStart::Down);
        assert!(
            machine
                .observe(Unreached, true, RULES)
                .is_some_and(|change| change.to == Dead)
        );
    }

    #[test]
    fn it_is_changing_while_it_counts() {
        let mut machine = Machine::new(HealthStart::Check);
        assert!(machine.is_changing());
        for (finding, changing) in [
            (Finding::Good, false),
            (Finding::Bad, true),
            (Finding::Nothing, true),
            (Finding::Bad, true),
            (Finding::Bad, false),
            (Finding::Bad, false),
            (Finding::Good, true),
            (Finding::Good, false),
        ] {
            machine.observe(finding, false, RULES);
            assert_eq!(machine.is_changing(), changing, "{finding:?}");
        }
    }

    fn finding() -> impl Strategy<Value = Finding> {
        prop_oneof![
            Just(Finding::Good),
            Just(Finding::Bad),
            Just(Finding::Refused),
            Just(Finding::Unreached),
            Just(Finding::Nothing),
        ]
    }

    proptest! {
        /// Whatever comes: up only after `rise` good ones in a row, down only after `fall` bad ones or by an asked one, and
        /// a change is told exactly when the verdict is another one.
        #[test]
        fn no_verdict_without_its_run(
            findings in prop::collection::vec((finding(), any::<bool>()), 1..200),
            rise in 1u32..5,
            fall in 1u32..5,
        ) {
            let rules = Rules { rise, fall };
            let mut machine = Machine::new(HealthStart::Up);
            let (mut good, mut bad) = (0, 0);
            for (finding, asked) in findings {
                let before = machine.verdict();
                match finding {
                    Finding::Nothing => {}
                    Finding::Good => (good, bad) = (good + 1, 0),
                    _ => (good, bad) = (0, bad + 1),
                }
                let change = machine.observe(finding, asked, rules);
                let after = machine.verdict();
                prop_assert_eq!(change.map(|change| change.to), (before != after).then_some(after).flatten());
                if before != after && after == Some(Verdict::Up) {
                    prop_assert!(good >= rise);
                }
                if before == Some(Verdict::Up) && before != after {
                    prop_assert!(bad >= fall || asked);
                }
                prop_assert!(!(after == Some(Verdict::Up) && bad >= fall));
                prop_assert!(!(after != Some(Verdict::Up) && good >= rise));
            }
        }
    }
}

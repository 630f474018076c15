//! When each backend's next probe is due. No I/O, no clock and no randomness of its own.
//!
//! Every backend has its own point within the interval, so that probes are spread over it however many backends there are
//! and however often they come and go; each probe is jittered around that point, so that several weirs never march in
//! step. While a verdict is changing, probes come at the fast interval; then the backend is back at its point.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use fastrand::Rng;

use crate::clock::Millis;

/// The jitter to either side, as a part of the interval.
const JITTER: u64 = 20;
/// Probes of one backend that were asked for are at least this far apart: attempts that fail by the thousand ask by the
/// thousand.
pub const ASKED_SPACING: Duration = Duration::from_millis(100);
/// 2^32 over the golden ratio: multiples of it, modulo 2^32, are spread evenly however many there are.
const GOLDEN: u32 = 0x9E37_79B9;

/// Who is scheduled; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    pub interval: Duration,
    /// While a verdict is changing.
    pub fast: Duration,
}

/// A probe that is to be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    pub id: Id,
    /// Somebody asked for it.
    pub asked: bool,
}

#[derive(Debug)]
struct Entry {
    /// Its point within the interval, in parts of 2^32.
    point: u32,
    /// When its next probe is due; none while one is under way.
    due: Option<Millis>,
    started: Millis,
    /// Somebody wants a probe that begins from now on.
    asked: bool,
    /// When the last one that was asked for began.
    asked_last: Option<Millis>,
}

/// The schedule of all backends. One probe per backend at a time.
#[derive(Debug)]
pub struct Schedule {
    pace: Pace,
    entries: HashMap<Id, Entry>,
    /// Those without a probe under way, the most overdue first.
    queue: BTreeSet<(Millis, Id)>,
    next_point: u32,
}

impl Schedule {
    pub fn new(pace: Pace, random: &mut Rng) -> Self {
        Schedule {
            pace,
            entries: HashMap::new(),
            queue: BTreeSet::new(),
            next_point: random.u32(..),
        }
    }

    pub fn contains(&self, id: Id) -> bool {
        self.entries.contains_key(&id)
    }

    /// From now on in this pace. Nobody's next probe is later than it would be in the new pace.
    pub fn set_pace(&mut self, pace: Pace, now: Millis, random: &mut Rng) {
        if std::mem::replace(&mut self.pace, pace) == pace {
            return;
        }
        for (id, entry) in &mut self.entries {
            if let Some(due) = entry.due {
                let sooner = at_point(pace, entry.point, now, random).min(due);
                self.queue.remove(&(due, *id));
                self.queue.insert((sooner, *id));
                entry.due = Some(sooner);
            }
        }
    }

    /// A new backend; its first probe is due at once.
    pub fn add(&mut self, id: Id, now: Millis) {
        let entry = Entry {
            point: self.next_point,
            due: Some(now),
            started: now,
            asked: false,
            asked_last: None,
        };
        self.next_point = self.next_point.wrapping_add(GOLDEN);
        self.entries.insert(id, entry);
        self.queue.insert((now, id));
    }

    /// Forgets a backend, also while a probe of it is under way.
    pub fn remove(&mut self, id: Id) {
        if let Some(due) = self.entries.remove(&id).and_then(|entry| entry.due) {
            self.queue.remove(&(due, id));
        }
    }

    /// Somebody wants to know at once. A probe that is under way does not do: it may have begun before what they saw.
    pub fn ask(&mut self, id: Id, now: Millis) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.asked = true;
        if let Some(due) = entry.due {
            let sooner = entry.asked_for(now).min(due);
            self.queue.remove(&(due, id));
            self.queue.insert((sooner, id));
            entry.due = Some(sooner);
        }
    }

    /// When the next probe is due; none while there is nobody to probe.
    pub fn next_due(&self) -> Option<Millis> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// The backend that has been due for longest, if one is; to be followed by one [`Schedule::finish`].
    pub fn start(&mut self, now: Millis) -> Option<Started> {
        let first = *self.queue.first().filter(|(due, _)| *due <= now)?;
        self.queue.remove(&first);
        let id = first.1;
        let entry = self.entries.get_mut(&id)?;
        entry.due = None;
        entry.started = now;
        let asked = std::mem::take(&mut entry.asked);
        if asked {
            entry.asked_last = Some(now);
        }
        Some(Started { id, asked })
    }

    /// The probe of `id` is over; `changing`: the next one is wanted soon. Nothing happens if it was removed meanwhile.
    pub fn finish(&mut self, id: Id, now: Millis, changing: bool, random: &mut Rng) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.due.is_none()) else {
            return;
        };
        let mut due = if changing {
            jittered(entry.started + self.pace.fast, self.pace.fast, random)
        } else {
            // Half an interval is the least: what began late must not be followed at once by what is on time.
            let earliest = (entry.started + self.pace.interval / 2).max(now);
            at_point(self.pace, entry.point, earliest, random)
        };
        if entry.asked {
            due = due.min(entry.asked_for(now));
        }
        let due = due.max(now);
        entry.due = Some(due);
        self.queue.insert((due, id));
    }
}

impl Entry {
    /// When a probe that somebody asks for now may begin.
    fn asked_for(&self, now: Millis) -> Millis {
        self.asked_last
            .map_or(now, |last| (last + ASKED_SPACING).max(now))
    }
}

/// The first time from `earliest` on that is at `point` within the interval, jittered.
fn at_point(pace: Pace, point: u32, earliest: Millis, random: &mut Rng) -> Millis {
    let interval = millis(pace.interval);
    // Less than the interval, so it fits.
    let phase = ((u128::from(interval) * u128::from(point)) >> 32) as u64;
    let rounds = earliest.0.saturating_sub(phase).div_ceil(interval);
    jittered(
        Millis(phase.saturating_add(rounds.saturating_mul(interval))),
        pace.interval,
        random,
    )
}

/// `at`, moved by up to a [`JITTER`]th of `interval`.
fn jittered(at: Millis, interval: Duration, random: &mut Rng) -> Millis {
    let most = millis(interval) / JITTER;
    Millis((at.0.saturating_add(random.u64(0..=2 * most))).saturating_sub(most))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis())
        .unwrap_or(u64::MAX / 4)
        .clamp(1, u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace {
        interval: Duration::from_millis(2000),
        fast: Duration::from_millis(500),
    };

    fn schedule(backends: u64, seed: u64) -> (Schedule, Rng) {
        let mut random = Rng::with_seed(seed);
        let mut schedule = Schedule::new(PACE, &mut random);
        (0..backends).for_each(|id| schedule.add(Id(id), Millis(10_000)));
        (schedule, random)
    }

    /// Probes that take no time, from 10 s on: when each began.
    fn run(schedule: &mut Schedule, random: &mut Rng, until: u64, changing: bool) -> Vec<(u64, u64)> {
        let mut starts = Vec::new();
        while let Some(due) = schedule.next_due().filter(|due| due.0 < until) {
            let started = schedule.start(due).expect("it is due");
            starts.push((due.0, started.id.0));
            schedule.finish(started.id, due, changing, random);
        }
        starts
    }

    #[test]
    fn everybody_is_due_at_once_and_then_spread_over_the_interval() {
        for backends in [3, 10, 100, 1000] {
            let (mut schedule, mut random) = schedule(backends, backends);
            let starts = run(&mut schedule, &mut random, 60_000, false);
            let first = starts.iter().filter(|(at, _)| *at == 10_000).count() as u64;
            assert_eq!(first, backends);
            // Any fifth of an interval, long after the start, has its share.
            for from in (20_000..50_000).step_by(400) {
                let count = starts
                    .iter()
                    .filter(|(at, _)| (from..from + 400).contains(at))
                    .count() as u64;
                let share = backends.div_ceil(5);
                assert!(count <= share + share / 2 + 1, "{count} of {backends} at {from}");
            }
        }
    }

    #[test]
    fn jitter_stays_within_its_bound_and_does_not_add_up() {
        let (mut schedule, mut random) = schedule(1, 7);
        let starts = run(&mut schedule, &mut random, 2_000_000, false);
        let point = starts[1].0 % 2000;
        let mut moved = std::collections::HashSet::new();
        for pair in starts[1..].windows(2) {
            let gap = pair[1].0 - pair[0].0;
            assert!((1800..=2200).contains(&gap), "{gap}");
            let off = (pair[1].0 + 3000 - point) % 2000;
            assert!((800..=1200).contains(&off), "{off} from its point");
            moved.insert(gap);
        }
        assert!(moved.len() > 50, "only {} different gaps", moved.len());
    }

    #[test]
    fn a_change_is_followed_at_the_fast_interval() {
        let (mut schedule, mut random) = schedule(1, 1);
        let starts = run(&mut schedule, &mut random, 60_000, true);
        for pair in starts.windows(2) {
            let gap = pair[1].0 - pair[0].0;
            assert!((475..=525).contains(&gap), "{gap}");
        }
    }

    #[test]
    fn an_asked_probe_is_due_at_once_and_the_next_one_a_little_later() {
        let (mut schedule, mut random) = schedule(1, 1);
        let id = Id(0);
        assert!(!schedule.start(Millis(10_000)).expect("the first").asked);
        // While one is under way, another one is wanted.
        schedule.ask(id, Millis(10_001));
        assert_eq!(schedule.next_due(), None);
        schedule.finish(id, Millis(10_002), false, &mut random);
        assert_eq!(schedule.start(Millis(10_002)), Some(Started { id, asked: true }));
        schedule.finish(id, Millis(10_003), false, &mut random);
        assert!(
            schedule.next_due() > Some(Millis(10_900)),
            "{:?}",
            schedule.next_due()
        );
        schedule.ask(id, Millis(10_004));
        schedule.ask(id, Millis(10_005));
        assert_eq!(schedule.next_due(), Some(Millis(10_102)));
        assert_eq!(schedule.start(Millis(10_101)), None);
        assert!(schedule.start(Millis(10_102)).expect("due").asked);
        schedule.finish(id, Millis(10_103), false, &mut random);
        schedule.ask(id, Millis(10_300));
        assert_eq!(schedule.next_due(), Some(Millis(10_300)));
    }

    #[test]
    fn a_new_pace_counts_at_once_and_who_is_removed_is_not_probed() {
        let (mut schedule, mut random) = schedule(20, 3);
        run(&mut schedule, &mut random, 10_001, false);
        let fast = Pace {
            interval: Duration::from_millis(100),
            fast: Duration::from_millis(50),
        };
        schedule.set_pace(fast, Millis(10_001), &mut random);
        let starts = run(&mut schedule, &mut random, 10_107, false);
        assert!(
            (0..20).all(|id| starts.iter().any(|start| start.1 == id)),
            "{starts:?}"
        );
        let under_way = schedule.start(Millis(20_000)).expect("one is due").id;
        (0..20).for_each(|id| schedule.remove(Id(id)));
        schedule.finish(under_way, Millis(20_001), false, &mut random);
        assert_eq!((schedule.next_due(), schedule.contains(under_way)), (None, false));
    }

    proptest! {
        /// However long probes take, whoever asks, whatever changes, and with few places: everybody gets a turn in time, and
        /// has one probe under way at the most.
        #[test]
        fn nobody_starves(
            backends in 1u64..60,
            places in 1usize..8,
            took_max in 1u64..1000,
            asks in 0u32..10,
            seed in any::<u64>(),
        ) {
            let (mut schedule, mut random) = schedule(backends, seed);
            let mut under_way: Vec<(Millis, Id)> = Vec::new();
            let mut last = vec![10_000u64; backends as usize];
            // Everybody before it in the queue, each as slow as can be, on top of an interval and a half.
            let bound = 3200 + (backends / places as u64 + 2) * (took_max + 20);
            let mut now = Millis(10_000);
            while now.0 < 60_000 {
                under_way.retain(|(end, id)| {
                    if *end <= now {
                        let changing = random.bool();
                        schedule.finish(*id, now, changing, &mut random);
                    }
                    *end > now
                });
                for _ in 0..random.u32(0..=asks) {
                    schedule.ask(Id(random.u64(0..backends)), now);
                }
                while under_way.len() < places {
                    let Some(started) = schedule.start(now) else { break };
                    prop_assert!(under_way.iter().all(|(_, id)| *id != started.id));
                    last[started.id.0 as usize] = now.0;
                    under_way.push((now + Duration::from_millis(random.u64(1..=took_max)), started.id));
                }
                for (id, began) in last.iter().enumerate() {
                    prop_assert!(now.0 - began <= bound, "{} waits since {} at {}", id, began, now.0);
                }
                now = now + Duration::from_millis(random.u64(1..20));
            }
        }
    }
}

//! `[rate_limit]`: requests per time and key, by GCRA (ITU-T I.371; the leaky bucket as a meter) in a table that all workers
//! share.
//!
//! A key's whole state is its *theoretical arrival time*: when it would next be on time if it had kept to its rate. Every
//! admitted request moves that on by `per / requests`; a request is admitted while it stays within `burst` such steps of
//! now. What lies ahead of now is the key's debt.
//!
//! The table has `max_keys`, rounded up to a power of two, cells of 16 bytes: 1 MiB for the default 65,536. Four cells on one
//! cache line are a set; a key's hash, with a secret of the process, says which set it may stand in. A cell is two atomics, the
//! key's fingerprint (all 64 bits of the hash) and its arrival time, and there is no lock. Two keys with the same 64 bits
//! would share their limit.
//!
//! A new key takes the cell of its set that is least in debt, *with that debt*. While there is a cell without debt that is the
//! same as starting fresh, and it forgets nothing of the key that stood there. If all four are in debt, the newcomer begins
//! with the smallest debt of the four, and the key that it displaces does likewise when it comes back. So a full
//! table is strict to newcomers, never lax: no flood of keys lets anybody have more than their limit, as no debt is
//! ever dropped, and a set never admits more than its four cells may.
//!
//! A cell is claimed and paid in two steps. Between them another worker may claim it too; then one request of either key is
//! paid by the other. That needs two workers in the same set within nanoseconds, and costs one step.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::IpNet;

use super::{Secret, hash_bytes, hash_subscriber};
use crate::config::model::{self, RateKey};

/// Cells of a set: one cache line.
const WAYS: usize = 4;
/// Attempts at an exchange of the arrival time; each that fails means that another worker's request was counted.
const TRIES_MAX: usize = 64;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Admitted {
        /// Requests that might follow at once.
        remaining: u32,
        /// Nanoseconds until the whole burst might come at once again.
        reset: u64,
    },
    Limited {
        /// Nanoseconds until a request is admitted again, if none comes before.
        retry_after: u64,
    },
}

/// The figures of `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11 §3, §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// `q`: requests per window.
    pub quota: u32,
    /// `w`: the window, in seconds; at least 1.
    pub window: u64,
    /// `r`: how many of the quota are left; never more than the quota.
    pub remaining: u32,
    /// `t`: seconds within which the client should not use more than that; at least 1.
    pub reset: u64,
}

/// Both header lines, each with its CRLF.
impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fields {
            quota,
            window,
            remaining,
            reset,
        } = self;
        write!(f, "RateLimit-Policy: \"default\";q={quota};w={window}\r\n")?;
        write!(f, "RateLimit: \"default\";r={remaining};t={reset}\r\n")
    }
}

#[derive(Debug, Default)]
struct Cell {
    /// The key's hash; 0: nobody was here yet.
    key: AtomicU64,
    /// The theoretical arrival time, in the caller's nanoseconds.
    arrival: AtomicU64,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Cell; WAYS]);

/// One limit and the state of every key it counts.
#[derive(Debug)]
pub struct RateTable {
    sets: Box<[Set]>,
    secret: Secret,
    /// Nanoseconds between two requests at the limit.
    step: u64,
    /// Nanoseconds that a key may be ahead of now, its own request included.
    allowance: u64,
    quota: u32,
    window: u64,
    key: RateKey,
    exempt: Vec<IpNet>,
}

impl RateTable {
    /// None if there is no limit.
    ///
    /// Rates hold to within 1 % up to 50 million requests a second (a step of 20 ns).
    pub fn new(settings: &model::RateLimit, secret: Secret) -> Option<Self> {
        let requests = settings.requests?.max(1);
        let per = u64::try_from(settings.per.as_nanos()).unwrap_or(u64::MAX);
        let requests_wide = u64::from(requests);
        let step = (per / 2).min(requests_wide / 2).saturating_add(per) / requests_wide;
        let step = step.max(1);
        // A policy speaks of whole seconds.
        let window = per.div_ceil(NANOS_PER_SECOND).max(1);
        let per_window = u128::from(requests_wide) * u128::from(window) * u128::from(NANOS_PER_SECOND);
        let quota = u32::try_from(per_window / u128::from(per.max(1))).unwrap_or(u32::MAX);
        let sets = (settings.max_keys as usize).next_power_of_two().max(WAYS) / WAYS;
        Some(RateTable {
            sets: std::iter::repeat_with(Set::default).take(sets).collect(),
            secret,
            step,
            // Far below what an addition to any clock could overflow at.
            allowance: step
                .saturating_mul(u64::from(settings.burst.max(1)))
                .min(u64::MAX / 4),
            quota: quota.max(1),
            window,
            key: settings.key.clone(),
            exempt: settings.exempt.clone(),
        })
    }

    /// The hash of what a request is counted by; none: no limit holds it. `field` gives the value of the request's field of
    /// that name. Without one, and under `key = "ip"`, it is the client's address (IPv6: its /64); a client without an
    /// address (a Unix socket) is not limited by it.
    pub fn key<'a>(
        &self,
        client: Option<IpAddr>,
        field: impl FnOnce(&str) -> Option<&'a [u8]>,
    ) -> Option<u64> {
        if let Some(client) = client.map(|client| client.to_canonical())
            && self.exempt.iter().any(|network| network.contains(&client))
        {
            return None;
        }
        if let RateKey::Header(name) = &self.key
            && let Some(value) = field(name)
            && !value.is_empty()
        {
            return Some(hash_bytes(value, self.secret));
        }
        client.map(|client| hash_subscriber(client, self.secret))
    }

    /// Counts one request of a key, if it is within the limit. `now`: nanoseconds since any fixed moment; what differs
    /// between workers is forgiven or owed.
    pub fn check(&self, key: u64, now: u64) -> Verdict {
        let cell = self.cell(key, now);
        let mut arrival = cell.arrival.load(Ordering::Relaxed);
        for _ in 0..TRIES_MAX {
            let next = arrival.max(now).saturating_add(self.step);
            let ahead = next - now;
            if ahead > self.allowance {
                return Verdict::Limited {
                    retry_after: ahead - self.allowance,
                };
            }
            match cell
                .arrival
                .compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return self.admitted(ahead),
                Err(other) => arrival = other,
            }
        }
        // So many others were counted meanwhile that its arrival time is not behind now: the sum is right.
        let before = cell.arrival.fetch_add(self.step, Ordering::Relaxed);
        self.admitted(
            before
                .max(now)
                .saturating_add(self.step)
                .saturating_sub(now)
                .min(self.allowance),
        )
    }

    fn admitted(&self, ahead: u64) -> Verdict {
        let remaining = (self.allowance - ahead) / self.step;
        Verdict::Admitted {
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            reset: ahead,
        }
    }

    /// The cell that counts `key`, claimed if need be.
    #[inline]
    fn cell(&self, key: u64, now: u64) -> &Cell {
        let key = key.max(1);
        let Set(cells) = self.set(key);
        if let Some(cell) = cells.iter().find(|cell| cell.key.load(Ordering::Relaxed) == key) {
            return cell;
        }
        Self::claim(cells, key, now)
    }

    fn claim(cells: &[Cell; WAYS], key: u64, now: u64) -> &Cell {
        let mut chosen = &cells[0];
        for _ in 0..WAYS {
            let (mut owner, mut least) = (0, u64::MAX);
            for cell in cells {
                let there = cell.key.load(Ordering::Relaxed);
                if there == key {
                    return cell;
                }
                // Whoever is behind now has no debt, however long ago that was; an untouched cell goes first.
                let debt = match there {
                    0 => 0,
                    _ => cell.arrival.load(Ordering::Relaxed).saturating_sub(now) + 1,
                };
                if debt < least {
                    (owner, least, chosen) = (there, debt, cell);
                }
            }
            let claimed = chosen
                .key
                .compare_exchange(owner, key, Ordering::Relaxed, Ordering::Relaxed);
            if claimed.is_ok() {
                break;
            }
        }
        // If it was lost every time, this one request is counted on whoever has it now.
        chosen
    }

    fn set(&self, key: u64) -> &Set {
        // The number of sets is a power of two.
        &self.sets[key as usize & (self.sets.len() - 1)]
    }

    /// What is told to a client.
    ///
    /// The policy is the rate: a burst may be larger than the quota of a window, and is not advertised. With nothing left,
    /// `reset` is when the next request would be admitted; else when the burst is whole again.
    pub fn fields(&self, verdict: Verdict) -> Fields {
        let (remaining, nanos) = match verdict {
            Verdict::Admitted { remaining: 0, reset } => {
                (0, reset.saturating_add(self.step).saturating_sub(self.allowance))
            }
            Verdict::Admitted { remaining, reset } => (remaining, reset),
            Verdict::Limited { retry_after } => (0, retry_after),
        };
        Fields {
            quota: self.quota,
            window: self.window,
            remaining: remaining.min(self.quota),
            reset: seconds(nanos),
        }
    }
}

/// Whole seconds for a header: rounded up, at least 1.
pub fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(NANOS_PER_SECOND).max(1)
}

/// Nanoseconds between two moments, for [`RateTable::check`].
pub fn nanos(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = NANOS_PER_SECOND;
    const SECRET: Secret = [3, 4];

    fn settings(requests: u32, per: Duration, burst: u32) -> model::RateLimit {
        model::RateLimit {
            requests: Some(requests),
            per,
            burst,
            ..model::RateLimit::default()
        }
    }

    fn table(requests: u32, per: Duration, burst: u32) -> RateTable {
        RateTable::new(&settings(requests, per, burst), SECRET).expect("a limit")
    }

    fn is_admitted(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Admitted { .. })
    }

    #[test]
    fn no_requests_is_no_limit() {
        assert!(RateTable::new(&model::RateLimit::default(), SECRET).is_none());
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let table = table(100, Duration::from_secs(1), 200);
        let now = 50 * SECOND;
        for left in (0..200).rev() {
            let verdict = table.check(7, now);
            assert_eq!(
                verdict,
                Verdict::Admitted {
                    remaining: left,
                    reset: (200 - u64::from(left)) * SECOND / 100
                }
            );
        }
        let limited = Verdict::Limited {
            retry_after: SECOND / 100,
        };
        assert_eq!(table.check(7, now), limited);
        // A refused request costs nothing.
        assert_eq!(table.check(7, now), limited);
        assert!(!is_admitted(table.check(7, now + SECOND / 100 - 1)));
        assert!(is_admitted(table.check(7, now + SECOND / 100)));
        assert!(!is_admitted(table.check(7, now + SECOND / 100)));
        // Another key has its own.
        assert!(is_admitted(table.check(8, now)));
        // Idle for long, the burst is there again and not more.
        let later = now + 3600 * SECOND;
        assert_eq!(
            (0..300).filter(|_| is_admitted(table.check(7, later))).count(),
            200
        );
    }

    #[test]
    fn what_is_told_follows_the_draft() {
        let table = table(100, Duration::from_secs(1), 200);
        let fields = |verdict| {
            let Fields {
                quota,
                window,
                remaining,
                reset,
            } = table.fields(verdict);
            (quota, window, remaining, reset)
        };
        assert_eq!(fields(table.check(1, 0)), (100, 1, 100, 1));
        for _ in 0..148 {
            table.check(1, 0);
        }
        assert_eq!(fields(table.check(1, 0)), (100, 1, 50, 2));
        for _ in 0..49 {
            table.check(1, 0);
        }
        assert_eq!(fields(table.check(1, 0)), (100, 1, 0, 1));
        assert_eq!(fields(table.check(1, 0)), (100, 1, 0, 1));
        // Windows are whole seconds.
        let odd = RateTable::new(&settings(3, Duration::from_millis(1500), 3), SECRET).expect("a limit");
        let fields = odd.fields(odd.check(1, 0));
        assert_eq!((fields.quota, fields.window), (4, 2));
        let slow = RateTable::new(&settings(1, Duration::from_secs(3600), 1), SECRET).expect("a limit");
        slow.check(1, 0);
        assert_eq!(slow.fields(slow.check(1, 0)).reset, 3600);
    }

    #[test]
    fn who_is_counted() {
        let mut settings = settings(1, Duration::from_secs(1), 1);
        settings.exempt = vec!["10.0.0.0/8".parse().expect("a network")];
        let by_address = RateTable::new(&settings, SECRET).expect("a limit");
        settings.key = RateKey::Header("x-api-key".to_owned());
        let by_header = RateTable::new(&settings, SECRET).expect("a limit");
        let address = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));
        let none = |_: &str| None;
        let key = |text| by_address.key(address(text), none);
        assert_eq!(key("10.1.2.3"), None);
        assert_eq!(key("::ffff:10.1.2.3"), None);
        assert_eq!(by_address.key(None, none), None);
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));

        let with = |client, value: &'static [u8]| {
            by_header.key(address(client), |name| {
                assert_eq!(name, "x-api-key");
                Some(value)
            })
        };
        assert_eq!(with("192.0.2.1", b"a"), with("192.0.2.2", b"a"));
        assert_ne!(with("192.0.2.1", b"a"), with("192.0.2.1", b"b"));
        assert_eq!(with("10.1.2.3", b"a"), None);
        // Who sends none is known by address: leaving it out is no way around.
        assert_eq!(with("192.0.2.1", b""), key("192.0.2.1"));
        assert_eq!(by_header.key(address("192.0.2.1"), none), key("192.0.2.1"));
    }

    /// Keys that all belong to the same set.
    fn neighbours(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|n| n << 32)
    }

    #[test]
    fn a_cell_without_debt_is_replaced_first() {
        let table = table(10, Duration::from_secs(1), 10);
        for key in neighbours(4) {
            for _ in 0..key >> 32 {
                table.check(key, 0);
            }
        }
        // At 0.25 s the first two have paid; the fifth and the sixth start fresh, and the others still owe.
        let now = SECOND / 4;
        for key in neighbours(6).skip(4) {
            assert!(
                matches!(table.check(key, now), Verdict::Admitted { remaining: 9, .. }),
                "{key:#x}"
            );
        }
        assert!(matches!(
            table.check(3 << 32, now),
            Verdict::Admitted { remaining: 8, .. }
        ));
        assert!(matches!(
            table.check(4 << 32, now),
            Verdict::Admitted { remaining: 7, .. }
        ));
    }

    #[test]
    fn in_a_full_set_a_newcomer_takes_over_the_smallest_debt() {
        let table = table(10, Duration::from_secs(1), 10);
        for key in neighbours(4) {
            for _ in 0..4 + (key >> 32) {
                table.check(key, 0);
            }
        }
        // Debts are 5, 6, 7, 8.
        assert!(matches!(
            table.check(5 << 32, 0),
            Verdict::Admitted { remaining: 4, .. }
        ));
        // Whoever was displaced does not get a new burst: it goes on where the least indebted is.
        assert!(matches!(
            table.check(1 << 32, 0),
            Verdict::Admitted { remaining: 3, .. }
        ));
        // Who owes most is not displaced by a flood: its debt stays, as does everybody's sum.
        let flood = neighbours(10_000)
            .skip(10)
            .filter(|&key| is_admitted(table.check(key, 0)))
            .count();
        // 40 may be owed: 26 were, then 2 more.
        assert_eq!(flood, 40 - 28);
        assert!(!is_admitted(table.check(4 << 32, 0)));
    }

    #[test]
    fn a_table_full_of_keys_admits_no_more_than_its_cells_may() {
        let mut settings = settings(10, Duration::from_secs(1), 10);
        settings.max_keys = 64;
        let table = RateTable::new(&settings, SECRET).expect("a limit");
        assert_eq!(size_of_val(&*table.sets), 64 * 16);
        let mut rng = fastrand::Rng::with_seed(1);
        let admitted = (0..200_000)
            .filter(|n| is_admitted(table.check(rng.u64(..), n * SECOND / 100_000)))
            .count();
        // For 2 s: the bursts and the rate of 64 cells.
        assert!(admitted <= 64 * (10 + 20), "{admitted}");
        assert!(admitted >= 64 * (10 + 20) * 9 / 10, "{admitted}");
    }

    #[test]
    fn figures_at_the_ends_do_not_overflow() {
        for (requests, per, burst) in [
            (u32::MAX, Duration::from_nanos(1), u32::MAX),
            (1, Duration::MAX, u32::MAX),
            (1, Duration::ZERO, 1),
        ] {
            let table = table(requests, per, burst);
            for now in [0, 1, u64::MAX / 2, u64::MAX] {
                let verdict = table.check(1, now);
                table.fields(verdict);
            }
        }
        let fast = table(30_000_000, Duration::from_secs(1), 1);
        assert!((32..=34).contains(&fast.step));
    }

    /// Two threads hammer one key for `length` of `clock`; gives what was admitted.
    fn hammer(table: &RateTable, clock: impl Fn(usize, u64) -> Option<u64> + Sync) -> u64 {
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            let threads = [0, 1].map(|thread| {
                let (barrier, clock) = (&barrier, &clock);
                scope.spawn(move || {
                    barrier.wait();
                    (0..)
                        .map_while(|turn| clock(thread, turn))
                        .filter(|&now| is_admitted(table.check(9, now)))
                        .count() as u64
                })
            });
            threads
                .map(|thread| thread.join().expect("no panic"))
                .iter()
                .sum()
        })
    }

    fn within_two_per_cent(admitted: u64, expected: u64) {
        let error = admitted.abs_diff(expected) as f64 / expected as f64;
        assert!(error <= 0.02, "{admitted} for {expected}");
    }

    #[test]
    fn two_workers_admit_the_rate_in_virtual_time() {
        let table = table(1000, Duration::from_secs(1), 10);
        // Each asks 50,000 times a second for 10 s; a thread that runs ahead of the other waits for it.
        let turns = [AtomicU64::new(0), AtomicU64::new(0)];
        let admitted = hammer(&table, |thread, turn| {
            turns[thread].store(turn, Ordering::Relaxed);
            if turn == 500_000 {
                turns[thread].store(u64::MAX, Ordering::Relaxed);
                return None;
            }
            while turn > turns[1 - thread].load(Ordering::Relaxed).saturating_add(50) {
                std::thread::yield_now();
            }
            Some(turn * 20_000)
        });
        within_two_per_cent(admitted, 10_000 + 10);
    }

    #[test]
    fn two_workers_admit_the_rate_in_real_time() {
        // A burst that lasts longer than a busy machine takes the threads off their cores.
        let table = table(20_000, Duration::from_secs(1), 20_000);
        let (start, last) = (Instant::now(), AtomicU64::new(0));
        let length = Duration::from_millis(500);
        let mut admitted = hammer(&table, |_, _| {
            let passed = start.elapsed();
            last.fetch_max(nanos(passed), Ordering::Relaxed);
            (passed < length).then(|| nanos(passed))
        });
        let end = last.into_inner();
        admitted += (0..30_000).filter(|_| is_admitted(table.check(9, end))).count() as u64;
        within_two_per_cent(admitted - 20_000, end / (SECOND / 20_000));
    }

    #[test]
    fn the_sum_is_exact_when_many_threads_meet() {
        let table = table(1, Duration::from_secs(3600), 5_000);
        let barrier = Barrier::new(4);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        (0..20_000).filter(|_| is_admitted(table.check(3, 0))).count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        // One worker at a time may be past its last try.
        assert!((5_000..=5_003).contains(&admitted), "{admitted}");
    }

    /// The textbook's: a level that drains at the rate.
    struct LeakyBucket {
        step: u64,
        burst: u64,
        level: u64,
        last: u64,
    }

    impl LeakyBucket {
        fn check(&mut self, now: u64) -> bool {
            self.level = self.level.saturating_sub(now - self.last);
            self.last = now;
            let fits = self.level + self.step <= self.burst * self.step;
            if fits {
                self.level += self.step;
            }
            fits
        }
    }

    proptest! {
        #[test]
        fn it_decides_as_the_simple_one(
            requests in 1u32..1000,
            per_ms in 1u64..10_000,
            burst in 1u32..50,
            gaps in proptest::collection::vec((0u64..3, 0u64..200_000_000), 1..300),
        ) {
            let table = table(requests, Duration::from_millis(per_ms), burst);
            let (step, burst) = (table.step, u64::from(burst));
            let mut simple = [0, 1, 2].map(|_| LeakyBucket { step, burst, level: 0, last: 0 });
            let mut now = 0;
            for (key, gap) in gaps {
                now += gap;
                let expected = simple[key as usize].check(now);
                prop_assert_eq!(is_admitted(table.check(key + 1, now)), expected);
            }
        }
    }
}

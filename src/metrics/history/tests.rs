use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::balance::breaker;
use crate::clock::Span;
use crate::metrics::Phases;
use crate::metrics::histogram::Fine;

const UP: BackendState = BackendState {
    healthy: true,
    eligible: true,
    in_flight: 3,
    condition: "up",
    breaker: breaker::State::Closed,
    breaker_openings: 0,
    ejections: 0,
};

/// Shards, backends, a history of them, and a clock that only the test moves.
struct Stand {
    shards: Vec<Arc<Shard>>,
    info: Info,
    history: History,
    now: Instant,
    wall: SystemTime,
}

impl Stand {
    fn new(workers: usize, backends: usize) -> Stand {
        let now = Instant::now();
        let names = (0..backends).map(|index| format!("b{index}"));
        Stand {
            shards: (0..workers).map(|number| Arc::new(Shard::new(number))).collect(),
            info: Info {
                backends: names.map(|name| backend(&name, workers)).collect(),
                pool: "default".to_owned(),
                drivers: Vec::new(),
                algorithm: "round-robin".to_owned(),
                started: now,
            },
            history: History::new(now),
            now,
            wall: UNIX_EPOCH + Duration::from_secs(1_000_000),
        }
    }

    fn answer(&self, worker: usize, backend: usize, status: u16, us: u64) {
        let shard = &self.shards[worker];
        let counts = &self.info.backends[backend].counts;
        shard.exchange_received();
        shard.selection(counts, false);
        shard.attempt(counts, Some(status), Duration::from_micros(us));
    }

    fn pass(&mut self, span: Duration) -> u64 {
        self.now += span;
        self.wall += span;
        self.history
            .tick(self.now, self.wall, &self.shards, &self.info, |_| UP)
    }

    fn second(&mut self) {
        assert_eq!(self.pass(TICK), 0);
    }

    fn last(&self) -> &Row {
        self.history.last().expect("a row")
    }

    fn window(&self, backend: Option<&str>, seconds: u64) -> (Distribution, Duration) {
        let window = self
            .history
            .window(backend, Series::Total, Duration::from_secs(seconds));
        window.expect("a window")
    }

    fn count(&self, backend: Option<&str>, seconds: u64) -> u64 {
        self.window(backend, seconds).0.count
    }
}

fn backend(name: &str, workers: usize) -> BackendInfo {
    BackendInfo {
        url: format!("http://{name}"),
        name: name.to_owned(),
        counts: Arc::new(BackendCounts::new(workers)),
    }
}

/// What one worker that saw just these would show.
fn distribution(values: impl IntoIterator<Item = u64>) -> Distribution {
    let histogram = Fine::new();
    for us in values {
        histogram.record(Duration::from_micros(us));
    }
    let mut merged = Merged::new();
    merged.add(&histogram);
    merged.distribution()
}

proptest! {
    /// Four workers, three backends: the window of the last n seconds is one histogram that saw just what they recorded in
    /// these seconds, whatever came before.
    #[test]
    fn a_window_is_the_histogram_of_its_seconds(
        seconds in vec(vec((0..4_usize, 0..3_usize, 1..10_000_000_u64), 0..40), 1..6),
        last in 1..6_usize,
    ) {
        let mut stand = Stand::new(4, 3);
        for second in &seconds {
            for &(worker, backend, us) in second {
                stand.answer(worker, backend, 200, us);
            }
            stand.second();
        }
        let from = seconds.len().saturating_sub(last);
        let within = || seconds[from..].iter().flatten();
        let (all, covered) = stand.window(None, last as u64);
        let expected = distribution(within().map(|(_, _, us)| *us));
        prop_assert!(all.cells().eq(expected.cells()));
        prop_assert_eq!(all.sum_ns, expected.sum_ns);
        prop_assert_eq!(covered, TICK * (seconds.len() - from) as u32);
        for index in 0..3_usize {
            let (one, _) = stand.window(Some(&format!("b{index}")), last as u64);
            let values = within().filter(|(_, backend, _)| *backend == index).map(|(_, _, us)| *us);
            prop_assert!(one.cells().eq(distribution(values).cells()));
        }
        for (row, second) in stand.history.rows(0).zip(&seconds) {
            let count = second.len() as u64;
            prop_assert_eq!((row.requests, row.attempts, row.latency.count), (count, count, count));
            let exact = distribution(second.iter().map(|(_, _, us)| *us));
            let largest = exact.max_ns / 1_000;
            prop_assert!(row.max >= largest && row.max <= largest + largest / 1_000 + 1);
            for (share, us) in [(0.5, row.p50), (0.9, row.p90), (0.99, row.p99), (0.999, row.p999)] {
                let expected = exact.quantile_ns(share) / 1_000;
                // Of the slowest of all, a row may know no more than its cell.
                prop_assert!(us == expected || (expected == largest && us == row.max), "{us} {expected}");
            }
        }
    }

    #[test]
    fn a_heat_map_counts_every_value_in_its_bucket(values in vec(0..3_600_000_000_u64, 0..100)) {
        let mut stand = Stand::new(1, 1);
        values.iter().for_each(|us| stand.answer(0, 0, 200, *us));
        stand.second();
        let shown = serde_json::to_value(stand.last()).unwrap()["heat"].clone();
        let shown: Vec<(u64, u64)> = serde_json::from_value(shown).unwrap();
        // As the page has it.
        let lowest = |bucket: u64| if bucket < 4 { bucket } else { (4 + bucket % 4) << (bucket / 4 - 1) };
        for &(bucket, count) in &shown {
            let inside = values.iter().filter(|us| (lowest(bucket)..lowest(bucket + 1)).contains(us));
            prop_assert_eq!(inside.count() as u64, count, "{}", bucket);
        }
        prop_assert_eq!(shown.iter().map(|(_, count)| count).sum::<u64>(), values.len() as u64);
    }
}

#[test]
fn rows_added_up_give_the_percentiles_of_the_whole_time() {
    let mut stand = Stand::new(1, 1);
    for us in [100, 100, 100, 90_000] {
        stand.answer(0, 0, 200, us);
        stand.second();
    }
    let mut sum = Merged::<128>::new();
    stand.history.rows(0).for_each(|row| row.latency.add_to(&mut sum));
    // An average of the four rows' medians would be 22 ms.
    assert_eq!(sum.quantiles([0.5, 1.0]), [100_000, 90_000_000]);
}

#[test]
fn errors_are_told_apart_by_who_saw_them() {
    let mut stand = Stand::new(2, 2);
    stand.answer(0, 0, 200, 5);
    stand.answer(1, 0, 503, 5);
    stand.answer(1, 1, 404, 5);
    let counts = stand.info.backends[1].counts.clone();
    stand.shards[0].selection(&counts, true);
    stand.shards[0].attempt(&counts, None, Duration::from_secs(1));
    stand.shards[0].own_answer(Reason::NoBackend);
    stand.shards[0].own_answer(Reason::BadRequest);
    stand.shards[0].connection_opened();
    stand.second();
    let row = stand.last();
    assert_eq!((row.requests, row.attempts, row.retries), (3, 4, 1));
    assert_eq!((row.errors, row.own_errors, row.failures), (2, 1, 1));
    assert_eq!((&*row.by_worker, &*row.connections), (&[1, 2][..], &[1, 0][..]));
    stand.second();
    let row = stand.last();
    assert_eq!((row.attempts, row.errors, row.failures), (0, 0, 0));
    assert_eq!(row.by_worker, [0, 0]);
    assert_eq!(stand.history.requests(), 3);
    let of = |name: &str| *stand.history.backend_rows(name, 0).unwrap().next().unwrap().1;
    assert_eq!(
        (of("b0").attempts, of("b0").failures, of("b0").selections),
        (2, 1, 2)
    );
    assert_eq!(
        (of("b1").attempts, of("b1").failures, of("b1").selections),
        (2, 1, 2)
    );
    assert_eq!((of("b0").in_flight, of("b0").state, of("b0").p99), (3, "up", 5));
    let now = stand.history.backend_now("b0").unwrap();
    assert_eq!((now.attempts, now.server_errors, now.failures), (2, 1, 0));
    assert_eq!(now.p99_ns, 5_000);
}

#[test]
fn phases_have_windows_of_their_own() {
    let mut stand = Stand::new(2, 1);
    for (worker, us) in [(0, 70), (1, 900)] {
        let phases = Phases {
            weir: Some(Span(us * 1_000)),
            ..Phases::default()
        };
        stand.shards[worker].phases(&stand.info.backends[0].counts, &phases);
        stand.second();
    }
    let window = |series, seconds| {
        let span = Duration::from_secs(seconds);
        stand.history.window(Some("b0"), series, span).unwrap().0
    };
    assert_eq!(window(Series::Weir, 1).count, 1);
    assert_eq!(window(Series::Weir, 2).sum_ns, 970_000);
    assert_eq!(window(Series::Weir, 60).digits(), 2);
    assert_eq!(window(Series::Connect, 60).count, 0);
    assert_eq!(window(Series::Total, 60).count, 0);
}

#[test]
fn a_late_tick_makes_a_long_second_and_is_counted() {
    let mut stand = Stand::new(1, 1);
    stand.answer(0, 0, 200, 10);
    stand.second();
    stand.answer(0, 0, 200, 20);
    assert_eq!(stand.pass(Duration::from_millis(4_100)), 3);
    assert_eq!(stand.history.missed(), 3);
    assert_eq!(stand.last().ms, 4_100);
    let (window, covered) = stand.window(None, 1);
    assert_eq!((window.count, covered), (1, Duration::from_millis(4_100)));
    assert_eq!(stand.count(None, 5), 2);
    // A little late is not late: the second before still belongs to the last two.
    for _ in 0..3 {
        stand.answer(0, 0, 200, 30);
        assert_eq!(stand.pass(Duration::from_millis(1_010)), 0);
    }
    assert_eq!(stand.count(None, 2), 2);
}

#[test]
fn a_backend_that_goes_takes_its_rows_with_it() {
    let mut stand = Stand::new(1, 2);
    stand.answer(0, 0, 200, 10);
    stand.answer(0, 1, 200, 20);
    stand.second();
    stand.info.backends.remove(0);
    stand.info.backends.push(backend("b2", 1));
    stand.answer(0, 1, 200, 30);
    stand.second();
    let numbers = |stand: &Stand, name: &str| -> Option<Vec<u64>> {
        let rows = stand.history.backend_rows(name, 0)?;
        Some(rows.map(|(number, _)| number).collect())
    };
    assert_eq!(numbers(&stand, "b0"), None);
    assert!(stand.history.window(Some("b0"), Series::Total, TICK).is_none());
    assert_eq!(numbers(&stand, "b1"), Some(vec![0, 1]));
    assert_eq!(numbers(&stand, "b2"), Some(vec![1]));
    assert!(
        stand
            .window(None, 60)
            .0
            .cells()
            .eq(distribution([20, 30]).cells())
    );
    // Its name comes back with other counters: it begins anew.
    stand.info.backends.push(backend("b0", 1));
    stand.second();
    assert_eq!(numbers(&stand, "b0"), Some(vec![2]));
    assert_eq!(stand.count(Some("b0"), 60), 0);
}

#[test]
fn rows_and_seconds_are_bounded() {
    let mut stand = Stand::new(1, 1);
    assert!(stand.history.last().is_none());
    assert_eq!(
        stand.history.window(None, Series::Total, TICK).unwrap().0.count,
        0
    );
    for us in 1..=200 {
        stand.answer(0, 0, 200, us);
        stand.second();
    }
    let cells = |seconds| stand.window(Some("b0"), seconds).0;
    assert!(cells(3_600).cells().eq(distribution(141..=200).cells()));
    assert!(cells(0).cells().eq(distribution([200]).cells()));
    for _ in 0..ROWS {
        stand.second();
    }
    assert_eq!(stand.history.rows(0).count(), ROWS);
    assert_eq!(stand.history.backend_rows("b0", 0).unwrap().count(), ROWS);
    assert_eq!(stand.last().number, 200 + ROWS as u64 - 1);
    assert_eq!(stand.history.rows(stand.last().number).count(), 1);
}

/// What the module says of its memory: a hundred backends whose latencies fall into thousands of cells each second.
#[test]
fn a_hundred_busy_backends_stay_within_the_bound() {
    let mut stand = Stand::new(1, 100);
    let bound = 2 << 20;
    stand.history = History::within(bound, stand.now);
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..70 {
        for backend in 0..100 {
            for _ in 0..100 {
                let magnitude = random.u32(1..20);
                stand.answer(0, backend, 200, 100 + random.u64(0..1 << magnitude));
            }
        }
        stand.second();
        let tracks = stand.history.backends.iter();
        let held = tracks.flat_map(|track| track.seconds.iter().flatten());
        let held: usize = held.map(|second| second.heap_bytes()).sum();
        assert_eq!(stand.history.window_bytes, held);
        assert!(held <= bound, "{held}");
    }
    let (window, covered) = stand.window(None, 60);
    let seconds = stand.history.spans.len();
    assert!((5..60).contains(&seconds), "{seconds}");
    assert_eq!(covered, TICK * seconds as u32);
    assert_eq!(window.count, seconds as u64 * 10_000);
    // A row holds one byte or two for each cell's place and for its count.
    let row = stand.history.rows(0).map(|row| row.latency.heap_bytes()).max();
    assert!(row.is_some_and(|bytes| bytes < 10 * 1024), "{row:?}");
    assert!(size_of::<BackendRow>() <= 40);
}

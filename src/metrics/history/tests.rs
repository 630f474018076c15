use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::metrics::Phases;

const UP: Standing = Standing {
    in_flight: 3,
    state: "up",
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
        Stand {
            shards: (0..workers).map(|number| Arc::new(Shard::new(number))).collect(),
            info: Info {
                backends: (0..backends)
                    .map(|index| backend(&format!("b{index}"), workers))
                    .collect(),
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

    fn window(&self, backend: Option<&str>, seconds: u64) -> Window {
        self.history
            .window(backend, Series::Total, Duration::from_secs(seconds))
            .expect("a window")
    }
}

fn backend(name: &str, workers: usize) -> BackendInfo {
    BackendInfo {
        url: format!("http://{name}"),
        name: name.to_owned(),
        counts: Arc::new(BackendCounts::new(workers)),
    }
}

fn histogram(values: impl IntoIterator<Item = u64>) -> hdrhistogram::Histogram<u64> {
    let mut histogram = Fine::empty_hdr();
    values.into_iter().for_each(|us| histogram.record(us).unwrap());
    histogram
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
        let all = stand.window(None, last as u64);
        prop_assert_eq!(&all.histogram, &histogram(within().map(|(_, _, us)| *us)));
        prop_assert_eq!(all.sum_ns, within().map(|(_, _, us)| u128::from(*us) * 1_000).sum::<u128>());
        prop_assert_eq!(all.covered, TICK * (seconds.len() - from) as u32);
        for index in 0..3_usize {
            let one = stand.window(Some(&format!("b{index}")), last as u64);
            let values = within().filter(|(_, backend, _)| *backend == index).map(|(_, _, us)| *us);
            prop_assert_eq!(&one.histogram, &histogram(values));
        }
        for (row, second) in stand.history.rows().zip(&seconds) {
            let values = histogram(second.iter().map(|(_, _, us)| *us));
            prop_assert_eq!(row.requests, second.len() as u64);
            prop_assert_eq!(row.attempts, second.len() as u64);
            prop_assert_eq!(row.latency.count, second.len() as u64);
            let largest = second.iter().map(|(_, _, us)| us * 1_000).max().unwrap_or(0);
            prop_assert!(row.max_ns >= largest && row.max_ns <= largest + largest / 1_000 + 1_000);
            for (share, ns) in SHARES.into_iter().zip(row.percentiles) {
                prop_assert_eq!(ns, (values.value_at_quantile(share) * 1_000).min(row.max_ns));
            }
        }
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
    stand.history.rows().for_each(|row| row.latency.add_to(&mut sum));
    // An average of the four rows' medians would be 22 ms.
    assert_eq!(sum.quantiles([0.5, 1.0]), [100_000, 90_000_000]);
}

#[test]
fn errors_are_told_apart_by_who_saw_them() {
    let mut stand = Stand::new(2, 2);
    stand.answer(0, 0, 200, 5);
    stand.answer(1, 0, 503, 5);
    stand.answer(1, 1, 404, 5);
    stand.shards[0].attempt(&stand.info.backends[1].counts, None, Duration::from_secs(1));
    stand.shards[0].own_answer(Reason::NoBackend);
    stand.shards[0].own_answer(Reason::BadRequest);
    stand.second();
    stand.second();
    let rows: Vec<_> = stand.history.rows().collect();
    let errors = Errors {
        own: 1,
        backend: 1,
        failures: 1,
    };
    assert_eq!(
        (rows[0].requests, rows[0].attempts, rows[0].errors),
        (3, 4, errors)
    );
    assert_eq!((rows[1].attempts, rows[1].errors), (0, Errors::default()));
    assert_eq!(stand.history.own_answers(), 2);
    let of = |name: &str| {
        *stand
            .history
            .backend_rows(name)
            .expect("rows")
            .next()
            .expect("a row")
    };
    assert_eq!(
        (of("b0").attempts, of("b0").errors, of("b0").selections),
        (2, 1, 2)
    );
    assert_eq!(
        (of("b1").attempts, of("b1").errors, of("b1").selections),
        (2, 1, 1)
    );
    assert_eq!((of("b0").in_flight, of("b0").state), (3, "up"));
    assert_eq!(stand.history.workers()[1].requests, 2);
    assert_eq!(stand.history.workers()[1].latest, 0);
    let now = stand.history.backend_now("b0").expect("it is there");
    assert_eq!((now.attempts, now.server_errors, now.failures), (2, 1, 0));
    assert_eq!(now.p99_ns, 5_000);
}

#[test]
fn phases_have_windows_of_their_own() {
    let mut stand = Stand::new(2, 1);
    for (worker, us) in [(0, 70), (1, 900)] {
        let phases = Phases {
            weir: Some(Duration::from_micros(us)),
            ..Phases::default()
        };
        stand.shards[worker].phases(&stand.info.backends[0].counts, &phases);
        stand.second();
    }
    let window = |series, seconds| {
        let span = Duration::from_secs(seconds);
        stand.history.window(Some("b0"), series, span).expect("a window")
    };
    assert_eq!(window(Series::Weir, 1).histogram.len(), 1);
    assert_eq!(window(Series::Weir, 2).sum_ns, 970_000);
    assert_eq!(window(Series::Weir, 60).histogram.min(), 70);
    assert_eq!(window(Series::Connect, 60).histogram.len(), 0);
    assert_eq!(window(Series::Total, 60).histogram.len(), 0);
}

#[test]
fn a_late_tick_makes_a_long_second_and_is_counted() {
    let mut stand = Stand::new(1, 1);
    stand.answer(0, 0, 200, 10);
    stand.second();
    stand.answer(0, 0, 200, 20);
    assert_eq!(stand.pass(Duration::from_millis(4_100)), 3);
    assert_eq!(stand.history.missed(), 3);
    assert_eq!(
        stand.history.rows().last().expect("a row").span,
        Duration::from_millis(4_100)
    );
    let window = stand.window(None, 1);
    assert_eq!(
        (window.histogram.len(), window.covered),
        (1, Duration::from_millis(4_100))
    );
    assert_eq!(window.to.duration_since(window.from).unwrap(), window.covered);
    assert_eq!(stand.window(None, 5).histogram.len(), 2);
    // A little late is not late: the second before still belongs to the last two.
    for _ in 0..3 {
        stand.answer(0, 0, 200, 30);
        assert_eq!(stand.pass(Duration::from_millis(1_010)), 0);
    }
    assert_eq!(stand.window(None, 2).histogram.len(), 2);
}

#[test]
fn a_backend_that_goes_takes_its_rows_with_it() {
    let mut stand = Stand::new(1, 2);
    stand.answer(0, 0, 200, 10);
    stand.answer(0, 1, 200, 20);
    stand.second();
    let gone = stand.info.backends.remove(0);
    stand.info.backends.push(backend("b2", 1));
    stand.answer(0, 1, 200, 30);
    stand.second();
    assert!(stand.history.backend_rows("b0").is_none());
    assert!(stand.history.window(Some("b0"), Series::Total, TICK).is_none());
    assert_eq!(stand.history.backend_rows("b1").expect("it stayed").len(), 2);
    assert_eq!(stand.history.backend_rows("b2").expect("it came").len(), 1);
    assert_eq!(stand.window(None, 60).histogram, histogram([20, 30]));
    assert_eq!(stand.window(Some("b2"), 60).histogram, histogram([30]));
    // Its name comes back with other counters: it begins anew.
    let mut back = backend("b0", 1);
    back.url = gone.url;
    stand.info.backends.push(back);
    stand.second();
    assert_eq!(stand.history.backend_rows("b0").expect("it is back").len(), 1);
    assert_eq!(stand.window(Some("b0"), 60).histogram.len(), 0);
}

#[test]
fn there_is_no_window_before_the_first_tick_and_none_without_end() {
    let mut stand = Stand::new(1, 1);
    assert!(stand.history.window(None, Series::Total, TICK).is_none());
    for us in 1..=200 {
        stand.answer(0, 0, 200, us);
        stand.second();
    }
    assert_eq!(stand.window(None, 3_600).histogram, histogram(141..=200));
    assert_eq!(stand.window(None, 0).histogram, histogram([200]));
    assert_eq!(stand.history.rows().len(), 200);
    for _ in 0..ROWS {
        stand.second();
    }
    assert_eq!(stand.history.rows().len(), ROWS);
    assert_eq!(stand.history.backend_rows("b0").expect("rows").len(), ROWS);
    assert_eq!(
        stand.history.rows().last().expect("a row").number,
        200 + ROWS as u64 - 1
    );
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
        let history = &stand.history;
        let held = history
            .backends
            .iter()
            .flat_map(|track| track.seconds.iter().flatten());
        let held: usize = held.map(|second| second.heap_bytes()).sum();
        assert_eq!(history.window_bytes, held);
        assert!(held <= bound, "{held}");
        assert!(history.edges.len() <= SECONDS);
    }
    let window = stand.window(None, 60);
    let seconds = stand.history.edges.len();
    assert!((5..60).contains(&seconds), "{seconds}");
    assert_eq!(window.covered, TICK * seconds as u32);
    assert_eq!(window.histogram.len(), seconds as u64 * 10_000);
    // A row holds one byte or two for each cell's place and for its count.
    let row = stand.history.rows().map(|row| row.latency.heap_bytes()).max();
    assert!(row.is_some_and(|bytes| bytes < 10 * 1024), "{row:?}");
    assert!(size_of::<BackendRow>() <= 56);
}

//! What a scrape of 100 backends on 16 workers costs: 10,000 answers of each over two decades, in every format. Prints times
//! and memory, and fails past the bars: 60 ms on the control thread, 250 MB of RSS, a worker that is not slowed, 60 ns to
//! record a request.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir::balance::breaker::State;
use weir::clock::Span;
use weir::metrics::exemplar::Exemplar;
use weir::metrics::process::Process;
use weir::metrics::text::{self, Format};
use weir::metrics::{
    BackendCounts, BackendInfo, BackendState, Dropped, Info, Phases, Shard, Snapshot, families, json,
    protobuf,
};

const BACKENDS: usize = 100;
const WORKERS: usize = 16;
const SAMPLES: usize = 10_000;

const SCRAPE_MS: f64 = 60.0;
const RSS_MB: f64 = 250.0;
const RECORD_NS: f64 = 60.0;
/// What a worker may take while somebody scrapes ten times a second, by what it takes alone: what a machine's other
/// tenants do to such a figure is more than what is looked for.
const SLOWED: f64 = 1.10;

/// Scrapes of each format; the middle one counts.
const SCRAPES: usize = 31;
/// Exchanges recorded between two looks at the clock.
const BATCH: usize = 10_000;
/// Half seconds alone, and as many while somebody scrapes, in turn.
const TURNS: usize = 6;

fn main() -> ExitCode {
    // `cargo test --benches` runs this too, without optimisation.
    if cfg!(debug_assertions) {
        return ExitCode::SUCCESS;
    }
    let stand = Stand::new();
    let mut passed = true;
    let mut show = |what: &str, value: f64, unit: &str, bar: f64| {
        let verdict = if value <= bar { "PASS" } else { "FAIL" };
        println!("{what:<44} {value:>9.2} {unit:<3} bar {bar:>7.2} {verdict}");
        passed &= value <= bar;
    };
    for (format, render) in FORMATS {
        let mut times: Vec<f64> = (0..SCRAPES)
            .map(|_| {
                let begin = Instant::now();
                black_box(render(&stand.snapshot()));
                begin.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        show(&format!("scrape, {format}"), middle(&mut times), "ms", SCRAPE_MS);
    }
    let rss = Process::now().resident_bytes as f64 / 1e6;
    show("RSS after all of them", rss, "MB", RSS_MB);
    let (alone, scraped) = stand.record();
    show("recording an exchange", alone, "ns", RECORD_NS);
    show(
        "the same under 10 scrapes a second",
        scraped,
        "ns",
        alone * SLOWED,
    );
    match passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

type Render = fn(&Snapshot) -> usize;

const FORMATS: [(&str, Render); 4] = [
    ("JSON", |snapshot| {
        json::render(snapshot, Dropped::default(), &[]).map_or(0, |body| body.len())
    }),
    ("Prometheus text", |snapshot| {
        text_of(snapshot, Format::Prometheus)
    }),
    ("OpenMetrics", |snapshot| text_of(snapshot, Format::OpenMetrics)),
    ("protobuf", |snapshot| {
        protobuf::render(&families::families(snapshot, Dropped::default(), Process::now())).len()
    }),
];

fn text_of(snapshot: &Snapshot, format: Format) -> usize {
    let families = families::families(snapshot, Dropped::default(), Process::now());
    text::render(&families, format).len()
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Everything that is scraped.
struct Stand {
    shards: Vec<Arc<Shard>>,
    info: Info,
    latencies: Vec<Span>,
}

impl Stand {
    fn new() -> Stand {
        let shards: Vec<_> = (0..WORKERS).map(|number| Arc::new(Shard::new(number))).collect();
        let backends = (0..BACKENDS).map(|index| BackendInfo {
            url: format!("http://127.0.0.1:{index}"),
            name: format!("b{index}"),
            counts: Arc::new(BackendCounts::new(WORKERS)),
        });
        let stand = Stand {
            shards,
            info: Info {
                backends: backends.collect(),
                pool: "default".to_owned(),
                drivers: vec!["io_uring".to_owned(); WORKERS],
                algorithm: "round-robin".to_owned(),
                started: Instant::now(),
            },
            latencies: latencies(),
        };
        for shard in &stand.shards {
            for backend in &stand.info.backends {
                for &elapsed in &stand.latencies {
                    exchange(shard, &backend.counts, elapsed);
                }
                shard.exemplar(
                    &backend.counts,
                    &Exemplar {
                        trace_id: [7; 16],
                        elapsed_ns: 1_000_000,
                        unix_millis: 1_700_000_000_000,
                    },
                );
            }
        }
        stand
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.shards, &self.info, |_| BackendState {
            healthy: true,
            eligible: true,
            in_flight: 0,
            condition: "up",
            breaker: State::Closed,
            breaker_openings: 0,
            ejections: 0,
        })
    }

    /// Nanoseconds that a worker takes to record one exchange: alone, and while another thread scrapes.
    fn record(&self) -> (f64, f64) {
        let (scraping, done) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    if scraping.load(Ordering::Acquire) {
                        black_box(text_of(&self.snapshot(), Format::OpenMetrics));
                    }
                    thread::sleep(Duration::from_millis(100));
                }
            });
            let (mut alone, mut scraped) = (Vec::new(), Vec::new());
            for _ in 0..TURNS {
                scraping.store(false, Ordering::Release);
                // What is under way ends first.
                thread::sleep(Duration::from_millis(200));
                alone.extend(self.half_a_second());
                scraping.store(true, Ordering::Release);
                scraped.extend(self.half_a_second());
            }
            done.store(true, Ordering::Release);
            (middle(&mut alone), middle(&mut scraped))
        })
    }

    /// What each batch took for one exchange.
    fn half_a_second(&self) -> Vec<f64> {
        let (begin, mut batches) = (Instant::now(), Vec::new());
        let mut next = self
            .latencies
            .iter()
            .cycle()
            .zip(self.info.backends.iter().cycle());
        while begin.elapsed() < Duration::from_millis(500) {
            let batch = Instant::now();
            for (elapsed, backend) in next.by_ref().take(BATCH) {
                exchange(&self.shards[0], black_box(&backend.counts), black_box(*elapsed));
            }
            batches.push(batch.elapsed().as_nanos() as f64 / BATCH as f64);
        }
        batches
    }
}

/// All that a worker notes of one exchange.
fn exchange(shard: &Shard, backend: &BackendCounts, elapsed: Span) {
    shard.exchange_received();
    shard.selection(backend, false);
    shard.attempt(backend, Some(200), elapsed.into());
    shard.phases(
        backend,
        &Phases {
            first_byte: Some(elapsed),
            weir: Some(Span(elapsed.as_nanos() / 16)),
            ..Phases::default()
        },
    );
}

/// Over two decades, 100 µs to 10 ms, evenly on a logarithmic scale and in no order.
fn latencies() -> Vec<Span> {
    let spread = |n: usize| 1e5 * 100_f64.powf(n as f64 / SAMPLES as f64);
    let mut latencies: Vec<_> = (0..SAMPLES).map(|n| Span(spread(n) as u64)).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut latencies);
    latencies
}

//! What counting costs a worker (at most 60 ns a request), and what a scrape costs the control thread (at most 60 ms for
//! 100 backends on 16 workers).

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use weir::balance::breaker::State;
use weir::clock::Span;
use weir::metrics::{BackendCounts, BackendInfo, BackendState, Dropped, Info, Phases, Shard, Snapshot, json};

const BACKENDS: usize = 100;
const WORKERS: usize = 16;

/// Latencies over two decades, 100 µs to 10 ms, evenly on a logarithmic scale.
fn latencies() -> Vec<Duration> {
    let micros = (0..10_000).map(|n| 100.0 * 100_f64.powf(f64::from(n) / 10_000.0));
    let mut latencies: Vec<_> = micros
        .map(|us| Duration::from_nanos((us * 1_000.0) as u64))
        .collect();
    fastrand::Rng::with_seed(7).shuffle(&mut latencies);
    latencies
}

fn record(criterion: &mut Criterion) {
    let shard = Shard::new(0);
    let counts: Vec<_> = (0..BACKENDS).map(|_| BackendCounts::new(1)).collect();
    let latencies = latencies();
    let mut next = latencies.iter().cycle().zip(counts.iter().cycle());
    criterion.bench_function("record/attempt", |bencher| {
        bencher.iter(|| {
            let (elapsed, backend) = next.next().expect("a cycle does not end");
            shard.attempt(black_box(backend), black_box(Some(200)), black_box(*elapsed));
        });
    });
    criterion.bench_function("record/exchange", |bencher| {
        bencher.iter(|| {
            let (elapsed, backend) = next.next().expect("a cycle does not end");
            shard.exchange_received();
            shard.selection(black_box(backend), false);
            shard.attempt(black_box(backend), black_box(Some(200)), black_box(*elapsed));
            let span = Span(elapsed.as_nanos() as u64);
            shard.phases(
                black_box(backend),
                &Phases {
                    first_byte: Some(span),
                    weir: Some(Span(span.as_nanos() / 16)),
                    ..Phases::default()
                },
            );
        });
    });
}

fn scrape(criterion: &mut Criterion) {
    let latencies = latencies();
    let shards: Vec<_> = (0..WORKERS).map(|number| Arc::new(Shard::new(number))).collect();
    let info = Info {
        backends: (0..BACKENDS)
            .map(|index| BackendInfo {
                url: format!("http://127.0.0.1:{index}"),
                name: format!("b{index}"),
                counts: Arc::new(BackendCounts::new(WORKERS)),
            })
            .collect(),
        pool: "default".to_owned(),
        drivers: Vec::new(),
        algorithm: "round-robin".to_owned(),
        started: Instant::now(),
    };
    for shard in &shards {
        for backend in &info.backends {
            for elapsed in &latencies {
                shard.attempt(&backend.counts, Some(200), *elapsed);
            }
        }
    }
    let up = |_| BackendState {
        healthy: true,
        eligible: true,
        in_flight: 0,
        condition: "up",
        breaker: State::Closed,
        breaker_openings: 0,
        ejections: 0,
    };
    criterion.bench_function("scrape/100x16", |bencher| {
        bencher.iter(|| json::render(&Snapshot::take(&shards, &info, up), Dropped::default()));
    });
}

criterion_group!(benches, record, scrape);
criterion_main!(benches);

//! What counting costs a worker: at most 60 ns a request. What reading it costs: `benches/scrape.rs`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use weir::clock::Span;
use weir::metrics::{BackendCounts, Phases, Shard};

const BACKENDS: usize = 100;

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

criterion_group!(benches, record);
criterion_main!(benches);

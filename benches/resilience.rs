//! What breaker, ejection, retry budget and the p95 of a pool cost an attempt that goes well.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use weir::balance::breaker::{Breaker, Settings};
use weir::balance::budget::RetryBudget;
use weir::balance::ejection::Ejection;
use weir::balance::outcome::Outcome;
use weir::balance::outlier::Streak;
use weir::balance::tail::Tail;
use weir::clock::Millis;
use weir::config::model::Outlier;

fn resilience(criterion: &mut Criterion) {
    let mut settings = Settings {
        failure_threshold: 5,
        reset_timeout: Duration::from_secs(30),
        half_open_requests: 1,
        success_threshold: 1,
        error_rate: None,
        window: Duration::from_secs(10),
        min_volume: 20,
    };
    let breaker = Breaker::default();
    let mut attempt = |name, settings: &Settings| {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let permit = black_box(&breaker).admit(settings);
                permit.map(|permit| breaker.settle(permit, black_box(false), Millis(1_000), settings))
            });
        });
    };
    attempt("breaker", &settings);
    settings.error_rate = Some(50);
    attempt("breaker with error_rate", &settings);
    let ejection = Ejection::default();
    criterion.bench_function("ejection", |bencher| {
        bencher.iter(|| {
            let permit = black_box(&ejection).admit();
            permit.map(|permit| ejection.settle(permit, black_box(false), Millis(1_000), Duration::ZERO))
        });
    });
    let (streak, outlier) = (Streak::default(), Outlier::default());
    criterion.bench_function("streak", |bencher| {
        bencher.iter(|| black_box(&streak).record(black_box(Outcome::Status(200)), &outlier));
    });
    let mut budget = RetryBudget::new(20, 5.0, Millis(0));
    let mut requests = 0;
    criterion.bench_function("budget, 10 requests a millisecond", |bencher| {
        bencher.iter(|| {
            requests += 1;
            black_box(&mut budget).request(Millis(requests / 10));
        });
    });
    let mut tail = Tail::new();
    let mut random = fastrand::Rng::with_seed(1);
    let times: Vec<Duration> = (0..4096)
        .map(|_| Duration::from_secs_f64(0.0002 - 0.001 * random.f64().max(1e-12).ln()))
        .collect();
    let mut times = times.iter().cycle();
    criterion.bench_function("p95", |bencher| {
        bencher.iter(|| {
            black_box(&mut tail).record(times.next().copied().unwrap_or_default());
            tail.p95()
        });
    });
}

criterion_group!(benches, resilience);
criterion_main!(benches);

//! What choosing a backend costs: with 10 and 1,000 backends, alone and with a second thread at the same cursor.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use weir::balance::Strategy;
use weir::balance::liveness::Bitmap;
use weir::config::model::StrategyKind;

fn pick(criterion: &mut Criterion) {
    for backends in [10, 1000] {
        let strategy = Strategy::new(StrategyKind::RoundRobin);
        let live = Bitmap::new(backends, true);
        criterion.bench_function(&format!("pick/round-robin/{backends}"), |bencher| {
            bencher.iter(|| black_box(strategy.pick(backends, |index| live.get(index))));
        });
    }
}

fn pick_by_two(criterion: &mut Criterion) {
    let strategy = Strategy::new(StrategyKind::RoundRobin);
    let live = Bitmap::new(10, true);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                black_box(strategy.pick(10, |index| live.get(index)));
            }
        });
        criterion.bench_function("pick/round-robin/10/two threads", |bencher| {
            bencher.iter(|| black_box(strategy.pick(10, |index| live.get(index))));
        });
        done.store(true, Ordering::Relaxed);
    });
}

criterion_group!(benches, pick, pick_by_two);
criterion_main!(benches);

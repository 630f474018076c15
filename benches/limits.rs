//! What limits cost a request: a rate check is to take at most 60 ns, also with two threads at it.

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use weir::config::model::RateLimit;
use weir::limits::connections::ConnectionTable;
use weir::limits::rate::RateTable;

const SECRET: [u64; 2] = [1, 2];

fn table() -> RateTable {
    let settings = RateLimit {
        requests: Some(1_000_000),
        per: Duration::from_secs(1),
        burst: 1_000_000,
        ..RateLimit::default()
    };
    RateTable::new(&settings, SECRET).expect("a limit")
}

/// One request of one of 10,000 clients, from its address to the verdict; nanoseconds pass as they would.
fn check(table: &RateTable, turn: u32) -> bool {
    let client = IpAddr::from((0x0a00_0000 + turn % 10_000).to_be_bytes());
    let key = table
        .key(black_box(Some(client)), |_| None)
        .expect("it is limited");
    matches!(
        table.check(key, 1_000_000_000 + u64::from(turn) * 50),
        weir::limits::rate::Verdict::Admitted { .. }
    )
}

fn rate(criterion: &mut Criterion) {
    let table = Arc::new(table());
    let mut turn = 0u32;
    criterion.bench_function("limits/rate/check", |bencher| {
        bencher.iter(|| {
            turn = turn.wrapping_add(1);
            check(&table, turn)
        });
    });
    let over = Arc::new(AtomicBool::new(false));
    let other = std::thread::spawn({
        let (table, over) = (table.clone(), over.clone());
        move || {
            let mut turn = 5_000u32;
            while !over.load(Ordering::Relaxed) {
                turn = turn.wrapping_add(1);
                black_box(check(&table, turn));
            }
        }
    });
    criterion.bench_function("limits/rate/check_two_threads", |bencher| {
        bencher.iter(|| {
            turn = turn.wrapping_add(1);
            check(&table, turn)
        });
    });
    over.store(true, Ordering::Relaxed);
    other.join().expect("no panic");
}

fn connections(criterion: &mut Criterion) {
    let table = Arc::new(ConnectionTable::new(100, 10_000, SECRET));
    let mut turn = 0u32;
    criterion.bench_function("limits/connections/enter_and_leave", |bencher| {
        bencher.iter(|| {
            turn = turn.wrapping_add(1);
            table.enter(IpAddr::from((turn % 10_000).to_be_bytes())).is_some()
        });
    });
}

criterion_group!(benches, rate, connections);
criterion_main!(benches);

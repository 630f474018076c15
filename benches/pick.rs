//! What choosing a backend costs.
//!
//! With 10 backends at most 60 ns, also while a second thread picks from the same pool. With 1,000 at most 1 µs for those
//! that look at all of them (least-conn, least-response, failover), 150 ns for the others.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use weir::balance::Strategy;
use weir::balance::latency::Latency;
use weir::balance::liveness::{Bitmap, Candidates};
use weir::balance::pick::{Local, Member, Pick};
use weir::clock::Millis;
use weir::config::model::{self, StrategyKind};

const NOW: Millis = Millis(1_000_000);

struct Subject {
    name: &'static str,
    kind: StrategyKind,
    weighted: bool,
    keyed: bool,
    busy: bool,
}

const fn subject(name: &'static str, kind: StrategyKind) -> Subject {
    Subject {
        name,
        kind,
        weighted: false,
        keyed: false,
        busy: false,
    }
}

const SUBJECTS: &[Subject] = &[
    subject("round-robin", StrategyKind::RoundRobin),
    Subject {
        weighted: true,
        ..subject("weighted-round-robin", StrategyKind::WeightedRoundRobin)
    },
    subject("random", StrategyKind::Random),
    Subject {
        weighted: true,
        ..subject("random-weighted", StrategyKind::Random)
    },
    subject("least-conn", StrategyKind::LeastConn),
    Subject {
        busy: true,
        ..subject("least-conn-busy", StrategyKind::LeastConn)
    },
    subject("p2c", StrategyKind::P2c),
    Subject {
        busy: true,
        weighted: true,
        ..subject("p2c-weighted-busy", StrategyKind::P2c)
    },
    subject("least-response", StrategyKind::LeastResponse),
    Subject {
        busy: true,
        ..subject("least-response-busy", StrategyKind::LeastResponse)
    },
    Subject {
        keyed: true,
        ..subject("consistent_hash", StrategyKind::ConsistentHash)
    },
    Subject {
        keyed: true,
        busy: true,
        ..subject("consistent_hash-busy", StrategyKind::ConsistentHash)
    },
    Subject {
        keyed: true,
        ..subject("maglev", StrategyKind::Maglev)
    },
    Subject {
        keyed: true,
        busy: true,
        ..subject("maglev-busy", StrategyKind::Maglev)
    },
    subject("prequal", StrategyKind::Prequal),
    subject("failover", StrategyKind::Failover),
];

struct Pool {
    members: Vec<Member>,
    eligible: Bitmap,
    strategy: Strategy,
    keyed: bool,
}

impl Pool {
    fn new(subject: &Subject, backends: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(4);
        let members: Vec<Member> = (0..backends)
            .map(|at| {
                let weight = if subject.weighted { random.u16(1..10) } else { 1 };
                let member = Member::new(Arc::default(), &format!("http://10.0.0.{at}:80"), weight)
                    .in_tier((at % 2) as u16, false);
                for _ in 0..5 {
                    let took = Duration::from_micros(random.u64(900..1_100));
                    member.shared.latency().record(took, NOW);
                }
                member.shared.begin(NOW);
                member.shared.end();
                if subject.busy {
                    (0..random.u32(10..20)).for_each(|_| member.shared.begin(NOW));
                }
                member
            })
            .collect();
        let settings = model::Strategy {
            kind: subject.kind,
            ..model::Strategy::default()
        };
        Pool {
            eligible: Bitmap::new(backends, true),
            strategy: Strategy::new(&settings, &members),
            members,
            keyed: subject.keyed,
        }
    }

    #[inline]
    fn pick(&self, local: &mut Local, request: u64) -> Option<usize> {
        let pick = Pick {
            members: &self.members,
            candidates: Candidates::new(&self.eligible, &[]),
            now: NOW,
            key: self.keyed.then_some(request),
            slow_start: None,
        };
        self.strategy.pick(black_box(&pick), local)
    }
}

fn pick(criterion: &mut Criterion) {
    for subject in SUBJECTS {
        for backends in [10, 1_000] {
            let pool = Pool::new(subject, backends);
            let mut local = Local::new(1);
            let mut request = 0;
            criterion.bench_function(&format!("pick/{}/{backends}", subject.name), |bencher| {
                bencher.iter(|| {
                    request += 1;
                    pool.pick(&mut local, request)
                });
            });
        }
        let pool = Pool::new(subject, 10);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut local = Local::new(2);
                let mut request = 0;
                while !done.load(Ordering::Relaxed) {
                    request += 1;
                    black_box(pool.pick(&mut local, request));
                }
            });
            let mut local = Local::new(1);
            let mut request = 0;
            criterion.bench_function(&format!("pick/{}/10, two threads", subject.name), |bencher| {
                bencher.iter(|| {
                    request += 1;
                    pool.pick(&mut local, request)
                });
            });
            done.store(true, Ordering::Relaxed);
        });
    }
}

fn record(criterion: &mut Criterion) {
    let latency = Latency::default();
    let mut micros = 0;
    criterion.bench_function("latency/record", |bencher| {
        bencher.iter(|| {
            micros = (micros + 37) & 1_023;
            latency.record(black_box(Duration::from_micros(micros)), black_box(NOW));
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = pick, record
}
criterion_main!(benches);

//! What choosing a backend costs.

use criterion::{Criterion, criterion_group, criterion_main};

fn pick(_: &mut Criterion) {}

criterion_group!(benches, pick);
criterion_main!(benches);

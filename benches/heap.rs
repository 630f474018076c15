//! What the sampling wrapper around the allocator costs: nothing to speak of while it is off, and little while it is on.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use weir::profile::heap::{self, Sampled};

/// What a box of a task, a small string or a header table takes.
const SIZE: usize = 128;

fn allocate(allocator: &impl GlobalAlloc, layout: Layout) {
    // SAFETY: the layout's size is not 0, and what is freed is what was allocated with the same layout.
    unsafe {
        let memory = allocator.alloc(black_box(layout));
        allocator.dealloc(black_box(memory), layout);
    }
}

fn allocator(criterion: &mut Criterion) {
    let layout = Layout::new::<[u8; SIZE]>();
    let mut group = criterion.benchmark_group("heap");
    group.bench_function("without", |bencher| bencher.iter(|| allocate(&MiMalloc, layout)));
    group.bench_function("off", |bencher| bencher.iter(|| allocate(&Sampled(MiMalloc), layout)));
    // The last: it stays on.
    heap::start(512 * 1024);
    group.bench_function("on", |bencher| bencher.iter(|| allocate(&Sampled(MiMalloc), layout)));
    group.finish();
}

criterion_group!(benches, allocator);
criterion_main!(benches);

//! What a line of the access log costs a worker, formatted and handed over: at most 400 ns as JSON, 250 ns in the common
//! format.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use weir::access_log::writer::Running;
use weir::access_log::{Handle, Settings};
use weir::balance::pick::Member;
use weir::clock::{Moment, Span};
use weir::config::Config;
use weir::config::model::{AccessFormat, AccessOutput};
use weir::record::{Attempt, Finished, Kind, Outcome, Part, Record, Termination};
use weir::snapshot::Pool;
use weir::upstream::backend::{Backend, Slots};

/// Lines between two looks at whether the writer has taken them: what a busy worker writes in the 10 ms that pass between
/// two looks of the writer.
const BURST: u64 = 1_000;

fn pool() -> Pool {
    let backend = Arc::new(Backend::new(
        Slots::default().take(),
        "app-1".to_owned(),
        "http://10.0.0.1:8080".to_owned(),
        "10.0.0.1:8080".to_owned(),
        Vec::new(),
        1,
    ));
    let member = Member::new(backend.shared.clone(), &backend.url, 1);
    Pool::new("default", &Config::default(), vec![(backend, member)])
}

/// A request of a browser.
fn record() -> Record {
    let mut record = Record::default();
    for (part, value) in [
        (Part::Method, "GET"),
        (Part::Target, "/api/v1/items?page=2&sort=name&q=chairs+and+tables"),
        (Part::Version, "HTTP/1.1"),
        (Part::Host, "shop.example.com"),
        (
            Part::UserAgent,
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        ),
        (Part::Referer, "https://shop.example.com/catalogue"),
        (Part::RequestId, "019ab3c2-7d1e-7c4a-9f0b-3d5e6f708192"),
    ] {
        record.captured.keep(part, value.as_bytes());
    }
    let now = Moment::now();
    record.begin(now);
    record.client = Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)));
    record.attempted(Attempt {
        backend: Some(0),
        kind: Kind::First,
        outcome: Outcome::Status(200),
        span_id: 0,
        began: Span::ZERO,
        queue: Span::ZERO,
        connect: None,
        first_byte: Some(Span::from_micros(812)),
        took: Span::from_micros(1_204),
    });
    record.backend = Span::from_micros(800);
    record.first_byte_at = Some(now.after(Span::from_micros(812)));
    record.ended = now.after(Span::from_micros(1_204));
    record.status = 200;
    record.bytes_in = 412;
    record.bytes_out = 5_120;
    record.head_out = 210;
    record.termination = Termination::COMPLETE;
    record
}

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("access_log");
    // The writer is waited for outside of what is measured, which takes longer than the lines.
    group.warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_millis(500));
    group.sample_size(30);
    let pool = pool();
    let template = "{time} {client} {method} {target} {status} {total_us} {backend} {termination}";
    for (name, format) in [
        ("json", AccessFormat::Json),
        ("common", AccessFormat::Common),
        ("combined", AccessFormat::Combined),
        ("template", AccessFormat::Template(template.to_owned())),
    ] {
        let mut config = Config::default().access_log;
        config.output = AccessOutput::File(PathBuf::from("/dev/null"));
        config.format = format;
        let running = Running::start(&config, 1).expect("/dev/null can be opened");
        let (Some(log), Some(settings)) = (&running.log, Settings::new(&config)) else {
            unreachable!("the access log is on");
        };
        let handle = Handle::new(log, 0).expect("there is a worker 0");
        let record = record();
        let finished = Finished {
            record: &record,
            pool: &pool,
            worker: 0,
        };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let burst = left.min(BURST);
                    let begin = Instant::now();
                    for _ in 0..burst {
                        handle.tell(&finished, &settings);
                    }
                    spent += begin.elapsed();
                    left -= burst;
                    while !log.is_empty() {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                spent
            });
        });
        assert_eq!(log.dropped(), 0, "a line that is dropped costs nothing");
    }
}

criterion_group!(benches, lines);
criterion_main!(benches);

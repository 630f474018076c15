//! What HTTP/1 costs per message: heads parsed and written, chunks followed.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use weir::config::model::ForwardedMode;
use weir::http1::{
    ChunkMachine, HostRewrite, Limits, Method, RequestFacts, RequestHead, RequestRewrite, ResponseHead,
    ResponseRewrite, request_bound, response_bound, write_request, write_response,
};

const LIMITS: Limits = Limits {
    max_head_bytes: 32 * 1024,
    max_headers: 128,
};

/// Ten fields, as a browser sends them.
const REQUEST: &[u8] = b"GET /assets/app/main.js?v=20240611 HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Referer: https://www.example.com/index.html\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Cache-Control: max-age=0\r\n\
    Sec-Fetch-Mode: navigate\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Date: Tue, 11 Jun 2024 10:00:00 GMT\r\n\
    Server: backend/1.0\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 128\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: no-store\r\n\
    Vary: Accept-Encoding\r\n\
    X-Request-Id: 0123456789abcdef\r\n\r\n";

const FACTS: RequestFacts = RequestFacts {
    method: Method::Get,
    upgrade: false,
};

const REQUEST_REWRITE: RequestRewrite<'static> = RequestRewrite {
    host: HostRewrite::Preserve {
        fallback: b"127.0.0.1:8081",
    },
    forwarded: ForwardedMode::XForwarded,
    client: Some(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 17))),
    trusted: false,
    scheme: "http",
    via: false,
    request_id: None,
    trace_parent: None,
};

fn heads(criterion: &mut Criterion) {
    let mut head = RequestHead::new();
    criterion.bench_function("request parse", |bencher| {
        bencher.iter(|| {
            head.reset();
            head.parse(black_box(REQUEST), &LIMITS)
        });
    });
    let mut out = Vec::with_capacity(request_bound(&head, &REQUEST_REWRITE));
    criterion.bench_function("request rewrite", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_request(&head, black_box(REQUEST), &REQUEST_REWRITE, &mut out);
            out.len()
        });
    });

    let mut head = ResponseHead::new();
    criterion.bench_function("response parse", |bencher| {
        bencher.iter(|| {
            head.reset();
            head.parse(black_box(RESPONSE), &LIMITS, FACTS)
        });
    });
    let rewrite = ResponseRewrite::default();
    let mut out = Vec::with_capacity(response_bound(&head, &rewrite));
    criterion.bench_function("response rewrite", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_response(&head, black_box(RESPONSE), &rewrite, &mut out);
            out.len()
        });
    });
}

fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunk scan of 64 KiB");
    for size in [16, 1024, 16 * 1024] {
        let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
        let body = [chunk.repeat(64 * 1024 / size).as_bytes(), b"0\r\n\r\n"].concat();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("chunks of {size}"), |bencher| {
            bencher.iter(|| ChunkMachine::new().follow(black_box(&body)));
        });
    }
    group.finish();
}

criterion_group!(benches, heads, chunks);
criterion_main!(benches);

//! Any bytes as `traceparent`: what is taken has ids, is read back from what is written, and a child stays in the trace.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::trace::TraceContext;

fuzz_target!(|bytes: &[u8]| {
    let Some(context) = TraceContext::parse(bytes) else {
        return;
    };
    assert!(context.trace_id != [0; 16] && context.span_id != [0; 8]);
    let written = context.write();
    assert_eq!(TraceContext::parse(&written), Some(context));
    let known = &bytes.trim_ascii()[3..52];
    assert_eq!(&written[3..52], known);
    let child = context.child(&mut fastrand::Rng::with_seed(bytes.len() as u64));
    assert_eq!((child.trace_id, child.sampled), (context.trace_id, context.sampled));
    assert_eq!(TraceContext::parse(&child.write()), Some(child));
});

//! Any text as an export of histograms, and any bytes as one histogram in it: all of it gets a verdict, nothing more is made
//! of a line than it says, and what is read can be merged and written down again.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use weir::hdr::merge::Merge;
use weir::hdr::read::{Item, Reader};
use weir::hdr::table;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut reader = Reader::new(&text);
    let lines = text.split_inclusive('\n').count();
    let (mut problems, mut intervals) = (0, 0);
    for item in reader.by_ref() {
        match item {
            Ok(Item::Interval(interval)) => {
                intervals += 1;
                assert!((1..=lines).contains(&interval.line));
            }
            Ok(_) => {}
            Err(problem) => {
                problems += 1;
                assert!((1..=lines).contains(&problem.line));
            }
        }
    }
    assert!(problems <= 1 && reader.next().is_none() && intervals <= lines);

    let export = format!("Tag=a,0.001,1.000,0.000,{}\n", STANDARD.encode(bytes));
    for export in [&*text, export.as_str()] {
        let mut merge = Merge::new(Vec::new(), None);
        if merge.add("export", export).is_ok() {
            let total = merge.total().expect("it was added");
            assert!(!table::classic(&merge, &total).is_empty());
            let _ = table::json(&merge, &total);
            if let Ok(log) = merge.log() {
                let mut again = Merge::new(Vec::new(), None);
                let log = String::from_utf8(log).expect("text");
                again.add("again", &log).expect("its own log");
                assert!(again.total().expect("the same").len() == total.len());
            }
        }
    }
});

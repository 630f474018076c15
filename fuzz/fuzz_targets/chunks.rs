//! Any bytes as a chunked body. Whole, byte by byte, followed and decoded must agree.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::http1::ChunkMachine;

fuzz_target!(|bytes: &[u8]| {
    let whole = ChunkMachine::new().follow(bytes);
    let mut copy = bytes.to_vec();
    let decoded = ChunkMachine::new().decode(&mut copy);
    let mut machine = ChunkMachine::new();
    let (mut consumed, mut data, mut failed) = (0, 0, false);
    for byte in bytes.chunks(1) {
        match machine.follow(byte) {
            Ok(followed) => {
                consumed += followed.consumed;
                data += followed.data;
            }
            Err(_) => {
                failed = true;
                break;
            }
        }
    }
    match (whole, decoded) {
        (Ok(whole), Ok(decoded)) => {
            assert!(!failed);
            assert!((whole.consumed, whole.done, whole.data) == (consumed, machine.is_done(), data));
            assert!((decoded.consumed, decoded.done, decoded.data as u64) == (consumed, whole.done, data));
        }
        (Err(whole), Err(decoded)) => assert!(failed && whole == decoded),
        _ => panic!("following and decoding disagree"),
    }
});

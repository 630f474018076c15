//! Any text as a template of access log lines: its pieces, written as a template again, are the same pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir::access_log::template::{Error, Field, Piece, parse};

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(pieces) => {
            let again: String = pieces.iter().map(written).collect();
            assert_eq!(parse(&again), Ok(pieces));
            assert!(!again.contains(['\n', '\r', '\0', '\x1b']));
        }
        Err(error) => {
            assert!(text.contains(['{', '}']) || matches!(error, Error::Control(_)));
            assert!(!error.to_string().is_empty());
            if let Some(near) = error.near() {
                assert!(parse(&format!("{{{near}}}")).is_ok());
            }
        }
    }
});

fn written(piece: &Piece) -> String {
    match piece {
        Piece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
        Piece::Field(field) => {
            let (name, _) = Field::ALL
                .iter()
                .find(|(_, known)| known == field)
                .expect("every field has a name");
            format!("{{{name}}}")
        }
        Piece::Header(name) => format!("{{header:{name}}}"),
    }
}

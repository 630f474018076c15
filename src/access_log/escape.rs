//! Bytes of strangers in lines: nothing that they send may look like a line's end, a quote or a terminal's command.

use crate::log::line::is_unsafe;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whether a byte stands for itself in every format.
#[inline]
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Appends `bytes` as they stand within a JSON string (RFC 8259 §7). What is no UTF-8 is shown as Latin-1.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(|&byte| is_plain(byte)) {
        return out.extend_from_slice(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().for_each(|character| json_char(out, character)),
        Err(_) => bytes.iter().for_each(|&byte| json_char(out, char::from(byte))),
    }
}

fn json_char(out: &mut Vec<u8>, character: char) {
    match character {
        '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // All of them are of the basic plane.
        _ if is_unsafe(character) => {
            let code = character as usize;
            let digits = [12, 8, 4, 0].map(|shift| HEX[code >> shift & 15]);
            out.extend_from_slice(b"\\u");
            out.extend_from_slice(&digits);
        }
        _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends `bytes` in printable ASCII: quotes, backslashes and everything else as `\xHH`.
pub(super) fn ascii(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.iter().all(|&byte| is_plain(byte)) {
        return out.extend_from_slice(bytes);
    }
    for &byte in bytes {
        if is_plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[
                b'\\',
                b'x',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn escaped(escape: fn(&mut Vec<u8>, &[u8]), bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        escape(&mut out, bytes);
        out
    }

    #[test]
    fn known_cases() {
        assert_eq!(escaped(json, b"a\"b\\c\n\x00"), b"a\\\"b\\\\c\\n\\u0000");
        assert_eq!(escaped(json, "ä\u{2028}".as_bytes()), "ä\\u2028".as_bytes());
        assert_eq!(escaped(json, b"\xff"), "ÿ".as_bytes());
        assert_eq!(escaped(ascii, b"a\"b\\\n\xff"), b"a\\x22b\\x5c\\x0a\\xff");
    }

    proptest! {
        #[test]
        fn json_stays_json_and_text_stays_itself(bytes in vec(any::<u8>(), 0..60)) {
            let line = [b"\"", &*escaped(json, &bytes), b"\""].concat();
            let read: String = serde_json::from_slice(&line).unwrap();
            if let Ok(text) = std::str::from_utf8(&bytes) {
                prop_assert_eq!(read, text);
            }
            prop_assert!(!line.contains(&b'\n'));
        }

        #[test]
        fn ascii_is_printable_and_can_be_undone(bytes in vec(any::<u8>(), 0..60)) {
            let text = escaped(ascii, &bytes);
            prop_assert!(text.iter().all(|byte| (0x20..0x7f).contains(byte) && *byte != b'"'));
            let mut undone = Vec::new();
            let mut rest = &text[..];
            while let [first, after @ ..] = rest {
                if *first == b'\\' {
                    let hex = std::str::from_utf8(&after[1..3]).unwrap();
                    undone.push(u8::from_str_radix(hex, 16).unwrap());
                    rest = &after[3..];
                } else {
                    undone.push(*first);
                    rest = after;
                }
            }
            prop_assert_eq!(undone, bytes);
        }
    }
}

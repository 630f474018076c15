//! Chunked bodies: the grammar, the caps, and that no cut through them changes anything.

use proptest::prelude::*;

use crate::http1::chunked::{EXTENSION_LINE_MAX, EXTENSIONS_MAX, FORBIDDEN_TRAILERS, TRAILERS_MAX};
use crate::http1::{ChunkMachine, Reject};
use crate::reason::Reason;

/// What following (and, in parallel, decoding) `pieces` gave: payload, bytes that belong to the body, whether it ended.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, usize, bool), Reject> {
    let (mut follower, mut decoder) = (ChunkMachine::new(), ChunkMachine::new());
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in pieces {
        let mut copy = piece.to_vec();
        let followed = follower.follow(piece);
        let decoded = decoder.decode(&mut copy);
        let (followed, decoded) = match (followed, decoded) {
            (Ok(followed), Ok(decoded)) => (followed, decoded),
            (followed, decoded) => {
                assert_eq!(followed.err(), decoded.err());
                return Err(follower.follow(b"0\r\n\r\n").expect_err("an error stands"));
            }
        };
        assert_eq!(followed.consumed, decoded.consumed);
        assert_eq!(followed.data, decoded.data as u64);
        assert_eq!(followed.done, decoded.done);
        assert!(followed.done || followed.consumed == piece.len());
        assert_eq!(
            copy[decoded.consumed..],
            piece[decoded.consumed..],
            "what follows the body is untouched"
        );
        payload.extend_from_slice(&copy[..decoded.data]);
        consumed += followed.consumed;
    }
    Ok((payload, consumed, follower.is_done()))
}

/// Whole and byte by byte must agree.
#[track_caller]
fn judge(body: &[u8]) -> Result<(Vec<u8>, usize, bool), Reject> {
    let whole = run([body]);
    let bytewise = run(body.chunks(1));
    assert_eq!(
        whole.is_ok(),
        bytewise.is_ok(),
        "{:?}",
        String::from_utf8_lossy(body)
    );
    if whole.is_ok() {
        assert_eq!(whole, bytewise);
    }
    whole
}

#[track_caller]
fn accepted(body: &[u8], payload: &[u8]) {
    assert_eq!(
        judge(body),
        Ok((payload.to_vec(), body.len(), true)),
        "{:?}",
        String::from_utf8_lossy(body)
    );
    let behind = [body, b"GET / HTTP/1.1\r\n"].concat();
    assert_eq!(
        run([&behind[..]]),
        Ok((payload.to_vec(), body.len(), true)),
        "stops behind the body"
    );
}

#[track_caller]
fn refused(body: &[u8]) {
    match judge(body) {
        Err(reject) => assert_eq!(reject.reason, Reason::Framing),
        Ok(ok) => panic!("{ok:?} for {:?}", String::from_utf8_lossy(body)),
    }
}

#[test]
fn bodies_are_followed_to_their_end() {
    accepted(b"0\r\n\r\n", b"");
    accepted(b"0000\r\n\r\n", b"");
    accepted(b"5\r\nhello\r\n0\r\n\r\n", b"hello");
    accepted(
        b"00000000000000a\r\n0123456789\r\n1\r\n!\r\n0\r\n\r\n",
        b"0123456789!",
    );
    accepted(b"A\r\n\r\n0\r\n\r\n0\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n0\r\n");
    accepted(
        b"1;a\r\nx\r\n2;b=c;d=\"e f\";\xff\r\nyz\r\n0;last\r\n\r\n",
        b"xyz",
    );
    accepted(b"1\r\nx\r\n0\r\nX-Sum: abc\r\nEmpty:\r\nDate: now\r\n\r\n", b"x");
}

#[test]
fn an_unfinished_body_is_not_done() {
    let body = b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n";
    for end in 0..body.len() {
        let (_, consumed, done) = run([&body[..end]]).expect("a prefix of a good body");
        assert_eq!((consumed, done), (end, false));
    }
}

#[test]
fn sizes_are_hex_digits_alone() {
    for size in [
        "",
        "+5",
        "-5",
        "-0",
        "0x5",
        "0X5",
        "x5",
        "5h",
        "5 ",
        " 5",
        "5\t",
        "\t5",
        "5.",
        "5,5",
        "g",
        ";a",
        "\u{0665}",
        "\"5\"",
        "5 ;a",
        "0 ",
        "5\0",
        "_5",
        "00000000000000005",
        "8000000000000000",
        "ffffffffffffffff",
        "10000000000000000",
        "100000000000000005",
    ] {
        refused(format!("{size}\r\nhello\r\n0\r\n\r\n").as_bytes());
    }
    let largest = run([&b"7fffffffffffffff\r\nabc"[..]]);
    assert_eq!(largest, Ok((b"abc".to_vec(), 21, false)));
}

#[test]
fn chunk_lines_and_data_end_in_crlf() {
    for body in [
        &b"5\nhello\r\n0\r\n\r\n"[..],
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\rhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello!\r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
        b"0\n\r\n",
        b"0\r\n\n",
        b"0\r\n\rX",
        b"0\r\nX",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\0\r\nhello\r\n0\r\n\r\n",
        b"5;a\x7f\r\nhello\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        // The odd one out: what is cut short is not wrong yet.
        if body == b"0\r\nX" {
            assert!(matches!(judge(body), Ok((_, _, false))));
        } else {
            refused(body);
        }
    }
}

#[test]
fn extensions_are_bounded_per_line_and_in_all() {
    let line = |length: u16| format!("1;{}\r\nx\r\n", "a".repeat(usize::from(length) - 1));
    accepted(format!("{}0\r\n\r\n", line(EXTENSION_LINE_MAX)).as_bytes(), b"x");
    refused(format!("{}0\r\n\r\n", line(EXTENSION_LINE_MAX + 1)).as_bytes());
    let lines = usize::from(EXTENSIONS_MAX / EXTENSION_LINE_MAX);
    let full = line(EXTENSION_LINE_MAX).repeat(lines);
    accepted(
        format!("{full}0\r\n\r\n").as_bytes(),
        "x".repeat(lines).as_bytes(),
    );
    refused(format!("{full}0;\r\n\r\n").as_bytes());
}

#[test]
fn trailers_are_field_lines() {
    for section in [
        "A\r\n",
        "A b: c\r\n",
        "A : b\r\n",
        ": b\r\n",
        " A: b\r\n",
        "A: b\r\n c\r\n",
        "A: b\n",
        "A: b\rc\r\n",
        "A: b\0\r\n",
        "A(: b\r\n",
        "\u{e4}: b\r\n",
        "A: b\r\n\tc\r\n",
        "A: \x01\r\n",
    ] {
        refused(format!("0\r\n{section}\r\n").as_bytes());
    }
    let section = |length: usize| format!("A: {}\r\n", "b".repeat(length - "A: \r\n\r\n".len()));
    accepted(
        format!("0\r\n{}\r\n", section(usize::from(TRAILERS_MAX))).as_bytes(),
        b"",
    );
    refused(format!("0\r\n{}\r\n", section(usize::from(TRAILERS_MAX) + 1)).as_bytes());
}

#[test]
fn trailers_that_belong_in_a_head_are_refused() {
    let known = [
        "Transfer-Encoding",
        "Content-Length",
        "Host",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
        "Expect",
        "Forwarded",
        "X-Forwarded-For",
        "x-forwarded-a-name-longer-than-the-buffer",
        "X_Forwarded_For",
        "Via",
    ];
    for name in known.into_iter().chain(FORBIDDEN_TRAILERS) {
        for name in [name.to_owned(), name.to_ascii_uppercase()] {
            refused(format!("0\r\nA: b\r\n{name}: 1\r\n\r\n").as_bytes());
            refused(format!("0\r\n{name}:\r\n\r\n").as_bytes());
        }
        if !name.to_ascii_lowercase().starts_with('x') {
            accepted(
                format!("0\r\n{name}-Not: 1\r\nNot-{name}: 1\r\n\r\n").as_bytes(),
                b"",
            );
        }
    }
}

#[test]
fn the_machine_is_small_and_stays_done() {
    assert!(size_of::<ChunkMachine>() <= 48);
    let mut machine = ChunkMachine::new();
    assert!(machine.follow(b"0\r\n\r\n").expect("a good body").done);
    let again = machine.follow(b"anything").expect("nothing to judge");
    assert_eq!((again.consumed, again.done, again.data), (0, true, 0));
}

/// The payload of a good body, by a decoder that is nothing like the machine.
fn reference_decode(body: &[u8]) -> Vec<u8> {
    let text_line = |from: usize| {
        let length = body[from..]
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .expect("a line");
        (&body[from..from + length], from + length + 2)
    };
    let (mut payload, mut at) = (Vec::new(), 0);
    loop {
        let (line, behind) = text_line(at);
        let digits = line.split(|&byte| byte == b';').next().expect("a first part");
        let size = usize::from_str_radix(std::str::from_utf8(digits).expect("ASCII"), 16).expect("hex");
        if size == 0 {
            return payload;
        }
        payload.extend_from_slice(&body[behind..behind + size]);
        at = behind + size + 2;
    }
}

/// A good body, and which of its bytes are framing.
fn bodies() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let chunk = (
        proptest::collection::vec(any::<u8>(), 1..40),
        "(;[a-z]{1,4}(=[a-z0-9]{1,4})?){0,2}",
        0..4usize,
    );
    let chunks = proptest::collection::vec(chunk, 0..6);
    (
        chunks,
        proptest::collection::vec("q-[a-z]{1,24}: ?[ -~]{0,20}\r\n", 0..3),
    )
        .prop_map(|(chunks, trailers)| {
            let (mut body, mut framing) = (Vec::new(), Vec::new());
            let mut put = |bytes: &[u8], is_framing: bool| {
                if is_framing {
                    framing.extend(body.len()..body.len() + bytes.len());
                }
                body.extend_from_slice(bytes);
            };
            for (data, extensions, zeros) in chunks {
                put(
                    format!("{}{:X}{extensions}\r\n", "0".repeat(zeros), data.len()).as_bytes(),
                    true,
                );
                put(&data, false);
                put(b"\r\n", true);
            }
            put(format!("0\r\n{}\r\n", trailers.concat()).as_bytes(), true);
            (body, framing)
        })
}

proptest! {
    #[test]
    fn any_cut_gives_the_same((body, _) in bodies(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.index(body.len())).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]);
        prop_assert_eq!(run(pieces), Ok((reference_decode(&body), body.len(), true)));
        prop_assert_eq!(run(body.chunks(1)), Ok((reference_decode(&body), body.len(), true)));
    }

    /// One changed byte of framing is refused, leaves the body unfinished, ends it somewhere else that the reference
    /// decoder agrees with, or changes nothing that counts.
    #[test]
    fn a_changed_byte_is_never_misread((body, framing) in bodies(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut changed = body.clone();
        changed[framing[at.index(framing.len())]] = byte;
        if let Ok((payload, consumed, true)) = judge(&changed) {
            prop_assert_eq!(payload, reference_decode(&changed[..consumed]));
            prop_assert!(changed[..consumed].ends_with(b"\r\n"));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = judge(&bytes);
    }

    /// Bytes of the grammar's own alphabet reach further into the states than arbitrary ones.
    #[test]
    fn likely_bytes_never_panic(bytes in "[0-9a-f;: \r\n]{0,60}") {
        let _ = judge(bytes.as_bytes());
    }
}

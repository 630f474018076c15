//! Chunked bodies (RFC 9112 §7.1): followed while they are passed on as they came, or decoded for HTTP/1.0 clients.
//!
//! ```text
//! body = *( size *( extension ) CRLF data CRLF ) 1*"0" *( extension ) CRLF *( trailer field CRLF ) CRLF
//! ```
//!
//! A size is 1 to 16 hex digits below 2^63 with nothing before or behind them: no sign, no `0x`, no whitespace, not even
//! the "bad whitespace" that §7.1.1 would have a recipient skip. A chunk line ends in CRLF and in nothing else, and so
//! does the data. Extensions are not looked into beyond refusing controls; no peer gives them a meaning, so
//! [`EXTENSION_LINE_MAX`] and [`EXTENSIONS_MAX`] bound them.
//!
//! Trailers are field lines. Those that would change framing, routing, where the message came from, who sends it or how its
//! content is read, had they come in the head, are refused ([`FORBIDDEN_TRAILERS`], RFC 9110 §6.5.1): some servers merge
//! trailers into the head.

use super::Reject;
use super::framing::LENGTH_MAX;
use super::head::is_tchar;
use super::known::Known;
use crate::reason::Reason;

/// Hex digits of a chunk size, leading zeros included.
pub const SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of extensions on one chunk line, from its `;`.
pub const EXTENSION_LINE_MAX: u16 = 1024;
/// Bytes of extensions in one body.
pub const EXTENSIONS_MAX: u16 = 16 * 1024;
/// Bytes of the trailer section, line ends included.
pub const TRAILERS_MAX: u16 = 8 * 1024;

/// Names refused in trailers beside every one that [`Known`] has a word for, `Date` and `Server` excepted.
pub const FORBIDDEN_TRAILERS: [&str; 10] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-range",
    "content-type",
    "cookie",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "set-cookie",
];

/// Longer than every forbidden name, so that a name cut off at this length equals none.
const NAME_BYTES: usize = 20;

/// What [`ChunkMachine::follow`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Bytes that belong to the body; all of them unless it is done.
    pub consumed: usize,
    /// The body has ended; what is behind `consumed` is not part of it.
    pub done: bool,
    /// Payload bytes among `consumed`.
    pub data: u64,
}

/// What [`ChunkMachine::decode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Payload bytes, now at the front of the buffer.
    pub data: usize,
    /// Bytes of the input that belong to the body; all of them unless it is done.
    pub consumed: usize,
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    /// Behind the CR of a chunk line.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line or of the empty line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// Behind the CR of the empty line.
    EndLf,
    Done,
    Broken,
}

/// The place in a chunked body, however the bytes are cut into pieces. 48 bytes, no buffer but for a trailer's name.
#[derive(Clone, Debug)]
pub struct ChunkMachine {
    /// Of the chunk: its size while that is read, then what is left of its data.
    remaining: u64,
    extension_line: u16,
    extensions: u16,
    trailers: u16,
    digits: u8,
    name_length: u8,
    name: [u8; NAME_BYTES],
    state: State,
}

impl Default for ChunkMachine {
    fn default() -> Self {
        ChunkMachine::new()
    }
}

impl ChunkMachine {
    pub fn new() -> Self {
        ChunkMachine {
            remaining: 0,
            extension_line: 0,
            extensions: 0,
            trailers: 0,
            digits: 0,
            name_length: 0,
            name: [0; NAME_BYTES],
            state: State::Size,
        }
    }

    /// The body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Follows the framing over the next `bytes` of the body and stops right behind its end. Chunk data is skipped over,
    /// not looked at.
    ///
    /// An error is [`Reason::Framing`], stands for the rest of the body, and means that the connection must be closed;
    /// see [`Reject::from_backend`].
    pub fn follow(&mut self, bytes: &[u8]) -> Result<Followed, Reject> {
        let mut consumed = 0;
        let mut data = 0;
        while consumed < bytes.len() && !self.is_done() {
            consumed += self.skip_framing(&bytes[consumed..])?;
            let run = self.take_data(bytes.len() - consumed);
            consumed += run;
            data += run as u64;
        }
        Ok(Followed {
            consumed,
            done: self.is_done(),
            data,
        })
    }

    /// Like [`follow`](Self::follow), and moves the payload to the front of `bytes`. What is behind it up to `consumed` is
    /// then of no meaning; what is behind `consumed` is untouched.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, Reject> {
        let mut consumed = 0;
        let mut data = 0;
        while consumed < bytes.len() && !self.is_done() {
            consumed += self.skip_framing(&bytes[consumed..])?;
            let run = self.take_data(bytes.len() - consumed);
            bytes.copy_within(consumed..consumed + run, data);
            consumed += run;
            data += run;
        }
        Ok(Decoded {
            data,
            consumed,
            done: self.is_done(),
        })
    }

    /// Takes up to `available` bytes of chunk data, if that is what comes next.
    fn take_data(&mut self, available: usize) -> usize {
        if self.state != State::Data {
            return 0;
        }
        let run = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(available);
        self.remaining -= run as u64;
        if self.remaining == 0 {
            self.state = State::DataCr;
        }
        run
    }

    /// Goes over everything that is not chunk data; returns how many bytes that was.
    fn skip_framing(&mut self, bytes: &[u8]) -> Result<usize, Reject> {
        for (index, &byte) in bytes.iter().enumerate() {
            if matches!(self.state, State::Data | State::Done) {
                return Ok(index);
            }
            self.state = self.step(byte).map_err(|detail| {
                self.state = State::Broken;
                Reject::new(Reason::Framing, detail)
            })?;
        }
        Ok(bytes.len())
    }

    /// One byte of framing; returns the state behind it.
    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        match self.state {
            State::Size => self.size(byte),
            State::Extension => self.extension(byte),
            State::SizeLf => match byte {
                b'\n' => Ok(self.chunk_begins()),
                _ => Err("a chunk line that does not end in CRLF"),
            },
            State::DataCr => match byte {
                b'\r' => Ok(State::DataLf),
                _ => Err("chunk data longer than its size"),
            },
            State::DataLf => match byte {
                b'\n' => Ok(State::Size),
                _ => Err("chunk data that does not end in CRLF"),
            },
            State::Trailer | State::TrailerName | State::TrailerValue | State::TrailerLf | State::EndLf => {
                self.trailers += 1;
                if self.trailers > TRAILERS_MAX {
                    return Err("more than 8 KiB of trailers");
                }
                self.trailer(byte)
            }
            State::Data | State::Done => Ok(self.state),
            State::Broken => Err("a chunked body that was broken before"),
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, &'static str> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.digits > 0 => return Ok(State::SizeLf),
            b';' if self.digits > 0 => {
                self.extension_line = 0;
                return self.extension(byte);
            }
            _ => return Err("a chunk size that is not hex digits alone"),
        };
        self.digits += 1;
        let size = u128::from(self.remaining) << 4 | u128::from(digit);
        if self.digits > SIZE_DIGITS_MAX || size > u128::from(LENGTH_MAX) {
            return Err("a chunk size that is too large");
        }
        self.remaining = size as u64;
        Ok(State::Size)
    }

    fn extension(&mut self, byte: u8) -> Result<State, &'static str> {
        if byte == b'\r' {
            return Ok(State::SizeLf);
        }
        if !is_field_byte(byte) {
            return Err("a control character in a chunk extension");
        }
        self.extension_line += 1;
        self.extensions += 1;
        if self.extension_line > EXTENSION_LINE_MAX || self.extensions > EXTENSIONS_MAX {
            return Err("chunk extensions that are too long");
        }
        Ok(State::Extension)
    }

    fn chunk_begins(&mut self) -> State {
        self.digits = 0;
        if self.remaining == 0 {
            State::Trailer
        } else {
            State::Data
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::Trailer, byte) if is_tchar(byte) => {
                self.name_length = 0;
                self.name_byte(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => {
                if is_forbidden(&self.name[..usize::from(self.name_length)]) {
                    return Err("a trailer that may only stand in a head");
                }
                Ok(State::TrailerValue)
            }
            (State::TrailerName, byte) if is_tchar(byte) => {
                self.name_byte(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, byte) if is_field_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            _ => Err("a trailer section that is not field lines and an empty line"),
        }
    }

    fn name_byte(&mut self, byte: u8) {
        if let Some(slot) = self.name.get_mut(usize::from(self.name_length)) {
            *slot = byte;
            self.name_length += 1;
        }
    }
}

/// What a field value or an extension may have in it (RFC 9110 §5.5).
const fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// `name` is cut off at [`NAME_BYTES`].
fn is_forbidden(name: &[u8]) -> bool {
    match Known::classify(name) {
        Known::Other => FORBIDDEN_TRAILERS
            .iter()
            .any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes())),
        Known::Date | Known::Server => false,
        _ => true,
    }
}

//! Following a body to its end: how many of the bytes at hand belong to it.
//!
//! Nothing is decoded unless it must be: a chunked body toward an HTTP/1.0 client loses its chunks (RFC 9112 §7), every
//! other body is forwarded as it came.

use crate::http1::Reject;
use crate::http1::chunked::ChunkMachine;
use crate::http1::framing::BodyLength;

/// Where a body ends.
#[derive(Debug)]
pub enum BodyFollower {
    /// All of it has been seen.
    Done,
    /// Bytes still to come.
    Length(u64),
    Chunked(ChunkMachine),
    /// De-chunked in place.
    Decoded(ChunkMachine),
    UntilClose,
}

/// What of the bytes at hand belongs to the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the input that are used up.
    pub consumed: usize,
    /// Bytes at the front of the input to forward; fewer than `consumed` only when decoding.
    pub forward: usize,
    /// Bytes of payload among them, framing aside.
    pub payload: u64,
}

impl BodyFollower {
    /// `decode`: take a chunked body out of its chunks.
    pub fn new(length: BodyLength, decode: bool) -> Self {
        match length {
            BodyLength::None | BodyLength::Length(0) => BodyFollower::Done,
            BodyLength::Length(bytes) => BodyFollower::Length(bytes),
            BodyLength::Chunked if decode => BodyFollower::Decoded(ChunkMachine::new()),
            BodyLength::Chunked => BodyFollower::Chunked(ChunkMachine::new()),
            BodyLength::UntilClose => BodyFollower::UntilClose,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, BodyFollower::Done)
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self, BodyFollower::UntilClose)
    }

    /// Bytes that are known to be still to come.
    pub fn remaining(&self) -> u64 {
        match self {
            BodyFollower::Length(bytes) => *bytes,
            _ => 0,
        }
    }

    /// Takes the next bytes of the stream. When the body ends among them, what follows is not consumed.
    ///
    /// # Errors
    /// Broken chunk framing (RFC 9112 §7.1).
    pub fn follow(&mut self, bytes: &mut [u8]) -> Result<Step, Reject> {
        let (step, done) = match self {
            BodyFollower::Done => (Step::plain(0), true),
            BodyFollower::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                (Step::plain(count), *left == 0)
            }
            BodyFollower::UntilClose => (Step::plain(bytes.len()), false),
            BodyFollower::Chunked(machine) => {
                let followed = machine.follow(bytes)?;
                let step = Step {
                    consumed: followed.consumed,
                    forward: followed.consumed,
                    payload: followed.data,
                };
                (step, followed.done)
            }
            BodyFollower::Decoded(machine) => {
                let decoded = machine.decode(bytes)?;
                let step = Step {
                    consumed: decoded.consumed,
                    forward: decoded.data,
                    payload: decoded.data as u64,
                };
                (step, decoded.done)
            }
        };
        if done {
            *self = BodyFollower::Done;
        }
        Ok(step)
    }
}

impl Step {
    fn plain(count: usize) -> Self {
        Step {
            consumed: count,
            forward: count,
            payload: count as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_ends_where_it_says_and_leaves_the_rest() {
        let mut body = BodyFollower::new(BodyLength::Length(5), false);
        assert_eq!(
            body.follow(&mut b"abc".to_owned()).expect("no framing").consumed,
            3
        );
        assert_eq!(body.remaining(), 2);
        assert_eq!(
            body.follow(&mut b"deGET /".to_owned())
                .expect("no framing")
                .consumed,
            2
        );
        assert!(body.is_done());
        assert_eq!(body.follow(&mut b"GET /".to_owned()).expect("done").consumed, 0);
    }

    #[test]
    fn chunks_are_forwarded_as_they_came_or_taken_out() {
        let stream = *b"3\r\nabc\r\n0\r\n\r\nrest";
        let mut body = BodyFollower::new(BodyLength::Chunked, false);
        let step = body.follow(&mut stream.clone()).expect("well framed");
        assert_eq!((step.consumed, step.forward, step.payload), (13, 13, 3));
        let mut decoded = stream;
        let mut body = BodyFollower::new(BodyLength::Chunked, true);
        let step = body.follow(&mut decoded).expect("well framed");
        assert_eq!((step.consumed, step.forward), (13, 3));
        assert_eq!(&decoded[..3], b"abc");
        assert!(body.is_done());
    }
}

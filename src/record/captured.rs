//! What is kept of a request's head: its bytes are gone, or somebody else's, by the time that the exchange is over.

use std::ops::Range;

/// Bytes kept of one part at most; the rest is cut off.
pub const PART_MAX: usize = 2048;

/// What may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Method,
    /// The request target as it came: path and query, or an absolute form.
    Target,
    Version,
    Host,
    UserAgent,
    Referer,
    /// `x-request-id` as it went to the backend.
    RequestId,
    /// `traceparent` as it went to the backend: its parent id is the id of the attempt's span.
    TraceParent,
    /// `traceparent` as the client sent it; absent: the trace begins here.
    ClientTraceParent,
    TraceState,
}

const PARTS: usize = 10;

/// The parts of one request, one behind the other.
#[derive(Debug, Default)]
pub struct Captured {
    bytes: Vec<u8>,
    parts: [Option<(u16, u16)>; PARTS],
    /// Other headers that the access log asks for: where name and value stand.
    headers: Vec<(u16, u16, u16)>,
}

impl Captured {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.parts = [None; PARTS];
        self.headers.clear();
    }

    /// Keeps the first [`PART_MAX`] bytes of a part.
    #[inline]
    pub fn keep(&mut self, part: Part, bytes: &[u8]) {
        if let Some((start, length)) = self.append(bytes) {
            self.parts[part as usize] = Some((start, length));
        }
    }

    /// Keeps a header besides the parts.
    pub fn keep_header(&mut self, name: &[u8], value: &[u8]) {
        let kept = self.bytes.len();
        match (self.append(name), self.append(value)) {
            (Some((start, name)), Some((_, value))) => self.headers.push((start, name, value)),
            _ => self.bytes.truncate(kept),
        }
    }

    /// None if there is no room left that an offset can name.
    fn append(&mut self, bytes: &[u8]) -> Option<(u16, u16)> {
        let bytes = &bytes[..bytes.len().min(PART_MAX)];
        let start = u16::try_from(self.bytes.len()).ok()?;
        let length = u16::try_from(bytes.len()).ok()?;
        start.checked_add(length)?;
        self.bytes.extend_from_slice(bytes);
        Some((start, length))
    }

    /// None: the request had none, or nobody asked for it to be kept.
    #[inline]
    pub fn part(&self, part: Part) -> Option<&[u8]> {
        let (start, length) = self.parts[part as usize]?;
        self.at(start, length)
    }

    /// Names and values, in the order in which they came.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter().filter_map(|&(start, name, value)| {
            let name_bytes = self.at(start, name)?;
            Some((name_bytes, self.at(start.checked_add(name)?, value)?))
        })
    }

    fn at(&self, start: u16, length: u16) -> Option<&[u8]> {
        let range: Range<usize> = usize::from(start)..usize::from(start) + usize::from(length);
        self.bytes.get(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_and_what_is_not_is_none() {
        let mut captured = Captured::default();
        captured.keep(Part::Method, b"GET");
        captured.keep(Part::Target, b"");
        captured.keep_header(b"accept", b"*/*");
        captured.keep_header(b"x", b"");
        assert_eq!(captured.part(Part::Method), Some(&b"GET"[..]));
        assert_eq!(captured.part(Part::Target), Some(&b""[..]));
        assert_eq!(captured.part(Part::Host), None);
        let headers: Vec<_> = captured.headers().collect();
        assert_eq!(headers, [(&b"accept"[..], &b"*/*"[..]), (b"x", b"")]);
        captured.clear();
        assert_eq!(captured.part(Part::Method), None);
        assert_eq!(captured.headers().count(), 0);
    }

    #[test]
    fn it_never_grows_past_what_offsets_can_name() {
        let mut captured = Captured::default();
        let long = vec![b'a'; 5_000];
        captured.keep(Part::Target, &long);
        assert_eq!(captured.part(Part::Target), Some(&long[..PART_MAX]));
        for _ in 0..100 {
            captured.keep_header(&long, &long);
        }
        assert!(captured.bytes.len() <= usize::from(u16::MAX));
        assert!(captured.headers().count() < 100);
    }
}

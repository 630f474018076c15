//! The one vocabulary for why weir answered instead of a backend.
//!
//! A [`Reason`] maps in one place to the status a client gets, the word in `x-weir-reason`, in the log and in the
//! metrics, and to whether the client's connection may go on. Everything that refuses or fails an exchange names one.

/// Why weir itself answered, or ended, an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The request's start line or fields are not HTTP (RFC 9112 §2, §3, §5).
    BadRequest,
    /// The body's framing is ambiguous or broken (RFC 9112 §6, §7).
    Framing,
    /// The head did not arrive within `timeouts.request_head`.
    HeadTimeout,
    /// The body stalled past `timeouts.request_body` or fell below `http.min_body_rate`.
    BodyTimeout,
    /// The request line alone is longer than a head may be.
    UriTooLong,
    /// The head is longer than `http.max_head_bytes` or has more than `http.max_headers` fields.
    HeadTooLarge,
    /// The body is longer than `http.max_body_bytes`.
    BodyTooLarge,
    /// CONNECT or TRACE.
    MethodRefused,
    /// A protocol version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// The request cannot be served by this authority.
    Misdirected,
    /// No backend is eligible.
    NoBackend,
    /// Every slot that the backend may have is taken and nobody more may wait.
    QueueFull,
    /// No socket or slot of the backend became free in time.
    QueueTimeout,
    /// No backend accepted a connection.
    ConnectRefused,
    /// No backend accepted a connection within `timeouts.connect`.
    ConnectTimeout,
    /// The backend closed or reset before a whole response head came.
    BackendReset,
    /// The backend stayed silent past `timeouts.response_head`, `response_body` or `exchange`.
    BackendTimeout,
    /// What the backend sent is not an HTTP response that can be passed on.
    BadResponse,
    /// The client is past its rate limit.
    RateLimited,
    /// weir is at a limit of its own (descriptors, connections).
    Overload,
    /// weir is shutting down.
    Draining,
    /// No local port is left toward the backend.
    OutOfPorts,
    /// The buffer memory limit is reached.
    OutOfMemory,
}

impl Reason {
    /// All reasons, in the order of their discriminants: `ALL[r as usize] == r`.
    pub const ALL: [Reason; 23] = [
        Reason::BadRequest,
        Reason::Framing,
        Reason::HeadTimeout,
        Reason::BodyTimeout,
        Reason::UriTooLong,
        Reason::HeadTooLarge,
        Reason::BodyTooLarge,
        Reason::MethodRefused,
        Reason::Version,
        Reason::Misdirected,
        Reason::NoBackend,
        Reason::QueueFull,
        Reason::QueueTimeout,
        Reason::ConnectRefused,
        Reason::ConnectTimeout,
        Reason::BackendReset,
        Reason::BackendTimeout,
        Reason::BadResponse,
        Reason::RateLimited,
        Reason::Overload,
        Reason::Draining,
        Reason::OutOfPorts,
        Reason::OutOfMemory,
    ];

    /// The stable word: header, log and metrics label.
    pub const fn word(self) -> &'static str {
        match self {
            Reason::BadRequest => "bad_request",
            Reason::Framing => "framing",
            Reason::HeadTimeout => "head_timeout",
            Reason::BodyTimeout => "body_timeout",
            Reason::UriTooLong => "uri_too_long",
            Reason::HeadTooLarge => "head_too_large",
            Reason::BodyTooLarge => "body_too_large",
            Reason::MethodRefused => "method_refused",
            Reason::Version => "version",
            Reason::Misdirected => "misdirected",
            Reason::NoBackend => "no_backend",
            Reason::QueueFull => "queue_full",
            Reason::QueueTimeout => "queue_timeout",
            Reason::ConnectRefused => "connect_refused",
            Reason::ConnectTimeout => "connect_timeout",
            Reason::BackendReset => "backend_reset",
            Reason::BackendTimeout => "backend_timeout",
            Reason::BadResponse => "bad_response",
            Reason::RateLimited => "rate_limited",
            Reason::Overload => "overload",
            Reason::Draining => "draining",
            Reason::OutOfPorts => "out_of_ports",
            Reason::OutOfMemory => "out_of_memory",
        }
    }

    /// The status code of weir's own answer (RFC 9110 §15; 429 and 431 from RFC 6585).
    pub const fn status(self) -> u16 {
        match self {
            Reason::BadRequest | Reason::Framing => 400,
            Reason::HeadTimeout | Reason::BodyTimeout => 408,
            Reason::UriTooLong => 414,
            Reason::HeadTooLarge => 431,
            Reason::BodyTooLarge => 413,
            Reason::MethodRefused => 501,
            Reason::Version => 505,
            Reason::Misdirected => 421,
            Reason::RateLimited => 429,
            Reason::ConnectRefused | Reason::BackendReset | Reason::BadResponse => 502,
            Reason::ConnectTimeout | Reason::BackendTimeout => 504,
            Reason::NoBackend
            | Reason::QueueFull
            | Reason::QueueTimeout
            | Reason::Overload
            | Reason::Draining
            | Reason::OutOfPorts
            | Reason::OutOfMemory => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn all_is_indexed_by_discriminant_and_words_are_unique() {
        let mut words = std::collections::HashSet::new();
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(words.insert(reason.word()));
        }
    }
}

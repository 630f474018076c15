//! Who ended an exchange, and how far it had come: two letters, as readers of HAProxy's logs know them.

use crate::reason::Reason;

/// Who ended it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// It came to its end.
    #[default]
    Nobody,
    /// The client went away.
    Client,
    /// The client's time was up.
    ClientTimeout,
    /// The backend refused, reset, or said what cannot be passed on.
    Backend,
    /// The backend's time was up.
    BackendTimeout,
    /// weir: a limit, a refusal, or its own end.
    Weir,
}

/// How far it had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for the request.
    Request,
    /// Waiting for a slot of a backend.
    Queue,
    /// Connecting.
    Connect,
    /// Waiting for the answer's head.
    Head,
    /// In the middle of bodies, or in a tunnel.
    Data,
    #[default]
    Done,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Termination {
    pub by: By,
    pub stage: Stage,
}

impl Termination {
    pub const COMPLETE: Termination = Termination {
        by: By::Nobody,
        stage: Stage::Done,
    };

    /// weir ended it in the middle.
    pub const CUT: Termination = Termination {
        by: By::Weir,
        stage: Stage::Data,
    };

    /// What an own answer says of who is to blame, and how far the request had come.
    pub const fn of(reason: Reason) -> Termination {
        let (by, stage) = match reason {
            Reason::BadRequest
            | Reason::Framing
            | Reason::UriTooLong
            | Reason::HeadTooLarge
            | Reason::BodyTooLarge
            | Reason::MethodRefused
            | Reason::Version
            | Reason::Misdirected
            | Reason::RateLimited
            | Reason::Overload
            | Reason::Draining
            | Reason::OutOfMemory => (By::Weir, Stage::Request),
            Reason::HeadTimeout => (By::ClientTimeout, Stage::Request),
            Reason::BodyTimeout => (By::ClientTimeout, Stage::Data),
            Reason::QueueFull | Reason::QueueTimeout => (By::Weir, Stage::Queue),
            Reason::OutOfPorts => (By::Weir, Stage::Connect),
            Reason::NoBackend | Reason::ConnectRefused => (By::Backend, Stage::Connect),
            Reason::ConnectTimeout => (By::BackendTimeout, Stage::Connect),
            Reason::BackendReset | Reason::BadResponse => (By::Backend, Stage::Head),
            Reason::BackendTimeout => (By::BackendTimeout, Stage::Head),
        };
        Termination { by, stage }
    }

    /// The same for an answer that was cut off in its middle.
    pub const fn cut_by(reason: Reason) -> Termination {
        Termination {
            by: Termination::of(reason).by,
            stage: Stage::Data,
        }
    }

    pub fn is_complete(self) -> bool {
        self == Termination::COMPLETE
    }

    /// `C`, `c` (its timeout), `S`, `s`, `P` or `-`, then `R`, `Q`, `C`, `H`, `D` or `-`.
    pub const fn letters(self) -> &'static str {
        macro_rules! letters {
            ($($by:ident $first:literal),+) => {
                match (self.by, self.stage) {
                    $(
                        (By::$by, Stage::Request) => concat!($first, "R"),
                        (By::$by, Stage::Queue) => concat!($first, "Q"),
                        (By::$by, Stage::Connect) => concat!($first, "C"),
                        (By::$by, Stage::Head) => concat!($first, "H"),
                        (By::$by, Stage::Data) => concat!($first, "D"),
                        (By::$by, Stage::Done) => concat!($first, "-"),
                    )+
                }
            };
        }
        letters!(Nobody "-", Client "C", ClientTimeout "c", Backend "S", BackendTimeout "s", Weir "P")
    }

    /// For people: `client`, `backend` or `weir`; none: it came to its end.
    pub const fn by_word(self) -> Option<&'static str> {
        match self.by {
            By::Nobody => None,
            By::Client | By::ClientTimeout => Some("client"),
            By::Backend | By::BackendTimeout => Some("backend"),
            By::Weir => Some("weir"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_words() {
        assert_eq!(Termination::default().letters(), "--");
        let cut = Termination {
            by: By::BackendTimeout,
            stage: Stage::Head,
        };
        assert_eq!((cut.letters(), cut.by_word()), ("sH", Some("backend")));
        assert!(!cut.is_complete() && Termination::default().is_complete());
    }
}

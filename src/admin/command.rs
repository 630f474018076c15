//! What the admin API can be told to do. What does it is given in [`State`](super::State); here it is read and answered.

use futures_util::future::BoxFuture;
use hyper::StatusCode;
use serde_json::Value;

use crate::log::levels;

/// One state-changing call. `pool` and `name` are of a backend that there was when the call came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing new goes to the backend but what sticks to it.
    Drain { pool: String, name: String },
    /// Ends draining and maintenance.
    Ready { pool: String, name: String },
    /// Nothing new goes to the backend.
    Maintenance { pool: String, name: String },
    /// Replaces the configuration's weight.
    Weight { pool: String, name: String, weight: u16 },
    /// Takes back all that was set at run time.
    ClearOverride { pool: String, name: String },
    /// Reads the configuration again.
    Reload,
    /// Changes what is logged.
    Levels(levels::Change),
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub status: StatusCode,
    /// Told to whoever asked; may have several lines.
    pub message: String,
}

impl Refused {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refused {
        Refused {
            status,
            message: message.into(),
        }
    }
}

/// Carries out commands. The value is the answer's body. It runs to its end even if whoever asked is gone.
pub type Commander = dyn Fn(Command) -> BoxFuture<'static, Result<Value, Refused>> + Send + Sync;

impl Command {
    /// As the log calls it.
    pub fn word(&self) -> &'static str {
        match self {
            Command::Drain { .. } => "drain",
            Command::Ready { .. } => "ready",
            Command::Maintenance { .. } => "maintenance",
            Command::Weight { .. } => "weight",
            Command::ClearOverride { .. } => "clear override",
            Command::Reload => "reload",
            Command::Levels(_) => "log level",
        }
    }

    /// The backend's name; none for what concerns all.
    pub fn backend(&self) -> Option<&str> {
        match self {
            Command::Drain { name, .. }
            | Command::Ready { name, .. }
            | Command::Maintenance { name, .. }
            | Command::Weight { name, .. }
            | Command::ClearOverride { name, .. } => Some(name),
            Command::Reload | Command::Levels(_) => None,
        }
    }
}

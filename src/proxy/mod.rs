//! From a client's bytes to a backend's answer and back.
//!
//! [`connection::serve`] owns a client connection and reads heads off it; [`exchange::Exchange`] owns one request and
//! its response; what a body needs while it streams is in [`request_body`] and [`response`]; a 101 ends in [`tunnel`].

pub mod answer;
mod attempt;
pub mod body;
pub mod connection;
pub mod context;

pub mod exchange;
mod explain;
mod hedge;
pub mod join;
pub mod key;
mod load_probe;
mod notes;
mod placement;
pub mod progress;
pub mod request_body;
pub mod response;

pub mod tables;
pub mod tunnel;

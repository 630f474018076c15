//! What the admin page shows, in a terminal: what `weir top` is made of.
//!
//! [`client`] asks a running weir, on a thread of its own; [`model`] works out what there is to see from two readings;
//! [`view`] draws it and [`input`] says what a key means. Whoever runs it owns the terminal; nothing here is part of the data
//! path. Everything that a weir answers is taken for text from a stranger.

pub mod app;
pub mod client;
pub mod input;
pub mod model;
pub mod view;

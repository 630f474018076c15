//! The configuration: what every key means, where its value came from, and why a bad one is refused.

pub mod model;

pub use model::Config;

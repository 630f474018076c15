//! Panics into the log: what, where, on which thread, and the way there.

use std::any::Any;
use std::backtrace::Backtrace;
use std::panic::{self, Location};
use std::sync::Arc;

use super::ring::Shared;
use crate::config::model::Level;

/// Makes every panic of the process one error in the log, with its backtrace; before there is a log and after
/// it has ended, what was the hook before gets it. Catching the panic, or not, is the business of whoever runs the code.
pub fn install_panic_hook() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| match super::GLOBAL.get() {
        Some(shared) if !shared.bell.stopped() => report(
            shared,
            info.payload(),
            info.location(),
            Box::new(Backtrace::force_capture()),
        ),
        _ => before(info),
    }));
}

pub(super) fn report(
    shared: &Arc<Shared>,
    payload: &(dyn Any + Send),
    location: Option<&Location<'_>>,
    backtrace: Box<Backtrace>,
) {
    shared.log(Level::Error, module_path!(), Some(backtrace), |line| {
        line.message(format_args!("panicked: {}", message(payload)));
        if let Some(location) = location {
            line.field("location", format_args!("{location}"));
        }
    });
}

/// The text of a panic, which is a `&str` or a `String` for every panic that a macro raised.
fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(not a text)")
}

//! A pool of backends as picks see it: who may be chosen now, by one table of precedence, and what attempts teach.
//!
//! # The table
//! Every reason to leave a backend out is a [`Flag`] on its [`Shared`] state. Whoever changes one (a worker, the health
//! thread, the control thread) publishes anew who is eligible, as a bitmap that picks read. From strongest to weakest:
//!
//! | reason | who says so | overruled by |
//! | --- | --- | --- |
//! | weight 0, draining, maintenance | the operator | nothing |
//! | dead: nobody listens | a refused connect; a probe | nobody else being left |
//! | sick: probe down | the health thread | panic |
//! | ejected, breaker open | traffic | panic; not even begun where it would leave too few (*held*) |
//! | on trial | the end of an ejection or of an open breaker's time | its one free place |
//!
//! Backups join where fewer than `panic_threshold` per cent of the others are well; panic is what comes where no backup is
//! well either. docs/resilience.md says the same for people, and a test walks through every row.
//!
//! [`picking`] chooses, [`learning`] takes in how attempts end, [`precedence`] is the table, and [`explaining`] says to people
//! what a pick would come to.

mod explaining;
mod learning;
mod picking;
mod precedence;
mod types;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::Strategy;
use super::liveness::Bitmap;
use super::pick::Member;

pub use explaining::{By, Explanation, Standing};
pub use types::{Ask, Choice, Event, Events, Settings, Verdict};

/// The backends that one strategy chooses among. Shared by all threads, each of which may change what is known of them.
#[derive(Debug)]
pub struct Pool {
    members: Vec<Member>,
    strategy: Strategy,
    settings: Settings,
    /// Who may be chosen: worked out from the flags at every change.
    eligible: Bitmap,
    state: CachePadded<State>,
}

/// Read by every pick, written when something changes.
#[derive(Debug, Default)]
struct State {
    /// Grows with every change that the bitmap must show.
    changes: AtomicU64,
    panic: AtomicBool,
    /// Backends on trial that have a place free.
    trials: AtomicU32,
    /// When the last ramp ends, in milliseconds.
    ramp_until: AtomicU64,
}

impl Pool {
    pub fn new(settings: Settings, members: Vec<Member>) -> Self {
        let pool = Pool {
            strategy: Strategy::new(&settings.strategy, &members),
            eligible: Bitmap::new(members.len(), false),
            members,
            settings,
            state: CachePadded::default(),
        };
        // Ramps that began before a reload go on.
        let ends = pool
            .members
            .iter()
            .filter_map(|member| Some(member.shared.ramp_from()? + pool.settings.strategy.slow_start));
        if let Some(last) = ends.max() {
            pool.state.ramp_until.store(last.0, Ordering::Relaxed);
        }
        pool.publish(&mut |_| {});
        pool
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn strategy(&self) -> &Strategy {
        &self.strategy
    }

    /// Who may be chosen now.
    pub fn eligible(&self) -> &Bitmap {
        &self.eligible
    }

    /// Whether liveness is ignored because too few are well.
    pub fn is_panicking(&self) -> bool {
        self.state.panic.load(Ordering::Relaxed)
    }
}

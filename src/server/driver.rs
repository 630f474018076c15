//! Which driver a worker's runtime runs on, found by a ladder of fall-backs.
//!
//! The best ring flags cost a quarter less per request than none (figures in `docs/architecture.md`), but older kernels
//! refuse them and container sandboxes refuse io_uring altogether. [`climb`] takes the constructor as an argument, so that
//! a test can refuse any step.

use std::fmt;
use std::io;

use crate::config::model::DriverChoice;

/// One step of the ladder, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Completions run when the worker asks for them and only the worker submits (kernel 6.1).
    DeferTaskrun,
    /// Completions do not interrupt the worker (kernel 5.19).
    CoopTaskrun,
    /// io_uring as it first was.
    PlainRing,
    Epoll,
}

impl Step {
    const LADDER: [Step; 4] = [
        Step::DeferTaskrun,
        Step::CoopTaskrun,
        Step::PlainRing,
        Step::Epoll,
    ];

    /// Whether the runtime of this step has a ring.
    pub fn is_ring(self) -> bool {
        self != Step::Epoll
    }

    /// The ring's set-up flags by this step; none for epoll.
    pub fn ring_builder(self) -> Option<io_uring::Builder> {
        let mut builder = io_uring::IoUring::builder();
        match self {
            Step::DeferTaskrun => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            Step::CoopTaskrun => {
                builder.setup_coop_taskrun();
            }
            Step::PlainRing => {}
            Step::Epoll => return None,
        }
        Some(builder)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::DeferTaskrun => "io_uring (SINGLE_ISSUER | DEFER_TASKRUN)",
            Step::CoopTaskrun => "io_uring (COOP_TASKRUN)",
            Step::PlainRing => "io_uring (no flags)",
            Step::Epoll => "epoll",
        })
    }
}

/// The step that was reached and what the better ones said.
#[derive(Debug)]
pub struct Climbed<R> {
    pub runtime: R,
    pub step: Step,
    pub refused: Vec<(Step, io::Error)>,
}

impl<R> Climbed<R> {
    /// Why no better step is in use; empty for the best one.
    pub fn why(&self) -> String {
        self.refused
            .iter()
            .map(|(step, error)| format!("{step}: {error}"))
            .collect::<Vec<_>>()
            .join("; ")
    }
}

/// Tries the steps that `choice` allows, best first, and stays on the first that `build` accepts.
///
/// # Errors
/// The last step's, if every allowed step is refused.
pub fn climb<R>(
    choice: DriverChoice,
    mut build: impl FnMut(Step) -> io::Result<R>,
) -> io::Result<Climbed<R>> {
    let mut refused = Vec::new();
    let allowed = Step::LADDER.into_iter().filter(|step| match choice {
        DriverChoice::Auto => true,
        DriverChoice::IoUring => step.is_ring(),
        DriverChoice::Epoll => !step.is_ring(),
    });
    for step in allowed {
        match build(step) {
            Ok(runtime) => {
                return Ok(Climbed {
                    runtime,
                    step,
                    refused,
                });
            }
            Err(error) => refused.push((step, error)),
        }
    }
    let words = refused
        .iter()
        .map(|(step, error)| format!("{step}: {error}"))
        .collect::<Vec<_>>()
        .join("; ");
    let kind = refused
        .last()
        .map_or(io::ErrorKind::Unsupported, |(_, error)| error.kind());
    Err(io::Error::new(kind, words))
}

/// A runtime on any driver, with timers.
pub enum Runtime {
    Ring(monoio::Runtime<monoio::time::TimeDriver<monoio::IoUringDriver>>),
    Epoll(monoio::Runtime<monoio::time::TimeDriver<monoio::LegacyDriver>>),
}

impl Runtime {
    /// Builds the runtime of one step; `entries` is the length of the ring's submission queue.
    ///
    /// # Errors
    /// What the kernel says to a flag, to io_uring, or to the memory that the ring takes.
    pub fn build(step: Step, entries: u32) -> io::Result<Runtime> {
        match step.ring_builder() {
            Some(flags) => monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
                .with_entries(entries)
                .uring_builder(flags)
                .enable_timer()
                .build()
                .map(Runtime::Ring),
            None => monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
                .with_entries(entries)
                .enable_timer()
                .build()
                .map(Runtime::Epoll),
        }
    }

    pub fn block_on<F: Future>(&mut self, future: F) -> F::Output {
        match self {
            Runtime::Ring(runtime) => runtime.block_on(future),
            Runtime::Epoll(runtime) => runtime.block_on(future),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusing(refused: usize) -> impl FnMut(Step) -> io::Result<Step> {
        let mut left = refused;
        move |step| {
            if left == 0 {
                return Ok(step);
            }
            left -= 1;
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    #[test]
    fn each_refusal_goes_one_step_down() {
        for (refused, expected) in Step::LADDER.into_iter().enumerate() {
            let climbed = climb(DriverChoice::Auto, refusing(refused)).expect("some step is left");
            assert_eq!(climbed.step, expected);
            assert_eq!(climbed.refused.len(), refused);
            assert_eq!(climbed.why().is_empty(), refused == 0);
        }
    }

    #[test]
    fn a_choice_is_never_left() {
        let error = climb(DriverChoice::IoUring, refusing(3)).expect_err("every ring is refused");
        assert!(error.to_string().contains("COOP_TASKRUN"), "{error}");
        let climbed = climb(DriverChoice::Epoll, refusing(0)).expect("epoll is accepted");
        assert_eq!(climbed.step, Step::Epoll);
        assert!(climb(DriverChoice::Epoll, refusing(1)).is_err());
        assert!(climb(DriverChoice::Auto, refusing(4)).is_err());
    }

    #[test]
    fn real_runtimes_run_on_every_step_that_this_kernel_has() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            let mut climbed = climb(choice, |step| Runtime::build(step, 256)).expect("a runtime");
            assert_eq!(climbed.runtime.block_on(async { 7 }), 7);
        }
    }
}

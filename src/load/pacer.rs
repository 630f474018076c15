//! Wakes connections when their requests are due, to some microseconds.
//!
//! The runtime's timers count milliseconds. At some thousand requests a second on a connection's share of the rate that
//! would make requests late that the server had nothing to do with, and send them in bursts. So each worker has one timer of
//! the kernel (timerfd_create(2)), set to whatever is due next.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::task::{Poll, Waker};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::clock::{Moment, Span};

/// The timer fires no more often than that, or waking would be most of what a worker does at high rates.
const PAUSE: Span = Span::from_micros(50);

/// A connection that waits.
struct Waiting {
    due: Moment,
    waker: Waker,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Waiting) -> bool {
        self.due == other.due
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Waiting) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// What is due first is the greatest.
    fn cmp(&self, other: &Waiting) -> Ordering {
        other.due.cmp(&self.due)
    }
}

/// One worker's timer, and who waits for it.
pub(super) struct Pacer {
    timer: File,
    /// monoio has no type for "anything that can be polled"; only readiness is asked of it.
    poll: monoio::net::UnixStream,
    waiting: RefCell<BinaryHeap<Waiting>>,
    /// When the timer fires next; none: it is not set.
    set_to: Cell<Option<Moment>>,
}

impl Pacer {
    /// One in the runtime of this thread.
    ///
    /// # Errors
    /// No descriptor.
    pub(super) fn new() -> io::Result<Pacer> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = File::from(timerfd_create(TimerfdClockId::Monotonic, flags)?);
        let poll = UnixStream::from(std::os::fd::OwnedFd::from(timer.try_clone()?));
        Ok(Pacer {
            timer,
            poll: monoio::net::UnixStream::from_std(poll)?,
            waiting: RefCell::default(),
            set_to: Cell::new(None),
        })
    }

    /// Waits until `due`, or until [woken](Self::wake_all).
    pub(super) async fn wait(&self, due: Moment) {
        let mut waits = false;
        poll_fn(|cx| {
            if waits {
                return Poll::Ready(());
            }
            waits = true;
            self.waiting.borrow_mut().push(Waiting {
                due,
                waker: cx.waker().clone(),
            });
            if self.set_to.get().is_none_or(|earlier| due < earlier) {
                self.set(due, Moment::now());
            }
            Poll::Pending
        })
        .await;
    }

    pub(super) fn wake_all(&self) {
        for waiting in self.waiting.take() {
            waiting.waker.wake();
        }
    }

    /// Wakes whose time has come, for as long as the worker runs.
    ///
    /// # Errors
    /// The timer cannot be waited for.
    pub(super) async fn run(&self) -> io::Result<()> {
        loop {
            self.poll.readable(false).await?;
            // How often it fired; that it did not is no error.
            let _ = (&self.timer).read(&mut [0; 8]);
            let now = Moment::now();
            self.set_to.set(None);
            let mut waiting = self.waiting.borrow_mut();
            while waiting.peek().is_some_and(|first| first.due <= now) {
                if let Some(first) = waiting.pop() {
                    first.waker.wake();
                }
            }
            if let Some(next) = waiting.peek() {
                self.set(next.due.max(now.after(PAUSE)), now);
            }
        }
    }

    fn set(&self, due: Moment, now: Moment) {
        // Nothing left would take the setting back.
        let left = (due - now).as_nanos().max(1);
        let timespec = |nanos: u64| Timespec {
            tv_sec: (nanos / 1_000_000_000) as i64,
            tv_nsec: (nanos % 1_000_000_000) as i64,
        };
        let setting = Itimerspec {
            it_interval: timespec(0),
            it_value: timespec(left),
        };
        // It is a timer and the time is one: nothing can be refused.
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting).is_ok() {
            self.set_to.set(Some(due));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::config::model::DriverChoice;
    use crate::server::driver::{Runtime, climb};

    #[test]
    fn everybody_is_woken_in_time_and_in_order() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            let mut climbed = climb(choice, |step| Runtime::build(step, 256)).unwrap();
            climbed
                .runtime
                .block_on(async { monoio::spawn(wake_and_look()).await });
        }
    }

    async fn wake_and_look() {
        let pacer = Rc::new(Pacer::new().unwrap());
        let running = pacer.clone();
        monoio::spawn(async move { running.run().await });
        let woken = Rc::new(RefCell::new(Vec::new()));
        let start = Moment::now();
        let tasks: Vec<_> = [30, 10, 20, 10, 0]
            .into_iter()
            .map(|ms| {
                let (pacer, woken) = (pacer.clone(), woken.clone());
                monoio::spawn(async move {
                    pacer.wait(start.after(Span::from_millis(ms))).await;
                    assert!(start.elapsed() >= Span::from_millis(ms), "{ms}");
                    woken.borrow_mut().push(ms);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        assert_eq!(*woken.borrow(), [0, 10, 10, 20, 30]);
        let forever = pacer.clone();
        let far = start.after(Span(u64::MAX));
        let task = monoio::spawn(async move { forever.wait(far).await });
        while pacer.waiting.borrow().is_empty() {
            crate::proxy::join::yield_now().await;
        }
        pacer.wake_all();
        task.await;
    }
}

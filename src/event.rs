//! Telling tasks of the same thread that something happened.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Wakes whoever waits, whenever it is rung. Waiters look for themselves whether what they wait for is so.
#[derive(Debug, Default)]
pub struct Event {
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    pub fn ring(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits until `holds`, which is asked now and at every ring.
    pub async fn until(&self, holds: impl Fn() -> bool) {
        poll_fn(|cx| {
            if holds() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

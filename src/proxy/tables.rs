//! What an exchange borrows from its worker besides buffers: tables for parsed heads, and what is noted on the way.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::http1::request::RequestHead;
use crate::http1::response::ResponseHead;
use crate::proxy::progress::Progress;
use crate::record::Record;

/// Head tables kept for reuse at the most.
const KEPT_MAX: usize = 1024;

const ALWAYS_THERE: &str = "a slot has its tables until it drops";

/// The parsed heads of one exchange, and what is noted of it.
#[derive(Debug, Default)]
pub struct Heads {
    pub request: RequestHead,
    pub response: ResponseHead,
    pub record: Record,
    /// The attempt under way.
    pub progress: Rc<Progress>,
}

/// A worker's head tables that nobody uses.
#[derive(Clone, Debug, Default)]
pub struct HeadTables(Rc<RefCell<Vec<HeadBox>>>);

/// Boxed, so that lending moves one pointer.
type HeadBox = Box<Heads>;

impl HeadTables {
    /// Empty tables for one exchange.
    pub fn lend(&self) -> HeadSlot {
        let mut heads = self.0.borrow_mut().pop().unwrap_or_default();
        heads.request.reset();
        heads.response.reset();
        heads.record.clear();
        if Rc::strong_count(&heads.progress) > 1 {
            // An attempt that lost against another one still holds on to it.
            heads.progress = Rc::default();
        }
        HeadSlot {
            heads: Some(heads),
            home: self.clone(),
        }
    }
}

/// Head tables lent to one exchange; they go back when dropped.
#[derive(Debug)]
pub struct HeadSlot {
    /// None only while the slot drops.
    heads: Option<HeadBox>,
    home: HeadTables,
}

impl Deref for HeadSlot {
    type Target = Heads;

    fn deref(&self) -> &Heads {
        self.heads.as_deref().expect(ALWAYS_THERE)
    }
}

impl DerefMut for HeadSlot {
    fn deref_mut(&mut self) -> &mut Heads {
        self.heads.as_deref_mut().expect(ALWAYS_THERE)
    }
}

impl Drop for HeadSlot {
    fn drop(&mut self) {
        let mut home = self.home.0.borrow_mut();
        if home.len() < KEPT_MAX
            && let Some(heads) = self.heads.take()
        {
            home.push(heads);
        }
    }
}

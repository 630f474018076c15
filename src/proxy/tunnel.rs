//! After a 101: bytes in both directions until both are at their end (RFC 9110 §7.8).
//!
//! An idle direction holds no buffer. The end of one direction is passed on as a half-close and the other goes on. A
//! tunnel without a byte in either direction for `timeouts.tunnel` is ended.

use std::cell::Cell;

use crate::buffer::{self, Buffer};
use crate::clock::{self, Millis};
use crate::proxy::join;
use crate::record::By;
use crate::snapshot::View;
use crate::wire::Wire;

/// How a tunnel ended, and what went through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelEnd {
    /// Who failed first, or let nothing move for too long; none: both sides said that they were done.
    pub broken: Option<By>,
    /// Bytes to the backend.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
}

/// One direction of a tunnel.
struct Direction<'a> {
    view: &'a View,
    from: &'a Wire,
    to: &'a Wire,
    /// Who is at either end.
    parties: (By, By),
    moved: Cell<u64>,
    /// Of both directions.
    broken: &'a Cell<Option<By>>,
}

/// Moves bytes both ways; `from_client` and `from_backend` came right behind the handshake.
pub async fn run(
    view: &View,
    client: &Wire,
    backend: &Wire,
    from_client: Buffer,
    from_backend: Buffer,
) -> TunnelEnd {
    let broken = Cell::new(None);
    let direction = |from, to, parties| Direction {
        view,
        from,
        to,
        parties,
        moved: Cell::new(0),
        broken: &broken,
    };
    let up = direction(client, backend, (By::Client, By::Backend));
    let down = direction(backend, client, (By::Backend, By::Client));
    join::both(up.run(from_client), down.run(from_backend)).await;
    TunnelEnd {
        broken: broken.get(),
        up: up.moved.get(),
        down: down.moved.get(),
    }
}

impl Direction<'_> {
    /// Moves bytes from one side to the other until the end. A failure ends both sides.
    async fn run(&self, first: Buffer) {
        match self.move_bytes(first).await {
            Ok(()) => self.to.transport().half_close(),
            Err(by) => {
                if self.broken.get().is_none() {
                    self.broken.set(Some(by));
                }
                self.from.transport().abort();
                self.to.transport().abort();
            }
        }
    }

    /// An error: who failed.
    async fn move_bytes(&self, mut first: Buffer) -> Result<(), By> {
        let patience = self.view.config.timeouts.tunnel;
        let (sender, receiver) = self.parties;
        self.pass(&mut first).await.ok_or(receiver)?;
        drop(first);
        loop {
            let until = clock::now() + patience;
            self.from.set_read_deadline(until);
            self.to.set_read_deadline(until);
            let readable = self.from.transport().readable().await;
            if self.from.expired() {
                return Err(By::Weir);
            }
            readable.map_err(|_| sender)?;
            let Some(_admission) = buffer::admitted(|| self.from.expired()).await else {
                return Err(By::Weir);
            };
            let mut buffer = buffer::small();
            match self.from.read(&mut buffer).await {
                Ok(0) if !self.from.expired() => {
                    self.from.set_read_deadline(Millis::NEVER);
                    return Ok(());
                }
                Ok(0) => return Err(By::Weir),
                Err(_) => return Err(sender),
                Ok(_) => self.pass(&mut buffer).await.ok_or(receiver)?,
            }
        }
    }

    /// None: it could not be sent.
    async fn pass(&self, buffer: &mut Buffer) -> Option<()> {
        let sent = self.to.write_all(buffer, self.view.config.timeouts.tunnel).await;
        self.moved.set(self.moved.get() + sent.bytes as u64);
        sent.is_ok().then_some(())
    }
}

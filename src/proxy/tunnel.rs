//! After a 101: bytes in both directions until both are at their end (RFC 9110 §7.8).
//!
//! An idle direction holds no buffer. The end of one direction is passed on as a half-close and the other goes on. A
//! tunnel without a byte in either direction for `timeouts.tunnel` is ended.

use crate::buffer::{self, Buffer};
use crate::clock::{self, Millis};
use crate::proxy::join;
use crate::snapshot::View;
use crate::wire::Wire;

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides said that they were done.
    Clean,
    /// One side failed, or nothing moved for too long.
    Broken,
}

/// Moves bytes both ways; `from_client` and `from_backend` came right behind the handshake.
pub async fn run(
    view: &View,
    client: &Wire,
    backend: &Wire,
    from_client: Buffer,
    from_backend: Buffer,
) -> TunnelEnd {
    let (up, down) = join::both(
        one_way(view, client, backend, from_client),
        one_way(view, backend, client, from_backend),
    )
    .await;
    if up && down {
        TunnelEnd::Clean
    } else {
        TunnelEnd::Broken
    }
}

/// Moves bytes from one side to the other until the end; false if it was not a clean one. A failure ends both sides.
async fn one_way(view: &View, from: &Wire, to: &Wire, first: Buffer) -> bool {
    let clean = move_bytes(view, from, to, first).await;
    if clean {
        to.transport().half_close();
    } else {
        from.transport().abort();
        to.transport().abort();
    }
    clean
}

async fn move_bytes(view: &View, from: &Wire, to: &Wire, mut first: Buffer) -> bool {
    let patience = view.config.timeouts.tunnel;
    if !to.write_all(&mut first, patience).await.is_ok() {
        return false;
    }
    drop(first);
    loop {
        let until = clock::now() + patience;
        from.set_read_deadline(until);
        to.set_read_deadline(until);
        if from.transport().readable().await.is_err() || from.expired() {
            return false;
        }
        let Some(_admission) = buffer::admitted(|| from.expired()).await else {
            return false;
        };
        let mut buffer = buffer::small();
        match from.read(&mut buffer).await {
            Ok(0) if !from.expired() => {
                from.set_read_deadline(Millis::NEVER);
                return true;
            }
            Ok(0) | Err(_) => return false,
            Ok(_) if !to.write_all(&mut buffer, patience).await.is_ok() => return false,
            Ok(_) => {}
        }
    }
}

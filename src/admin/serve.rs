//! One listener of the control thread: accept, limit, serve HTTP/1.1 by hyper, stop.
//!
//! Each listener has a budget of its own, [`Limits`], so that whoever fills one cannot make another unreachable.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{State, Surface, internal, router};

/// What one listener spends on its clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections served at a time; more wait in the kernel's queue.
    pub(super) connections: usize,
    /// Time for a request head, and between two requests.
    pub(super) head: Duration,
    /// Life of a connection, whatever happens on it: it also ends a client that does not read its answer.
    pub(super) lifetime: Duration,
}

const LIMITS: Limits = Limits {
    connections: 64,
    head: Duration::from_secs(10),
    lifetime: Duration::from_secs(60),
};

/// A profile takes as long as is asked for.
const PROFILING: Limits = Limits {
    connections: 8,
    head: Duration::from_secs(10),
    lifetime: Duration::from_secs(660),
};

/// Time that connections get to finish an answer once told to stop, or past their lifetime.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// Bytes of a request head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Pause after `accept` failed, as it does while descriptors are used up.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A listening socket of the standard library; `serve` makes it non-blocking.
#[derive(Debug)]
pub enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
    /// From [`internal::bind`]: only connections of this process are served.
    Internal(std::os::unix::net::UnixListener),
}

/// A [`Listener`] that tokio watches.
enum Accept {
    Tcp(TcpListener),
    Unix(UnixListener),
    Internal(UnixListener),
}

/// Either kind of connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Serves `surface` on `listener` until `stop` completes; then the listener closes and answers that are under way get
/// a second. To be called within a tokio runtime that has I/O and time. Fails only if the listener cannot be used.
pub async fn serve(
    listener: Listener,
    surface: Surface,
    state: Arc<State>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let limits = match surface {
        Surface::Profiling => PROFILING,
        Surface::Admin | Surface::Observe | Surface::Metrics => LIMITS,
    };
    serve_within(limits, listener, surface, state, stop).await
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: Listener,
    surface: Surface,
    state: Arc<State>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = Accept::new(listener)?;
    let budget = Arc::new(Semaphore::new(limits.connections));
    let (closing, closed) = tokio::sync::watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept_within(&budget) => accepted,
        };
        match accepted {
            Ok(Some((stream, permit))) => {
                let (state, mut closed) = (Arc::clone(&state), closed.clone());
                connections.spawn(async move {
                    let closing = async move {
                        // An error means that the sender is gone, which is the signal.
                        let _ = closed.changed().await;
                    };
                    serve_connection(limits, stream, surface, state, closing).await;
                    drop(permit);
                });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the control thread could not accept a connection");
                tokio::select! {
                    () = &mut stop => break,
                    () = sleep(ACCEPT_BACKOFF) => {}
                }
            }
        }
    }
    drop(listener);
    drop(closing);
    // What is not done by then is cut when the set is dropped.
    let _ = timeout(STOP_GRACE, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    Ok(())
}

impl Accept {
    fn new(listener: Listener) -> io::Result<Accept> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Accept::Tcp(TcpListener::from_std(listener)?)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Accept::Unix(UnixListener::from_std(listener)?)
            }
            Listener::Internal(listener) => {
                listener.set_nonblocking(true)?;
                Accept::Internal(UnixListener::from_std(listener)?)
            }
        })
    }

    /// The next connection with its share of the budget, which is taken first; none if it was one to refuse.
    async fn accept_within(
        &self,
        budget: &Arc<Semaphore>,
    ) -> io::Result<Option<(Box<dyn Stream>, tokio::sync::OwnedSemaphorePermit)>> {
        let permit = Arc::clone(budget)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let stream: Box<dyn Stream> = match self {
            Accept::Tcp(listener) => Box::new(listener.accept().await?.0),
            Accept::Unix(listener) => Box::new(listener.accept().await?.0),
            Accept::Internal(listener) => {
                let (stream, _) = listener.accept().await?;
                if !internal::is_ourselves(&stream) {
                    tracing::warn!("another process connected to the internal socket and was refused");
                    return Ok(None);
                }
                Box::new(stream)
            }
        };
        Ok(Some((stream, permit)))
    }
}

async fn serve_connection(
    limits: Limits,
    stream: Box<dyn Stream>,
    surface: Surface,
    state: Arc<State>,
    closing: impl Future<Output = ()>,
) {
    let service =
        service_fn(|request| async { Ok::<_, Infallible>(router::answer(request, surface, &state).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // A connection that fails has nobody to be told: it is the client's own doing.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closing => {}
        () = sleep(limits.lifetime) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(STOP_GRACE, connection).await;
}

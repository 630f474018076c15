//! Backends beside something else: all on one thread of their own, with one tokio runtime.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::Options;

/// Backends that run on one thread. Dropping it stops them and waits for their end.
#[derive(Debug)]
pub struct Handle {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Where the first backend listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Where each backend listens, in the order given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Asks all backends to stop; what is in flight is answered within [`super::GRACE`].
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until all backends have ended, by [`Handle::stop`] or by `POST /_die`.
    pub fn join(mut self) {
        self.wait();
    }

    fn wait(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
        self.wait();
    }
}

/// Starts one backend on a thread of its own.
pub fn spawn(address: SocketAddr, options: Options) -> io::Result<Handle> {
    spawn_all(vec![(super::bind(address)?, options)])
}

/// Starts backends, at least one, on one thread. The listeners (of [`super::bind`]) accept from now on.
pub fn spawn_all(backends: Vec<(TcpListener, Options)>) -> io::Result<Handle> {
    if backends.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no backend to start"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = watch::channel(false);
    let mut addresses = Vec::with_capacity(backends.len());
    let mut serving = Vec::with_capacity(backends.len());
    {
        let _entered = runtime.enter();
        for (listener, options) in backends {
            addresses.push(listener.local_addr()?);
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let mut stopped = stopped.clone();
            let stop = async move { stopped.wait_for(|stop| *stop).await.is_ok() };
            serving.push(super::Server::new(listener, &options)?.run(stop));
        }
    }
    let run = move || {
        runtime.block_on(futures_util::future::join_all(serving));
    };
    let thread = std::thread::Builder::new()
        .name("backends".to_owned())
        .spawn(run)?;
    Ok(Handle {
        addresses,
        stop,
        thread: Some(thread),
    })
}

//! What the workers serve by: one immutable view of the configuration and of the backends' shared state.
//!
//! The control thread builds a [`Snapshot`] and publishes it ([`Published`]); a worker asks once per exchange whether there
//! is a newer one and keeps it by a count of its own ([`View`]), so that an exchange ends by the snapshot it began with. A
//! [`Backend`] in it is shared with the snapshots before and after.

pub mod retry;

use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use crate::access_log;
use crate::access_log::redact::Redaction;
use crate::balance;
use crate::balance::pick::Member;
use crate::balance::pool::{Event, Settings, Verdict};
use crate::balance::shared::Flag;
use crate::clock::{Millis, Span};
use crate::config::Config;
use crate::config::model::StrategyKind;
use crate::events::{self, Tone};
use crate::http1::{self, Method, RequestHead};
use crate::limits::rate::RateTable;
use crate::limits::sticky::Sticky;
use crate::server::wake::WakeHandle;
use crate::trace::Sampler;
use crate::upstream::backend::Backend;
use crate::upstream::history::Why;
use retry::RetryRules;

/// A named group of backends with one strategy.
#[derive(Debug)]
pub struct Pool {
    pub name: String,
    pub backends: Vec<Arc<Backend>>,
    pub balance: balance::pool::Pool,
    /// Wakes the health thread, once there is one.
    pub health: Arc<OnceLock<Arc<WakeHandle>>>,
}

impl Pool {
    /// A pool of these backends, each with the member that stands for it in picks.
    pub fn new(name: &str, config: &Config, backends: Vec<(Arc<Backend>, Member)>) -> Self {
        let (backends, members) = backends.into_iter().unzip();
        Pool {
            name: name.to_owned(),
            backends,
            balance: balance::pool::Pool::new(Settings::of(config), members),
            health: Arc::default(),
        }
    }

    /// Whether a backend may be chosen.
    pub fn is_eligible(&self, index: usize) -> bool {
        self.balance.eligible().get(index)
    }

    /// Backends that may be chosen.
    pub fn eligible(&self) -> usize {
        self.balance.eligible().count()
    }

    /// Takes in what the health thread found, and logs what came of it.
    pub fn probe(&self, index: usize, verdict: Verdict, now: Millis) {
        let Some(backend) = self.backends.get(index) else {
            return;
        };
        let was_out = backend.shared.has(Flag::ProbeDown) || backend.shared.has(Flag::Dead);
        match verdict {
            Verdict::Up => {
                backend.note_if(was_out, Why::ProbeUp);
                if was_out {
                    events::note(Tone::Good, &backend.name, "health checks say up");
                }
            }
            // What the probe found is told by who made it.
            Verdict::Sick | Verdict::Dead => backend.note_if(!was_out, Why::ProbeDown),
        }
        self.balance
            .probe(index, verdict, now, &mut |event| self.log(event));
    }

    /// Lets time pass, and logs what came of it.
    pub fn tick(&self, now: Millis) {
        self.balance.tick(now, &mut |event| self.log(event));
    }

    /// Says what changed, once.
    pub fn log(&self, event: Event) {
        let pool = &*self.name;
        if let Some((index, why)) = why(event)
            && let Some(backend) = self.backends.get(index)
        {
            backend.history.note(why);
        }
        let name = |index: usize| self.backends.get(index).map_or("", |backend| &*backend.name);
        match event {
            Event::BreakerOpened { index } => {
                events::note(Tone::Bad, name(index), "circuit breaker opened");
                tracing::warn!(
                    pool,
                    backend = name(index),
                    from = "CLOSED",
                    to = "OPEN",
                    "circuit breaker"
                );
            }
            Event::BreakerHalfOpen { index } => {
                events::note(
                    Tone::Neutral,
                    name(index),
                    "circuit breaker is half-open: trials begin",
                );
                tracing::info!(
                    pool,
                    backend = name(index),
                    from = "OPEN",
                    to = "HALF-OPEN",
                    "circuit breaker"
                );
            }
            Event::BreakerClosed { index } => {
                events::note(Tone::Good, name(index), "circuit breaker closed");
                tracing::info!(
                    pool,
                    backend = name(index),
                    from = "HALF-OPEN",
                    to = "CLOSED",
                    "circuit breaker"
                );
            }
            Event::BreakerReopened { index } => {
                events::note(
                    Tone::Bad,
                    name(index),
                    "circuit breaker opened again: a trial failed",
                );
                tracing::warn!(
                    pool,
                    backend = name(index),
                    from = "HALF-OPEN",
                    to = "OPEN",
                    "circuit breaker"
                );
            }
            Event::Ejected { index, reason, lasts } => {
                let (reason, lasts_ms) = (reason.word(), lasts.as_millis() as u64);
                events::note(
                    Tone::Bad,
                    name(index),
                    format!("ejected for {lasts_ms} ms: {reason}"),
                );
                tracing::warn!(pool, backend = name(index), reason, lasts_ms, "backend ejected");
            }
            Event::EjectionTrial { index } => {
                events::note(Tone::Neutral, name(index), "gets a trial after its ejection");
                tracing::info!(pool, backend = name(index), "ejected backend gets a trial");
            }
            Event::Returned { index } => {
                events::note(Tone::Good, name(index), "returned from its ejection");
                tracing::info!(pool, backend = name(index), "ejected backend returned");
            }
            Event::Held { index, what } => {
                events::note(
                    Tone::Neutral,
                    name(index),
                    format!("stays in although {what}: too few would be left"),
                );
                tracing::warn!(
                    pool,
                    backend = name(index),
                    what,
                    "held: too few would be left without it"
                );
            }
            Event::Dead { index } => {
                events::note(Tone::Bad, name(index), "is dead: a connect was refused");
                tracing::warn!(
                    pool,
                    backend = name(index),
                    "backend is dead: a connect was refused"
                );
            }
            Event::ProbeWanted { .. } => {
                if let Some(wake) = self.health.get() {
                    wake.wake();
                }
            }
            Event::PanicBegan { well, of } => {
                events::note(
                    Tone::Bad,
                    "",
                    format!("panic: only {well} of {of} backends are well, the others are used too"),
                );
                tracing::warn!(
                    pool,
                    well,
                    of,
                    "panic: too few backends are well, the others are used too"
                );
            }
            Event::PanicEnded { well, of } => {
                events::note(
                    Tone::Good,
                    "",
                    format!("panic is over: {well} of {of} backends are well"),
                );
                tracing::info!(pool, well, of, "panic is over: enough backends are well");
            }
        }
    }
}

/// What an event says of the state of which backend.
fn why(event: Event) -> Option<(usize, Why)> {
    match event {
        Event::BreakerOpened { index } | Event::BreakerReopened { index } => {
            Some((index, Why::BreakerOpened))
        }
        Event::BreakerHalfOpen { index } => Some((index, Why::BreakerHalfOpen)),
        Event::BreakerClosed { index } => Some((index, Why::BreakerClosed)),
        Event::Ejected { index, .. } => Some((index, Why::Ejected)),
        Event::EjectionTrial { index } => Some((index, Why::Trial)),
        Event::Returned { index } => Some((index, Why::Returned)),
        Event::Dead { index } => Some((index, Why::Refused)),
        Event::Held { .. }
        | Event::ProbeWanted { .. }
        | Event::PanicBegan { .. }
        | Event::PanicEnded { .. } => None,
    }
}

/// The configuration in force with the pools it names.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Config,
    /// The same without what was set at run time.
    pub written: Config,
    pub head_limits: http1::Limits,
    pub retry: RetryRules,
    /// What one client may ask for; none: no limit.
    pub rate: Option<Arc<RateTable>>,
    /// What brings clients back to their backends; none: off.
    pub sticky: Option<Sticky>,
    /// What the lines of the access log look like; none: there are none.
    pub access_log: Option<access_log::Settings>,
    /// What must not be shown of exchanges.
    pub redaction: Redaction,
    /// Which traces are recorded; none: weir takes no part in any.
    pub sampler: Option<Sampler>,
    /// From when on an exchange is slow.
    pub slow: Span,
    /// Under `prequal`, backends are asked for their load.
    pub asks_for_load: bool,
    /// How long one attempt may take to connect, and its backend to answer.
    pub connect_patience: Duration,
    pub head_patience: Duration,
    /// The pool that every request goes to.
    pub pool: Pool,
    /// Where `/metrics` on the main port is answered: the control thread, reached as if it were a backend.
    pub internal: Option<Arc<Backend>>,
}

impl Snapshot {
    /// Who answers instead of a backend: `metrics.path`, asked for by an allowed peer that speaks for nobody else.
    #[inline]
    pub fn internal_for(
        &self,
        head: &RequestHead,
        bytes: &[u8],
        peer: Option<IpAddr>,
    ) -> Option<&Arc<Backend>> {
        let metrics = &self.config.metrics;
        let (internal, path) = (self.internal.as_ref()?, metrics.path.as_ref()?);
        let asked = head.path(bytes).split(|&byte| byte == b'?').next()?;
        let asks = asked == path.as_bytes()
            && matches!(head.method(), Method::Get | Method::Head)
            && !head.has_forwarding_fields()
            && peer.is_some_and(|peer| metrics.allow.iter().any(|network| network.contains(&peer)));
        asks.then_some(internal)
    }

    /// Without a rate limit and sticky cookies, which [`Self::with_rate`] and [`Self::with_sticky`] add.
    pub fn new(config: Config, pool: Pool, internal: Option<Arc<Backend>>) -> Self {
        let retry = RetryRules::new(&config.retry);
        let one_try = retry.per_try_timeout.unwrap_or(Duration::MAX);
        Snapshot {
            head_limits: http1::Limits {
                max_head_bytes: config.http.max_head_bytes,
                max_headers: config.http.max_headers,
            },
            connect_patience: config.timeouts.connect.min(one_try),
            head_patience: config.timeouts.response_head.min(one_try),
            retry,
            rate: None,
            sticky: None,
            access_log: access_log::Settings::new(&config.access_log),
            redaction: Redaction {
                query: config.access_log.redact_query.clone(),
                headers: config.access_log.redact_headers.clone(),
            },
            sampler: config.tracing.otlp.is_some().then(|| Sampler {
                ratio: f64::from(config.tracing.sample_ratio),
                parent: config.tracing.sample_parent,
            }),
            slow: Span(u64::try_from(config.debug.slow.as_nanos()).unwrap_or(u64::MAX)),
            asks_for_load: config.strategy.kind == StrategyKind::Prequal
                && config.strategy.probe_path.is_some(),
            pool,
            internal,
            written: config.clone(),
            config,
        }
    }

    pub fn with_rate(mut self, rate: Option<Arc<RateTable>>) -> Self {
        self.rate = rate;
        self
    }

    pub fn with_sticky(mut self, sticky: Option<Sticky>) -> Self {
        self.sticky = sticky;
        self
    }

    /// Of a configuration to which something was added at run time.
    pub fn with_written(mut self, written: Config) -> Self {
        self.written = written;
        self
    }
}

/// The snapshot in force, for all threads.
#[derive(Debug)]
pub struct Published {
    /// Grows with every snapshot; what workers look at.
    generation: AtomicU64,
    current: Mutex<Arc<Snapshot>>,
}

impl Published {
    pub fn new(snapshot: Snapshot) -> Self {
        Published {
            generation: AtomicU64::new(1),
            current: Mutex::new(Arc::new(snapshot)),
        }
    }

    /// Puts `snapshot` in force. For the control thread.
    pub fn replace(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let before = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, snapshot.clone())
        };
        self.generation.fetch_add(1, Ordering::Release);
        drop(before);
        // What changed a backend through the old one meanwhile shows in the new one too.
        snapshot
            .pool
            .balance
            .publish(&mut |event| snapshot.pool.log(event));
    }

    /// The snapshot in force. For every thread but the workers'.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A worker's first view.
    pub fn view(&self) -> View {
        View {
            generation: self.generation.load(Ordering::Acquire),
            snapshot: self.current(),
        }
    }
}

/// A worker's hold on a snapshot.
#[derive(Clone, Debug)]
pub struct View {
    generation: u64,
    snapshot: Arc<Snapshot>,
}

impl View {
    /// A newer view, if there is one and the control thread is not at it this very moment: a worker does not wait.
    #[inline]
    pub fn newer(&self, published: &Published) -> Option<Rc<View>> {
        let generation = published.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return None;
        }
        let current = match published.current.try_lock() {
            Ok(current) => current,
            Err(TryLockError::Poisoned(current)) => current.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Rc::new(View {
            generation,
            snapshot: current.clone(),
        }))
    }
}

impl Deref for View {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.snapshot
    }
}

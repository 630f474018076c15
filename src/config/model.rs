//! The effective configuration, as the rest of weir reads it: validated, every default filled in, no strings left that
//! still need parsing. Only `config` builds one (tests may, through [`Config::default`]).
//!
//! The enums that are one word in the file derive serde's traits: their words are read, listed in errors and printed
//! from that one place (`forms/words.rs`).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::log::levels::{Levels, Module};

/// Everything weir was told, after defaults, file, environment and flags.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub server: Server,
    pub runtime: Runtime,
    pub http: Http,
    pub timeouts: Timeouts,
    pub upstream: Upstream,
    pub limits: Limits,
    pub strategy: Strategy,
    pub backends: Vec<Backend>,
    pub logging: Logging,
    pub access_log: AccessLog,
    pub admin: Admin,
    pub observe: Observe,
    pub metrics: Metrics,
    pub tracing: Tracing,
    pub shutdown: Shutdown,
    pub debug: Debugging,
    pub health_check: HealthCheck,
    pub circuit_breaker: CircuitBreaker,
    pub retry: Retry,
    pub outlier: Outlier,
    pub hedge: Hedge,
    pub rate_limit: RateLimit,
    pub admission: AdmissionControl,
    pub sticky: Sticky,
    pub profiling: Profiling,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `":8080"` means every IPv4 and IPv6 address (`[::]:8080`, dual stack; `0.0.0.0` where IPv6 is off).
    Any { port: u16 },
    /// `host:port` with a literal address.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub address: Vec<ListenAddress>,
    /// A label in logs and build info.
    pub environment: String,
    /// Length of the kernel's accept queue.
    pub backlog: u32,
    /// Client connections over all workers; reached: accepting stops.
    pub max_connections: Option<usize>,
    /// Exchanges on one client connection before it is closed.
    pub max_requests_per_connection: Option<u64>,
    /// Who may say on whose behalf it asks (`X-Forwarded-For`, `Forwarded`).
    pub trusted_proxies: Vec<IpNet>,
}

/// `[runtime]`
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// Worker threads; 0: one per allowed CPU.
    pub workers: usize,
    /// The CPUs to pin to, in worker order; empty: the allowed ones.
    pub cores: Vec<usize>,
    pub pin: bool,
    pub driver: DriverChoice,
    /// Submission queue entries of each worker's ring (a power of two).
    pub ring_entries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriverChoice {
    Auto,
    IoUring,
    Epoll,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    pub max_head_bytes: usize,
    pub max_headers: usize,
    pub max_body_bytes: Option<u64>,
    /// Bytes per second that a request body must average once 10 s were spent waiting for it; 0: no bound.
    pub min_body_rate: u64,
    pub host: HostMode,
    pub forwarded: ForwardedMode,
    pub via: bool,
    /// Whether own answers carry `x-weir-reason`.
    pub reason_header: bool,
    /// Backends get an `x-request-id`.
    pub request_id: bool,
}

/// What the backend sees as `Host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMode {
    Preserve,
    Backend,
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedMode {
    XForwarded,
    Rfc7239,
    Both,
    Off,
}

/// `[timeouts]`
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    pub request_head: Duration,
    /// Between two reads of a request body.
    pub request_body: Duration,
    /// Keep-alive: between two requests of a client.
    pub idle: Duration,
    pub connect: Duration,
    pub response_head: Duration,
    /// Between two reads of a response body, and between two writes of it that the client takes.
    pub response_body: Duration,
    /// A tunnel without a byte in either direction.
    pub tunnel: Duration,
    /// A whole exchange.
    pub exchange: Option<Duration>,
}

/// `[upstream]`
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Idle connections kept per backend, over all workers.
    pub max_idle: usize,
    pub idle: Duration,
    pub max_age: Duration,
    /// Sockets per backend, over all workers.
    pub max_connections: Option<usize>,
    /// Idle time before the first keep-alive probe; none: keep-alive probes off.
    pub tcp_keepalive: Option<Duration>,
    pub tcp_user_timeout: Option<Duration>,
    pub source_address: Option<IpAddr>,
    /// `SO_RCVBUF` toward backends, in bytes as given (the kernel doubles it); from `transport::RECEIVE_BUFFER_FIRST` on,
    /// set once large bodies flow.
    pub receive_buffer: usize,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of pooled buffers over all workers; none: half of the cgroup's limit or of RAM.
    pub buffer_memory: Option<u64>,
    /// Client connections from one address (IPv6: one /64), over all workers.
    pub max_connections_per_ip: Option<u32>,
    /// Exchanges in flight at one backend, over all workers.
    pub max_inflight: Option<u32>,
    /// Exchanges of one pool that may wait for a slot, over all workers.
    pub queue: u32,
    pub queue_timeout: Duration,
}

/// `[strategy]`
#[derive(Clone, Debug, PartialEq)]
pub struct Strategy {
    pub kind: StrategyKind,
    /// Points per weight unit on the ring of `consistent_hash`.
    pub virtual_nodes: u32,
    /// What `consistent_hash` and `maglev` hash.
    pub key: HashKey,
    /// No backend gets more than this times its share of what is in flight (hashing strategies); below 1: no bound.
    pub max_load: f32,
    /// Where `prequal` asks backends for their load; none: it uses weir's own counts.
    pub probe_path: Option<String>,
    /// Probes per request.
    pub probe_rate: f32,
    /// Of one worker.
    pub probes_max_per_second: u32,
    /// How long a backend that comes back takes to reach its whole weight; zero: at once.
    pub slow_start: Duration,
    /// `failover`: with fewer eligible ones in a tier, the next one joins.
    pub tier_min: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StrategyKind {
    RoundRobin,
    WeightedRoundRobin,
    Random,
    LeastConn,
    P2c,
    LeastResponse,
    ConsistentHash,
    Maglev,
    Prequal,
    Failover,
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Ip,
    Header(String),
    Cookie(String),
    /// The target, query included.
    Uri,
    Path,
    /// One parameter of the query.
    Query(String),
}

/// One `[[backends]]`
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// As written: the label in metrics.
    pub url: String,
    pub address: BackendAddress,
    /// The url's authority unless given; unique.
    pub name: String,
    pub weight: u16,
    /// Tier under `failover`: lower ones first.
    pub priority: u16,
    /// Takes part only where too few of the others are left.
    pub backup: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// A name or a literal address, resolved by the control thread at start. `host` has no brackets.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// `[logging]`
#[derive(Clone, Debug, PartialEq)]
pub struct Logging {
    pub level: Level,
    /// Modules with a level of their own.
    pub modules: Vec<(Module, Level)>,
    /// None: text on a terminal, JSON elsewhere.
    pub format: Option<LogFormat>,
}

impl Logging {
    pub fn levels(&self) -> Levels {
        Levels {
            level: self.level,
            modules: self.modules.iter().copied().collect(),
        }
    }
}

/// `[access_log]`
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    pub output: AccessOutput,
    pub format: AccessFormat,
    pub only: AccessOnly,
    /// What `only = "slow"` takes for slow.
    pub slow: Duration,
    /// Per cent.
    pub sample: f32,
    /// Request headers that lines show besides, in lower case.
    pub headers: Vec<String>,
    /// Those of them whose values are not shown.
    pub redact_headers: Vec<String>,
    /// Query parameters whose values are not shown, in lower case.
    pub redact_query: Vec<String>,
    /// The socket of syslog or journald; none: where it is everywhere.
    pub socket: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessOutput {
    Off,
    Stdout,
    Syslog,
    Journald,
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    Json,
    Common,
    Combined,
    /// Text with fields in braces; see [`crate::access_log::template`].
    Template(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessOnly {
    All,
    Errors,
    Slow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Text,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// None: `"off"`.
    pub address: Option<ListenAddress>,
    /// Holds the bearer token that every request must carry; needed where `address` is not loopback or a Unix socket.
    pub token_file: Option<PathBuf>,
    /// Host names that requests may carry, besides addresses and localhost.
    pub hosts: Vec<String>,
}

/// `[observe]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observe {
    pub address: Option<ListenAddress>,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// The path on the main port; none: `"off"`.
    pub path: Option<String>,
    pub allow: Vec<IpNet>,
}

/// `[tracing]`
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Where spans go by OTLP/HTTP; none: nowhere.
    pub otlp: Option<CollectorUrl>,
    /// Of the traces that begin here, 0 to 1.
    pub sample_ratio: f32,
    /// What the caller decided counts.
    pub sample_parent: bool,
    pub service_name: String,
    /// Between two batches.
    pub interval: Duration,
    /// What the collector may take for a batch.
    pub timeout: Duration,
}

/// `http://host[:port][/path]` of an OTLP collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl {
    /// `host:port`
    pub authority: String,
    /// `/v1/traces` where none is written.
    pub path: String,
}

/// `[shutdown]`
#[derive(Clone, Debug, PartialEq)]
pub struct Shutdown {
    pub timeout: Duration,
    pub idle_grace: Duration,
    pub delay: Duration,
}

/// `[debug]`
#[derive(Clone, Debug, PartialEq)]
pub struct Debugging {
    /// Whose `x-weir-trace` is answered.
    pub allow: Vec<IpNet>,
    /// Exchanges that are kept for a look.
    pub keep: usize,
    /// From when on one is slow.
    pub slow: Duration,
}

/// `[profiling]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profiling {
    /// None: `"off"`.
    pub address: Option<ListenAddress>,
    /// Bytes between two sampled allocations; none: none is sampled.
    pub heap_sample: Option<u64>,
}

/// `[health_check]`
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    pub kind: HealthCheckKind,
    /// Path and query of the probe's request.
    pub path: String,
    pub method: String,
    /// Name and value of headers that the probe sends besides its own.
    pub headers: Vec<(String, String)>,
    /// The statuses that count as good.
    pub expect_status: Vec<StatusRange>,
    /// Text that the body must contain.
    pub expect_body: Option<String>,
    pub interval: Duration,
    /// Between probes while a backend is changing state; none: a quarter of `interval`.
    pub fast_interval: Option<Duration>,
    /// A whole probe, from the connect to the last byte.
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    /// Where to probe; none: the backend's own port.
    pub port: Option<u16>,
    pub start: HealthStart,
    pub max_response_bytes: usize,
    /// Per cent of a pool; with less than this left, liveness is ignored. 0: never.
    pub panic_threshold: u8,
}

/// Statuses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

/// What a backend counts as before its first probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStart {
    Up,
    Down,
    /// Listeners open when the first round of probes is over.
    Check,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthCheckKind {
    Http,
    Tcp,
    Off,
}

/// `[circuit_breaker]`
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitBreaker {
    pub enabled: bool,
    /// Consecutive failures.
    pub failure_threshold: u32,
    pub reset_timeout: Duration,
    /// Trials at a time while half-open, over all workers.
    pub half_open_requests: u32,
    /// Good trials that close the breaker.
    pub success_threshold: u32,
    /// Per cent of failures within `window` that opens the breaker too.
    pub error_rate: Option<u8>,
    pub window: Duration,
    /// Attempts within `window` below which `error_rate` is not judged.
    pub min_volume: u32,
    /// What counts as a failure.
    pub failures: Vec<Failure>,
    /// Whether a breaker may open although it leaves fewer than `panic_threshold` per cent of the pool.
    pub ignore_panic: bool,
}

/// One way in which an attempt goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Refused, unreachable, or not connected in time: nothing was sent.
    ConnectFailure,
    /// The backend closed or reset before its answer was whole.
    Reset,
    /// An answer did not come in time.
    Timeout,
    /// A kept-alive connection turned out to be closed.
    StaleConnection,
    Status(u16),
    /// `Class(5)`: 500 to 599.
    Class(u8),
}

/// `[retry]`
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    pub max_retries: u32,
    /// Methods that may be sent again after something was sent.
    pub methods: Vec<String>,
    /// What is retried; a stale connection always is.
    pub on: Vec<Failure>,
    /// Bytes of a request body kept for sending it again.
    pub buffer: usize,
    /// One attempt.
    pub per_try_timeout: Option<Duration>,
    /// Retries as per cent of the requests of the last 10 s.
    pub budget: u8,
    /// Retries per second that the budget always allows.
    pub min_per_second: u32,
}

/// `[outlier]`: who is taken out by what its traffic shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// Gateway failures in a row (no answer, 502, 503, 504).
    pub consecutive_gateway: Option<u32>,
    /// Failures of any kind in a row.
    pub consecutive_5xx: Option<u32>,
    /// Whether a success rate below the pool's mean less 1.9 standard deviations ejects.
    pub success_rate: bool,
    /// Requests per second of a backend below which its success rate is not judged.
    pub min_volume: u32,
    /// Times the pool's median latency that ejects.
    pub latency_factor: Option<f32>,
    /// The first ejection's length; the n-th one's is n times that.
    pub base_ejection: Duration,
    pub max_ejection_percent: u8,
}

/// `[hedge]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hedge {
    /// A second attempt for idempotent requests after the pool's 95th percentile.
    pub enabled: bool,
}

/// `[rate_limit]`
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Requests per `per` of one key; none: no limit.
    pub requests: Option<u32>,
    pub per: Duration,
    /// Requests that may come at once.
    pub burst: u32,
    pub key: RateKey,
    /// Whom no limit holds.
    pub exempt: Vec<IpNet>,
    /// Keys that the table has room for.
    pub max_keys: u32,
}

/// Whom a rate limit counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    Ip,
    Header(String),
}

/// `[admission]`: load shedding by queue delay.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmissionControl {
    /// The delay that may stand; none: off.
    pub target: Option<Duration>,
    /// How long it may be exceeded before anything is refused.
    pub interval: Duration,
}

/// `[sticky]`
#[derive(Clone, Debug, PartialEq)]
pub struct Sticky {
    /// The cookie's name; none: off.
    pub cookie: Option<String>,
    /// Holds the key of the cookie's hash; none: a fixed one.
    pub secret_file: Option<PathBuf>,
    pub secure: bool,
    /// None: until the browser closes.
    pub max_age: Option<Duration>,
    pub path: String,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            address: vec![ListenAddress::Any { port: 8080 }],
            environment: "production".to_owned(),
            backlog: 4096,
            max_connections: None,
            max_requests_per_connection: None,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime {
            workers: 0,
            cores: Vec::new(),
            pin: true,
            driver: DriverChoice::Auto,
            ring_entries: 4096,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http {
            max_head_bytes: 32 * 1024,
            max_headers: 128,
            max_body_bytes: None,
            min_body_rate: 1024,
            host: HostMode::Preserve,
            forwarded: ForwardedMode::XForwarded,
            via: false,
            reason_header: true,
            request_id: true,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            request_head: Duration::from_secs(10),
            request_body: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            connect: Duration::from_secs(1),
            response_head: Duration::from_secs(30),
            response_body: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
            exchange: None,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream {
            max_idle: 256,
            idle: Duration::from_secs(50),
            max_age: Duration::from_secs(600),
            max_connections: None,
            tcp_keepalive: Some(Duration::from_secs(30)),
            tcp_user_timeout: None,
            source_address: None,
            receive_buffer: 512 * 1024,
        }
    }
}

impl Default for Strategy {
    fn default() -> Self {
        Strategy {
            kind: StrategyKind::RoundRobin,
            virtual_nodes: 100,
            key: HashKey::Ip,
            max_load: 1.25,
            probe_path: None,
            probe_rate: 3.0,
            probes_max_per_second: 500,
            slow_start: Duration::ZERO,
            tier_min: 1,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            buffer_memory: None,
            max_connections_per_ip: None,
            max_inflight: None,
            queue: 1024,
            queue_timeout: Duration::from_secs(1),
        }
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Outlier {
            consecutive_gateway: Some(5),
            consecutive_5xx: None,
            success_rate: true,
            min_volume: 100,
            latency_factor: None,
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 50,
        }
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit {
            requests: None,
            per: Duration::from_secs(1),
            burst: 200,
            key: RateKey::Ip,
            exempt: Vec::new(),
            max_keys: 65_536,
        }
    }
}

impl Default for AdmissionControl {
    fn default() -> Self {
        AdmissionControl {
            target: None,
            interval: Duration::from_millis(100),
        }
    }
}

impl Default for Sticky {
    fn default() -> Self {
        Sticky {
            cookie: None,
            secret_file: None,
            secure: false,
            max_age: None,
            path: "/".to_owned(),
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Logging {
            level: Level::Info,
            modules: Vec::new(),
            format: None,
        }
    }
}

impl Default for AccessLog {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        AccessLog {
            output: AccessOutput::Off,
            format: AccessFormat::Json,
            only: AccessOnly::All,
            slow: Duration::from_secs(1),
            sample: 100.0,
            headers: Vec::new(),
            redact_headers: names(&["authorization", "cookie", "proxy-authorization", "x-api-key"]),
            redact_query: names(&[
                "access_token",
                "api_key",
                "apikey",
                "auth",
                "code",
                "key",
                "password",
                "secret",
                "session",
                "sig",
                "signature",
                "token",
            ]),
            socket: None,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            address: Some(ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 9070)))),
            token_file: None,
            hosts: Vec::new(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            path: Some("/metrics".to_owned()),
            allow: loopback(),
        }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Tracing {
            otlp: None,
            sample_ratio: 0.01,
            sample_parent: true,
            service_name: "weir".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
        }
    }
}

impl Default for Debugging {
    fn default() -> Self {
        Debugging {
            allow: loopback(),
            keep: 256,
            slow: Duration::from_secs(1),
        }
    }
}

/// The networks of this machine alone.
fn loopback() -> Vec<IpNet> {
    vec![
        IpNet::V4("127.0.0.0/8".parse().expect("a literal network")),
        IpNet::V6("::1/128".parse().expect("a literal network")),
    ]
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown {
            timeout: Duration::from_secs(30),
            idle_grace: Duration::from_millis(200),
            delay: Duration::ZERO,
        }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        HealthCheck {
            kind: HealthCheckKind::Http,
            path: "/health".to_owned(),
            method: "GET".to_owned(),
            headers: Vec::new(),
            expect_status: vec![StatusRange {
                first: 200,
                last: 399,
            }],
            expect_body: None,
            interval: Duration::from_secs(2),
            fast_interval: None,
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
            start: HealthStart::Check,
            max_response_bytes: 64 * 1024,
            panic_threshold: 50,
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker {
            enabled: true,
            failure_threshold: 5,
            reset_timeout: Duration::from_secs(30),
            half_open_requests: 1,
            success_threshold: 1,
            error_rate: None,
            window: Duration::from_secs(10),
            min_volume: 20,
            failures: vec![
                Failure::ConnectFailure,
                Failure::Reset,
                Failure::Timeout,
                Failure::Class(5),
            ],
            ignore_panic: false,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            max_retries: 2,
            methods: ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"]
                .map(str::to_owned)
                .to_vec(),
            on: vec![
                Failure::ConnectFailure,
                Failure::Reset,
                Failure::Timeout,
                Failure::Status(502),
                Failure::Status(503),
                Failure::Status(504),
            ],
            buffer: 64 * 1024,
            per_try_timeout: None,
            budget: 20,
            min_per_second: 10,
        }
    }
}

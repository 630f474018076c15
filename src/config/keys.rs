//! Every key, once: where it stands, what it may hold, which field it fills, and what it means.
//!
//! The file, the environment, `--set`, suggestions for typing errors, `weir check` and the tables of
//! docs/configuration.md all come from here.

use std::time::Duration;

use super::forms::{
    AccessFormatForm, AccessOutputForm, BackendName, BackendUrl, Bad, Boolean, CollectorForm, CookieName,
    CookiePath, Decimal, FailureForm, FilePath, Form, HashKeyForm, HeaderForm, HostForm, HostName, InMemory,
    Integer, IpForm, List, ListenForm, LowerName, MethodForm, ModuleLevel, NetForm, Optional, PathForm, Rate,
    RateKeyForm, Size, StatusRangeForm, StrategyForm, Target, Text, Time, Words,
};
use super::model::{
    AccessOnly, Config, DriverChoice, ForwardedMode, HealthCheckKind, HealthStart, Level, LogFormat,
};
use super::node::Node;
use super::validate::MAX_BACKENDS;
use crate::log::levels::MODULES;

/// One key that fills a field of `T`.
pub(super) struct Key<T> {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    /// What may be written, as a phrase.
    pub(super) allowed: fn() -> String,
    /// Whether the value was good; then it is in its field, else `bad` says why not.
    pub(super) read: fn(&mut T, &Node, &mut Vec<Bad>) -> bool,
    /// The field in TOML.
    pub(super) show: fn(&T) -> String,
}

impl<T> Key<T> {
    /// `section.key`, as `--set` and errors call it.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `WEIR_SECTION_KEY`.
    pub(super) fn variable(&self) -> String {
        format!("WEIR_{}_{}", self.section, self.name).to_uppercase()
    }
}

macro_rules! keys {
    ($([$section:ident] $($name:ident = $($field:ident).+ : $form:expr, $doc:literal;)+)+) => {
        &[$($(Key {
            section: stringify!($section),
            name: stringify!($name),
            doc: $doc,
            allowed: || $form.allowed(),
            read: |target, node, bad| match $form.read(node, bad) {
                Some(value) => {
                    target.$($field).+ = value;
                    true
                }
                None => false,
            },
            show: |target| $form.show(&target.$($field).+),
        }),+),+]
    };
}

/// Sections that later versions have; refused with other words than a typing error.
pub(super) const RESERVED: &[&str] = &["listeners", "routes", "pools"];

/// The section that is a list of tables.
pub(super) const BACKENDS: &str = "backends";

/// `WEIR_BACKENDS`: the urls alone, with commas between.
pub(super) const BACKENDS_VARIABLE: &str = "WEIR_BACKENDS";

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;

/// The largest number of sockets that a key may ask for; the kernel's `nr_open` is below it everywhere.
const SOCKETS: usize = 16_777_216;

/// The largest of the other counts: of exchanges, of connections, of keys in a table.
const MANY: u32 = 16_777_216;

/// An exchange keeps the backends that it has tried in a table of a fixed size.
const MAX_RETRIES: u32 = 10;

/// An optional value whose absence is written "none" (and read as "off" too).
const fn or_none<F>(form: F) -> Optional<F> {
    Optional { form, word: "none" }
}

/// An optional value whose absence is written "off" (and read as "none" too).
const fn or_off<F>(form: F) -> Optional<F> {
    Optional { form, word: "off" }
}

/// An optional length of life that ends with the client's session where it is absent.
const fn or_session<F>(form: F) -> Optional<F> {
    Optional {
        form,
        word: "session",
    }
}

/// An optional value that weir chooses itself where it is absent.
const fn or_auto<F>(form: F) -> Optional<F> {
    Optional { form, word: "auto" }
}

/// All keys but those of `[[backends]]`, by section.
pub(super) static KEYS: &[Key<Config>] = keys! {
    [server]
    address = server.address: List { form: ListenForm, min: 1, max: 64 },
        "Where clients connect. `:8080` is every IPv4 and IPv6 address; port 0 lets the kernel choose.";
    environment = server.environment: Text { max: 64 },
        "A label in logs and build info.";
    backlog = server.backlog: Integer { min: 1u32, max: 1 << 24 },
        "Length of the kernel's accept queue (`net.core.somaxconn` bounds it too).";
    max_connections = server.max_connections: or_none(Integer { min: 1usize, max: SOCKETS }),
        "Client connections over all workers; when reached, accepting stops until one closes.";
    max_requests_per_connection = server.max_requests_per_connection:
        or_none(Integer { min: 1u64, max: 1_000_000_000_000 }),
        "Exchanges on one client connection before it is closed.";
    trusted_proxies = server.trusted_proxies: List { form: NetForm, min: 0, max: 1024 },
        "Whose `X-Forwarded-For` or `Forwarded` is believed, read from the right; from all others it is replaced.";

    [runtime]
    workers = runtime.workers: Integer { min: 0usize, max: 1024 },
        "Worker threads; 0 is one per CPU that the affinity mask and the cgroup's quota allow.";
    cores = runtime.cores: List { form: Integer { min: 0usize, max: 8191 }, min: 0, max: 1024 },
        "CPUs to pin to, in worker order; empty takes the allowed ones. An unavailable one is an error.";
    pin = runtime.pin: Boolean,
        "Whether each worker stays on its CPU.";
    driver = runtime.driver: Words::<DriverChoice>::new(),
        "`auto` takes io_uring and falls back to epoll where the kernel refuses it.";
    ring_entries = runtime.ring_entries: Integer { min: 64u32, max: 32_768 },
        "Submission queue entries of each worker's ring; a power of two.";

    [http]
    max_head_bytes = http.max_head_bytes: InMemory(Size { min: KIB, max: 128 * KIB }),
        "Bytes of a request's or response's head; a longer one gets 431 (or 502).";
    max_headers = http.max_headers: Integer { min: 1usize, max: 512 },
        "Header fields of a head.";
    max_body_bytes = http.max_body_bytes: or_none(Size { min: 1, max: 1024 * TIB }),
        "Bytes of a request body; a longer one gets 413.";
    min_body_rate = http.min_body_rate: Rate { max: GIB },
        "What a request body must average once 10 s were spent waiting for it.";
    host = http.host: HostForm,
        "What backends see as `Host`: the client's, the backend's own, or a fixed one.";
    forwarded = http.forwarded: Words::<ForwardedMode>::new(),
        "Which headers tell backends about the client: `X-Forwarded-*`, `Forwarded` (RFC 7239), both or none.";
    via = http.via: Boolean,
        "Whether weir adds itself to `Via`.";
    reason_header = http.reason_header: Boolean,
        "Whether weir's own answers carry `x-weir-reason`.";
    request_id = http.request_id: Boolean,
        "Whether backends get an `x-request-id`: a trusted proxy's, else a new UUIDv7.";

    [timeouts]
    request_head = timeouts.request_head: Time::POSITIVE,
        "From the first byte of a request's head to its last.";
    request_body = timeouts.request_body: Time::POSITIVE,
        "Between two reads of a request body.";
    idle = timeouts.idle: Time::POSITIVE,
        "Keep-alive: between two requests of a client.";
    connect = timeouts.connect: Time::POSITIVE,
        "To connect to a backend, over all of its addresses.";
    response_head = timeouts.response_head: Time::POSITIVE,
        "From the end of the request to the response's head.";
    response_body = timeouts.response_body: Time::POSITIVE,
        "Between two reads of a response body, and between two writes that the client takes.";
    tunnel = timeouts.tunnel: Time::POSITIVE,
        "A tunnel (WebSocket) without a byte in either direction.";
    exchange = timeouts.exchange: or_none(Time::POSITIVE),
        "A whole exchange, all attempts included.";

    [upstream]
    max_idle = upstream.max_idle: Integer { min: 0usize, max: SOCKETS },
        "Idle connections kept per backend, over all workers.";
    idle = upstream.idle: Time::POSITIVE,
        "How long an idle connection is kept; less than the backend's own keep-alive timeout.";
    max_age = upstream.max_age: Time::POSITIVE,
        "How old a connection may be when it is used again.";
    max_connections = upstream.max_connections: or_none(Integer { min: 1usize, max: SOCKETS }),
        "Sockets per backend, over all workers.";
    tcp_keepalive = upstream.tcp_keepalive:
        or_off(Time { min: Duration::from_secs(1), max: Duration::from_secs(9 * 3600) }),
        "Idle time before the kernel's first keep-alive probe toward a backend.";
    tcp_user_timeout = upstream.tcp_user_timeout:
        or_none(Time { min: Duration::from_millis(1), max: Duration::from_secs(24 * 86_400) }),
        "How long sent data may stay unacknowledged by a backend (`TCP_USER_TIMEOUT`).";
    source_address = upstream.source_address: or_none(IpForm),
        "The address that connections to backends come from.";
    receive_buffer = upstream.receive_buffer: InMemory(Size { min: 4 * KIB, max: GIB }),
        "The most that the kernel holds of what a backend sent (`SO_RCVBUF`): 128 KiB until large bodies flow; if less than that, from the start.";

    [limits]
    buffer_memory = limits.buffer_memory: or_auto(Size { min: 4 * MIB, max: 1024 * TIB }),
        "Bytes of pooled buffers over all workers; `auto` is half of the cgroup's limit or of RAM.";
    max_connections_per_ip = limits.max_connections_per_ip: or_none(Integer { min: 1u32, max: MANY }),
        "Client connections from one address (IPv6: one /64), over all workers.";
    max_inflight = limits.max_inflight: or_none(Integer { min: 1u32, max: MANY }),
        "Exchanges under way at one backend, over all workers; `upstream.max_connections` counts sockets.";
    queue = limits.queue: Integer { min: 0u32, max: MANY },
        "Exchanges of a pool that may wait while `max_inflight` is reached everywhere; 0: none waits.";
    queue_timeout = limits.queue_timeout: Time::POSITIVE,
        "How long one waits there before it gets 503.";

    [strategy]
    type = strategy.kind: StrategyForm,
        "How a backend is chosen; `-` and `_` are the same in names.";
    virtual_nodes = strategy.virtual_nodes: Integer { min: 1u32, max: 10_000 },
        "Points per weight unit on the ring of `consistent_hash`.";
    key = strategy.key: HashKeyForm,
        "What `consistent_hash` and `maglev` hash; a request without it is spread.";
    max_load = strategy.max_load: Decimal { min: 1.0, max: 100.0, or_zero: true },
        "No backend of a hashing strategy gets more than this times its share of what is in flight.";
    probe_path = strategy.probe_path: or_none(PathForm { query: true, root: true }),
        "Where `prequal` asks backends for their load; without it weir's own counts stand in.";
    probe_rate = strategy.probe_rate: Decimal { min: 0.0, max: 100.0, or_zero: false },
        "Probes of `prequal` per request.";
    probes_max_per_second = strategy.probes_max_per_second: Integer { min: 1u32, max: 1_000_000 },
        "Probes of one worker at most.";
    slow_start = strategy.slow_start: Time::FROM_ZERO,
        "How long a backend that comes back, or is new, takes to reach its whole weight; `0s`: none.";
    tier_min = strategy.tier_min: Integer { min: 1u32, max: MAX_BACKENDS as u32 },
        "`failover`: with fewer eligible backends in a tier, the next one joins.";

    [logging]
    level = logging.level: Words::<Level>::new(),
        "The least severe level that is logged.";
    modules = logging.modules: List { form: ModuleLevel, min: 0, max: MODULES.len() },
        "Modules of weir with a level of their own.";
    format = logging.format: or_auto(Words::<LogFormat>::new()),
        "`auto` is text on a terminal and JSON elsewhere.";

    [access_log]
    output = access_log.output: AccessOutputForm,
        "Where a line for every exchange goes.";
    format = access_log.format: AccessFormatForm,
        "What a line looks like; docs/access-log.md lists the fields.";
    only = access_log.only: Words::<AccessOnly>::new(),
        "Which exchanges have a line: all, those that failed or ended early, or those that took `slow` or longer.";
    slow = access_log.slow: Time::POSITIVE,
        "What `only = \"slow\"` takes for slow.";
    sample = access_log.sample: Decimal { min: 0.0, max: 100.0, or_zero: false },
        "Per cent of the exchanges that are looked at, by chance.";
    headers = access_log.headers: List { form: LowerName, min: 0, max: 32 },
        "Request headers that lines show besides.";
    redact_headers = access_log.redact_headers: List { form: LowerName, min: 0, max: 64 },
        "Those of `headers` whose values are not shown.";
    redact_query = access_log.redact_query: List { form: LowerName, min: 0, max: 64 },
        "Query parameters whose values are not shown, here and in `GET /exchanges`.";
    socket = access_log.socket: or_auto(FilePath),
        "The socket of syslog or journald; `auto` is `/dev/log` or `/run/systemd/journal/socket`.";

    [admin]
    address = admin.address: or_off(ListenForm),
        "The admin API; on anything but loopback or a Unix socket it needs `token_file`.";
    token_file = admin.token_file: or_none(FilePath),
        "Holds the token that every request must carry: `Authorization: Bearer …`.";
    hosts = admin.hosts: List { form: HostName, min: 0, max: 64 },
        "Names that `Host` may carry besides addresses and localhost; with others a request is refused.";

    [observe]
    address = observe.address: or_off(ListenForm),
        "Only `/livez`, `/readyz`, `/metrics` and what is below it, for probes and scrapers.";

    [metrics]
    path = metrics.path: or_off(PathForm { query: false, root: false }),
        "The path of the metrics on the main port, for peers in `allow`.";
    allow = metrics.allow: List { form: NetForm, min: 0, max: 1024 },
        "Whose requests for `path` are answered with metrics; all others are forwarded.";

    [tracing]
    otlp = tracing.otlp: or_off(CollectorForm),
        "Where spans go, by OTLP/HTTP with protobuf.";
    sample_ratio = tracing.sample_ratio: Decimal { min: 0.0, max: 1.0, or_zero: false },
        "Of the traces that begin here, which part is sampled.";
    sample_parent = tracing.sample_parent: Boolean,
        "Whether a caller's `traceparent` decides for its requests.";
    service_name = tracing.service_name: Text { max: 128 },
        "What weir calls itself in spans (`service.name`).";
    interval = tracing.interval: Time { min: Duration::from_millis(50), max: Duration::from_secs(60) },
        "Between two batches of spans.";
    timeout = tracing.timeout: Time { min: Duration::from_millis(100), max: Duration::from_secs(60) },
        "What the collector may take for a batch.";

    [shutdown]
    timeout = shutdown.timeout: Time::FROM_ZERO,
        "How long what is in flight may take before it is cut.";
    idle_grace = shutdown.idle_grace: Time::FROM_ZERO,
        "How long idle connections live on, for requests that are on their way.";
    delay = shutdown.delay: Time::FROM_ZERO,
        "Not ready, but still accepting, before anything closes.";

    [debug]
    allow = debug.allow: List { form: NetForm, min: 0, max: 1024 },
        "Whose requests with `x-weir-trace: 1` are told in the answer what happened to them.";
    keep = debug.keep: Integer { min: 0usize, max: 65_536 },
        "How many slow, failed and retried exchanges `GET /exchanges` remembers.";
    slow = debug.slow: Time::POSITIVE,
        "From when on an exchange is slow.";

    [health_check]
    type = health_check.kind: Words::<HealthCheckKind>::new(),
        "A request, a connect alone, or nothing.";
    path = health_check.path: PathForm { query: true, root: true },
        "What an `http` probe asks for.";
    method = health_check.method: MethodForm,
        "The method of an `http` probe.";
    headers = health_check.headers: List { form: HeaderForm, min: 0, max: 64 },
        "Header lines that an `http` probe carries besides its own; `Host` replaces the backend's.";
    expect_status = health_check.expect_status: List { form: StatusRangeForm, min: 1, max: 64 },
        "Which statuses are good.";
    expect_body = health_check.expect_body: or_none(Text { max: 1024 }),
        "Text that a good answer's body contains.";
    interval = health_check.interval: Time { min: Duration::from_millis(10), max: Duration::from_secs(86_400) },
        "Between two probes of a backend.";
    fast_interval = health_check.fast_interval:
        or_auto(Time { min: Duration::from_millis(10), max: Duration::from_secs(86_400) }),
        "The same while a backend is changing between up and down; `auto` is a quarter of `interval`.";
    timeout = health_check.timeout: Time { min: Duration::from_millis(1), max: Duration::from_secs(3600) },
        "A whole probe, from the connect to its last byte.";
    rise = health_check.rise: Integer { min: 1u32, max: 1000 },
        "Good probes in a row that bring a backend up.";
    fall = health_check.fall: Integer { min: 1u32, max: 1000 },
        "Bad probes in a row that take a backend down.";
    port = health_check.port: or_none(Integer { min: 1u16, max: u16::MAX }),
        "The port to probe; `none` is the backend's own.";
    start = health_check.start: Words::<HealthStart>::new(),
        "What a backend counts as before its first probe; `check` opens the listeners after the first round.";
    max_response_bytes = health_check.max_response_bytes: InMemory(Size { min: KIB, max: 16 * MIB }),
        "The most that is read of a probe's answer.";
    panic_threshold = health_check.panic_threshold: Integer { min: 0u8, max: 100 },
        "Per cent of the pool; when fewer are left, liveness is ignored. 0: never.";

    [outlier]
    consecutive_gateway = outlier.consecutive_gateway: or_off(Integer { min: 1u32, max: 1_000_000 }),
        "Failures in a row without an answer, or with 502, 503 or 504, that eject a backend.";
    consecutive_5xx = outlier.consecutive_5xx: or_off(Integer { min: 1u32, max: 1_000_000 }),
        "The same for failures of any kind: no answer, or any 5xx.";
    success_rate = outlier.success_rate: Boolean,
        "Whether a success rate below the pool's mean less 1.9 standard deviations ejects.";
    min_volume = outlier.min_volume: Integer { min: 1u32, max: 1_000_000_000 },
        "Requests per second of a backend below which its success rate is not judged.";
    latency_factor = outlier.latency_factor: or_off(Decimal { min: 1.1, max: 1000.0, or_zero: false }),
        "Times the pool's median latency that ejects.";
    base_ejection = outlier.base_ejection: Time { min: Duration::from_millis(1), max: Duration::from_secs(86_400) },
        "The first ejection's length; the second lasts twice as long, and so on.";
    max_ejection_percent = outlier.max_ejection_percent: Integer { min: 0u8, max: 100 },
        "Per cent of the pool that may be ejected at a time.";

    [circuit_breaker]
    enabled = circuit_breaker.enabled: Boolean,
        "Whether backends that fail are left out for a while.";
    failure_threshold = circuit_breaker.failure_threshold: Integer { min: 1u32, max: 1_000_000 },
        "Failures in a row that open it.";
    reset_timeout = circuit_breaker.reset_timeout: Time::POSITIVE,
        "How long it stays open before trials.";
    half_open_requests = circuit_breaker.half_open_requests: Integer { min: 1u32, max: 1000 },
        "Trials at a time while half-open, over all workers.";
    success_threshold = circuit_breaker.success_threshold: Integer { min: 1u32, max: 1000 },
        "Good trials that close it.";
    error_rate = circuit_breaker.error_rate: or_off(Integer { min: 1u8, max: 100 }),
        "Per cent of failures within `window` that open it too.";
    window = circuit_breaker.window:
        Time { min: Duration::from_secs(1), max: Duration::from_secs(3600) },
        "What `error_rate` looks back over.";
    min_volume = circuit_breaker.min_volume: Integer { min: 1u32, max: 1_000_000_000 },
        "Attempts within `window` below which `error_rate` is not judged.";
    failures = circuit_breaker.failures: List { form: FailureForm { stale: false }, min: 1, max: 64 },
        "What counts as a failure.";
    ignore_panic = circuit_breaker.ignore_panic: Boolean,
        "Whether it may open where that leaves fewer than `panic_threshold` per cent of the pool.";

    [retry]
    max_retries = retry.max_retries: Integer { min: 0u32, max: MAX_RETRIES },
        "Attempts after the first one; 0 turns retries off.";
    methods = retry.methods: List { form: MethodForm, min: 0, max: 64 },
        "Methods that may be sent again after something was sent.";
    on = retry.on: List { form: FailureForm { stale: true }, min: 0, max: 64 },
        "What is retried; a stale connection always is.";
    buffer = retry.buffer: InMemory(Size { min: 0, max: 128 * KIB }),
        "How much of a request body is kept to be sent again.";
    per_try_timeout = retry.per_try_timeout: or_none(Time::POSITIVE),
        "One attempt.";
    budget = retry.budget: Integer { min: 0u8, max: 100 },
        "Retries, as per cent of the requests of the last 10 s.";
    min_per_second = retry.min_per_second: Integer { min: 0u32, max: 1_000_000 },
        "Retries per second that are always within the budget.";

    [hedge]
    enabled = hedge.enabled: Boolean,
        "A second attempt for idempotent requests after the pool's 95th percentile, out of the retries' budget.";

    [rate_limit]
    requests = rate_limit.requests: or_off(Integer { min: 1u32, max: MANY }),
        "Requests per `per` of one key; what is over it gets 429.";
    per = rate_limit.per: Time { min: Duration::from_millis(1), max: Duration::from_secs(86_400) },
        "What `requests` are counted over.";
    burst = rate_limit.burst: Integer { min: 1u32, max: MANY },
        "Requests of one key that may come at once.";
    key = rate_limit.key: RateKeyForm,
        "Whom it counts: a client's address (IPv6: its /64), or what a header says.";
    exempt = rate_limit.exempt: List { form: NetForm, min: 0, max: 1024 },
        "Clients that no limit holds.";
    max_keys = rate_limit.max_keys: Integer { min: 64u32, max: MANY },
        "Keys that the table has room for.";

    [admission]
    target = admission.target:
        or_off(Time { min: Duration::from_millis(1), max: Duration::from_secs(60) }),
        "The delay that may stand before requests are refused with 503.";
    interval = admission.interval: Time { min: Duration::from_millis(1), max: Duration::from_secs(3600) },
        "How long `target` may be exceeded before that.";

    [sticky]
    cookie = sticky.cookie: or_off(CookieName),
        "The cookie that brings a client back to its backend.";
    secret_file = sticky.secret_file: or_none(FilePath),
        "Holds the key of the cookie's hash, the same for all instances; without it the key is known to everybody.";
    secure = sticky.secure: Boolean,
        "Whether the cookie is for https alone.";
    max_age = sticky.max_age: or_session(Time { min: Duration::from_secs(1), max: Duration::from_secs(365 * 86_400) }),
        "How long the client keeps it; `session` is until the browser closes.";
    path = sticky.path: CookiePath,
        "The paths that it is sent for.";

    [profiling]
    address = profiling.address: or_off(ListenForm),
        "Profiles of the running process, for `go tool pprof`; only on loopback or a Unix socket.";
    heap_sample = profiling.heap_sample: or_off(Size { min: KIB, max: GIB }),
        "Bytes allocated between two samples of `/debug/pprof/heap`, on average.";
};

/// One `[[backends]]` as it is being read.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) url: Option<Target>,
    /// None: the url's authority.
    pub(super) name: Option<String>,
    pub(super) weight: u16,
    pub(super) priority: u16,
    pub(super) backup: bool,
}

impl Default for Draft {
    fn default() -> Draft {
        Draft {
            url: None,
            name: None,
            weight: 1,
            priority: 0,
            backup: false,
        }
    }
}

/// A value without a default: absent until it is read.
struct Given<F>(F);

impl<F: Form> Form for Given<F> {
    type Out = Option<F::Out>;

    fn allowed(&self) -> String {
        self.0.allowed()
    }

    fn read(&self, node: &Node, bad: &mut Vec<Bad>) -> Option<Self::Out> {
        self.0.read(node, bad).map(Some)
    }

    fn show(&self, value: &Self::Out) -> String {
        value
            .as_ref()
            .map_or_else(String::new, |value| self.0.show(value))
    }
}

/// The keys of one `[[backends]]`; what has no value shows as nothing.
pub(super) static BACKEND_KEYS: &[Key<Draft>] = keys! {
    [backends]
    url = url: Given(BackendUrl),
        "Where the backend is. A name with several addresses is one backend. Required and unique.";
    name = name: Given(BackendName),
        "What it is called in metrics, logs and the admin API; unique. Default: the url's authority.";
    weight = weight: Integer { min: 0u16, max: u16::MAX },
        "Its share next to the others'; 0 takes it out of service. `round-robin` gives all others equal turns.";
    priority = priority: Integer { min: 0u16, max: u16::MAX },
        "Its tier under `failover`: lower ones first.";
    backup = backup: Boolean,
        "Whether it takes part only where too few of the others are left, under any strategy.";
};

/// The sections in the order in which they are documented and printed, `backends` aside.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}

/// The position in [`KEYS`] of a key.
pub(super) fn position(section: &str, name: &str) -> Option<usize> {
    KEYS.iter()
        .position(|key| key.section == section && key.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_keys_share_a_name_or_a_variable() {
        let mut paths = HashSet::new();
        let mut variables = HashSet::from([BACKENDS_VARIABLE.to_owned()]);
        for key in KEYS {
            assert!(paths.insert(key.path()), "{}", key.path());
            assert!(variables.insert(key.variable()), "{}", key.variable());
        }
        assert!(
            !variables
                .iter()
                .any(|name| name.starts_with("WEIR_SERVICE_") || name.starts_with("WEIR_PORT"))
        );
    }

    #[test]
    fn sections_are_not_torn_apart() {
        let sections = sections();
        let distinct: HashSet<_> = sections.iter().collect();
        assert_eq!(sections.len(), distinct.len());
    }
}

//! The configuration as its users meet it: the shipped file, the document, precedence, and what a wrong one is told.

#[path = "config/bad.rs"]
mod bad;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use weir::config::model::{Level, ListenAddress};
use weir::config::{Config, Errors, Loaded, Sources, load, load_str, reference, render, strategy_name};

const SHIPPED: &str = include_str!("../config/weir.toml");
const DOCUMENT: &str = include_str!("../docs/configuration.md");
const GOOD: &str = "[[backends]]\nurl = \"http://a:80\"\n";

/// Every key with a value that is not its default.
const EVERYTHING: &str = r#"
[server]
address = ["127.0.0.1:81", "[::1]:81", "unix:/run/weir.sock"]
environment = "a \"test\""
backlog = 17
max_connections = 1000
max_requests_per_connection = 100
trusted_proxies = ["10.0.0.0/8", "::1"]

[runtime]
workers = 2
cores = [1, 0]
pin = true
driver = "epoll"
ring_entries = 64

[http]
max_head_bytes = "16KiB"
max_headers = 64
max_body_bytes = 1001
min_body_rate = "off"
host = "app.example:8080"
forwarded = "both"
via = true
reason_header = false
request_id = false

[timeouts]
request_head = "1ms"
request_body = "1m30s"
idle = "1d"
connect = "1.5s"
response_head = "2s"
response_body = "3s"
tunnel = "4s"
exchange = "5s"

[upstream]
max_idle = 0
idle = "6s"
max_age = "7s"
max_connections = 8
tcp_keepalive = "off"
tcp_user_timeout = "9s"
source_address = "127.0.0.1"
receive_buffer = "1MB"

[limits]
buffer_memory = "64MiB"
max_connections_per_ip = 20
max_inflight = 30
queue = 0
queue_timeout = "40ms"

[strategy]
type = "consistent-hash"
virtual_nodes = 7
key = "header:X-User"
max_load = 0
probe_path = "/load?now=1"
probe_rate = 0.5
probes_max_per_second = 7
slow_start = "17s"
tier_min = 2

[[backends]]
url = "http://Host:8081/"
name = "a"
weight = 3
priority = 2

[[backends]]
url = "unix:/run/app.sock"
weight = 0
priority = 1
backup = true

[logging]
modules = ["proxy=trace", "health=warn"]
level = "trace"
format = "json"

[access_log]
output = "/var/log/weir.log"
format = "{client} {status}"
only = "slow"
slow = "2s"
sample = 12.5
headers = ["Accept"]
redact_headers = ["x-secret"]
redact_query = ["Token"]
socket = "/run/log"

[admin]
address = "off"
token_file = "/etc/weir/token"
hosts = ["Weir.example"]

[observe]
address = ":9071"

[metrics]
path = "/weir/metrics"
allow = ["10.0.0.0/8", "fd00::1"]

[tracing]
otlp = "http://collector:4319/x"
sample_ratio = 0.5
sample_parent = false
service_name = "edge"
interval = "3s"
timeout = "2s"

[shutdown]
timeout = "0s"
idle_grace = "10s"
delay = "11s"

[debug]
allow = ["10.0.0.0/8"]
keep = 12
slow = "70ms"

[health_check]
type = "tcp"
path = "/up?full=1"
method = "HEAD"
headers = ["Host: app.example", "X-Probe: 1"]
expect_status = [200, "204", "300-399"]
expect_body = "fine"
interval = "3s"
fast_interval = "100ms"
timeout = "12s"
rise = 1
fall = 1
port = 9000
start = "up"
max_response_bytes = 2048
panic_threshold = 0

[circuit_breaker]
enabled = false
failure_threshold = 9
reset_timeout = "13s"
half_open_requests = 2
success_threshold = 3
error_rate = 50
window = "14s"
min_volume = 15
failures = ["4xx", 503]
ignore_panic = true

[retry]
max_retries = 0
methods = ["GET", "POST"]
on = ["stale-connection", "5xx"]
buffer = 0
per_try_timeout = "16s"
budget = 0
min_per_second = 0

[outlier]
consecutive_gateway = "off"
consecutive_5xx = 6
success_rate = false
min_volume = 7
latency_factor = 2.5
base_ejection = "18s"
max_ejection_percent = 100

[hedge]
enabled = true

[rate_limit]
requests = 8
per = "1m"
burst = 9
key = "header:X-Api-Key"
exempt = ["127.0.0.1"]
max_keys = 1000

[admission]
target = "5ms"
interval = "50ms"

[sticky]
cookie = "app"
secret_file = "secret"
secure = true
max_age = "1h"
path = "/app"

[profiling]
address = "127.0.0.1:6061"
heap_sample = "512KiB"
"#;

fn owned(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter()
        .map(|(variable, value)| ((*variable).to_owned(), (*value).to_owned()))
        .collect()
}

fn owned_sets(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|set| (*set).to_owned()).collect()
}

fn accepted(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Loaded {
    load_str("weir.toml", text, &owned(env), &owned_sets(sets)).unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Errors {
    load_str("weir.toml", text, &owned(env), &owned_sets(sets)).expect_err("a wrong configuration")
}

fn rendered(errors: &Errors) -> String {
    render(errors, false, 100)
}

/// The lines `key = value` of a TOML text with their sections; those that a comment hides too.
fn settings(text: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') && line.ends_with(']') {
            section = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            found.insert(format!("{section}.{key}"));
        }
    }
    found
}

/// The keys that the document's tables, which are made from the code, have.
fn known() -> BTreeSet<String> {
    let rows = |(section, table): (&str, String)| {
        let keys: Vec<String> = table
            .lines()
            .filter_map(|row| row.strip_prefix("| `")?.split_once('`'))
            .map(|(key, _)| format!("{section}.{key}"))
            .collect();
        keys
    };
    reference().into_iter().flat_map(rows).collect()
}

#[test]
fn the_shipped_file_has_every_key_and_no_other() {
    assert_eq!(settings(SHIPPED), known());
    accepted(SHIPPED, &[], &[]);
}

#[test]
fn the_shipped_file_shows_the_defaults() {
    let mut shipped = accepted(SHIPPED, &[], &[]).config;
    let urls: Vec<String> = shipped.backends.drain(..).map(|backend| backend.url).collect();
    assert_eq!(
        urls,
        [
            "http://127.0.0.1:8081",
            "http://127.0.0.1:8082",
            "http://127.0.0.1:8083"
        ]
    );
    // A configuration from before must not open a port that it does not name.
    let profiling = shipped.profiling.address.take();
    assert_eq!(profiling, Some(ListenAddress::Tcp(([127, 0, 0, 1], 6060).into())));
    assert_eq!(shipped, Config::default());
}
#[test]
fn the_document_has_every_key_as_the_code_reads_it() {
    for (section, table) in reference() {
        for row in table.lines() {
            assert!(
                DOCUMENT.contains(row),
                "docs/configuration.md lacks this row of [{section}]:\n{row}"
            );
        }
    }
}

#[test]
fn the_document_has_every_short_form() {
    let short = [
        "SERVER_ADDRESS",
        "SERVER_ENVIRONMENT",
        "HEALTH_CHECK_INTERVAL",
        "STRATEGY_TYPE",
        "STRATEGY_VIRTUAL_NODES",
        "LOGGING_LEVEL",
        "CIRCUIT_BREAKER_ENABLED",
        "CIRCUIT_BREAKER_FAILURE_THRESHOLD",
        "CIRCUIT_BREAKER_RESET_TIMEOUT",
        "RETRY_MAX_RETRIES",
        "PORT",
    ];
    for name in short {
        assert!(DOCUMENT.contains(&format!("| `{name}` |")), "{name}");
        // Each is read: a value that fits no key is refused by its name.
        assert!(
            refused(GOOD, &[(name, "\u{1}")], &[]).to_string().contains(name),
            "{name}"
        );
    }
}

#[test]
fn what_check_prints_is_the_same_configuration() {
    for text in [SHIPPED, EVERYTHING, GOOD] {
        let loaded = accepted(text, &[], &[]);
        let printed = loaded.render_effective();
        assert_eq!(accepted(&printed, &[], &[]).config, loaded.config, "{printed}");
    }
}

#[test]
fn the_test_of_everything_is_of_everything() {
    assert!(settings(EVERYTHING).is_superset(&known()));
    let values = |text: &str| -> BTreeSet<String> {
        let printed = accepted(text, &[], &[]).render_effective();
        let mut section = String::new();
        let mut found = BTreeSet::new();
        for line in printed.lines().filter(|line| !line.is_empty()) {
            match line.split_once("  # ") {
                Some((setting, _)) => found.insert(format!("{section} {}", setting.trim_end())),
                None => {
                    section = line.to_owned();
                    false
                }
            };
        }
        found
    };
    let same: Vec<String> = values(GOOD).intersection(&values(EVERYTHING)).cloned().collect();
    // Not every backend can be a backup, and `pin` must stay true beside `cores`.
    assert_eq!(same, ["[[backends]] backup = false", "[runtime] pin = true"]);
}

/// What a variable or a flag carries for a value of TOML.
fn bare(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(values) => values.iter().map(bare).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[test]
fn every_key_reads_the_same_from_the_file_a_variable_and_a_flag() {
    let table: toml::Table = EVERYTHING.parse().expect("the test's own file");
    for (section, keys) in &table {
        let Some(keys) = keys.as_table() else { continue };
        for (key, value) in keys {
            // Pairs that are judged together are set together.
            let beside = match (section.as_str(), key.as_str()) {
                ("runtime", "workers" | "cores") => "[runtime]\nworkers = 2\ncores = [1, 0]\n",
                ("health_check", "fast_interval") => "[health_check]\ninterval = \"3s\"\n",
                _ => "",
            };
            let text = format!("{beside}{GOOD}");
            let by_file = if beside.contains(&format!("\n{key} =")) {
                text.clone()
            } else if beside.is_empty() {
                format!("[{section}]\n{key} = {value}\n{GOOD}")
            } else {
                format!("{beside}{key} = {value}\n{GOOD}")
            };
            let by_file = accepted(&by_file, &[], &[]).config;
            let variable = format!("WEIR_{section}_{key}").to_uppercase();
            let by_variable = accepted(&text, &[(&variable, &bare(value))], &[]);
            assert_eq!(by_variable.config, by_file, "{variable}");
            let origin = format!("# environment {variable}\n");
            assert!(by_variable.render_effective().contains(&origin), "{variable}");
            let set = format!("{section}.{key}={}", bare(value));
            let by_flag = accepted(&text, &[], &[&set]);
            assert_eq!(by_flag.config, by_file, "{set}");
            assert!(by_flag.render_effective().contains("# flag --set\n"), "{set}");
        }
    }
}

#[test]
fn the_later_layer_wins() {
    let file = format!("[logging]\nlevel = \"error\"\n{GOOD}");
    let level =
        |text: &str, env: &[(&str, &str)], sets: &[&str]| accepted(text, env, sets).config.logging.level;
    assert_eq!(level(GOOD, &[], &[]), Level::Info);
    assert_eq!(level(&file, &[], &[]), Level::Error);
    let short = ("LOGGING_LEVEL", "warn");
    let long = ("WEIR_LOGGING_LEVEL", "debug");
    assert_eq!(level(&file, &[short], &[]), Level::Warn);
    assert_eq!(level(&file, &[long, short], &[]), Level::Debug);
    assert_eq!(
        level(&file, &[long, short], &["logging.level=trace"]),
        Level::Trace
    );
    assert_eq!(
        level(&file, &[], &["logging.level=trace", "logging.level=warn"]),
        Level::Warn
    );
}

#[test]
fn every_short_form_sets_its_key() {
    let env = [
        ("SERVER_ADDRESS", "127.0.0.1:81"),
        ("SERVER_ENVIRONMENT", "staging"),
        ("HEALTH_CHECK_INTERVAL", "7s"),
        ("STRATEGY_TYPE", "round_robin"),
        ("STRATEGY_VIRTUAL_NODES", "50"),
        ("LOGGING_LEVEL", "debug"),
        ("CIRCUIT_BREAKER_ENABLED", "false"),
        ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "6"),
        ("CIRCUIT_BREAKER_RESET_TIMEOUT", "8s"),
        ("RETRY_MAX_RETRIES", "4"),
    ];
    let config = accepted(GOOD, &env, &[]).config;
    assert_eq!(
        config.server.address,
        [ListenAddress::Tcp(([127, 0, 0, 1], 81).into())]
    );
    assert_eq!(config.server.environment, "staging");
    assert_eq!(config.health_check.interval, Duration::from_secs(7));
    assert_eq!(config.strategy.virtual_nodes, 50);
    assert_eq!(config.logging.level, Level::Debug);
    assert!(!config.circuit_breaker.enabled);
    assert_eq!(config.circuit_breaker.failure_threshold, 6);
    assert_eq!(config.circuit_breaker.reset_timeout, Duration::from_secs(8));
    assert_eq!(config.retry.max_retries, 4);
}

#[test]
fn port_replaces_the_port_alone() {
    let address =
        |text: &str, env: &[(&str, &str)], sets: &[&str]| accepted(text, env, sets).config.server.address;
    let tcp = |text: &str| vec![ListenAddress::Tcp(text.parse().expect("an address"))];
    let file = format!("[server]\naddress = \"127.0.0.1:80\"\n{GOOD}");
    assert_eq!(
        address(GOOD, &[("PORT", "81")], &[]),
        [ListenAddress::Any { port: 81 }]
    );
    assert_eq!(address(&file, &[("PORT", "81")], &[]), tcp("127.0.0.1:81"));
    assert_eq!(
        address(&file, &[("PORT", "81"), ("SERVER_ADDRESS", "[::1]:80")], &[]),
        tcp("[::1]:81")
    );
    assert_eq!(
        address(&file, &[("PORT", "81"), ("WEIR_SERVER_ADDRESS", "[::1]:80")], &[]),
        tcp("[::1]:80")
    );
    assert_eq!(
        address(&file, &[("PORT", "81")], &["server.address=[::1]:80"]),
        tcp("[::1]:80")
    );
    let both = format!("[server]\naddress = [\"unix:/a\", \"127.0.0.1:80\"]\n{GOOD}");
    let expected = [
        ListenAddress::Unix("/a".into()),
        ListenAddress::Tcp(([127, 0, 0, 1], 81).into()),
    ];
    assert_eq!(address(&both, &[("PORT", "81")], &[]), expected);
    // A socket's path needs no port; whoever says so twice is not refused for a PORT that is meant for others.
    assert_eq!(
        address(&file, &[("PORT", "81"), ("WEIR_SERVER_ADDRESS", "unix:/a")], &[]),
        [ListenAddress::Unix("/a".into())]
    );
}

#[test]
fn what_kubernetes_sets_is_ignored_with_a_notice() {
    let env = [
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_SERVICE_PORT_HTTP", "80"),
        ("WEIR_PORT", "tcp://10.0.0.1:80"),
        ("WEIR_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let loaded = accepted(GOOD, &env, &[]);
    assert_eq!(loaded.config, accepted(GOOD, &[], &[]).config);
    assert_eq!(loaded.notices.len(), 1);
    for (variable, _) in &env[..4] {
        assert!(loaded.notices[0].contains(variable), "{:?}", loaded.notices);
    }
    assert!(!loaded.notices[0].contains("PATH"));
}

#[test]
fn what_has_no_effect_is_noticed() {
    let notices = |text: &str| accepted(&format!("{text}{GOOD}"), &[], &[]).notices;
    for (text, notice) in [
        (
            "[strategy]\nprobe_path = \"/load\"\n",
            "strategy.probe_path = \"/load\" has no effect without strategy.type \"prequal\" (weir.toml:2)",
        ),
        (
            "[strategy]\ntype = \"failover\"\nvirtual_nodes = 7\n",
            "strategy.virtual_nodes = 7 has no effect without strategy.type \"consistent_hash\" (weir.toml:3)",
        ),
        (
            "[strategy]\ntype = \"prequal\"\nprobe_rate = 1\n",
            "strategy.probe_rate = 1 has no effect without strategy.type \"prequal\" and a strategy.probe_path \
             (weir.toml:3)",
        ),
        (
            "[rate_limit]\nburst = 5\n",
            "rate_limit.burst = 5 has no effect while rate_limit.requests is \"off\" (weir.toml:2)",
        ),
        (
            "[sticky]\ncookie = \"weir\"\n",
            "sticky.cookie without sticky.secret_file: whoever knows the backends' names can make a cookie for each",
        ),
        (
            "[[backends]]\nurl = \"http://b:80\"\nweight = 2\n",
            "backends.weight has no effect with strategy.type \"round-robin\", 0 aside; \"weighted-round-robin\" \
             gives each its share",
        ),
        (
            "[[backends]]\nurl = \"http://b:80\"\npriority = 2\n",
            "backends.priority has no effect without strategy.type \"failover\"",
        ),
    ] {
        assert_eq!(notices(text), [notice], "{text}");
    }
    // Defaults, written out or not, and keys that matter are no news.
    assert_eq!(accepted(SHIPPED, &[], &[]).notices, [""; 0]);
    for text in [
        "[strategy]\ntype = \"maglev\"\nkey = \"uri\"\nmax_load = 0\n",
        "[strategy]\ntype = \"prequal\"\nprobe_path = \"/load\"\nprobe_rate = 1\n",
        "[strategy]\ntype = \"failover\"\ntier_min = 2\n[[backends]]\nurl = \"http://b:80\"\npriority = 2\n",
        "[strategy]\ntype = \"random\"\n[[backends]]\nurl = \"http://b:80\"\nweight = 2\n",
        "[rate_limit]\nrequests = 10\nburst = 5\n",
        "[sticky]\ncookie = \"__Host-weir\"\nsecure = true\nsecret_file = \"secret\"\nmax_age = \"none\"\n",
        "[limits]\nmax_inflight = 3\nqueue = 0\n",
    ] {
        assert_eq!(notices(text), [""; 0], "{text}");
    }
}

#[test]
fn every_strategy_is_known_by_either_separator() {
    for name in [
        "round-robin",
        "weighted-round-robin",
        "random",
        "least-conn",
        "p2c",
        "least-response",
        "consistent-hash",
        "maglev",
        "prequal",
        "failover",
    ] {
        let kind = |name: &str| {
            let text = format!("[strategy]\ntype = \"{name}\"\n{GOOD}");
            accepted(&text, &[], &[]).config.strategy.kind
        };
        assert_eq!(kind(name), kind(&name.replace('-', "_")));
        assert_eq!(strategy_name(kind(name)).replace('_', "-"), name);
    }
}

#[test]
fn admin_beyond_this_machine_needs_a_token() {
    let accepts = |address: &str, rest: &str| {
        let text = format!("[admin]\naddress = \"{address}\"\n{rest}{GOOD}");
        load_str("weir.toml", &text, &[], &[]).is_ok()
    };
    for local in [
        "127.0.0.1:9070",
        "127.9.9.9:9070",
        "[::1]:9070",
        "[::ffff:127.0.0.1]:9070",
        "localhost:9070",
        "unix:/run/weir.sock",
        "off",
    ] {
        assert!(accepts(local, ""), "{local}");
    }
    for open in [
        ":9070",
        "0.0.0.0:9070",
        "[::]:9070",
        "10.0.0.1:9070",
        "[fd00::1]:9070",
    ] {
        assert!(!accepts(open, ""), "{open}");
        assert!(accepts(open, "token_file = \"/etc/weir/token\"\n"), "{open}");
    }
}

#[test]
fn backends_can_come_from_a_variable_and_a_flag() {
    let urls =
        |loaded: Loaded| -> Vec<String> { loaded.config.backends.into_iter().map(|one| one.url).collect() };
    let env = [("WEIR_BACKENDS", "http://b:1, http://c:2")];
    assert_eq!(urls(accepted(GOOD, &env, &[])), ["http://b:1", "http://c:2"]);
    assert_eq!(
        urls(accepted(GOOD, &env, &["backends=http://d:3"])),
        ["http://d:3"]
    );
    let alone = Sources {
        search: vec!["/nonexistent/weir.toml".into()],
        env: owned(&env),
        ..Sources::default()
    };
    let loaded = load(&alone).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.file, None);
    assert!(loaded.notices[0].contains("/nonexistent/weir.toml"));
    assert_eq!(urls(loaded), ["http://b:1", "http://c:2"]);
}

#[test]
fn the_first_file_that_is_there_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("b.toml"), GOOD).expect("a file");
    std::fs::write(path("c.toml"), "wrong").expect("a file");
    let search = |names: &[&str]| Sources {
        search: names.iter().map(|name| path(name)).collect(),
        ..Sources::default()
    };
    let found = load(&search(&["a.toml", "b.toml", "c.toml"])).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(found.file, Some(path("b.toml")));
    let explicit = Sources {
        path: Some(path("c.toml")),
        ..search(&["b.toml"])
    };
    let errors = load(&explicit).expect_err("a wrong file").to_string();
    assert!(
        errors.contains(&format!("{}:1:6", path("c.toml").display())),
        "{errors}"
    );
}

#[test]
fn a_missing_file_says_where_it_was_looked_for_and_what_to_do() {
    let sources = Sources {
        search: vec!["/nonexistent/a.toml".into(), "/nonexistent/b.toml".into()],
        sets: vec!["http.via=maybe".to_owned()],
        ..Sources::default()
    };
    insta::assert_snapshot!("no_file", rendered(&load(&sources).expect_err("no file")));
    let explicit = Sources {
        path: Some("/nonexistent/a.toml".into()),
        ..Sources::default()
    };
    insta::assert_snapshot!("no_such_file", rendered(&load(&explicit).expect_err("no file")));
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let refusal = |path: PathBuf| {
        let sources = Sources {
            path: Some(path),
            ..Sources::default()
        };
        load(&sources)
            .expect_err("an unreadable file")
            .to_string()
            .replace('\n', " ")
    };
    let bytes = folder.path().join("bytes.toml");
    std::fs::write(&bytes, b"a = 1\nb = \xff\n").expect("a file");
    assert!(refusal(bytes).contains("not UTF-8 in line 2"));
    let long = folder.path().join("long.toml");
    std::fs::write(&long, vec![b'\n'; (1 << 20) + 1]).expect("a file");
    assert!(refusal(long).contains("longer than 1048576 bytes"));
    assert!(refusal(folder.path().to_owned()).contains("directory"));
}

#[test]
fn too_many_backends_are_refused() {
    let text: String = (0..4097)
        .map(|at| format!("[[backends]]\nurl = \"http://b{at}\"\n"))
        .collect();
    let errors = refused(&text, &[], &[]);
    assert_eq!(errors.problems().len(), 1);
    assert_eq!(
        errors.problems()[0].to_string(),
        "backends: 4097 of them, of 4096 at most"
    );
    assert_eq!(errors.problems()[0].line(), Some(("weir.toml", 4096 * 2 + 1)));
}

#[test]
fn colour_is_for_terminals_alone() {
    let errors = refused("", &[], &[]);
    assert!(render(&errors, true, 80).contains('\u{1b}'));
    assert!(!render(&errors, false, 80).contains('\u{1b}'));
}

/// All cases of one area, one after the other.
fn told(cases: &[bad::Bad]) -> String {
    let mut text = String::new();
    for case in cases {
        let errors = refused(case.file, case.env, case.sets);
        text.push_str(&format!("=== {} ===\n{}\n", case.name, rendered(&errors)));
    }
    text
}

macro_rules! told {
    ($($test:ident: $cases:ident, $snapshot:literal;)+) => {
        $(#[test]
        fn $test() {
            insta::assert_snapshot!($snapshot, told(bad::$cases));
        })+
    };
}

told! {
    wrong_syntax_is_told: SYNTAX, "bad_syntax";
    wrong_keys_are_told: KEYS, "bad_keys";
    wrong_values_are_told: VALUES, "bad_values";
    wrong_addresses_are_told: ADDRESSES, "bad_addresses";
    wrong_backends_are_told: BACKENDS, "bad_backends";
    wrong_strategies_are_told: STRATEGIES, "bad_strategies";
    wrong_combinations_are_told: TOGETHER, "bad_combinations";
    wrong_resilience_is_told: RESILIENCE, "bad_resilience";
    wrong_limits_are_told: LIMITS, "bad_limits";
    a_wrong_admin_address_is_told: ADMIN, "bad_admin";
    wrong_variables_are_told: ENVIRONMENT, "bad_environment";
    wrong_flags_are_told: FLAGS, "bad_flags";
    everything_wrong_is_told_at_once: MANY, "bad_everything";
}

/// Changes to a text: at a place of it (in thousandths), so many characters are replaced by these.
fn changed(text: &str, changes: &[(u16, u8, String)]) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    for (place, length, with) in changes {
        let start = usize::from(*place) * letters.len() / 1000;
        let end = (start + usize::from(*length)).min(letters.len());
        letters.splice(start.min(end)..end, with.chars());
    }
    letters.into_iter().collect()
}

/// Loads and, as the case may be, prints or renders.
fn judge(text: &str, env: &[(String, String)], sets: &[String]) {
    match load_str("weir.toml", text, env, sets) {
        Ok(loaded) => {
            let again = load_str("again", &loaded.render_effective(), &[], &[]);
            assert_eq!(
                again
                    .map(|loaded| loaded.config)
                    .map_err(|errors| errors.to_string()),
                Ok(loaded.config)
            );
        }
        Err(errors) => {
            assert!(!errors.problems().is_empty());
            render(&errors, true, 0);
            render(&errors, false, 100);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_change_of_a_file_gets_a_verdict(
        changes in prop::collection::vec((0u16..1000, 0u8..40, "[\\[\\]{}=\"'.,#a-z0-9 \n\t\u{0}ü-]{0,6}"), 1..4),
    ) {
        judge(&changed(EVERYTHING, &changes), &[], &[]);
    }

    #[test]
    fn any_text_gets_a_verdict(text: String) {
        judge(&text, &[], &[]);
    }

    #[test]
    fn any_variable_and_flag_get_a_verdict(
        at in 0usize..100, value: String, near in "[a-z0-9:.,/\\[\\]]{0,12}", set: String,
    ) {
        let keys: Vec<String> = known().into_iter().filter(|key| !key.starts_with("backends")).collect();
        let key = &keys[at % keys.len()];
        let variable = format!("WEIR_{}", key.replace('.', "_")).to_uppercase();
        judge(GOOD, &[(variable.clone(), value)], std::slice::from_ref(&set));
        judge(GOOD, &[(variable, near.clone())], &[format!("{key}={near}")]);
    }
}

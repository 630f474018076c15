//! Configurations that are wrong, by area: a name, the file, the environment, the flags.

pub struct Bad {
    pub name: &'static str,
    pub file: &'static str,
    pub env: &'static [(&'static str, &'static str)],
    pub sets: &'static [&'static str],
}

/// A wrong file.
const fn file(name: &'static str, file: &'static str) -> Bad {
    Bad {
        name,
        file,
        env: &[],
        sets: &[],
    }
}

/// A wrong key or value below a good backend.
macro_rules! below {
    ($name:literal, $text:literal) => {
        file($name, concat!("backends = [{ url = \"http://a:80\" }]\n", $text))
    };
}

/// A good file and a wrong environment.
const fn env(name: &'static str, env: &'static [(&'static str, &'static str)]) -> Bad {
    Bad {
        name,
        file: GOOD,
        env,
        sets: &[],
    }
}

/// A good file and wrong flags.
const fn sets(name: &'static str, sets: &'static [&'static str]) -> Bad {
    Bad {
        name,
        file: GOOD,
        env: &[],
        sets,
    }
}

const GOOD: &str = "[[backends]]\nurl = \"http://a:80\"\n";

pub const SYNTAX: &[Bad] = &[
    below!(
        "a string that does not end",
        "[server]\naddress = \":80\n[http]\nvia = 3\n"
    ),
    below!(
        "a section that does not end, and a wrong value behind it",
        "[http\nvia = 3\n[timeouts]\nidle = 3\n"
    ),
    below!("a key without a value", "[server]\nbacklog =\n"),
    below!("a key twice", "[server]\nbacklog = 1\nbacklog = 2\n"),
    below!("a section twice", "[server]\n[http]\n[server]\n"),
    below!(
        "a value without quotes",
        "[logging]\nlevel = info\n[timeouts]\nidle = 5s\n"
    ),
    file("three faults", "a = [1,\n[x\ny = 'z\n"),
];

pub const KEYS: &[Bad] = &[
    file("nothing at all", ""),
    below!("a typing error in a key", "[server]\nadress = \":80\"\n"),
    below!("a key of another section", "[http]\nconnect = \"1s\"\n"),
    below!("a key that is unlike any", "[http]\nzzz = 1\n"),
    below!("a table for a key", "[server.backlog]\nx = 1\n"),
    below!("a typing error in a section", "[sever]\naddress = \":80\"\n"),
    below!("a section that is unlike any", "[quux]\n"),
    below!("a list of a section", "[[http]]\nvia = true\n"),
    file(
        "a number for a section",
        "http = 3\nbackends = [{ url = \"http://a:80\" }]\n",
    ),
    file(
        "keys above any section",
        "address = \":80\"\nfoo = 1\nbackends = [{ url = \"http://a:80\" }]\n",
    ),
    below!(
        "several listeners, which come later",
        "[[listeners]]\naddress = \":80\"\n"
    ),
    below!("routes, which come later", "[[routes]]\n"),
    below!("named pools, which come later", "[pools.api]\n"),
];

pub const VALUES: &[Bad] = &[
    below!(
        "a duration without a unit",
        "[timeouts]\nidle = 60\nconnect = \"5\"\n"
    ),
    below!(
        "durations that are none",
        "[timeouts]\nidle = \"1m1h\"\nconnect = \"5 s\"\ntunnel = \"1y\"\n"
    ),
    below!(
        "durations out of range",
        "[timeouts]\nidle = \"0s\"\ntunnel = \"366d\"\n[shutdown]\ndelay = \"25h\"\n"
    ),
    below!(
        "sizes that are none",
        "[http]\nmax_head_bytes = \"32K\"\nmax_body_bytes = -1\n"
    ),
    below!(
        "sizes out of range",
        "[http]\nmax_head_bytes = \"256KiB\"\nmax_body_bytes = 0\n"
    ),
    below!("a rate without a time", "[http]\nmin_body_rate = \"1KiB\"\n"),
    below!(
        "numbers out of range",
        "[http]\nmax_headers = 0\n[server]\nbacklog = 99999999999999999999\n"
    ),
    below!(
        "a number in quotes, and a fraction",
        "[server]\nbacklog = \"128\"\nmax_connections = 1.5\n"
    ),
    below!("not quite true", "[http]\nvia = \"true\"\nreason_header = 1\n"),
    below!(
        "a word that is none",
        "[runtime]\ndriver = \"uring\"\n[logging]\nlevel = \"INFO\"\nformat = \"xml\"\n"
    ),
    below!(
        "levels of modules",
        "[logging]\nmodules = [\"proxi=debug\", \"proxy=loud\", \"proxy=inf\", \"proxy\", \"\"]\n"
    ),
    below!(
        "two levels for one module",
        "[logging]\nmodules = [\"proxy=debug\", \"health=warn\", \"proxy = info\"]\n"
    ),
    below!(
        "an access log that is none",
        "[access_log]\noutput = \"sylog\"\nformat = \"combind\"\nonly = \"error\"\nsample = 101\nheaders = [\"a b\"]\n"
    ),
    below!(
        "a template with an unknown field",
        "[access_log]\nformat = \"{client} {statsu}\"\n"
    ),
    below!(
        "a template with a field that is unlike any",
        "[access_log]\noutput = \"access.log\"\nformat = \"{client} {zzz}\"\n"
    ),
    below!(
        "a template that does not close",
        "[access_log]\nformat = \"{client\"\n"
    ),
    below!(
        "a template of two lines",
        "[access_log]\nformat = \"{client}\\n{status}\"\n"
    ),
    below!("false instead of off", "[admin]\naddress = false\n"),
    below!(
        "empty values",
        "[server]\nenvironment = \"\"\n[timeouts]\nidle = \"\"\nexchange = \"\"\n"
    ),
    below!("a date", "[server]\nenvironment = 2024-01-01\n"),
    below!("a host that is nearly a word", "[http]\nhost = \"preserv\"\n"),
    below!("a host that is a url", "[http]\nhost = \"http://a\"\n"),
    below!(
        "networks that are none",
        "[metrics]\nallow = [\"10.0.0.1/8\", \"a\", \"::1/129\", \"::1\", \"::1\"]\n"
    ),
    below!(
        "paths that are none",
        "[metrics]\npath = \"/\"\n[health_check]\npath = \"health\"\n"
    ),
    below!(
        "a source that is no address",
        "[upstream]\nsource_address = \"0.0.0.0\"\n"
    ),
];

pub const ADDRESSES: &[Bad] = &[
    below!(
        "a port alone",
        "[server]\naddress = 8080\n[admin]\naddress = \"9070\"\n"
    ),
    below!("no port", "[server]\naddress = \"127.0.0.1\"\n"),
    below!("a name", "[server]\naddress = \"example.org:80\"\n"),
    below!("a port out of range", "[server]\naddress = \":65536\"\n"),
    below!(
        "an IPv6 address without brackets",
        "[server]\naddress = \"::1:80\"\n"
    ),
    below!(
        "a star and a url",
        "[server]\naddress = [\"*:80\", \"http://a:80\"]\n"
    ),
    below!("an empty list", "[server]\naddress = []\n"),
    below!("a path without unix:", "[server]\naddress = \"/run/weir.sock\"\n"),
    below!("a relative path", "[server]\naddress = \"unix:weir.sock\"\n"),
    below!(
        "a path that is too long",
        "[server]\naddress = \"unix:/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789/01234.sock\"\n"
    ),
    below!("a collision", "[server]\naddress = \":9070\"\n"),
    below!(
        "a list that collides with itself",
        "[server]\naddress = [\":80\", \"127.0.0.1:80\"]\n"
    ),
];

pub const BACKENDS: &[Bad] = &[
    file("https", "[[backends]]\nurl = \"https://a\"\n"),
    file("another scheme", "[[backends]]\nurl = \"ftp://a\"\n"),
    file("no scheme", "[[backends]]\nurl = \"localhost:8081\"\n"),
    file("a path", "[[backends]]\nurl = \"http://a:80/api\"\n"),
    file("a query", "[[backends]]\nurl = \"http://a:80?x\"\n"),
    file("a user", "[[backends]]\nurl = \"http://me:secret@a:80\"\n"),
    file(
        "a port of none",
        "[[backends]]\nurl = \"http://a:0\"\n[[backends]]\nurl = \"http://b:\"\n",
    ),
    file(
        "hosts that are none",
        "[[backends]]\nurl = \"http://a_b..c\"\n[[backends]]\nurl = \"http://256.1.1.1\"\n",
    ),
    file("no url", "[[backends]]\nweight = 1\n"),
    file(
        "a url twice",
        "[[backends]]\nurl = \"http://a:80\"\n[[backends]]\nurl = \"http://A/\"\n",
    ),
    file(
        "a name twice",
        "[[backends]]\nurl = \"http://a:80\"\nname = \"b:80\"\n[[backends]]\nurl = \"http://b:80\"\n",
    ),
    file(
        "a name with a blank",
        "[[backends]]\nurl = \"http://a:80\"\nname = \"a b\"\n",
    ),
    file(
        "weights out of range",
        "[[backends]]\nurl = \"http://a:80\"\nweight = 65536\n[[backends]]\nweight = -1\n",
    ),
    file(
        "weights that are all zero",
        "[[backends]]\nurl = \"http://a:80\"\nweight = 0\n[[backends]]\nurl = \"http://b:80\"\nweight = 0\n",
    ),
    file(
        "backups alone",
        "[[backends]]\nurl = \"http://a:80\"\nbackup = true\n[[backends]]\nurl = \"http://b:80\"\nbackup = true\n",
    ),
    file(
        "a tier and a backup that are none",
        "[[backends]]\nurl = \"http://a:80\"\npriority = -1\nbackup = \"yes\"\n",
    ),
    file("one section for all", "[backends]\nurl = \"http://a:80\"\n"),
    file("urls alone", "backends = [\"http://a:80\"]\n"),
    file(
        "a typing error",
        "[[backends]]\nurl = \"http://a:80\"\nweigth = 1\n",
    ),
];

pub const STRATEGIES: &[Bad] = &[
    below!("a typing error", "[strategy]\ntype = \"roundrobin\"\n"),
    below!("unlike any", "[strategy]\ntype = \"magic\"\nvirtual_nodes = 0\n"),
    below!("a key without its name", "[strategy]\nkey = \"header\"\n"),
    below!(
        "a key of nearly a header",
        "[strategy]\nkey = \"Header:X-User\"\n"
    ),
    below!("a header without its word", "[strategy]\nkey = \"X-User\"\n"),
    below!("a key with a blank", "[strategy]\nkey = \"cookie: id\"\n"),
    below!("a name where none belongs", "[strategy]\nkey = \"uri:x\"\n"),
    below!("a key unlike any", "[strategy]\nkey = \"a b\"\n"),
    below!(
        "loads out of range",
        "[strategy]\nmax_load = 0.9\nprobe_rate = 101\nslow_start = \"25h\"\ntier_min = 0\nprobes_max_per_second = 0\n"
    ),
    below!(
        "loads that are no numbers",
        "[strategy]\nmax_load = \"off\"\nprobe_rate = \"0.5\"\nprobe_path = \"load\"\n"
    ),
    below!(
        "not a number at all",
        "[strategy]\nmax_load = nan\nprobe_rate = true\n"
    ),
];

pub const TOGETHER: &[Bad] = &[
    below!(
        "more CPUs than workers",
        "[runtime]\nworkers = 1\ncores = [0, 1]\n"
    ),
    below!("CPUs without pinning", "[runtime]\ncores = [0]\npin = false\n"),
    below!("a CPU twice", "[runtime]\ncores = [0, 0]\n"),
    below!(
        "a ring that is no power of two",
        "[runtime]\nring_entries = 1000\n"
    ),
    below!(
        "fast but slower",
        "[health_check]\ninterval = \"1s\"\nfast_interval = \"2s\"\n"
    ),
    below!("shed sooner than allowed", "[admission]\ntarget = \"200ms\"\n"),
    below!(
        "a cookie that browsers refuse",
        "[sticky]\ncookie = \"__Host-weir\"\npath = \"/app\"\n"
    ),
];

pub const RESILIENCE: &[Bad] = &[
    below!(
        "probes",
        "[health_check]\ntype = \"https\"\nmethod = \"get\"\nheaders = [\"X\", \"Connection: close\", \"a b: c\"]\nexpect_status = [\"2xx\", \"399-200\", 100]\nport = 0\nstart = \"cheque\"\npanic_threshold = 101\n"
    ),
    below!(
        "the breaker",
        "[circuit_breaker]\nenabled = \"yes\"\nerror_rate = 0\nfailures = [\"stale-connection\", \"conect-failure\", \"200\"]\n"
    ),
    below!(
        "retries",
        "[retry]\nmax_retries = 11\nmethods = [\"CONNECT\", \"GET\", \"GET\"]\non = [\"6xx\"]\nbuffer = \"1GiB\"\nbudget = 120\n"
    ),
];

pub const LIMITS: &[Bad] = &[
    below!(
        "proxies",
        "[server]\ntrusted_proxies = [\"10.0.0.1/8\", \"proxy\"]\n"
    ),
    below!(
        "limits",
        "[limits]\nmax_connections_per_ip = 0\nmax_inflight = 0\nqueue = \"none\"\nqueue_timeout = \"0s\"\n"
    ),
    below!(
        "outliers",
        "[outlier]\nconsecutive_gateway = 0\nconsecutive_5xx = false\nsuccess_rate = 95\nmin_volume = 0\nlatency_factor = 1\nbase_ejection = 30\nmax_ejection_percent = 101\n"
    ),
    below!("hedging", "[hedge]\nenabled = \"on\"\n"),
    below!(
        "a rate",
        "[rate_limit]\nrequests = 0\nper = \"1\"\nburst = 0\nkey = \"cookie:id\"\nexempt = \"localhost\"\nmax_keys = 1\n"
    ),
    below!("admission", "[admission]\ntarget = 5\ninterval = \"0s\"\n"),
    below!(
        "cookies",
        "[sticky]\ncookie = \"weir=1\"\nsecret_file = \"~/secret\"\nsecure = 1\nmax_age = \"10ms\"\npath = \"/a;b\"\n"
    ),
];

pub const ADMIN: &[Bad] = &[
    below!("every address and no token", "[admin]\naddress = \":9070\"\n"),
    env(
        "another machine's and no token, from a variable",
        &[("WEIR_ADMIN_ADDRESS", "10.0.0.1:9070")],
    ),
    below!(
        "a token that is no file",
        "[admin]\naddress = \":9070\"\ntoken_file = \"/etc/weir/\"\n"
    ),
    below!(
        "hosts that are none",
        "[admin]\nhosts = [\"weir:9070\", \"*.example\", \"::1\", \"http://weir\", \"a b\"]\n"
    ),
];

pub const ENVIRONMENT: &[Bad] = &[
    env("a typing error in a variable", &[("WEIR_SERVER_BAKLOG", "1")]),
    env("a variable that is unlike any", &[("WEIR_QUUX", "1")]),
    env(
        "what Kubernetes sets for another service",
        &[("WEIR_ADMIN_SERVICE_HOST", "10.0.0.1")],
    ),
    env(
        "a wrong value",
        &[("WEIR_SERVER_BACKLOG", "many"), ("WEIR_HTTP_VIA", "yes")],
    ),
    env(
        "an empty value",
        &[("WEIR_SERVER_ADDRESS", ""), ("LOGGING_LEVEL", " ")],
    ),
    env(
        "a wrong value in a list",
        &[("WEIR_METRICS_ALLOW", "10.0.0.0/8, x,,::1")],
    ),
    env("a list in brackets", &[("WEIR_METRICS_ALLOW", "[\"::1\"]")]),
    env(
        "short forms",
        &[
            ("STRATEGY_TYPE", "fastest"),
            ("HEALTH_CHECK_INTERVAL", "10"),
            ("LOGGING_LEVEL", "loud"),
        ],
    ),
    env("backends", &[("WEIR_BACKENDS", "http://a,,b:80")]),
    env("a port that is none", &[("PORT", "tcp://10.0.0.1:80")]),
    env(
        "a port for no address with one",
        &[("PORT", "80"), ("SERVER_ADDRESS", "unix:/run/weir.sock")],
    ),
    env(
        "a port for two addresses",
        &[("PORT", "80"), ("SERVER_ADDRESS", "127.0.0.1:81,[::1]:81")],
    ),
    env(
        "what a terminal would obey",
        &[("WEIR_SERVER_ENVIRONMENT", "\u{1b}[31mred")],
    ),
];

pub const FLAGS: &[Bad] = &[
    sets("no value", &["server.address"]),
    sets("an empty value", &["server.address="]),
    sets("a typing error", &["server.adress=:80"]),
    sets("a key that is unlike any", &["quux=1"]),
    sets("a wrong value", &["server.backlog=0"]),
    sets("a key of one backend", &["backends.weight=3"]),
    sets("backends that are none", &["backends=a:80,http://b"]),
];

pub const MANY: &[Bad] = &[Bad {
    name: "everything at once, in the order of the layers",
    file: r#"
[server]
adress = ":80"
backlog = 0
[timeouts]
idle = 60
[strategy]
type = "magleb"
[[backends]]
url = "https://a"
[[backends]]
weight = 3
"#,
    env: &[
        ("WEIR_HTTP_VAI", "true"),
        ("LOGGING_LEVEL", "loud"),
        ("PORT", "x"),
    ],
    sets: &["http.via=1", "runtime.ring_entries=100"],
}];

//! Reading the configuration again: what changes, what stays, and what a bad file does not do.

#[macro_use]
mod support;

use std::process::Command;

use support::http::text;
use support::weir::{BINARY, Setup, backend_table};
use support::{Backend, Conduct, Driver, Fickle, Gate, Message, Weir, Wire, eventually, ok};

on_both_drivers!(
    a_signal_reads_the_configuration_again,
    a_call_reads_the_configuration_again,
    a_bad_file_changes_nothing_and_says_why,
    a_file_that_is_gone_changes_nothing,
    a_backend_that_is_added_gets_traffic,
    a_backend_that_goes_finishes_what_it_has,
    backends_that_stay_keep_what_is_in_flight,
    backends_that_stay_keep_their_breaker,
    backends_that_stay_keep_their_health,
    backends_that_stay_keep_their_ejection,
    backends_that_stay_keep_their_connections,
    a_backend_may_change_its_weight_and_place,
    counters_never_go_back,
    what_was_set_at_run_time_survives,
    a_weight_that_was_set_survives,
    strategy_and_retries_change,
    client_connections_live_on,
    what_needs_a_restart_is_named,
    nothing_new_is_fine_too,
);

fn three(driver: Driver, backends: &[Fickle]) -> Setup {
    Weir::on(driver).set("retry.max_retries", 0).fickles(backends)
}

fn taken(answer: &Message) {
    assert_eq!(answer.status(), 200, "{}", text(&answer.body));
}

fn add(weir: &mut Weir, backend: &Fickle) {
    let table = backend_table(Some(&backend.name), &backend.url());
    weir.rewrite(|config| backends_of(config).push(table));
}

fn remove(weir: &mut Weir, name: &str) {
    weir.rewrite(|config| {
        backends_of(config).retain(|backend| backend["name"].as_str() != Some(name));
    });
}

fn backends_of(config: &mut toml::Table) -> &mut Vec<toml::Value> {
    config["backends"].as_array_mut().expect("a list")
}

fn set(config: &mut toml::Table, section: &str, key: &str, value: impl Into<toml::Value>) {
    let section = config.entry(section).or_insert_with(|| toml::Table::new().into());
    section
        .as_table_mut()
        .expect("a section")
        .insert(key.to_owned(), value.into());
}

/// Asks until it answers.
fn wait_served_by(weir: &Weir, backend: &Fickle) {
    let mut client = weir.client();
    eventually(&format!("an answer by {}", backend.name), || {
        (client.get("/").get("x-backend") == Some(&backend.name)).then_some(())
    });
}

fn a_signal_reads_the_configuration_again(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = three(driver, &backends[..2]).start();
    add(&mut weir, &backends[2]);
    weir.signal(libc::SIGHUP);
    wait_served_by(&weir, &backends[2]);
    assert!(weir.is_running());
    weir.wait_log("reload");
}

fn a_call_reads_the_configuration_again(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = three(driver, &backends[..2]).start();
    add(&mut weir, &backends[2]);
    taken(&weir.reload());
    // It is in force when it was answered.
    let mut client = weir.client();
    for _ in 0..3 {
        client.get("/");
    }
    assert_eq!(backends[2].requests(), 1);
}

/// What `weir check` says of weir's configuration as it is now.
fn checked(weir: &Weir) -> String {
    let output = Command::new(BINARY)
        .env_clear()
        .current_dir(weir.dir())
        .args(["check", "--config"])
        .arg(weir.dir().join("weir.toml"))
        .output()
        .expect("weir check");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn a_bad_file_changes_nothing_and_says_why(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = three(driver, &backends).start();
    for (bad, names) in [
        ("[retry]\nmax_retries = -1\n", "max_retries"),
        (
            "[[backends]]\nurl = \"http://127.0.0.1:1\"\nwieght = 3\n",
            "wieght",
        ),
        ("this is no TOML", "TOML"),
    ] {
        weir.write_config(bad);
        let answer = weir.reload();
        assert!((400..500).contains(&answer.status()), "{}", answer.status());
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        let error = body["error"].as_str().expect("an error");
        let check = checked(&weir);
        if names != "TOML" {
            assert!(error.contains(names), "{error}");
        }
        // The same sentences; the terminal's frame around them may differ.
        for line in check.lines().filter(|line| line.contains('×')) {
            assert!(error.contains(line.trim()), "{line:?} is not in {error}");
        }
        let lines = weir.log_lines(&["reload"]).len();
        weir.signal(libc::SIGHUP);
        weir.wait_log_lines(&["reload"], lines + 1);
    }
    assert!(!weir.log_lines(&["wieght"]).is_empty(), "why, in the log");
    let mut client = weir.client();
    for _ in 0..9 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(backends.each_ref().map(Fickle::requests), [3; 3]);
    // A good one is taken again.
    remove(&mut weir, "a");
    taken(&weir.reload());
    for _ in 0..6 {
        client.get("/");
    }
    assert_eq!(backends[0].requests(), 3);
}

fn a_file_that_is_gone_changes_nothing(driver: Driver) {
    let backends = Fickle::three();
    let weir = three(driver, &backends).start();
    std::fs::remove_file(weir.dir().join("weir.toml")).expect("a file");
    let answer = weir.reload();
    assert!(answer.status() >= 400, "{}", answer.status());
    assert!(text(&answer.body).contains("weir.toml"), "{}", text(&answer.body));
    assert_eq!(weir.client().get("/").status(), 200);
}

fn a_backend_that_is_added_gets_traffic(driver: Driver) {
    let backends = Fickle::three();
    for strategy in [
        "round-robin",
        "weighted-round-robin",
        "random",
        "least-conn",
        "p2c",
        "least-response",
        "consistent_hash",
        "maglev",
        "prequal",
    ] {
        let mut weir = three(driver, &backends[..2])
            .set("strategy.type", strategy)
            .set("strategy.key", "header:X-User")
            .set("health_check.type", "http")
            .start();
        add(&mut weir, &backends[2]);
        taken(&weir.reload());
        let goal = backends[2].requests() + 3;
        let mut client = weir.client();
        for n in 0..500 {
            client.send(format!("GET / HTTP/1.1\r\nHost: t\r\nX-User: {n}\r\n\r\n"));
            assert_eq!(client.response("GET").status(), 200, "{strategy}");
            if backends[2].requests() >= goal {
                break;
            }
        }
        assert!(backends[2].requests() >= goal, "{strategy}");
    }
}

fn a_backend_that_goes_finishes_what_it_has(driver: Driver) {
    let gate = Gate::default();
    let opened = gate.clone();
    let going = Backend::answering(move |_| {
        opened.pass();
        ok(b"at last")
    });
    let staying = Fickle::new("staying");
    let mut weir = Weir::on(driver)
        .named("going", &going.url())
        .fickle(&staying)
        .start();
    let mut clients: Vec<_> = (0..2).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
    }
    going.wait_requests(1);
    remove(&mut weir, "going");
    taken(&weir.reload());
    let mut other = weir.client();
    for _ in 0..10 {
        assert_eq!(other.get("/").get("x-backend"), Some("staying"));
    }
    gate.open();
    let bodies: Vec<String> = clients
        .iter_mut()
        .map(|client| text(&client.response("GET").body))
        .collect();
    assert!(bodies.contains(&"at last".to_owned()), "{bodies:?}");
    assert_eq!(going.requests().len(), 1);
    // And nothing stays behind of it: its idle connections are closed.
    going.wait_end(0);
}

fn backends_that_stay_keep_what_is_in_flight(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = three(driver, &backends)
        .set("strategy.type", "least-conn")
        .start();
    for backend in &backends[..2] {
        backend.conduct(Conduct::Hang);
    }
    let hanging: Vec<_> = (0..12)
        .map(|n| {
            let mut client = weir.client();
            client.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n");
            // One after the other, so that each pick knows of those before.
            eventually("a request under way", || {
                let came: u64 = backends.iter().map(Fickle::requests).sum();
                (came > n).then_some(())
            });
            client
        })
        .collect();
    let in_flight = |weir: &Weir| [0, 1].map(|n| weir.backend(&backends[n].name)["in_flight"].clone());
    let before = in_flight(&weir);
    assert!(
        before.iter().all(|before| before.as_u64() > Some(0)),
        "{before:?}"
    );
    weir.rewrite(|config| set(config, "timeouts", "connect", "2s"));
    taken(&weir.reload());
    assert_eq!(in_flight(&weir), before);
    let mut client = weir.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").get("x-backend"), Some("c"), "the one with least");
    }
    hanging.into_iter().for_each(Wire::reset);
    eventually("all are uncounted", || {
        (in_flight(&weir).iter().all(|now| *now == 0)).then_some(())
    });
}

/// Makes the first one fail until it is left out.
fn fail(weir: &Weir, backend: &Fickle, status: u16) {
    backend.conduct(Conduct::Status(status));
    let mut client = weir.client();
    for _ in 0..20 {
        client.get("/");
    }
    assert_eq!(backend.requests(), 5);
}

/// Changes something about every backend but who they are, twice.
fn reload_twice(weir: &mut Weir) {
    for weight in [2, 3] {
        weir.rewrite(|config| {
            for backend in backends_of(config) {
                backend["weight"] = weight.into();
            }
        });
        taken(&weir.reload());
    }
}

fn with_weights(setup: Setup, backends: &[Fickle]) -> Setup {
    backends
        .iter()
        .fold(setup, |setup, backend| setup.fickle(backend).with("weight", 1))
}

fn assert_left_out(weir: &Weir, backend: &Fickle) {
    let had = backend.requests();
    let mut client = weir.client();
    for _ in 0..30 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(backend.requests(), had, "requests at {}", backend.name);
}

fn backends_that_stay_keep_their_breaker(driver: Driver) {
    let backends = Fickle::three();
    let setup = three(driver, &[]).set("outlier.consecutive_gateway", "off");
    let mut weir = with_weights(setup, &backends).start();
    fail(&weir, &backends[0], 500);
    reload_twice(&mut weir);
    weir.wait_breaker("a", "OPEN");
    assert_left_out(&weir, &backends[0]);
}

fn backends_that_stay_keep_their_ejection(driver: Driver) {
    let backends = Fickle::three();
    let setup = three(driver, &[]).set("circuit_breaker.enabled", false);
    let mut weir = with_weights(setup, &backends).start();
    fail(&weir, &backends[0], 503);
    reload_twice(&mut weir);
    weir.wait_backend("a", "ejected", |shown| shown["state"] == "ejected");
    assert_left_out(&weir, &backends[0]);
}

fn backends_that_stay_keep_their_health(driver: Driver) {
    let backends = Fickle::three();
    // The next probe comes long after this test.
    let setup = three(driver, &[])
        .set("health_check.type", "http")
        .set("health_check.interval", "60s")
        .set("health_check.fast_interval", "60s");
    backends[0].health(Conduct::Status(503));
    let mut weir = with_weights(setup, &backends).start();
    weir.wait_healthy("a", false);
    let probes = backends[0].probes();
    for _ in 0..3 {
        reload_twice(&mut weir);
        assert_eq!(weir.backend("a")["healthy"], false);
        assert_left_out(&weir, &backends[0]);
    }
    assert!(
        backends[0].probes() <= probes + 1,
        "a reload is no reason to probe"
    );
}

fn backends_that_stay_keep_their_connections(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = with_weights(three(driver, &[]), &backends).start();
    let mut client = weir.client();
    for _ in 0..30 {
        client.get("/");
    }
    let accepted = backends.each_ref().map(Fickle::accepted);
    reload_twice(&mut weir);
    for _ in 0..30 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(backends.each_ref().map(Fickle::accepted), accepted);
}

fn a_backend_may_change_its_weight_and_place(driver: Driver) {
    let backends = Fickle::three();
    let setup = three(driver, &[]).set("strategy.type", "weighted-round-robin");
    let mut weir = with_weights(setup, &backends).start();
    weir.rewrite(|config| {
        let all = backends_of(config);
        all.reverse();
        all[0]["weight"] = 8.into();
    });
    taken(&weir.reload());
    let mut client = weir.client();
    for _ in 0..50 {
        client.get("/");
    }
    assert_eq!(backends.each_ref().map(Fickle::requests), [5, 5, 40]);
    for backend in &backends {
        // An attempt is counted once its answer is out.
        eventually(&format!("{} is who it was", backend.name), || {
            (weir.backend_metric(&backend.url(), "requests") == backend.requests()).then_some(())
        });
    }
}

fn counters_never_go_back(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = with_weights(three(driver, &[]), &backends).start();
    let mut client = weir.client();
    for _ in 0..30 {
        client.get("/");
    }
    let figures = |weir: &Weir| {
        let total = weir.metrics()["total_requests"].as_u64().expect("a count");
        let each = backends
            .each_ref()
            .map(|backend| weir.backend_metric(&backend.url(), "requests"));
        (total, each)
    };
    eventually("30 counted", || (figures(&weir) == (30, [10; 3])).then_some(()));
    reload_twice(&mut weir);
    assert_eq!(figures(&weir), (30, [10; 3]));
    remove(&mut weir, "a");
    taken(&weir.reload());
    let total = weir.metrics()["total_requests"].as_u64();
    assert_eq!(total, Some(30), "what one that went had answered still counts");
}

fn what_was_set_at_run_time_survives(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = with_weights(three(driver, &[]), &backends).start();
    weir.operate("a", "drain");
    weir.operate("b", "maintenance");
    weir.wait_eligible("b", false);
    reload_twice(&mut weir);
    assert_eq!(weir.backend("a")["state"], "draining");
    assert_eq!(weir.backend("a")["overrides"]["state"], "draining");
    assert_eq!(weir.backend("b")["state"], "maintenance");
    assert_left_out(&weir, &backends[0]);
    assert_left_out(&weir, &backends[1]);
    for name in ["a", "b"] {
        weir.admin_do(
            "DELETE",
            &format!("/v1/pools/default/backends/{name}/override"),
            "",
        );
        weir.wait_eligible(name, true);
    }
    for backend in &backends {
        wait_served_by(&weir, backend);
    }
}

fn a_weight_that_was_set_survives(driver: Driver) {
    let backends = Fickle::three();
    let setup = three(driver, &[]).set("strategy.type", "weighted-round-robin");
    let mut weir = with_weights(setup, &backends).start();
    let spread = |weir: &Weir, n: usize| {
        let before = backends.each_ref().map(Fickle::requests);
        let mut client = weir.client();
        for _ in 0..n {
            client.get("/");
        }
        let after = backends.each_ref().map(Fickle::requests);
        [0, 1, 2].map(|n| after[n] - before[n])
    };
    weir.admin_do("PUT", "/v1/pools/default/backends/a/weight", "{\"weight\": 8}");
    assert_eq!(spread(&weir, 50), [40, 5, 5]);
    weir.rewrite(|config| set(config, "timeouts", "connect", "2s"));
    taken(&weir.reload());
    assert_eq!(spread(&weir, 50), [40, 5, 5]);
    // The short path is the same while there is one pool.
    weir.admin_do("PUT", "/backends/a/weight", "{\"weight\": 0}");
    assert_eq!(spread(&weir, 50), [0, 25, 25]);
    weir.admin_do("DELETE", "/backends/a/override", "");
    let got = spread(&weir, 48);
    assert_eq!(got, [16; 3]);
}

fn strategy_and_retries_change(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = three(driver, &backends)
        .set("circuit_breaker.enabled", false)
        .set("outlier.consecutive_gateway", "off")
        .start();
    backends[0].conduct(Conduct::Status(503));
    let mut client = weir.client();
    let mut statuses = |n: usize| -> Vec<u16> { (0..n).map(|_| client.get("/").status()).collect() };
    assert!(statuses(6).contains(&503));
    weir.rewrite(|config| set(config, "retry", "max_retries", 2));
    taken(&weir.reload());
    assert_eq!(statuses(9), [200; 9]);
    backends[0].conduct(Conduct::Answer);
    weir.rewrite(|config| {
        set(config, "strategy", "type", "failover");
        for (n, backend) in backends_of(config).iter_mut().enumerate() {
            let backend = backend.as_table_mut().expect("a backend");
            backend.insert("priority".to_owned(), (n as i64).into());
        }
    });
    taken(&weir.reload());
    let before = backends[1].requests() + backends[2].requests();
    assert_eq!(statuses(9), [200; 9]);
    assert_eq!(backends[1].requests() + backends[2].requests(), before);
    assert_eq!(weir.metrics()["algorithm"], "failover");
}

fn client_connections_live_on(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = with_weights(three(driver, &[]), &backends).start();
    let mut clients: Vec<_> = (0..10).map(|_| weir.client()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            let answer = client.get("/");
            assert_eq!(answer.status(), 200);
            assert!(!answer.lists("connection", "close"));
        }
        reload_twice(&mut weir);
    }
    assert_eq!(weir.metrics()["weir"]["connections"]["accepted"], 10);
}

fn what_needs_a_restart_is_named(driver: Driver) {
    let backends = Fickle::three();
    let mut weir = three(driver, &backends[..2]).start();
    weir.rewrite(|config| {
        set(config, "runtime", "workers", 2);
        set(config, "runtime", "ring_entries", 1024);
    });
    add(&mut weir, &backends[2]);
    let answer = weir.reload();
    taken(&answer);
    let said = text(&answer.body);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let keys = serde_json::json!(["runtime.workers", "runtime.ring_entries"]);
    assert_eq!(said["needs_restart"], keys, "{said}");
    let line = weir.wait_log("need a restart");
    assert!(line.contains("runtime"), "{line}");
    // The rest is in force.
    wait_served_by(&weir, &backends[2]);
}

fn nothing_new_is_fine_too(driver: Driver) {
    let backends = Fickle::three();
    let weir = three(driver, &backends).start();
    for _ in 0..6 {
        taken(&weir.reload());
    }
    let mut client = weir.client();
    for _ in 0..9 {
        assert_eq!(client.get("/").status(), 200);
    }
    assert_eq!(backends.each_ref().map(Fickle::requests), [3; 3]);
}

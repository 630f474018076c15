//! Profiles of the running process, read by `go tool pprof` and by the official messages.

#[macro_use]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pprof::protos::{Message as _, Profile};
use serde_json::Value;
use support::{Backend, Driver, Fickle, Load, Message, Weir, eventually};

on_both_drivers!(
    a_cpu_profile_names_where_the_time_goes_and_costs_no_request,
    rings_and_threads_are_shown,
);

fn profiled(driver: Driver) -> support::weir::Setup {
    Weir::on(driver).set("profiling.address", "127.0.0.1:0")
}

fn get(weir: &Weir, target: &str) -> Message {
    weir.get_from(weir.profiling.as_deref().expect("profiling is on"), target)
}

/// The profile that a file holds.
fn decoded(file: &[u8]) -> Profile {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut bytes)
        .expect("gzip");
    Profile::decode(&bytes[..]).expect("the official messages")
}

/// All names of functions in a profile.
fn names(profile: &Profile) -> Vec<String> {
    let text = |index: i64| profile.string_table[index as usize].clone();
    profile
        .function
        .iter()
        .map(|function| text(function.name))
        .collect()
}

/// What `go tool pprof -top` says of a file; none: there is no Go.
fn top(file: &[u8], args: &[&str]) -> Option<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path: PathBuf = dir.path().join("profile.pb.gz");
    fs::write(&path, file).expect("a file");
    let output = Command::new("go")
        .args(["tool", "pprof", "-top", "-nodecount=400"])
        .args(args)
        .arg(&path)
        .env("PPROF_TMPDIR", dir.path())
        .env("HOME", dir.path())
        .output();
    let Ok(output) = output else {
        support::skipped("golang-go");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(said)
}

fn a_cpu_profile_names_where_the_time_goes_and_costs_no_request(driver: Driver) {
    let backends = Fickle::three();
    let weir = profiled(driver).fickles(&backends).start();
    let load = Load::on(&weir);
    load.wait_answered(200);
    let address = weir.profiling.clone().expect("profiling is on");
    // While one is taken there is no other.
    let other = thread::spawn(move || {
        eventually("a refusal", || {
            let mut stream = TcpStream::connect(&address).ok()?;
            let asked = format!("GET /debug/pprof/profile?seconds=1 HTTP/1.0\r\nHost: {address}\r\n\r\n");
            stream.write_all(asked.as_bytes()).ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.contains("409 ").then_some(answer)
        })
    });
    let answer = get(&weir, "/debug/pprof/profile?seconds=3&hz=500");
    assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(&answer.body));
    let _ = other.join();
    load.stop().assert_none_failed();
    let profile = decoded(&answer.body);
    assert!(!profile.sample.is_empty());
    let found = names(&profile);
    assert!(found.iter().any(|name| name.contains("weir::proxy")), "{found:?}");
    let seen: Duration =
        Duration::from_nanos(profile.sample.iter().map(|sample| sample.value[1] as u64).sum());
    assert!(
        seen > Duration::from_millis(300),
        "{seen:?} of 3 s under full load"
    );
    if let Some(said) = top(&answer.body, &["-cum"]) {
        assert!(said.contains("Type: cpu") && said.contains("block_on"), "{said}");
    }
}

fn rings_and_threads_are_shown(driver: Driver) {
    let backend = Backend::plain();
    let weir = profiled(driver).backend(&backend).start();
    for _ in 0..20 {
        assert_eq!(weir.client().get("/").status(), 200);
    }
    let threads = String::from_utf8_lossy(&get(&weir, "/debug/pprof/threads").body).into_owned();
    for name in ["weir-worker-0", "weir-log", "weir-health"] {
        assert!(threads.contains(name), "{threads}");
    }
    let rings: Value = serde_json::from_slice(&get(&weir, "/debug/uring").body).expect("JSON");
    let worker = &rings["workers"][0];
    assert!(
        worker["driver"]
            .as_str()
            .is_some_and(|name| name.contains(driver.word())),
        "{rings}"
    );
    assert!(worker["waits"].as_u64() > Some(0), "{rings}");
    if driver == Driver::IoUring {
        assert!(worker["submitted"].as_u64() > Some(40), "{rings}");
        assert!(worker["completions"].as_u64() > Some(40), "{rings}");
        assert_eq!(worker["overflowed"], 0);
    } else {
        assert!(worker["submitted"].is_null(), "{rings}");
    }
    let index = get(&weir, "/debug/pprof/");
    assert!(String::from_utf8_lossy(&index.body).contains("/debug/pprof/heap"));
    for (target, status) in [
        ("/debug/pprof/profile?seconds=0", 400),
        ("/debug/pprof/profile?seconds=601", 400),
        ("/debug/pprof/profile?seconds=x", 400),
        ("/debug/pprof/profile?hz=0", 400),
        ("/metrics", 404),
        ("/debug/pprof/heap", 409),
    ] {
        assert_eq!(get(&weir, target).status(), status, "{target}");
    }
    let off = get(&weir, "/debug/pprof/heap");
    assert!(String::from_utf8_lossy(&off.body).contains("profiling.heap_sample"));
}

#[test]
fn a_profile_ends_with_whoever_asked_for_it() {
    let backend = Backend::plain();
    let weir = profiled(Driver::Epoll).backend(&backend).start();
    let address = weir.profiling.clone().expect("profiling is on");
    let mut stream = TcpStream::connect(&address).expect("it listens");
    let asked = format!("GET /debug/pprof/profile?seconds=600 HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(asked.as_bytes()).expect("sent");
    eventually("the profile to begin", || {
        (get(&weir, "/debug/pprof/profile?seconds=1").status() == 409).then_some(())
    });
    drop(stream);
    eventually("another one to be possible", || {
        (get(&weir, "/debug/pprof/profile?seconds=1").status() == 200).then_some(())
    });
}

#[test]
fn the_heap_is_sampled_where_it_is_switched_on() {
    let backend = Backend::plain();
    let weir = profiled(Driver::Epoll)
        .backend(&backend)
        .set("profiling.heap_sample", "1KiB")
        .start();
    let mut client = weir.client();
    for _ in 0..300 {
        assert_eq!(client.get("/").status(), 200);
    }
    let answer = get(&weir, "/debug/pprof/heap");
    assert_eq!(answer.status(), 200);
    let profile = decoded(&answer.body);
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let types: Vec<&str> = profile.sample_type.iter().map(|kind| text(kind.ty)).collect();
    assert_eq!(
        types,
        ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]
    );
    let sum = |index: usize| -> i64 { profile.sample.iter().map(|sample| sample.value[index]).sum() };
    assert!(sum(1) >= sum(3) && sum(3) > 0 && sum(0) >= sum(2));
    // What is in use cannot be more than what the process has.
    assert!((sum(3) as u64) < 2 * weir.rss(), "{} of {}", sum(3), weir.rss());
    assert!(names(&profile).iter().any(|name| name.contains("weir::")));
    for sort in ["-alloc_space", "-inuse_space", "-alloc_objects"] {
        if let Some(said) = top(&answer.body, &[sort]) {
            assert!(said.contains("weir::"), "{sort}: {said}");
        }
    }
}

#[test]
fn off_nothing_listens_and_elsewhere_it_may_not() {
    let backend = Backend::plain();
    let weir = Weir::on(Driver::Epoll).backend(&backend).start();
    assert_eq!(weir.profiling, None);
    let mut refused = Weir::on(Driver::Epoll)
        .set("profiling.address", "0.0.0.0:6060")
        .backend(&backend)
        .spawn();
    assert_eq!(refused.wait_exit(Duration::from_secs(10)).code, Some(2));
    refused.wait_log("profiles are served on loopback or a Unix socket only");
    let start = Instant::now();
    let weir = profiled(Driver::Epoll).backend(&backend).start();
    let answer = {
        let address = weir.profiling.as_deref().expect("profiling is on");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream
            .write_all(b"GET /debug/pprof/ HTTP/1.0\r\nHost: evil.example\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert!(answer.contains(" 421 "), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

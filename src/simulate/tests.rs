//! The simulator itself is right where theory says what must come out; what comes out depends on the seed and on nothing
//! else.

use std::time::Duration;

use super::engine::{self, Plan};
use super::report::{Report, Row};
use super::scenario::{self, Scenario};
use super::tally::Tally;
use super::{Contender, Nanos};
use crate::config::{self, Config, model::StrategyKind};

const ROUND_ROBIN: Contender = Contender {
    kind: StrategyKind::RoundRobin,
    probing: false,
};

fn scenario(text: &str) -> Scenario {
    scenario::parse("test", text).unwrap_or_else(|error| panic!("{error}"))
}

fn configuration(scenario: &Scenario, sets: &[&str]) -> Config {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let loaded = config::load_str("test", &scenario.as_configuration(), &[], &sets);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).config
}

fn run(scenario: &Scenario, contender: Contender, seed: u64) -> Tally {
    let config = configuration(scenario, &[]);
    let plan = Plan {
        scenario,
        config: &config,
        log: None,
        seed,
    };
    engine::run(&plan, contender)
}

/// Mean time in milliseconds from arrival to answer at one backend, with nothing on the way.
fn mean_millis(service: &str, load: f64, duration: &str) -> f64 {
    let text = format!(
        "duration = '{duration}'\nwarm_up = '60s'\nbackends = 1\n[arrivals]\nload = {load}\n\
         [network]\ndelay = '0s'\n[service]\nqueue = 1000000\n{service}"
    );
    let tally = run(&scenario(&text), ROUND_ROBIN, 11);
    assert_eq!(tally.failed, 0);
    tally.latency.mean() / 1e6
}

#[track_caller]
fn assert_near(found: f64, theory: f64, per_cent: f64) {
    let off = (found / theory - 1.0).abs() * 100.0;
    assert!(
        off < per_cent,
        "{found} where theory says {theory}: {off:.1} % off"
    );
}

#[test]
fn one_server_waits_as_theory_says() {
    let service = "time = { type = 'exponential', mean = '10ms' }";
    // M/M/1: 1 / (μ − λ).
    assert_near(mean_millis(service, 0.5, "5000s"), 20.0, 2.0);
    assert_near(mean_millis(service, 0.8, "12000s"), 50.0, 4.0);
}

#[test]
fn several_servers_wait_as_erlang_says() {
    // M/M/4 at 0.8: a = 3.2, and Erlang's C = a⁴/4!/(1 − ρ) / (Σ aᵏ/k! + the same).
    let a: f64 = 3.2;
    let last = a.powi(4) / 24.0 / 0.2;
    let busy = last / (1.0 + a + a * a / 2.0 + a.powi(3) / 6.0 + last);
    let theory = 10.0 + busy * 10.0 / (4.0 - a);
    let service = "cores = 4\ntime = { type = 'exponential', mean = '10ms' }";
    assert_near(mean_millis(service, 0.8, "4000s"), theory, 3.0);
}

#[test]
fn waiting_grows_with_the_variance_of_service_times() {
    // M/G/1: Pollaczek and Khinchine. E[S] = 10, E[S²] = 0.9 · 25 + 0.1 · 3025 = 325; at 0.7 that is a wait of
    // 0.07 · 325 / (2 · 0.3).
    let service = "time = { type = 'bimodal', fast = '5ms', slow = '55ms', slow_share = 0.1 }";
    let theory = 10.0 + 0.07 * 325.0 / 0.6;
    assert_near(mean_millis(service, 0.7, "8000s"), theory, 4.0);
    // Sharing: the mean alone decides, E[S] / (1 − ρ).
    let sharing = format!("discipline = 'sharing'\n{service}");
    assert_near(mean_millis(&sharing, 0.7, "8000s"), 10.0 / 0.3, 4.0);
}

/// Everything that can go wrong, and nobody waits for the end of it.
const TROUBLE: &str = "
duration = '20s'
drain = '0s'
backends = 6
load_balancers = 3
workers = 2
[arrivals]
type = 'burst'
load = 0.7
burst_factor = 4
burst_length = '100ms'
burst_every = '1s'
[network]
delay = { type = 'lognormal', median = '300us', sigma = 1 }
[service]
cores = 2
queue = 20
time = { type = 'pareto', least = '2ms', shape = 1.8 }
[antagonist]
every = '2s'
levels = [{ share = 3 }, { share = 1, capacity = 0.3, speed = 0.8 }]
[[special]]
backends = 5
cores = 4
weight = 2
[[events]]
type = 'crash'
at = '2s'
until = '6s'
backends = 0
[[events]]
type = 'gone'
at = '4s'
until = '9s'
backends = 1
[[events]]
type = 'hang'
at = '5s'
until = '15s'
backends = 2
[[events]]
type = 'fail'
at = '10s'
backends = '3,5'
share = 0.4
time = '2ms'
[[events]]
type = 'sick'
at = '12s'
backends = 4
[[events]]
type = 'traffic'
at = '14s'
until = '16s'
factor = 3
[[events]]
type = 'slow'
at = '16s'
backends = 0
factor = 5
";

#[test]
fn no_request_is_lost_or_counted_twice_whatever_happens() {
    let scenario = scenario(TROUBLE);
    let tallies: Vec<Tally> = Contender::all()
        .map(|contender| run(&scenario, contender, 5))
        .collect();
    for tally in &tallies {
        assert_eq!(tally.arrived, tally.done + tally.failed + tally.in_flight);
        assert!(tally.in_flight > 0 && tally.done > tally.arrived / 2);
        assert_eq!(tally.measured, tally.latency.len() + tally.measured_failed);
        assert_eq!(tally.by_backend.iter().sum::<u64>(), tally.attempts);
        assert_eq!(tally.arrived, tallies[0].arrived, "all meet the same requests");
    }
}

fn json(seed: u64) -> String {
    let scenario = scenario(TROUBLE);
    let row = |contender| Row {
        contender,
        tally: run(&scenario, contender, seed),
        wall: Duration::from_secs(1),
    };
    let report = Report {
        name: "trouble",
        scenario: &scenario,
        seed,
        backends: (0..6).map(|at| format!("backend-{at}")).collect(),
        named: vec![true; 6],
        capacity: 1.0,
        rows: Contender::all().map(row).collect(),
    };
    report.json(false).to_string()
}

#[test]
fn the_same_seed_gives_the_same_figures_to_the_last_digit() {
    let first = json(5);
    assert_eq!(first, json(5));
    assert_ne!(first, json(6));
}

#[test]
fn a_crashed_backend_gets_no_more_than_its_share_of_probes() {
    let text = scenario::preset("kill-one").expect("a preset");
    let tally = run(&scenario(text), ROUND_ROBIN, 1);
    assert_eq!(tally.failed, 0, "every failure is tried again elsewhere");
    let happened = |name: &str| {
        tally
            .happened
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, count)| *count)
    };
    assert_eq!(happened("refused a connect"), Some(1), "{:?}", tally.happened);
    assert_eq!(happened("up"), Some(1), "{:?}", tally.happened);
    // A refused connect takes it out at once: what was on its way, and no more.
    assert!(tally.retries < 100, "{} retries", tally.retries);
    let slice = |second: Nanos| tally.slices[(second * 1_000_000_000 / tally.slice_length) as usize];
    assert_eq!(slice(20).attempts_named, 0);
    let share = |slice: super::tally::Slice| slice.attempts_named as f64 / slice.attempts as f64;
    assert_near(share(slice(5)), 1.0 / 3.0, 5.0);
    assert_near(share(slice(40)), 1.0 / 3.0, 5.0);
}

#[test]
fn contenders_are_found_by_name_with_either_separator() {
    for contender in Contender::all() {
        assert_eq!(Contender::by_name(contender.name()), Some(contender));
    }
    assert_eq!(Contender::by_name("least_conn"), Contender::by_name("least-conn"));
    assert_eq!(
        Contender::by_name("consistent-hash").map(Contender::name),
        Some("consistent_hash")
    );
    assert_eq!(Contender::by_name("best"), None);
}

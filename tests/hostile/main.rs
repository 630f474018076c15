//! Hostile input, table by table: what strangers send from either side to make two parties read one message as two.
//!
//! Each case says what the client gets *and* what the backend sees. Every case is followed on its connection by one more
//! request, so that a boundary in the wrong place shows. All cases of a table run against one weir, and all that fail are
//! named at the end.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod chunks;
mod requests;
mod responses;

use std::panic::{AssertUnwindSafe, catch_unwind};

use support::wire::End;
use support::{Backend, Driver, Message, Weir, Wire, ok};

on_both_drivers!(
    there_are_at_least_two_hundred_cases,
    request_lines,
    request_fields,
    request_framing,
    request_chunks,
    response_heads,
    response_framing,
    response_chunks,
    heads_split_anywhere_are_judged_alike,
);

/// What has to come of some bytes from a client.
#[derive(Clone)]
pub enum Want {
    /// Refused with one of these statuses; the backend sees nothing; the connection is closed.
    Refused(&'static [u16], &'static [&'static str]),
    /// As `Refused`, but found out while the body was passing: the backend may see a request that never becomes whole.
    Cut(&'static str),
    /// Answered with this status and not passed on; the connection may go on, since nothing is in doubt.
    Declined(u16, &'static str),
    /// The backend sees exactly this start line, these fields in this order among its own, and this body.
    Passed(
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static [u8],
    ),
}

#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub send: Vec<u8>,
    pub want: Want,
}

pub fn case(name: &str, send: impl AsRef<[u8]>, want: Want) -> Case {
    Case {
        name: name.to_owned(),
        send: send.as_ref().to_vec(),
        want,
    }
}

/// What has to come of some bytes from a backend.
#[derive(Clone)]
pub enum Got {
    /// 502 `bad_response`.
    Bad,
    /// 502, or an abort if the head was already on its way; never a clean end.
    Broken,
    /// A clean response of this status and body, to be followed by another on the same client connection.
    Passed(u16, &'static [u8]),
    /// As `Passed`, but what followed it forbids the backend connection's reuse.
    PassedOnce(u16, &'static [u8]),
}

#[derive(Clone)]
pub struct Answer {
    pub name: String,
    pub send: Vec<u8>,
    pub got: Got,
    /// The backend closes behind it; otherwise it waits.
    pub close: bool,
}

/// Runs every case, then names all that failed.
fn run_all<T>(cases: &[T], name: impl Fn(&T) -> &str, run: impl Fn(&T)) {
    let failed: Vec<&str> = cases
        .iter()
        .filter(|case| catch_unwind(AssertUnwindSafe(|| run(case))).is_err())
        .map(name)
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} cases failed: {failed:#?}",
        failed.len(),
        cases.len()
    );
}

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

fn there_are_at_least_two_hundred_cases(_: Driver) {
    let requests = [
        requests::lines(),
        requests::fields(),
        requests::framing(),
        chunks::requests(),
    ]
    .concat();
    let responses = [responses::heads(), responses::framing(), chunks::responses()].concat();
    assert!(
        requests.len() >= 150 && responses.len() >= 90,
        "{} and {}",
        requests.len(),
        responses.len()
    );
    let mut names: Vec<&str> = requests.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), requests.len(), "names tell cases apart");
}

fn request_lines(driver: Driver) {
    judge_requests(driver, &requests::lines());
}

fn request_fields(driver: Driver) {
    judge_requests(driver, &requests::fields());
}

fn request_framing(driver: Driver) {
    judge_requests(driver, &requests::framing());
}

fn request_chunks(driver: Driver) {
    judge_requests(driver, &chunks::requests());
}

fn judge_requests(driver: Driver, cases: &[Case]) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    run_all(
        cases,
        |case| &case.name,
        |case| {
            judge_request(&weir, &backend, case, |client| {
                // A refusal may come, and the connection close, while this is still on its way.
                let _ = client.try_send([&case.send, NEXT].concat());
            })
        },
    );
}

fn judge_request(weir: &Weir, backend: &Backend, case: &Case, send: impl Fn(&mut Wire)) {
    let (requests, heads) = (backend.requests().len(), heads_but_sentinels(backend));
    let mut client = weir.client();
    send(&mut client);
    let method = String::from_utf8_lossy(&case.send)
        .trim_start()
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned();
    match &case.want {
        Want::Refused(statuses, reasons) => {
            assert_refused(&mut client, case, statuses, reasons);
            assert_eq!(
                heads_but_sentinels(backend),
                heads,
                "{}: the backend saw a head",
                case.name
            );
        }
        Want::Declined(status, reason) => {
            let response = client.response(&method);
            assert_eq!(
                (response.status(), response.reason()),
                (*status, Some(*reason)),
                "{}",
                case.name
            );
            if response.lists("connection", "close") {
                client.expect_closed();
            } else {
                assert_eq!(client.response("GET").body, b"/next", "{}", case.name);
            }
        }
        Want::Cut(reason) => assert_refused(&mut client, case, &[400], &[reason]),
        Want::Passed(..) => {
            assert_eq!(client.response(&method).status(), 200, "{}", case.name);
            assert_eq!(client.response("GET").body, b"/next", "{}", case.name);
        }
    }
    // Whatever was still under way toward the backend has arrived before this has been answered.
    assert_eq!(weir.client().get("/sentinel").body, b"/sentinel");
    let seen = backend.requests().split_off(requests);
    let seen: Vec<&Message> = seen
        .iter()
        .filter(|request| request.target() != "/sentinel")
        .collect();
    match &case.want {
        Want::Passed(start, fields, body) => {
            assert_eq!(seen.len(), 2, "{}: {seen:?}", case.name);
            assert_eq!(seen[0].start, *start, "{}", case.name);
            for (name, value) in *fields {
                assert_eq!(seen[0].get(name), Some(*value), "{}: {name}", case.name);
            }
            assert_eq!(seen[0].body, *body, "{}", case.name);
        }
        Want::Declined(..) => assert!(
            seen.iter().all(|request| request.target() == "/next"),
            "{}: {seen:?}",
            case.name
        ),
        _ => assert!(seen.is_empty(), "{}: the backend saw {seen:?}", case.name),
    }
    let malformed = backend
        .violations()
        .into_iter()
        .find(|(_, broken)| matches!(broken.end, End::Malformed(_)));
    assert!(
        malformed.is_none(),
        "{}: the backend was sent {malformed:?}",
        case.name
    );
}

fn heads_but_sentinels(backend: &Backend) -> usize {
    backend
        .heads()
        .iter()
        .filter(|head| head.target() != "/sentinel")
        .count()
}

fn assert_refused(client: &mut Wire, case: &Case, statuses: &[u16], reasons: &[&str]) {
    let response = client
        .read_response("GET")
        .unwrap_or_else(|broken| panic!("{}: {broken:?}", case.name));
    assert!(
        statuses.contains(&response.status()),
        "{}: {} {:?}",
        case.name,
        response.start,
        response.reason()
    );
    let reason = response.reason().unwrap_or("none");
    assert!(
        reasons.contains(&reason),
        "{}: {reason} instead of {reasons:?}",
        case.name
    );
    assert!(
        response.lists("connection", "close"),
        "{}: {:?}",
        case.name,
        response.head
    );
    let rest = client.read_to_end();
    assert!(
        rest.got.is_empty() && rest.end != End::Silent,
        "{}: still open: {rest:?}",
        case.name
    );
}

fn response_heads(driver: Driver) {
    judge_responses(driver, responses::heads());
}

fn response_framing(driver: Driver) {
    judge_responses(driver, responses::framing());
}

fn response_chunks(driver: Driver) {
    judge_responses(driver, chunks::responses());
}

fn judge_responses(driver: Driver, cases: Vec<Answer>) {
    let answers = cases.clone();
    let backend = Backend::new(move |conn| {
        loop {
            let request = conn.read_request()?;
            let Some(index) = request.target().strip_prefix("/case/") else {
                conn.try_send(ok(request.target().as_bytes()))?;
                continue;
            };
            let answer = &answers[index.parse::<usize>().expect("a number")];
            conn.try_send(&answer.send)?;
            if answer.close {
                return Ok(());
            }
        }
    });
    let weir = Weir::before(driver, &backend);
    let indexed: Vec<(usize, Answer)> = cases.into_iter().enumerate().collect();
    run_all(
        &indexed,
        |(_, answer)| &answer.name,
        |(index, answer)| judge_response(&weir, &backend, *index, answer),
    );
}

fn judge_response(weir: &Weir, backend: &Backend, index: usize, answer: &Answer) {
    let name = &answer.name;
    let before = backend.requests().len();
    let mut client = weir.client();
    client.send(format!("GET /case/{index} HTTP/1.1\r\nHost: t\r\n\r\n"));
    let got = client.read_response("GET");
    match (&answer.got, got) {
        (Got::Bad, Ok(response)) => {
            assert_eq!(
                (response.status(), response.reason()),
                (502, Some("bad_response")),
                "{name}"
            );
        }
        (Got::Broken, Ok(response)) => {
            assert_eq!(
                (response.status(), response.reason()),
                (502, Some("bad_response")),
                "{name}: a clean end"
            );
        }
        (Got::Broken, Err(broken)) => {
            assert!(
                matches!(broken.end, End::Closed | End::Reset),
                "{name}: {broken:?}"
            );
            assert!(
                !broken.got.ends_with(b"\r\n0\r\n\r\n"),
                "{name}: a clean end: {broken:?}"
            );
        }
        (Got::Passed(status, body) | Got::PassedOnce(status, body), Ok(response)) => {
            assert_eq!(
                (response.status(), response.body.as_slice()),
                (*status, *body),
                "{name}"
            );
            if response.framing != support::Framing::Close {
                assert_eq!(client.get("/next").body, b"/next", "{name}");
            }
        }
        (_, Err(broken)) => panic!("{name}: {broken:?}"),
    }
    assert_eq!(weir.client().get("/sentinel").body, b"/sentinel", "{name}");
    let seen = backend.requests_by_connection().split_off(before);
    let (used, first) = &seen[0];
    assert_eq!(first.target(), format!("/case/{index}"), "{name}");
    if !matches!(answer.got, Got::Passed(..)) {
        let again = seen[1..]
            .iter()
            .filter(|(connection, _)| connection == used)
            .count();
        assert_eq!(again, 0, "{name}: its connection was used again");
    }
    let asked = seen
        .iter()
        .filter(|(_, request)| request.target().starts_with("/case/"))
        .count();
    assert_eq!(asked, 1, "{name}: asked {asked} times");
}

/// Where a packet ends means nothing: some cases again with the bytes in two packets, cut at every place.
fn heads_split_anywhere_are_judged_alike(driver: Driver) {
    let backend = Backend::plain();
    let weir = Weir::before(driver, &backend);
    let chosen = [
        "content-length and transfer-encoding",
        "lf ends a line",
        "a fold with a space",
        "a chunk size of +3",
        "chunk data longer than its size",
        "trailers behind the last chunk",
    ];
    let all = [
        requests::lines(),
        requests::fields(),
        requests::framing(),
        chunks::requests(),
    ]
    .concat();
    let cases: Vec<&Case> = all
        .iter()
        .filter(|case| chosen.contains(&case.name.as_str()))
        .collect();
    assert_eq!(cases.len(), chosen.len());
    let splits: Vec<(String, &Case, usize)> = cases
        .into_iter()
        .flat_map(|case| (1..case.send.len()).map(move |at| (format!("{} cut at {at}", case.name), case, at)))
        .collect();
    run_all(
        &splits,
        |split| &split.0,
        |(_, case, at)| {
            judge_request(&weir, &backend, case, |client| {
                client.send(&case.send[..*at]);
                // Another exchange in between lets weir see the first packet by itself.
                assert_eq!(weir.client().get("/sentinel").body, b"/sentinel");
                let _ = client.try_send([&case.send[*at..], NEXT].concat());
            });
        },
    );
}

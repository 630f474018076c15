//! The profiles of a running weir, at the paths where users of Go look for them.

use std::time::Duration;

use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::State;
use super::command::Refused;
use super::router::{Answer, whole};
use crate::profile::cpu::Error;
use crate::profile::{cpu, heap, threads};

/// Seconds of a profile where none are asked for, and at the most.
const SECONDS: u64 = 30;
const SECONDS_MAX: u64 = 600;
/// Samples a second of CPU time: as Go's.
const HZ: u64 = 100;
const HZ_MAX: u64 = 1_000;

const INDEX: &str = "\
/debug/pprof/profile?seconds=30   where all threads spend their time (hz=100)
/debug/pprof/heap                 who allocates; needs profiling.heap_sample
/debug/pprof/threads              every thread
/debug/uring                      every worker's ring

go tool pprof http://ADDRESS/debug/pprof/profile?seconds=10
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    Index,
    Cpu,
    Heap,
    Threads,
    Rings,
}

impl Profile {
    pub(super) fn at(path: &str) -> Option<Profile> {
        match path {
            "/debug/pprof" | "/debug/pprof/" => Some(Profile::Index),
            "/debug/pprof/profile" => Some(Profile::Cpu),
            "/debug/pprof/heap" | "/debug/pprof/allocs" => Some(Profile::Heap),
            "/debug/pprof/threads" | "/debug/pprof/goroutine" => Some(Profile::Threads),
            "/debug/uring" => Some(Profile::Rings),
            _ => None,
        }
    }

    /// `number` gives a query parameter, if it is there.
    pub(super) async fn answer(
        self,
        state: &State,
        number: impl Fn(&str) -> Result<Option<u64>, Refused>,
    ) -> Result<Answer, Refused> {
        match self {
            Profile::Index => Ok(text(INDEX.to_owned())),
            Profile::Threads => Ok(text(threads::table())),
            Profile::Rings => Ok(text(format!("{:#}\n", json!({ "workers": (state.rings)() })))),
            Profile::Heap if !heap::is_on() => Err(Refused::new(
                StatusCode::CONFLICT,
                "allocations are not sampled: set profiling.heap_sample = \"512KiB\" and start again",
            )),
            Profile::Heap => {
                let file = tokio::task::spawn_blocking(heap::profile).await;
                let file = file.map_err(|error| error.to_string());
                let file = file.and_then(|file| file.map_err(|error| error.to_string()));
                let failed = |why| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, why);
                file.map(|file| download("heap.pb.gz", file)).map_err(failed)
            }
            Profile::Cpu => {
                let within = |name: &str, default: u64, max: u64| match number(name)? {
                    None => Ok(default),
                    Some(given) if (1..=max).contains(&given) => Ok(given),
                    Some(given) => Err(Refused::new(
                        StatusCode::BAD_REQUEST,
                        format!("{name}={given} is not from 1 to {max}"),
                    )),
                };
                let seconds = within("seconds", SECONDS, SECONDS_MAX)?;
                let hz = within("hz", HZ, HZ_MAX)?;
                match cpu::take(Duration::from_secs(seconds), hz as i32).await {
                    Ok(file) => Ok(download("profile.pb.gz", file)),
                    Err(error @ Error::Busy) => Err(Refused::new(StatusCode::CONFLICT, error.to_string())),
                    Err(error) => Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
                }
            }
        }
    }
}

fn text(text: String) -> Answer {
    let mut answer = Response::new(whole(Full::from(text.into_bytes())));
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn download(name: &str, file: Vec<u8>) -> Answer {
    let mut answer = Response::new(whole(Full::from(file)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(disposition) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    answer
}

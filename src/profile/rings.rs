//! `/debug/uring`: what the kernel says of each worker's ring, without asking the worker.
//!
//! The counters are those of /proc/self/fdinfo: heads and tails of both queues, which the kernel counts modulo 2³² since the
//! ring was made. Whether entries were lost to a full completion queue is the kernel's `overflow` list. How often a worker
//! entered the kernel is not counted anywhere; how often its thread went to sleep is, and stands in for it.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

/// Rings are made one after the other, so that a new descriptor can be told from those before.
static MAKING: Mutex<()> = Mutex::new(());

/// Runs `make`, and says which descriptor is the ring that it made; none: it made none.
pub fn noticing<T>(make: impl FnOnce() -> T) -> (T, Option<i32>) {
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = rings();
    let made = make();
    let new = rings().into_iter().find(|ring| !before.contains(ring));
    (made, new)
}

/// The descriptors of this process that are rings.
fn rings() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let ring =
        |path: &Path| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("io_uring"));
    entries
        .filter(|entry| ring(&entry.path()))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// One worker's ring, as it is now.
pub fn describe(worker: usize, driver: &str, ring: Option<i32>, thread: u64, buffer_bytes: u64) -> Value {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap_or_default();
    let waits = status.lines().find_map(|line| {
        line.strip_prefix("voluntary_ctxt_switches:")?
            .trim()
            .parse::<u64>()
            .ok()
    });
    let mut value = json!({
        "worker": worker,
        "driver": driver,
        "waits": waits,
        "buffer_bytes": buffer_bytes,
    });
    let Some(info) = ring.and_then(|ring| fs::read_to_string(format!("/proc/self/fdinfo/{ring}")).ok())
    else {
        return value;
    };
    let found = parse(&info);
    let completions = found.completions;
    value["submitted"] = found.submitted.into();
    value["submission_queue"] = found.waiting_submissions.into();
    value["completions"] = completions.into();
    value["completion_queue"] = found.waiting_completions.into();
    value["overflowed"] = found.overflowed.into();
    value["completions_per_wait"] = waits
        .filter(|waits| *waits > 0)
        .map(|waits| completions as f64 / waits as f64)
        .into();
    value
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    submitted: u64,
    waiting_submissions: u64,
    completions: u64,
    waiting_completions: u64,
    overflowed: u64,
}

/// Reads what `io_uring_show_fdinfo` of Linux writes.
fn parse(info: &str) -> Found {
    let number = |key: &str| {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let (sq_head, sq_tail) = (number("SqHead"), number("SqTail"));
    let (cq_head, cq_tail) = (number("CqHead"), number("CqTail"));
    let list = info.split("CqOverflowList:").nth(1).unwrap_or_default();
    let overflowed = list
        .lines()
        .filter(|line| line.trim_start().starts_with("user_data="))
        .count();
    Found {
        submitted: sq_head,
        waiting_submissions: sq_tail.wrapping_sub(sq_head) & u64::from(u32::MAX),
        completions: cq_tail,
        waiting_completions: cq_tail.wrapping_sub(cq_head) & u64::from(u32::MAX),
        overflowed: overflowed as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let info = "pos:\t0\nSqMask:\t0x3ff\nSqHead:\t12\nSqTail:\t15\nCachedSqHead:\t12\nCqMask:\t0x7ff\nCqHead:\t4\n\
                    CqTail:\t4\nCachedCqTail:\t4\nSQEs:\t0\nCQEs:\t0\nCqOverflowList:\n  user_data=1, res=2, flags=0\n";
        let expected = Found {
            submitted: 12,
            waiting_submissions: 3,
            completions: 4,
            waiting_completions: 0,
            overflowed: 1,
        };
        assert_eq!(parse(info), expected);
        assert_eq!(parse(""), Found::default());
    }

    #[test]
    fn a_new_ring_is_noticed() {
        let (ring, noticed) = noticing(|| io_uring::IoUring::new(8));
        if ring.is_ok() {
            assert!(noticed.is_some());
        }
        assert_eq!(noticing(|| ()).1, None);
    }
}

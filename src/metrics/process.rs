//! What the kernel knows of this process, and of the thread of each worker.

use std::fs;
use std::sync::OnceLock;

use crate::sys;

/// What Prometheus' clients of every language expose, in base units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_fds: u64,
    /// None: no limit.
    pub max_fds: Option<u64>,
    pub start_unix_seconds: f64,
    pub threads: u64,
}

impl Process {
    /// As /proc says now; what cannot be read is 0.
    pub fn now() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let open_fds = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
        // The kernel works it out from two clocks at each look; a process has begun but once.
        static BOOT: OnceLock<f64> = OnceLock::new();
        let units = Units {
            ticks: sys::clock_ticks() as f64,
            page: sys::page_bytes(),
            boot: *BOOT.get_or_init(boot_unix_seconds),
        };
        Process {
            open_fds,
            max_fds: max_fds(&limits),
            ..of_stat(&stat, units)
        }
    }
}

/// What the numbers in /proc are to be read by.
#[derive(Clone, Copy)]
struct Units {
    /// A second.
    ticks: f64,
    /// Bytes of a page.
    page: u64,
    /// When the machine was started, in seconds since 1970.
    boot: f64,
}

/// Reads proc(5)'s `stat`: the name, which may hold blanks and brackets, ends with the last bracket.
fn of_stat(stat: &str, units: Units) -> Process {
    let fields: Vec<&str> = match stat.rsplit_once(')') {
        Some((_, rest)) => rest.split_whitespace().collect(),
        None => return Process::default(),
    };
    // Field 3 of the manual page is the first here.
    let number = |field: usize| {
        fields
            .get(field - 3)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Process {
        cpu_seconds: (number(14) + number(15)) as f64 / units.ticks,
        threads: number(20),
        start_unix_seconds: units.boot + number(22) as f64 / units.ticks,
        virtual_bytes: number(23),
        resident_bytes: number(24) * units.page,
        ..Process::default()
    }
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn boot_unix_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0.0)
}

/// What a thread of this process spent on a CPU, in seconds; none: there is no such thread, or the kernel does not say.
pub fn thread_cpu_seconds(thread: u64) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    let nanos: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanos as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_with_a_nasty_name_is_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 9 8 7 6 150 50 3 2 20 0 5 0 1000 123456 77 1844";
        let units = Units {
            ticks: 100.0,
            page: 4096,
            boot: 1e9,
        };
        let process = of_stat(stat, units);
        assert_eq!(process.cpu_seconds, 2.0);
        assert_eq!(process.threads, 5);
        assert_eq!(process.start_unix_seconds, 1e9 + 10.0);
        assert_eq!(
            (process.virtual_bytes, process.resident_bytes),
            (123_456, 77 * 4096)
        );
        assert_eq!(of_stat("", units), Process::default());
    }

    #[test]
    fn this_process_is_known() {
        let process = Process::now();
        assert!(process.resident_bytes > 1 << 20 && process.threads > 0 && process.open_fds > 2);
        assert!(process.max_fds.is_some_and(|max| max > 8));
        assert!(thread_cpu_seconds(sys::thread_id()).is_some());
        assert_eq!(thread_cpu_seconds(0), None);
    }
}

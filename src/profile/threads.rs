//! `/debug/pprof/threads`: every thread as the kernel sees it.

use std::fmt::Write;
use std::fs;

/// A line a thread: id, name, state, time on a CPU, CPU, and how often it waited and was interrupted.
pub fn table() -> String {
    let mut out =
        String::from("tid      name             state  cpu_seconds  cpu  waits      interruptions\n");
    let mut threads: Vec<u64> = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    threads.sort_unstable();
    for thread in threads {
        // One that has ended meanwhile is left out.
        let _ = line(&mut out, thread);
    }
    out
}

fn line(out: &mut String, thread: u64) -> Option<()> {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/task/{thread}/{name}")).ok();
    let (stat, status, schedstat) = (read("stat")?, read("status")?, read("schedstat")?);
    let name = read("comm")?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let nanos: u64 = schedstat.split(' ').next()?.parse().ok()?;
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map_or("", str::trim)
    };
    // Writing to a `String` cannot fail.
    let _ = writeln!(
        out,
        "{thread:<8} {:<16} {:<6} {:>11.3}  {:>3}  {:<9}  {}",
        name.trim(),
        fields.first()?,
        nanos as f64 / 1e9,
        // Field 39 of proc(5)'s stat; the first here is field 3.
        fields.get(36)?,
        of("voluntary_ctxt_switches:"),
        of("nonvoluntary_ctxt_switches:"),
    );
    Some(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_thread_is_in_it() {
        let table = super::table();
        let own = crate::sys::thread_id().to_string();
        let line = table.lines().find(|line| line.starts_with(&own)).unwrap();
        assert_eq!(line.split_whitespace().count(), 7, "{line}");
    }
}

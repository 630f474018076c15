//! The few system calls that std does not offer. `unsafe` here is libc calls with plain integers, nothing else.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Sends `signal` to a process that this test started.
pub fn kill(pid: u32, signal: i32) {
    // SAFETY: kill takes two integers and touches no memory of ours.
    let result = unsafe { libc::kill(pid as libc::pid_t, signal) };
    assert_eq!(result, 0, "kill {pid}: {}", io::Error::last_os_error());
}

/// Makes the child die with the thread that starts it, and bounds its descriptors (soft and hard) if asked.
pub fn fence(command: &mut Command, nofile: Option<u64>) {
    let fence = move || {
        // SAFETY: prctl with PR_SET_PDEATHSIG takes integers only.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        if let Some(limit) = nofile {
            let limit = libc::rlimit {
                rlim_cur: limit,
                rlim_max: limit,
            };
            // SAFETY: the pointer is to a live local of the right type.
            if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only async-signal-safe calls and does not allocate.
    unsafe { command.pre_exec(fence) };
}

/// Raises this process's own descriptor limit to the hard one and returns it: load tests hold many sockets.
pub fn raise_nofile() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a live local of the right type.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live local of the right type.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    limit.rlim_max
}

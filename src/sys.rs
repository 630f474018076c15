//! The few system calls that no safe crate offers as weir needs them.
//!
//! `unsafe` here is only the calls themselves; every function checks what it hands over and turns failures into
//! `io::Error`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A borrowed view of a descriptor that monoio owns and shows only as a number.
///
/// The caller must not let the result outlive `owner`'s descriptor; the lifetime is tied to `owner` to that end.
pub fn borrow(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: `owner` holds the descriptor open for at least the returned lifetime.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Random bits of the kernel's (getrandom(2)), for hashing what strangers send.
pub fn random_secret() -> io::Result<[u64; 2]> {
    let mut secret = [0u64; 2];
    let len = size_of_val(&secret);
    // SAFETY: `secret` is writable for `len` bytes, and any bits are a value of it.
    let got = unsafe { libc::getrandom(secret.as_mut_ptr().cast(), len, 0) };
    if got == len as isize {
        Ok(secret)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A non-blocking, close-on-exec eventfd with count 0.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a new descriptor that nobody else owns.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: see above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets `bind` to an address leave the choice of the port to `connect` (`IP_BIND_ADDRESS_NO_PORT`, ip(7)), so that one
/// source address serves as many connections as there are ports *per destination*.
pub fn set_bind_address_no_port(fd: RawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` lives across the call and its size is given.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Raises the soft limit of open files to the hard limit and says what is in force.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for one rlimit.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        let before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } < 0 {
            limit.rlim_cur = before;
        }
    }
    Ok(limit.rlim_cur)
}

/// Whether nothing is to be read from a connection that must be silent: no byte, no end, no error.
pub fn is_quiet(fd: RawFd) -> bool {
    peek(fd).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether at least one byte waits to be read.
pub fn has_bytes(fd: RawFd) -> bool {
    peek(fd).is_ok_and(|count| count > 0)
}

/// Whether a connection is broken in both directions: reset, or closed by both sides. One poll(2) that does not wait.
pub fn is_hung_up(fd: &BorrowedFd<'_>) -> bool {
    let mut asked = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one entry is given and `asked` lives across the call.
    let ready = unsafe { libc::poll(&raw mut asked, 1, 0) };
    ready > 0 && asked.revents & (libc::POLLERR | libc::POLLHUP) != 0
}

/// One `recv(MSG_PEEK | MSG_DONTWAIT)` of one byte: `Ok(0)` is the end.
fn peek(fd: RawFd) -> io::Result<usize> {
    let mut byte = 0u8;
    // SAFETY: one byte of room is given and `byte` lives across the call.
    let result = unsafe { libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Bytes of a page of memory.
pub fn page_bytes() -> u64 {
    sysconf(libc::_SC_PAGESIZE)
}

/// Of a clock of `times(2)`, in which /proc counts CPU time: ticks a second.
pub fn clock_ticks() -> u64 {
    sysconf(libc::_SC_CLK_TCK)
}

/// One of the system's constants; 0: it has none.
fn sysconf(name: libc::c_int) -> u64 {
    // SAFETY: sysconf takes no pointers.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0)
}

/// Bytes of memory that this process may use: the cgroup's limit, or the machine's RAM if that is less.
pub fn usable_memory() -> u64 {
    let ram = sysconf(libc::_SC_PHYS_PAGES).saturating_mul(page_bytes());
    cgroup_memory_limit().map_or(ram, |limit| limit.min(ram))
}

/// The least of the memory limits on the way from this process's cgroup (version 2) to the root.
fn cgroup_memory_limit() -> Option<u64> {
    let membership = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = std::path::Path::new("/sys/fs/cgroup");
    let own = root.join(own);
    own.ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| {
            std::fs::read_to_string(folder.join("memory.max"))
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .min()
}

/// Milliseconds of `CLOCK_MONOTONIC_COARSE`: read without a system call, up to one timer tick old.
pub fn coarse_millis() -> u64 {
    let time = clock(libc::CLOCK_MONOTONIC_COARSE);
    (time.tv_sec as u64) * 1000 + (time.tv_nsec as u64) / 1_000_000
}

/// Milliseconds of `CLOCK_REALTIME_COARSE` since 1970, as [`coarse_millis`].
pub fn coarse_unix_millis() -> u64 {
    let time = clock(libc::CLOCK_REALTIME_COARSE);
    (time.tv_sec as u64) * 1000 + (time.tv_nsec as u64) / 1_000_000
}

/// The kernel's id of the calling thread (gettid(2)).
pub fn thread_id() -> u64 {
    // SAFETY: gettid takes nothing and gives a plain integer.
    unsafe { libc::gettid() }.unsigned_abs().into()
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline]
pub fn monotonic_nanos() -> u64 {
    let time = clock(libc::CLOCK_MONOTONIC);
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}

/// One of the clocks that exist on every Linux.
#[inline]
fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for one timespec; with a clock that exists the call cannot fail.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time
}

/// Keeps this process's memory in small pages (`PR_SET_THP_DISABLE`, prctl(2)): a huge page for every 2 MiB that a few
/// connections touch would make an idle weir look, and be, several times its size.
pub fn disable_huge_pages() {
    // SAFETY: this prctl takes no pointers. A kernel that does not know it changes nothing.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Lets the kernel kill what `command` starts when the thread that starts it ends (`PR_SET_PDEATHSIG`, prctl(2)), so that
/// nothing is left running whatever becomes of this process.
pub fn end_with_this_thread(command: &mut Command) {
    // SAFETY: getpid takes and gives plain integers.
    let parent = unsafe { libc::getpid() };
    let fence = move || {
        // SAFETY: prctl with PR_SET_PDEATHSIG and getppid take and give plain integers.
        let (set, now) = unsafe {
            (
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0),
                libc::getppid(),
            )
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        if now == parent {
            Ok(())
        } else {
            // The parent died before the kernel knew.
            Err(io::ErrorKind::NotFound.into())
        }
    };
    // SAFETY: between fork and exec the closure makes two async-signal-safe calls; it allocates nothing, and its errors
    // hold no memory.
    unsafe { command.pre_exec(fence) };
}

/// Sends SIGTERM to a child that has not been waited for; one that has ended already is no error.
pub fn terminate(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    if let Ok(pid) = libc::pid_t::try_from(child.id()) {
        // SAFETY: kill takes plain integers. The child was not reaped, so the pid is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

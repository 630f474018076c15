"""Counts system calls by name, by tracepoints (`perf stat`), or by `strace` where tracepoints are closed to us."""

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

from lib.processes import Failure

GRACE_SECONDS = 15.0
STRACE_ATTACH_SECONDS = 0.5
# Those that a proxy may make, to be told apart; every further tracepoint takes long to open and close. What is none of
# these is in the total all the same, and shown as UNNAMED.
NAMED = (
    "io_uring_enter io_uring_register futex futex_wait futex_wake futex_waitv "
    "read write readv writev recvfrom recvmsg sendto sendmsg sendfile64 splice "
    "epoll_wait epoll_pwait epoll_ctl poll eventfd2 socket connect accept accept4 bind close shutdown "
    "setsockopt getsockopt getsockname getpeername fcntl ioctl "
    "clock_gettime timerfd_settime sched_yield madvise mmap munmap brk getrandom"
).split()
UNNAMED = "unnamed"
_TOTAL = "raw_syscalls:sys_enter"
_PREFIX = "syscalls:sys_enter_"


def count(pids, work):
    """Runs `work()` while the calls of all threads of `pids` are counted; returns its result and name -> calls."""
    if _perf_works(_TOTAL):
        return _count_by_perf(pids, work)
    if shutil.which("strace"):
        return _count_by_strace(pids, work)
    raise Failure("system calls cannot be counted: install the package linux-perf or strace")


def _perf_works(event):
    """Whether perf is here and may count this tracepoint."""
    if not shutil.which("perf"):
        return False
    probe = ["perf", "stat", "-x,", "-e", event, "--", "true"]
    done = subprocess.run(probe, capture_output=True, timeout=GRACE_SECONDS, check=False)
    return done.returncode == 0 and b"not supported" not in done.stderr


def _events():
    """The tracepoints to count by: the total, and those of NAMED that this kernel has."""
    listed = subprocess.run(
        ["perf", "list", _PREFIX + "*"], capture_output=True, text=True, timeout=GRACE_SECONDS, check=False
    )
    known = set(listed.stdout.split())
    return [_TOTAL, *(_PREFIX + name for name in NAMED if _PREFIX + name in known)]


def _count_by_perf(pids, work):
    # Counting starts when perf says that it does: it opens its counters one by one, for each thread.
    control, tell = os.pipe()
    hear, acknowledge = os.pipe()
    try:
        command = ["perf", "stat", "-x,", "-D", "-1", "--control", f"fd:{control},{acknowledge}"]
        command += [word for event in _events() for word in ("-e", event)]

        def enabled(_tracer):
            os.write(tell, b"enable\n")
            return bool(select.select([hear], [], [], GRACE_SECONDS)[0])

        result, lines = _traced(command, pids, work, enabled, pass_fds=(control, acknowledge))
    finally:
        for descriptor in (control, tell, hear, acknowledge):
            os.close(descriptor)
    return result, from_perf(lines)


def _count_by_strace(pids, work):
    def attached(tracer):
        # strace does not say when; nothing is asked of the target before.
        time.sleep(STRACE_ATTACH_SECONDS)
        return tracer.poll() is None

    result, lines = _traced(["strace", "-f", "-c"], pids, work, attached)
    return result, from_strace(lines)


def _traced(command, pids, work, ready, **options):
    """Runs `command` on `pids` until `work()` is done; returns its result and the lines that the command wrote."""
    with tempfile.NamedTemporaryFile("r", prefix="weir-perf-") as output:
        command = [*command, "-o", output.name]
        tracer = subprocess.Popen(
            [*command, *_chosen(command[0], pids)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )
        try:
            if not ready(tracer):
                raise Failure(f"{command[0]} could not attach: is tracing allowed to this user?")
            result = work()
            tracer.send_signal(signal.SIGINT)
            tracer.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{command[0]} did not end within {GRACE_SECONDS:.0f} s") from error
        finally:
            if tracer.poll() is None:
                tracer.kill()
                tracer.wait()
        return result, output.read().splitlines()


def _chosen(tool, pids):
    """The processes in the tool's own words."""
    if tool == "perf":
        return ["-p", ",".join(str(pid) for pid in pids)]
    return [word for pid in pids for word in ("-p", str(pid))]


def from_perf(lines):
    """name -> calls in what `perf stat -x,` wrote."""
    found = {}
    for line in lines:
        fields = line.split(",")
        if len(fields) > 2 and fields[0].isdigit():
            found[fields[2]] = int(fields[0])
    total = found.pop(_TOTAL, 0)
    calls = {event.removeprefix(_PREFIX): count for event, count in found.items() if count}
    unnamed = total - sum(calls.values())
    return calls | ({UNNAMED: unnamed} if unnamed > 0 else {})


def from_strace(lines):
    """name -> calls in what `strace -c` wrote."""
    calls = {}
    for line in lines:
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return calls

"""Counts system calls by name, by tracepoints (`perf stat`), or by `strace` where tracepoints are closed to us."""

import shutil
import subprocess
import tempfile
import time

from lib.processes import Failure

GRACE_SECONDS = 15.0


def method():
    """Which tool counts here: "perf" or "strace"; None if neither can."""
    if shutil.which("perf"):
        probe = ["perf", "stat", "-x,", "-e", "syscalls:sys_enter_futex", "--", "true"]
        done = subprocess.run(probe, capture_output=True, timeout=GRACE_SECONDS, check=False)
        if done.returncode == 0 and b"not supported" not in done.stderr:
            return "perf"
    return "strace" if shutil.which("strace") else None


def count(pids, work):
    """Runs `work()` while the calls of all threads of `pids` are counted; returns its result and name -> calls."""
    how = method()
    if how is None:
        raise Failure("system calls cannot be counted: install the package linux-perf or strace")
    with tempfile.NamedTemporaryFile("r", prefix="weir-perf-") as output:
        listed = ",".join(str(pid) for pid in pids)
        if how == "perf":
            command = ["perf", "stat", "-x,", "-o", output.name, "-e", "syscalls:sys_enter_*", "-p", listed]
        else:
            command = ["strace", "-f", "-c", "-o", output.name, *(word for pid in pids for word in ("-p", str(pid)))]
        tracer = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            # Neither tool says when it has attached; calls before that are missed in both counts alike, being idle ones.
            time.sleep(0.5)
            if tracer.poll() is not None:
                raise Failure(f"{' '.join(command)} ended at once: is tracing allowed to this user?")
            result = work()
            tracer.send_signal(2)
            tracer.wait(GRACE_SECONDS)
        finally:
            if tracer.poll() is None:
                tracer.kill()
                tracer.wait()
        lines = output.read().splitlines()
    return result, (from_perf(lines) if how == "perf" else from_strace(lines))


def from_perf(lines):
    """name -> calls in what `perf stat -x,` wrote."""
    calls = {}
    for line in lines:
        fields = line.split(",")
        if len(fields) > 2 and fields[0].isdigit() and fields[0] != "0":
            calls[fields[2].removeprefix("syscalls:sys_enter_")] = int(fields[0])
    return calls


def from_strace(lines):
    """name -> calls in what `strace -c` wrote."""
    calls = {}
    for line in lines:
        fields = line.split()
        if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return calls

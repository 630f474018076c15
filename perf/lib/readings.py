"""What the kernel says about a process tree: CPU time, memory, socket memory, system calls."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path


def tree(pid):
    """`pid` and all processes below it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat_fields(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found


def _stat_fields(pid):
    """The fields of /proc/PID/stat from the third (state) on; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


@dataclass(frozen=True)
class CpuTime:
    """CPU time used up to a moment. `threads_ns` is exact; the ticks (1/100 s) only tell how it divides."""

    threads_ns: dict
    user_ticks: int
    system_ticks: int


def cpu_time(pids):
    """CPU time of every thread of `pids` up to now."""
    threads_ns, user, system = {}, 0, 0
    for pid in pids:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                text = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text()
                threads_ns[int(thread)] = int(text.split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields := _stat_fields(pid):
            user += int(fields[11])
            system += int(fields[12])
    return CpuTime(threads_ns, user, system)


def cpu_between(before, after):
    """Nanoseconds used between two readings, and the user space's share of them (None if too short to tell)."""
    used = sum(ns - before.threads_ns.get(thread, 0) for thread, ns in after.threads_ns.items())
    user = after.user_ticks - before.user_ticks
    ticks = user + after.system_ticks - before.system_ticks
    return used, (user / ticks if ticks else None)


def rss_bytes(pids):
    """Resident memory of the processes added up (what they share counts once each)."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pages * os.sysconf("SC_PAGESIZE")


def socket_bytes(listen_port, backend_ports):
    """Kernel memory of the proxy's own TCP sockets: what is queued and reserved, both sides. None without `ss`."""
    ends = [f"sport = :{listen_port}"] + [f"dport = :{port}" for port in backend_ports]
    try:
        output = subprocess.run(
            ["ss", "-tmnOH", " or ".join(ends)], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    total = 0
    for memory in re.findall(r"skmem:\(([^)]*)\)", output):
        fields = dict(re.findall(r"([a-z]+)(\d+)", memory))
        # r: received and unread; w: queued to send; f: reserved for the socket, free; bl: backlog.
        total += sum(int(fields.get(name, 0)) for name in ("r", "w", "f", "bl"))
    return total


def machine_tcp_bytes():
    """Kernel memory of all TCP sockets of this machine, peers and load generator included."""
    match = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return int(match.group(1)) * os.sysconf("SC_PAGESIZE")


def passive_opens():
    """TCP connections that this machine accepted since it started."""
    names, values = re.findall(r"^Tcp: (.*)$", Path("/proc/net/snmp").read_text(), re.MULTILINE)[:2]
    return int(dict(zip(names.split(), values.split()))["PassiveOpens"])

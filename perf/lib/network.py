"""A network of the comparison's own: loopback alone, with Linux's default congestion control.

Machines whose default is bbr pace what they send, on loopback too, by a timer for every few packets; its cost lands on
whoever sends and covers what is compared (for 1 MiB answers it doubles what any proxy costs). A namespace lets the
comparison choose without changing the machine."""

import ctypes
import os
import subprocess
from pathlib import Path

CLONE_NEWNET = 0x40000000
SETTING = Path("/proc/sys/net/ipv4/tcp_congestion_control")


def enter(congestion):
    """Moves this process, and what it starts from now on, to a network namespace with that congestion control.

    "host", or a process that may not, stays where it is; what is in force is in the record."""
    if congestion != "host" and os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET) == 0:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
            try:
                SETTING.write_text(congestion)
            except PermissionError:
                print(f"note: this process may not choose {congestion}; {SETTING.read_text().strip()} stays", flush=True)


def congestion():
    """The congestion control in force."""
    return SETTING.read_text().strip()

"""What was measured on, and what of."""

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from lib.targets import ROOT


def machine():
    """Processor, cores, memory and kernel, each as a line."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory_kb = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1))
    return {
        "processor": model.group(1) if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{memory_kb / 1024 / 1024:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def now():
    """The moment, in UTC, to the minute."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def commit():
    """The commit of the tree, marked where the sources differ from it; "unknown" outside of git."""

    def git(*words):
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        name = git("rev-parse", "--short", "HEAD")
    except OSError:
        name = None
    if name is None:
        return "unknown"
    return name + (" with changes" if git("status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock") else "")

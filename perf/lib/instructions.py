"""Counts what a program executes for some exchanges, by valgrind's callgrind."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from lib import load
from lib.processes import Failure, check_alive, need
from lib.scenarios import SCENARIOS
from lib.targets import Request

# valgrind cannot follow io_uring.
EPOLL = ("runtime.driver=epoll",)
PATH = "/small"
# valgrind translates the program first, and runs it some fifty times slower.
START_SECONDS = 120.0
END_SECONDS = 120.0


def instructions(bench, target, backends, exchanges, keep, name=None):
    """Instructions that `target` executed from start to end, serving this many exchanges; `name` is unique in `bench`."""
    files = bench.directory / f"callgrind-{name or exchanges}"
    files.mkdir()
    wrapper = [need("valgrind", "valgrind"), "--tool=callgrind", f"--callgrind-out-file={files}/callgrind.out.%p"]
    core = min(os.sched_getaffinity(0))
    request = Request(SCENARIOS["keepalive-64"], load.get(backends[0], PATH), backends, core)
    process, port = target.start(bench, request, wrapper=wrapper, seconds=START_SECONDS)
    with load.Client(port) as client:
        for _ in range(exchanges):
            client.ask(PATH)
            client.answer()
    check_alive(process)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{target.name} did not end within {END_SECONDS:.0f} s of SIGTERM") from error
    bench.stop(process)
    if keep:
        shutil.copytree(files, Path(keep) / files.name, dirs_exist_ok=True)
    return sum(_total(file) for file in files.iterdir())


def _total(file):
    """The instructions in one of callgrind's files."""
    match = re.search(r"^(?:totals|summary): (\d+)", file.read_text(errors="replace"), re.MULTILINE)
    if match is None:
        raise Failure(f"callgrind's file {file} has no total")
    return int(match.group(1))

"""The processes and the directory of one measurement: everything started here is ended here, whatever happens."""

import ctypes
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

STOP_SECONDS = 5.0
START_SECONDS = 10.0
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


class Failure(Exception):
    """Something that the person at the terminal has to know, in words for them."""


class TimeUp(Exception):
    """The time bound of the whole run is over. Not a Failure: nobody may carry on after it."""


def need(tool, package):
    """The path of `tool`, or a Failure that names the package to install."""
    path = shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Failure(f"{tool} is not installed: install the package {package} (Debian: apt-get install {package})")
    return path


def raise_descriptor_limit():
    """Sets the soft descriptor limit to the hard one, for this process and those it starts; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def bound_run_time(seconds):
    """Ends the run by TimeUp after `seconds`, and turns SIGTERM into the same orderly end as Ctrl-C."""

    def on_alarm(_signal, _frame):
        raise TimeUp(f"the run took longer than its bound of {seconds:.0f} s and was ended")

    def on_terminate(_signal, _frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGTERM, on_terminate)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def free_ports(count):
    """`count` different free ports of 127.0.0.1, chosen by the kernel."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held_socket.getsockname()[1] for held_socket in held]
    for held_socket in held:
        held_socket.close()
    return ports


def render(template, values):
    """The text of the file `template` with each @NAME@ replaced."""
    text = Path(template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


class Bench:
    """A temporary directory and the processes that work in it. Use as a context manager."""

    def __init__(self):
        memory = "/dev/shm"
        parent = memory if os.access(memory, os.W_OK) else None
        self._directory = tempfile.TemporaryDirectory(prefix="weir-perf-", dir=parent)
        self.directory = Path(self._directory.name)
        self._running = []
        self._started = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second Ctrl-C (or the time bound) must not leave processes behind: it is heeded after this.
        held_back = {signal.SIGINT, signal.SIGTERM, signal.SIGALRM}
        signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
        try:
            for process in reversed(self._running):
                _end(process)
            self._running.clear()
            self._directory.cleanup()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, held_back)

    def start(self, name, argv, core, **options):
        """Starts `argv` pinned to `core`, in a process group of its own; its output goes to a file of the bench."""
        self._started += 1
        log = self.directory / f"{self._started}-{name}.log"

        def prepare():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            os.sched_setaffinity(0, {core})

        with open(log, "wb") as output:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=options.pop("stdout", output),
                stderr=output,
                start_new_session=True,
                preexec_fn=prepare,
                **options,
            )
        process.name, process.log = name, log
        self._running.append(process)
        return process

    def stop(self, process):
        """Ends a process of this bench and everything in its group."""
        _end(process)
        self._running.remove(process)


def _end(process):
    for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        if process.poll() is not None:
            break
        os.killpg(process.pid, sign)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    try:
        # What the leader left behind in its group.
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def check_alive(process):
    """Raises a Failure with the end of the process's output if it has ended."""
    if process.poll() is not None:
        tail = "\n".join(process.log.read_text(errors="replace").splitlines()[-15:])
        raise Failure(f"{process.name} ended with {process.returncode}:\n{tail}")


def wait_until(ready, process, what, seconds=START_SECONDS):
    """Waits for `ready()` to give something true and returns it; the process has to live meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check_alive(process)
        if result := ready():
            return result
        time.sleep(0.01)
    raise Failure(f"{process.name}: no {what} within {seconds:.0f} s")


def accepts(port):
    """Whether something accepts connections on this port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True

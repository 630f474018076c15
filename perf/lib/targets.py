"""What is measured: weir and its peers. A new peer is a class here and a line in `all_targets`."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lib import processes
from lib.processes import Failure

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "perf" / "peers"
DEFAULT_WEIR = ROOT / "target" / "release" / "weir"
# Programs of perf/peers are built in weir's target directory, apart from its own artifacts.
PEER_TARGET_DIRECTORY = ROOT / "target" / "peers"
BUILD_SECONDS = 1800
LARGE_BODY_BYTES = 256 * 1024

LOAD = "load"
CLOSE = "close"
IDLE = "idle"
BUSY = "busy"
SLOW = "slow"
SYSCALLS = "syscalls"
EVERY_KIND = frozenset({LOAD, CLOSE, IDLE, BUSY, SLOW, SYSCALLS})


@dataclass(frozen=True)
class Request:
    """What a measurement asks of a target: the scenario, its whole answer's length, backends' ports, and the core."""

    scenario: object
    answer_bytes: int
    backends: tuple
    core: int


class Target:
    """A proxy under measurement."""

    name = ""
    # What kinds of scenario it can serve.
    kinds = EVERY_KIND
    # Whether `start` takes `wrapper`, the words of a command (valgrind and its flags) to run the program under, and
    # `seconds`, how long it may then take to serve.
    wraps = False

    def takes_part(self, scenario):
        """Whether it is measured in this scenario."""
        return scenario.kind in self.kinds

    def prepare(self):
        """Finds (or builds) the program; a Failure says what is missing."""

    def version(self):
        """One line."""

    def start(self, bench, request):
        """Starts it; returns the process and its port once it serves."""


def _first_line(argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def _places(bench, request):
    """The values for the templates in perf/peers; the port is free now."""
    values = {f"BACKEND_{number}": port for number, port in enumerate(request.backends, start=1)}
    values |= {
        "PORT": processes.free_ports(1)[0],
        "CORE": request.core,
        "DIRECTORY": bench.directory,
        "DESCRIPTORS": processes.raise_descriptor_limit(),
    }
    return values


def _started(process, port):
    processes.wait_until(lambda: processes.accepts(port), process, f"listener on port {port}")
    return process, port


def cargo_build(directory, *arguments):
    """`cargo build --release --locked` in `directory`, with its output on the terminal."""
    print(f"building {directory.relative_to(ROOT.parent)} …", flush=True)
    command = ["cargo", "build", "--release", "--locked", *arguments]
    try:
        subprocess.run(command, cwd=directory, check=True, timeout=BUILD_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise Failure(f"cannot build {directory}: {error}") from error


class Weir(Target):
    """weir itself, with perf/peers/weir.toml: its defaults."""

    name = "weir"
    wraps = True

    def __init__(self, path=None, settings=(), name="weir"):
        """`settings` are `section.key=value` for `--set`, on top of the configuration, with `{DIRECTORY}` for the run's own
        directory; `name` tells variants apart."""
        self.name = name
        self._path = Path(path).resolve() if path else DEFAULT_WEIR
        self._settings = settings

    def prepare(self):
        if self._path == DEFAULT_WEIR and not self._path.exists():
            cargo_build(ROOT)
        if not self._path.exists():
            raise Failure(f"there is no weir at {self._path}")
        newest = max((source.stat().st_mtime for source in (ROOT / "src").rglob("*.rs")), default=0)
        if self._path == DEFAULT_WEIR and self._path.stat().st_mtime < newest:
            print("note: target/release/weir is older than src/; `cargo build --release` first", flush=True)

    def version(self):
        return _first_line([self._path, "--version"])

    def command(self, bench, request):
        """The command line, and the file that will say where it listens."""
        config = bench.directory / "weir.toml"
        config.write_text(processes.render(PEERS / "weir.toml", _places(bench, request)))
        ready = bench.directory / "weir-ready.json"
        ready.unlink(missing_ok=True)
        # What a run writes is not kept for the next one.
        (bench.directory / "access.log").unlink(missing_ok=True)
        places = [setting.replace("{DIRECTORY}", str(bench.directory)) for setting in self._settings]
        settings = [word for setting in places for word in ("--set", setting)]
        return [self._path, "run", "--config", config, "--ready-file", ready, *settings], ready

    def start(self, bench, request, wrapper=(), seconds=processes.START_SECONDS):
        command, ready = self.command(bench, request)
        process = bench.start(self.name, [*wrapper, *command], request.core)

        def listeners():
            try:
                return json.loads(ready.read_text())["listeners"]
            except (FileNotFoundError, json.JSONDecodeError):
                return None

        address = processes.wait_until(listeners, process, "ready file", seconds)[0]
        return process, int(address.rpartition(":")[2])


class HAProxy(Target):
    """Debian's HAProxy."""

    name = "haproxy"
    wraps = True
    # A line of its `defaults` section on top of the template.
    option = ""

    def prepare(self):
        self._path = processes.need("haproxy", "haproxy")

    def version(self):
        return _first_line([self._path, "-v"]).split(" - ")[0]

    def start(self, bench, request, wrapper=(), seconds=processes.START_SECONDS):
        values = _places(bench, request) | {"OPTION": self.option}
        config = bench.directory / "haproxy.cfg"
        config.write_text(processes.render(PEERS / "haproxy.cfg", values))
        command = [*wrapper, self._path, "-db", "-q", "-f", config]
        return _started(bench.start(self.name, command, request.core), values["PORT"])


class HAProxySplice(HAProxy):
    """HAProxy with answers spliced in the kernel, which some turn on for large bodies; no bar is tied to it."""

    name = "haproxy-splice"
    wraps = False
    option = "option splice-response"

    def takes_part(self, scenario):
        return scenario.kind == LOAD and scenario.body_bytes >= LARGE_BODY_BYTES


class Nginx(Target):
    """Debian's nginx."""

    name = "nginx"

    def prepare(self):
        self._path = processes.need("nginx", "nginx")

    def version(self):
        return _first_line([self._path, "-v"]).removeprefix("nginx version: ")

    def start(self, bench, request):
        values = _places(bench, request)
        config = bench.directory / "nginx.conf"
        config.write_text(processes.render(PEERS / "nginx.conf", values))
        command = [self._path, "-c", config, "-e", "stderr", "-p", bench.directory]
        return _started(bench.start(self.name, command, request.core), values["PORT"])


class _Yardstick(Target):
    """A program of perf/peers: built from source, never a product."""

    kinds = frozenset({LOAD})

    def prepare(self):
        self._path = PEER_TARGET_DIRECTORY / "release" / self.name
        if not self._path.exists():
            cargo_build(PEERS / self.name, "--target-dir", str(PEER_TARGET_DIRECTORY))

    def version(self):
        manifest = (PEERS / self.name / "Cargo.lock").read_text()
        return "monoio " + re.search(r'name = "monoio"\nversion = "([^"]+)"', manifest).group(1)

    def start(self, bench, request):
        (port,) = processes.free_ports(1)
        command = [self._path, port, *self.arguments(request), *request.backends]
        return _started(bench.start(self.name, command, request.core), port)

    def arguments(self, request):
        """What stands between the port and the backends' ports."""
        raise NotImplementedError


class Relay(_Yardstick):
    """The byte relay: the floor. Its buffer suits the answer, as weir's does."""

    name = "relay"
    kinds = frozenset({LOAD, SYSCALLS})

    def arguments(self, request):
        large = request.answer_bytes >= LARGE_BODY_BYTES
        return [request.answer_bytes, (256 if large else 16) * 1024]


class Prototype(_Yardstick):
    """The minimal proxy. It has no idle state: a waiting connection holds its buffer."""

    name = "prototype"
    kinds = frozenset({LOAD, SYSCALLS, IDLE, BUSY})

    def arguments(self, _request):
        return ["defer"]


def all_targets(weir_path=None):
    """name -> target, in the order of the tables."""
    targets = (Weir(weir_path), HAProxy(), HAProxySplice(), Nginx(), Prototype(), Relay())
    return {target.name: target for target in targets}

"""The other side of a proxy: the backends, the load generator, and clients that are idle or slow."""

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

from lib import processes
from lib.processes import Failure
from lib.scenarios import FILES, SMALL_BYTES
from lib.targets import PEERS

BACKENDS = 3
REPORT = Path(__file__).with_name("wrk_report.lua")
CLIENT_SECONDS = 10.0
# What wrk may take beyond its window: to connect, and to print.
WRK_GRACE_SECONDS = 15.0


def start_backends(bench, core):
    """Starts the one nginx that is all three backends; returns their ports."""
    nginx = processes.need("nginx", "nginx")
    files = bench.directory / "files"
    files.mkdir()
    for name, size in FILES.items():
        with open(files / name, "wb") as file:
            file.truncate(size)
    ports = tuple(processes.free_ports(BACKENDS))
    values = {f"BACKEND_{number}": port for number, port in enumerate(ports, start=1)}
    values |= {
        "DIRECTORY": bench.directory,
        "DESCRIPTORS": processes.raise_descriptor_limit(),
        "SMALL_BODY": ("weir " * SMALL_BYTES)[:SMALL_BYTES],
    }
    config = bench.directory / "backends.conf"
    config.write_text(processes.render(PEERS / "backends.conf", values))
    process = bench.start("backends", [nginx, "-c", config, "-e", "stderr", "-p", bench.directory], core)
    for port in ports:
        processes.wait_until(lambda port=port: processes.accepts(port), process, f"backend on port {port}")
    return ports


class Client:
    """One plain HTTP/1.1 client connection."""

    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=CLIENT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._socket.close()

    def ask(self, path, headers=""):
        """Sends one GET and reads nothing."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: weir.test\r\n{headers}\r\n".encode())

    def answer(self):
        """Reads one answer framed by Content-Length: its head, and the length of the whole. Failure if it is not 200."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, _ = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(":", 1) for line in lines[1:])
        if not lines[0].startswith("http/1.1 200") or "content-length" not in headers:
            raise Failure(f"not the expected answer: {head.decode('latin-1')}")
        whole = len(head) + 4 + int(headers["content-length"])
        count = len(received)
        while count < whole:
            count += len(self._receive())
        return headers, whole

    def _receive(self):
        received = self._socket.recv(256 * 1024)
        if not received:
            raise Failure("the connection was closed in the middle of an answer")
        return received

    def at_end(self):
        """Whether the other side closes the connection, with nothing more to say."""
        try:
            return self._socket.recv(1) == b""
        except (TimeoutError, ConnectionResetError):
            return False


def get(port, path):
    """One GET on a connection of its own; the length of the whole answer, head included."""
    with Client(port) as client:
        client.ask(path)
        return client.answer()[1]


def check_closes(port, path):
    """Failure unless `Connection: close` is obeyed: what wrk needs to see in order to reconnect."""
    with Client(port) as client:
        client.ask(path, "Connection: close\r\n")
        headers, _ = client.answer()
        if headers.get("connection", "").strip() != "close" or not client.at_end():
            raise Failure("the target does not close after `Connection: close`")


def wrk(bench, core, port, scenario, seconds, headers=(), meanwhile=lambda: None):
    """Runs wrk for `seconds` (a fraction is cut by SIGINT, which wrk takes as its end); returns what it counted.
    `meanwhile` is called four times a second while it runs."""
    command = [processes.need("wrk", "wrk"), "-t1", f"-c{scenario.connections}", f"-d{int(seconds + 1)}s"]
    command += ["-s", REPORT, *(word for header in headers for word in ("-H", header))]
    command.append(f"http://127.0.0.1:{port}{scenario.path}")
    process = bench.start("wrk", command, core, stdout=subprocess.PIPE)
    start = time.monotonic()
    while process.poll() is None and (left := start + seconds - time.monotonic()) > 0:
        meanwhile()
        time.sleep(min(left, 0.25))
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=WRK_GRACE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"wrk did not end {WRK_GRACE_SECONDS:.0f} s after its window") from error
    bench.stop(process)
    for line in output.decode().splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise Failure(f"wrk reported nothing: {output.decode()}{process.log.read_text()}")


def failures_of(counted):
    """Failed requests and connections in what wrk counted."""
    return sum(counted[kind] for kind in ("connect", "read", "write", "status", "timeout"))

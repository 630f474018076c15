"""Runs one scenario against one target once, and says what it cost."""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass

from lib import load, readings, syscalls
from lib.processes import Failure, check_alive
from lib.targets import BUSY, CLOSE, IDLE, LOAD, SLOW, SYSCALLS, Request

MB = 1_000_000
# Slow clients: how long until the proxy holds what it is going to hold.
SETTLE_STEP_SECONDS = 0.5
SETTLE_MAX_SECONDS = 6.0
SETTLE_CHANGE = 0.01
BYSTANDER_REQUESTS = 20
# Of connections that wrk's requests must have had, when each has its own: the machine's count may lag by those in flight.
RECONNECTED_SHARE = 0.98


@dataclass(frozen=True)
class Settings:
    """How long and where."""

    window: float
    warmup: float
    proxy_core: int
    load_core: int


class Run:
    """A started target in one scenario."""

    def __init__(self, bench, target, scenario, backends, settings):
        self.bench, self.scenario, self.settings, self.backends = bench, scenario, settings, backends
        answer_bytes = load.get(backends[0], scenario.path)
        request = Request(scenario, answer_bytes, backends, settings.proxy_core)
        self.process, self.port = target.start(bench, request)

    def pids(self):
        """The target's processes now."""
        return readings.tree(self.process.pid)

    def wrk(self, seconds, **options):
        """wrk in this scenario for `seconds`."""
        headers = ("Connection: close",) if self.scenario.kind == CLOSE else ()
        return load.wrk(self.bench, self.settings.load_core, self.port, self.scenario, seconds, headers, **options)

    def under_load(self):
        """CPU time and latency per request, and the largest RSS seen."""
        if self.scenario.kind == CLOSE:
            load.check_closes(self.port, self.scenario.path)
        self.wrk(self.settings.warmup)
        pids, rss = self.pids(), []
        opens, before = readings.passive_opens(), readings.cpu_time(pids)
        counted = self.wrk(self.settings.window, meanwhile=lambda: rss.append(readings.rss_bytes(pids)))
        used_ns, user_share = readings.cpu_between(before, readings.cpu_time(pids))
        opened = readings.passive_opens() - opens
        requests = counted["requests"]
        if not requests:
            raise Failure("not one request was answered")
        if self.scenario.kind == CLOSE and opened < RECONNECTED_SHARE * requests:
            raise Failure(f"{requests} requests came over {opened} connections: the client did not reconnect")
        cpu_us = used_ns / 1000 / requests
        return {
            "requests": requests,
            "failures": load.failures_of(counted),
            "cpu_us": cpu_us,
            "user_us": None if user_share is None else cpu_us * user_share,
            "system_us": None if user_share is None else cpu_us * (1 - user_share),
            "requests_per_s": requests * 1e6 / counted["duration_us"],
            "p50_us": counted["p50_us"],
            "p99_us": counted["p99_us"],
            "rss_mb": max(rss) / MB,
        }

    def system_calls(self):
        """System calls per request, by name."""
        self.wrk(self.settings.warmup)
        counted, calls = syscalls.count(self.pids(), lambda: self.wrk(self.settings.window))
        requests = counted["requests"]
        if not requests:
            raise Failure("not one request was answered")
        enters = calls.get("io_uring_enter", 0)
        return {
            "requests": requests,
            "failures": load.failures_of(counted),
            "calls": sum(calls.values()) / requests,
            "other_calls": (sum(calls.values()) - enters) / requests,
            "futex_calls": sum(count for name, count in calls.items() if name.startswith("futex")) / requests,
            "by_name": {name: calls[name] / requests for name in sorted(calls, key=calls.get, reverse=True)[:12]},
        }

    def idle(self):
        """Memory with many connections open that each had one request and wait."""
        base = readings.rss_bytes(self.pids())
        with ExitStack() as opened:
            for _ in range(self.scenario.connections):
                client = opened.enter_context(load.Client(self.port))
                client.ask(self.scenario.path)
                client.answer()
            time.sleep(SETTLE_STEP_SECONDS)
            return self.memory(base)

    def busy(self):
        """The largest memory seen under load."""
        base = readings.rss_bytes(self.pids())
        self.wrk(self.settings.warmup)
        pids, rss = self.pids(), []
        counted = self.wrk(self.settings.window, meanwhile=lambda: rss.append(readings.rss_bytes(pids)))
        found = self.memory(base, rss=max(rss))
        # The clients are gone, and what their sockets held with them.
        return found | {"failures": load.failures_of(counted), "sockets_mb": None, "held_mb": None}

    def slow(self):
        """What is held for clients that ask for large bodies and read nothing, and how somebody else fares meanwhile."""
        base, machine_before = readings.rss_bytes(self.pids()), readings.machine_tcp_bytes()
        with ExitStack() as opened:
            for _ in range(self.scenario.connections):
                opened.enter_context(load.Client(self.port)).ask(self.scenario.path)
            held, before = 0, -1
            deadline = time.monotonic() + SETTLE_MAX_SECONDS
            while abs(held - before) > SETTLE_CHANGE * held and time.monotonic() < deadline:
                time.sleep(SETTLE_STEP_SECONDS)
                before, held = held, self.held()
            found = self.memory(base)
            found["machine_tcp_mb"] = (readings.machine_tcp_bytes() - machine_before) / MB
            found["bystander_ms"] = self.bystander_ms()
        return found

    def held(self):
        """RSS and the kernel's memory of the target's own sockets, in bytes."""
        return readings.rss_bytes(self.pids()) + (readings.socket_bytes(self.port, self.backends) or 0)

    def memory(self, base, rss=None):
        """The figures of a memory scenario; `base` is RSS before the first request."""
        rss = readings.rss_bytes(self.pids()) if rss is None else rss
        sockets = readings.socket_bytes(self.port, self.backends)
        return {
            "failures": 0,
            "rss_mb": rss / MB,
            "base_rss_mb": base / MB,
            "per_connection_kb": (rss - base) / 1000 / self.scenario.connections,
            "sockets_mb": None if sockets is None else sockets / MB,
            "held_mb": None if sockets is None else (rss + sockets) / MB,
        }

    def bystander_ms(self):
        """Median time of a small request by somebody who reads; None if one of them failed."""
        times = []
        for _ in range(BYSTANDER_REQUESTS):
            start = time.monotonic()
            try:
                load.get(self.port, "/small")
            except (OSError, Failure):
                return None
            times.append((time.monotonic() - start) * 1000)
        return sorted(times)[len(times) // 2]


METHODS = {
    LOAD: Run.under_load,
    CLOSE: Run.under_load,
    SYSCALLS: Run.system_calls,
    IDLE: Run.idle,
    BUSY: Run.busy,
    SLOW: Run.slow,
}


def measure(bench, target, scenario, backends, settings):
    """Starts `target`, runs `scenario` once, ends it; returns the figures. What fails is in them, never raised, unless
    the target does not even start."""
    os.sched_setaffinity(0, {settings.load_core})
    run = Run(bench, target, scenario, backends, settings)
    try:
        answer_bytes = load.get(run.port, scenario.path)
        if answer_bytes < scenario.body_bytes:
            raise Failure(f"an answer of {answer_bytes} bytes, expected {scenario.body_bytes} and a head")
        return METHODS[scenario.kind](run)
    except (Failure, OSError) as error:
        try:
            check_alive(run.process)
        except Failure as death:
            error = death
        return {"failures": 1, "error": str(error)}
    finally:
        bench.stop(run.process)

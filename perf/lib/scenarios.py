"""The scenarios: what is asked, how often at once, and what a run of it measures."""

from dataclasses import dataclass

from lib.targets import BUSY, CLOSE, IDLE, LOAD, SLOW, SYSCALLS

SMALL_BYTES = 128
FILES = {"medium": 10 * 1024, "large": 1024 * 1024, "huge": 64 * 1024 * 1024}


@dataclass(frozen=True)
class Scenario:
    """One row of the tables. `kind` says how it is run (see measure.py) and who can take part."""

    name: str
    title: str
    kind: str
    path: str
    connections: int

    @property
    def pairs_matter(self):
        """Whether it is a question of speed, so that many interleaved pairs are needed."""
        return self.kind in (LOAD, CLOSE)

    @property
    def body_bytes(self):
        """Length of the body that `path` is answered with."""
        return FILES.get(self.path.lstrip("/"), SMALL_BYTES)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("keepalive-64", "64 connections, 128 B, keep-alive", LOAD, "/small", 64),
        Scenario("keepalive-1000", "1,000 connections, 128 B, keep-alive", LOAD, "/small", 1000),
        Scenario("large-16", "16 connections, 1 MiB", LOAD, "/large", 16),
        Scenario("medium-64", "64 connections, 10 KiB", LOAD, "/medium", 64),
        Scenario("churn-64", "`Connection: close`, 128 B, 64 at a time", CLOSE, "/small", 64),
        Scenario("syscalls-64", "system calls at 64 connections, 128 B", SYSCALLS, "/small", 64),
        Scenario("idle-10000", "10,000 idle keep-alive connections", IDLE, "/small", 10_000),
        Scenario("busy-1000", "1,000 busy connections, 128 B", BUSY, "/small", 1000),
        Scenario("slow-100", "100 clients that ask for 64 MiB and read nothing", SLOW, "/huge", 100),
    )
}

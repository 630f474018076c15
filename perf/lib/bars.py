"""The bars: what weir must reach, as a table, and the rule that judges them."""

from dataclasses import dataclass

from lib.stats import Quartiles, quartiles

# A bar is judged on the median of at least this many interleaved pairs; with fewer the verdict is provisional.
MIN_PAIRS = 9


@dataclass(frozen=True)
class Bar:
    """`metric` of the subject in `scenario` at most `limit`: divided by `peer`'s in the same round, or as it is."""

    scenario: str
    metric: str
    limit: float
    peer: str | None = None
    min_pairs: int = MIN_PAIRS

    def text(self):
        """The bar in words."""
        if self.peer:
            return f"≤ {self.limit:g} × {self.peer}"
        return f"≤ {self.limit:g} {METRIC_UNITS[self.metric]}"


# metric (a key of a run) -> what its figure is called.
METRIC_UNITS = {
    "cpu_us": "µs CPU per request",
    "user_us": "µs user-space CPU per request",
    "gap_us": "µs from one request to the next",
    "rss_mb": "MB RSS",
    "held_mb": "MB held (RSS and own sockets)",
    "other_calls": "system calls per request besides io_uring_enter",
    "futex_calls": "futex calls per request",
}

# A difference of a few per cent takes more.
VARIANT_PAIRS = 15

# Memory hardly varies from start to start: three starts are enough to judge it.
MEMORY_STARTS = 3

BARS = (
    Bar("keepalive-64", "cpu_us", 0.80, peer="haproxy"),
    Bar("keepalive-64", "cpu_us", 0.66, peer="nginx"),
    Bar("keepalive-64", "cpu_us", 1.15, peer="prototype"),
    Bar("keepalive-64", "user_us", 1.3),
    Bar("keepalive-1000", "cpu_us", 0.66, peer="haproxy"),
    Bar("large-16", "cpu_us", 0.50, peer="haproxy"),
    Bar("medium-64", "cpu_us", 0.85, peer="haproxy"),
    Bar("churn-64", "cpu_us", 1.0, peer="haproxy"),
    Bar("syscalls-64", "other_calls", 0.2, min_pairs=MEMORY_STARTS),
    # Not 0: a helper thread of the process may wake once in a while; a futex on the path is one per request or more.
    Bar("syscalls-64", "futex_calls", 0.001, min_pairs=MEMORY_STARTS),
    Bar("idle-10000", "rss_mb", 45, min_pairs=MEMORY_STARTS),
    Bar("busy-1000", "rss_mb", 60, min_pairs=MEMORY_STARTS),
    Bar("slow-100", "held_mb", 100, min_pairs=MEMORY_STARTS),
)


@dataclass(frozen=True)
class Verdict:
    """What came of a bar. `word` is PASS, NEAR (median past the bar, lower quartile not), FAIL, or — (no figures)."""

    bar: Bar
    found: Quartiles | None
    word: str
    final: bool

    @property
    def failed(self):
        return self.word == "FAIL" and self.final

    def text(self):
        """The word; in brackets if there were too few pairs to judge by."""
        return self.word if self.final or self.word == "—" else f"({self.word})"


def by_round(runs, scenario, target, metric):
    """round -> figure, of the runs without failures."""
    return {
        run["round"]: run[metric]
        for run in runs
        if run["scenario"] == scenario
        and run["target"] == target
        and not run["failures"]
        and run.get(metric) is not None
    }


def ratios(runs, scenario, metric, subject, peer):
    """Subject's figure divided by the peer's, one per round in which both are valid."""
    ours = by_round(runs, scenario, subject, metric)
    theirs = by_round(runs, scenario, peer, metric)
    return [ours[number] / theirs[number] for number in sorted(ours) if theirs.get(number)]


def _all_failed(runs, scenario, target):
    failures = [run["failures"] for run in runs if run["scenario"] == scenario and run["target"] == target]
    return bool(failures) and all(failures)


def judge(bar, runs, subject):
    """Applies the bar to runs of a scenario. Measured but never without failures is a FAIL."""
    if bar.peer:
        values = ratios(runs, bar.scenario, bar.metric, subject, bar.peer)
    else:
        values = list(by_round(runs, bar.scenario, subject, bar.metric).values())
    found = quartiles(values)
    if found is None:
        failed = any(_all_failed(runs, bar.scenario, name) for name in (subject, bar.peer))
        return Verdict(bar, None, "FAIL" if failed else "—", final=failed)
    if found.median <= bar.limit:
        word = "PASS"
    elif found.low <= bar.limit:
        word = "NEAR"
    else:
        word = "FAIL"
    return Verdict(bar, found, word, final=found.count >= bar.min_pairs)


def judge_variants(record):
    """The verdict on weir against itself: `perf/resilience` and `perf/access-log`."""
    bar = Bar(record["scenario"], "cpu_us", record["limit"], peer=record["base"], min_pairs=VARIANT_PAIRS)
    return judge(bar, record["runs"], record["subject"])


# The scenario of `perf/load-compare`: at least wrk's rate, and at most its CPU time per request.
TESTERS = "load-testers"
TESTER_BARS = (Bar(TESTERS, "gap_us", 1.0, peer="wrk"), Bar(TESTERS, "cpu_us", 1.0, peer="wrk"))


def judge_testers(record):
    """The verdicts on the load tester: `perf/load-compare`."""
    return [judge(bar, record["runs"], "weir load") for bar in TESTER_BARS]

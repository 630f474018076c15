"""Compares weir with itself under two configurations: `perf/resilience` and `perf/access-log`."""

import argparse
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from lib import load, machine, network, report
from lib.bars import VARIANT_PAIRS, judge_variants
from lib.instructions import EPOLL, instructions
from lib.measure import Settings, measure
from lib.processes import Bench, bound_run_time, need, raise_descriptor_limit
from lib.scenarios import SCENARIOS
from lib.targets import ROOT, Weir

SCENARIO = "keepalive-64"
FEW_EXCHANGES, MANY_EXCHANGES = 200, 2200
# What one run may take besides its window, and start, build and callgrind.
RUN_EXTRA_SECONDS = 30.0
START_EXTRA_SECONDS = 3600.0
# A first impression.
QUICK_PAIRS = 2
QUICK_WINDOW_SECONDS = 1.0


@dataclass(frozen=True)
class Comparison:
    """Two names with the settings that each has on top of perf/peers/weir.toml, and the most that subject ÷ base may be."""

    name: str
    title: str
    base: tuple
    subject: tuple
    limit: float
    # Called after every run.
    clean: object = lambda: None

    def variants(self):
        return self.base, self.subject


def parser(description):
    """What both programs take."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=VARIANT_PAIRS, help=f"rounds (default {VARIANT_PAIRS})")
    options.add_argument("--window", type=float, default=3.0, metavar="SECONDS", help="measured time of a run (default 3)")
    options.add_argument("--warmup", type=float, default=1.0, metavar="SECONDS", help="load before it (default 1)")
    options.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_PAIRS} rounds of {QUICK_WINDOW_SECONDS:g} s without callgrind, which judge nothing",
    )
    options.add_argument("--weir", metavar="PATH", help="the binary (default target/release/weir, built if missing)")
    options.add_argument("--proxy-core", type=int, default=0, metavar="N", help="core of the proxy (default 0)")
    options.add_argument("--load-core", type=int, default=1, metavar="N", help="core of backends and clients (default 1)")
    options.add_argument("--congestion", default="cubic", metavar="NAME", help="as in perf/compare (default cubic)")
    options.add_argument("--no-instructions", action="store_true", help="leave callgrind out")
    options.add_argument("--json", metavar="FILE", help="write all runs there")
    options.add_argument("--write", action="store_true", help="record in perf/results.json and perf/RESULTS.md")
    return options


def parse(options):
    """The command line."""
    chosen = options.parse_args()
    if chosen.quick:
        chosen.pairs, chosen.window, chosen.no_instructions = QUICK_PAIRS, QUICK_WINDOW_SECONDS, True
    if chosen.pairs < 1 or chosen.window <= 0 or chosen.warmup <= 0:
        options.error("--pairs, --window and --warmup have to be greater than 0")
    if chosen.quick and chosen.write:
        options.error("--quick judges nothing that could be recorded")
    if chosen.proxy_core == chosen.load_core:
        options.error("--proxy-core and --load-core have to differ: the proxy is measured alone on its core")
    missing = {chosen.proxy_core, chosen.load_core} - os.sched_getaffinity(0)
    if missing:
        options.error(f"this process may not use core {min(missing)}; it may use {sorted(os.sched_getaffinity(0))}")
    return chosen


def _rounds(bench, comparison, variants, backends, chosen):
    """All runs, who goes first changing from round to round."""
    settings = Settings(chosen.window, chosen.warmup, chosen.proxy_core, chosen.load_core)
    runs = []
    for number in range(chosen.pairs):
        for variant in variants if number % 2 == 0 else variants[::-1]:
            _progress(f"round {number + 1} of {chosen.pairs}, {variant.name}")
            found = measure(bench, variant, SCENARIOS[SCENARIO], backends, settings)
            runs.append({"scenario": SCENARIO, "target": variant.name, "round": number, **found})
            comparison.clean()
    _progress("")
    return runs


def _per_exchange(bench, variant, backends):
    """User-space instructions of one exchange."""
    _progress(f"instructions, {variant.name}")
    few, many = (
        instructions(bench, variant, backends, exchanges, None, name=f"{variant.name}-{exchanges}")
        for exchanges in (FEW_EXCHANGES, MANY_EXCHANGES)
    )
    _progress("")
    return round((many - few) / (MANY_EXCHANGES - FEW_EXCHANGES))


def _progress(text):
    """One line that replaces itself, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def compare(comparison, chosen):
    """Measures, prints and records; the exit code."""
    raise_descriptor_limit()
    variants = [Weir(chosen.weir, settings, name=name) for name, settings in comparison.variants()]
    need("wrk", "wrk")
    need("nginx", "nginx")
    variants[0].prepare()
    one_run = chosen.window + chosen.warmup + RUN_EXTRA_SECONDS
    bound_run_time(START_EXTRA_SECONDS + one_run * chosen.pairs * len(variants))
    network.enter(chosen.congestion)
    with Bench() as bench:
        backends = load.start_backends(bench, chosen.load_core)
        runs = _rounds(bench, comparison, variants, backends, chosen)
        counted = {}
        if not chosen.no_instructions:
            for name, settings in comparison.variants():
                on_epoll = Weir(chosen.weir, (*settings, *EPOLL), name=name)
                counted[name] = _per_exchange(bench, on_epoll, backends)
                comparison.clean()
    record = {
        "title": comparison.title,
        "scenario": SCENARIO,
        "base": comparison.base[0],
        "subject": comparison.subject[0],
        "limit": comparison.limit,
        "settings": {
            name: [setting.replace(str(ROOT), ".") for setting in settings] for name, settings in comparison.variants()
        },
        "instructions": counted,
        "date": machine.now(),
        "commit": machine.commit(),
        "congestion": network.congestion(),
        "command": shlex.join([f"perf/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "window_s": chosen.window,
        "version": variants[0].version(),
        "runs": runs,
    }
    print(report.variants_text(comparison.name, record))
    measured = report.merge({}, machine.machine(), variants={comparison.name: record})
    if chosen.json:
        report.write_json(chosen.json, measured)
    if chosen.write:
        report.save(report.merge(report.load_results(), machine.machine(), variants={comparison.name: record}))
    return 1 if judge_variants(record).failed else 0

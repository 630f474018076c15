"""Tables for the terminal and for RESULTS.md, from the same runs."""

import json
from pathlib import Path

from lib import bars
from lib.scenarios import SCENARIOS
from lib.stats import quartiles
from lib.targets import BUSY, CLOSE, IDLE, LOAD, ROOT, SLOW, SYSCALLS

RESULTS_JSON = ROOT / "perf" / "results.json"
RESULTS_MARKDOWN = ROOT / "perf" / "RESULTS.md"

SPEED_COLUMNS = (
    ("CPU µs/request", "cpu_us", 2),
    ("user µs", "user_us", 2),
    ("system µs", "system_us", 2),
    ("requests/s", "requests_per_s", 0),
    ("p50 µs", "p50_us", 0),
    ("p99 µs", "p99_us", 0),
    ("RSS MB", "rss_mb", 1),
)
MEMORY_COLUMNS = (
    ("RSS MB", "rss_mb", 1),
    ("before, MB", "base_rss_mb", 1),
    ("KB/connection", "per_connection_kb", 2),
)
SLOW_COLUMNS = (
    ("held MB", "held_mb", 1),
    ("RSS MB", "rss_mb", 1),
    ("own sockets MB", "sockets_mb", 1),
    ("all TCP of the machine MB", "machine_tcp_mb", 1),
    ("others' request ms", "bystander_ms", 2),
)
SYSCALL_COLUMNS = (
    ("calls/request", "calls", 3),
    ("without io_uring_enter", "other_calls", 3),
    ("futex", "futex_calls", 4),
)
COLUMNS = {
    LOAD: SPEED_COLUMNS,
    CLOSE: SPEED_COLUMNS,
    IDLE: MEMORY_COLUMNS,
    BUSY: MEMORY_COLUMNS,
    SLOW: SLOW_COLUMNS,
    SYSCALLS: SYSCALL_COLUMNS,
}


def table(head, rows):
    """A Markdown table, its columns lined up for the terminal."""
    widths = [max(len(str(row[column])) for row in (head, *rows)) for column in range(len(head))]

    def line(cells):
        return "| " + " | ".join(str(cell).ljust(width) for cell, width in zip(cells, widths)) + " |"

    return "\n".join([line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def figure(found, digits):
    """`median (lower quartile – upper quartile)`."""
    if found is None:
        return "—"

    def number(value):
        return f"{value:,.{digits}f}"

    if found.count == 1:
        return number(found.median)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"


def scenario_table(name, record):
    """The table of one scenario: a line for each target."""
    scenario, subject, runs = SCENARIOS[name], record["subject"], record["runs"]
    columns = COLUMNS[scenario.kind]
    compared = scenario.kind in (LOAD, CLOSE)
    head = ["", *(title for title, _, _ in columns)]
    if compared:
        head.append(f"{subject}'s CPU ÷ its")
    head.append("valid runs")
    rows = []
    for target in dict.fromkeys(run["target"] for run in runs):
        of_target = [run for run in runs if run["target"] == target]
        valid = [run for run in of_target if not run["failures"]]
        row = [target, *(figure(quartiles([run.get(key) for run in valid]), digits) for _, key, digits in columns)]
        if compared:
            ratios = [] if target == subject else bars.ratios(runs, name, "cpu_us", subject, target)
            row.append(figure(quartiles(ratios), 3))
        rows.append([*row, f"{len(valid)}/{len(of_target)}"])
    return table(head, rows)


def failures(record):
    """What went wrong, a line each."""
    return [
        f"{run['target']}, round {run['round'] + 1}: {run.get('error') or str(run['failures']) + ' failed requests'}"
        for run in record["runs"]
        if run["failures"]
    ]


def calls_by_name(record):
    """The system calls of each target's last valid run, most frequent first."""
    last = {run["target"]: run["by_name"] for run in record["runs"] if "by_name" in run}
    return [
        f"{target}: " + ", ".join(f"{name} {count:.3f}" for name, count in by_name.items() if count >= 0.0005)
        for target, by_name in last.items()
    ]


def scenario_text(name, record, level="###"):
    """Heading, table, and what has to be said about one scenario."""
    parts = [f"{level} {SCENARIOS[name].title} (`{name}`)", scenario_table(name, record)]
    notes = failures(record)
    if SCENARIOS[name].kind == SYSCALLS:
        notes += calls_by_name(record)
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def verdicts(scenarios):
    """Every bar with its verdict. `scenarios`: name -> record."""
    found = []
    for bar in bars.BARS:
        record = scenarios.get(bar.scenario)
        runs = record["runs"] if record and record["subject"] == "weir" else []
        found.append(bars.judge(bar, runs, "weir"))
    return found


def bars_table(found):
    """The bars as a table."""
    rows = []
    for verdict in found:
        pairs = verdict.found.count if verdict.found else 0
        title = SCENARIOS[verdict.bar.scenario].title
        rows.append([title, verdict.bar.text(), figure(verdict.found, 3), pairs, verdict.text()])
    return table(["scenario", "bar", "found", "pairs", "verdict"], rows)


BARS_NOTE = (
    "PASS: the median is within the bar. FAIL: the lower quartile is past it. NEAR: the median is past it, the lower "
    "quartile is not. In brackets: too few pairs to judge by. —: not measured."
)


def load_results(path=RESULTS_JSON):
    """What is recorded so far."""
    return json.loads(Path(path).read_text()) if Path(path).exists() else {"machine": None, "scenarios": {}}


def merge(results, machine, scenarios=None, instructions=None, variants=None, testers=None):
    """Adds new records to the recorded ones; records of another machine are dropped, for they compare with nothing."""
    if results.get("machine") != machine:
        results = {"machine": machine, "scenarios": {}}
    results["scenarios"] |= scenarios or {}
    if instructions:
        results.setdefault("instructions", {})
        results["instructions"] |= instructions
    if variants:
        results.setdefault("variants", {})
        results["variants"] |= variants
    if testers:
        results["testers"] = testers
    return results


def write_json(path, results):
    """Writes records as JSON."""
    Path(path).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def save(results):
    """Writes results.json and RESULTS.md from it."""
    write_json(RESULTS_JSON, results)
    RESULTS_MARKDOWN.write_text(markdown(results))


def markdown(results):
    """RESULTS.md."""
    parts = [
        "# Results\n\nWritten by `perf/compare`, `perf/instructions`, `perf/resilience`, `perf/access-log` and `perf/load-compare` "
        "with `--write`; the runs behind it are in `results.json`, what the figures mean in `README.md`. Figures are medians "
        "with (lower–upper quartile).",
        "## Machine",
        "\n".join(f"- {name}: {value}" for name, value in results["machine"].items()),
        "## Bars",
        bars_table(verdicts(results["scenarios"])),
        BARS_NOTE,
        "## Scenarios",
    ]
    ordered = [name for name in SCENARIOS if name in results["scenarios"]]
    for name in ordered:
        record = results["scenarios"][name]
        parts.append(scenario_text(name, record))
        versions = ", ".join(f"{target}: {version}" for target, version in record["versions"].items())
        parts.append(
            f"{record['date']}, commit {record['commit']}, `{record['command']}`; window {record['window_s']:g} s; "
            f"TCP congestion control {record['congestion']}. {versions}."
        )
    if results.get("instructions"):
        parts += ["## Instructions per exchange", instructions_table(results["instructions"])]
    if results.get("variants"):
        parts.append("## Variants of weir")
        parts += [variants_text(name, record) for name, record in results["variants"].items()]
    if results.get("testers"):
        parts += ["## The load tester", testers_text(results["testers"])]
    return "\n\n".join(parts) + "\n"


def instructions_table(instructions):
    """User-space instructions per exchange by target."""
    rows = [
        [target, f"{found['instructions']:,.0f}", found["version"], found["date"], found["commit"], f"`{found['command']}`"]
        for target, found in instructions.items()
    ]
    return table(["", "instructions", "version", "date", "commit", "command"], rows)


def variants_text(name, record, level="###"):
    """What one comparison of weir with itself found: `perf/resilience` and `perf/access-log`."""
    subject, base = record["subject"], record["base"]
    rows = []
    for variant in (base, subject):
        valid = [run for run in record["runs"] if run["target"] == variant and not run["failures"]]
        counted = record["instructions"].get(variant)
        cells = [figure(quartiles([run.get(key) for run in valid]), digits) for _, key, digits in SPEED_COLUMNS]
        all_of = sum(run["target"] == variant for run in record["runs"])
        rows.append([variant, *cells, f"{counted:,}" if counted else "—", f"{len(valid)}/{all_of}"])
    head = ["", *(title for title, _, _ in SPEED_COLUMNS), "instructions/request", "valid runs"]
    verdict = bars.judge_variants(record)
    instructions = ""
    if all(record["instructions"].get(variant) for variant in (base, subject)):
        more = record["instructions"][subject] / record["instructions"][base]
        instructions = f" User-space instructions: {more:.3f} times."
    settings = "\n".join(
        f"- {variant}: " + ", ".join(f"`{setting}`" for setting in record["settings"][variant])
        for variant in (base, subject)
    )
    return "\n\n".join(
        [
            f"{level} {record['title']} (`{name}`)",
            table(head, rows),
            f"CPU per request, {subject} ÷ {base}, of the same round: {figure(verdict.found, 4)} of "
            f"{verdict.found.count if verdict.found else 0} pairs; the bar is ≤ {record['limit']:g}: **{verdict.text()}**."
            + instructions,
            settings,
            "\n".join(f"- {note}" for note in failures(record)) or "No request failed.",
            f"{record['date']}, commit {record['commit']}, `{record['command']}`; window {record['window_s']:g} s; TCP "
            f"congestion control {record['congestion']}. {record['version']}.",
        ]
    )


def testers_text(record):
    """What `perf/load-compare` found: weir's load tester beside wrk."""
    rows = []
    for name in dict.fromkeys(run["target"] for run in record["runs"]):
        of_tester = [run for run in record["runs"] if run["target"] == name]
        columns = (("requests_per_s", 0), ("cpu_us", 2))
        rows.append([name, *(figure(quartiles([run[key] for run in of_tester]), digits) for key, digits in columns)])
    rate, cpu = bars.judge_testers(record)
    lines = [
        f"- {what}, weir load ÷ wrk, of the same pair: {figure(verdict.found, 3)}; the bar is ≤ {verdict.bar.limit:g}: "
        f"**{verdict.text()}**"
        for what, verdict in (("time from one request to the next", rate), ("CPU time per request", cpu))
    ]
    return "\n\n".join(
        [
            table(["", "requests/s", "CPU µs/request"], rows),
            "\n".join(lines),
            f"{record['date']}, commit {record['commit']}, `{record['command']}`; {record['connections']} connections, window "
            f"{record['window_s']:g} s; TCP congestion control {record['congestion']}. {record['version']}.",
        ]
    )

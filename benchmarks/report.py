"""Timing in turns and step by step, tables in plain text, results as JSON."""

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from ngp_warp import launch
from ngp_warp.files import atomic_path

_ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("ngp-warp", "warp-lang", "torch", "numpy")


def interleave(parts: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Time every part once a round, so that a drift of the machine's speed hits all alike.

    Args:
        parts: name to what is timed; one untimed round warms caches and compiles.
        repetitions: timed rounds.

    Returns:
        Name to seconds, one a round.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for round_ in range(repetitions + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            if round_:
                times[name].append(time.perf_counter() - start)
    return times


def train(
    parts: dict[str, list[list[launch.Launch]]], seconds: float
) -> tuple[int, float, dict[str, float]]:
    """Train for some seconds, but at least a step.

    Args:
        parts: name to the stages of a part of a step, in their order.
        seconds: of training.

    Returns:
        The number of steps, their time in seconds, and that of each part.
    """
    times = dict.fromkeys(parts, 0.0)
    start, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - start < seconds:
        for name, stages in parts.items():
            begin = time.perf_counter()
            launch.run_stages(stages)
            times[name] += time.perf_counter() - begin
        steps += 1
    return steps, time.perf_counter() - start, times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each part's times."""
    return {name: statistics.median(values) for name, values in times.items()}


def environment() -> dict[str, Any]:
    """Return the machine, the threads, the versions and the date."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "checkout"
    return {
        "cpu": _cpu_name(),
        "threads": launch.num_threads(),
        "versions": versions,
        "date": now(),
    }


def now() -> str:
    """Return the date and the time."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def commit() -> str | None:
    """Return the checkout's commit, with a + where files differ from it; None: not known."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        told = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip()


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as plain text; the first column left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (cell.ljust if i == 0 else cell.rjust for i, cell in enumerate(row))
        cells = [first(widths[0])] + [f(w) for f, w in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def publish(text: str, results: dict[str, Any], json_file: Path | None) -> None:
    """Print the text and write the results, with the environment, where a file is named."""
    env = environment()
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    print(f"{env['cpu']}, {env['threads']} threads; {versions}; {env['date']}\n\n{text}")
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps({**env, **results}, indent=2) + "\n")

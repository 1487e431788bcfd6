"""``python -m benchmarks gpu``: whether a device computes what the CPU does, and how fast it is.

One command for a machine with a GPU, at most 8 minutes. Every part runs in a process of its own and
writes what it has found; the result is rewritten every second where there is something new, so that
nothing is lost that was measured, whatever ends the command. Without a GPU it runs in a small mode
that shows that the benchmark itself works.
"""

import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import gpu_agreement, gpu_limits, gpu_quality, gpu_steps, gpu_targets, report
from benchmarks.gpu_parts import NOT_RUN, PARTS, Context, agreement_rows, run_jobs, write_json
from benchmarks.gpu_workers import Worker, terminated, work_off
from ngp_warp import launch
from ngp_warp.errors import ConfigError
from ngp_warp.json_files import read_json

RESULTS = Path(__file__).resolve().parent / "results"
_MOST_WORKERS = 8
_STALL_S = 40.0
"""A row of the comparison that takes longer on a GPU has failed, and the others follow."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command was told."""

    device: str
    small: bool
    budget: float
    out: Path
    only: tuple[str, ...] = ()
    """Parts; empty: all."""
    isolate: bool = True
    """Run each part in a process of its own."""
    data: Path | None = None
    given: dict[str, Path] | None = None


def run(options: Options, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run the parts and return the result, which is written again and again on the way.

    Raises:
        ConfigError: an unknown part.
    """
    unknown = sorted(set(options.only) - set(PARTS))
    if unknown:
        raise ConfigError(f"there are no parts {', '.join(unknown)}; there are {', '.join(PARTS)}")
    names = [name for name in PARTS if not options.only or name in options.only]
    result = _Result(options)
    end = time.perf_counter() + options.budget
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, terminated():
        context = Context(
            device=options.device,
            small=options.small,
            folder=folder,
            data=str(options.data) if options.data else None,
            given={name: str(path) for name, path in (options.given or {}).items()},
        )
        result.values["inputs"] = _inputs(context, say)
        for index, name in enumerate(names):
            shares = [PARTS[other].share for other in names[index:]]
            seconds = max(end - time.perf_counter(), 0.0) * shares[0] / sum(shares)
            say(f"{name}: at most {seconds:.0f} s")
            context = replace(context, limits=result.parts.get("limits"))
            note = partial(result.note, name, time.perf_counter())
            _part(name, context, seconds, note, isolate=options.isolate)
    result.values["finished"] = True
    result.write()
    return result.values


class _Result:
    """What is written again and again on the way."""

    def __init__(self, options: Options):
        self.out, self.values = options.out, _begun(options)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.write()  # raises now, not after minutes, where it cannot

    @property
    def parts(self) -> dict[str, Any]:
        """What the parts have found so far."""
        return self.values["parts"]

    def note(self, name: str, begin: float, found: dict[str, Any]) -> None:
        """Take over what a part that was begun then has found so far, and write."""
        self.parts[name] = found
        values = self.values
        values["seconds"][name] = round(time.perf_counter() - begin, 2)
        values["measured"][name] = {"date": report.now(), "commit": values["commit"]}
        self.write()

    def write(self) -> None:
        """Write all, the parts in their order."""
        self.values["parts"] = {name: self.parts[name] for name in PARTS if name in self.parts}
        self.values["targets"] = gpu_targets.verdicts(self.values)
        write_json(self.out, self.values)


def _begun(options: Options) -> dict[str, Any]:
    """Return a result without figures; of ``only`` some parts, with the others' as they were."""
    results: dict[str, Any] = {
        **report.environment(),
        **device_facts(options.device),
        "commit": report.commit(),
        "small": options.small,
        "budget_seconds": options.budget,
        "finished": False,
        "parts": {},
        "seconds": {},
        "measured": {},
    }
    if options.only and options.out.exists():
        before = read_json(options.out)
        same = ("device_name", "small")
        if all(before.get(key) == results[key] for key in same):
            for key in ("parts", "seconds", "measured"):
                kept = before.get(key) or {}
                results[key] = {n: v for n, v in kept.items() if n not in options.only}
    return results


def _inputs(context: Context, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what is trained on; says which targets of quality cannot be judged."""
    found = {}
    for name, source in context.inputs().items():
        found[name] = {"file": source.path.name, "usual": source.usual}
        if source.note:
            say(f"{name}: {source.note}; {source.path.name} takes its place, and is not judged")
    return found


def device_facts(device: str) -> dict[str, Any]:
    """Return the device's name and what it is like."""
    import warp as wp

    launch.init()
    if device == "cpu":
        return {"device": device, "device_name": f"CPU {report.environment()['cpu']}"}
    found: Any = wp.get_device(device)
    facts: dict[str, Any] = {"device": device, "device_name": found.name, "sm": found.arch}
    with contextlib.suppress(Exception):
        facts |= {"sm_count": found.sm_count, "memory_bytes": found.total_memory}
    command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm", "--format=csv,noheader"]
    with contextlib.suppress(Exception):
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        line = told.stdout.splitlines()[int(device.partition(":")[2] or 0)]
        facts["driver"], facts["most_clock"] = (part.strip() for part in line.split(","))
    return facts


def file_name(device_name: str) -> str:
    """Return the name of a result's file."""
    return re.sub(r"[^a-z0-9]+", "_", device_name.lower()).strip("_") + ".json"


def _part(
    name: str, context: Context, seconds: float, on: Callable[[Any], None], *, isolate: bool
) -> None:
    """Run one part; whatever goes wrong is its result.

    Args:
        name: of the part.
        context: what it is told.
        seconds: that it has.
        on: told of what has been found so far, again and again, and at the end.
        isolate: in a process of its own, or in several.
    """
    try:
        if isolate:
            _isolated(name, context, seconds, on)
        elif name == "agreement":
            on(_summary(list(agreement_rows(context, seconds)), context))
        else:
            jobs = PARTS[name].jobs
            assert jobs is not None
            run_jobs(jobs(context), seconds, on)
    except Exception as error:
        on({"error": f"{type(error).__name__}: {error}"[:500]})


def _isolated(
    name: str, context: Context, seconds: float, on: Callable[[dict[str, Any]], None]
) -> None:
    """Run a part in processes: the comparison in several, as most of its time is compilation."""
    rows = name == "agreement"
    n = 1
    if rows and not context.small:
        n = max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // 2))
    stall = _STALL_S if rows and context.device != "cpu" else None
    workers = [Worker(name, replace(context, worker=(k, n)), seconds, stall) for k in range(n)]
    collect = _rows_of if rows else _jobs_of
    work_off(workers, lambda: on(collect(workers, context)))


def _rows_of(workers: Sequence[Worker], context: Context) -> dict[str, Any]:
    """Return the comparison as far as it has come; what was under way then was not run."""
    rows: list[dict[str, Any]] = []
    for number, worker in enumerate(workers):
        rows += worker.found.values()
        rows += [{"row": name, "ok": False, "why": why} for name, why in worker.died.items()]
        if worker.error is not None:
            rows.append({"row": f"process {number}", "ok": False, "why": worker.error})
    return _summary(rows, context)


def _summary(rows: list[dict[str, Any]], context: Context) -> dict[str, Any]:
    return gpu_agreement.summary(gpu_agreement.completed(rows, context.small))


def _jobs_of(workers: Sequence[Worker], context: Context) -> dict[str, Any]:
    """Return what the one worker of a part has found, in the order of its jobs."""
    (worker,) = workers
    failed = {name: {"error": why} for name, why in worker.died.items()}
    if worker.cut is not None:
        failed[worker.cut] = {"error": "its time was over, and it was ended"}
    missing = {name: {"error": NOT_RUN} for name in worker.names}
    found = {**missing, **failed, **worker.found}
    return found if worker.error is None else {**found, "error": worker.error}


def describe(results: dict[str, Any]) -> str:
    """Return a result as plain text."""
    parts = results["parts"]
    lines = [f"{results['device_name']}, seconds by part: {results['seconds']}"]
    if results["small"]:
        lines.append("small mode: it shows that the benchmark runs; its times mean nothing")
    shown: dict[str, Callable[[dict[str, Any]], str]] = {
        "agreement": gpu_agreement.describe,
        "limits": gpu_limits.describe,
        "steps": gpu_steps.describe,
        "quality": gpu_quality.describe,
    }
    for name, found in parts.items():
        if "error" in found:
            lines += ["", f"{name}: {found['error']}"]
        jobs = {key: value for key, value in found.items() if key != "error"}
        if name in shown and jobs:
            lines += ["", shown[name](jobs)]
        elif jobs:
            lines += ["", f"{name}: {json.dumps(jobs)}"]
    return "\n".join([*lines, "", gpu_targets.describe(results)])

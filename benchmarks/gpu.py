"""``python -m benchmarks gpu``: whether a device computes what the CPU does, and how fast it is.

One command for a machine with a GPU, at most 8 minutes. Every part runs in a process of its own and
writes what it has found; the result is rewritten after each, so that nothing is lost that was
measured. Without a GPU it runs in a small mode that shows that the benchmark itself works.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import gpu_agreement, gpu_limits, gpu_quality, gpu_steps, gpu_targets, report
from benchmarks.gpu_parts import PARTS, Context, agreement_rows, as_job, run_jobs, write_json
from ngp_warp import launch
from ngp_warp.errors import ConfigError

RESULTS = Path(__file__).resolve().parent / "results"
_ROOT = Path(__file__).resolve().parent.parent
_MOST_WORKERS = 8
_ANSWERED = 0
_GRACE_S = 3.0
"""A process begins no job when its time is over; after so much more it is ended."""


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
    """Run the parts and return the result, which is also written after each of them.

    Raises:
        ConfigError: an unknown part.
    """
    unknown = sorted(set(options.only) - set(PARTS))
    if unknown:
        raise ConfigError(f"there are no parts {', '.join(unknown)}; there are {', '.join(PARTS)}")
    names = [name for name in PARTS if not options.only or name in options.only]
    results: dict[str, Any] = {
        **report.environment(),
        **device_facts(options.device),
        "small": options.small,
        "budget_seconds": options.budget,
        "parts": {},
        "seconds": {},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, results)  # raises now, not after minutes, where it cannot
    end = time.perf_counter() + options.budget
    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            device=options.device,
            small=options.small,
            folder=folder,
            data=str(options.data) if options.data else None,
            given={name: str(path) for name, path in (options.given or {}).items()},
        )
        for index, name in enumerate(names):
            shares = [PARTS[other].share for other in names[index:]]
            seconds = max(end - time.perf_counter(), 0.0) * shares[0] / sum(shares)
            say(f"{name}: at most {seconds:.0f} s")
            begin = time.perf_counter()
            found = _part(name, context, seconds, isolate=options.isolate)
            results["parts"][name] = found
            results["seconds"][name] = round(time.perf_counter() - begin, 2)
            if name == "limits":
                context = replace(context, limits=found)
            results["targets"] = gpu_targets.verdicts(results)
            write_json(options.out, results)
    return results


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


def _part(name: str, context: Context, seconds: float, *, isolate: bool) -> dict[str, Any]:
    """Run one part; whatever goes wrong is its result."""
    try:
        if name == "agreement":
            rows = _rows(context, seconds, isolate=isolate)
            return gpu_agreement.summary(gpu_agreement.completed(rows, context.small))
        if isolate:
            return _isolated(name, context, seconds)
        jobs = PARTS[name].jobs
        assert jobs is not None
        return run_jobs(jobs(context), seconds)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def process_command(job: str) -> list[str]:
    """Return the command of a process that runs a part."""
    return [sys.executable, "-m", "benchmarks.gpu_parts", job]


class _Process:
    """A process that runs a part, and what it has written so far."""

    def __init__(self, name: str, context: Context, seconds: float):
        self.name = name
        number = f"{context.worker[0]}_{len(context.skip)}"
        self.out = Path(context.folder) / f"{name}_{number}.json"
        self.log = Path(context.folder) / f"{name}_{number}.log"
        job = as_job(name, context, seconds, self.out)
        environment = dict(os.environ)
        paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        command = process_command(job)
        with self.log.open("w") as log:
            # a session of its own, so that what it starts can be ended with it
            self.process = subprocess.Popen(
                command, cwd=_ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.end = time.perf_counter() + seconds

    def wait(self) -> int | None:
        """Return the exit status; None: it took too long and was ended."""
        try:
            return self.process.wait(max(self.end - time.perf_counter(), 0.0) + _GRACE_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.end_now()

    def end_now(self) -> None:
        """End it, and the processes that it has started, if it still runs."""
        if self.process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
            self.process.wait()

    def found(self) -> dict[str, Any]:
        """Return what it has written; empty: nothing."""
        return json.loads(self.out.read_text()) if self.out.exists() else {}

    def why(self, status: int | None) -> str:
        """Return what an exit status other than 0 means."""
        if status is None:
            return "its time was over, and it was ended"
        last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
        return f"its process ended with status {status}: {''.join(last)[:300]}"


def _isolated(name: str, context: Context, seconds: float) -> dict[str, Any]:
    process = _Process(name, context, seconds)
    status = process.wait()
    found = process.found()
    return found if status == _ANSWERED else {**found, "error": process.why(status)}


def _rows(context: Context, seconds: float, *, isolate: bool) -> list[dict[str, Any]]:
    """Return the comparison's rows; processes share them, for most of their time is compilation."""
    if not isolate:
        return list(agreement_rows(context, seconds))
    n = 1 if context.small else max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) // 2))
    running = [_Process("agreement", replace(context, worker=(k, n)), seconds) for k in range(n)]
    end, rows = time.perf_counter() + seconds, []
    try:
        for number, process in enumerate(running):
            rows += _rows_of(process, replace(context, worker=(number, n)), end)
    finally:
        for process in running:
            process.end_now()
    return rows


def _rows_of(process: _Process, context: Context, end: float) -> list[dict[str, Any]]:
    """Return the rows of a process, and of those that go on where it has lost the device."""
    done: list[dict[str, Any]] = []
    while True:
        status, found = process.wait(), process.found()
        done += found.get("rows", [])
        if status == _ANSWERED:
            return done
        begun, why = found.get("begun"), process.why(status)
        if begun and status is not None:
            done.append({"row": begun, "ok": False, "why": why})
        elif not found and status is not None:
            done.append({"row": f"process {context.worker[0]}", "ok": False, "why": why})
        left = end - time.perf_counter()
        if not found or status is None or left <= 0:
            return done
        skip = tuple(row["row"] for row in done)
        process = _Process("agreement", replace(context, skip=skip), left)


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

"""The parts of the GPU benchmark: what each measures, and a process that runs one.

``python -m benchmarks.gpu_parts JOB`` is started by gpu.py, so that an address that is illegal on a
GPU, or a hang, costs one part and not the others. It writes its results after each of its jobs.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu_inputs import Input, find_inputs
from ngp_warp import launch
from ngp_warp.files import atomic_path

Jobs = dict[str, Callable[[], Any]]
ANSWERED, LOST = 0, 3
"""Exit statuses: all jobs were run or had no time; the device no longer answers."""
NOT_RUN = "not run: no time was left"
_GONE = "the device no longer answers after it: nothing that it gave counts"


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a part is told."""

    device: str
    small: bool
    folder: str
    """Where inputs are made."""
    data: str | None = None
    """Where the usual files lie."""
    given: dict[str, str] = field(default_factory=dict)
    """Other inputs, by primitive."""
    limits: dict[str, Any] | None = None
    """The device's, once they have been measured."""
    worker: tuple[int, int] = (0, 1)
    """Number of this process and how many share the rows of the comparison."""
    skip: tuple[str, ...] = ()
    """Jobs that were begun before."""

    def inputs(self, *, made: bool = False) -> dict[str, Input]:
        """Return every primitive's input; ``made``: small ones, whatever files there are."""
        given = {} if made else {name: Path(path) for name, path in self.given.items()}
        data = Path(self.data) if self.data else None
        return find_inputs(data, {**given}, Path(self.folder), small=self.small or made)


def _limits(c: Context) -> Jobs:
    from benchmarks.gpu_limits import jobs

    return jobs(c.device, c.small)


def _steps(c: Context) -> Jobs:
    from benchmarks.gpu_steps import jobs

    return dict(jobs(c.inputs(), c.device, c.limits, small=c.small))


def _deterministic(c: Context) -> Jobs:
    from benchmarks.gpu_deterministic import jobs

    return dict(jobs(c.inputs(made=True), c.device, small=c.small))


def _curves(c: Context) -> Jobs:
    from benchmarks.gpu_quality import curve_jobs

    return dict(curve_jobs(c.inputs(made=True), c.device, small=c.small))


def _quality(c: Context) -> Jobs:
    from benchmarks.gpu_quality import quality_jobs

    return dict(quality_jobs(c.inputs(), c.device, small=c.small))


def _render(c: Context) -> Jobs:
    from benchmarks.gpu_pictures import jobs

    return dict(jobs(c.inputs(), c.device, small=c.small))


def _cold_start(c: Context) -> Jobs:
    from benchmarks.gpu_start import start_jobs

    return dict(start_jobs(c.inputs(made=True), c.device, small=c.small))


def _memory(c: Context) -> Jobs:
    from benchmarks.gpu_start import memory_jobs

    return dict(memory_jobs(c.inputs(), c.device, small=c.small))


@dataclass(frozen=True)
class Part:
    """One part of the benchmark."""

    share: float
    """Of the time that is left, among the parts that are still to be run."""
    jobs: Callable[[Context], Jobs] | None
    """What it measures, by name; None: the comparison, whose rows are dealt to processes."""


PARTS = {
    "agreement": Part(90, None),
    "limits": Part(12, _limits),
    # before all that trains: it compiles the primitives' kernels, one process for each
    "memory": Part(25, _memory),
    "steps": Part(55, _steps),
    "deterministic": Part(20, _deterministic),
    "quality": Part(130, _quality),
    "render": Part(25, _render),
    "cold_start": Part(60, _cold_start),
    "curves": Part(60, _curves),
}
"""In the order in which they are run; shares are seconds, with some to spare on an H200."""


def work(
    jobs: Jobs, seconds: float, begun: Callable[[str], None] = lambda name: None
) -> Iterator[tuple[str, Any]]:
    """Yield the results of jobs by name; one that fails says how, and the others follow.

    Args:
        jobs: by name.
        seconds: after which none is begun.
        begun: called with a job's name before it is run: it may end the process.
    """
    end = time.perf_counter() + seconds
    for name, job in jobs.items():
        if time.perf_counter() > end:
            yield name, {"error": NOT_RUN}
            continue
        begun(name)
        try:
            result = job()
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"[:500]}
        yield name, result


def run_jobs(
    jobs: Jobs, seconds: float, on: Callable[[dict[str, Any]], None] = lambda found: None
) -> dict[str, Any]:
    """Run jobs in this process; ``on`` is told of what has been found after each."""
    found: dict[str, Any] = {}
    for name, result in work(jobs, seconds):
        found[name] = result
        on(found)
    return found


def agreement_rows(
    c: Context, seconds: float, begun: Callable[[str], None] = lambda name: None
) -> Iterator[dict[str, Any]]:
    """Yield the results of this worker's rows of the comparison."""
    from benchmarks import gpu_agreement

    rows = gpu_agreement.part_of(gpu_agreement.all_rows(c.small), *c.worker)
    rows = [row for row in rows if row.name not in c.skip]
    yield from gpu_agreement.run(rows, c.device, seconds, begun)


def write_json(path: Path, values: Any) -> None:
    """Write JSON beside and rename, so that what is read is whole."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    """Return a number of NumPy's as Python's; all else as text: no result is lost for its type."""
    return value.item() if hasattr(value, "item") else str(value)


def as_job(part: str, context: Context, seconds: float, out: Path) -> str:
    """Return what a process is told."""
    values = {"part": part, "context": asdict(context), "seconds": seconds, "out": str(out)}
    return json.dumps({**values, "started": time.time()})


def _results(
    part: str, c: Context, seconds: float, state: dict[str, Any], begun: Callable[[str], None]
) -> Iterator[tuple[str, Any]]:
    """Yield the results of a part's jobs, which are noted in the state, but for those to skip."""
    make = PARTS[part].jobs
    if make is None:
        if os.cpu_count():
            launch.set_num_threads(max(1, (os.cpu_count() or 1) // c.worker[1]))
        for row in agreement_rows(c, seconds, begun):
            yield row["row"], row
        return
    jobs = make(c)
    state["names"] = list(jobs)
    yield from work({n: job for n, job in jobs.items() if n not in c.skip}, seconds, begun)


def _without_device(part: str, name: str, result: Any) -> Any:
    """Return a result after which the device no longer answers: it has failed, whatever it says."""
    if isinstance(result, dict) and ("error" in result or result.get("ok") is False):
        return result
    is_row = PARTS[part].jobs is None
    return {"row": name, "ok": False, "why": _GONE} if is_row else {"error": _GONE}


def main(job: dict[str, Any]) -> int:
    """Run one part in this process; LOST: the device is, and another process must go on."""
    from benchmarks.gpu_agreement import lost

    values = job["context"]
    values |= {"worker": tuple(values["worker"]), "skip": tuple(values["skip"])}
    context, out = Context(**values), Path(job["out"])
    launch.init()
    state: dict[str, Any] = {"names": [], "found": {}, "begun": None}

    def begun(name: str) -> None:
        state["begun"] = name
        write_json(out, state)

    left = job["seconds"] - (time.time() - job["started"])
    for name, result in _results(job["part"], context, left, state, begun):
        gone = lost(context.device)
        kept = _without_device(job["part"], name, result) if gone else result
        state["found"][name], state["begun"] = kept, None
        write_json(out, state)
        if gone:
            return LOST
    return ANSWERED


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))

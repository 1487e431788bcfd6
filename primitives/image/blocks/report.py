"""What is said of a run in blocks while it is fitted and afterwards."""

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ngp_warp.errors import NgpError
from ngp_warp.job import state_path
from ngp_warp.jobs import Outcome
from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.image.blocks.layout import Layout, name_of
from ngp_warp.primitives.image.blocks.mosaic import Cell, block_folder, is_finished
from ngp_warp.primitives.image.blocks.work import WHOLE
from ngp_warp.run import Run, open_run
from ngp_warp.run_folder import list_checkpoints

_SECONDS_BETWEEN_REPORTS = 0.5
_LEAST_SHARE = 0.02  # of the work: before, the time left would be a guess


class BlocksFailed(NgpError):
    """Some jobs failed; says which, and how to go on.

    Args:
        failed: "name", "error" and "log" of each.
        total: number of blocks.
        repeat: the command that goes on.
    """

    def __init__(self, failed: list[dict[str, str]], total: int, repeat: str):
        self.failed = failed
        n_blocks = sum(item["name"] != WHOLE for item in failed)
        what = f"{n_blocks} of {total} blocks are not fitted"
        self.summary = (
            f"{what if n_blocks else 'the image is not measured'}; continue with {repeat}"
        )
        super().__init__("; ".join([*map(line_of, failed), self.summary]))


def line_of(failed: dict[str, str]) -> str:
    """Return what there is to say of a job that failed."""
    what = "measuring" if failed["name"] == WHOLE else f"block {failed['name']}"
    return f"{what}: {failed['error']} (log: {failed['log']})"


class Watcher:
    """What ``Jobs.run_all`` calls: reads what the jobs say, and reports the sum.

    Args:
        run: the run's folder.
        cells: the blocks that are being fitted.
        total: number of blocks; the others are finished.
        report: told "blocks": blocks done, the running ones' mean metric and joint speed.
    """

    def __init__(self, run: Path, cells: Iterable[Cell], total: int, report: Report):
        self._run, self._total, self._report = run, total, report
        self._names = [name_of(*at) for at in cells]
        # of an earlier command: how far blocks have come, not that they are running
        self._before = {name: self._state(name) for name in self._names}
        self._ended: set[str] = set()
        self._start, self._last = time.monotonic(), -math.inf
        self._done_at_start: float | None = None

    def __call__(self, ended: list[Outcome]) -> None:
        """Take what has ended so far."""
        for outcome in ended:
            if outcome.work.name not in self._ended:
                self._ended.add(outcome.work.name)
                self._report(Progress(stage="blocks", message=_ended(self._run, outcome)))
        now = time.monotonic()
        if now - self._last >= _SECONDS_BETWEEN_REPORTS:
            self._last = now
            self._report(self._sum(now))

    def _state(self, name: str) -> dict[str, Any] | None:
        return _read(state_path(self._run / "jobs", name))

    def _sum(self, now: float) -> Progress:
        """Return what all jobs say together."""
        states = {n: s for n in self._names if n not in self._ended and (s := self._state(n))}
        done = sum(s["step"] / s["total"] for s in states.values() if s["total"])
        done += len(self._ended)
        if self._done_at_start is None:
            self._done_at_start = done
        gained, n_blocks = done - self._done_at_start, len(self._names)
        left = None
        if gained > _LEAST_SHARE * n_blocks:
            left = (now - self._start) * (n_blocks - done) / gained
        running = [s for n, s in states.items() if s != self._before[n] and s["metric"] is not None]
        return Progress(
            stage="blocks",
            step=self._total - n_blocks + len(self._ended),
            total=self._total,
            metric=sum(s["metric"] for s in running) / len(running) if running else None,
            seconds_left=left,
            samples_per_second=sum(s["samples_per_second"] for s in running) or None,
        )


def measuring_watcher(run: Path, report: Report) -> Callable[[list[Outcome]], None]:
    """Return what ``Jobs.run_all`` calls while the whole is measured."""

    def watch(ended: list[Outcome]) -> None:
        state = _read(state_path(run / "jobs", WHOLE))
        if state and not ended:
            report(Progress(stage="evaluate", step=state["step"], total=state["total"]))

    return watch


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a JSON file holds, or None where there is none (yet)."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _ended(run: Path, outcome: Outcome) -> str:
    """Return a line on how a block's job ended."""
    name = outcome.work.name
    metrics = _read(run / "blocks" / name / "metrics.json")
    if outcome.state != "done" or metrics is None:  # a network's disk may show a file late
        return f"block {name}: {outcome.error or outcome.state}"
    return (
        f"block {name}: {metrics['psnr']:.2f} dB, {metrics['steps']} steps, "
        f"{metrics['seconds']:.1f} s on {metrics['device']}"
    )


def table(metrics: dict[str, Any]) -> list[str]:
    """Return a line for every block."""
    return [
        f"block {b['name']}  {b['psnr']:6.2f} dB  {b['steps']:>9,} steps  {b['seconds']:9.1f} s"
        for b in metrics.get("blocks", ())
    ]


def describe(run: Run) -> dict[str, Any]:
    """Return what a run in blocks holds: ``ngp info``; sizes of its newest checkpoints."""
    layout = Layout.from_dict(run.header)
    folders = [block_folder(run.path, *at) for at in layout.cells()]
    finished = [folder for folder in folders if is_finished(folder)]
    begun = [folder for folder in folders if list_checkpoints(folder)]
    runs = [open_run(folder) for folder in begun]
    return {
        "run": str(run.path),
        "primitive": run.primitive,
        "source": str(run.source),
        "blocks": str(layout),
        "margin": layout.margin,
        "finished": len(finished),
        "begun": len(begun),
        "step": sum(part.header["step"] for part in runs),
        "parameters": sum(part.metrics.get("parameters", 0) for part in runs),
        "bytes": sum(part.checkpoint.stat().st_size for part in runs),
        "data": run.header["data"],
        "config": run.header["config"],
        "metrics": run.metrics,
    }

"""``python -m benchmarks traffic``: what a training step asks of a GPU, kernel by kernel.

Counted, not timed, by the emulated device of tests/emulator: instructions that warps run, and the
sectors of 32 bytes that they ask global memory for. Needs no GPU.
"""

import re
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import warp as wp

from benchmarks import report
from benchmarks.gpu_inputs import PRIMITIVES, find_inputs, make_config, make_task
from benchmarks.gpu_steps import ReferenceStep
from benchmarks.training_step import StepSize
from ngp_warp.errors import ResourceError
from ngp_warp.files import atomic_path
from ngp_warp.launch import Stages, run_stages

_DEVICE = "cuda:0"
_KERNEL = re.compile(r"(?:.*__locals__)?(.*?)(?:_[0-9a-f]{8})?_cuda_kernel_forward")
# An H100 SXM's, of NVIDIA's data sheet and white paper: multiprocessors, cycles a second, warps'
# instructions a cycle and multiprocessor, bytes of device memory a second.
_PROCESSORS, _CLOCK, _ISSUED = 132, 1.755e9, 4
# Of the emulated device: so that the photo lies there, as it would on a GPU.
_MEMORY = 1 << 33
# Kernels that want less than this share of a step's instructions and sectors are summed up.
_SMALL = 0.005

_KINDS = ("read", "write", "add")
_COLUMNS = ("launches", "instructions", *_KINDS, "added", "lines")

Row = dict[str, Any]


def run(out: Path, batch_log2: int = 18) -> dict[str, Any]:
    """Count the steps; write the table.

    Args:
        out: the page.
        batch_log2: log2 of the points of the steps that grids are compared in.

    Raises:
        ResourceError: there is a GPU, whose place the emulated device would take.
    """
    from tests.emulator import driver

    if wp.is_cuda_available():
        raise ResourceError("there is a GPU: run python -m benchmarks gpu, which measures")
    steps: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as temporary, driver.emulated() as device:
        device.memory_size = _MEMORY
        for name, make in _jobs(Path(temporary), batch_log2).items():
            steps[name] = count(make(), device)
    with atomic_path(out) as path:
        path.write_text(document(steps))
    return {"steps": steps, "file": str(out)}


def _jobs(folder: Path, batch_log2: int) -> dict[str, Callable[[], tuple[Stages, Any]]]:
    """Return what makes each step, by its name; with what must outlive it."""

    def reference(n_dims: int) -> tuple[Stages, Any]:
        step = ReferenceStep(StepSize(n_dims=n_dims, batch_log2=batch_log2), _DEVICE)
        return step.stages, step

    # the usual inputs are not everywhere: others are made
    inputs = find_inputs(folder / "none", {}, folder, small=False)

    def primitive(name: str) -> tuple[Stages, Any]:
        config = make_config(name, small=False, steps=10**6)
        task = make_task(name, inputs[name], config, _DEVICE)
        task.field.optimizer.n_steps.fill_(0)
        return task.stages(), task

    size = f"2^{batch_log2} points"
    jobs = {f"reference step, {d}D, {size}": partial(reference, d) for d in (3, 2)}
    titles = {"image": "image", "sdf": "distance", "nerf": "scene", "volume": "volume"}
    return jobs | {f"{titles[name]}, first step": partial(primitive, name) for name in PRIMITIVES}


def count(made: tuple[Stages, Any], device: Any) -> list[Row]:
    """Run a step; return its kernels, those that run most instructions first."""
    stages, _ = made
    counts = device.traffic = {}
    try:
        run_stages(stages)
    finally:
        device.traffic = None
    rows: dict[str, Row] = {}
    for name, traffic in counts.items():
        match = _KERNEL.fullmatch(name)
        row = rows.setdefault(match[1] if match else name, dict.fromkeys(_COLUMNS, 0))
        row["launches"] += traffic.launches
        row["instructions"] += traffic.instructions
        row["lines"] += traffic.lines
        row["added"] += traffic.bytes["add"]
        for kind in _KINDS:
            row[kind] += traffic.sectors[kind]
    found = [{"kernel": name, **row} for name, row in rows.items()]
    return sorted(found, key=lambda row: row["instructions"], reverse=True)


def totals(rows: list[Row]) -> Row:
    """Return the sums of some kernels."""
    return {column: sum(row[column] for row in rows) for column in _COLUMNS}


def issue_us(row: Mapping[str, Any]) -> float:
    """Return the microseconds that an H100 needs at least to issue the instructions."""
    return row["instructions"] / (_PROCESSORS * _CLOCK * _ISSUED) * 1e6


def lookup_us(row: Mapping[str, Any]) -> float:
    """Return the same to look up the lines of its nearest caches, one a cycle each."""
    return row["lines"] / (_PROCESSORS * _CLOCK) * 1e6


def _table(rows: list[Row]) -> list[list[str]]:
    """Return the lines of a step: kernels, the small ones together, the sum."""
    whole = totals(rows)

    def large(row: Row) -> bool:
        sectors, all_sectors = (sum(r[kind] for kind in _KINDS) for r in (row, whole))
        return (
            row["instructions"] > _SMALL * whole["instructions"] or sectors > _SMALL * all_sectors
        )

    lines = [row for row in rows if large(row)]
    small = [row for row in rows if not large(row)]
    if small:
        lines.append({"kernel": f"{len(small)} others", **totals(small)})
    lines.append({"kernel": "all", **whole})
    head = ["kernel", "launches", "instructions", "read", "written", "added to", "added", "issue",
            "lookup"]  # fmt: skip
    return [head] + [
        [
            row["kernel"].replace("_portable", "").replace("_cuda", ""), str(row["launches"]),
            *(f"{row[column] / 1e6:.2f}" for column in _COLUMNS[1:-1]),
            f"{issue_us(row):.0f}", f"{lookup_us(row):.0f}",
        ]
        for row in lines
    ]  # fmt: skip


def document(steps: Mapping[str, list[Row]]) -> str:
    """Return the page of docs/."""
    parts = [_PREFACE]
    for name, rows in steps.items():
        head, *lines = _table(rows)
        table = [head, ["---"] * len(head), *lines]
        parts.append(f"## {name[0].upper()}{name[1:]}\n")
        parts.append("\n".join("| " + " | ".join(cells) + " |" for cells in table) + "\n")
    return "\n".join(parts)


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    tables = [f"{name}\n{report.table(_table(rows))}" for name, rows in results["steps"].items()]
    return "\n\n".join([*tables, f"written to {results['file']}"])


_PREFACE = f"""# What a training step asks of a GPU

Made by `python -m benchmarks traffic` on a machine without a GPU: the emulated device of
`tests/emulator` runs the PTX that Warp compiles for sm_90, and counts. **Nothing here is a measured
time.**

Millions of instructions of warps (of PTX: machine code has some more for a division, fewer for an
address), and of sectors of 32 bytes of global memory that warps read, write and add to; a warp's
lanes that lie in one sector share it. What caches answer is not told apart. "Added" are the
megabytes that all lanes add: additions to one address are made one after another.

The last two columns are microseconds that an H100 would need at least: to issue the instructions
({_PROCESSORS} multiprocessors of {_CLOCK / 1e9:.3f} GHz, {_ISSUED} instructions a cycle each), and
to look up the lines of 128 bytes in which the sectors lie, one a cycle and multiprocessor. Both go
on at once, so that the larger one counts, and beside them the second cache and the device's memory
(3.35 TB/s). Kernels below {_SMALL:.1%} of both sums are added up. The photo is the bundled one;
mesh, scene and volume are made; it is a run's first step, in which a scene has few
rays and its densities are even.
"""

"""What ``--deterministic`` costs on a device, and whether two runs have the same bits."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_inputs import PRIMITIVES, Input, make_config, make_task
from benchmarks.gpu_steps import ReferenceStep
from benchmarks.gpu_timing import Stages, milliseconds
from benchmarks.training_step import StepSize
from ngp_warp.recording import recorded_step

Trained = tuple[Stages, Any]
"""The stages of a step, and what has the field that they train, and whatever else they need."""


def jobs(
    inputs: Mapping[str, Input], device: str, *, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what tells the cost of the reference step, and the bits of it and the primitives."""
    names = PRIMITIVES[:1] if small else PRIMITIVES
    found = {"step": partial(_reference, device, small=small)}
    for name in names:
        found[name] = partial(_primitive, name, inputs[name], device, small=small)
    return found


def _reference(device: str, *, small: bool) -> dict[str, Any]:
    size = StepSize(n_dims=3, **({"batch_log2": 10, "table_log2": 10} if small else {}))
    times = {"repeats": 3, "inner": 2} if small else {"repeats": 9, "inner": 20}
    found = {}
    for name, fixed in (("usual", False), ("deterministic", True)):
        step = ReferenceStep(size, device, deterministic=fixed)
        found[name] = milliseconds(recorded_step(step.stages, device), device, **times)

    def run() -> Trained:
        step = ReferenceStep(size, device, deterministic=True)
        return step.stages, step

    bits = differing(run, device, 5 if small else 50)
    return {"ms": found, "ratio": found["deterministic"] / found["usual"], "differing_arrays": bits}


def _primitive(name: str, source: Input, device: str, *, small: bool) -> dict[str, Any]:
    """Two runs of a primitive at its own settings."""
    n_steps = 5 if small else 50

    def run() -> Trained:
        config = make_config(name, small=small, steps=n_steps, deterministic=True)
        task = make_task(name, source, config, device)
        stages = task.stages()
        task.field.optimizer.n_steps.fill_(n_steps)
        return stages, task

    return {"steps": n_steps, "differing_arrays": differing(run, device, n_steps)}


def differing(make: Callable[[], Trained], device: str, n_steps: int) -> int:
    """Return how many of the trained arrays differ in any bit between two runs.

    Raises:
        RuntimeError: nothing was trained, or to nothing finite: that would be alike as well.
    """
    (before, one), (_, other) = (_run(make, device, n_steps) for _ in range(2))
    if all(np.array_equal(before[name], one[name]) for name in one):
        raise RuntimeError("no step has changed anything")
    if not all(np.isfinite(values).all() for values in one.values()):
        raise RuntimeError("the values are not finite")
    return sum(one[name].tobytes() != other[name].tobytes() for name in one)


def _run(
    make: Callable[[], Trained], device: str, n_steps: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what is trained before the first step and after the last."""
    stages, owner = make()
    before = _state(owner.field)
    step = recorded_step(stages, device)
    for _ in range(n_steps):
        step()
    return before, _state(owner.field)


def _state(field: Any) -> dict[str, np.ndarray]:
    """Return a copy of all that is trained."""
    return {
        f"{name} {part}": array.numpy().copy()
        for name, p in field.parameters().items()
        for part, array in p.state().items()
    }

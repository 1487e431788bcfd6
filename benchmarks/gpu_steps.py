"""Training steps on a device: whole, stage by stage, and beside the device's limits."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.gpu_inputs import PRIMITIVES, Input, make_config, make_task
from benchmarks.gpu_limits import rate, rate_at
from benchmarks.gpu_timing import (
    Stages,
    count_launches,
    host_milliseconds,
    is_graph,
    milliseconds,
    stage_name,
    stage_times,
    synchronize,
)
from benchmarks.training_step import StepSize, make_field
from ngp_warp import launch, samplers
from ngp_warp.launch import run_stages
from ngp_warp.recording import recorded_step

_SEED = 0
_BEFORE = 400
"""Steps before a task is measured: a scene's cells have emptied, and its rays grown in number."""


class ReferenceStep:
    """The step that grids are compared by, with fixed noise as targets.

    Args:
        size: of the step.
        device: "cpu" or a CUDA device.
        deterministic: sum the table's gradients in fixed point.
    """

    def __init__(self, size: StepSize, device: str, *, deterministic: bool = False):
        self.size, self.device = size, device
        self.field = field = make_field(size, device=device, deterministic=deterministic)
        n, d = size.n_points, size.n_dims
        x, target = field.zeros(n, d), field.zeros(n, size.n_outputs)
        target.assign(np.random.default_rng(_SEED).random(target.size, dtype=np.float32))
        draw = samplers.sample("stratified", d, _SEED, field.optimizer.step, x, device)
        stages, self.sums = field.train_stages(x, target, n, "l2")
        self.stages: Stages = [[field.optimizer.advance()], [draw], *stages]
        self._kept = (x, target)


def measure(
    stages: Stages,
    device: str,
    *,
    small: bool,
    before: int = 10,
    look: Callable[[], dict[str, Any]] = dict,
) -> dict[str, Any]:
    """Return how long a step takes, and each of its stages.

    Args:
        stages: of the step.
        device: "cpu" or a CUDA device.
        small: measure a few steps.
        before: steps that are run first.
        look: what else is to be told, asked for after whole steps: what is run for the times of
            stages are parts of steps, and trains nothing.
    """
    run = recorded_step(stages, device)
    for _ in range(1 if small else before):
        run()
    synchronize(device)
    times = {"repeats": 3, "inner": 2} if small else {"repeats": 15, "inner": 20}
    each = {"repeats": 2, "inner": 1} if small else {"repeats": 5, "inner": 5}
    result: dict[str, Any] = {
        "ms": milliseconds(run, device, **times),
        "host_ms": host_milliseconds(run, device, inner=3 if small else 50),
        "graph": is_graph(stages, device),
        "launches": count_launches(stages),
        **look(),
    }
    result["stages"] = [
        {"name": name, "ms": ms} for name, ms in stage_times(stages, device, **each)
    ]
    return result


def reference(
    n_dims: int, device: str, limits: dict[str, Any] | None, *, small: bool
) -> dict[str, Any]:
    """Measure the reference step in two or three dimensions, with the least time of its stages."""
    sizes = {"batch_log2": 10, "table_log2": 10} if small else {}
    step = ReferenceStep(StepSize(n_dims=n_dims, **sizes), device)
    touched = _touched(step)
    result = measure(step.stages, device, small=small, before=50)
    result["touched_share"] = touched
    if limits is not None:
        for stage in result["stages"]:
            least = least_ms(stage["name"], step, limits, touched)
            if least is not None:
                share = least / stage["ms"] if stage["ms"] else None
                stage |= {"least_ms": least, "share_of_limit": share}
    return result


def _touched(step: ReferenceStep) -> float:
    """Return the share of the table's entries that one step changes; trains one step."""
    table = step.field.table
    # the scatter shares its stage with the sum of the weights' gradients
    end = next(i for i, stage in enumerate(step.stages, 1) if _scatters(stage))
    run_stages(step.stages[:end])
    moved = table.gradient.numpy().reshape(-1, table.n_features).any(axis=1)
    run_stages(step.stages[end:])
    return float(moved.mean())


def _scatters(stage: list[launch.Launch]) -> bool:
    return _has(stage_name(stage), "grid", "backward_kernel")


def _has(name: str, module: str, factory: str) -> bool:
    """Return whether a stage launches a kernel of such a module."""
    return any(part.startswith(module) and factory in part for part in name.split(" + "))


def least_ms(
    name: str, step: ReferenceStep, limits: Mapping[str, Any], touched: float
) -> float | None:
    r"""Return what a stage takes at least by the device's limits; None: not known.

    With n points, d dimensions, L levels of F = 2 features, W weights, E entries:

    - encode: n 2^d random reads of each level's table, or 4 n (d + L F) bytes of positions and
      features.
    - scatter: as many random additions, or the same bytes.
    - network: 6 n W operations of the tensor cores, or 4 n (2 L F + 2 C) bytes.
    - Adam, without flags: the gradient of every entry; 7 more floats and a count twice of one that
      is touched.
    """
    field, n, d = step.field, step.size.n_points, step.size.n_dims
    e, bandwidth = field.encoding, rate(limits, "bandwidth")
    rows = 4 * n * (d + e.n_outputs)

    def corners(kind: str) -> list[tuple[float, float | None]]:
        """One level after another, each at the rate of its size: its table stays in a cache."""
        rates = [rate_at(limits, kind, level.size) for level in e.levels]
        known = [rate for rate in rates if rate]
        seconds = sum(n * 2**d / rate for rate in known)
        return [(seconds, 1.0)] if len(known) == len(rates) else []

    wanted: list[tuple[float, float | None]] = []
    if _has(name, "grid", "forward_kernel"):
        wanted = [*corners("gather"), (rows, bandwidth)]
    elif _has(name, "grid", "backward_kernel"):
        wanted = [*corners("scatter"), (rows, bandwidth)]
    elif "table_kernel" in name:
        size = e.n_entries * (4 * e.n_features + touched * (28 * e.n_features + 4))
        wanted = [(size, bandwidth)]
    elif ("MLP" in name and "weight_sums" not in name) or name.startswith("mlp."):
        flops = rate(limits, "tensor_flops") or rate(limits, "float32_flops")
        traffic = 4 * n * 2 * (e.n_outputs + step.size.n_outputs)
        wanted = [(6 * n * field.weights.value.size, flops), (traffic, bandwidth)]
    return max((work / at * 1e3 for work, at in wanted if at), default=None)


def primitive(name: str, source: Input, device: str, *, small: bool) -> dict[str, Any]:
    """Measure a primitive's own step at its own settings."""
    task = make_task(name, source, make_config(name, small=small, steps=10**6), device)
    task.field.optimizer.n_steps.fill_(0)  # not known: the learning rate stays as it is

    def look() -> dict[str, Any]:
        metric = task.batch_metric()
        if not np.isfinite(metric):
            raise RuntimeError("the values are not finite: what was timed trains nothing")
        told = {"metric": metric, "batch": int(task.config.training.batch_size or 0)}
        told |= {"input": source.path.name, "usual_input": source.usual}
        if name == "nerf":
            values = (int(v) for v in task.field.radiance.last.numpy())
            told |= dict(zip(("rays", "samples", "kept", "given_up"), values, strict=True))
        return told

    return measure(task.stages(), device, small=small, before=_BEFORE, look=look)


def jobs(
    inputs: Mapping[str, Input], device: str, limits: dict[str, Any] | None, *, small: bool
) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return what measures each step, by name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for d in (3, 2):
        found[f"reference {d}D"] = partial(reference, d, device, limits, small=small)
    for name in PRIMITIVES:
        found[name] = partial(primitive, name, inputs[name], device, small=small)
    return found


def describe(steps: Mapping[str, Any]) -> str:
    """Return the steps as plain text."""
    rows = [["step", "ms", "host ms", "launches", "one graph"]]
    for name, s in steps.items():
        if "ms" in s:
            cells = [f"{s['ms']:.3f}", f"{s['host_ms']:.3f}", f"{s['launches']}"]
            rows.append([name, *cells, "yes" if s["graph"] else "no"])
        else:
            rows.append([name, s.get("error", "?")[:60], "", "", ""])
    parts = [report.table(rows)]
    for name, s in steps.items():
        table = [[f"{name}: stage", "ms", "least ms", "share of the limit"]]
        for stage in s.get("stages", []):
            least, share = stage.get("least_ms"), stage.get("share_of_limit")
            table.append([
                stage["name"], f"{stage['ms']:.4f}",
                "" if least is None else f"{least:.4f}", "" if share is None else f"{share:.0%}",
            ])  # fmt: skip
        if len(table) > 1:
            parts.append(report.table(table))
    return "\n\n".join(parts)

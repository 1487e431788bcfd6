"""``python -m benchmarks step``: each part of a training step beside its limit and its twins."""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.limits import LimitKernels, Limits
from benchmarks.training_step import StepSize, TrainingStep, least_times, read_photo
from ngp_warp import launch

GOALS = {2: (0.10, 0.08), 3: (0.20, 0.165)}
"""Seconds of a step of 2^18 points with tables of 2^19: the most, and the aim."""
GOAL_RATIO = 10.0
"""How many times faster than the plain PyTorch hash grid at least."""
_STATE_BYTES = 16  # of a parameter: value, gradient, two moments
_ROUNDS = 9
_TWIN_ROUNDS = 3
_OWN_STEPS = 3  # of ours for each of the twins'


def run(size: StepSize, *, twins: bool, n_rounds: int = _ROUNDS) -> dict[str, Any]:
    """Measure and return everything that ``describe`` shows.

    Args:
        size: of the step.
        twins: compare with PyTorch and time it too.
        n_rounds: rounds of the parts and limits.
    """
    photo = read_photo() if size.n_dims == 2 else None
    step = TrainingStep(size, photo)
    levels = [level.size for level in step.field.encoding.levels]
    kernels = LimitKernels(levels, _STATE_BYTES * step.field.n_params)
    parts = {**step.parts, "network forward": step.forward, "whole step": step.whole}
    n_touched = step.count_touched()
    times = report.interleave({**kernels.parts, **parts}, n_rounds)
    seconds = report.medians(times)
    limits = kernels.limits(seconds)
    least = least_times(step, limits, n_touched)
    results: dict[str, Any] = {
        "n_dims": size.n_dims,
        "batch_log2": size.batch_log2,
        "table_log2": size.table_log2,
        "limits": _plain(limits),
        "parts": {
            name: {"seconds": s, "least": least[name], "share": least[name] / s}
            for name, s in seconds.items()
            if name in parts
        },
        "goals": {"most": GOALS[size.n_dims][0], "aim": GOALS[size.n_dims][1]},
    }
    if twins:
        results["twins"] = _time_twins(step, photo)
    return results


def _plain(limits: Limits) -> dict[str, Any]:
    return {
        "flops": limits.flops,
        "bandwidth": limits.bandwidth,
        "gather": {str(n): rate for n, rate in limits.gather.items()},
        "update": {str(n): rate for n, rate in limits.update.items()},
    }


def _time_twins(step: TrainingStep, photo: np.ndarray | None) -> dict[str, Any]:
    """Compare with the PyTorch twin, then time both twins in turns with the step."""
    import torch

    from benchmarks import twin_pyramid, twin_torch

    torch.set_num_threads(launch.num_threads())
    torch.manual_seed(0)
    size = step.size
    agreement = twin_torch.check_same(step)
    if photo is not None:
        batch = twin_torch.photo_batch(photo, size.n_points)
    else:
        batch = twin_torch.fixed_batch(step)
    hashed = twin_torch.TorchField(step.field)
    pyramid = twin_pyramid.Pyramid(size.n_dims, size.n_outputs)
    steps: dict[str, Callable[[], None]] = {
        "hash grid": twin_torch.torch_step(hashed, twin_torch.make_optimizer(hashed), batch),
        "dense pyramid": twin_torch.torch_step(
            pyramid, twin_pyramid.make_optimizer(pyramid), batch
        ),
    }
    # Ours first warms up after the twins, whose threads spin for a moment when they end.
    own = {f"ours {i}": step.whole for i in range(_OWN_STEPS + 1)}
    times = report.interleave({**steps, **own}, _TWIN_ROUNDS)
    ours = statistics.median(t for name in list(own)[1:] for t in times[name])
    twins = {name: statistics.median(times[name]) for name in steps}
    return {
        "agreement": agreement,
        "ours": ours,
        "seconds": twins,
        "ratios": {name: seconds / ours for name, seconds in twins.items()},
        "pyramid_parameters": sum(p.numel() for p in pyramid.parameters()),
    }


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    d, limits = results["n_dims"], results["limits"]
    text = [
        f"A training step in {d}D: 2^{results['batch_log2']} points, L=16, F=2, "
        f"T=2^{results['table_log2']}, 2x64, L2, float32",
        "",
        f"limits here: {limits['flops'] / 1e9:.0f} GFLOP/s, {limits['bandwidth'] / 1e9:.1f} GB/s; "
        "millions a second at random:",
        _rates(limits),
        "",
        _part_table(results["parts"]),
        "",
        'In the step, "network train" is the forward pass, the loss and the backward pass in one',
        'kernel; "network forward" is timed alone, for information. Random reads and updates are',
        "counted at random places; a batch in Morton order shares cache lines, so a share may pass",
        "100%.",
        "",
        _goals(results),
    ]
    return "\n".join(text)


def _rates(limits: dict[str, Any]) -> str:
    rows = [["entries of 8 bytes", *limits["gather"]]]
    rows += [
        [name, *(f"{rate / 1e6:.0f}" for rate in limits[key].values())]
        for name, key in (("read", "gather"), ("update", "update"))
    ]
    return report.table(rows)


def _part_table(parts: dict[str, dict[str, float]]) -> str:
    rows = [["part", "ms", "least by its limit", "share of the limit"]]
    for name, p in parts.items():
        least = f"{p['least'] * 1e3:.2f}"
        rows.append([name, f"{p['seconds'] * 1e3:.2f}", least, f"{p['share']:.0%}"])
    return report.table(rows)


def _goals(results: dict[str, Any]) -> str:
    """Return the whole step beside its goals, and the twins'; goals hold at the usual size only."""
    whole, goals = results["parts"]["whole step"]["seconds"], results["goals"]
    rows = [["", "s a step", "goal"]]
    most = f"at most {goals['most']:g} (aim {goals['aim']:g}) at 2^18"
    rows.append(["ours", f"{whole:.4f}", most])
    if "twins" in results:
        twins = results["twins"]
        rows.append(["ours, in turns with the twins", f"{twins['ours']:.4f}", most])
        for name, seconds in twins["seconds"].items():
            ratio = f"{twins['ratios'][name]:.1f} times ours"
            goal = f" (at least {GOAL_RATIO:g})" if name == "hash grid" else ""
            rows.append([f"PyTorch, {name}", f"{seconds:.4f}", ratio + goal])
    text = report.table(rows)
    if "twins" in results:
        agreement = results["twins"]["agreement"].items()
        differences = ", ".join(f"{name} {value:.0e}" for name, value in agreement)
        text += f"\n\nThe hash grid in PyTorch is the same function; it differs by: {differences}."
    return text

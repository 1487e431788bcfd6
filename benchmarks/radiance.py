"""``python -m benchmarks radiance``: samples a second of a scene's training, its parts, a view."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from ngp_warp import launch
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives.nerf.config import NerfConfig
from ngp_warp.primitives.nerf.data import load
from ngp_warp.primitives.nerf.draw import draw_rays
from ngp_warp.primitives.nerf.model import NerfModel
from ngp_warp.primitives.nerf.subject import Subject
from ngp_warp.primitives.nerf.task import NerfTask, estimate

GOAL_SAMPLES, GOAL_VIEW = 1_500_000, 0.2
"""On two cores: samples a second that reach the density network; seconds of 400x400 pixels."""
_MEASURED_SECONDS = 5.0
_VIEW_WIDTH = 400
_VIEWS = 5
_TRAIN_PARTS = ("rays to gradients", "table's gradients, sums", "counts", "Adam", "average")


def run(scene: Path, seconds: float) -> dict[str, Any]:
    """Train a scene, then time its steps and a view.

    Args:
        scene: a folder or file that ``ngp nerf`` takes.
        seconds: of training before anything is measured: at first all cells are occupied.

    Raises:
        NgpError: the scene cannot be read.
    """
    data = load(scene, NerfConfig(), report_nothing)
    config, _ = estimate(data, NerfConfig(), "cpu")
    task = NerfTask(data, config, "cpu")
    model = task.field
    model.optimizer.n_steps.fill_(0)  # not known: the learning rate stays as it is
    parts = _parts(model)
    model.radiance.fill_occupancy()
    report.train(parts, seconds)
    before = model.radiance.counters()
    steps, elapsed, times = report.train(parts, _MEASURED_SECONDS)
    counted = {name: n - before[name] for name, n in model.radiance.counters().items()}
    return {
        "scene": scene.name,
        "trained_seconds": seconds,
        "backend": model.radiance.backend,
        "step_seconds": elapsed / steps,
        "per_step": {name: n / steps for name, n in counted.items()},
        "samples_per_second": counted["samples"] / elapsed,
        "parts": {name: total / steps for name, total in times.items()},
        "view": _time_view(model),
        "goals": {"samples_per_second": GOAL_SAMPLES, "view_seconds": GOAL_VIEW},
    }


def _parts(model: NerfModel) -> dict[str, list[list[launch.Launch]]]:
    """Return a step's stages by what they do."""
    field = model.radiance
    draw = draw_rays(model.arrays, model.batch, model.optimizer.step, model.config.training.seed)
    parts = {"draw": [[model.optimizer.advance()], *draw.stages]}
    stages = field.train_stages(model.batch)
    if field.backend == "vector":
        n_first = len(stages) - 4 - bool(model.config.optimizer.ema_decay) + 1
        groups = [stages[:n_first], *([stage] for stage in stages[n_first:])]
        parts |= dict(zip(_TRAIN_PARTS, groups, strict=False))
    else:
        parts["rays to parameters"] = stages
    parts["occupancy"] = field.occupancy_stages()
    return parts


def _time_view(model: NerfModel) -> dict[str, Any]:
    """Time the rays of the first view, 400 pixels wide."""
    subject = Subject.of_model(model)
    shot = subject.shot(0, (_VIEW_WIDTH, None))
    y, x = np.mgrid[0 : shot.height, 0 : shot.width]
    origin, directions = shot.rays(x.ravel(), y.ravel())
    origins = np.broadcast_to(model.frame.to_box(origin[None]), directions.shape)
    rays = origins.astype(np.float32), directions.astype(np.float32)
    model.render_rays(*rays)  # compiles
    seconds, made = [], None
    for _ in range(_VIEWS):
        begin = time.perf_counter()
        made = model.render_rays(*rays)
        seconds.append(time.perf_counter() - begin)
    assert made is not None
    return {
        "width": shot.width,
        "height": shot.height,
        "seconds": float(np.median(seconds)),
        "samples": int(made.n_samples.sum()),
    }


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    per_step, view = results["per_step"], results["view"]
    rows = [["part of a step", "ms"]]
    rows += [[name, f"{seconds * 1e3:.2f}"] for name, seconds in results["parts"].items()]
    rows.append(["whole step", f"{results['step_seconds'] * 1e3:.2f}"])
    counts = (
        f"{per_step['rays']:,.0f} rays, {per_step['samples']:,.0f} samples through the density "
        f"network and {per_step['kept']:,.0f} through the colour network a step"
    )
    return (
        f"{results['scene']} after {results['trained_seconds']:g} s, {results['backend']} "
        f"backend\n\n{report.table(rows)}\n\n{counts}\n"
        f"samples a second: {results['samples_per_second']:,.0f} (goal {GOAL_SAMPLES:,})\n"
        f"a view of {view['width']}x{view['height']}: {view['seconds']:.3f} s, "
        f"{view['samples']:,} samples (goal {GOAL_VIEW:g} s)"
    )

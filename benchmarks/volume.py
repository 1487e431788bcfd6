"""``python -m benchmarks volume``: a volume's training step, its light, and pictures both ways."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from ngp_warp.primitive import report_nothing
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.primitives.volume.describe import Described, load
from ngp_warp.primitives.volume.neural_tracer import NeuralTracer
from ngp_warp.primitives.volume.path_tracer import PathTracer
from ngp_warp.primitives.volume.radiance_task import RadianceTask
from ngp_warp.primitives.volume.subject import decode
from ngp_warp.primitives.volume.task import DensityTask, estimate
from ngp_warp.rays.cameras import orbit

_MEASURED_SECONDS = 4.0
_SIDE, _SPP, _ROUNDS = 256, 8, 3


def run(source: Path, seconds: float) -> dict[str, Any]:
    """Train both modes, then time their steps, decoding, and pictures.

    Args:
        source: a volume of densities that ``ngp fit-volume`` takes.
        seconds: of training of each mode before anything is measured.

    Raises:
        NgpError: the volume cannot be read, or holds no densities.
    """
    results: dict[str, Any] = {"volume": source.name, "trained_seconds": seconds}
    for mode in ("density", "radiance"):
        config = VolumeConfig(mode=mode)
        volume = load(source, config)
        config, _ = estimate(volume, config, "cpu")
        task = (DensityTask if mode == "density" else RadianceTask)(volume, config, "cpu")
        task.field.optimizer.n_steps.fill_(0)  # not known: the learning rate stays as it is
        names = ("advance", "draw", "values")
        stages = task.stages()
        parts = {name: [stage] for name, stage in zip(names, stages, strict=False)}
        parts["field"] = stages[len(names) :]
        report.train(parts, seconds)
        steps, elapsed, times = report.train(parts, _MEASURED_SECONDS)
        n = int(config.training.batch_size or 0)
        results[mode] = {
            "step_seconds": elapsed / steps,
            "samples_per_second": n * steps / elapsed,
            "parts": {name: total / steps for name, total in times.items()},
        }
        if mode == "density":
            begin = time.perf_counter()
            decode(task.field, Described.of_volume(volume), report_nothing)
            taken = time.perf_counter() - begin
            results["decoded_voxels_per_second"] = volume.values.size / taken
        else:
            results["pictures"] = _pictures(task, config)
    return results


def _pictures(task: Any, config: VolumeConfig) -> dict[str, float]:
    """Return seconds of one sample a pixel, path traced and learned."""
    camera = orbit(30.0, 20.0, 1.8, up=config.up or "y", width=_SIDE, height=_SIDE)
    camera = camera.moved(*task.medium.cube)
    paths = PathTracer(task.medium, config.light, camera)
    learned = NeuralTracer(task.field, config.light, camera)
    times = report.interleave(
        {"path traced": lambda: paths.add(_SPP), "learned": lambda: learned.add(_SPP)}, _ROUNDS
    )
    noise = {"path traced": paths.picture().noise, "learned": learned.picture().noise}
    made = {name: float(np.median(seconds)) / _SPP for name, seconds in times.items()}
    # time to the same noise: it falls with the square root of the samples
    return {
        **{f"{name}, s a sample": seconds for name, seconds in made.items()},
        **{f"{name}, noise": value for name, value in noise.items()},
        "learned, times as fast to the same noise": (made["path traced"] / made["learned"])
        * (noise["path traced"] / noise["learned"]) ** 2,
    }


def describe(results: dict[str, Any]) -> str:
    """Return the results as plain text."""
    lines = [f"{results['volume']} after {results['trained_seconds']:g} s of each mode"]
    for mode in ("density", "radiance"):
        found = results[mode]
        rows = [[f"part of a step, {mode}", "ms"]]
        rows += [[name, f"{seconds * 1e3:.2f}"] for name, seconds in found["parts"].items()]
        rows.append(["whole step", f"{found['step_seconds'] * 1e3:.2f}"])
        lines += ["", report.table(rows)]
        lines.append(f"samples a second: {found['samples_per_second']:,.0f}")
    lines += ["", f"decoded voxels a second: {results['decoded_voxels_per_second']:,.0f}", ""]
    rows = [[f"picture of {_SIDE}x{_SIDE}", ""]]
    rows += [[name, f"{value:.3g}"] for name, value in results["pictures"].items()]
    return "\n".join([*lines, report.table(rows)])

"""A mesh being fitted: batches, the training step, how far it has come."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import distributed, launch
from ngp_warp.field import Field, field_settings, training_bytes
from ngp_warp.primitive import Progress, Report
from ngp_warp.primitives.sdf.config import SdfConfig, resolve
from ngp_warp.primitives.sdf.data import SdfData
from ngp_warp.primitives.sdf.samples import Batches, uniform_points
from ngp_warp.primitives.sdf.truth import SignedDistance

# Points that the progress's IoU is of: its error is a percent or so, and it takes a millisecond.
_PROGRESS_POINTS = 2**13
_PROGRESS_SEED = 0x50524F47
_TIMED_STEPS = 32
# More than this is told.
_TRUTH_SHARE = 0.3
# A mesh's own arrays, its tree and its pseudo-normals, for a face.
_BYTES_PER_FACE = 300
_SAMPLE_BYTES = 1 << 26


def estimate(data: SdfData, config: SdfConfig, device: str) -> tuple[SdfConfig, dict[str, int]]:
    """Return the resolved config, and the memory in bytes of what will be allocated."""
    config = resolve(config, device)
    need = training_bytes(config, 3, 1, device)
    batch = int(config.training.batch_size or 0)
    if config.eikonal_weight:
        levels = int(config.encoding.n_levels or 0)
        n_rows = levels * int(config.encoding.n_features_per_level or 0)
        need["eikonal term"] = batch * (n_rows * 4 + 3) * 4
    need["mesh"] = len(data.surface.faces) * _BYTES_PER_FACE
    # pools: a point and its distance
    return config, {**need, "samples": max(_SAMPLE_BYTES, 16 * batch)}


class SdfTask:
    """Implements ``ngp_warp.primitive.Task`` for a mesh.

    Args:
        data: what is fitted.
        config: resolved.
        device: "cpu" or a CUDA device.
    """

    metric_name = "IoU"
    warm_up_share = 0.3

    def __init__(self, data: SdfData, config: SdfConfig, device: str):
        self.data = data
        self.config = config
        self.device = device
        self.truth = SignedDistance(*data.unit_mesh, data.sign, device)
        self.field = Field(3, 1, device=device, **field_settings(config))
        points = uniform_points(_PROGRESS_POINTS, _PROGRESS_SEED)
        self._inside = self.truth.query(points) < 0
        self._values = self.field.zeros(_PROGRESS_POINTS, 1)
        at = self.field.blocked(points)
        self._look = self.field.evaluation_stages(at, self._values)
        self._batches: Batches | None = None

    @property
    def fill_seconds(self) -> float:
        """See ``ngp_warp.primitive.Task``."""
        return self._batches.fill_seconds if self._batches else 0.0

    def stages(self) -> list[list[launch.Launch]]:
        """Record one step: draw; encode, network, scatter, update beside the pools' refresh."""
        config, optimizer = self.config, self.field.optimizer
        group = distributed.current()
        n = group.part(int(config.training.batch_size or 0))
        x, target = self.field.zeros(n, 3), self.field.zeros(n, 1)
        seed = group.stream(config.training.seed)
        self._batches = batches = Batches(
            self.truth, n, seed, optimizer.step, x, target, noise_std=config.noise_std
        )
        if config.eikonal_weight:
            stages = self.field.eikonal_train_stages(
                x, target, n, config.loss, config.eikonal_weight
            )[0]
        else:
            stages = self.field.train_stages(x, target, n, config.loss)[0]
        side_by_side = launch.beside((stages, batches.truth_stages), self.device)
        return [[optimizer.advance()], *batches.batch_stages, *side_by_side]

    def batch_metric(self) -> float:
        """Return the IoU of some points of the cube, the same ones each time; NaN: diverged."""
        launch.run_stages(self._look)
        values = self._values.numpy()
        if not np.isfinite(values).all():
            return float("nan")
        fitted = values < 0
        either = np.count_nonzero(fitted | self._inside)
        return np.count_nonzero(fitted & self._inside) / either if either else 0.0

    def samples(self, n_steps: int) -> int:
        """See ``ngp_warp.primitive.Task``."""
        return n_steps * int(self.config.training.batch_size or 0)

    def finish(self, run: Path, curve: np.ndarray, report: Report) -> dict[str, Any]:
        """Measure the field against the mesh and write the pictures."""
        from ngp_warp.primitives.sdf.evaluate import evaluate

        share = self._truth_share(curve)
        if share is not None and share > _TRUTH_SHARE:
            text = f"the mesh's distances took {share:.0%} of the time; larger batches need less"
            report(Progress(stage="evaluate", message=text))
        metrics = evaluate(self.field, self.data, self.config, run, curve, report)
        metrics["mesh"]["sign_reason"] = self.data.sign_reason
        return {**metrics, "truth_share": share}

    def _truth_share(self, curve: np.ndarray) -> float | None:
        """Return what the mesh's queries took of the training time, by a step's measured now.

        None where nothing was trained, as in a run resumed at its end.
        """
        if self._batches is None or not len(curve) or not curve[-1, 0]:
            return None
        stages = self._batches.truth_stages
        start = time.perf_counter()
        for _ in range(_TIMED_STEPS):
            launch.run_stages(stages)
        if self.device != "cpu":
            wp.synchronize_device(self.device)
        seconds = (time.perf_counter() - start) / _TIMED_STEPS
        step, total, _ = curve[-1]
        return round(float((self.fill_seconds + seconds * step) / total), 3)

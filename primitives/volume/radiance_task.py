"""A medium being fitted with the light that it scatters: batches, the training step, memory."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import DataError
from ngp_warp.primitive import Report
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.primitives.volume.describe import make_frame
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.kernels.targets import point_kernel, target_kernel
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.radiance_field import N_OUTPUTS, RadianceField
from ngp_warp.primitives.volume.samples import morton
from ngp_warp.primitives.volume.transport import MAX_BOUNCES

COLLISIONS = 0.5
"""Share of a batch's points that are first collisions of rays: what pictures see. The others are
anywhere in blocks that are not empty, so that thin parts get their density too."""

LOOKED_AT, LOOK_SAMPLES = 2**11, 256
"""Points of the figure that progress shows, and paths of each: its noise is about 30 dB."""


def make_medium(volume: Volume, config: VolumeConfig, device: str) -> Medium:
    """Return a volume as the medium that a resolved config describes.

    Raises:
        DataError: it holds no densities.
    """
    return Medium.from_volume(
        volume, density_scale=config.density_scale, albedo=config.albedo, device=device
    )


class RadianceTask:
    """Implements ``ngp_warp.primitive.Task`` for a medium and its light.

    Args:
        volume: of densities.
        config: resolved.
        device: "cpu" or a CUDA device.

    Raises:
        DataError: it holds no densities above 0.
    """

    metric_name = "PSNR"
    warm_up_share = 0.3
    fill_seconds = 0.0

    def __init__(self, volume: Volume, config: VolumeConfig, device: str):
        self.volume = volume
        self.config = config
        self.medium = make_medium(volume, config, device)
        if not self.medium.majorants.any():
            raise DataError("none of its densities is above 0: there is nothing to see")
        self.field = RadianceField(make_frame(volume, margin=1), config, device)
        self.field.majorants.assign(self.medium.majorants)
        self._prepare_look()

    def stages(self) -> list[list[launch.Launch]]:
        """Record one step: draw points, follow light, encode, network, scatter, update."""
        n = int(self.config.training.batch_size or 0)
        x, target = self.field.zeros(n, 3), self.field.zeros(n, N_OUTPUTS)
        draw = self._draw(n, self.field.optimizer.step, x, target)
        stages, _ = self.field.train_stages(x, target, n, self.config.loss)
        return [[self.field.optimizer.advance()], [draw], *stages]

    def _draw(self, n: int, step: wp.array, x: wp.array, target: wp.array) -> launch.Launch:
        medium, device = self.medium, self.field.device
        vec3i: Any = wp.vec3i
        blocks = np.argwhere(medium.majorants > 0).astype(np.int32)
        blocks = blocks[np.argsort(morton(blocks), kind="stable")]
        side, _ = medium.cube
        args = [medium.data, medium.cloud, self.config.light.data()]
        args += [wp.array(blocks, dtype=vec3i, device=device), n, round(COLLISIONS * n)]
        # the cube's diagonal is the farthest that two of its points lie apart
        args += [2.0 * side, self.config.training.seed, step, MAX_BOUNCES]
        args += [self.field.density_gain, float(self.field.frame.side), x, target]
        return launch.record(target_kernel(medium.kind), n, args, device)

    def batch_metric(self) -> float:
        """Return the PSNR of radiances at some points, peak 1, against means of many paths."""
        for stage in self._look:
            launch.run_all(stage)
        error = np.square(self._values.numpy().reshape(-1, N_OUTPUTS, 32)[:, :3] - self._truth)
        return -10.0 * math.log10(max(float(error.mean(dtype=np.float64)), 1e-12))

    def samples(self, n_steps: int) -> int:
        """See ``ngp_warp.primitive.Task``."""
        return n_steps * int(self.config.training.batch_size or 0)

    def finish(self, run: Path, curve: np.ndarray, report: Report) -> dict[str, Any]:
        """Draw the field beside path-traced pictures of the original."""
        from ngp_warp.primitives.volume.radiance_evaluate import evaluate

        return evaluate(self.field, self.medium, self.config, run, curve, report)

    def _prepare_look(self) -> None:
        """Choose points as training does, and find the light there."""
        field, medium = self.field, self.medium
        x, target = field.zeros(LOOKED_AT, 3), field.zeros(LOOKED_AT, N_OUTPUTS)
        step = wp.array([-1], dtype=wp.int64, device=field.device)  # no step of the run
        self._draw(LOOKED_AT, step, x, target).run()
        self._values = field.zeros(LOOKED_AT, N_OUTPUTS)
        self._look = field.evaluation_stages(x, self._values)
        points = x.numpy().reshape(-1, 3, 32).transpose(0, 2, 1).reshape(-1, 3)
        vec3: Any = wp.vec3
        at = wp.array(points * field.frame.side - 0.5, dtype=vec3, device=field.device)
        light = wp.zeros(LOOKED_AT, dtype=vec3, device=field.device)
        density = wp.zeros(LOOKED_AT, dtype=wp.float32, device=field.device)
        args = [medium.data, medium.cloud, self.config.light.data(), at]
        args += [self.config.training.seed, LOOK_SAMPLES, MAX_BOUNCES, light, density]
        launch.launch(point_kernel(medium.kind), LOOKED_AT, args, field.device)
        self._truth = light.numpy().reshape(-1, 32, 3).transpose(0, 2, 1)

"""A medium being fitted with the light that it scatters: the training step, how far it has come."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import distributed, launch
from ngp_warp.errors import DataError
from ngp_warp.primitive import Report
from ngp_warp.primitives.volume.config import VolumeConfig
from ngp_warp.primitives.volume.describe import make_frame
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.kernels.targets import point_kernel
from ngp_warp.primitives.volume.medium import Medium
from ngp_warp.primitives.volume.radiance_field import N_OUTPUTS, RadianceField
from ngp_warp.primitives.volume.radiance_samples import RadianceBatches
from ngp_warp.primitives.volume.transport import MAX_BOUNCES

LOOKED_AT, LOOK_SAMPLES = 2**10, 128
"""Points of the figure that progress shows, and paths of each: its noise is below 30 dB."""
_LOOK_SEED = 0x4C4F4F4B


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

    def __init__(self, volume: Volume, config: VolumeConfig, device: str):
        self.volume = volume
        self.config = config
        self.medium = make_medium(volume, config, device)
        if not self.medium.majorants.any():
            raise DataError("none of its densities is above 0: there is nothing to see")
        self.field = RadianceField(make_frame(volume, margin=1), config, device)
        self.field.majorants.assign(self.medium.majorants)
        self._batches: RadianceBatches | None = None
        self._prepare_look()

    @property
    def fill_seconds(self) -> float:
        """See ``ngp_warp.primitive.Task``."""
        return self._batches.fill_seconds if self._batches else 0.0

    def stages(self) -> list[list[launch.Launch]]:
        """Record one step: follow light, draw points, encode, network, scatter, update."""
        field, group = self.field, distributed.current()
        n = group.part(int(self.config.training.batch_size or 0))
        x, target = field.zeros(n, 3), field.zeros(n, N_OUTPUTS)
        self._batches = self._make_batches(n, group.stream(self.config.training.seed))
        draw = self._batches.stages(field.optimizer.step, x, target)
        stages, _ = field.train_stages(x, target, n, self.config.loss or "l2")
        return [[field.optimizer.advance()], *draw, *stages]

    def _make_batches(self, n_points: int, seed: int) -> RadianceBatches:
        return RadianceBatches(
            self.medium,
            self.config.light,
            n_points=n_points,
            seed=seed,
            density_gain=self.field.density_gain,
            side=self.field.frame.side,
        )

    def batch_metric(self) -> float:
        """Return the PSNR of radiances at some points, peak 1, against means of many paths."""
        launch.run_stages(self._look)
        found = self._values.numpy().reshape(-1, N_OUTPUTS, 32)[:, :3].transpose(0, 2, 1)
        error = np.square(found.reshape(-1, 3) - self._truth)
        return -10.0 * math.log10(max(float(error.mean(dtype=np.float64)), 1e-12))

    def samples(self, n_steps: int) -> int:
        """See ``ngp_warp.primitive.Task``."""
        return n_steps * int(self.config.training.batch_size or 0)

    def finish(self, run: Path, curve: np.ndarray, report: Report) -> dict[str, Any]:
        """Draw the field beside path-traced pictures of the original."""
        from ngp_warp.primitives.volume.radiance_evaluate import evaluate

        return evaluate(self.field, self.medium, self.config, run, curve, report)

    def _prepare_look(self) -> None:
        """Choose points in blocks that are not empty, and find the light there."""
        field, medium, n = self.field, self.medium, LOOKED_AT
        rng = np.random.default_rng(_LOOK_SEED)
        blocks = np.argwhere(medium.majorants > 0)
        chosen = blocks[rng.integers(len(blocks), size=n)]
        points = ((chosen + rng.random((n, 3))) * medium.block).astype(np.float32)
        self._values = field.zeros(n, N_OUTPUTS)
        at = field.blocked((points + np.float32(0.5)) / np.float32(field.frame.side))
        self._look = field.evaluation_stages(at, self._values)
        vec3: Any = wp.vec3
        light = wp.zeros(n, dtype=vec3, device=field.device)
        density = wp.zeros(n, dtype=wp.float32, device=field.device)
        args = [medium.data, medium.cloud, self.config.light.data()]
        args += [wp.array(points, dtype=vec3, device=field.device), _LOOK_SEED]
        args += [LOOK_SAMPLES, MAX_BOUNCES, light, density]
        launch.launch(point_kernel(medium.kind), n, args, field.device)
        self._truth = light.numpy()

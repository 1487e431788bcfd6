"""A scene being fitted: batches of rays, the training step, how far it has come."""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp import distributed, launch, loading
from ngp_warp.field import table_bytes
from ngp_warp.primitive import Report
from ngp_warp.primitives.nerf.colors import from_srgb
from ngp_warp.primitives.nerf.config import NerfConfig, background_color, resolve
from ngp_warp.primitives.nerf.data import NerfData
from ngp_warp.primitives.nerf.draw import Background, draw_rays
from ngp_warp.primitives.nerf.model import NerfModel
from ngp_warp.radiance.positions import PositionEncoding
from ngp_warp.radiance.settings import CELLS

# Position, features and their gradients, in regions that are not all filled; a ray's arrays.
_BYTES_PER_SAMPLE, _BYTES_PER_RAY = 600, 200
# Values, bits, marks and what is being updated.
_BYTES_PER_CELL = 11
# Activations of a slice of the original NeRF's rays stay in the outer cache.
_VANILLA_BYTES = 1 << 28


class NerfTask:
    """Implements ``ngp_warp.primitive.Task`` for a scene.

    Args:
        data: what is fitted.
        config: resolved.
        device: "cpu" or a CUDA device.
        encoding: see ``RadianceField``; not of the original NeRF.
    """

    metric_name = "PSNR"
    # at first the occupancy grid still empties, and the number of rays grows
    warm_up_share = 0.48

    def __init__(
        self,
        data: NerfData,
        config: NerfConfig,
        device: str,
        encoding: PositionEncoding | None = None,
    ):
        self.data, self.config, self.device = data, config, device
        folder = data.scene.path if data.scene.path.is_dir() else data.scene.path.parent
        photos = data.train.photos
        self.field = NerfModel(data.describe(), config, device, folder, photos, encoding)
        self.fill_seconds = 0.0

    def stages(self) -> list[list[launch.Launch]]:
        """Record one step: draw rays, march, composite, backward, update; a slice of the grid."""
        model = self.field
        radiance, refinement, around = model.radiance, model.refinement, model.surroundings
        draw = draw_rays(
            model.arrays,
            model.batch,
            model.optimizer.step,
            distributed.current().stream(self.config.training.seed),
            background=self._background(),
            environment=around,
            crop_steps=self.config.crop_steps or 0,
        )
        stages = [[model.optimizer.advance()], *draw.stages, *radiance.train_stages(model.batch)]
        if refinement is not None:
            stages = [*refinement.stages_before, *stages, *refinement.stages_after]
        if around is not None:
            stages += around.stages_after(model.batch, draw, model.optimizer)
        stages += radiance.occupancy_stages()
        loading.load()  # compiling is no training time
        start = time.perf_counter()
        if int(model.optimizer.step.numpy()[0]) == 0:
            radiance.fill_occupancy()
        self.fill_seconds = time.perf_counter() - start
        return stages

    def _background(self) -> Background:
        if self.config.background == "random" and self.config.method == "hash":
            return "random"
        color = background_color(self.config.background)
        red, green, blue = from_srgb(color, self.data.train.photos.color_space)
        return float(red), float(green), float(blue)

    def batch_metric(self) -> float:
        """Return the PSNR of the newest batch."""
        n = self.field.radiance.last_rays
        squares = self.field.batch.loss.numpy().reshape(-1, 2)[:n, 1].sum(dtype=np.float64)
        return -10.0 * math.log10(max(float(squares) / max(3 * n, 1), 1e-12))

    def samples(self, n_steps: int) -> int:
        """See ``ngp_warp.primitive.Task``: those that reached the density network."""
        return self.field.radiance.counters()["samples"]

    def finish(self, run: Path, curve: np.ndarray, report: Report) -> dict[str, Any]:
        """Measure the views held back and write the pictures."""
        from ngp_warp.primitives.nerf.finish import finish

        return finish(self.field, self.data, run, curve, report)


def estimate(data: NerfData, config: NerfConfig, device: str) -> tuple[NerfConfig, dict[str, int]]:
    """Return the resolved config, and the memory in bytes of what will be allocated."""
    photos = data.train.photos
    has_depth = photos.depths is not None
    config = resolve(
        config,
        device,
        aabb_scale=data.frame.aabb_scale,
        has_alpha=photos.has_alpha,
        has_depth=has_depth,
        pixels_across=data.pixels_across(),
    )
    arrays = (photos.pixels, photos.masks, photos.depths)
    need = {"photos": sum(a.nbytes for a in arrays if a is not None)}
    if config.method == "vanilla":
        return config, {**need, "networks": _VANILLA_BYTES}
    batch = int(config.training.batch_size or 0)
    return config, {
        **need,
        "table": table_bytes(config.encoding, config.optimizer, 3),
        "batch": batch * _BYTES_PER_SAMPLE + int(config.max_rays or 0) * _BYTES_PER_RAY,
        "occupancy": data.frame.n_cascades * CELLS**3 * _BYTES_PER_CELL,
    }

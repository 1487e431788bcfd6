"""A volume's values being fitted: batches, the training step, memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import distributed, launch
from ngp_warp.field import Field, field_settings, training_bytes
from ngp_warp.losses import batch_psnr
from ngp_warp.primitive import Report
from ngp_warp.primitives.volume.config import VolumeConfig, resolve
from ngp_warp.primitives.volume.describe import make_frame
from ngp_warp.primitives.volume.grid import Volume
from ngp_warp.primitives.volume.medium import default_density_scale
from ngp_warp.primitives.volume.radiance_field import N_OUTPUTS
from ngp_warp.primitives.volume.samples import BLOCK, Batches, occupied, occupied_blocks
from ngp_warp.primitives.volume.transfer import Transfer, dense_bytes


def estimate(
    volume: Volume, config: VolumeConfig, device: str
) -> tuple[VolumeConfig, dict[str, int]]:
    """Return the resolved config, and the memory in bytes of what will be allocated."""
    frame = make_frame(volume, margin=int(config.mode == "radiance"))
    config = resolve(config, frame.side, dense_bytes(volume), device)
    config = replace(config, up=config.up or ("y" if volume.format in ("nvdb", "vdb") else "z"))
    if config.density_scale is None and volume.n_channels == 1:
        scale = default_density_scale(volume.values, volume.to_world)
        config = replace(config, density_scale=scale)
    if config.mode == "density" and config.occupied_share is None:
        mask = occupied(volume)
        share = len(occupied_blocks(mask)) * BLOCK**3 / mask.size
        config = replace(config, occupied_share=0.5 if 0 < share < 0.5 else 0.0)
    n_outputs = N_OUTPUTS if config.mode == "radiance" else volume.n_channels
    need = training_bytes(config, 3, n_outputs, device)
    # the values are decoded, and compared, as a whole
    return config, {**need, "decoded values": 3 * volume.values.nbytes}


class DensityTask:
    """Implements ``ngp_warp.primitive.Task`` for the values of a grid.

    Args:
        volume: what is fitted.
        config: resolved.
        device: "cpu" or a CUDA device.
    """

    metric_name = "PSNR"
    warm_up_share = 0.3
    fill_seconds = 0.0

    def __init__(self, volume: Volume, config: VolumeConfig, device: str):
        self.volume = volume
        self.config = config
        self.field = Field(3, volume.n_channels, device=device, **field_settings(config))
        self._n_points = distributed.current().part(int(config.training.batch_size or 0))
        self._losses = wp.zeros(2, dtype=wp.float32, device=device)

    def stages(self) -> list[list[launch.Launch]]:
        """Record one step: draw, fetch, encode, network, scatter, update."""
        config, volume = self.config, self.volume
        n = self._n_points
        x, target = self.field.zeros(n, 3), self.field.zeros(n, volume.n_channels)
        batches = Batches(
            volume,
            make_frame(volume),
            Transfer.of(volume),
            occupied_blocks(occupied(volume)),
            n_points=n,
            share=config.occupied_share or 0.0,
            seed=config.training.seed,
            trilinear=config.target == "trilinear",
            device=self.field.device,
            part=distributed.current().place_of_part,
        )
        optimizer = self.field.optimizer
        draw = batches.stages(optimizer.step, x, target)
        stages, self._losses = self.field.train_stages(x, target, n, config.loss or "l2")
        return [[optimizer.advance()], *draw, *stages]

    def batch_metric(self) -> float:
        """Return the PSNR of the newest batch, of trained values with a range of 1."""
        return batch_psnr(self._losses, self._n_points * self.volume.n_channels)

    def samples(self, n_steps: int) -> int:
        """See ``ngp_warp.primitive.Task``."""
        return n_steps * int(self.config.training.batch_size or 0)

    def finish(self, run: Path, curve: np.ndarray, report: Report) -> dict[str, Any]:
        """Compare every voxel and write the pictures."""
        from ngp_warp.primitives.volume.evaluate import evaluate

        return evaluate(self.field, self.volume, self.config, run, curve, report)

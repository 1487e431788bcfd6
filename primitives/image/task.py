"""An image being fitted: batches, the training step, memory."""

from dataclasses import replace
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import distributed, launch, samplers
from ngp_warp.encodings.grid import resolve as resolve_encoding
from ngp_warp.field import Field, field_settings, training_bytes
from ngp_warp.losses import batch_psnr
from ngp_warp.primitives.image import kernels
from ngp_warp.primitives.image.config import ImageConfig, resolve
from ngp_warp.primitives.image.data import Image
from ngp_warp.primitives.image.transfer import Transfer, choose
from ngp_warp.views import flat_view


def estimate(image: Image, config: ImageConfig, device: str) -> tuple[ImageConfig, dict[str, int]]:
    """Return the resolved config, and the memory in bytes of what will be allocated."""
    config = resolve(config, image.info, device)
    config = replace(config, encoding=resolve_encoding(config.encoding))
    _, config = choose(config, image)
    need = training_bytes(config, 2, image.info.channels, device)
    return config, {**need, "decoding": 256 << 20}


class ImageTask:
    """Implements ``ngp_warp.primitive.Task`` for an image.

    Args:
        image: what is fitted.
        config: resolved.
        device: "cpu" or a CUDA device.
    """

    metric_name = "PSNR"
    warm_up_share = 0.3
    fill_seconds = 0.0

    def __init__(self, image: Image, config: ImageConfig, device: str):
        self.image = image
        self.config = config
        self.device = device
        self.transfer: Transfer = choose(config, image)[0]
        self.field = Field(2, image.info.channels, device=device, **field_settings(config))
        self._n_points = distributed.current().part(int(config.training.batch_size or 0))
        self._losses = wp.zeros(2, dtype=wp.float32, device=device)

    def stages(self) -> list[list[launch.Launch]]:
        """Record one step: sample, fetch, encode, network, scatter, update."""
        n = self._n_points
        x, target = self.field.zeros(n, 2), self.field.zeros(n, self.image.info.channels)
        stages, self._losses = self.field.train_stages(x, target, n, self.config.loss)
        return [[self.field.optimizer.advance()], *self._batch(x, target), *stages]

    def _batch(self, x: wp.array, target: wp.array) -> list[list[launch.Launch]]:
        """Record the drawing of positions and targets: on the device if the image fits there."""
        if self.device == "cpu" or self._fits_on_device():
            return self._draw(x, target, self.field.optimizer.step, self.device)
        step = wp.zeros(1, dtype=wp.int64, device="cpu")
        host_x, host_target = (
            wp.empty(a.size, dtype=float, device="cpu", pinned=True) for a in (x, target)
        )
        copies = [
            launch.Launch([launch.Call(lambda a=a, b=b: wp.copy(a, b))], self.device, False)
            for a, b in ((step, self.field.optimizer.step), (x, host_x), (target, host_target))
        ]
        return [[copies[0]], *self._draw(host_x, host_target, step, "cpu"), copies[1:]]

    def _draw(
        self, x: wp.array, target: wp.array, step: wp.array, device: str
    ) -> list[list[launch.Launch]]:
        config, info = self.config, self.image.info
        part = distributed.current().place_of_part
        draw = samplers.sample(config.sampler, 2, config.training.seed, step, x, device, part)
        pixels = flat_view(self.image.pixels, device)
        kernel = kernels.target_kernel(
            pixels.dtype, info.channels, config.target == "bilinear", self.transfer.asinh
        )
        n_items = x.size // 2 // (32 if device == "cpu" else 1)
        args = [pixels, info.width, info.height, self.transfer.gain, x, target]
        return [[draw], [launch.record(kernel, n_items, args, device)]]

    def _fits_on_device(self) -> bool:
        return self.image.pixels.nbytes < 0.5 * wp.get_device(self.device).free_memory

    def batch_metric(self) -> float:
        """Return the PSNR of the newest batch, of trained values with a range of 1."""
        return batch_psnr(self._losses, self._n_points * self.image.info.channels)

    def samples(self, n_steps: int) -> int:
        """See ``ngp_warp.primitive.Task``."""
        return n_steps * int(self.config.training.batch_size or 0)

    def finish(self, run: Any, curve: np.ndarray, report: Any) -> dict[str, Any]:
        """Evaluate on every pixel and write the pictures."""
        from ngp_warp.primitives.image.evaluate import evaluate

        return evaluate(self.field, self.image, self.config, run, curve, report)

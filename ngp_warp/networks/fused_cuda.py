"""The fused network on CUDA's tensor cores: half operands, float32 sums and master weights."""

from collections.abc import Callable
from typing import cast

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss, NetworkConfig
from ngp_warp.kernels import mlp_cuda as kernels
from ngp_warp.networks.network import mlp_shape, xavier_uniform


class FusedCudaMLP:
    """All layers in one pass (kernels/mlp_cuda.py); implements ``Network``.

    Scratch is allocated and modules are loaded where a pass is recorded, so that running it only
    launches, and a CUDA graph may hold it. Padding counts for nothing in the gradients:
    ``backward`` asks for zeros there, ``train`` is told the number of points.
    """

    def __init__(self, config: NetworkConfig, n_in: int, n_out: int, device: str):
        self.config = config
        self.n_in = n_in
        self.n_out = n_out
        self.device = device
        shape = mlp_shape(config, n_in, n_out)
        self.layers = shape.layers
        self.n_params = shape.n_params
        self.kernels = kernels.make_mlp_cuda_kernels(
            n_in,
            config.n_neurons,
            config.n_hidden_layers,
            n_out,
            config.activation,
            config.output_activation,
        )

    def initial_weights(self, seed: int) -> np.ndarray:
        """See ``Network.initial_weights``."""
        return xavier_uniform(self.layers, seed)

    def forward(
        self, w: wp.array, x: wp.array, y: wp.array, count: wp.array | None = None
    ) -> list[launch.Launch]:
        """See ``Network.forward``."""
        blocks = self._n_blocks(x)
        n_points = blocks * kernels.BLOCK
        scratch = kernels.make_scratch(self.kernels, n_points, self.device, training=False)
        x, y = self._blocked(x, self.n_in), self._blocked(y, self.n_out)
        call = launch.Call(lambda: kernels.forward(self.kernels, w, x, n_points, y, scratch, count))
        return self._record("forward", blocks, call)

    def backward(
        self,
        w: wp.array,
        x: wp.array,
        dy: wp.array,
        dx: wp.array,
        dw: wp.array,
        gradient_scale: float = 128.0,
        count: wp.array | None = None,
    ) -> list[launch.Launch]:
        """See ``Network.backward``."""
        blocks = self._n_blocks(x)
        n_points = blocks * kernels.BLOCK
        scratch = kernels.make_scratch(self.kernels, n_points, self.device)
        x, dx = self._blocked(x, self.n_in), self._blocked(dx, self.n_in)
        dy = self._blocked(dy, self.n_out)

        def run(half: kernels.Half) -> None:
            scaled = gradient_scale, count, half
            kernels.backward(self.kernels, w, x, dy, n_points, dx, dw, scratch, *scaled)

        call = launch.Call(lambda: run("points"))
        return self._record("backward", blocks, call, self._weight_sums(run))

    def train(
        self,
        w: wp.array,
        x: wp.array,
        target: wp.array,
        n_points: int,
        loss: Loss,
        dx: wp.array,
        dw: wp.array,
    ) -> tuple[list[launch.Launch], wp.array]:
        """See ``Network.train``; the blocks from the last point on get no dx, which stays zero."""
        scratch = kernels.make_scratch(self.kernels, n_points, self.device)
        blocks = kernels.n_blocks(n_points)
        losses = wp.zeros(blocks * 2, dtype=float, device=self.device)
        x, dx = (self._blocked(v, self.n_in, blocks) for v in (x, dx))
        target = self._blocked(target, self.n_out, blocks)

        def run(half: kernels.Half) -> None:
            arrays = x, target, n_points, loss, dx, dw, losses, scratch
            kernels.train_pass(self.kernels, w, *arrays, half=half)

        call = launch.Call(lambda: run("points"))
        return self._record(loss, blocks, call, self._weight_sums(run)), losses

    def _weight_sums(self, run: Callable[[kernels.Half], None]) -> launch.Call:
        return launch.Call(lambda: run("weights"))

    def _record(self, stage: str, blocks: int, *calls: launch.Call) -> list[launch.Launch]:
        if blocks == 0:
            return []
        self.kernels.load(self.device, stage)
        return [launch.Launch([call], self.device) for call in calls]

    def _n_blocks(self, x: wp.array) -> int:
        return x.size // (self.n_in * kernels.BLOCK)

    def _blocked(self, flat: wp.array, n_rows: int, blocks: int | None = None) -> wp.array:
        """Return a view [n_blocks, n_rows, 32] of a flat array's first blocks."""
        n = flat.size // (n_rows * kernels.BLOCK) if blocks is None else blocks
        if n == 0:  # a slice of nothing is refused by Warp
            return wp.empty((0, n_rows, kernels.BLOCK), dtype=float, device=self.device)
        first = cast(wp.array, flat[: n * n_rows * kernels.BLOCK])
        return first.reshape((n, n_rows, kernels.BLOCK))

"""Multilayer perceptrons: one function chooses between fused and unfused kernels."""

from collections.abc import Callable

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss, NetworkConfig
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import mlp as kernels
from ngp_warp.networks.network import Network, mlp_shape, xavier_uniform

FUSED_WIDTHS = (16, 32, 64, 128)
FUSED_MAX_IO = 256


def make_network(config: NetworkConfig, n_in: int, n_out: int, device: str) -> Network:
    """Return a network, fused where it can be (``config.backend`` forces either).

    Raises:
        ConfigError: backend "fused" for a network that only the unfused kernels can run.
    """
    reason = _why_unfused(config, n_in, n_out)
    if config.backend == "fused" and reason:
        raise ConfigError(f"network.backend fused cannot run {reason}; use auto or unfused")
    if reason or config.backend == "unfused":
        from ngp_warp.networks.unfused import UnfusedMLP

        return UnfusedMLP(config, n_in, n_out, device)
    if device != "cpu":
        from ngp_warp.networks.fused_cuda import FusedCudaMLP

        return FusedCudaMLP(config, n_in, n_out, device)
    return FusedMLP(config, n_in, n_out, device)


def _why_unfused(config: NetworkConfig, n_in: int, n_out: int) -> str | None:
    """Return what keeps a network from being fused, or None."""
    if config.n_neurons not in FUSED_WIDTHS and config.n_hidden_layers:
        return f"width {config.n_neurons} (fused widths are 16, 32, 64 and 128)"
    if config.bias:
        return "biases"
    if config.skip_layer is not None:
        return "a skip connection"
    if config.n_hidden_layers == 0:
        return "a network without hidden layers"
    if max(n_in, n_out) > FUSED_MAX_IO:
        return f"more than {FUSED_MAX_IO} inputs or outputs"
    return None


def blocks_per_chunk(n_blocks: int) -> int:
    """Return the blocks of one item of work: of the batch alone, never of the threads.

    A chunk has its own 26 kB of weight gradients (2 hidden layers of 64), so it should be long; but
    a small batch must still be shared evenly.
    """
    return int(np.clip(n_blocks // 32, 1, 32))


class FusedMLP:
    """All layers in one kernel, on a CPU (kernels/mlp.py)."""

    def __init__(self, config: NetworkConfig, n_in: int, n_out: int, device: str):
        self.config = config
        self.n_in = n_in
        self.n_out = n_out
        self.device = device
        self.shape = mlp_shape(config, n_in, n_out)
        self.n_params = self.shape.n_params

    def initial_weights(self, seed: int) -> np.ndarray:
        """See ``Network.initial_weights``."""
        return xavier_uniform(self.shape.layers, seed)

    def forward(
        self, w: wp.array, x: wp.array, y: wp.array, count: wp.array | None = None
    ) -> list[launch.Launch]:
        """See ``Network.forward``."""
        n_blocks, per_chunk, n_chunks = self._chunks(w, x)
        launch.check_size("y", y, n_blocks * self.n_out * kernels.BLOCK, self.device)
        kernel = kernels.forward_kernel(self.shape)
        return [launch.record(kernel, n_chunks, [w, x, n_blocks, per_chunk, y], self.device)]

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
        n_blocks, per_chunk, n_chunks = self._chunks(w, x)
        launch.check_size("dy", dy, n_blocks * self.n_out * kernels.BLOCK, self.device)
        self._check_gradients(x, dx, dw)
        kernel = kernels.backward_kernel(self.shape)

        def first(partials: wp.array) -> launch.Launch:
            args = [w, x, dy, n_blocks, per_chunk, dx, partials]
            return launch.record(kernel, n_chunks, args, self.device)

        return self._with_reduction(first, n_chunks, dw)

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
        """See ``Network.train``."""
        n_blocks, per_chunk, n_chunks = self._chunks(w, x)
        launch.check_size("target", target, n_blocks * self.n_out * kernels.BLOCK, self.device)
        self._check_gradients(x, dx, dw)
        kernel = kernels.train_kernel(self.shape, loss)
        losses = wp.zeros(n_chunks * 2, dtype=float, device=self.device)
        scale = 1.0 / (n_points * self.n_out)

        def first(partials: wp.array) -> launch.Launch:
            args = [w, x, target, n_points, scale, n_blocks, per_chunk, dx, partials, losses]
            return launch.record(kernel, n_chunks, args, self.device)

        return self._with_reduction(first, n_chunks, dw), losses

    def _check_gradients(self, x: wp.array, dx: wp.array, dw: wp.array) -> None:
        launch.check_size("dx", dx, x.size, self.device)
        launch.check_size("dw", dw, self.n_params, self.device)

    def _chunks(self, w: wp.array, x: wp.array) -> tuple[int, int, int]:
        n_blocks = x.size // (self.n_in * kernels.BLOCK)
        launch.check_size("w", w, self.n_params, self.device)
        launch.check_size("x", x, n_blocks * self.n_in * kernels.BLOCK, self.device)
        per_chunk = blocks_per_chunk(n_blocks)
        return n_blocks, per_chunk, -(-n_blocks // per_chunk)

    def _with_reduction(
        self, first: Callable[[wp.array], launch.Launch], n_chunks: int, dw: wp.array
    ) -> list[launch.Launch]:
        """Return a pass that fills the chunks' weight gradients, and their sum."""
        partials = wp.zeros(n_chunks * self.shape.n_partials, dtype=float, device=self.device)
        n_items = -(-self.n_params // kernels.WEIGHTS_PER_ITEM)
        kernel = kernels.reduce_kernel(self.shape)
        reduction = launch.record(kernel, n_items, [partials, n_chunks, dw], self.device)
        return [first(partials), reduction]

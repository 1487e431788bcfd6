"""What every network offers, and what they share: initial weights, the shape of fused kernels."""

from typing import Protocol

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss, NetworkConfig
from ngp_warp.kernels.mlp import MlpShape


class Network(Protocol):
    """What fused and unfused networks offer.

    Per-point arrays are blocked, flat float32 [n_blocks * n_rows * 32]. The methods record launches
    that are run in order; weights and arrays are read when they run.
    """

    config: NetworkConfig
    n_in: int
    n_out: int
    n_params: int

    def initial_weights(self, seed: int) -> np.ndarray:
        """Return float32 [n_params], Xavier-uniform (Glorot and Bengio 2010)."""
        ...

    def forward(
        self, w: wp.array, x: wp.array, y: wp.array, count: wp.array | None = None
    ) -> list[launch.Launch]:
        """Record y = network(x).

        Where only the first ``count`` points (int32 [1], read at each run) matter, the others'
        outputs may be anything.
        """
        ...

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
        """Record dx and dw from dy, which is zero where a block is padded.

        Where gradients are half precision they are carried times ``gradient_scale``, which should
        bring dy to the order of 1 to 1000; float32 networks have no use for it. The last launch
        leaves dx alone, so that it may run beside what reads dx.

        Where only the first ``count`` points (int32 [1], read at each run) matter, dy is zero
        behind them too: a network may leave them out. Their dx is zero.
        """
        ...

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
        """Record the gradients of the mean loss over n_points and outputs.

        The last launch leaves dx alone, as in ``backward``.

        Returns:
            The launches, and the array [n_chunks, 2] that they fill with sums of the loss and of
            the squared error.
        """
        ...


def xavier_uniform(layers: list[tuple[int, int]], seed: int) -> np.ndarray:
    """Return flat float32 weights of [(n_out, n_in)], uniform in +-sqrt(6 / (n_in + n_out))."""
    rng = np.random.default_rng([seed, 0])
    parts = [(rng.random(j * k) * 2 - 1) * np.sqrt(6 / (j + k)) for j, k in layers]
    return np.concatenate(parts).astype(np.float32)


def mlp_shape(config: NetworkConfig, n_in: int, n_out: int) -> MlpShape:
    """Return what the fused kernels of a network are compiled for."""
    return MlpShape(
        n_in=n_in,
        n_neurons=config.n_neurons,
        n_hidden_layers=config.n_hidden_layers,
        n_out=n_out,
        activation=config.activation,
        output_activation=config.output_activation,
    )

"""Any encoding and a network, trained on samples for so long."""

import time
from collections.abc import Callable

import numpy as np
import warp as wp

from benchmarks.table_encoding import TableEncoding
from ngp_warp import launch
from ngp_warp.config import Loss, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.launch import Stages
from ngp_warp.networks.mlp import make_network
from ngp_warp.optimizer import Adam, make_table, make_weights

_EVALUATED_POINTS = 2**16
_WARM_UP = 0.2
"""Share of the time after which its pace says how many steps there will be."""


class EncodedField:
    """What ``ngp_warp.field.Field`` is of grids, of any encoding.

    Args:
        encoding: of the points.
        network: of the encoding's features.
        n_outputs: values of a point.
        optimizer: settings.
    """

    def __init__(
        self,
        encoding: Encoding,
        network: NetworkConfig,
        n_outputs: int,
        optimizer: OptimizerConfig,
    ):
        self.encoding = TableEncoding(encoding)
        self.n_dims, self.n_outputs = encoding.n_dims, n_outputs
        self.network = make_network(network, encoding.n_outputs, n_outputs, "cpu")
        self.weights = make_weights(self.network.initial_weights(0), optimizer, "cpu")
        values = self.encoding.initial_table(0)
        self.table = make_table(values, self.encoding.n_features, optimizer, "cpu")
        self.optimizer = Adam(optimizer, [self.weights, self.table], "cpu")

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        return self.network.n_params + self.encoding.n_params

    def train(
        self,
        draw: Callable[..., Stages],
        n_points: int,
        loss: Loss,
        seconds: float | None = None,
        n_steps: int = 0,
    ) -> int:
        """Train, and return the steps.

        Args:
            draw: (step, x, target) -> stages that fill x and target.
            n_points: of a batch.
            loss: of the values.
            seconds: how long; the learning rate decays towards the end. None: as n_steps says.
            n_steps: how many steps, where there are no seconds.
        """
        x = wp.zeros(n_points * self.n_dims, dtype=float, device="cpu")
        target = wp.zeros(n_points * self.n_outputs, dtype=float, device="cpu")
        stages = [[self.optimizer.advance()], *draw(self.optimizer.step, x, target)]
        stages += self._step(x, target, n_points, loss)
        self.optimizer.n_steps.fill_(n_steps)
        start, steps, total = time.perf_counter(), 0, n_steps
        while not total or steps < total:
            launch.run_stages(stages)
            steps += 1
            elapsed = time.perf_counter() - start
            if seconds is not None and not total and elapsed > _WARM_UP * seconds:
                total = max(round(steps * seconds / elapsed), steps + 1)
                self.optimizer.n_steps.fill_(total)
        return steps

    def query(self, points: np.ndarray) -> np.ndarray:
        """Return values float32 [n, n_outputs] at points [n, n_dims] of the unit cube."""
        found = []
        for begin in range(0, len(points), _EVALUATED_POINTS):
            part = points[begin : begin + _EVALUATED_POINTS].astype(np.float32)
            x = wp.array(_blocked(part), dtype=float, device="cpu")
            n_blocks = x.size // (32 * self.n_dims)
            features = wp.zeros(n_blocks * 32 * self.encoding.n_outputs, dtype=float, device="cpu")
            y = wp.zeros(n_blocks * 32 * self.n_outputs, dtype=float, device="cpu")
            encode = self._encode(x, features)
            for item in (*encode, *self.network.forward(self.weights.value, features, y)):
                item.run()
            values = y.numpy().reshape(n_blocks, self.n_outputs, 32).transpose(0, 2, 1)
            found.append(values.reshape(-1, self.n_outputs)[: len(part)])
        return np.concatenate(found)

    def _encode(self, x: wp.array, features: wp.array) -> list[launch.Launch]:
        return self.encoding.forward(x, self.table.value, features, self.encoding.n_outputs)

    def _step(self, x: wp.array, target: wp.array, n_points: int, loss: Loss) -> Stages:
        n_rows, weights, table = self.encoding.n_outputs, self.weights, self.table
        features = wp.zeros(n_points * n_rows, dtype=float, device="cpu")
        d_features = wp.zeros_like(features)
        passes, _ = self.network.train(
            weights.value, features, target, n_points, loss, d_features, weights.gradient
        )
        assert table.touched is not None
        scatter = self.encoding.backward(x, d_features, table.gradient, table.touched, n_rows)
        stages = [[item] for item in (*self._encode(x, features), *passes, *scatter)]
        return stages + self.optimizer.update()


def _blocked(points: np.ndarray) -> np.ndarray:
    """Return points [n, d] as flat blocks [n_blocks, d, 32], padded with the last one."""
    padded = np.pad(points, ((0, -len(points) % 32), (0, 0)), mode="edge")
    return padded.reshape(-1, 32, points.shape[1]).transpose(0, 2, 1).reshape(-1)

"""Any encoding and a network, trained for so many seconds."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import Loss, NetworkConfig, OptimizerConfig
from ngp_warp.encodings.composite import Composite
from ngp_warp.encodings.encoding import Encoding
from ngp_warp.encodings.grid_features import GridFeatures
from ngp_warp.encodings.octree import OctreeEncoding
from ngp_warp.networks.mlp import make_network
from ngp_warp.optimizer import Adam, Parameters, make_table, make_weights

Stages = list[list[launch.Launch]]
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
        self.encoding, self.n_outputs = encoding, n_outputs
        self.network = make_network(network, encoding.n_outputs, n_outputs, "cpu")
        self.weights = make_weights(self.network.initial_weights(0), optimizer, "cpu")
        parameters = [self.weights]
        self.table: Parameters | None = None
        if encoding.n_params:
            values = encoding.initial_params(0)
            self.table = make_table(values, _n_features(encoding), optimizer, "cpu")
            parameters.append(self.table)
        self.optimizer = Adam(optimizer, parameters, "cpu")

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        return self.network.n_params + self.encoding.n_params

    def train(
        self,
        draw: Callable[..., Stages],
        n_points: int,
        loss: Loss,
        seconds: float,
        n_steps: int = 0,
    ) -> int:
        """Train, and return the steps.

        Args:
            draw: (step, x, target) -> stages that fill x and target.
            n_points: of a batch.
            loss: of the values.
            seconds: how long; the learning rate decays towards the end.
            n_steps: how many steps instead; 0: as many as there is time for.
        """
        x = wp.zeros(n_points * self.encoding.n_dims, dtype=float)
        target = wp.zeros(n_points * self.n_outputs, dtype=float)
        stages = [[self.optimizer.advance()], *draw(self.optimizer.step, x, target)]
        stages += self._step(x, target, n_points, loss)
        self.optimizer.n_steps.fill_(n_steps)
        start, steps, total = time.perf_counter(), 0, n_steps
        while not total or steps < total:
            for stage in stages:
                launch.run_all(stage)
            steps += 1
            elapsed = time.perf_counter() - start
            if not total and elapsed > _WARM_UP * seconds:
                total = max(round(steps * seconds / elapsed), steps + 1)
                self.optimizer.n_steps.fill_(total)
        return steps

    def query(self, points: np.ndarray) -> np.ndarray:
        """Return values float32 [n, n_outputs] at points [n, n_dims] of the unit cube."""
        found = []
        for begin in range(0, len(points), _EVALUATED_POINTS):
            part = points[begin : begin + _EVALUATED_POINTS].astype(np.float32)
            x = wp.array(_blocked(part), dtype=float)
            n_blocks = x.size // (32 * self.encoding.n_dims)
            features = wp.zeros(n_blocks * 32 * self.encoding.n_outputs, dtype=float)
            y = wp.zeros(n_blocks * 32 * self.n_outputs, dtype=float)
            for item in self._forward(x, features, y):
                item.run()
            values = y.numpy().reshape(n_blocks, self.n_outputs, 32).transpose(0, 2, 1)
            found.append(values.reshape(-1, self.n_outputs)[: len(part)])
        return np.concatenate(found)

    def _forward(self, x: wp.array, features: wp.array, y: wp.array) -> list[launch.Launch]:
        table = self.table.value if self.table else None
        encode = self.encoding.forward(x, table, features)
        return [*encode, *self.network.forward(self.weights.value, features, y)]

    def _step(self, x: wp.array, target: wp.array, n_points: int, loss: Loss) -> Stages:
        features = wp.zeros(n_points * self.encoding.n_outputs, dtype=float)
        d_features = wp.zeros_like(features)
        table = self.table.value if self.table else None
        encode = self.encoding.forward(x, table, features)
        weights = self.weights
        passes, _ = self.network.train(
            weights.value, features, target, n_points, loss, d_features, weights.gradient
        )
        stages = [[item] for item in (*encode, *passes, *self._scatter(x, d_features))]
        return stages + self.optimizer.update()

    def _scatter(self, x: wp.array, d_features: wp.array) -> list[launch.Launch]:
        """Record the gradients of the encoding's parameters, with the flags that Adam reads."""
        if self.table is None or self.table.touched is None:
            return []
        gradient, touched = self.table.gradient, self.table.touched
        if isinstance(self.encoding, GridFeatures):
            n_rows = self.encoding.n_outputs
            return [self.encoding.grid.backward(x, d_features, gradient, touched, n_rows)]
        mark: Any = launch.Call(lambda: touched.fill_(1))
        scatter = self.encoding.backward(x, self.table.value, d_features, d_params=gradient)
        return [*scatter, launch.Launch([mark], "cpu", False)]


def _n_features(encoding: Encoding) -> int:
    """Return the parameters of an entry: Adam steps them together."""
    if isinstance(encoding, Composite):
        return max(_n_features(part) for part in encoding.encodings)
    if isinstance(encoding, GridFeatures):
        return encoding.grid.n_features
    return encoding.n_features if isinstance(encoding, OctreeEncoding) else 0


def _blocked(points: np.ndarray) -> np.ndarray:
    """Return points [n, d] as flat blocks [n_blocks, d, 32], padded with the last one."""
    padded = np.pad(points, ((0, -len(points) % 32), (0, 0)), mode="edge")
    return padded.reshape(-1, 32, points.shape[1]).transpose(0, 2, 1).reshape(-1)

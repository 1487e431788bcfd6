"""A field: an encoding and a network that map positions to values."""

from collections.abc import Callable
from typing import Any

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.config import (
    GridEncodingConfig,
    Loss,
    NetworkConfig,
    OptimizerConfig,
    check_range,
)
from ngp_warp.encodings.grid import GridEncoding, grid_levels
from ngp_warp.encodings.grid_jacobian import GridJacobian
from ngp_warp.errors import ShapeError
from ngp_warp.kernels import layout
from ngp_warp.networks.eikonal import EikonalArrays, make_eikonal_network
from ngp_warp.networks.mlp import make_network
from ngp_warp.optimizer import Adam, Parameters, make_table, make_weights

QUERY_POINTS = 2**16
"""Points of one pass of a query: its features lie in the caches, its memory is bounded."""
_QUERY_POINTS_CUDA = 2**20
"""The same on CUDA, where each pass is recorded and waited for; 32 features take 0.1 GB."""


def query_points(device: str) -> int:
    """Return the points of one pass of a query that suit a device."""
    return QUERY_POINTS if device == "cpu" else _QUERY_POINTS_CUDA


class Field:
    """A grid encoding followed by a network.

    Args:
        n_dims: 2 or 3.
        n_outputs: values of a point.
        encoding: resolved (``ngp_warp.encodings.grid.resolve``).
        network: settings.
        optimizer: settings; say what state is kept.
        seed: of the initial values.
        device: "cpu" or a CUDA device.
        deterministic: sum the table's gradients in fixed point on CUDA.
        trainable: False: no gradients and moments, a quarter of the memory.
    """

    def __init__(
        self,
        n_dims: int,
        n_outputs: int,
        *,
        encoding: GridEncodingConfig,
        network: NetworkConfig,
        optimizer: OptimizerConfig,
        seed: int,
        device: str,
        deterministic: bool = False,
        trainable: bool = True,
    ):
        self.n_dims = n_dims
        self.n_outputs = n_outputs
        self.device = device
        self.encoding = GridEncoding(n_dims, encoding, device)
        self.network = make_network(network, self.encoding.n_outputs, n_outputs, device)
        self.weights = make_weights(
            self.network.initial_weights(seed), optimizer, device, trainable=trainable
        )
        self.table = make_table(
            self.encoding.initial_table(seed),
            self.encoding.n_features,
            optimizer,
            device,
            half=encoding.half,
            quantization=encoding.quantization,
            fixed_point=deterministic and device != "cpu",
            flagged=self.encoding.flagged,
            trainable=trainable,
        )
        self.optimizer = Adam(optimizer, [self.weights, self.table], device)

    @property
    def n_params(self) -> int:
        """Number of trained values."""
        return self.weights.value.size + self.table.value.size

    def parameters(self) -> dict[str, Parameters]:
        """Return the trained arrays by name, the network first."""
        return {"network": self.weights, "encoding": self.table}

    def extra_state(self) -> dict[str, wp.array]:
        """Return what else a checkpoint holds: nothing."""
        return {}

    def zeros(self, n_points: int, n_rows: int) -> wp.array:
        """Return a blocked array for n_points (a multiple of 32) on the field's device."""
        return wp.zeros(n_points * n_rows, dtype=wp.float32, device=self.device)

    def train_stages(
        self, x: wp.array, target: wp.array, n_points: int, loss: Loss
    ) -> tuple[list[list[launch.Launch]], wp.array]:
        """Record the part of a training step from positions and targets to updated parameters.

        Args:
            x: positions, blocked [n_blocks, n_dims, 32], in the unit cube.
            target: blocked [n_blocks, n_outputs, 32].
            n_points: points that count; the rest of the last block is padding.
            loss: averaged over n_points and outputs.

        Returns:
            Stages of launches, and the array [n_chunks, 2] of sums of the loss and the squared
            error.
        """
        padded = x.size // self.n_dims
        n_rows = self.encoding.n_outputs
        features, d_features = self.zeros(padded, n_rows), self.zeros(padded, n_rows)
        encode = self.encoding.forward(x, self.table.read, features, n_rows)
        passes, losses = self.network.train(
            self.weights.value, features, target, n_points, loss, d_features, self.weights.gradient
        )
        scatter = self.encoding.backward(
            x, d_features, self.table.gradient, self.table.touched, n_rows
        )
        return self._step_stages(encode, passes, scatter), losses

    def eikonal_train_stages(
        self, x: wp.array, target: wp.array, n_points: int, loss: Loss, weight: float
    ) -> tuple[list[list[launch.Launch]], wp.array, wp.array]:
        """Record ``train_stages`` for loss + weight * mean (|df/dx| - 1)^2 over the same points.

        The gradients are exact, those of the term too (Gropp et al. 2020, equation 2; where df/dx
        is zero, its length counts as constant). df/dx is taken in the unit cube's own units.

        Args:
            x: as in ``train_stages``.
            target: as in ``train_stages``.
            n_points: as in ``train_stages``.
            loss: of the value.
            weight: of the term, at least 0.

        Returns:
            Stages of launches; the array [n, 2] of sums of the loss (without the term) and the
            squared error; and an array of sums of (|df/dx| - 1)^2, over all points to be divided
            by n_points.

        Raises:
            ConfigError: several outputs, interpolation "nearest", or a weight out of its range.
        """
        check_range("eikonal_weight", weight, 0.0)
        network = make_eikonal_network(self.network, self.n_dims, self.device)
        encoding = GridJacobian(self.encoding)
        padded, n_rows = x.size // self.n_dims, self.encoding.n_outputs
        arrays = EikonalArrays(
            features=self.zeros(padded, n_rows),
            jacobian=self.zeros(padded, n_rows * self.n_dims),
            target=target,
            d_features=self.zeros(padded, n_rows),
            slope=self.zeros(padded, n_rows),
            v=self.zeros(padded, self.n_dims),
        )
        encode = encoding.forward(x, self.table.read, arrays.features, arrays.jacobian)
        passes, losses, residuals = network.train_eikonal(
            self.weights.value, arrays, n_points, loss, weight, self.weights.gradient
        )
        scatter = encoding.backward(
            x, arrays.d_features, arrays.slope, arrays.v, self.table.gradient, self.table.touched
        )
        return self._step_stages(encode, passes, scatter), losses, residuals

    def _step_stages(
        self, encode: launch.Launch, passes: list[launch.Launch], scatter: launch.Launch
    ) -> list[list[launch.Launch]]:
        """Return a step's stages; the weight gradients' sum runs beside the table's scatter."""
        stages = [[encode], *([p] for p in passes[:-1]), [passes[-1], scatter]]
        return stages + self.optimizer.update()

    def evaluation_stages(self, x: wp.array, y: wp.array) -> list[list[launch.Launch]]:
        """Record y = field(x), both blocked, with the last parameters."""
        features = self.zeros(x.size // self.n_dims, self.encoding.n_outputs)
        encode = self.encoding.forward(x, self.table.read, features, self.encoding.n_outputs)
        return [[encode], *([p] for p in self.network.forward(self.weights.value, features, y))]

    def use_average(self) -> None:
        """Replace the parameters by their moving average, for evaluation; a no-op without one."""
        self.optimizer.use_average()

    def query(self, points: Any) -> Any:
        """Return the field's values at points.

        Args:
            points: NumPy array or torch tensor [n, n_dims], in the unit cube (clamped to it).

        Returns:
            float32 [n, n_outputs]: a NumPy array, or a torch tensor on the device of ``points``.

        Raises:
            ShapeError: another shape, or values that are no real numbers.
        """
        return self._query(points, gradient=False)[0]

    def value_and_gradient(self, points: Any) -> tuple[Any, Any]:
        """Return values [n, n_outputs] and Jacobians [n, n_outputs, n_dims] at points.

        Arguments, kinds of array and errors as in ``query``. Linear interpolation makes the
        Jacobian constant along its axis inside a cell and discontinuous between cells.
        """
        values, jacobian = self._query(points, gradient=True)
        return values, jacobian

    def _query(self, points: Any, *, gradient: bool) -> tuple[Any, Any]:
        array, back = as_numpy(points)
        if array.ndim != 2 or array.shape[1] != self.n_dims:
            raise ShapeError(f"points must have shape [n, {self.n_dims}], got {list(array.shape)}")
        if array.dtype.kind not in "fiu":
            raise ShapeError(f"points must be real numbers, got dtype {array.dtype}")
        with np.errstate(over="ignore"):  # infinite is outside the cube too, and clamped
            array = np.ascontiguousarray(array, dtype=np.float32)
        values = np.empty((len(array), self.n_outputs), np.float32)
        shape = (len(array), self.n_outputs, self.n_dims)
        jacobian = np.empty(shape if gradient else (0,), np.float32)
        size = query_points(self.device)
        for begin in range(0, len(array), size):
            part = slice(begin, begin + size)
            x, features, y = self._evaluate(array[part])
            values[part] = self._to_numpy(y, self.n_outputs, len(array[part]))
            if gradient:
                jacobian[part] = self._jacobian(x, features, len(array[part]))
        return back(values), back(jacobian) if gradient else None

    def blocked(self, points: np.ndarray) -> wp.array:
        """Return points, float32 [n, n_dims], blocked on the field's device, padded to 32."""
        padded = -(-len(points) // 32) * 32
        x = self.zeros(padded, self.n_dims)
        source = wp.array(points, dtype=wp.float32, device=self.device)
        launch.launch(layout.to_blocked, padded, [source, self.n_dims, x], self.device)
        return x

    def _evaluate(self, points: np.ndarray) -> tuple[wp.array, wp.array, wp.array]:
        """Return blocked positions, features and values of points."""
        x = self.blocked(points)
        padded = x.size // self.n_dims
        y = self.zeros(padded, self.n_outputs)
        n_rows = self.encoding.n_outputs
        features = self.zeros(padded, n_rows)
        self.encoding.forward(x, self.table.read, features, n_rows).run()
        for item in self.network.forward(self.weights.value, features, y):
            item.run()
        return x, features, y

    def _jacobian(self, x: wp.array, features: wp.array, n: int) -> np.ndarray:
        """Return [n, n_outputs, n_dims], one backward pass an output."""
        padded = x.size // self.n_dims
        n_rows = self.encoding.n_outputs
        dy, d_features = self.zeros(padded, self.n_outputs), self.zeros(padded, n_rows)
        dx = self.zeros(padded, self.n_dims)
        unused = wp.zeros_like(self.weights.value)
        passes = self.network.backward(self.weights.value, features, dy, d_features, unused)
        passes.append(self.encoding.input_gradient(x, d_features, self.table.read, dx, n_rows))
        rows = []
        for output in range(self.n_outputs):
            args = [output, self.n_outputs, n, dy]
            launch.launch(layout.set_row, padded, args, self.device)
            for item in passes:
                item.run()
            rows.append(self._to_numpy(dx, self.n_dims, n))
        return np.stack(rows, axis=1)

    def _to_numpy(self, blocked: wp.array, n_rows: int, n: int) -> np.ndarray:
        points = wp.empty((n, n_rows), dtype=float, device=self.device)
        launch.launch(layout.from_blocked, n, [blocked, n_rows, points], self.device)
        return points.numpy()


def field_settings(config: Any) -> dict[str, Any]:
    """Return what a primitive's resolved config says of its ``Field``, as keywords."""
    return {
        "encoding": config.encoding,
        "network": config.network,
        "optimizer": config.optimizer,
        "seed": config.training.seed,
        "deterministic": config.training.deterministic,
    }


def training_bytes(config: Any, n_dims: int, n_outputs: int, device: str) -> dict[str, int]:
    """Return the memory in bytes that training a field takes, by what takes it.

    Args:
        config: a primitive's, resolved: its encoding, network, optimizer and training.
        n_dims: of the positions.
        n_outputs: values of a point.
        device: "cpu" or a CUDA device.
    """
    encoding: GridEncodingConfig = config.encoding
    n_rows = int(encoding.n_levels or 0) * int(encoding.n_features_per_level or 0)
    network = make_network(config.network, n_rows, n_outputs, device)
    rows = n_rows * 2 + n_dims + 2 * n_outputs
    return {
        "table": table_bytes(encoding, config.optimizer, n_dims),
        "network": network.n_params * _bytes_per_value(config.optimizer),
        "batch": int(config.training.batch_size or 0) * rows * 4,
    }


def table_bytes(encoding: GridEncodingConfig, optimizer: OptimizerConfig, n_dims: int) -> int:
    """Return the memory in bytes that training a resolved encoding's table takes."""
    last = grid_levels(encoding, n_dims)[-1]
    per_value = _bytes_per_value(optimizer) + (2 if encoding.half else 0)
    n_features = int(encoding.n_features_per_level or 0)
    return (last.offset + last.size) * (n_features * per_value + 5)


def _bytes_per_value(optimizer: OptimizerConfig) -> int:
    """Return those of a trained value; a checkpoint is written from a copy."""
    averaged = 4 if optimizer.ema_decay else 0
    return 16 + averaged + 12 + averaged


def check_points(points: np.ndarray) -> None:
    """Raise ShapeError unless points are finite numbers [n, 3]."""
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise ShapeError(f"points must be numbers [n, 3], got {points.dtype} {list(points.shape)}")
    if not np.isfinite(points).all():
        raise ShapeError("points must be finite")


def as_numpy(points: Any) -> tuple[np.ndarray, Callable[[np.ndarray], Any]]:
    """Return points as NumPy, and the function that turns results back to their kind."""
    if type(points).__module__.partition(".")[0] == "torch":
        import torch

        device = points.device
        # NumPy has no bfloat16
        narrow = points.dtype == torch.bfloat16
        array = (points.float() if narrow else points).detach().cpu().numpy()
        return array, lambda a: torch.from_numpy(a).to(device)
    try:
        return np.asarray(points), lambda a: a
    except ValueError as error:
        raise ShapeError(f"points must be an array of numbers: {error}") from error

"""What the encodings without parameters share."""

from types import ModuleType
from typing import Any

import numpy as np
import warp as wp

from ngp_warp.config import check_range
from ngp_warp.encodings.encoding import check_rows
from ngp_warp.kernels import coordinates
from ngp_warp.kernels.coordinates import Functions
from ngp_warp.kernels.vector import block_items
from ngp_warp.launch import Launch, record

# as many as a network's layer has neurons: features of other networks are inputs too
MAX_DIMS = 4096


class FixedEncoding:
    """Features of a point, of which nothing is trained.

    Args:
        n_dims: coordinates of a point, 1 to 4096.
        n_outputs: rows of the features.
        device: "cpu" or a CUDA device.
        kernels: module that has forward_kernel, backward_kernel and second_order_kernel.
        shape: what these are compiled for.
        settings: in tiny-cuda-nn's JSON form.

    Raises:
        ConfigError: another number of dimensions.
    """

    n_params = 0

    def __init__(
        self,
        n_dims: int,
        n_outputs: int,
        device: str,
        kernels: ModuleType,
        shape: tuple[Any, ...],
        settings: dict[str, Any],
    ):
        check_range("encoding.n_dims", n_dims, 1, MAX_DIMS)
        self.n_dims = n_dims
        self.n_outputs = n_outputs
        self.device = device
        self._kernels = kernels
        self._shape = shape
        self._settings = settings

    def initial_params(self, seed: int) -> np.ndarray:
        """Return an empty array."""
        del seed
        return np.zeros(0, np.float32)

    def forward(self, x: wp.array, params: wp.array | None, y: wp.array) -> list[Launch]:
        """Record y = encoding(x)."""
        del params
        n_items = block_items(check_rows(self, x=x, y=y), self.device)
        return [record(self._kernels.forward_kernel(*self._shape), n_items, [x, y], self.device)]

    def backward(
        self,
        x: wp.array,
        params: wp.array | None,
        dy: wp.array,
        *,
        dx: wp.array | None = None,
        d_params: wp.array | None = None,
    ) -> list[Launch]:
        """Record the gradient in x."""
        del params, d_params
        n_items = block_items(check_rows(self, x=x, dy=dy, dx=dx), self.device)
        if dx is None:
            return []
        kernel = self._kernels.backward_kernel(*self._shape)
        return [record(kernel, n_items, [x, dy, dx], self.device)]

    def second_order(
        self,
        x: wp.array,
        params: wp.array | None,
        dy: wp.array,
        v: wp.array,
        *,
        d_dy: wp.array | None,
        dx: wp.array | None,
        d_params: wp.array | None,
    ) -> list[Launch]:
        """Record the gradients of <v, dx>."""
        del params, d_params
        n_items = block_items(check_rows(self, x=x, dy=dy, v=v, d_dy=d_dy, dx=dx), self.device)
        if d_dy is None and dx is None:
            return []
        kernel = self._kernels.second_order_kernel(*self._shape)
        return [record(kernel, n_items, [x, dy, v, d_dy, dx], self.device)]

    def hyperparams(self) -> dict[str, Any]:
        """Return the settings in tiny-cuda-nn's JSON form."""
        return dict(self._settings)


class CoordinateEncoding(FixedEncoding):
    """Rows d * n + k of f_k(x_d); the equations stand in kernels/coordinates.py."""

    def __init__(self, n_dims: int, functions: Functions, device: str, settings: dict[str, Any]):
        n_outputs = n_dims * functions.n_rows
        super().__init__(n_dims, n_outputs, device, coordinates, (functions, n_dims), settings)

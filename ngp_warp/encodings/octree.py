"""The sparse octree encoding: features where there is something, and nowhere else."""

from typing import Any

import numpy as np
import warp as wp

from ngp_warp.config import N_FEATURES_ALLOWED, check_choice
from ngp_warp.encodings.encoding import check_rows
from ngp_warp.encodings.octree_cells import MAX_ENTRIES, ROUND, Octree
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import octree as kernels
from ngp_warp.kernels.vector import block_items
from ngp_warp.launch import Launch, record

REDUCTIONS = ("concatenation", "sum")


class OctreeEncoding:
    """Features at the corners of an octree's cells (Takikawa et al. 2021), interpolated linearly.

    A level gives 0 where the tree has no cell of it. Parameters are the corners' features, level
    after level, and up to 7 entries that are never read. Memory on the device, beside the
    parameters: ``octree.n_bytes``.

    Args:
        octree: cells and corners.
        device: "cpu" or a CUDA device.
        n_features: of a corner: 1, 2, 4 or 8.
        reduction: levels one after another (concatenation), or their sum as in NGLOD.

    Raises:
        ConfigError: another reduction or number of features, or too many parameters.
    """

    def __init__(
        self, octree: Octree, device: str, *, n_features: int = 2, reduction: str = "concatenation"
    ):
        check_choice("encoding.reduction", reduction, REDUCTIONS)
        check_choice("encoding.n_features", n_features, N_FEATURES_ALLOWED)
        self.octree = octree
        self.reduction = reduction
        self.n_dims = octree.n_dims
        self.n_features = n_features
        self.n_params = -(-octree.n_corners // ROUND) * ROUND * n_features
        if self.n_params > MAX_ENTRIES:
            raise ConfigError(
                f"the octree has {octree.n_corners} corners of {n_features} features, more than "
                f"{MAX_ENTRIES} parameters"
            )
        self.shape = kernels.OctreeShape(
            n_dims=octree.n_dims,
            n_features=n_features,
            first_level=octree.first_level,
            last_level=octree.last_level,
            summed=reduction == "sum",
        )
        self.n_outputs = self.shape.n_rows
        self.device = device
        child, corner = octree.child.reshape(-1), octree.corner.reshape(-1)
        self._tree = [
            wp.array(child, dtype=int, device=device),
            wp.array(corner, dtype=int, device=device),
            octree.first_cell,
        ]

    def initial_params(self, seed: int) -> np.ndarray:
        """Return float32 [n_params], uniform in +-1e-4 like a grid's."""
        rng = np.random.default_rng([seed, 2])
        return (rng.random(self.n_params, dtype=np.float32) * 2 - 1) * np.float32(1e-4)

    def forward(self, x: wp.array, params: wp.array | None, y: wp.array) -> list[Launch]:
        """Record y = interpolated features."""
        n_items = block_items(check_rows(self, x=x, params=params, y=y), self.device)
        kernel = kernels.forward_kernel(self.shape)
        return [record(kernel, n_items, [x, params, *self._tree, y], self.device)]

    def backward(
        self,
        x: wp.array,
        params: wp.array | None,
        dy: wp.array,
        *,
        dx: wp.array | None = None,
        d_params: wp.array | None = None,
    ) -> list[Launch]:
        """Record the gradients in x and the corners' features."""
        n_blocks = check_rows(self, x=x, params=params, dy=dy, dx=dx, d_params=d_params)
        launches = []
        if d_params is not None:
            launches.append(self._scatter(n_blocks, x, dy, None, d_params))
        if dx is not None:
            kernel, n_items = (
                kernels.backward_kernel(self.shape),
                block_items(n_blocks, self.device),
            )
            launches.append(record(kernel, n_items, [x, params, *self._tree, dy, dx], self.device))
        return launches

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
        n_blocks = check_rows(
            self, x=x, params=params, dy=dy, v=v, d_dy=d_dy, dx=dx, d_params=d_params
        )
        launches = []
        if d_params is not None:
            launches.append(self._scatter(n_blocks, x, dy, v, d_params))
        if d_dy is not None or dx is not None:
            kernel = kernels.second_order_kernel(self.shape)
            args = [x, params, *self._tree, dy, v, d_dy, dx]
            launches.append(record(kernel, block_items(n_blocks, self.device), args, self.device))
        return launches

    def hyperparams(self) -> dict[str, Any]:
        """Return the settings in tiny-cuda-nn's style, which has no octrees; cells not included."""
        return {
            "otype": "Octree",
            "first_level": self.octree.first_level,
            "last_level": self.octree.last_level,
            "n_features": self.n_features,
            "reduction": self.reduction.capitalize(),
        }

    def _scatter(
        self, n_blocks: int, x: wp.array, dy: wp.array, v: wp.array | None, d_params: wp.array
    ) -> Launch:
        kernel = kernels.scatter_kernel(self.shape, v is not None)
        args = [x, *self._tree, dy, v, n_blocks, d_params]
        n_levels = self.octree.n_levels
        if self.device == "cpu":
            return record(kernel, n_levels, args, self.device, shards=n_levels)
        return record(kernel, n_blocks * 32, args, self.device)

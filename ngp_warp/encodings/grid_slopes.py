"""A grid's gradients by its Jacobian on a CPU, where vector kernels make that faster."""

from collections.abc import Iterator
from typing import Any

import warp as wp

from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.encodings.grid_jacobian import GridJacobian
from ngp_warp.encodings.rows import scratch
from ngp_warp.kernels import contract
from ngp_warp.kernels.vector import block_items
from ngp_warp.launch import Launch, record

# 2^14 points: the Jacobian of 16 levels of 2 features in 3 dimensions takes 6 MB
BLOCKS_PER_CHUNK = 512


class GridSlopes:
    """dx = J^T dy, J v, and the table's gradient of <v, J^T dy>; J is made chunk by chunk.

    The portable kernels gather an entry for each of these, one point at a time, and need twice to
    four times as long.

    Args:
        grid: linear or smoothstep.
    """

    def __init__(self, grid: GridEncoding):
        self.grid = grid
        self._jacobian = GridJacobian(grid)

    def input_gradient(
        self, x: wp.array, table: wp.array, dy: wp.array, dx: wp.array
    ) -> list[Launch]:
        """Record dx = J^T dy; arrays as in ``Encoding.backward``."""
        g = self.grid
        return self._each(x, table, contract.input_kernel(), (dy, g.n_outputs), (dx, g.n_dims))

    def tangent(self, x: wp.array, table: wp.array, v: wp.array, d_dy: wp.array) -> list[Launch]:
        """Record d_dy = J v; arrays as in ``Encoding.second_order``."""
        g = self.grid
        return self._each(x, table, contract.tangent_kernel(), (v, g.n_dims), (d_dy, g.n_outputs))

    def table_gradient(self, x: wp.array, dy: wp.array, v: wp.array, d_table: wp.array) -> Launch:
        """Record d_table += the gradient of <v, J^T dy>."""
        flags = self.grid.make_flags()
        return self._jacobian.backward(x, wp.zeros_like(dy), dy, v, d_table, flags)

    def _each(
        self,
        x: wp.array,
        table: wp.array,
        kernel: wp.Kernel,
        source: tuple[wp.array, int],
        target: tuple[wp.array, int],
    ) -> list[Launch]:
        """Record, for each chunk, J and a product of it from source to target (array, rows)."""
        g, launches = self.grid, []
        n_blocks = g.n_blocks(x)
        most = min(n_blocks, BLOCKS_PER_CHUNK)
        features = scratch(most, g.n_outputs, g.device)
        jacobian = scratch(most, g.n_dims * g.n_outputs, g.device)
        for begin, end in _chunks(n_blocks):
            n = end - begin
            own: Any = jacobian[: n * g.n_dims * g.n_outputs * 32]
            parts: Any = (
                array[begin * rows * 32 : end * rows * 32]
                for array, rows in ((x, g.n_dims), source, target)
            )
            part, inputs, outputs = parts
            spare: Any = features[: n * g.n_outputs * 32]
            launches.append(self._jacobian.forward(part, table, spare, own))
            args = [own, inputs, g.n_dims, g.n_outputs, outputs]
            launches.append(record(kernel, block_items(n, g.device), args, g.device))
        return launches


def _chunks(n_blocks: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, n_blocks, BLOCKS_PER_CHUNK):
        yield begin, min(begin + BLOCKS_PER_CHUNK, n_blocks)

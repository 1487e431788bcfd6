"""The grid encoding with its Jacobian, for losses on the field's gradient."""

import warp as wp

from ngp_warp import launch
from ngp_warp.encodings.grid import GridEncoding
from ngp_warp.errors import ConfigError
from ngp_warp.kernels import grid as grid_kernels
from ngp_warp.kernels import grid_jacobian as vector
from ngp_warp.kernels import grid_jacobian_portable as portable
from ngp_warp.launch import check_size


class GridJacobian:
    """Features y of a grid and their Jacobian J = dy/dx, and the gradients of both.

    J is kept: 4 * n_dims * n_outputs bytes a point, so that the entries are gathered once and
    scattered once.

    Args:
        encoding: the grid; its backend is used.

    Raises:
        ConfigError: interpolation "nearest", which has no slope.
    """

    def __init__(self, encoding: GridEncoding):
        if encoding.config.interpolation == "nearest":
            raise ConfigError(
                "the eikonal term needs encoding.interpolation linear or smoothstep, got nearest"
            )
        self.encoding = encoding

    def forward(
        self, x: wp.array, table: wp.array, out: wp.array, jacobian: wp.array
    ) -> launch.Launch:
        """Record features and Jacobian.

        Args:
            x: positions, blocked, flat float32 [n_blocks * n_dims * 32].
            table: flat [n_params] of the encoding's ``table_dtype``.
            out: features, blocked, flat float32 [n_blocks * n_outputs * 32].
            jacobian: out, blocked, flat float32 [n_blocks * n_dims * n_outputs * 32]: row
                d * n_outputs + feature.
        """
        e = self.encoding
        n_blocks = e.n_blocks(x)
        check_size("table", table, e.n_params, e.device)
        check_size("out", out, n_blocks * e.n_outputs * 32, e.device)
        check_size("jacobian", jacobian, n_blocks * e.n_dims * e.n_outputs * 32, e.device)
        args = [x, table, e.scale, e.meta, e.n_levels, e.n_outputs, n_blocks, out, jacobian]
        if e.backend == "vector":
            n_runs = -(-n_blocks // grid_kernels.BLOCKS_PER_ITEM)
            kernel = vector.forward_kernel(e.shape)
            return launch.record(kernel, n_runs * e.n_levels, args, e.device)
        kernel = portable.forward_kernel(e.shape)
        return launch.record(kernel, n_blocks * 32 * e.n_levels, args, e.device)

    def backward(
        self,
        x: wp.array,
        d_out: wp.array,
        slope: wp.array,
        v: wp.array,
        d_table: wp.array,
        touched: wp.array | None,
    ) -> launch.Launch:
        """Record d_table += the gradient of <y, d_out> + v^T J^T slope.

        Args:
            x: as in ``forward``.
            d_out: laid out like the features; zero where a block is padded.
            slope: laid out like the features.
            v: blocked like x; zero where a block is padded.
            d_table: as in ``GridEncoding.backward``.
            touched: as in ``GridEncoding.backward``.
        """
        e = self.encoding
        n_blocks = e.n_blocks(x)
        for name, array in (("d_out", d_out), ("slope", slope)):
            check_size(name, array, n_blocks * e.n_outputs * 32, e.device)
        check_size("v", v, x.size, e.device)
        check_size("d_table", d_table, e.n_params, e.device)
        e.check_flags(touched)
        args = [x, d_out, slope, v, e.scale, e.meta, e.n_outputs, n_blocks, d_table, touched]
        if e.backend == "vector":
            kernel = vector.backward_kernel(e.shape)
            return launch.record(kernel, e.n_levels, args, e.device, shards=e.n_levels)
        kernel = portable.backward_kernel(e.shape, fixed_point=d_table.dtype == wp.int64)
        # one shard on a CPU, where atomics of two shards would lose sums
        return launch.record(kernel, n_blocks * 32 * e.n_levels, args, e.device, shards=1)

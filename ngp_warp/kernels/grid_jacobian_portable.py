"""The grid with its Jacobian in Warp's own language, for CUDA.

Source, twin and arguments as in kernels/grid_jacobian.py, which serves the CPU. Device functions as
in kernels/grid_portable.py.
"""

import functools

import warp as wp

from ngp_warp.kernels.atomics import mark
from ngp_warp.kernels.grid import GROUP, GridShape
from ngp_warp.kernels.grid_portable import (
    adder,
    entry_loader,
    entry_vector,
    functions,
    table_array,
)
from ngp_warp.launch import module_options


@functools.cache
def forward_kernel(shape: GridShape) -> wp.Kernel:
    """Return the kernel of features and Jacobian, for (level, point)."""
    fn = functions(shape)
    position, fraction, slope = fn.position, fn.fraction, fn.slope
    weight, weight_gradient, entry = fn.weight, fn.weight_gradient, fn.entry
    n_features, n_corners = wp.constant(shape.n_features), wp.constant(fn.n_corners)
    n_dims, three = wp.constant(shape.n_dims), wp.constant(shape.n_dims == 3)
    table_type, vector = table_array(shape), entry_vector(shape.n_features)
    load = entry_loader(shape.n_features, shape.dtype)

    @wp.kernel(module="unique", module_options=module_options())
    def grid_jacobian_forward_portable(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        table: table_type,  # [n_entries, F]
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_levels: int,
        n_rows: int,
        n_blocks: int,
        # out
        out: wp.array[float],  # [n_blocks, n_rows, 32]
        jacobian: wp.array[float],  # [n_blocks, n_dims, n_rows, 32]
    ):
        """y_f = sum_c w_c T[c, f]; J_df = sum_c (d w_c / d x_d) T[c, f]."""
        i = begin + wp.tid()
        level = i / (n_blocks * 32)
        point = i % (n_blocks * 32)
        block = point / 32
        p = position(x, point, scale[level])
        s = fraction(p)
        ds = slope(p)
        y = vector()
        jx = vector()
        jy = vector()
        jz = vector()
        for c in range(n_corners):
            t = load(table, entry(p, c, level, meta) * n_features)
            g = weight_gradient(c, s, ds, scale[level])
            y += weight(c, s) * t
            jx += g[0] * t
            jy += g[1] * t
            if three:
                jz += g[2] * t
        row = level * n_features
        for f in range(n_features):
            at = (row + f) * 32 + point % 32
            out[block * n_rows * 32 + at] = y[f]
            jacobian[block * n_dims * n_rows * 32 + at] = jx[f]
            jacobian[(block * n_dims + 1) * n_rows * 32 + at] = jy[f]
            if three:
                jacobian[(block * n_dims + 2) * n_rows * 32 + at] = jz[f]

    return grid_jacobian_forward_portable


@functools.cache
def backward_kernel(shape: GridShape, fixed_point: bool = False) -> wp.Kernel:
    """Return the kernel that scatters the features' and the Jacobian's gradients."""
    fn = functions(shape)
    position, fraction, slope = fn.position, fn.fraction, fn.slope
    weight, weight_gradient, entry = fn.weight, fn.weight_gradient, fn.entry
    n_features, n_corners = wp.constant(shape.n_features), wp.constant(fn.n_corners)
    n_dims, group = wp.constant(shape.n_dims), wp.constant(GROUP)
    vector = entry_vector(shape.n_features)
    gradient_type = wp.array[wp.int64 if fixed_point else float]
    add = adder(shape.n_features, fixed_point)

    @wp.kernel(module="unique", module_options=module_options())
    def grid_jacobian_backward_portable(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        d_out: wp.array[float],  # [n_blocks, n_rows, 32]
        q: wp.array[float],  # [n_blocks, n_rows, 32], the q of v . J q
        v: wp.array[float],  # [n_blocks, n_dims, 32]
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_rows: int,
        n_blocks: int,
        # in and out
        d_table: gradient_type,  # [n_entries, F], added to
        touched: wp.array[wp.uint8],  # [n_entries / GROUP], set to 1; or empty
    ):
        """d T[c, f] += w_c d y_f + (v . d w_c / d x) q_f."""
        i = begin + wp.tid()
        level = i / (n_blocks * 32)
        point = i % (n_blocks * 32)
        p = position(x, point, scale[level])
        s = fraction(p)
        ds = slope(p)
        vv = wp.vec3(0.0, 0.0, 0.0)
        for d in range(n_dims):
            vv[d] = v[((point / 32) * n_dims + d) * 32 + point % 32]
        row = (point / 32) * n_rows + level * n_features
        dy = vector()
        qq = vector()
        for f in range(n_features):
            dy[f] = d_out[(row + f) * 32 + point % 32]
            qq[f] = q[(row + f) * 32 + point % 32]
        for c in range(n_corners):
            k = entry(p, c, level, meta)
            mark(touched, k / group)
            wv = wp.dot(vv, weight_gradient(c, s, ds, scale[level]))
            add(d_table, k * n_features, weight(c, s) * dy + wv * qq)

    return grid_jacobian_backward_portable

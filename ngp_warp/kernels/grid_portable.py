"""The multiresolution grid's derivatives in its positions, in Warp's own language.

Source: Mueller et al. 2022, section 3; index convention of its reference implementation.
Differentiable in the table and the positions (for losses on the gradient, such as the eikonal one).
Twin: tests/reference/grid.py. Features and the table's gradient: kernels/grid.py, grid_cuda.py.

With y_f = sum_c w_c(x) T[c, f], s_d the interpolated fraction along axis d and sigma_d = +-1:
    w_c = prod_d a_d,  a_d = s_d or 1 - s_d,  d w_c / d x_d = sigma_d s_d' prod_{e != d} a_e.
"""

import functools
from types import SimpleNamespace

import warp as wp

from ngp_warp.kernels.atomics import mark, red_add_vec2, red_add_vec4
from ngp_warp.kernels.grid import (
    DENSE,
    GROUP,
    HASH,
    MODE,
    N_META,
    OFFSET,
    PRIMES,
    SIZE,
    STRIDE_Y,
    STRIDE_Z,
    GridShape,
)
from ngp_warp.launch import module_options

# Sums of integers do not depend on their order: gradients of a mean lie between 1e-11 and 5e5.
FIXED_POINT = 2.0**44

_PRIME_Y = wp.constant(wp.uint32(PRIMES[1]))
_PRIME_Z = wp.constant(wp.uint32(PRIMES[2]))


@functools.cache
def functions(shape: GridShape) -> SimpleNamespace:
    """Return the device functions of one shape of grid."""
    n_dims = wp.constant(shape.n_dims)
    smooth = wp.constant(shape.interpolation == "smoothstep")
    nearest = wp.constant(shape.interpolation == "nearest")
    n_meta, offset_, size_ = wp.constant(N_META), wp.constant(OFFSET), wp.constant(SIZE)
    stride_y_, stride_z_, mode_ = wp.constant(STRIDE_Y), wp.constant(STRIDE_Z), wp.constant(MODE)
    hash_, dense_ = wp.constant(wp.uint32(HASH)), wp.constant(wp.uint32(DENSE))

    @wp.func
    def position(x: wp.array[float], point: int, scale: float):
        base = (point / 32) * n_dims * 32 + point % 32
        p = wp.vec3(0.0, 0.0, 0.0)
        for d in range(n_dims):
            # max before min also turns NaN into 0, so that no index can leave the table
            p[d] = wp.min(wp.max(x[base + d * 32], 0.0), 1.0) * scale + 0.5
        return p

    @wp.func
    def fraction(p: wp.vec3):
        s = wp.vec3(0.0, 0.0, 0.0)
        for d in range(n_dims):
            f = p[d] - wp.floor(p[d])
            if smooth:
                f = f * f * (3.0 - 2.0 * f)
            s[d] = f
        return s

    @wp.func
    def slope(p: wp.vec3):
        s = wp.vec3(0.0, 0.0, 0.0)
        for d in range(n_dims):
            f = p[d] - wp.floor(p[d])
            if smooth:
                s[d] = 6.0 * f * (1.0 - f)
            elif not nearest:
                s[d] = 1.0
        return s

    @wp.func
    def curvature(p: wp.vec3):
        s = wp.vec3(0.0, 0.0, 0.0)
        if smooth:
            for d in range(n_dims):
                f = p[d] - wp.floor(p[d])
                s[d] = 6.0 - 12.0 * f
        return s

    @wp.func
    def factor(c: int, d: int, s: wp.vec3):
        return wp.where(((c >> d) & 1) == 1, s[d], 1.0 - s[d])

    @wp.func
    def weight(c: int, s: wp.vec3):
        w = float(1.0)
        if not nearest:
            for d in range(n_dims):
                w = w * factor(c, d, s)
        return w

    @wp.func
    def weight_gradient(c: int, s: wp.vec3, ds: wp.vec3, scale: float):
        g = wp.vec3(0.0, 0.0, 0.0)
        for d in range(n_dims):
            w = wp.where(((c >> d) & 1) == 1, ds[d], -ds[d]) * scale
            for e in range(n_dims):
                if e != d:
                    w = w * factor(c, e, s)
            g[d] = w
        return g

    @wp.func
    def hessian_times(c: int, s: wp.vec3, ds: wp.vec3, dds: wp.vec3, scale: float, v: wp.vec3):
        """(d^2 w_c / dx^2) v."""
        g = wp.vec3(0.0, 0.0, 0.0)
        for d in range(n_dims):
            for e in range(n_dims):
                w = scale * scale
                for k in range(n_dims):
                    sign = wp.where(((c >> k) & 1) == 1, 1.0, -1.0)
                    if k == d and k == e:
                        w = w * sign * dds[k]
                    elif k == d or k == e:
                        w = w * sign * ds[k]
                    else:
                        w = w * factor(c, k, s)
                g[d] = g[d] + w * v[e]
        return g

    @wp.func
    def entry(p: wp.vec3, c: int, level: int, meta: wp.array[wp.uint32]):
        m = level * n_meta
        size = meta[m + size_]
        ux = wp.uint32(int(p[0])) + wp.uint32(c & 1)
        uy = wp.uint32(int(p[1])) + wp.uint32((c >> 1) & 1)
        uz = wp.uint32(int(p[2])) + wp.uint32((c >> 2) & 1)
        if meta[m + mode_] == hash_:
            key = ux ^ (uy * _PRIME_Y)
            if n_dims == 3:
                key = key ^ (uz * _PRIME_Z)
            key = key & (size - wp.uint32(1))
            return int(meta[m + offset_] + key)
        index = ux + uy * meta[m + stride_y_] + uz * meta[m + stride_z_]
        if meta[m + mode_] == dense_:
            if index >= size:
                index = index - size
            return int(meta[m + offset_] + index)
        return int(meta[m + offset_] + index % size)

    return SimpleNamespace(
        position=position, fraction=fraction, slope=slope, curvature=curvature, weight=weight,
        weight_gradient=weight_gradient, hessian_times=hessian_times, entry=entry,
        n_corners=shape.n_corners,
    )  # fmt: skip


@functools.cache
def entry_vector(n_features: int) -> type:
    """Return the type of an entry's features."""
    return wp.types.vector(length=n_features, dtype=float)


@functools.cache
def entry_loader(n_features: int, dtype: str) -> wp.Function:
    """Return the function that reads an entry: one wide load on CUDA, where it is F loads else."""
    half = dtype == "float16"
    n_bytes = n_features * (2 if half else 4)
    word = {2: "unsigned short", 4: "unsigned", 8: "uint2"}.get(n_bytes, "uint4")
    n_words = max(n_bytes // 16, 1)
    entry_type = entry_vector(n_features)
    table_type = wp.array[wp.float16 if half else float]
    text = f"""
wp::vec_t<{n_features}, wp::float32> v;
#ifdef __CUDA_ARCH__
alignas(16) {"unsigned short" if half else "float"} raw[{n_features}];
for (int i = 0; i < {n_words}; ++i)
    (({word}*)raw)[i] = __ldg((const {word}*)(table.data + k) + i);
for (int f = 0; f < {n_features}; ++f) {{
    {"wp::half h; h.u = raw[f]; v[f] = wp::half_to_float(h);" if half else "v[f] = raw[f];"}
}}
#else
for (int f = 0; f < {n_features}; ++f) v[f] = (float)table.data[k + f];
#endif
return v;
"""

    @wp.func_native(text)
    def load_entry(table: table_type, k: int) -> entry_type: ...

    return load_entry


@functools.cache
def adder(n_features: int, fixed_point: bool) -> wp.Function:
    """Return the function that adds to an entry's gradient: in as few operations as CUDA has."""
    entry_type = entry_vector(n_features)
    one = wp.constant(FIXED_POINT)
    n = wp.constant(n_features)

    @wp.func
    def add_fixed(d_table: wp.array[wp.int64], k: int, g: entry_type):
        for f in range(n):
            value = wp.int64(wp.round(wp.float64(g[f]) * wp.float64(one)))
            wp.atomic_add(d_table, k + f, value)

    @wp.func
    def add_scalar(d_table: wp.array[float], k: int, g: entry_type):
        wp.atomic_add(d_table, k, g[0])

    @wp.func
    def add_two(d_table: wp.array[float], k: int, g: entry_type):
        red_add_vec2(d_table, wp.int64(k), g[0], g[1])

    @wp.func
    def add_fours(d_table: wp.array[float], k: int, g: entry_type):
        for f in range(0, n, 4):
            red_add_vec4(d_table, wp.int64(k + f), g[f], g[f + 1], g[f + 2], g[f + 3])

    if fixed_point:
        return add_fixed
    return {1: add_scalar, 2: add_two}.get(n_features, add_fours)


def table_array(shape: GridShape) -> type:
    """Return the type of the table that is read."""
    return wp.array[wp.float16 if shape.dtype == "float16" else float]


@functools.cache
def input_gradient_kernel(shape: GridShape) -> wp.Kernel:
    """Return the kernel of the positions' gradient, for a point."""
    fn = functions(shape)
    position, fraction, slope = fn.position, fn.fraction, fn.slope
    weight_gradient, entry = fn.weight_gradient, fn.entry
    n_features, n_corners = wp.constant(shape.n_features), wp.constant(fn.n_corners)
    n_dims = wp.constant(shape.n_dims)
    table_type, vector = table_array(shape), entry_vector(shape.n_features)
    load = entry_loader(shape.n_features, shape.dtype)

    @wp.kernel(module="unique", module_options=module_options())
    def grid_input_gradient(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        d_out: wp.array[float],  # [n_blocks, n_rows, 32]
        table: table_type,  # [n_entries, F]
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_levels: int,
        n_rows: int,
        # out
        dx: wp.array[float],  # [n_blocks, n_dims, 32]
    ):
        """d x = sum_{l, c, f} (d w_c / d x) T[c, f] d y_f."""
        point = begin + wp.tid()
        total = wp.vec3(0.0, 0.0, 0.0)
        for level in range(n_levels):
            p = position(x, point, scale[level])
            s = fraction(p)
            ds = slope(p)
            row = (point / 32) * n_rows + level * n_features
            g = vector()
            for f in range(n_features):
                g[f] = d_out[(row + f) * 32 + point % 32]
            for c in range(n_corners):
                dot = wp.dot(load(table, entry(p, c, level, meta) * n_features), g)
                total += weight_gradient(c, s, ds, scale[level]) * dot
        for d in range(n_dims):
            dx[((point / 32) * n_dims + d) * 32 + point % 32] = total[d]

    return grid_input_gradient


@functools.cache
def second_order_kernel(shape: GridShape) -> wp.Kernel:
    """Return the adjoint of the positions' gradient in d_out and the table, for (level, point)."""
    fn = functions(shape)
    position, fraction, slope = fn.position, fn.fraction, fn.slope
    weight_gradient, entry = fn.weight_gradient, fn.entry
    n_features, n_corners = wp.constant(shape.n_features), wp.constant(fn.n_corners)
    n_dims, group = wp.constant(shape.n_dims), wp.constant(GROUP)
    table_type, vector = table_array(shape), entry_vector(shape.n_features)
    load, add = entry_loader(shape.n_features, shape.dtype), adder(shape.n_features, False)

    @wp.kernel(module="unique", module_options=module_options())
    def grid_second_order(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        d_out: wp.array[float],  # [n_blocks, n_rows, 32]
        v: wp.array[float],  # [n_blocks, n_dims, 32], gradient of what was dx
        table: table_type,  # [n_entries, F]
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_rows: int,
        n_blocks: int,
        # in and out
        dd_out: wp.array[float],  # [n_blocks, n_rows, 32], gradient of what was d_out
        d_table: wp.array[float],  # [n_entries, F], added to
        touched: wp.array[wp.uint8],  # [n_entries / GROUP], set to 1; or empty
    ):
        """dd y_f = sum_c (v . d w_c / d x) T[c, f]; d T[c, f] += (v . d w_c / d x) d y_f."""
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
        g = vector()
        for f in range(n_features):
            g[f] = d_out[(row + f) * 32 + point % 32]
        dd = vector()
        for c in range(n_corners):
            k = entry(p, c, level, meta)
            w = wp.dot(vv, weight_gradient(c, s, ds, scale[level]))
            mark(touched, k / group)
            dd += w * load(table, k * n_features)
            add(d_table, k * n_features, w * g)
        for f in range(n_features):
            dd_out[(row + f) * 32 + point % 32] = dd[f]

    return grid_second_order


@functools.cache
def second_order_position_kernel(shape: GridShape) -> wp.Kernel:
    """Return the adjoint of the positions' gradient in the positions, for a point."""
    fn = functions(shape)
    position, fraction, slope, curvature = fn.position, fn.fraction, fn.slope, fn.curvature
    hessian_times, entry = fn.hessian_times, fn.entry
    n_features, n_corners = wp.constant(shape.n_features), wp.constant(fn.n_corners)
    n_dims = wp.constant(shape.n_dims)
    table_type, vector = table_array(shape), entry_vector(shape.n_features)
    load = entry_loader(shape.n_features, shape.dtype)

    @wp.kernel(module="unique", module_options=module_options())
    def grid_second_order_position(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        d_out: wp.array[float],  # [n_blocks, n_rows, 32]
        v: wp.array[float],  # [n_blocks, n_dims, 32], gradient of what was dx
        table: table_type,  # [n_entries, F]
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_levels: int,
        n_rows: int,
        # out
        ddx: wp.array[float],  # [n_blocks, n_dims, 32]
    ):
        """dd x = sum_{l, c, f} (d^2 w_c / d x^2) v T[c, f] d y_f."""
        point = begin + wp.tid()
        vv = wp.vec3(0.0, 0.0, 0.0)
        for d in range(n_dims):
            vv[d] = v[((point / 32) * n_dims + d) * 32 + point % 32]
        total = wp.vec3(0.0, 0.0, 0.0)
        for level in range(n_levels):
            p = position(x, point, scale[level])
            s = fraction(p)
            ds = slope(p)
            dds = curvature(p)
            row = (point / 32) * n_rows + level * n_features
            g = vector()
            for f in range(n_features):
                g[f] = d_out[(row + f) * 32 + point % 32]
            for c in range(n_corners):
                dot = wp.dot(load(table, entry(p, c, level, meta) * n_features), g)
                total += hessian_times(c, s, ds, dds, scale[level], vv) * dot
        for d in range(n_dims):
            ddx[((point / 32) * n_dims + d) * 32 + point % 32] = total[d]

    return grid_second_order_position

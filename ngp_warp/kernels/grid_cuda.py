"""The multiresolution grid on CUDA: a thread has some levels of a point.

Source: Mueller et al. 2022, section 3; index convention of its reference implementation.
Differentiable in the table (here); positions and second order: kernels/grid_portable.py. Twin:
tests/reference/grid.py. The same text runs on a CPU, where kernels/grid.py is faster.

What limits a GPU are the sectors of 32 bytes that a warp asks its caches for, one or more for each
lane. The first factor of the hash is 1, so that the corners x and x + 1 lie in entries 2 k and
2 k + 1 in every second cell, hashed or dense: one access for both then, of as many sectors as for
one alone. That leaves three accesses of four.
"""

import functools

import warp as wp

from ngp_warp.kernels import grid_cuda_merge as merge
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
from ngp_warp.kernels.grid_cuda_access import entries_text, gather_text, scatter_text
from ngp_warp.kernels.grid_portable import FIXED_POINT, table_array
from ngp_warp.launch import module_options

# Threads that a GPU should have to choose from: an H100 holds 270,000 at a time.
_ENOUGH = 1 << 18
_MOST_LEVELS = 4


def items(n_points: int, n_levels: int) -> tuple[int, int]:
    """Return the items of a kernel, and the levels of each: what they share is worked out once."""
    per_item = min(max(n_points * n_levels // _ENOUGH, 1), _MOST_LEVELS)
    return n_points * -(-n_levels // per_item), per_item


_FRACTION = {
    "linear": "const float s{d} = f{d};",
    "smoothstep": "const float s{d} = f{d} * f{d} * (3.f - 2.f * f{d});",
    "nearest": "",
}

# "> 0 ? :" also turns NaN into 0, so that no index can leave the table
_AXIS = """
float q{d} = X[{d} * 32];
q{d} = q{d} > 0.f ? q{d} : 0.f;
q{d} = q{d} < 1.f ? q{d} : 1.f;
"""
_PLACE = """
const float p{d} = q{d} * scale_l + 0.5f;
const unsigned u{d} = (unsigned)(int)p{d};
const float f{d} = p{d} - (float)u{d};
"""


def _levels(shape: GridShape, leave_out: str, body: str) -> str:
    """Return the text that runs ``body`` for each of the thread's levels.

    It finds ``id[c]`` and ``w[c]`` of the corners of the point's cell, the level's ``offset``,
    ``block``, ``lane`` and ``level``; ``leave_out`` may return, and finds ``point``.
    """
    axes = range(shape.n_dims)
    position = "".join(_AXIS.format(d=d) for d in axes)
    place = "".join(_PLACE.format(d=d) + _FRACTION[shape.interpolation].format(d=d) for d in axes)
    return f"""
const unsigned n_points = (unsigned)n_blocks * 32u, group = (unsigned)item / n_points;
const unsigned point = (unsigned)item - group * n_points, block = point / 32u, lane = point % 32u;
{leave_out}
const float* X = x.data + (size_t)block * {shape.n_dims * 32} + lane;
{position}
const unsigned first = group * per_item;
const unsigned end = first + per_item < n_levels ? first + per_item : n_levels;
WP_PRAGMA_NO_UNROLL
for (unsigned level = first; level < end; ++level) {{
    const unsigned* m_ = meta.data + level * {N_META};
#ifdef __CUDA_ARCH__
    const uint4 head = *(const uint4*)m_;
    const unsigned offset = head.x, size = head.y, mode = head.z, stride_y = head.w;
#else
    const unsigned offset = m_[{OFFSET}], size = m_[{SIZE}], mode = m_[{MODE}];
    const unsigned stride_y = m_[{STRIDE_Y}];
#endif
    const float scale_l = scale.data[level];
    {place}
    {_corners(shape)}
    {body}
}}
"""


def _corners(shape: GridShape) -> str:
    """Return the text that sets id[c] and w[c]."""
    n, axes = shape.n_corners, range(shape.n_dims)
    keys: dict[str, list[str]] = {"hash": [], "dense": []}
    for d in axes:
        stride = ("1u", "stride_y", f"m_[{STRIDE_Z}]")[d]
        for kind, factor in (("hash", f"{PRIMES[d]}u"), ("dense", stride)):
            product = f"u{d}" if d == 0 else f"u{d} * {factor}"
            keys[kind].append(f"const unsigned a{d} = {product}, b{d} = a{d} + {factor};")
    parts = [[f"{'ab'[(c >> d) & 1]}{d}" for d in axes] for c in range(n)]
    hashed = [f"id[{c}] = ({' ^ '.join(part)}) & (size - 1u);" for c, part in enumerate(parts)]
    dense = [f"id[{c}] = {' + '.join(part)};" for c, part in enumerate(parts)]
    text = f"""
unsigned id[{n}];
if (mode == {HASH}) {{
    {" ".join(keys["hash"] + hashed)}
}} else {{
    {" ".join(keys["dense"] + dense)}
    if (mode == {DENSE}) {{
        WP_PRAGMA_UNROLL
        for (int c = 0; c < {n}; ++c) id[c] = id[c] >= size ? id[c] - size : id[c];
    }} else {{
        WP_PRAGMA_UNROLL
        for (int c = 0; c < {n}; ++c) id[c] %= size;
    }}
}}
"""
    return text + _weights(shape)


def _weights(shape: GridShape) -> str:
    """Return the text that sets w[c], products of s or 1 - s in the order of the axes."""
    if shape.interpolation == "nearest":
        return "const float w[1] = { 1.f };"
    axes = range(shape.n_dims)
    text = "".join(f"const float t{d} = 1.f - s{d};\n" for d in axes)
    products = [
        " * ".join(f"{'ts'[(c >> d) & 1]}{d}" for d in axes) for c in range(shape.n_corners)
    ]
    return text + f"const float w[{len(products)}] = {{ {', '.join(products)} }};"


def forward_text(shape: GridShape) -> str:
    """Return the snippet of a thread's features."""
    n, n_features = shape.n_corners, shape.n_features
    leave_out = "if (count.data && point >= (unsigned)count.data[0]) return;"
    body = f"""
float y[{n_features}] = {{}};
#ifdef __CUDA_ARCH__
auto half_value = [](unsigned short bits) -> float {{
    wp::half h; h.u = bits; return wp::half_to_float(h);
}};
{gather_text(shape)}
#else
for (int c = 0; c < {n}; ++c)
    for (int f = 0; f < {n_features}; ++f)
        y[f] += w[c] * (float)table.data[((size_t)offset + id[c]) * {n_features} + f];
#endif
float* O = out.data + ((size_t)block * n_rows + level * {n_features}) * 32 + lane;
WP_PRAGMA_UNROLL
for (int f = 0; f < {n_features}; ++f) O[f * 32] = y[f];
"""
    return _levels(shape, leave_out, body)


def _product(c: int | str, f: int | str, fixed_point: bool) -> str:
    value = f"w[{c}] * g[{f}]"
    return f"(long long)wp::round((double)({value}) * {FIXED_POINT!r})" if fixed_point else value


def _merged_additions(shape: GridShape, fixed_point: bool) -> str:
    """Return CUDA's text of a thread's additions: lanes that lie in one cell add as one."""
    n = shape.n_features
    value_type, n_bytes = ("long long", 8) if fixed_point else ("float", 4)
    parts = [] if fixed_point else [entries_text(shape)]
    for corners in merge.chunks(shape, n_bytes):
        values = [_product(c, f, fixed_point) for c in corners for f in range(n)]
        additions = scatter_text(shape, corners)
        if fixed_point:
            array = "(unsigned long long*)d_table.data"
            additions = "\n".join(
                f"atomicAdd({array} + ((size_t)offset + id[{c}]) * {n} + {f}, "
                f"(unsigned long long)v[{k * n + f}]);"
                for k, c in enumerate(corners)
                for f in range(n)
            )
        parts.append(f"""{{
{value_type} v[{len(values)}] = {{ {", ".join(values)} }};
{merge.sum_text(len(values))}
if (adds) {{
{additions}
}}
}}""")
    return "\n".join(parts)


def backward_text(shape: GridShape, fixed_point: bool) -> str:
    """Return the snippet of a thread's additions to the table's gradient.

    Items are whole blocks of 32 points, so that the lanes of a warp are one block's and run alike:
    none may leave before the others.
    """
    n, n_features = shape.n_corners, shape.n_features
    row = f"((size_t)block * n_rows + level * {n_features}) * 32 + lane"
    body = f"""
const float* G = d_out.data + {row};
float g[{n_features}];
bool moves = false;
WP_PRAGMA_UNROLL
for (int f = 0; f < {n_features}; ++f) {{
    g[f] = G[f * 32];
    moves |= g[f] != 0.f;
}}
// padding, no sample: adding nothing would cost as much as anything
#ifdef __CUDA_ARCH__
if (!__any_sync({merge.FULL}, moves)) continue;
{merge.find_text(shape)}
{_merged_additions(shape, fixed_point)}
if (adds && touched.data) {{
#else
if (!moves) continue;
for (int c = 0; c < {n}; ++c)
    for (int f = 0; f < {n_features}; ++f)
        d_table.data[((size_t)offset + id[c]) * {n_features} + f]
            += {_product("c", "f", fixed_point)};
if (touched.data) {{
#endif
    WP_PRAGMA_UNROLL
    for (int c = 0; c < {n}; ++c)
        if (c % 2 == 0 || id[c] / {GROUP} != id[c - 1] / {GROUP})
            touched.data[(offset + id[c]) / {GROUP}] = 1;
}}
"""
    return _levels(shape, "", body)


@functools.cache
def forward_kernel(shape: GridShape) -> wp.Kernel:
    """Return the kernel features = interpolated table entries, for ``items``."""
    table_type = table_array(shape)

    @wp.func_native(forward_text(shape))
    def forward_item(
        item: int,
        x: wp.array[float],
        table: table_type,
        scale: wp.array[float],
        meta: wp.array[wp.uint32],
        n_levels: int,
        per_item: int,
        n_rows: int,
        n_blocks: int,
        count: wp.array[int],
        out: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def grid_forward_cuda(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        table: table_type,  # [n_entries, F]
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_levels: int,
        per_item: int,
        n_rows: int,
        n_blocks: int,
        count: wp.array[int],  # [1]: points that count, or empty: all
        # out
        out: wp.array[float],  # [n_blocks, n_rows, 32]
    ):
        """y_f = sum_c w_c T[c, f]."""
        forward_item(
            begin + wp.tid(), x, table, scale, meta, n_levels, per_item, n_rows, n_blocks, count,
            out,
        )  # fmt: skip

    return grid_forward_cuda


@functools.cache
def backward_kernel(shape: GridShape, fixed_point: bool = False) -> wp.Kernel:
    """Return the kernel that scatters the features' gradients into the table's."""
    gradient_type = wp.array[wp.int64 if fixed_point else float]

    @wp.func_native(backward_text(shape, fixed_point))
    def backward_item(
        item: int,
        x: wp.array[float],
        d_out: wp.array[float],
        scale: wp.array[float],
        meta: wp.array[wp.uint32],
        n_levels: int,
        per_item: int,
        n_rows: int,
        n_blocks: int,
        d_table: gradient_type,
        touched: wp.array[wp.uint8],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def grid_backward_cuda(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        d_out: wp.array[float],  # [n_blocks, n_rows, 32]
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_levels: int,
        per_item: int,
        n_rows: int,
        n_blocks: int,
        # in and out
        d_table: gradient_type,  # [n_entries, F], added to
        touched: wp.array[wp.uint8],  # [n_entries / GROUP], set to 1; or empty
    ):
        """d T[c, f] += w_c d y_f."""
        backward_item(
            begin + wp.tid(), x, d_out, scale, meta, n_levels, per_item, n_rows, n_blocks, d_table,
            touched,
        )  # fmt: skip

    return grid_backward_cuda

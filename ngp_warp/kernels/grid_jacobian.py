"""The grid with its Jacobian on the CPU: one gather gives both, one scatter takes both gradients.

Source: Mueller et al. 2022, section 3. For a loss on the features y(x, T) and on their Jacobian
J = dy/dx times a vector, as the eikonal loss is; differentiable in the table. Twin:
tests/reference/eikonal.py. CUDA: kernels/grid_jacobian_portable.py, with the same arguments.

With s_d the interpolated fraction along axis d, interpolating along one axis after another gives y,
and the differences on the way, interpolated along the axes after, give dy/ds_d.
"""

import functools

import warp as wp

from ngp_warp.kernels.grid import BLOCKS_PER_ITEM, GROUP, LEVEL, OFFSET, GridShape, corners
from ngp_warp.kernels.vector import TYPES
from ngp_warp.launch import module_options

_SLOPE = {"linear": "(v16)(scale_l)", "smoothstep": "6.f * f{d} * (1.f - f{d}) * scale_l"}


def _slopes(shape: GridShape) -> str:
    """Return the text that sets ds0, ds1, ...: the fractions' derivatives in the positions."""
    slope = _SLOPE[shape.interpolation]
    return "\n".join(f"const v16 ds{d} = {slope.format(d=d)};" for d in range(shape.n_dims))


def _tree(n_dims: int, kind: str) -> str:
    """Return the text from entries E[corner] and fractions S0, ... to Y and slopes G0, ..."""
    lines: list[str] = []

    def between(names: list[str], d: int, prefix: str) -> tuple[list[str], list[str]]:
        values, slopes = [], []
        for c in range(0, len(names), 2):
            value, slope = f"{prefix}v{d}{c}", f"{prefix}g{d}{c}"
            lines.append(f"const {kind} {slope} = {names[c + 1]} - {names[c]};")
            lines.append(f"const {kind} {value} = {names[c]} + {slope} * S{d};")
            values.append(value)
            slopes.append(slope)
        return values, slopes

    values = [f"E[{c}]" for c in range(2**n_dims)]
    along: list[list[str]] = []
    for d in range(n_dims):
        along = [between(names, d, f"a{axis}")[0] for axis, names in enumerate(along)]
        values, slopes = between(values, d, "")
        along.append(slopes)
    lines.append(f"const {kind} Y = {values[0]};")
    lines += [f"const {kind} G{d} = {names[0]};" for d, names in enumerate(along)]
    return "\n".join(lines)


def _rows(shape: GridShape) -> str:
    """Return the text that loads and interpolates point by point."""
    n, half = shape.n_features, shape.dtype == "float16"
    where = f"(T + (size_t)ids[c * 16 + u] * {n})"
    load = f"__builtin_convertvector(*(const hF*){where}, vF)" if half else f"*(const vF*){where}"
    axes = range(shape.n_dims)
    fractions = " ".join(f"const float S{d} = s{d}[u];" for d in axes)
    keep = " ".join(f"row[{d + 1}][u] = G{d};" for d in axes)
    store = " ".join(
        f"D[({d} * n_rows + f) * 32 + u] = rows[({d + 1} * 16 + u) * {n} + f] * ds{d}[u];"
        for d in axes
    )
    return f"""
    const unsigned* ids = (const unsigned*)id;
    vF row[{shape.n_dims + 1}][16];
    for (int u = 0; u < 16; ++u) {{
        vF E[{2**shape.n_dims}];
        #pragma unroll
        for (int c = 0; c < {2**shape.n_dims}; ++c) E[c] = {load};
        {fractions}
        {_tree(shape.n_dims, "vF")}
        row[0][u] = Y; {keep}
    }}
    const float* rows = (const float*)row;
    for (int f = 0; f < {n}; ++f) for (int u = 0; u < 16; ++u) {{
        O[f * 32 + u] = rows[u * {n} + f]; {store}
    }}
    """


def _list(values: list[int]) -> str:
    return ", ".join(map(str, values))


def _pairs(shape: GridShape) -> str:
    """Return the text for two float32 features by 64-bit gathers, as in kernels/grid.py."""
    n_corners, axes = 2**shape.n_dims, range(shape.n_dims)
    names = ["Y", *(f"G{d}" for d in axes)]
    parts = []
    for first, side in ((0, "low"), (8, "high")):
        lanes = _list([first + i for i in range(8)])
        twice = _list([first + i // 2 for i in range(16)])
        fractions = " ".join(
            f"const v16 S{d} = __builtin_shufflevector(s{d}, s{d}, {twice});" for d in axes
        )
        keep = " ".join(f"{side}[{i}] = {name};" for i, name in enumerate(names))
        parts.append(f"""{{
        v16 E[{n_corners}];
        #pragma unroll
        for (int c = 0; c < {n_corners}; ++c) {{
            const i16 k = (i16)id[c];
            const i8 k8 = (i8)__builtin_shufflevector(k, k, {lanes});
            E[c] = (v16)__builtin_ia32_gathersiv8df(none, T, k8, (char)-1, 8);
        }}
        {fractions}
        {_tree(shape.n_dims, "v16")}
        {keep}
    }}""")
    store = []
    for i in range(len(names)):
        for f in range(2):
            every_second = _list([f + 2 * j for j in range(16)])
            value = f"__builtin_shufflevector(low[{i}], high[{i}], {every_second})"
            if i == 0:
                store.append(f"*(v16*)(O + {f * 32}) = {value};")
            else:
                store.append(f"*(v16*)(D + ({i - 1} * n_rows + {f}) * 32) = {value} * ds{i - 1};")
    return f"""
    typedef double d8 __attribute__((vector_size(64)));
    typedef int i8 __attribute__((vector_size(32)));
    const d8 none = {{}};
    v16 low[{len(names)}], high[{len(names)}];
    {" ".join(parts)}
    {" ".join(store)}
"""


@functools.cache
def forward_kernel(shape: GridShape) -> wp.Kernel:
    """Return the kernel of features and Jacobian, for (run of blocks, level)."""
    n = shape.n_features
    body = _rows(shape)
    if n == 2 and shape.dtype == "float32":
        gather = "defined(__AVX512F__) && !defined(__znver4__)"
        body = f"\n#if {gather}\n{_pairs(shape)}\n#else\n{body}\n#endif\n"
    element = "_Float16" if shape.dtype == "float16" else "float"
    text = f"""{TYPES}
typedef float vF __attribute__((ext_vector_type({n}), aligned(4)));
typedef _Float16 hF __attribute__((ext_vector_type({n}), aligned(2)));
const int level = item % n_levels, run = item / n_levels;
{LEVEL}
const {element}* T = (const {element}*)table.data + (size_t)m_[{OFFSET}] * {n};
const int first = run * {BLOCKS_PER_ITEM};
const int end = first + {BLOCKS_PER_ITEM} < n_blocks ? first + {BLOCKS_PER_ITEM} : n_blocks;
for (int block = first; block < end; ++block) for (int half = 0; half < 2; ++half) {{
    const float* X = x.data + (size_t)block * {shape.n_dims * 32} + half * 16;
    const size_t at = (size_t)level * {n} * 32 + half * 16;
    float* O = out.data + (size_t)block * n_rows * 32 + at;
    float* D = jacobian.data + (size_t)block * {shape.n_dims} * n_rows * 32 + at;
    {corners(shape)}
    {_slopes(shape)}
    {body}
}}
"""
    table_type = wp.array[wp.float16 if shape.dtype == "float16" else float]

    @wp.func_native(text)
    def forward_item(
        x: wp.array[float],
        table: table_type,
        scale: wp.array[float],
        meta: wp.array[wp.uint32],
        n_levels: int,
        n_rows: int,
        n_blocks: int,
        item: int,
        out: wp.array[float],
        jacobian: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def grid_jacobian_forward(
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
        out: wp.array[float],  # [n_blocks, n_rows, 32]; the rows from 0 to n_levels * F
        jacobian: wp.array[float],  # [n_blocks, n_dims, n_rows, 32]; the same rows
    ):
        """y_f = sum_c w_c T[c, f]; J_df = sum_c (d w_c / d x_d) T[c, f]."""
        item = begin + wp.tid()
        forward_item(x, table, scale, meta, n_levels, n_rows, n_blocks, item, out, jacobian)

    return grid_jacobian_forward


def _directional(n_dims: int) -> str:
    """Return the text that sets wv[c] = v . (d w_c / d x)."""
    text = []
    for d in range(n_dims):
        text.append(f"const v16 b{d} = *(const v16*)(V + {d * 32}) * ds{d};")
    for c in range(2**n_dims):
        bit = [(c >> d) & 1 for d in range(n_dims)]
        a = [f"s{d}" if bit[d] else f"(1.f - s{d})" for d in range(n_dims)]
        b = [f"b{d}" if bit[d] else f"(-b{d})" for d in range(n_dims)]
        value = f"{b[0]} * {a[1]} + {a[0]} * {b[1]}"
        if n_dims == 3:
            value = f"({value}) * {a[2]} + {a[0]} * {a[1]} * {b[2]}"
        text.append(f"wv[{c}] = {value};")
    return "\n".join(text)


@functools.cache
def backward_kernel(shape: GridShape) -> wp.Kernel:
    """Return the kernel that scatters the features' and the Jacobian's gradients, for a level."""
    n, n_corners = shape.n_features, 2**shape.n_dims
    text = f"""{TYPES}
typedef float vF __attribute__((ext_vector_type({n}), aligned(4)));
{LEVEL}
float* T = d_table.data + (size_t)m_[{OFFSET}] * {n};
unsigned char* touch = touched.data + m_[{OFFSET}] / {GROUP};
for (int block = 0; block < n_blocks; ++block) for (int half = 0; half < 2; ++half) {{
    const float* X = x.data + (size_t)block * {shape.n_dims * 32} + half * 16;
    const float* V = v.data + (size_t)block * {shape.n_dims * 32} + half * 16;
    const size_t first = ((size_t)block * n_rows + level * {n}) * 32 + half * 16;
    const float *D = d_out.data + first, *Q = slope.data + first;
    {corners(shape)}
    {_slopes(shape)}
    v16 wv[{n_corners}];
    {_directional(shape.n_dims)}
    const unsigned* ids = (const unsigned*)id;
    const float *ws = (const float*)w, *wvs = (const float*)wv;
    vF row[16], slope_row[16]; float *rows = (float*)row, *slope_rows = (float*)slope_row;
    for (int f = 0; f < {n}; ++f) for (int u = 0; u < 16; ++u) {{
        rows[u * {n} + f] = D[f * 32 + u]; slope_rows[u * {n} + f] = Q[f * 32 + u];
    }}
    #pragma unroll
    for (int u = 0; u < 16; ++u) {{
        #pragma unroll
        for (int c = 0; c < {n_corners}; ++c) {{
            const unsigned k = ids[c * 16 + u];
            vF* t = (vF*)(T + (size_t)k * {n});
            *t = *t + (row[u] * ws[c * 16 + u] + slope_row[u] * wvs[c * 16 + u]);
            touch[k / {GROUP}] = 1;
        }}
    }}
}}
"""

    @wp.func_native(text)
    def backward_level(
        x: wp.array[float],
        d_out: wp.array[float],
        slope: wp.array[float],
        v: wp.array[float],
        scale: wp.array[float],
        meta: wp.array[wp.uint32],
        n_rows: int,
        n_blocks: int,
        level: int,
        d_table: wp.array[float],
        touched: wp.array[wp.uint8],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def grid_jacobian_backward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        d_out: wp.array[float],  # [n_blocks, n_rows, 32]; zero in the last block's padding
        slope: wp.array[float],  # [n_blocks, n_rows, 32], the q of v . J q
        v: wp.array[float],  # [n_blocks, n_dims, 32]; zero in the last block's padding
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_rows: int,
        n_blocks: int,
        # in and out
        d_table: wp.array[float],  # [n_entries, F], added to
        touched: wp.array[wp.uint8],  # [n_entries / GROUP], set to 1 where something was added
    ):
        """d T[c, f] += w_c d y_f + (v . d w_c / d x) q_f."""
        level = begin + wp.tid()
        backward_level(x, d_out, slope, v, scale, meta, n_rows, n_blocks, level, d_table, touched)

    return grid_jacobian_backward

"""The multiresolution grid on the CPU: 16 points at a time, one level after another.

Source: Mueller et al. 2022, section 3; index convention of its reference implementation.
Differentiable in the table (here) and the positions (kernels/grid_portable.py, which also has the
second order, and serves CUDA). Twin: tests/reference/grid.py.

An item of work is (level, run of blocks) forwards and a level backwards: a level's table stays in
the cache, and no two items write one address.
"""

import functools
from dataclasses import dataclass

import warp as wp

from ngp_warp.kernels.vector import TYPES
from ngp_warp.launch import module_options

# Fields of a level in ``meta``, all uint32.
# What a hashed level needs is one access of 16 bytes.
OFFSET, SIZE, MODE, STRIDE_Y, STRIDE_Z, N_META = 0, 1, 2, 3, 4, 8
# How an index is brought below SIZE: one subtraction is enough for a dense level, SIZE is a power
# of two for a hashed one, and a tiled one needs a remainder.
DENSE, HASH, TILED = 0, 1, 2
# Entries that share a "touched" flag: a cache line of four features each. Every level's size is a
# multiple of it.
GROUP = 4
BLOCKS_PER_ITEM = 64
# Of the hash, an axis each; the first is 1, so that neighbours along x lie together.
PRIMES = (1, 2654435761, 805459861)


@dataclass(frozen=True, kw_only=True)
class GridShape:
    """What a grid's kernels are compiled for."""

    n_dims: int
    n_features: int
    interpolation: str
    dtype: str = "float32"

    @property
    def n_corners(self) -> int:
        """Entries that a point reads of a level."""
        return 1 if self.interpolation == "nearest" else 2**self.n_dims


_FRACTION = {
    "linear": "v16 s{d} = f{d};",
    "smoothstep": "v16 s{d} = f{d} * f{d} * (3.f - 2.f * f{d});",
    "nearest": "",
}

# max() before min() also turns NaN into 0, so that no index can leave the table
_AXIS = """
    v16 p{d} = *(const v16*)(X + {d} * 32);
    p{d} = __builtin_elementwise_min(__builtin_elementwise_max(p{d}, (v16)(0.f)), (v16)(1.f));
    p{d} = p{d} * scale_l + 0.5f;
    i16 i{d} = __builtin_convertvector(p{d}, i16);
    v16 f{d} = p{d} - __builtin_convertvector(i{d}, v16);
    u16 u{d} = (u16)i{d};
"""


def corners(shape: GridShape) -> str:
    """Return the text that sets id[c] and w[c] of the corners of 16 points at X."""
    n = shape.n_corners
    text = [
        _AXIS.format(d=d) + _FRACTION[shape.interpolation].format(d=d) for d in range(shape.n_dims)
    ]
    text.append(f"u16 id[{n}]; v16 w[{n}];")
    three = shape.n_dims == 3
    text.append("u16 dense0 = u0 + u1 * stride_y" + (" + u2 * stride_z;" if three else ";"))
    text.append(f"u16 h1 = u1 * {PRIMES[1]}u;" + (f" u16 h2 = u2 * {PRIMES[2]}u;" if three else ""))
    dense, hashed, weights = [], [], []
    for c in range(n):
        bit = [(c >> d) & 1 for d in range(3)]
        add = f"{bit[0]}u" + " + stride_y" * bit[1] + " + stride_z" * bit[2]
        dense.append(f"id[{c}] = dense0 + ({add});")
        key = f"(u0 + {bit[0]}u) ^ (h1 + {PRIMES[1] * bit[1]}u)"
        key += f" ^ (h2 + {PRIMES[2] * bit[2]}u)" if three else ""
        hashed.append(f"id[{c}] = ({key}) & (size - 1u);")
        factors = [f"s{d}" if bit[d] else f"(1.f - s{d})" for d in range(shape.n_dims)]
        weights.append(f"w[{c}] = {'(v16)(1.f)' if n == 1 else ' * '.join(factors)};")
    wrap = f"for (int c = 0; c < {n}; ++c)"
    text.append(
        f"if (mode == {HASH}) {{ {' '.join(hashed)} }} else {{ {' '.join(dense)}\n"
        f"if (mode == {DENSE}) {wrap} id[c] = id[c] >= size ? id[c] - size : id[c];\n"
        f"else {wrap} id[c] %= size; }}"
    )
    return "\n".join(text + weights)


LEVEL = f"""
const unsigned* m_ = meta.data + level * {N_META};
const unsigned size = m_[{SIZE}], stride_y = m_[{STRIDE_Y}], stride_z = m_[{STRIDE_Z}];
const unsigned mode = m_[{MODE}];
const float scale_l = scale.data[level];
"""


def gather_text(shape: GridShape) -> str:
    """Return the text that sets O[f * 32 + 16 points] = sum over corners of w[c] T[id[c]][f]."""
    n_corners = shape.n_corners
    body = _gather(shape, n_corners)
    if shape.n_features == 2 and shape.dtype == "float32":
        body = _GATHER_PAIRS.replace("SCALAR", body).replace("N_CORNERS", str(n_corners))
    elif shape.n_features == 4 and shape.dtype == "float16":
        body = _GATHER_HALVES.replace("SCALAR", body).replace("N_CORNERS", str(n_corners))
    return body


def _gather(shape: GridShape, n_corners: int) -> str:
    """Return ``gather_text`` in loads of one entry."""
    n = shape.n_features
    half = shape.dtype == "float16"
    load = f"__builtin_convertvector(*(const hF*)(T + (size_t)ids[c * 16 + u] * {n}), vF)"
    if not half:
        load = f"*(const vF*)(T + (size_t)ids[c * 16 + u] * {n})"
    return f"""
    const unsigned* ids = (const unsigned*)id; const float* ws = (const float*)w;
    vF row[16];
    #pragma unroll
    for (int u = 0; u < 16; ++u) {{
        vF a = (vF)(0.f);
        #pragma unroll
        for (int c = 0; c < {n_corners}; ++c) a += {load} * ws[c * 16 + u];
        row[u] = a;
    }}
    const float* rows = (const float*)row;
    for (int f = 0; f < {n}; ++f) for (int u = 0; u < 16; ++u) O[f * 32 + u] = rows[u * {n} + f];
    """


def _pairs(low: int) -> str:
    return ", ".join(str(low + i // 2) for i in range(16))


def _every_second(first: int) -> str:
    return ", ".join(str(first + 2 * i) for i in range(16))


# Two features are one 64-bit gather of 8 points: 1.7 times faster than 16 scalar loads on Intel.
# Gathers are microcoded on Zen 4, where scalar loads stay.
_GATHER_PAIRS = f"""
#if defined(__AVX512F__) && !defined(__znver4__)
    typedef double d8 __attribute__((vector_size(64)));
    typedef int i8 __attribute__((vector_size(32)));
    v16 low = (v16)(0.f), high = (v16)(0.f);
    for (int c = 0; c < N_CORNERS; ++c) {{
        i16 k = (i16)id[c]; d8 none = {{}};
        i8 k0 = (i8)__builtin_shufflevector(k, k, 0, 1, 2, 3, 4, 5, 6, 7);
        i8 k1 = (i8)__builtin_shufflevector(k, k, 8, 9, 10, 11, 12, 13, 14, 15);
        low += (v16)__builtin_ia32_gathersiv8df(none, T, k0, (char)-1, 8)
            * __builtin_shufflevector(w[c], w[c], {_pairs(0)});
        high += (v16)__builtin_ia32_gathersiv8df(none, T, k1, (char)-1, 8)
            * __builtin_shufflevector(w[c], w[c], {_pairs(8)});
    }}
    *(v16*)O = __builtin_shufflevector(low, high, {_every_second(0)});
    *(v16*)(O + 32) = __builtin_shufflevector(low, high, {_every_second(1)});
#else
SCALAR
#endif
"""


def _columns(feature: int) -> str:
    """Return the shuffle of two vectors of four entries: a feature of all eight, then the next."""
    return ", ".join(str(feature + f + 4 * p) for f in range(2) for p in range(8))


def _join(first: int) -> str:
    return ", ".join(str(first + i % 8 + 16 * (i // 8)) for i in range(16))


def _repeat(first: int) -> str:
    return ", ".join(str(first + i // 4) for i in range(16))


# Four halves of an entry are one 64-bit gather too; they become floats, four points a vector, and
# are transposed into rows once all corners are summed.
_GATHER_HALVES = f"""
#if defined(__AVX512F__) && !defined(__znver4__)
    typedef double d8 __attribute__((vector_size(64)));
    typedef int i8 __attribute__((vector_size(32)));
    typedef _Float16 h16 __attribute__((ext_vector_type(16)));
    v16 s[4];
    #pragma unroll
    for (int q = 0; q < 4; ++q) s[q] = (v16)(0.f);
    #pragma unroll
    for (int c = 0; c < N_CORNERS; ++c) {{
        i16 k = (i16)id[c]; d8 none = {{}};
        i8 k0 = (i8)__builtin_shufflevector(k, k, 0, 1, 2, 3, 4, 5, 6, 7);
        i8 k1 = (i8)__builtin_shufflevector(k, k, 8, 9, 10, 11, 12, 13, 14, 15);
        d8 e0 = __builtin_ia32_gathersiv8df(none, T, k0, (char)-1, 8);
        d8 e1 = __builtin_ia32_gathersiv8df(none, T, k1, (char)-1, 8);
        h16 h[4];
        __builtin_memcpy(h, &e0, 64); __builtin_memcpy(h + 2, &e1, 64);
        s[0] += __builtin_convertvector(h[0], v16)
            * __builtin_shufflevector(w[c], w[c], {_repeat(0)});
        s[1] += __builtin_convertvector(h[1], v16)
            * __builtin_shufflevector(w[c], w[c], {_repeat(4)});
        s[2] += __builtin_convertvector(h[2], v16)
            * __builtin_shufflevector(w[c], w[c], {_repeat(8)});
        s[3] += __builtin_convertvector(h[3], v16)
            * __builtin_shufflevector(w[c], w[c], {_repeat(12)});
    }}
    #pragma unroll
    for (int half = 0; half < 2; ++half) {{  // features 0 and 1, then 2 and 3
        v16 a, b;
        a = half ? __builtin_shufflevector(s[0], s[1], {_columns(2)})
                 : __builtin_shufflevector(s[0], s[1], {_columns(0)});
        b = half ? __builtin_shufflevector(s[2], s[3], {_columns(2)})
                 : __builtin_shufflevector(s[2], s[3], {_columns(0)});
        *(v16*)(O + half * 64) = __builtin_shufflevector(a, b, {_join(0)});
        *(v16*)(O + half * 64 + 32) = __builtin_shufflevector(a, b, {_join(8)});
    }}
#else
SCALAR
#endif
"""


@functools.cache
def forward_kernel(shape: GridShape) -> wp.Kernel:
    """Return the kernel features = interpolated table entries, for (run of blocks, level)."""
    body = gather_text(shape)
    element = "_Float16" if shape.dtype == "float16" else "float"
    text = f"""{TYPES}
typedef float vF __attribute__((ext_vector_type({shape.n_features}), aligned(4)));
typedef _Float16 hF __attribute__((ext_vector_type({shape.n_features}), aligned(2)));
const int level = item % n_levels, run = item / n_levels;
{LEVEL}
const {element}* T = (const {element}*)table.data + (size_t)m_[{OFFSET}] * {shape.n_features};
const int first = run * {BLOCKS_PER_ITEM};
const int end = first + {BLOCKS_PER_ITEM} < n_blocks ? first + {BLOCKS_PER_ITEM} : n_blocks;
for (int block = first; block < end; ++block) for (int v = 0; v < 2; ++v) {{
    const float* X = x.data + (size_t)block * {shape.n_dims * 32} + v * 16;
    float* O = out.data + ((size_t)block * n_rows + level * {shape.n_features}) * 32 + v * 16;
    {corners(shape)}
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
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def grid_forward(
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
    ):
        """feature = sum over corners of weight times entry (Mueller et al. 2022, section 3)."""
        forward_item(x, table, scale, meta, n_levels, n_rows, n_blocks, begin + wp.tid(), out)

    return grid_forward


@functools.cache
def backward_kernel(shape: GridShape) -> wp.Kernel:
    """Return the kernel that scatters the features' gradients into the table's, for a level."""
    n = shape.n_features
    n_corners = shape.n_corners
    text = f"""{TYPES}
typedef float vF __attribute__((ext_vector_type({n}), aligned(4)));
{LEVEL}
float* T = d_table.data + (size_t)m_[{OFFSET}] * {n};
unsigned char* touch = touched.data + m_[{OFFSET}] / {GROUP};
for (int block = 0; block < n_blocks; ++block) for (int v = 0; v < 2; ++v) {{
    const float* X = x.data + (size_t)block * {shape.n_dims * 32} + v * 16;
    const float* G = d_out.data + ((size_t)block * n_rows + level * {n}) * 32 + v * 16;
    {corners(shape)}
    const unsigned* ids = (const unsigned*)id; const float* ws = (const float*)w;
    vF row[16]; float* rows = (float*)row;
    for (int f = 0; f < {n}; ++f) for (int u = 0; u < 16; ++u) rows[u * {n} + f] = G[f * 32 + u];
    #pragma unroll
    for (int u = 0; u < 16; ++u) {{
        #pragma unroll
        for (int c = 0; c < {n_corners}; ++c) {{
            const unsigned k = ids[c * 16 + u];
            vF* t = (vF*)(T + (size_t)k * {n});
            *t = *t + row[u] * ws[c * 16 + u];
            touch[k / {GROUP}] = 1;
        }}
    }}
}}
"""

    @wp.func_native(text)
    def backward_level(
        x: wp.array[float],
        d_out: wp.array[float],
        scale: wp.array[float],
        meta: wp.array[wp.uint32],
        n_rows: int,
        n_blocks: int,
        level: int,
        d_table: wp.array[float],
        touched: wp.array[wp.uint8],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def grid_backward(
        begin: int,
        # in
        x: wp.array[float],  # [n_blocks, n_dims, 32], unit cube
        d_out: wp.array[float],  # [n_blocks, n_rows, 32]; zero in the last block's padding
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        n_rows: int,
        n_blocks: int,
        # in and out
        d_table: wp.array[float],  # [n_entries, F], added to
        touched: wp.array[wp.uint8],  # [n_entries / GROUP], set to 1 where something was added
    ):
        """d entry += weight times d feature."""
        backward_level(x, d_out, scale, meta, n_rows, n_blocks, begin + wp.tid(), d_table, touched)

    return grid_backward

"""The fused radiance field on the CPU: densities at points, and the scatter into the table.

Source: Mueller et al. 2022, section 3. Differentiable in the table (the scatter). Twins:
tests/reference/grid.py and mlp.py.
"""

import functools

import warp as wp

from ngp_warp.kernels import radiance_network as network
from ngp_warp.kernels.grid import GROUP, LEVEL, OFFSET, GridShape, corners
from ngp_warp.kernels.mlp import LAYER
from ngp_warp.kernels.radiance import Model, members_text, table_type_of
from ngp_warp.kernels.radiance_text import RadianceShape, constants_text
from ngp_warp.kernels.vector import MATH, TYPES
from ngp_warp.launch import module_options

BLOCKS_PER_ITEM = 16


@functools.cache
def density_kernel(shape: RadianceShape) -> wp.Kernel:
    """Return the kernel density = exp(raw) at points, for runs of blocks."""
    table_type = table_type_of(shape)
    last = f"a{len(shape.density.layers)}"
    text = "\n".join(
        [
            members_text(Model, "model"),
            TYPES,
            MATH,
            constants_text(shape),
            LAYER,
            network.encode_text(shape.grid),
            network.declare(shape.density, "a"),
            "const float* density_weights = w.data;",
            f"v16 feat[{BLOCKS_PER_ITEM} * NF][2];",
            f"""
const int total = count.data[0] < n_points ? (count.data[0] + 31) / 32 : n_points / 32;
const int first = item * {BLOCKS_PER_ITEM};
const int end = total < first + {BLOCKS_PER_ITEM} ? total : first + {BLOCKS_PER_ITEM};
if (first >= end) return;
encode(points.data + (size_t)first * 96, (float*)feat, 0, end - first);
for (int block = first; block < end; ++block) {{
    const v16 (*x0)[2] = feat + (block - first) * NF;
    {network.forward_text(shape.density, "a", "density_weights", "x0")}
    for (int v = 0; v < 2; ++v)
        *(v16*)(density.data + block * 32 + v * 16) = vexp(vmin({last}[0][v], (v16)(15.f)));
    if (geometry.shape[0] > 0)
        __builtin_memcpy(geometry.data + (size_t)block * (NG * 32), {last}, NG * 128);
}}
""",
        ]
    )

    @wp.func_native(text)
    def density_item(
        item: int,
        points: wp.array[float],
        n_points: int,
        count: wp.array[int],
        model: Model,
        table: table_type,
        density: wp.array[float],
        geometry: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def radiance_density(
        begin: int,
        # in
        points: wp.array[float],  # [n_blocks, 3, 32]
        n_points: int,
        count: wp.array[int],  # [1]: points that matter, the first
        model: Model,
        table: table_type,  # [n_entries, F]
        # out
        density: wp.array[float],  # [n_blocks * 32]
        geometry: wp.array[float],  # [n_blocks, N_GEOMETRY, 32] or empty
    ):
        """Density per side of the inner cube."""
        density_item(begin + wp.tid(), points, n_points, count, model, table, density, geometry)

    return radiance_density


@functools.cache
def scatter_kernel(grid: GridShape, n_rows: int) -> wp.Kernel:
    """Return the kernel that adds the regions' feature gradients to a level's entries, in order."""
    n = grid.n_features
    text = f"""{TYPES}
typedef float vF __attribute__((ext_vector_type({n}), aligned(4)));
{LEVEL}
float* T = d_table.data + (size_t)m_[{OFFSET}] * {n};
unsigned char* touch = touched.data + m_[{OFFSET}] / {GROUP};
for (int chunk = 0; chunk < n_chunks; ++chunk)
for (int i = 0; i < region_n.data[chunk]; ++i) for (int v = 0; v < 2; ++v) {{
    const size_t block = (size_t)chunk * n_blocks + i;
    const float* X = region_x.data + block * 96 + v * 16;
    const float* G = region_d.data + (block * {n_rows} + level * {n}) * 32 + v * 16;
    {corners(grid)}
    const unsigned* ids = (const unsigned*)id; const float* ws = (const float*)w;
    vF row[16]; float* rows = (float*)row;
    for (int f = 0; f < {n}; ++f) for (int u = 0; u < 16; ++u) rows[u * {n} + f] = G[f * 32 + u];
    #pragma unroll
    for (int u = 0; u < 16; ++u) {{
        #pragma unroll
        for (int c = 0; c < {2**grid.n_dims}; ++c) {{
            const unsigned k = ids[c * 16 + u];
            vF* t = (vF*)(T + (size_t)k * {n});
            *t = *t + row[u] * ws[c * 16 + u];
            touch[k / {GROUP}] = 1;
        }}
    }}
}}
"""

    @wp.func_native(text)
    def scatter_level(
        region_x: wp.array[float],
        region_d: wp.array[float],
        region_n: wp.array[int],
        n_chunks: int,
        n_blocks: int,
        scale: wp.array[float],
        meta: wp.array[wp.uint32],
        level: int,
        d_table: wp.array[float],
        touched: wp.array[wp.uint8],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def radiance_scatter(
        begin: int,
        # in
        region_x: wp.array[float],  # [n_chunks, n_blocks, 3, 32]
        region_d: wp.array[float],  # [n_chunks, n_blocks, n_rows, 32]
        region_n: wp.array[int],  # [n_chunks]
        n_chunks: int,
        n_blocks: int,
        scale: wp.array[float],  # [n_levels]
        meta: wp.array[wp.uint32],  # [n_levels, N_META]
        # in and out
        d_table: wp.array[float],  # [n_entries, F], added to
        touched: wp.array[wp.uint8],  # [n_entries / GROUP], set to 1 where something was added
    ):
        """d entry += weight times d feature."""
        scatter_level(
            region_x,
            region_d,
            region_n,
            n_chunks,
            n_blocks,
            scale,
            meta,
            begin + wp.tid(),
            d_table,
            touched,
        )

    return radiance_scatter

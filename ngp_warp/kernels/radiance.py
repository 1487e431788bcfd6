"""The fused radiance field on the CPU: everything that happens to a chunk of rays in one item.

Source: Mueller et al. 2022, appendix E. Twins: tests/reference/{march,composite,grid,mlp}.py;
CUDA and other networks: ngp_warp/radiance/staged.py.

A training item marches its rays in rounds: each ray that is not opaque yet gives its next samples,
which are encoded and sent through the density network. Colours are computed of the samples before
the light is used up only; compositing, loss and the backward pass follow while the activations are
in the cache. The item leaves the positions and feature gradients of the kept samples in its region,
for the scatter into the table, and its sums of the weight gradients.

The number of chunks is fixed, so that no result depends on the number of threads. ``scratch`` has a
slot for each shard of a launch: shards begin at multiples of n_chunks / n_slots.
"""

import functools
from dataclasses import dataclass

import warp as wp

from ngp_warp.kernels import radiance_composite as composite
from ngp_warp.kernels import radiance_march as march
from ngp_warp.kernels import radiance_network as network
from ngp_warp.kernels.grid import GROUP, LEVEL, OFFSET, GridShape, corners
from ngp_warp.kernels.mlp import LAYER, WEIGHT_GRADIENT, ZERO_PARTIALS, MlpShape
from ngp_warp.kernels.vector import MATH, SIGN, TRANSPOSE, TYPES
from ngp_warp.launch import module_options
from ngp_warp.radiance.settings import MAX_SAMPLES, N_GEOMETRY

ROUND = 8
"""Samples of a ray in one round."""
LONGEST = 32
"""The same where few rays are left, so that blocks are filled."""
COUNTERS = 4
"""int64 of a chunk: rays, samples that reached the density network, samples kept, rays given up."""
BLOCKS_PER_ITEM = 16


@dataclass(frozen=True, kw_only=True)
class RadianceShape:
    """What the kernels are compiled for."""

    grid: GridShape
    n_levels: int
    density: MlpShape
    color: MlpShape
    n_latents: int = 0
    aabb_scale: int = 1
    cone: bool = False
    loss: str = "huber"
    color_space: str = "srgb"
    exposure: bool = False
    depth: bool = False
    distortion: bool = False
    background_gradients: bool = False
    n_rays: int = 512
    """Most rays of a chunk."""
    n_samples: int = 4096
    """Most samples of a chunk, a multiple of 32."""

    @property
    def n_hidden(self) -> int:
        """Rows of the colour network's activations."""
        return sum(j for j, _ in self.color.layers)


def _constants(shape: RadianceShape) -> str:
    """Return the definitions of the constants in capital letters."""
    values = {
        "CR": _ray_stride(shape),
        "CS": shape.n_samples,
        "NF": shape.density.n_in,
        "NG": N_GEOMETRY,
        "NCI": shape.color.n_in,
        "NCH": shape.n_hidden,
        "NLAT": shape.n_latents,
        "N_LEVELS": shape.n_levels,
        "N_CASCADES": shape.aabb_scale.bit_length(),
        "ROUND": ROUND,
        "LONGEST": LONGEST,
        "MAX_SAMPLES": MAX_SAMPLES,
        "MAXV": network.widest(shape.density, shape.color) // 16,
        "ROWS": network.widest(shape.density, shape.color),
    }
    text = "\n".join(f"const int {name} = {value};" for name, value in values.items())
    cone = "true" if shape.cone else "false"
    return f"{text}\nconst float AABB = {float(shape.aabb_scale)!r}f;\nconst bool CONE = {cone};\n"


def _ray_stride(shape: RadianceShape) -> int:
    # sixteen more than a multiple of 32: rows of rays are no power of two apart
    return -(-shape.n_rays // 32) * 32 + 16


def _arrays(shape: RadianceShape, *, train: bool) -> list[tuple[str, str, int]]:
    """Return the arrays of a slot of scratch memory: type, name, size in 4-byte words."""
    rays, samples = _ray_stride(shape), shape.n_samples
    ray_floats = ["rjit", "rbegin", "rend", "renter", "rleave", "rtrans", "rk", "rdepth"]
    ray_ints = ["rn", "rhead", "rtail", "rdrop", "ract", "koff"]
    sample_floats = ["st", "sod", "se", "sw", "stafter"]
    sample_ints = ["sr", "seg_ray", "seg_start", "seg_n", "seg_next", "kidx", "kray"]
    arrays = [("float", name, 3 * rays) for name in ("ro", "rd", "rq", "rc", "rshown")]
    arrays.append(("float", "rsh", 16 * rays))
    if train:
        ray_floats += ["rgb_behind", "rloss", "rsquares", "rgdepth"]
        sample_floats.append("kdraw")
        arrays.append(("float", "rg", 3 * rays))
        arrays += [("float", "khid", shape.n_hidden * samples), ("float", "kdrgb", 3 * samples)]
        arrays.append(("float", "rdlat", max(shape.n_latents * rays, 16)))
    arrays += [("float", name, rays) for name in ray_floats]
    arrays += [("int", name, rays) for name in ray_ints]
    arrays += [("float", name, samples) for name in sample_floats]
    arrays += [("int", name, samples) for name in sample_ints]
    arrays += [
        ("float", "sx", 3 * samples),
        ("float", "feat", shape.density.n_in * samples),
        ("float", "geo", N_GEOMETRY * samples),
        ("float", "kin", shape.color.n_in * samples),
        ("float", "krgb", 3 * samples),
        ("float", "found", 16 * (LONGEST + 1)),
    ]
    return arrays


def slot_size(shape: RadianceShape, *, train: bool) -> int:
    """Return the size of a slot of scratch memory in floats."""
    return sum(-(-size // 16) * 16 for _, _, size in _arrays(shape, train=train))


def _pointers(shape: RadianceShape, *, train: bool) -> str:
    """Return the declarations of the scratch arrays."""
    n = slot_size(shape, train=train)
    text = [f"float* slot_ = scratch.data + (size_t)(begin * n_slots / n_chunks) * {n};"]
    offset = 0
    for kind, name, size in _arrays(shape, train=train):
        text.append(f"{kind}* {name} = ({kind}*)(slot_ + {offset}); (void){name};")
        offset += -(-size // 16) * 16
    return "\n".join(text)


_BEGIN = """
int ns = 0, n_seg = 0, nk = 0, n_dropped = 0;
long long n_marched = 0, n_kept = 0;
const float* density_weights = w.data;
const float* color_weights = w.data + DENSITY_PARAMS;
auto sdt = [&](float t) __attribute__((always_inline)) {
    const float s = t * cone_angle;
    return !CONE || s < min_step ? min_step : s > max_step ? max_step : s;
};
(void)sdt;
"""


def _head(shape: RadianceShape, *, train: bool) -> str:
    """Return everything before the rounds."""
    parts = [TYPES, TRANSPOSE, MATH, SIGN, _constants(shape), LAYER, march.HELPERS]
    parts += [_pointers(shape, train=train)]
    parts += [
        _BEGIN.replace("DENSITY_PARAMS", str(shape.density.n_params)),
        march.setup_text(shape.cone),
    ]
    parts += [march.march_text(shape.cone), network.encode_text(shape.grid), network.GATHER_ROWS]
    parts += [network.declare(shape.density, "a")]
    return "\n".join(parts)


def _round(shape: RadianceShape) -> str:
    """Return a round up to the transmittances behind its samples."""
    parts = [march.ROUND, "if (ns == first) { n_active = 0; break; }"]
    parts += ["encode(sx, feat, first >> 5, ns >> 5);", network.density_text(shape.density)]
    return "\n".join([*parts, composite.TRANSMIT])


def train_text(shape: RadianceShape) -> str:
    """Return the body of a training item."""
    counters = """
    counters.data[chunk * 4] = nr; counters.data[chunk * 4 + 1] = n_marched;
    counters.data[chunk * 4 + 2] = n_kept; counters.data[chunk * 4 + 3] = n_dropped;
    """
    partials = ZERO_PARTIALS.replace("g[i]", "{g}[i]").replace("v16* g", "v16* {g}")
    loss = composite.loss_text(
        shape.loss,
        exposure=shape.exposure,
        color_space=shape.color_space,
        background_gradients=shape.background_gradients,
        depth=shape.depth,
        distortion=shape.distortion,
    )
    latents = """
    for (int i = 0; i < nr * NLAT; ++i) rdlat[i] = 0.f;
    """
    write_latents = """
    for (int i = 0; i < nr * NLAT; ++i) d_latents.data[(size_t)ray0 * NLAT + i] = rdlat[i];
    """
    return "\n".join(
        [
            _head(shape, train=True),
            "while (n_active > 0) {",
            _round(shape),
            "}",
            composite.KEPT,
            "const int n_summed = nk;",
            network.HARMONICS,
            network.color_text(shape.color, shape.n_latents, keep=True),
            composite.SUM.replace("N_SUMMED", "n_summed"),
            loss,
            composite.WRITE,
            f"v16 d[{network.widest(shape.density, shape.color)}][2];",
            f"v16 e[{network.widest(shape.density, shape.color)}][2];",
            WEIGHT_GRADIENT,
            partials.replace("partials", "density_partials").format(
                g="gd", n=shape.density.n_partials
            ),
            partials.replace("partials", "color_partials").format(g="gc", n=shape.color.n_partials),
            latents if shape.n_latents else "",
            network.backward_sweep(shape.density, shape.color, shape.n_latents),
            write_latents if shape.n_latents else "",
            counters,
        ]
    )


def render_text(shape: RadianceShape) -> str:
    """Return the body of an item that renders: a round's memory is used again by the next."""
    return "\n".join(
        [
            _head(shape, train=False),
            network.HARMONICS,
            "while (n_active > 0) {",
            "ns = 0; n_seg = 0;",
            _round(shape),
            composite.KEPT_ROUND,
            network.color_text(shape.color, shape.n_latents, keep=False),
            composite.SUM.replace("N_SUMMED", "n_round"),
            "}",
            composite.show_text(shape.color_space, exposure=shape.exposure),
            composite.WRITE,
        ]
    )


@wp.struct
class Rays:
    """The arrays of a ``RayBatch``, see there."""

    count: wp.array[int]
    origin: wp.array[float]
    direction: wp.array[float]
    jitter: wp.array[float]
    view: wp.array[int]
    weight: wp.array[float]
    target: wp.array[float]
    background: wp.array[float]
    depth_target: wp.array[float]
    exposure: wp.array[float]
    color: wp.array[float]
    opacity: wp.array[float]
    depth: wp.array[float]
    n_samples: wp.array[int]
    loss: wp.array[float]
    d_background: wp.array[float]
    d_exposure: wp.array[float]


@wp.struct
class Marching:
    """How rays are marched and compared."""

    occupied: wp.array[wp.uint8]  # bits, then coarse bytes
    capacity: int  # of the batch
    cone_angle: float
    min_step: float
    max_step: float
    near: float
    min_transmittance: float
    depth_weight: float
    distortion_weight: float


@wp.struct
class Model:
    """What rays are sent through, beside the table."""

    scale: wp.array[float]  # [n_levels]
    meta: wp.array[wp.uint32]  # [n_levels, N_META]
    w: wp.array[float]  # density network, colour network
    latents: wp.array[float]  # [n_views, n_latents]


@wp.struct
class Results:
    """What a training item leaves for the launches after it."""

    region_x: wp.array[float]  # [n_chunks, blocks, 3, 32]
    region_d: wp.array[float]  # [n_chunks, blocks, n_rows, 32]: gradients of the features
    region_n: wp.array[int]  # [n_chunks]: blocks that were filled
    density_partials: wp.array[float]  # [n_chunks, n_partials]
    color_partials: wp.array[float]
    counters: wp.array[wp.int64]  # [n_chunks, COUNTERS]
    d_latents: wp.array[float]  # [n_rays, n_latents]
    depth_counts: wp.array[float]  # [n_chunks], in: rays with a known depth


def _members(struct: type, name: str) -> str:
    """Return local names for a struct's members; scalars become constants."""
    lines = [f"const auto& {m} = {name}.{m}; (void){m};" for m in struct.vars]  # type: ignore[attr-defined]
    return "\n".join(lines) + "\n"


_INPUTS = _members(Rays, "rays") + _members(Marching, "marching") + _members(Model, "model")


def _table_type(shape: RadianceShape) -> type:
    return wp.array[wp.float16 if shape.grid.dtype == "float16" else float]  # type: ignore[return-value]


@functools.cache
def train_kernel(shape: RadianceShape) -> wp.Kernel:
    """Return the kernel of a training step from rays to gradients, for chunks of rays."""
    table_type = _table_type(shape)

    @wp.func_native(_INPUTS + _members(Results, "results") + train_text(shape))
    def train_chunk(
        begin: int,
        chunk: int,
        n_chunks: int,
        n_slots: int,
        rays: Rays,
        marching: Marching,
        model: Model,
        table: table_type,
        results: Results,
        scratch: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def radiance_train(
        begin: int,
        # in
        n_chunks: int,
        n_slots: int,
        rays: Rays,  # in and out
        marching: Marching,
        model: Model,
        table: table_type,  # [n_entries, F]
        # out
        results: Results,
        scratch: wp.array[float],  # [n_slots, slot_size]
    ):
        """March, encode, both networks, composite, loss and the way back to the features."""
        train_chunk(
            begin,
            begin + wp.tid(),
            n_chunks,
            n_slots,
            rays,
            marching,
            model,
            table,
            results,
            scratch,
        )

    return radiance_train


@functools.cache
def render_kernel(shape: RadianceShape) -> wp.Kernel:
    """Return the kernel from rays to colours, for chunks of rays."""
    table_type = _table_type(shape)

    @wp.func_native(_INPUTS + render_text(shape))
    def render_chunk(
        begin: int,
        chunk: int,
        n_chunks: int,
        n_slots: int,
        rays: Rays,
        marching: Marching,
        model: Model,
        table: table_type,
        scratch: wp.array[float],
    ): ...

    @wp.kernel(module="unique", module_options=module_options())
    def radiance_render(
        begin: int,
        # in
        n_chunks: int,
        n_slots: int,
        rays: Rays,  # in and out
        marching: Marching,
        model: Model,
        table: table_type,  # [n_entries, F]
        # out
        scratch: wp.array[float],  # [n_slots, slot_size]
    ):
        """Colour, opacity, depth and number of samples of every ray."""
        render_chunk(
            begin, begin + wp.tid(), n_chunks, n_slots, rays, marching, model, table, scratch
        )

    return radiance_render


@functools.cache
def density_kernel(shape: RadianceShape) -> wp.Kernel:
    """Return the kernel density = exp(raw) at points, for runs of blocks."""
    table_type = _table_type(shape)
    last = f"a{len(shape.density.layers)}"
    text = "\n".join(
        [
            _members(Model, "model"),
            TYPES,
            MATH,
            _constants(shape),
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

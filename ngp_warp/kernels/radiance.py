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

import warp as wp

from ngp_warp.kernels.radiance_text import RadianceShape, render_text, train_text
from ngp_warp.launch import module_options


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
    d_origin: wp.array[float]
    d_direction: wp.array[float]
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
    met: wp.array[wp.uint8]  # [n_cascades * 128^3]: 1 where a kept sample was dense


def members_text(struct: type, name: str) -> str:
    """Return local names for a struct's members; scalars become constants."""
    lines = [f"const auto& {m} = {name}.{m}; (void){m};" for m in struct.vars]  # type: ignore[attr-defined]
    return "\n".join(lines) + "\n"


_INPUTS = (
    members_text(Rays, "rays") + members_text(Marching, "marching") + members_text(Model, "model")
)


def table_type_of(shape: RadianceShape) -> type:
    """Return the type of the table that is read."""
    return wp.array[wp.float16 if shape.grid.dtype == "float16" else float]  # type: ignore[return-value]


@functools.cache
def train_kernel(shape: RadianceShape) -> wp.Kernel:
    """Return the kernel of a training step from rays to gradients, for chunks of rays."""
    table_type = table_type_of(shape)

    @wp.func_native(_INPUTS + members_text(Results, "results") + train_text(shape))
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
    table_type = table_type_of(shape)

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

"""Packed samples of rays in Warp's own language: which are kept, and what belongs to each ray.

Source: Max 1995; Mueller et al. 2022, appendix E. Samples lie ray by ray: those that are marched,
and in arrays of their own those that are kept, before which enough light passes. Sums over a ray's
samples are in their order. Twins: tests/reference/composite.py, tests/reference/radiance.py.
"""

import warp as wp

from ngp_warp.kernels.access import blocked_at, put_value, value_at
from ngp_warp.kernels.lanes import lane_sum_int, n_lanes
from ngp_warp.kernels.ray_lanes import (
    any_lane,
    of_last_lane,
    product_before,
    ray_lanes,
    ray_sum,
    ray_sum_int,
)
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

MAX_RAW = 15.0
"""Largest logarithm of a density."""

_MAX_RAW = wp.constant(MAX_RAW)


@wp.func
def samples_of(n_rays: int, n: wp.array[int], end: wp.array[int], r: int):
    """Where a ray's samples begin and end; nowhere if there is no such ray."""
    first = wp.int32(0)
    last = wp.int32(0)
    if r < n_rays:
        last = end[r]
        first = last - n[r]
    return first, last


@wp.func
def density_of(raw: float):
    """Density of the density network's first output."""
    return wp.exp(wp.min(raw, _MAX_RAW))


@wp.kernel
def density_kernel(
    begin: int,
    # in
    geometry: wp.array[float],  # [n_blocks, n_rows, 32]
    n_rows: int,
    # out
    density: wp.array[float],  # [n]
):
    """density = exp(min(raw, MAX_RAW))."""
    i = begin + wp.tid()
    density[i] = density_of(geometry[blocked_at(i, 0, n_rows)])


@wp.kernel
def transmittance_kernel(
    begin: int,
    # in
    n: wp.array[int],  # [n_rays]
    end: wp.array[int],  # [n_rays]
    geometry: wp.array[float],  # [n_blocks, n_rows, 32]
    n_rows: int,
    length: wp.array[float],  # [capacity], box units
    aabb_scale: float,
    min_transmittance: float,
    # out
    thickness: wp.array[float],  # [capacity]
    n_kept: wp.array[int],  # [n_rays]
):
    """s = density * length * aabb_scale; samples are kept while T >= min_transmittance."""
    lane = (begin + wp.tid()) % ray_lanes()
    r = (begin + wp.tid()) / ray_lanes()
    first, last = samples_of(n.shape[0], n, end, r)
    transmittance = float(1.0)
    kept = wp.int32(0)
    round = first
    while any_lane(round < last and transmittance >= min_transmittance):
        i = round + lane
        passes = float(1.0)
        s = float(0.0)
        if i < last and transmittance >= min_transmittance:
            raw = value_at(geometry, blocked_at(i, 0, n_rows))
            s = density_of(raw) * (value_at(length, i) * aabb_scale)
            passes = wp.exp(-s)
        before = product_before(transmittance, passes)
        if i < last and before >= min_transmittance:
            put_value(thickness, i, s)
            kept += 1
        transmittance = of_last_lane(before * passes)
        round += ray_lanes()
    kept = ray_sum_int(kept)
    if lane == 0 and r < n.shape[0]:
        n_kept[r] = kept


# Loads of eight rows are under way at a time: a compiler that does not know the arrays to be two
# would wait for each.
@wp.func_native("""
const float* from = source.data + at;
float* into = target.data + to;
#ifdef __CUDA_ARCH__
for (int row = 0; row < n_rows; row += 8) {
    float v[8];
    #pragma unroll
    for (int j = 0; j < 8; ++j) if (row + j < n_rows) v[j] = from[(row + j) * step];
    #pragma unroll
    for (int j = 0; j < 8; ++j) if (row + j < n_rows) into[(row + j) * 32] = v[j];
}
#else
for (int row = 0; row < n_rows; ++row) into[row * 32] = from[row * step];
#endif
""")
def copy_rows(
    source: wp.array[float], at: int, step: int, n_rows: int, target: wp.array[float], to: int
):
    """Values that lie ``step`` apart become rows of one point of a blocked array."""
    ...


@wp.struct
class Packed:
    """Marched samples, [capacity] each."""

    ray: wp.array[int]
    n: wp.array[int]  # [n_rays]
    end: wp.array[int]  # [n_rays]
    total: wp.array[int]  # [2]; the second counts
    positions: wp.array[float]  # [n_blocks, 3, 32]
    distance: wp.array[float]
    length: wp.array[float]
    thickness: wp.array[float]
    features: wp.array[float]  # [n_blocks, n_features, 32]
    geometry: wp.array[float]  # [n_blocks, n_geometry, 32]


@wp.struct
class Kept:
    """Samples that are composited, [capacity] each."""

    n: wp.array[int]  # [n_rays]
    end: wp.array[int]  # [n_rays]
    positions: wp.array[float]
    distance: wp.array[float]
    length: wp.array[float]
    thickness: wp.array[float]
    features: wp.array[float]
    color_input: wp.array[float]  # [n_blocks, n_color_rows, 32]


@wp.kernel
def keep_kernel(
    begin: int,
    # in
    packed: Packed,
    n_features: int,
    n_geometry: int,
    harmonics: wp.array[float],  # [n_rays * n_direction]
    n_direction: int,
    latents: wp.array[float],  # [n_views * n_latents]
    n_latents: int,
    view: wp.array[int],  # [n_rays]
    # out
    kept: Kept,
):
    """Samples that are kept move together; with them the colour network's input."""
    i = begin + wp.tid()
    if i >= packed.total[1]:
        return
    r = packed.ray[i]
    j = i - (packed.end[r] - packed.n[r])
    if j >= kept.n[r]:
        return
    k = kept.end[r] - kept.n[r] + j
    kept.distance[k] = packed.distance[i]
    kept.length[k] = packed.length[i]
    kept.thickness[k] = packed.thickness[i]
    copy_rows(packed.positions, blocked_at(i, 0, 3), 32, 3, kept.positions, blocked_at(k, 0, 3))
    source = blocked_at(i, 0, n_features)
    target = blocked_at(k, 0, n_features)
    copy_rows(packed.features, source, 32, n_features, kept.features, target)
    source = blocked_at(i, 0, n_geometry)
    target = blocked_at(k, 0, n_geometry + n_direction + n_latents)
    copy_rows(packed.geometry, source, 32, n_geometry, kept.color_input, target)
    target += n_geometry * 32
    copy_rows(harmonics, r * n_direction, 1, n_direction, kept.color_input, target)
    target += n_direction * 32
    for row in range(n_latents):
        value = float(0.0)
        if view[r] >= 0:
            value = latents[view[r] * n_latents + row]
        kept.color_input[target + row * 32] = value


@wp.kernel
def geometry_gradient_kernel(
    begin: int,
    # in
    d_color_input: wp.array[float],  # [n_blocks, n_color_rows, 32]
    n_color_rows: int,
    d_raw: wp.array[float],  # [capacity]
    n_geometry: int,
    n_kept: wp.array[int],  # [1]
    # out
    d_geometry: wp.array[float],  # [n_blocks, n_geometry, 32]; zero where there is no sample
):
    """The density network's outputs go into the colour network; the first is also the density."""
    i = begin + wp.tid()
    target = blocked_at(i, 0, n_geometry)
    if i >= n_kept[0]:
        for row in range(n_geometry):
            d_geometry[target + row * 32] = 0.0
        return
    source = blocked_at(i, 0, n_color_rows)
    d_geometry[target] = d_color_input[source] + d_raw[i]
    copy_rows(d_color_input, source + 32, 32, n_geometry - 1, d_geometry, target + 32)


@wp.kernel
def ray_sum_kernel(
    begin: int,
    # in
    count: wp.array[int],  # [1]
    n: wp.array[int],  # [n_rays]
    end: wp.array[int],  # [n_rays]
    blocked: wp.array[float],  # [n_blocks, n_rows, 32]
    n_rows: int,
    first_row: int,
    n_summed: int,
    # out
    sums: wp.array[float],  # [n_rays * n_summed]
):
    """Sum over a ray's kept samples of some rows."""
    lane = (begin + wp.tid()) % ray_lanes()
    r = (begin + wp.tid()) / ray_lanes()
    if not any_lane(r < count[0]):
        return
    first, last = samples_of(count[0], n, end, r)
    for row in range(n_summed):
        total = float(0.0)
        for k in range(first + lane, last, ray_lanes()):
            total += blocked[blocked_at(k, first_row + row, n_rows)]
        total = ray_sum(total)
        if lane == 0 and r < count[0]:
            sums[r * n_summed + row] = total


@wp.kernel
def ray_gradient_kernel(
    begin: int,
    # in
    count: wp.array[int],  # [1]
    n: wp.array[int],  # [n_rays]
    end: wp.array[int],  # [n_rays]
    distance: wp.array[float],  # [capacity]
    d_positions: wp.array[float],  # [n_blocks, 3, 32]
    d_harmonics: wp.array[float],  # [n_rays * 3]: gradient of the direction from its harmonics
    # out
    d_origin: wp.array[float],  # [n_rays * 3]
    d_direction: wp.array[float],  # [n_rays * 3]
):
    """Positions are x = o + t d at fixed t: sums of dx and of t dx."""
    lane = (begin + wp.tid()) % ray_lanes()
    r = (begin + wp.tid()) / ray_lanes()
    if not any_lane(r < count[0]):
        return
    first, last = samples_of(count[0], n, end, r)
    for axis in range(3):
        g = float(0.0)
        gt = float(0.0)
        if lane == 0 and r < count[0]:
            gt = d_harmonics[r * 3 + axis]
        for k in range(first + lane, last, ray_lanes()):
            dx = d_positions[blocked_at(k, axis, 3)]
            g += dx
            gt += distance[k] * dx
        g = ray_sum(g)
        gt = ray_sum(gt)
        if lane == 0 and r < count[0]:
            d_origin[r * 3 + axis] = g
            d_direction[r * 3 + axis] = gt


@wp.kernel
def latent_sum_kernel(
    begin: int,
    # in
    count: wp.array[int],  # [1]
    view: wp.array[int],  # [n_rays]
    d_latents: wp.array[float],  # [n_rays * n_latents]
    n_latents: int,
    unit: wp.float64,  # 2^44, the unit's reciprocal
    # in and out
    sums: wp.array[wp.int64],  # [n_views * n_latents]
):
    """Sums over each view's rays as integers, which do not depend on the order.

    An item is a component of a ray's vector.
    """
    item = begin + wp.tid()
    r = item / n_latents
    if r >= count[0] or view[r] < 0:
        return
    value = wp.int64(wp.rint(wp.float64(d_latents[item]) * unit))
    wp.atomic_add(sums, view[r] * n_latents + item % n_latents, value)


@wp.kernel
def latent_gradient_kernel(
    begin: int,
    # in
    unit: wp.float64,
    # in and out
    sums: wp.array[wp.int64],  # set to zero
    # out
    gradient: wp.array[float],
):
    """The integers as floats."""
    i = begin + wp.tid()
    gradient[i] = float(wp.float64(sums[i]) / unit)
    sums[i] = wp.int64(0)


@wp.kernel
def counters_kernel(
    begin: int,
    # in
    count: wp.array[int],  # [1]
    n_chunks: int,
    counted: wp.array[int],  # [n_rays]: samples, of rays without room too
    n_kept: wp.array[int],  # [n_rays]
    n_samples: wp.array[int],  # [n_rays]; -1: no room
    # out
    counters: wp.array[wp.int64],  # [n_chunks, 4]: rays, samples, kept samples, rays given up
):
    """What a step has done, by chunk of rays."""
    item = begin + wp.tid()
    chunk = item / n_lanes()
    lane = item % n_lanes()
    # of the rays there are: most batches are smaller than what there is room for
    size = (count[0] + n_chunks - 1) / n_chunks
    first = wp.min(chunk * size, count[0])
    end = wp.min((chunk + 1) * size, count[0])
    samples = wp.int32(0)
    kept = wp.int32(0)
    given_up = wp.int32(0)
    for r in range(first + lane, end, n_lanes()):
        samples += counted[r]
        kept += n_kept[r]
        given_up += wp.where(n_samples[r] < 0, 1, 0)
    samples = lane_sum_int(samples)
    kept = lane_sum_int(kept)
    given_up = lane_sum_int(given_up)
    if lane > 0:
        return
    counters[chunk * 4] = wp.int64(end - first)
    counters[chunk * 4 + 1] = wp.int64(samples)
    counters[chunk * 4 + 2] = wp.int64(kept)
    counters[chunk * 4 + 3] = wp.int64(given_up)

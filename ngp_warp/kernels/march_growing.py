"""Packed ray marching with growing steps, the lanes of a warp along one ray: for CUDA.

Source and lattice: kernels/march.py, whose samples these are, bit for bit. A lattice point is known
from the one before alone, so one item a ray first notes where segments of as many points begin,
looking nothing up. Then every lane looks through one segment for blocks of 8^3 cells that are not
empty, and all lanes together look up the points of each segment that has any.

On a CPU, where a ray is one segment, the samples are the same. Not differentiable. Twin:
tests/reference/march.py.
"""

import warp as wp

from ngp_warp.kernels.access import byte_at, put_value, value_at, vector_at
from ngp_warp.kernels.lanes import (
    lane_bits,
    lane_value,
    lane_value_int,
    lowest_bit,
    n_bits,
    n_lanes,
)
from ngp_warp.kernels.march import Lattice, cascade_of, cell_of, ray_span, step_length, tell_room
from ngp_warp.kernels.march_lanes import (
    Filled,
    Ray,
    block_exit,
    coarse_index,
    is_sample,
    lane_ray,
    n_rays_of_warp,
    put_sample,
    stored_ray,
)
from ngp_warp.launch import module_options

wp.set_module_options(module_options())


@wp.func
def segment_points(lattice: Lattice, t0: float, t1: float):
    """Points of a segment, so that n_lanes of them have about all: the last one has the rest."""
    turn = lattice.min_step / lattice.cone_angle
    n = wp.max(wp.min(t1, turn) - t0, 0.0) * lattice.rate
    growth = wp.log(wp.max(t1, turn) / wp.max(t0, turn))
    n += growth / wp.log(1.0 + lattice.cone_angle)
    return wp.max(wp.int32(n / float(n_lanes())), 0) + 1


@wp.kernel
def start_kernel(
    begin: int,
    # in
    lattice: Lattice,
    count: wp.array[int],  # [1]
    origin: wp.array[float],  # [n_rays * 3]
    direction: wp.array[float],
    jitter: wp.array[float],
    weight: wp.array[float],
    # out
    span: wp.array[float],  # [n_rays * 3]: entry, first lattice point, exit
    starts: wp.array[float],  # [n_rays, n_lanes]
):
    """Distances at which the segments of each ray begin; one item a ray."""
    r = begin + wp.tid()
    if r >= count[0] or weight[r] <= 0.0:
        return
    entry, t1 = ray_span(lattice, vector_at(origin, r), vector_at(direction, r))
    t = entry + jitter[r] * step_length(lattice, entry)
    span[r * 3] = entry
    span[r * 3 + 1] = t
    span[r * 3 + 2] = t1
    n = segment_points(lattice, t, t1)
    segment = wp.int32(0)
    while segment < n_lanes():
        put_value(starts, r * n_lanes() + segment, t)
        i = wp.int32(0)
        while i < n:
            t = t + step_length(lattice, t)
            i += 1
        segment += 1


@wp.func
def segments_with_cells(
    lattice: Lattice, bits: wp.array[wp.uint8], ray: Ray, begin: float, end: float
):
    """Bit i: a point of lane i's segment is in a block of 8^3 cells that is not empty."""
    found = wp.int32(0)
    t = float(begin)
    while found == 0 and t < end:
        p = ray.o + t * ray.d
        cascade = cascade_of(lattice, p, step_length(lattice, t))
        cell = cell_of(lattice, p, cascade)
        found = byte_at(bits, coarse_index(lattice, cell, cascade))
        leaves = wp.min(block_exit(lattice, ray, cell, cascade), end)
        # a longer step is looked up in a larger cascade, if there is one
        longest = lattice.inner_half * float(1 << cascade) / 64.0
        if cascade == lattice.n_cascades - 1:
            longest = lattice.max_step
        t = t + step_length(lattice, t)
        while t < leaves and step_length(lattice, t) <= longest:
            t = t + step_length(lattice, t)
    return lane_bits(found)


@wp.func
def point_of_lane(lattice: Lattice, first: float, lane: int):
    """The lattice point as many steps behind ``first`` as the lane's number."""
    t = float(first)
    i = wp.int32(0)
    while i < lane:
        t = t + step_length(lattice, t)
        i += 1
    return t


@wp.func
def walk(
    lattice: Lattice,
    bits: wp.array[wp.uint8],
    ray: Ray,
    start: float,
    lane: int,
    r: int,
    first: int,
    most: int,
    writes: bool,
    filled: Filled,
):
    """Samples of ray r, at most ``most``, the same number for every lane.

    They are written to the places from ``first`` on, if wanted; lanes have neighbouring ones.
    """
    following = lane_value(start, lane + 1)
    end = wp.min(wp.where(lane + 1 < n_lanes(), following, ray.t1), ray.t1)
    segments = segments_with_cells(lattice, bits, ray, start, end)
    before = (1 << lane) - 1
    n = wp.int32(0)
    while segments != 0 and n < most:
        segment = lowest_bit(segments)
        segments = segments & (segments - 1)
        at = lane_value(start, segment)
        stop = lane_value(end, segment)
        while at < stop and n < most:
            t = point_of_lane(lattice, at, lane)
            found = is_sample(lattice, bits, ray, t, stop)
            samples = lane_bits(found)
            i = n + n_bits(samples & before)
            if writes and found != 0 and i < most:
                put_sample(filled, lattice, ray, r, t, first + i)
            n += n_bits(samples)
            last = lane_value(t, n_lanes() - 1)
            at = last + step_length(lattice, last)
    return wp.min(n, most)


@wp.kernel
def count_kernel(
    begin: int,
    # in
    lattice: Lattice,
    bits: wp.array[wp.uint8],
    count: wp.array[int],  # [1]
    origin: wp.array[float],  # [n_rays * 3]
    direction: wp.array[float],
    weight: wp.array[float],
    span: wp.array[float],  # [n_rays * 3]
    starts: wp.array[float],  # [n_rays, n_lanes]
    # out
    n_samples: wp.array[int],  # [n_rays]; 0 for rays that do not count
):
    """Samples of each ray."""
    i = begin + wp.tid()
    lane = i % n_lanes()
    first = (i / n_lanes()) * n_rays_of_warp()
    r = first + lane % n_rays_of_warp()
    own = Ray()
    counts = wp.int32(0)
    if r < count[0] and weight[r] > 0.0:
        counts = 1
        own = stored_ray(origin, direction, span, r)
    n = wp.int32(0)
    j = wp.int32(0)
    while j < n_rays_of_warp():
        if lane_value_int(counts, j) != 0:
            ray = lane_ray(own, j)
            start = value_at(starts, (first + j) * n_lanes() + lane)
            most = lattice.max_samples
            found = walk(lattice, bits, ray, start, lane, 0, 0, most, False, Filled())
            if lane == j:
                n = found
        j += 1
    if lane < n_rays_of_warp() and r < n_samples.shape[0]:
        n_samples[r] = n


@wp.kernel
def fill_kernel(
    begin: int,
    # in
    lattice: Lattice,
    bits: wp.array[wp.uint8],
    count: wp.array[int],  # [1]
    origin: wp.array[float],  # [n_rays * 3]
    direction: wp.array[float],
    span: wp.array[float],  # [n_rays * 3]
    starts: wp.array[float],  # [n_rays, n_lanes]
    n_samples: wp.array[int],  # [n_rays]
    sums: wp.array[int],  # [n_rays], inclusive
    capacity: int,
    # out
    n_packed: wp.array[int],  # [n_rays]; 0 where a ray has no room
    reported: wp.array[int],  # [n_rays]; -1 where a ray has no room
    filled: Filled,
):
    """Samples of each ray at its place; rays that end behind ``capacity`` are left out whole."""
    i = begin + wp.tid()
    lane = i % n_lanes()
    first = (i / n_lanes()) * n_rays_of_warp()
    r = first + lane % n_rays_of_warp()
    own = Ray()
    n = wp.int32(0)
    end = wp.int32(0)
    if r < n_samples.shape[0]:
        end = sums[r]
        n = wp.where(end > capacity, 0, n_samples[r])
        if lane < n_rays_of_warp():
            tell_room(count[0], n_samples[r], r, n, n_packed, reported)
    if n > 0:
        own = stored_ray(origin, direction, span, r)
    j = wp.int32(0)
    while j < n_rays_of_warp():
        most = lane_value_int(n, j)
        if most > 0:
            ray = lane_ray(own, j)
            start = value_at(starts, (first + j) * n_lanes() + lane)
            at = lane_value_int(end, j) - most
            walk(lattice, bits, ray, start, lane, first + j, at, most, True, filled)
        j += 1

"""Packed ray marching with equal steps, the lanes of a warp along one ray: for CUDA.

Source and lattice: kernels/march.py, whose samples these are, bit for bit. With equal steps the
lattice is indexed, t_k = t_0 + k min_step, so that lanes need not wait for each other. n lanes take
n windows of n lattice points each: every lane looks through one window for blocks of 8^3 cells that
are not empty, then all lanes together look up the points of each window that has any.

On a CPU, where n is 1, the samples are the same. Not differentiable. Twin:
tests/reference/march.py.
"""

import warp as wp

from ngp_warp.kernels.access import byte_at, put_value, value_at, vector_at
from ngp_warp.kernels.lanes import (
    lane_bits,
    lane_items,
    lane_value,
    lane_value_int,
    lowest_bit,
    n_bits,
    n_lanes,
)
from ngp_warp.kernels.march import (
    Lattice,
    cascade_of,
    cell_of,
    inverse_of,
    ray_span,
    step_length,
    tell_room,
)
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

RAYS_OF_A_WARP = 4
"""A warp's rays are prepared side by side, then marched one after another. Most rays of a training
step do not count, too: a warp each would cost more than marching those that do."""

_CELLS = wp.constant(128)
_CUBE = wp.constant(128 * 128 * 128)
_COARSE = wp.constant(16)
_COARSE_CUBE = wp.constant(16 * 16 * 16)
_FAR = wp.constant(1.0e30)
# Roundings of positions and exits add up to less than (15 + 6 |o|) 2^-24, see ``make_ray``
_ROUNDING = wp.constant(10.0 * 2.0**-24)


def warp_items(n_rays: int, device: str) -> int:
    """Return the number of items of a launch."""
    return lane_items(-(-n_rays // (1 if device == "cpu" else RAYS_OF_A_WARP)), device)


@wp.func_native(f"""
#ifdef __CUDA_ARCH__
return {RAYS_OF_A_WARP};
#else
return 1;
#endif
""")
def n_rays_of_warp() -> int:
    """How many rays the lanes of a warp march."""
    ...


@wp.struct
class Ray:
    """A ray and where it leaves blocks: axis a's plane x = 0.5 + c at ``c inverse[a] + bias[a]``.

    ``bias`` is so much less that no rounding puts a point before that distance behind the plane.
    """

    o: wp.vec3
    d: wp.vec3
    inverse: wp.vec3
    bias: wp.vec3
    t0: float  # first lattice point
    t1: float  # exit; less than t0: a ray that is not marched


@wp.func
def make_ray(o: wp.vec3, d: wp.vec3, t0: float, t1: float):
    """A ray from its lattice's first point to its exit."""
    ray = Ray()
    ray.o = o
    ray.d = d
    ray.t0 = t0
    ray.t1 = t1
    ray.inverse = inverse_of(d)
    for axis in range(3):
        q = ray.inverse[axis]
        # roundings of o, of t d and of the position itself, as a length along the ray
        margin = _ROUNDING * (2.0 + wp.abs(o[axis])) * wp.abs(q)
        ray.bias[axis] = wp.where(q == 0.0, _FAR, (0.5 - o[axis]) * q - margin)
    return ray


@wp.func
def stored_ray(origin: wp.array[float], direction: wp.array[float], span: wp.array[float], r: int):
    """Ray r, whose ``span`` is known."""
    t0 = value_at(span, r * 3 + 1)
    t1 = value_at(span, r * 3 + 2)
    return make_ray(vector_at(origin, r), vector_at(direction, r), t0, t1)


@wp.func
def lane_vector(v: wp.vec3, lane: int):
    """The vector of a lane, for every lane."""
    return wp.vec3(lane_value(v[0], lane), lane_value(v[1], lane), lane_value(v[2], lane))


@wp.func
def lane_ray(own: Ray, lane: int):
    """The ray of a lane, for every lane."""
    ray = Ray()
    ray.o = lane_vector(own.o, lane)
    ray.d = lane_vector(own.d, lane)
    ray.inverse = lane_vector(own.inverse, lane)
    ray.bias = lane_vector(own.bias, lane)
    ray.t0 = lane_value(own.t0, lane)
    ray.t1 = lane_value(own.t1, lane)
    return ray


@wp.func
def distance_at(lattice: Lattice, ray: Ray, place: float):
    """t_k of a whole number k."""
    return ray.t0 + place * lattice.min_step


@wp.func
def block_exit(lattice: Lattice, ray: Ray, cell: wp.vec3i, cascade: int):
    """Distance before which a ray does not leave a cell's block of 8^3 cells."""
    side = lattice.inner_half * float(1 << cascade) / 64.0
    leaves = float(_FAR)
    for axis in range(3):
        ahead = wp.where(ray.inverse[axis] > 0.0, 8 - _CELLS / 2, -(_CELLS / 2))
        plane = float(((cell[axis] >> 3) << 3) + ahead) * side
        leaves = wp.min(leaves, plane * ray.inverse[axis] + ray.bias[axis])
    return leaves


@wp.func
def after_block(lattice: Lattice, ray: Ray, cell: wp.vec3i, cascade: int, place: float):
    """Index of a lattice point, all points from ``place`` to it in the same block of 8^3 cells."""
    leaves = block_exit(lattice, ray, cell, cascade)
    return wp.max(wp.ceil((leaves - ray.t0) * lattice.rate), place + 1.0)


@wp.func
def coarse_index(lattice: Lattice, cell: wp.vec3i, cascade: int):
    """Where the byte of a cell's block of 8^3 lies in the bits."""
    block = (cell[0] >> 3) + _COARSE * ((cell[1] >> 3) + _COARSE * (cell[2] >> 3))
    return lattice.n_cascades * (_CUBE / 8) + cascade * _COARSE_CUBE + block


@wp.func
def windows_with_cells(lattice: Lattice, bits: wp.array[wp.uint8], ray: Ray, first: int, lane: int):
    """Bit i: a point of window first + i is in a block of 8^3 cells that is not empty."""
    place = float((first + lane) * n_lanes())
    stop = place + float(n_lanes())
    found = wp.int32(0)
    t = distance_at(lattice, ray, place)
    while found == 0 and place < stop and t < ray.t1:
        p = ray.o + t * ray.d
        cascade = cascade_of(lattice, p, lattice.min_step)
        cell = cell_of(lattice, p, cascade)
        found = byte_at(bits, coarse_index(lattice, cell, cascade))
        place = after_block(lattice, ray, cell, cascade, place)
        t = distance_at(lattice, ray, place)
    return lane_bits(found)


@wp.func
def is_sample(lattice: Lattice, bits: wp.array[wp.uint8], ray: Ray, t: float, end: float):
    """Whether a lattice point is before ``end`` and in an occupied cell."""
    if t >= end:
        return 0
    p = ray.o + t * ray.d
    cascade = cascade_of(lattice, p, step_length(lattice, t))
    cell = cell_of(lattice, p, cascade)
    index = cell[0] + _CELLS * (cell[1] + _CELLS * cell[2])
    return (byte_at(bits, (cascade * _CUBE + index) >> 3) >> (index & 7)) & 1


@wp.struct
class Filled:
    """Samples in a row; see ``radiance/marching.py``."""

    positions: wp.array[float]  # [n_blocks, 3, 32]
    distance: wp.array[float]  # [capacity]
    length: wp.array[float]  # [capacity]: dt
    ray: wp.array[int]  # [capacity]


@wp.func
def put_sample(filled: Filled, lattice: Lattice, ray: Ray, r: int, t: float, i: int):
    """Write a sample of ray r at place i."""
    p = ray.o + t * ray.d
    place = (i >> 5) * 96 + (i & 31)
    for axis in range(3):
        put_value(filled.positions, place + axis * 32, p[axis])
    put_value(filled.distance, i, t)
    put_value(filled.length, i, step_length(lattice, t))
    filled.ray[i] = r


@wp.func
def walk(
    lattice: Lattice,
    bits: wp.array[wp.uint8],
    ray: Ray,
    lane: int,
    r: int,
    begin: int,
    most: int,
    writes: bool,
    filled: Filled,
):
    """Samples of ray r, at most ``most``, the same number for every lane.

    They are written to the places from ``begin`` on, if wanted; lanes have neighbouring ones.
    """
    n = wp.int32(0)
    first = wp.int32(0)
    before = (1 << lane) - 1
    while n < most and distance_at(lattice, ray, float(first * n_lanes())) < ray.t1:
        windows = windows_with_cells(lattice, bits, ray, first, lane)
        while windows != 0 and n < most:
            k = (first + lowest_bit(windows)) * n_lanes() + lane
            windows = windows & (windows - 1)
            t = distance_at(lattice, ray, float(k))
            found = is_sample(lattice, bits, ray, t, ray.t1)
            samples = lane_bits(found)
            i = n + n_bits(samples & before)
            if writes and found != 0 and i < most:
                put_sample(filled, lattice, ray, r, t, begin + i)
            n += n_bits(samples)
        first += n_lanes()
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
    jitter: wp.array[float],
    weight: wp.array[float],
    # out
    span: wp.array[float],  # [n_rays * 3]: entry, first lattice point, exit
    n_samples: wp.array[int],  # [n_rays]; 0 for rays that do not count
):
    """Samples of each ray."""
    i = begin + wp.tid()
    lane = i % n_lanes()
    r = (i / n_lanes()) * n_rays_of_warp() + lane % n_rays_of_warp()
    own = Ray()
    own.t1 = -1.0
    if r < count[0] and weight[r] > 0.0:
        o = vector_at(origin, r)
        d = vector_at(direction, r)
        entry, t1 = ray_span(lattice, o, d)
        own = make_ray(o, d, entry + jitter[r] * step_length(lattice, entry), t1)
        if lane < n_rays_of_warp():
            put_value(span, r * 3, entry)
            put_value(span, r * 3 + 1, own.t0)
            put_value(span, r * 3 + 2, own.t1)
    n = wp.int32(0)
    n_here = wp.min(count[0] - (i / n_lanes()) * n_rays_of_warp(), n_rays_of_warp())
    j = wp.int32(0)
    while j < n_here:
        ray = lane_ray(own, j)
        n_found = walk(lattice, bits, ray, lane, 0, 0, lattice.max_samples, False, Filled())
        if lane == j:
            n = n_found
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
            at = lane_value_int(end, j) - most
            walk(lattice, bits, lane_ray(own, j), lane, first + j, at, most, True, filled)
        j += 1

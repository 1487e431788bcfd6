"""Packed ray marching in Warp's own language: count, scan, fill.

Source: Mueller et al. 2022, appendix E.1, with samples on a lattice per ray: t_0 is the entry into
the box plus a jitter, t_{k+1} = t_k + dt(t_k) with dt(t) = cone_angle t between min_step and
max_step; with cone_angle 0, t_k = t_0 + k min_step. A sample is taken at t_k where its cell is
occupied. Empty cells are skipped along the lattice: an axis of the computed position is monotone in
t, so that all points between two of one cell lie in it, and no rounding can make a skip miss an
occupied cell.

Samples are packed ray by ray. Not differentiable. Twin: tests/reference/march.py.
"""

import warp as wp

from ngp_warp.kernels.lanes import lane_sum_int, n_lanes
from ngp_warp.kernels.occupancy import MAX_THRESHOLD, is_occupied
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

MAX_LENGTH = 2.0
"""Longest way through the box that is marched; its diagonal is sqrt(3)."""

_CELLS = wp.constant(128)
_CUBE = wp.constant(128 * 128 * 128)
_COARSE = wp.constant(16)
_COARSE_CUBE = wp.constant(16 * 16 * 16)
_MAX_LENGTH = wp.constant(MAX_LENGTH)
_FAR = wp.constant(1.0e30)
_DENSE = wp.constant(MAX_THRESHOLD)


@wp.struct
class Lattice:
    """How rays step, in box units."""

    n_cascades: int
    inner_half: float  # half a side of the smallest cascade: 2^-n_cascades
    cone_angle: float
    min_step: float
    rate: float  # 1 / min_step
    max_step: float
    near: float
    max_samples: int


@wp.struct
class Block:
    """Cells that are skipped at once: one, or 8^3."""

    cascade: int
    low: wp.vec3i
    size: int


@wp.func
def step_length(lattice: Lattice, t: float):
    """dt(t)."""
    return wp.clamp(t * lattice.cone_angle, lattice.min_step, lattice.max_step)


@wp.func
def cascade_of(lattice: Lattice, p: wp.vec3, dt: float):
    """The smallest cascade that contains p and whose cells are not shorter than dt."""
    last = lattice.n_cascades - 1
    half = lattice.inner_half
    cascade = wp.int32(0)
    u = p - wp.vec3(0.5, 0.5, 0.5)
    # half-open, as cells are: no point lies in an inner cascade's cell without being inside it
    low = wp.min(u)
    high = wp.max(u)
    while cascade < last and (low < -half or high >= half or dt > half / 64.0):
        cascade += 1
        half *= 2.0
    return cascade


@wp.func
def cell_of(lattice: Lattice, p: wp.vec3, cascade: int):
    """Indices of the cell that contains p, or of the nearest one, in a cascade."""
    scale = float(_CELLS << (lattice.n_cascades - 1 - cascade))
    cell = wp.vec3i()
    for axis in range(3):
        # scale is a power of two: exact, so that cascades' cells nest
        place = wp.int32(wp.floor((p[axis] - 0.5) * scale)) + _CELLS / 2
        cell[axis] = wp.clamp(place, 0, _CELLS - 1)
    return cell


@wp.func
def in_block(lattice: Lattice, block: Block, p: wp.vec3, dt: float):
    """Whether a point is looked up in one of the block's cells."""
    cell = cell_of(lattice, p, block.cascade) - block.low
    inside = wp.min(cell) >= 0 and wp.max(cell) < block.size
    return inside and cascade_of(lattice, p, dt) == block.cascade


@wp.func
def inverse_of(d: wp.vec3):
    """1 / d, or 0 along axes on which a ray does not move."""
    inverse = wp.vec3()
    for axis in range(3):
        # so small a part moves no ray within the box, and its inverse might be infinite
        inverse[axis] = wp.where(wp.abs(d[axis]) > 1.0e-30, 1.0 / d[axis], 0.0)
    return inverse


@wp.func
def block_exit(lattice: Lattice, block: Block, o: wp.vec3, inverse: wp.vec3):
    """Distance at which a ray leaves a block, up to rounding; ``inverse`` of ``inverse_of``."""
    side = lattice.inner_half * float(1 << block.cascade) / 64.0
    leaves = float(_FAR)
    for axis in range(3):
        # selected, not branched to: a warp's rays go all ways
        face = block.low[axis] - _CELLS / 2 + wp.where(inverse[axis] > 0.0, block.size, 0)
        at = (0.5 + float(face) * side - o[axis]) * inverse[axis]
        leaves = wp.min(leaves, wp.where(inverse[axis] != 0.0, at, _FAR))
    return leaves


@wp.func
def skip_even(
    lattice: Lattice, block: Block, o: wp.vec3, d: wp.vec3, inverse: wp.vec3, t0: float, k: int
):
    """Index of a point after k, all points between the two in the block; equal steps."""
    dt = lattice.min_step
    leaves = wp.min(block_exit(lattice, block, o, inverse), t0 + 2.0 * _MAX_LENGTH)
    after = wp.max(wp.int32(wp.ceil((leaves - t0) / dt)), k + 1)
    searching = wp.bool(True)
    while searching and after > k + 1:
        if in_block(lattice, block, o + (t0 + float(after - 1) * dt) * d, dt):
            searching = wp.bool(False)
        else:
            after -= 1
    return after


@wp.func
def skip_growing(
    lattice: Lattice, block: Block, o: wp.vec3, d: wp.vec3, inverse: wp.vec3, t: float
):
    """Distance of a point after t, all points between the two in the block; growing steps."""
    leaves = block_exit(lattice, block, o, inverse)
    before = float(t)
    after = t + step_length(lattice, t)
    while after < leaves:
        before = after
        after = after + step_length(lattice, after)
    if before > t and not in_block(lattice, block, o + before * d, step_length(lattice, before)):
        # rounding: go again, looking at every point
        after = t + step_length(lattice, t)
        while in_block(lattice, block, o + after * d, step_length(lattice, after)):
            after = after + step_length(lattice, after)
    return after


@wp.func
def find_sample(
    lattice: Lattice,
    bits: wp.array[wp.uint8],
    o: wp.vec3,
    d: wp.vec3,
    inverse: wp.vec3,
    t0: float,
    t1: float,
    first: int,
    t_first: float,
):
    """Index and distance of the first sample from a lattice point on; a distance >= t1: none."""
    k = wp.int32(first)
    t = float(t_first)
    n_fine = lattice.n_cascades * (_CUBE / 8)
    searching = wp.bool(True)
    while searching and t < t1:
        dt = step_length(lattice, t)
        p = o + t * d
        block = Block()
        block.cascade = cascade_of(lattice, p, dt)
        cell = cell_of(lattice, p, block.cascade)
        coarse = cell[0] / 8 + _COARSE * (cell[1] / 8 + _COARSE * (cell[2] / 8))
        index = cell[0] + _CELLS * (cell[1] + _CELLS * cell[2])
        if bits[n_fine + block.cascade * _COARSE_CUBE + coarse] == wp.uint8(0):
            block.size = 8
            block.low = wp.vec3i(cell[0] / 8 * 8, cell[1] / 8 * 8, cell[2] / 8 * 8)
        elif is_occupied(bits, block.cascade * _CUBE + index) == 0:
            block.size = 1
            block.low = cell
        else:
            searching = wp.bool(False)
        if searching:
            if lattice.cone_angle == 0.0:
                k = skip_even(lattice, block, o, d, inverse, t0, k)
                t = t0 + float(k) * lattice.min_step
            else:
                t = skip_growing(lattice, block, o, d, inverse, t)
    return k, t


@wp.func
def next_point(lattice: Lattice, t0: float, k: int, t: float):
    """Index and distance of the lattice point after one."""
    if lattice.cone_angle == 0.0:
        return k + 1, t0 + float(k + 1) * lattice.min_step
    return k + 1, t + step_length(lattice, t)


@wp.func
def ray_span(lattice: Lattice, o: wp.vec3, d: wp.vec3):
    """Distances at which a ray is inside the box, from ``near`` on; empty: the second is not more.

    The slabs' latest entry and first exit.
    """
    t0 = lattice.near
    t1 = float(_FAR)
    for axis in range(3):
        if d[axis] != 0.0:
            a = -o[axis] / d[axis]
            b = (1.0 - o[axis]) / d[axis]
            t0 = wp.max(t0, wp.min(a, b))
            t1 = wp.min(t1, wp.max(a, b))
        elif o[axis] < 0.0 or o[axis] > 1.0:
            t1 = -1.0
    return t0, wp.min(t1, t0 + _MAX_LENGTH)


@wp.func
def vector_at(values: wp.array[float], i: int):
    """Three floats as a vector."""
    return wp.vec3(values[i * 3], values[i * 3 + 1], values[i * 3 + 2])


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
    r = begin + wp.tid()
    n = wp.int32(0)
    if r < count[0] and weight[r] > 0.0:
        o = vector_at(origin, r)
        d = vector_at(direction, r)
        inverse = inverse_of(d)
        entry, t1 = ray_span(lattice, o, d)
        t0 = entry + jitter[r] * step_length(lattice, entry)
        span[r * 3] = entry
        span[r * 3 + 1] = t0
        span[r * 3 + 2] = t1
        k = wp.int32(0)
        t = float(t0)
        while t < t1 and n < lattice.max_samples:
            k, t = find_sample(lattice, bits, o, d, inverse, t0, t1, k, t)
            if t < t1:
                n += 1
                k, t = next_point(lattice, t0, k, t)
    n_samples[r] = n


@wp.kernel
def scan_kernel(
    begin: int,
    # in
    values: wp.array[int],  # [n]
    n: int,
    # out
    sums: wp.array[int],  # [n], inclusive
):
    """Inclusive sums, by one item: for a CPU."""
    total = wp.int32(0)
    for i in range(n):
        total += values[i]
        sums[i] = total


@wp.func
def tell_room(
    n_rays: int, n_found: int, r: int, n: int, n_packed: wp.array[int], reported: wp.array[int]
):
    """Write how many samples of ray r have room: n, all that were found or none."""
    n_packed[r] = n
    if r < n_rays:
        reported[r] = wp.where(n < n_found, -1, n)


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
    positions: wp.array[float],  # [n_blocks, 3, 32]
    distance: wp.array[float],  # [capacity]
    length: wp.array[float],  # [capacity]: dt
    ray: wp.array[int],  # [capacity]
):
    """Samples of each ray at its place; rays that end behind ``capacity`` are left out whole."""
    r = begin + wp.tid()
    n = wp.where(sums[r] > capacity, 0, n_samples[r])
    tell_room(count[0], n_samples[r], r, n, n_packed, reported)
    if n == 0:
        return
    o = vector_at(origin, r)
    d = vector_at(direction, r)
    inverse = inverse_of(d)
    t0 = span[r * 3 + 1]
    k = wp.int32(0)
    t = float(t0)
    for i in range(sums[r] - n, sums[r]):
        k, t = find_sample(lattice, bits, o, d, inverse, t0, span[r * 3 + 2], k, t)
        p = o + t * d
        for axis in range(3):
            positions[(i / 32) * 96 + axis * 32 + i % 32] = p[axis]
        distance[i] = t
        length[i] = step_length(lattice, t)
        ray[i] = r
        k, t = next_point(lattice, t0, k, t)


@wp.func
def place_of(low: int, high: int, lane: int):
    """Where a lane looks between low and high; 64 bits, for their distance times the lanes."""
    part = wp.int64(high - low) * wp.int64(lane + 1) / wp.int64(n_lanes() + 1)
    return low + int(part)


@wp.kernel
def total_kernel(
    begin: int,
    # in
    sums: wp.array[int],  # [n], inclusive
    n: int,
    capacity: int,
    # out
    total: wp.array[int],  # [2]: all samples; those that have room
):
    """The last sum, and the last that is not above the capacity; one sum's lanes.

    They look at as many places at once, and go on between two of them.
    """
    lane = begin + wp.tid()
    low = wp.int32(0)
    high = wp.int32(n)
    while low < high:
        place = place_of(low, high, lane)
        passed = lane_sum_int(wp.where(sums[place] > capacity, 0, 1))
        first = low
        if passed > 0:
            low = place_of(first, high, passed - 1) + 1
        if passed < n_lanes():
            high = place_of(first, high, passed)
    if lane > 0:
        return
    total[0] = sums[n - 1]
    total[1] = wp.where(low > 0, sums[wp.max(low - 1, 0)], 0)


@wp.kernel
def meet_kernel(
    begin: int,
    # in
    lattice: Lattice,
    sums: wp.array[int],  # [n_rays], inclusive, of the samples
    positions: wp.array[float],  # [n_blocks, 3, 32]
    length: wp.array[float],  # [capacity]
    thickness: wp.array[float],  # [capacity]
    # out
    met: wp.array[wp.uint8],  # [n_cascades * 128^3]
):
    """Cells of the samples in which the shortest step would be thicker than MAX_THRESHOLD."""
    i = begin + wp.tid()
    if i >= sums[sums.shape[0] - 1]:
        return
    if thickness[i] * lattice.min_step > _DENSE * length[i]:
        p = wp.vec3()
        for axis in range(3):
            p[axis] = positions[(i / 32) * 96 + axis * 32 + i % 32]
        cascade = cascade_of(lattice, p, length[i])
        cell = cell_of(lattice, p, cascade)
        index = cell[0] + _CELLS * (cell[1] + _CELLS * cell[2])
        met[cascade * _CUBE + index] = wp.uint8(1)

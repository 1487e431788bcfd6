"""Training samples: surface points, and pools of points with their signed distance.

Source: the mix of samples of Mueller et al. 2022, section 5.2. Not differentiable. Twin:
tests/reference/sdf_samples.py. One item is a point; of a query a lane, see ``distance.lanes``.
"""

import functools

import warp as wp

from ngp_warp.kernels.random import random_bits, random_key, random_unit
from ngp_warp.launch import module_options
from ngp_warp.primitives.sdf.kernels.distance import (
    UNBOUNDED,
    Scene,
    lanes,
    reach,
    signed_function,
)

wp.set_module_options(module_options())


WIDE_EVERY = wp.constant(4)
WIDE = wp.constant(6.0)
"""Every so many points near the surface have so many times the noise."""


@wp.func
def face_at(cumulated: wp.array(dtype=wp.float64), share: wp.float64) -> int:
    """Return the first face whose cumulated share of the area exceeds ``share``."""
    low = wp.int32(0)
    high = cumulated.shape[0] - 1
    while low < high:
        middle = (low + high) / 2
        if cumulated[middle] > share:
            high = middle
        else:
            low = middle + 1
    return low


@wp.func
def surface_point(
    mesh: wp.uint64, cumulated: wp.array(dtype=wp.float64), key: wp.uint32, i: int, n: int
) -> wp.vec3:
    """Point i of n: somewhere in the i-th n-th of the area, evenly over its face.

    Faces lie in the order of a tree, so that neighbours in the batch are neighbours in space.
    """
    share = (wp.float64(i) + wp.float64(random_unit(key, i, 0))) / wp.float64(n)
    face = face_at(cumulated, share)
    root = wp.sqrt(random_unit(key, i, 1))
    along = random_unit(key, i, 2) * root
    a = wp.mesh_get_point(mesh, face * 3)
    b = wp.mesh_get_point(mesh, face * 3 + 1)
    c = wp.mesh_get_point(mesh, face * 3 + 2)
    return a + (b - a) * (root - along) + (c - a) * along


@wp.func
def logistic(bits: wp.uint32) -> float:
    """ln(u / (1 - u)) of the middle of one of 2^24 intervals: finite."""
    u = (float(bits >> wp.uint32(8)) + 0.5) * (1.0 / 16777216.0)
    return wp.log(u / (1.0 - u))


@wp.func
def put(blocked: wp.array(dtype=float), i: int, p: wp.vec3):
    """Store point i of a blocked array of three rows."""
    for r in range(3):
        blocked[(i / 32 * 3 + r) * 32 + i % 32] = p[r]


@wp.func
def slot_of(step: wp.int64, n_parts: int, i: int) -> int:
    """Place of the step's i-th fresh point: part step mod n_parts; those of one i lie together."""
    part = step % wp.int64(n_parts)
    if part < wp.int64(0):  # steps before the first fill the pools
        part += wp.int64(n_parts)
    return i * n_parts + int(part)


@wp.kernel
def surface_samples(
    begin: int,
    # in
    mesh: wp.uint64,
    cumulated: wp.array(dtype=wp.float64),  # [n_faces], shares of the area
    seed: int,
    step: wp.array(dtype=wp.int64),  # [1]
    n_points: int,
    # out
    x: wp.array(dtype=float),  # [n_blocks, 3, 32]
    target: wp.array(dtype=float),  # [n_blocks, 1, 32]
):
    """Exact points of the surface; their distance is zero."""
    i = begin + wp.tid()
    put(x, i, surface_point(mesh, cumulated, random_key(seed, step[0]), i, n_points))
    target[i] = 0.0


@wp.kernel
def pool_samples(
    begin: int,
    # in
    pool_x: wp.array(dtype=wp.vec3),  # [n_slots]
    pool_distance: wp.array(dtype=float),  # [n_slots]
    seed: int,
    step: wp.array(dtype=wp.int64),  # [1]
    first: int,  # place in the batch
    n_points: int,
    # out
    x: wp.array(dtype=float),  # [n_blocks, 3, 32]
    target: wp.array(dtype=float),  # [n_blocks, 1, 32]
):
    """Take one slot of each n_points-th of the pool."""
    i = begin + wp.tid()
    n_slots = wp.int64(pool_x.shape[0])
    u = wp.int64(random_bits(random_key(seed, step[0]), i, 0))
    # in 64 bits, which hold 2^31 slots times 2^32
    low = wp.int64(i) * n_slots / wp.int64(n_points)
    high = wp.int64(i + 1) * n_slots / wp.int64(n_points)
    slot = int(low + ((high - low) * u >> wp.int64(32)))
    put(x, first + i, pool_x[slot])
    target[first + i] = pool_distance[slot]


@functools.cache
def near_kernel(sign: str, search: str) -> wp.Kernel:
    """Return the kernel that refreshes a part of the pool of points near the surface."""
    signed, n_lanes = signed_function(sign, search), lanes(search)

    @wp.kernel(module="unique", module_options=module_options())
    def refresh_near(
        begin: int,
        # in
        scene: Scene,
        cumulated: wp.array(dtype=wp.float64),  # [n_faces], shares of the area
        seed: int,
        noise_seed: int,
        step: wp.array(dtype=wp.int64),  # [1]
        noise_scale: float,  # of the logistic distribution
        n_fresh: int,
        n_parts: int,
        # out
        pool_x: wp.array(dtype=wp.vec3),  # [n_fresh n_parts]
        pool_distance: wp.array(dtype=float),  # [n_fresh n_parts]
    ):
        """Surface points moved by logistic noise, which bounds the radius of their query."""
        item = begin + wp.tid()
        i = item / n_lanes
        source = surface_point(scene.mesh, cumulated, random_key(seed, step[0]), i, n_fresh)
        key = random_key(noise_seed, step[0])
        p = wp.vec3()
        scale = noise_scale
        if i % WIDE_EVERY == 0:
            scale *= WIDE
        for d in range(3):
            moved = source[d] + scale * logistic(random_bits(key, i, d))
            p[d] = wp.clamp(moved, 0.0, 1.0)
        # the slack holds the rounding of the source and of the tree's distances
        distance = signed(scene, p, wp.length(p - source) * 1.0001 + 1.0e-6)
        if distance >= UNBOUNDED:
            distance = signed(scene, p, UNBOUNDED)
        if item % n_lanes == 0:
            slot = slot_of(step[0], n_parts, i)
            pool_x[slot] = p
            pool_distance[slot] = distance

    return refresh_near


@functools.cache
def uniform_kernel(sign: str, search: str) -> wp.Kernel:
    """Return the kernel that refreshes a part of the pool of points of the whole cube."""
    signed, n_lanes = signed_function(sign, search), lanes(search)

    @wp.kernel(module="unique", module_options=module_options())
    def refresh_uniform(
        begin: int,
        # in
        scene: Scene,
        fresh: wp.array(dtype=float),  # [n_fresh / 32, 3, 32]
        step: wp.array(dtype=wp.int64),  # [1]
        n_parts: int,
        # out
        pool_x: wp.array(dtype=wp.vec3),  # [n_fresh n_parts]
        pool_distance: wp.array(dtype=float),  # [n_fresh n_parts]
    ):
        """Signed distance of fresh points."""
        item = begin + wp.tid()
        i = item / n_lanes
        at = i / 32 * 96 + i % 32
        p = wp.vec3(fresh[at], fresh[at + 32], fresh[at + 64])
        distance = signed(scene, p, reach(scene, p))
        if item % n_lanes == 0:
            slot = slot_of(step[0], n_parts, i)
            pool_x[slot] = p
            pool_distance[slot] = distance

    return refresh_uniform

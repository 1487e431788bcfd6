"""Points of a medium with their density and one estimate of the light that they scatter.

Source: first collisions of rays as sites of the targets, as Mueller et al. 2022 have them. Not
differentiable. Twin: none; tests/test_volume_targets.py compares with ``paths.collision_kernel``
and has laws.
"""

import functools

import warp as wp

from ngp_warp.launch import module_options
from ngp_warp.primitives.volume.kernels.fields import FieldKind
from ngp_warp.primitives.volume.kernels.light import TURN, LightData
from ngp_warp.primitives.volume.kernels.paths import scatter_function
from ngp_warp.primitives.volume.kernels.tracking import Cloud, draw, stream, track_function

wp.set_module_options(module_options())


@wp.func
def part_of(step: wp.int64, n_parts: int) -> int:
    """Return step mod n_parts, of negative steps too."""
    n = wp.int64(n_parts)
    return int(((step % n) + n) % n)


@functools.cache
def target_kernel(kind: FieldKind) -> wp.Kernel:
    """Return the kernel of a batch of points and their targets."""
    data_type, density_at = kind.data, kind.density
    fly, scatter = track_function(kind, "delta"), scatter_function(kind)

    @wp.kernel(module="unique", module_options=module_options())
    def radiance_targets(
        begin: int,
        # in
        field: data_type,
        cloud: Cloud,
        light: LightData,
        blocks: wp.array[wp.vec3i],  # [n_blocks], those that are not empty
        n_fresh: int,  # points of a part
        n_parts: int,
        n_collisions: int,  # the first points are looked for along rays
        far: float,  # world units, from any point of the grid to outside of it
        seed: int,
        step: wp.array[wp.int64],  # [1]
        max_bounces: int,
        density_gain: float,
        side: float,  # grid units along a side of the unit cube
        # out
        pool_x: wp.array[wp.vec3],  # [n_parts * n_fresh], in the unit cube
        pool_target: wp.array[wp.vec4],  # radiance, density times its gain
    ):
        """A place in a block, or the first collision of a ray through it, and what is there.

        The step's part of the pool is replaced: part step mod n_parts.
        """
        i = begin + wp.tid()
        key = stream(seed, step[0], i)
        # both kinds go through the whole list in its order: neighbours in the batch are near in
        # space
        number = i
        count = n_collisions
        if i >= n_collisions:
            number = i - n_collisions
            count = n_fresh - n_collisions
        n_blocks = blocks.shape[0]
        at = int((float(number) + draw(key, 0)) / float(count) * float(n_blocks))
        block = blocks[wp.min(at, n_blocks - 1)]
        p = wp.vec3(
            (float(block[0]) + draw(key, 1)) * cloud.blocks.size,
            (float(block[1]) + draw(key, 2)) * cloud.blocks.size,
            (float(block[2]) + draw(key, 3)) * cloud.blocks.size,
        )
        z = 1.0 - 2.0 * draw(key, 4)
        ring = wp.sqrt(wp.max(1.0 - z * z, 0.0))
        turn = TURN * draw(key, 5)
        w = wp.vec3(ring * wp.cos(turn), ring * wp.sin(turn), z)
        n = wp.int32(6)
        if i < n_collisions:
            d = cloud.to_grid * w
            flight = fly(field, cloud, p - far * d, d, key, n)
            n = flight.draws
            if flight.collided != 0:
                p = flight.position
        made = scatter(field, cloud, light, p, w, key, n, max_bounces)
        slot = part_of(step[0], n_parts) * n_fresh + i
        pool_x[slot] = (p + wp.vec3(0.5, 0.5, 0.5)) / side
        density = density_at(field, p) * density_gain
        pool_target[slot] = wp.vec4(made.light[0], made.light[1], made.light[2], density)

    return radiance_targets


@wp.kernel
def pool_batch(
    begin: int,
    # in
    pool_x: wp.array[wp.vec3],  # [n_parts * n_fresh]
    pool_target: wp.array[wp.vec4],
    n_fresh: int,
    n_parts: int,
    stride: int,
    step: wp.array[wp.int64],  # [1]
    # out
    x: wp.array[float],  # [n_blocks, 3, 32], in the unit cube
    target: wp.array[float],  # [n_blocks, 4, 32]
):
    """The step's own part of the pool, and every ``stride``-th older one."""
    i = begin + wp.tid()
    part = part_of(step[0] - wp.int64(stride * (i / n_fresh)), n_parts)
    slot = part * n_fresh + i % n_fresh
    p = pool_x[slot]
    t = pool_target[slot]
    for a in range(3):
        x[((i / 32) * 3 + a) * 32 + i % 32] = p[a]
    for a in range(4):
        target[((i / 32) * 4 + a) * 32 + i % 32] = t[a]


@functools.cache
def point_kernel(kind: FieldKind) -> wp.Kernel:
    """Return the kernel of means of many estimates at given points."""
    data_type, density_at = kind.data, kind.density
    scatter = scatter_function(kind)

    @wp.kernel(module="unique", module_options=module_options())
    def point_radiances(
        begin: int,
        # in
        field: data_type,
        cloud: Cloud,
        light: LightData,
        points: wp.array[wp.vec3],  # [n], grid coordinates
        seed: int,
        n_samples: int,
        max_bounces: int,
        # out
        radiances: wp.array[wp.vec3],  # [n]
        densities: wp.array[float],  # [n]
    ):
        """What collisions at the points send in any direction, as scattering is isotropic."""
        i = begin + wp.tid()
        p = points[i]
        w = wp.vec3(0.0, 0.0, 1.0)
        total = wp.vec3(0.0, 0.0, 0.0)
        for s in range(n_samples):
            key = stream(seed, wp.int64(s), i)
            made = scatter(field, cloud, light, p, w, key, 0, max_bounces)
            total += made.light
        radiances[i] = total / float(n_samples)
        densities[i] = density_at(field, p)

    return point_radiances

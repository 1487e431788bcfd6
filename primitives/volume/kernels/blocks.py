"""Rays through the blocks of a sparse grid of majorants, in Warp's language.

Source: Amanatides and Woo 1987 with jumps: an empty block knows how far around it all is empty
(Chebyshev distance, Zuiderveld et al. 1992), and a ray crosses that whole cube in one step. Block
indices are integers that only ever move along the ray, so that rounding can neither stop a ray nor
lead it into a block a second time. Not differentiable.
"""

import warp as wp

FAR = wp.constant(1.0e30)


@wp.struct
class Blocks:
    """Majorants of a field, block by block."""

    majorants: wp.array(dtype=float, ndim=3)  # [x, y, z], bound of the density in a block
    reaches: wp.array(dtype=int, ndim=3)  # 0: not empty; n: so are all blocks less than n away
    size: float  # cells along a block's side


@wp.struct
class Ray:
    """A ray that has entered the grid; its parameter is the distance in the world."""

    origin: wp.vec3  # grid coordinates
    direction: wp.vec3  # grid units per world unit
    inverse: wp.vec3
    block: wp.vec3i
    inside: int  # 0: it misses the grid


@wp.struct
class Exit:
    """Where a ray leaves a block, or a cube of empty ones."""

    t: float
    block: wp.vec3i  # the next


@wp.func
def grid_upper(blocks: Blocks) -> wp.vec3:
    """Return the grid's upper corner, grid coordinates; the lower one is 0."""
    return blocks.size * wp.vec3(
        float(blocks.majorants.shape[0]),
        float(blocks.majorants.shape[1]),
        float(blocks.majorants.shape[2]),
    )


@wp.func
def is_inside(blocks: Blocks, block: wp.vec3i) -> bool:
    """Whether a block is one of the grid."""
    return (
        block[0] >= 0
        and block[1] >= 0
        and block[2] >= 0
        and block[0] < blocks.majorants.shape[0]
        and block[1] < blocks.majorants.shape[1]
        and block[2] < blocks.majorants.shape[2]
    )


@wp.func
def enter(blocks: Blocks, origin: wp.vec3, direction: wp.vec3) -> Ray:
    """Move a ray's origin to where it enters the grid."""
    upper = grid_upper(blocks)
    ray = Ray()
    ray.direction = direction
    near = float(0.0)
    far = float(FAR)
    for a in range(3):
        if direction[a] != 0.0:
            ray.inverse[a] = 1.0 / direction[a]
            first = -origin[a] * ray.inverse[a]
            second = (upper[a] - origin[a]) * ray.inverse[a]
            near = wp.max(near, wp.min(first, second))
            far = wp.min(far, wp.max(first, second))
        else:
            ray.inverse[a] = FAR
            if origin[a] < 0.0 or origin[a] > upper[a]:
                far = -1.0
    ray.inside = wp.where(near <= far, 1, 0)
    for a in range(3):
        # clamped: rounding leaves it beside the face
        at = wp.clamp(origin[a] + near * direction[a], 0.0, upper[a])
        ray.origin[a] = at
        ray.block[a] = wp.min(int(at / blocks.size), blocks.majorants.shape[a] - 1)
    return ray


@wp.func
def leave(blocks: Blocks, ray: Ray, block: wp.vec3i, t: float, reach: int) -> Exit:
    """Return where a ray in a block at t leaves the cube of the blocks less than reach away."""
    result = Exit()
    best = float(FAR)
    axis = wp.int32(0)
    for a in range(3):
        bound = block[a] + reach
        if ray.direction[a] < 0.0:
            bound = block[a] - reach + 1
        at = (float(bound) * blocks.size - ray.origin[a]) * ray.inverse[a]
        if at < best:
            best = at
            axis = a
    result.t = wp.max(best, t)
    for a in range(3):
        # how many blocks further along the ray: reach on the axis of the face, less on others
        ahead = wp.int32(0)
        if a == axis:
            ahead = reach
        elif reach > 1:
            at = ray.origin[a] + result.t * ray.direction[a]
            moved = int(wp.floor(at / blocks.size)) - block[a]
            ahead = wp.clamp(wp.where(ray.direction[a] < 0.0, -moved, moved), 0, reach - 1)
        result.block[a] = block[a] + wp.where(ray.direction[a] < 0.0, -ahead, ahead)
    return result


@wp.func
def clamped_position(blocks: Blocks, ray: Ray, block: wp.vec3i, t: float) -> wp.vec3:
    """Return a ray's position at t, in the block for certain: there its majorant is a bound."""
    p = ray.origin + t * ray.direction
    for a in range(3):
        low = float(block[a]) * blocks.size
        p[a] = wp.clamp(p[a], low, low + blocks.size)
    return p

"""Delta and ratio tracking through any density field, in Warp's language.

Sources: Woodcock et al. 1965 (delta tracking); Novak et al. 2014 (ratio tracking); Henyey and
Greenstein 1941 (phase function). Not differentiable. Twin: tests/reference/volume_light.py.

The random numbers of a path are numbers 0, 1, 2, ... of a stream that the seed, the sample and the
path's index choose (``stream``); functions take the number of the next one and return it with what
they found.
"""

import functools
from typing import Any, Literal

import warp as wp

from ngp_warp.kernels.random import random_bits, random_key, random_unit
from ngp_warp.primitives.volume.kernels.blocks import (
    Blocks,
    clamped_position,
    enter,
    is_inside,
    leave,
)
from ngp_warp.primitives.volume.kernels.fields import FieldKind
from ngp_warp.primitives.volume.kernels.light import TURN, across, around

Method = Literal["ratio", "delta"]

# Both: least variance times time on a thick cloud of albedo 0.95 (flat: 0.3 to 0.6, 0.05 to 0.2)
ROULETTE = wp.constant(0.5)
"""A path that weighs less goes on with this weight, or ends: no bias, and no long faint paths."""
FAINT = wp.constant(0.2)
"""The same for transmittances: shadow rays through thick media would be long for nothing."""


@wp.struct
class Cloud:
    """A medium beside its density field."""

    blocks: Blocks
    to_grid: wp.mat33  # linear part of world to grid
    scale: float  # extinction (1 / world unit) of density 1
    albedo: float
    g: float  # of Henyey and Greenstein: mean cosine of a scattering


@wp.struct
class Flight:
    """What became of a ray."""

    position: wp.vec3  # of the collision, grid coordinates
    density: float  # there
    collided: int
    transmittance: float  # estimate; of delta tracking 0 or 1
    draws: int  # number of the next random number
    moves: int  # blocks, or cubes of empty blocks, that it went through
    lookups: int  # of the field
    exceeded: int  # lookups that found more than the majorant


@wp.func
def stream(seed: int, sample: wp.int64, i: int) -> wp.uint32:
    """Return the key of the random numbers of a path."""
    return random_bits(random_key(seed, sample), i, 0)


@wp.func
def draw(key: wp.uint32, n: int) -> float:
    """Return the n-th random number of a stream, in [0, 1)."""
    return random_unit(key, n, 0)


@wp.func
def free_depth(u: float) -> float:
    """Optical depth to the next collision: an exponential variate (up to 24 log 2 = 16.6)."""
    return -wp.log(1.0 - u)


@wp.func
def phase(g: float, cosine: float) -> float:
    """Henyey and Greenstein's phase function, 1 / sr: (1 - g^2) / (4 pi (1 + g^2 - 2 g c)^1.5)."""
    b = 1.0 + g * g - 2.0 * g * cosine
    return (1.0 - g * g) / (2.0 * TURN * b * wp.sqrt(b))


@wp.func
def scattered_direction(g: float, direction: wp.vec3, u: float, v: float) -> wp.vec3:
    """Return a direction drawn from the phase function; light flew along ``direction``."""
    cap = 2.0 * u
    if wp.abs(g) > 1.0e-3:
        a = (1.0 - g * g) / (1.0 + g - 2.0 * g * u)
        cap = wp.clamp(1.0 - (1.0 + g * g - a * a) / (2.0 * g), 0.0, 2.0)
    return wp.normalize(around(direction, across(direction), cap, v))


@functools.cache
def track_function(kind: FieldKind, method: Method) -> Any:
    """Return the ``wp.func`` that flies from a point through collisions at the majorant's rate.

    "delta": up to the first real one; each is real with probability density / majorant. "ratio": to
    outside; the product of 1 - density / majorant estimates the transmittance.
    """
    data_type, density_at = kind.data, kind.density
    ratio = method == "ratio"

    @wp.func
    def track(
        field: data_type,
        cloud: Cloud,
        origin: wp.vec3,  # grid coordinates
        direction: wp.vec3,  # grid units per world unit
        key: wp.uint32,
        draws: int,
    ) -> Flight:
        flight = Flight()
        n = wp.int32(draws)
        ray = enter(cloud.blocks, origin, direction)
        block = ray.block
        t = float(0.0)
        left = float(1.0)
        flying = ray.inside != 0
        tau = free_depth(draw(key, n))
        n += 1
        while flying:
            reach = cloud.blocks.reaches[block[0], block[1], block[2]]
            out = leave(cloud.blocks, ray, block, t, wp.max(reach, 1))
            flight.moves += 1
            if reach == 0:
                majorant = cloud.blocks.majorants[block[0], block[1], block[2]]
                rate = majorant * cloud.scale
                depth = (out.t - t) * rate
                while flying and tau < depth:
                    t = wp.min(t + tau / rate, out.t)
                    p = clamped_position(cloud.blocks, ray, block, t)
                    density = density_at(field, p)
                    flight.lookups += 1
                    if density > majorant:
                        flight.exceeded += 1
                    if wp.static(ratio):
                        left *= wp.max(1.0 - density / majorant, 0.0)
                        if left < FAINT:
                            if draw(key, n) * FAINT < left:
                                left = FAINT
                            else:
                                left = 0.0
                                flying = False
                    elif draw(key, n) * majorant < density:
                        flight.collided = 1
                        flight.position = p
                        flight.density = density
                        left = 0.0
                        flying = False
                    tau = free_depth(draw(key, n + 1))
                    n += 2
                    depth = (out.t - t) * rate
                tau -= depth
            t = out.t
            block = out.block
            flying = flying and is_inside(cloud.blocks, block)
        flight.transmittance = left
        flight.draws = n
        return flight

    return track

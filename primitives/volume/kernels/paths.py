"""Paths of light through a medium: pictures, first collisions, transmittances.

Source: volumetric path tracing by delta tracking with next event estimation (Novak et al. 2018,
"Monte Carlo methods for volumetric light transport simulation"). Light is followed from the eye:

    L(x, w) = albedo * (phase(w, s) T(x, s) sun + integral of phase(w, v) L_in(x, v) dv)

The sun is reached by next event estimation alone, one direction s to its disc at each collision;
the sky by escaping paths alone. So neither counts twice, and neither an escaping path nor the eye
ever sees the sun's disc. Not differentiable. Twin: tests/reference/volume_light.py (laws and
integrals).
"""

import functools
from typing import Any

import warp as wp

from ngp_warp.launch import module_options
from ngp_warp.primitives.volume.kernels.fields import FieldKind
from ngp_warp.primitives.volume.kernels.light import LightData, sky, sun_direction
from ngp_warp.primitives.volume.kernels.tracking import (
    ROULETTE,
    Cloud,
    Method,
    draw,
    phase,
    scattered_direction,
    stream,
    track_function,
)

COLLIDED, CUT, EXCEEDED, N_COUNTS = 0, 1, 2, 3
"""Columns of a pixel's counts: paths that collided; paths cut at the bound on scatterings; lookups
that found more than the majorant."""


@wp.struct
class Scattered:
    """One path's estimate of the light that leaves a collision."""

    light: wp.vec3
    cut: int
    exceeded: int


@wp.struct
class View:
    """A pinhole camera."""

    origin: wp.vec3  # grid coordinates
    forward: wp.vec3  # world axes, unit
    right: wp.vec3  # a pixel wide at distance 1
    up: wp.vec3
    width: int
    height: int


@wp.func
def pixel_direction(view: View, i: int, u: float, v: float) -> wp.vec3:
    """Return the direction of the ray through a place (u, v) in pixel i, world axes, unit."""
    x = float(i % view.width) - 0.5 * float(view.width)
    y = 0.5 * float(view.height) - float(i / view.width)
    return wp.normalize(view.forward + view.right * (x + u) + view.up * (y - v))


@functools.cache
def scatter_function(kind: FieldKind) -> Any:
    """Return the ``wp.func`` that follows a path from its first collision on."""
    data_type = kind.data
    fly, pass_through = track_function(kind, "delta"), track_function(kind, "ratio")

    @wp.func
    def scatter(
        field: data_type,
        cloud: Cloud,
        light: LightData,
        position: wp.vec3,  # grid coordinates
        direction: wp.vec3,  # along the path from the eye, world axes, unit
        key: wp.uint32,
        draws: int,
        max_bounces: int,
    ) -> Scattered:
        """Sum of what the sun sends to each collision and the sky to the path's end."""
        result = Scattered()
        n = wp.int32(draws)
        p = position
        w = direction
        weight = float(1.0)
        bounces = wp.int32(0)
        alive = bool(True)
        while alive:
            bounces += 1
            weight *= cloud.albedo
            if weight < ROULETTE:
                alive = draw(key, n) * ROULETTE < weight
                weight = ROULETTE
                n += 1
            if alive and light.sun_cap > 0.0:
                s = sun_direction(light, draw(key, n), draw(key, n + 1))
                shadow = pass_through(field, cloud, p, cloud.to_grid * s, key, n + 2)
                n = shadow.draws
                result.exceeded += shadow.exceeded
                share = weight * phase(cloud.g, wp.dot(w, s)) * shadow.transmittance
                result.light += share * light.sun_power
            if alive:
                w = scattered_direction(cloud.g, w, draw(key, n), draw(key, n + 1))
                flight = fly(field, cloud, p, cloud.to_grid * w, key, n + 2)
                n = flight.draws
                result.exceeded += flight.exceeded
                p = flight.position
                if flight.collided == 0:
                    result.light += weight * sky(light, w)
                    alive = False
                elif bounces >= max_bounces:
                    result.cut = 1
                    alive = False
        return result

    return scatter


@functools.cache
def pixel_kernel(kind: FieldKind) -> wp.Kernel:
    """Return the kernel of a picture."""
    data_type = kind.data
    fly, scatter = track_function(kind, "delta"), scatter_function(kind)

    @wp.kernel(module="unique", module_options=module_options())
    def trace_pixels(
        begin: int,
        # in
        field: data_type,
        cloud: Cloud,
        light: LightData,
        view: View,
        seed: int,
        first_sample: int,
        n_samples: int,
        max_bounces: int,
        sky_behind: int,
        # in and out
        sums: wp.array[wp.vec3d],  # [n_pixels], of the samples' radiances
        squares: wp.array[wp.vec3d],  # [n_pixels], of their squares
        counts: wp.array2d[int],  # [n_pixels, N_COUNTS]
    ):
        """Add samples of a pixel, one path each, from a uniform point of the pixel."""
        i = begin + wp.tid()
        total = sums[i]
        total_squares = squares[i]
        for s in range(first_sample, first_sample + n_samples):
            key = stream(seed, wp.int64(s), i)
            w = pixel_direction(view, i, draw(key, 0), draw(key, 1))
            flight = fly(field, cloud, view.origin, cloud.to_grid * w, key, 2)
            radiance = wp.vec3(0.0, 0.0, 0.0)
            if flight.collided != 0:
                made = scatter(
                    field, cloud, light, flight.position, w, key, flight.draws, max_bounces
                )
                radiance = made.light
                counts[i, COLLIDED] = counts[i, COLLIDED] + 1
                counts[i, CUT] = counts[i, CUT] + made.cut
                counts[i, EXCEEDED] = counts[i, EXCEEDED] + made.exceeded
            elif sky_behind != 0:
                radiance = sky(light, w)
            counts[i, EXCEEDED] = counts[i, EXCEEDED] + flight.exceeded
            # 64 bits: the spread of bright pixels would drown in the rounding of their squares
            r = wp.vec3d(radiance)
            total += r
            total_squares += wp.cw_mul(r, r)
        sums[i] = total
        squares[i] = total_squares

    return trace_pixels


@functools.cache
def collision_kernel(kind: FieldKind) -> wp.Kernel:
    """Return the kernel of first collisions and the light that leaves them."""
    data_type = kind.data
    fly, scatter = track_function(kind, "delta"), scatter_function(kind)

    @wp.kernel(module="unique", module_options=module_options())
    def first_collisions(
        begin: int,
        # in
        field: data_type,
        cloud: Cloud,
        light: LightData,
        origins: wp.array[wp.vec3],  # [n], grid coordinates
        directions: wp.array[wp.vec3],  # [n], world axes, unit
        seed: int,
        sample: int,
        max_bounces: int,
        # out
        positions: wp.array[wp.vec3],  # [n], grid coordinates
        densities: wp.array[float],  # [n]; 0: the ray escaped
        radiances: wp.array[wp.vec3],  # [n]
        counts: wp.array2d[int],  # [n, N_COUNTS]
    ):
        """Where a ray first collides, the density there, and one estimate of its light."""
        i = begin + wp.tid()
        key = stream(seed, wp.int64(sample), i)
        w = directions[i]
        flight = fly(field, cloud, origins[i], cloud.to_grid * w, key, 0)
        made = Scattered()
        if flight.collided != 0:
            made = scatter(field, cloud, light, flight.position, w, key, flight.draws, max_bounces)
        positions[i] = flight.position
        densities[i] = flight.density
        radiances[i] = made.light
        counts[i, COLLIDED] = flight.collided
        counts[i, CUT] = made.cut
        counts[i, EXCEEDED] = flight.exceeded + made.exceeded

    return first_collisions


@functools.cache
def transmittance_kernel(kind: FieldKind, method: Method) -> wp.Kernel:
    """Return the kernel of transmittances."""
    data_type = kind.data
    track = track_function(kind, method)

    @wp.kernel(module="unique", module_options=module_options())
    def transmittances(
        begin: int,
        # in
        field: data_type,
        cloud: Cloud,
        origins: wp.array[wp.vec3],  # [n], grid coordinates
        directions: wp.array[wp.vec3],  # [n], world axes, unit
        seed: int,
        n_samples: int,
        # out
        sums: wp.array[wp.float64],  # [n], of the samples' transmittances
        squares: wp.array[wp.float64],  # [n], of their squares
        work: wp.array2d[int],  # [n, 3]: moves, lookups, lookups above the majorant
    ):
        """Estimates of exp(-optical depth) along a ray."""
        i = begin + wp.tid()
        total = wp.float64(0.0)
        total_squares = wp.float64(0.0)
        for s in range(n_samples):
            key = stream(seed, wp.int64(s), i)
            flight = track(field, cloud, origins[i], cloud.to_grid * directions[i], key, 0)
            value = wp.float64(flight.transmittance)
            total += value
            total_squares += value * value
            work[i, 0] = work[i, 0] + flight.moves
            work[i, 1] = work[i, 1] + flight.lookups
            work[i, 2] = work[i, 2] + flight.exceeded
        sums[i] = total
        squares[i] = total_squares

    return transmittances

"""Rays through a learned medium: from one possible collision to the next, and what is seen there.

Delta tracking as in ``tracking.py``, cut into passes, as the field is evaluated between them. A
possible collision is real with probability density / majorant = alpha. Instead of drawing whether
it is, its light counts alpha times and what lies behind 1 - alpha times: the expectation of the
draw, with less noise. Not differentiable. Twin: tests/reference/volume_events.py; it cuts a ray at
every plane between blocks instead of walking, and draws the same random numbers.

A ray's state lies at its own index and is touched by its own item alone.
"""

import functools

import warp as wp

from ngp_warp.kernels.active import ENDED
from ngp_warp.launch import module_options
from ngp_warp.primitives.volume.kernels.blocks import (
    FAR,
    Ray,
    clamped_position,
    enter,
    is_inside,
    leave,
)
from ngp_warp.primitives.volume.kernels.light import LightData, sky
from ngp_warp.primitives.volume.kernels.paths import View, pixel_direction
from ngp_warp.primitives.volume.kernels.tracking import Cloud, draw, free_depth, stream

wp.set_module_options(module_options())

_FLYING = wp.constant(0)
_LEAVING = wp.constant(1)
_ENDED = wp.constant(ENDED)
_FAINT = wp.constant(0.1)
"""A ray of which less is left goes on with this weight, or ends: without bias."""


@wp.struct
class Flights:
    """Where every ray is; arrays [n]."""

    view: wp.array[wp.vec3]  # direction, world axes, unit
    origin: wp.array[wp.vec3]  # where it enters the grid, grid coordinates
    direction: wp.array[wp.vec3]  # grid units per world unit
    block: wp.array[wp.vec3i]
    t: wp.array[float]  # from the entry, world units
    depth: wp.array[float]  # optical depth of the majorant to the next possible collision
    key: wp.array[wp.uint32]
    draws: wp.array[int]  # number of the next random number
    light: wp.array[wp.vec3]  # seen so far
    left: wp.array[float]  # share of what lies behind that is seen
    status: wp.array[int]


@wp.kernel
def start_kernel(
    begin: int,
    # in
    cloud: Cloud,
    view: View,
    pixels: wp.array[int],  # [n], which pixel a ray is of
    seed: int,
    sample: int,
    # out
    f: Flights,
):
    """Rays through random places of pixels, as a path tracer's of this seed, at the grid."""
    i = begin + wp.tid()
    key = stream(seed, wp.int64(sample), pixels[i])
    w = pixel_direction(view, pixels[i], draw(key, 0), draw(key, 1))
    ray = enter(cloud.blocks, view.origin, cloud.to_grid * w)
    f.view[i] = w
    f.origin[i] = ray.origin
    f.direction[i] = ray.direction
    f.block[i] = ray.block
    f.t[i] = 0.0
    f.depth[i] = free_depth(draw(key, 2))
    f.key[i] = key
    f.draws[i] = 3
    f.light[i] = wp.vec3(0.0, 0.0, 0.0)
    f.left[i] = 1.0
    f.status[i] = wp.where(ray.inside != 0, _FLYING, _ENDED)


@functools.cache
def event_kernel(n_events: int) -> wp.Kernel:
    """Return the kernel of the next possible collisions of the rays in the slots."""

    @wp.kernel(module="unique", module_options=module_options())
    def next_events(
        begin: int,
        # in
        span: wp.array[int],  # [2]: the part of ``active`` that the slots take
        active: wp.array[int],  # [n]
        cloud: Cloud,
        side: float,  # grid units along a side of the unit cube
        # in and out
        f: Flights,
        # out
        x: wp.array[float],  # [n_blocks, 3, 32], in the unit cube; n_events a slot, then the next
        majorants: wp.array[float],  # [n_slots * n_events]; 0: there is none
    ):
        """Go on until so many possible collisions are found, or the ray leaves."""
        slot = begin + wp.tid()
        first = slot * n_events
        for k in range(n_events):
            majorants[first + k] = 0.0
        if span[0] + slot >= span[1]:
            return
        i = active[span[0] + slot]
        if f.status[i] >= _ENDED:
            return
        ray = Ray()
        ray.origin = f.origin[i]
        ray.direction = f.direction[i]
        for a in range(3):
            ray.inverse[a] = wp.where(ray.direction[a] != 0.0, 1.0 / ray.direction[a], FAR)
        block = f.block[i]
        t = f.t[i]
        tau = f.depth[i]
        key = f.key[i]
        n = f.draws[i]
        found = wp.int32(0)
        flying = bool(True)
        while flying and found < n_events:
            reach = cloud.blocks.reaches[block[0], block[1], block[2]]
            out = leave(cloud.blocks, ray, block, t, wp.max(reach, 1))
            depth = float(0.0)
            if reach == 0:
                majorant = cloud.blocks.majorants[block[0], block[1], block[2]]
                rate = majorant * cloud.scale
                depth = (out.t - t) * rate
                while found < n_events and tau < depth:
                    t = wp.min(t + tau / rate, out.t)
                    p = clamped_position(cloud.blocks, ray, block, t)
                    point = first + found
                    for a in range(3):
                        x[((point / 32) * 3 + a) * 32 + point % 32] = (p[a] + 0.5) / side
                    majorants[point] = majorant
                    found += 1
                    tau = free_depth(draw(key, n))
                    n += 1
                    depth = (out.t - t) * rate
            if found < n_events:
                tau -= depth
                t = out.t
                block = out.block
                flying = is_inside(cloud.blocks, block)
        f.block[i] = block
        f.t[i] = t
        f.depth[i] = tau
        f.draws[i] = n
        if not flying:
            f.status[i] = _LEAVING

    return next_events


@functools.cache
def composite_kernel(n_events: int) -> wp.Kernel:
    """Return the kernel that adds what is seen at the possible collisions."""

    @wp.kernel(module="unique", module_options=module_options())
    def composite_events(
        begin: int,
        # in
        span: wp.array[int],  # [2]
        active: wp.array[int],  # [n]
        majorants: wp.array[float],  # [n_slots * n_events]
        y: wp.array[float],  # [n_blocks, 4, 32]: radiance, density times its gain
        density_gain: float,
        # in and out
        f: Flights,
    ):
        """L += left alpha radiance; left *= 1 - alpha, alpha = density / majorant."""
        slot = begin + wp.tid()
        if span[0] + slot >= span[1]:
            return
        i = active[span[0] + slot]
        if f.status[i] >= _ENDED:
            return
        left = f.left[i]
        light = f.light[i]
        for k in range(n_events):
            point = slot * n_events + k
            majorant = majorants[point]
            if majorant > 0.0:
                at = (point / 32) * 128 + point % 32
                # a learned density may leave its bounds
                alpha = wp.clamp(y[at + 96] / (density_gain * majorant), 0.0, 1.0)
                seen = wp.vec3(wp.max(y[at], 0.0), wp.max(y[at + 32], 0.0), wp.max(y[at + 64], 0.0))
                light += (left * alpha) * seen
                left *= 1.0 - alpha
        if left < _FAINT:
            n = f.draws[i]
            left = wp.where(draw(f.key[i], n) * _FAINT < left, _FAINT, 0.0)
            f.draws[i] = n + 1
        f.light[i] = light
        f.left[i] = left
        if f.status[i] == _LEAVING or left == 0.0:
            f.status[i] = _ENDED

    return composite_events


@wp.kernel
def finish_kernel(
    begin: int,
    # in
    light: LightData,
    sky_behind: int,
    # in and out
    f: Flights,
):
    """What comes through from behind."""
    i = begin + wp.tid()
    if sky_behind != 0:
        f.light[i] = f.light[i] + f.left[i] * sky(light, f.view[i])

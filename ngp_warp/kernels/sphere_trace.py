"""Sphere tracing: rays that step through a signed distance field to its zero level.

Source: Hart, "Sphere tracing", The Visual Computer 1996; the clearance (how near a ray passes, for
penumbrae) after Aaltonen, GDC 2018; the bracket is narrowed by the Illinois variant of regula
falsi (Dowell and Jarratt 1971). Not differentiable. Twin: tests/reference/sphere_trace.py.

A ray's state lies at its own index and is touched by its own item alone; which slot of which pass
evaluates it changes nothing.
"""

import warp as wp

from ngp_warp.kernels.active import ENDED
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

MARCH = 0
"""Stepping; no change of sign yet."""
BRACKET = 1
"""The zero lies between near_t and far_t, which were steps of the march."""
BRACKET_NEAR = 2
"""As BRACKET, and the last evaluation replaced the near end."""
BRACKET_FAR = 3
"""As BRACKET, and the last evaluation replaced the far end."""
HIT = ENDED
MISS = ENDED + 1

_MARCH = wp.constant(MARCH)
_BRACKET = wp.constant(BRACKET)
_NEAR = wp.constant(BRACKET_NEAR)
_FAR = wp.constant(BRACKET_FAR)
_HIT = wp.constant(HIT)
_MISS = wp.constant(MISS)

NO_CLEARANCE = 1.0e6
"""Clearance of a ray that met nothing to measure it by."""
_NO_CLEARANCE = wp.constant(NO_CLEARANCE)


@wp.struct
class RayState:
    """Where every ray is; arrays [n]."""

    origin: wp.array[wp.vec3]
    direction: wp.array[wp.vec3]
    t_end: wp.array[float]  # where the ray leaves the box
    t: wp.array[float]  # to be evaluated next; at the end, of the hit or of the exit
    near_t: wp.array[float]  # last place on the ray's own side of the surface
    near_d: wp.array[float]  # its distance, positive
    far_t: wp.array[float]  # first place on the other side
    far_d: wp.array[float]  # its distance, not positive
    side: wp.array[float]  # sign of the field where the ray began; 0: not evaluated yet
    clearance: wp.array[float]  # least distance / t so far
    count: wp.array[int]  # evaluations
    status: wp.array[int]


@wp.func
def secant(near_t: float, near_d: float, far_t: float, far_d: float):
    """Zero of the line through both ends; inside them, since near_d > 0 >= far_d."""
    return near_t + (far_t - near_t) * near_d / (near_d - far_d)


@wp.func
def bracketed(s: RayState, ray: int, f: float, tolerance: float, max_count: int):
    """Replace one end of the bracket by the newest value f; go on to its secant or end there."""
    t = s.t[ray]
    status = s.status[ray]
    if f > 0.0:
        s.near_t[ray] = t
        s.near_d[ray] = f
        if status == _NEAR:
            # Illinois: the end that stays is weighted down, else it would stay for ever
            s.far_d[ray] = 0.5 * s.far_d[ray]
        s.status[ray] = _NEAR
    else:
        s.far_t[ray] = t
        s.far_d[ray] = f
        if status == _FAR:
            s.near_d[ray] = 0.5 * s.near_d[ray]
        s.status[ray] = _FAR
    if wp.abs(f) <= tolerance or s.count[ray] >= max_count:
        s.status[ray] = _HIT
        return
    s.t[ray] = secant(s.near_t[ray], s.near_d[ray], s.far_t[ray], s.far_d[ray])


@wp.func
def marched(s: RayState, ray: int, f: float, relaxation: float, min_step: float, max_steps: int):
    """Step by a share of the distance f, or turn to the bracket that a change of sign makes."""
    t = s.t[ray]
    if f <= 0.0:
        s.far_t[ray] = t
        s.far_d[ray] = f
        s.status[ray] = _BRACKET
        # what is counted from here on are the bracket's evaluations
        s.count[ray] = 0
        s.t[ray] = secant(s.near_t[ray], s.near_d[ray], t, f)
        return
    # The narrowest place between the last two spheres is the circle in which they meet, y before t:
    # beyond the last centre (going away) it tells nothing new, and y stays there.
    before = s.near_d[ray]
    step = t - s.near_t[ray]
    y = 0.0
    if step > 0.0:
        y = wp.clamp((step * step + f * f - before * before) / (2.0 * step), 0.0, step)
    h = wp.sqrt(wp.max(f * f - y * y, 0.0))
    s.clearance[ray] = wp.min(s.clearance[ray], h / wp.max(t - y, 1.0e-6))
    s.near_t[ray] = t
    s.near_d[ray] = f
    t = t + wp.max(relaxation * f, min_step)
    s.t[ray] = t
    if t > s.t_end[ray] or s.count[ray] >= max_steps:
        s.status[ray] = _MISS


@wp.func
def boxed(p: wp.vec3):
    """The nearest point of the unit cube."""
    return wp.vec3(wp.clamp(p[0], 0.0, 1.0), wp.clamp(p[1], 0.0, 1.0), wp.clamp(p[2], 0.0, 1.0))


@wp.kernel
def start_kernel(
    begin: int,
    # in
    margin: float,
    # in and out
    s: RayState,
):
    """Clip the rays to the unit cube grown by ``margin``: the slabs' latest entry, first exit."""
    ray = begin + wp.tid()
    o = s.origin[ray]
    d = s.direction[ray]
    t0 = float(0.0)
    t1 = float(1.0e30)
    for axis in range(3):
        if d[axis] != 0.0:
            a = (-margin - o[axis]) / d[axis]
            b = (1.0 + margin - o[axis]) / d[axis]
            t0 = wp.max(t0, wp.min(a, b))
            t1 = wp.min(t1, wp.max(a, b))
        elif o[axis] < -margin or o[axis] > 1.0 + margin:
            t1 = -1.0
    s.t[ray] = t0
    s.t_end[ray] = t1
    s.near_t[ray] = t0
    s.near_d[ray] = 0.0
    s.side[ray] = 0.0
    s.clearance[ray] = _NO_CLEARANCE
    s.count[ray] = 0
    s.status[ray] = wp.where(t0 < t1, _MARCH, _MISS)


@wp.kernel
def load_kernel(
    begin: int,
    # in
    span: wp.array[int],  # [2]: the part of ``active`` that the slots take
    active: wp.array[int],  # [n]
    s: RayState,
    # out
    x: wp.array[float],  # [n_blocks, 3, 32]
):
    """Positions of the rays in the slots; slots without a ray keep an old one."""
    slot = begin + wp.tid()
    at = span[0] + slot
    if at < span[1]:
        ray = active[at]
        p = s.origin[ray] + s.t[ray] * s.direction[ray]
        for axis in range(3):
            x[((slot / 32) * 3 + axis) * 32 + slot % 32] = p[axis]


@wp.kernel
def advance_kernel(
    begin: int,
    # in
    span: wp.array[int],  # [2]
    active: wp.array[int],  # [n]
    y: wp.array[float],  # [n_blocks, 1, 32], the field at x, which it clamps to the unit cube
    relaxation: float,
    min_step: float,
    tolerance: float,
    max_steps: int,
    max_refinements: int,
    # in and out
    s: RayState,
    x: wp.array[float],  # [n_blocks, 3, 32]; outside the cube where the margin reaches
):
    """One step of every ray in a slot: t += max(relaxation |d|, min_step), or of its bracket.

    Outside the cube the distance is at least sqrt(e^2 + d(q)^2), q the nearest point of the cube
    and e the way to it, as the surface lies in the cube, which is convex.
    """
    slot = begin + wp.tid()
    at = span[0] + slot
    if at >= span[1]:
        return
    ray = active[at]
    if s.status[ray] >= _HIT:
        return
    d = y[slot]
    p = s.origin[ray] + s.t[ray] * s.direction[ray]
    e = wp.length(p - boxed(p))
    if e > 0.0:
        d = wp.sqrt(e * e + wp.max(d, 0.0) * wp.max(d, 0.0))
    if s.side[ray] == 0.0:
        s.side[ray] = wp.where(d < 0.0, -1.0, 1.0)
    f = d * s.side[ray]
    s.count[ray] = s.count[ray] + 1
    if f == 0.0:
        s.status[ray] = _HIT
    elif s.status[ray] == _MARCH:
        marched(s, ray, f, relaxation, min_step, max_steps)
    else:
        bracketed(s, ray, f, tolerance, max_refinements)
    p = s.origin[ray] + s.t[ray] * s.direction[ray]
    for axis in range(3):
        x[((slot / 32) * 3 + axis) * 32 + slot % 32] = p[axis]

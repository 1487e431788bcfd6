"""Pictures of a dense volume's values along rays, in Warp's language.

Sources: Levoy 1988 (surfaces and transfer functions), Max 1995 (emission and absorption):

    C = sum over samples of T_i (1 - exp(-s_i h)) c_i,    T_i = exp(-sum over j < i of s_j h)

with extinctions s per voxel length and steps h in voxels. Positions are array coordinates
(``sight.py``), light and normals in camera axes (right, up, back). Not differentiable. Twin:
tests/reference/volume_projection.py.
"""

import warp as wp

from ngp_warp.launch import module_options
from ngp_warp.primitives.volume.kernels.fields import DenseField
from ngp_warp.primitives.volume.kernels.light import across, around
from ngp_warp.primitives.volume.kernels.sight import (
    FAR,
    ArrayView,
    Segment,
    enter,
    gradient_at,
    pixel_of,
    value_at,
)

OPAQUE = wp.constant(1.0e-3)
"""Transmittance at which nothing more of a ray is seen."""
KEY = wp.constant(wp.vec3(-0.6, 0.75, 0.6))
FILL = wp.constant(wp.vec3(0.9, -0.1, 0.4))
"""Towards the lights, camera axes: they stay with the viewer, as a lamp on the forehead would."""
RING_CAP = wp.constant(0.45)
"""1 - cosine of the directions about a normal in which a surface's surroundings are looked at."""
DARKEST = wp.constant(0.25)
"""Share of the light that a point without open surroundings has."""


@wp.func
def facing(view: ArrayView, gradient: wp.vec3, sight: wp.vec3) -> wp.vec3:
    """Return the unit normal towards the viewer, camera axes; of no gradient the line of sight."""
    n = view.to_camera * gradient
    length = wp.length(n)
    if length == 0.0:
        return -sight
    n /= length
    # mirrored, not turned: both sides meet at grazing angles without a seam
    return wp.normalize(n - 2.0 * wp.max(wp.dot(n, sight), 0.0) * sight)


@wp.func
def half_lambert(n: wp.vec3, light: wp.vec3) -> float:
    """Valve's wrapped diffuse term (Mitchell et al. 2006): no side is black."""
    c = 0.5 + 0.5 * wp.dot(n, wp.normalize(light))
    return c * c


@wp.func
def diffuse(n: wp.vec3) -> wp.vec3:
    """Light on a surface from a warm key, a cool fill and all around; about 1 towards the key."""
    key = half_lambert(n, KEY) * wp.vec3(0.88, 0.83, 0.75)
    fill = half_lambert(n, FILL) * wp.vec3(0.10, 0.14, 0.20)
    around = (0.5 + 0.5 * n[1]) * wp.vec3(0.06, 0.07, 0.09)
    return key + fill + around


@wp.func
def gloss(n: wp.vec3, sight: wp.vec3, power: float) -> float:
    """Blinn's highlight of the key light."""
    half = wp.normalize(wp.normalize(KEY) - sight)
    return wp.pow(wp.max(wp.dot(n, half), 0.0), power)


@wp.func
def is_inside(field: DenseField, size: wp.vec3, p: wp.vec3, level: float, sign: float) -> bool:
    """Whether the value lies above the level (sign 1) or below it (-1)."""
    return sign * (value_at(field, size, p) - level) > 0.0


@wp.func
def first_inside(
    field: DenseField, size: wp.vec3, s: Segment, level: float, sign: float, halvings: int
) -> float:
    """Return voxels from a ray's start to where it is first inside, by bisection; -1: nowhere."""
    for k in range(s.n + 1):
        t = float(k) * s.step
        if is_inside(field, size, s.start + t * s.direction, level, sign):
            outside = wp.max(t - s.step, 0.0)
            for _ in range(halvings):
                middle = 0.5 * (outside + t)
                if is_inside(field, size, s.start + middle * s.direction, level, sign):
                    t = middle
                else:
                    outside = middle
            return t
    return -1.0


@wp.func
def openness(
    field: DenseField, size: wp.vec3, p: wp.vec3, outward: wp.vec3, level: float, sign: float
) -> float:
    """Return about how much of its surroundings a point of a surface sees, 0 to 1.

    Looked up at four distances along the normal and in six directions about it; a value counts by
    how many voxels it would be inside, so that steps and noise do not show.
    """
    slope = wp.max(wp.length(outward), 1.0e-30)
    n = wp.normalize(outward)
    side = across(n)
    blocked = float(0.0)
    for ring in range(7):
        w = n
        if ring > 0:
            w = around(n, side, RING_CAP, float(ring) / 6.0)
        most = float(0.0)
        distance = float(1.5)
        share = float(1.0)
        for _ in range(4):
            depth = sign * (value_at(field, size, p + distance * w) - level) / slope
            most = wp.max(most, share * wp.clamp(0.5 + 0.5 * depth, 0.0, 1.0))
            distance *= 2.0
            share *= 0.8
        blocked += most
    return 1.0 - blocked / 7.0


@wp.kernel(module="unique", module_options=module_options())
def project_maximum(
    begin: int,
    # in
    field: DenseField,
    size: wp.vec3,  # values along each axis
    view: ArrayView,
    offset: wp.vec2,  # of the sample in its pixel
    step: float,  # at most, voxels
    # in and out
    values: wp.array[float],  # [n_pixels], sums of the largest values
    counts: wp.array[float],  # [n_pixels], of rays that meet the box
):
    """Add the largest value along a ray, entry and exit included."""
    i = pixel_of(view, begin + wp.tid())
    if i < 0:
        return
    s = enter(view, size, i, offset, step)
    if s.n > 0:
        best = float(-FAR)
        for k in range(s.n + 1):
            p = s.start + (float(k) * s.step) * s.direction
            best = wp.max(best, value_at(field, size, p))
        values[i] = values[i] + best
        counts[i] = counts[i] + 1.0


@wp.kernel(module="unique", module_options=module_options())
def project_surface(
    begin: int,
    # in
    field: DenseField,
    size: wp.vec3,  # values along each axis
    view: ArrayView,
    offset: wp.vec2,  # of the sample in its pixel
    step: float,  # at most, voxels
    level: float,
    sign: float,  # 1: inside is above the level; -1: below
    halvings: int,
    albedo: wp.vec3,  # linear RGB
    # in and out
    colors: wp.array[wp.vec3],  # [n_pixels], sums of linear RGB
    counts: wp.array[float],  # [n_pixels], of rays that hit
    depths: wp.array[float],  # [n_pixels], sums of world distances
    normals: wp.array[wp.vec3],  # [n_pixels], sums in camera axes
):
    """Add the first point of a ray that is inside, narrowed by bisection."""
    i = pixel_of(view, begin + wp.tid())
    if i < 0:
        return
    s = enter(view, size, i, offset, step)
    t = float(-1.0)
    if s.n > 0:
        t = first_inside(field, size, s, level, sign, halvings)
    if t >= 0.0:
        p = s.start + t * s.direction
        # where the box cuts the inside, its face is the surface
        outward = s.face
        seen = float(1.0)
        if t > 0.0:
            outward = -sign * gradient_at(field, size, p)
            seen = openness(field, size, p, outward, level, sign)
        n = facing(view, outward, s.sight)
        color = wp.cw_mul(albedo, diffuse(n)) * (DARKEST + (1.0 - DARKEST) * seen)
        highlight = 0.08 * seen * gloss(n, s.sight, 24.0)
        colors[i] = colors[i] + color + wp.vec3(highlight, highlight, highlight)
        counts[i] = counts[i] + 1.0
        depths[i] = depths[i] + (s.near + t) * s.scale
        normals[i] = normals[i] + n


@wp.kernel(module="unique", module_options=module_options())
def project_transfer(
    begin: int,
    # in
    field: DenseField,
    size: wp.vec3,  # values along each axis
    view: ArrayView,
    offset: wp.vec2,  # of the sample in its pixel
    step: float,  # at most, voxels
    start: float,  # of the first step, where its sample lies; 0 to 1
    table: wp.array[wp.vec4],  # linear RGB and extinction per voxel, equidistant from low to high
    low: float,
    high: float,
    edge: float,  # change per voxel from which on shading counts in full; 0: no shading
    # in and out
    colors: wp.array[wp.vec3],  # [n_pixels], sums of linear RGB, premultiplied
    opacities: wp.array[float],  # [n_pixels], sums
):
    """Add what a ray gathers, front to back."""
    i = pixel_of(view, begin + wp.tid())
    if i < 0:
        return
    s = enter(view, size, i, offset, step)
    color = wp.vec3(0.0, 0.0, 0.0)
    left = float(1.0)
    last = table.shape[0] - 1
    scale = float(last) / (high - low)
    for k in range(s.n):
        p = s.start + ((float(k) + start) * s.step) * s.direction
        at = wp.clamp((value_at(field, size, p) - low) * scale, 0.0, float(last))
        row = wp.min(int(at), last - 1)
        found = wp.lerp(table[row], table[row + 1], at - float(row))
        if found[3] > 0.0:
            opacity = 1.0 - wp.exp(-found[3] * s.step)
            emitted = wp.vec3(found[0], found[1], found[2])
            if edge > 0.0:
                g = gradient_at(field, size, p)
                n = facing(view, g, s.sight)
                # where nothing changes there is no surface, and noise would set the normal
                share = wp.min(wp.length(g) / edge, 1.0)
                lit = wp.cw_mul(emitted, diffuse(n))
                shine = 0.12 * gloss(n, s.sight, 20.0)
                lit += wp.vec3(shine, shine, shine)
                emitted = wp.lerp(emitted, lit, share)
            color += (left * opacity) * emitted
            left *= 1.0 - opacity
            if left < OPAQUE:
                break
    colors[i] = colors[i] + color
    opacities[i] = opacities[i] + 1.0 - left

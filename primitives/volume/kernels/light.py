"""The light around a medium: a sky gradient and a sun, in Warp's language.

Not differentiable. Twin: tests/reference/volume_light.py.
"""

import warp as wp

TURN = wp.constant(6.283185307179586)


@wp.struct
class LightData:
    """A ``Light`` as the kernels see it; radiances are linear RGB."""

    up: wp.vec3  # unit, world axes
    zenith: wp.vec3
    horizon: wp.vec3
    ground: wp.vec3
    sun: wp.vec3  # unit, from the world towards the middle of the sun's disc
    side: wp.vec3  # unit, across ``sun``
    sun_power: wp.vec3  # radiance times solid angle; 0: there is no sun
    sun_cap: float  # 1 - cos of the sun's angular radius


@wp.func
def sky(light: LightData, direction: wp.vec3) -> wp.vec3:
    """Radiance that comes from a direction: horizon + (1 - (1 - |h|)^3) (end - horizon).

    h is the sine of the elevation; end is the zenith's radiance above the horizon, the ground's
    below.
    """
    h = wp.clamp(wp.dot(direction, light.up), -1.0, 1.0)
    low = 1.0 - wp.abs(h)
    share = 1.0 - low * low * low
    end = light.ground
    if h >= 0.0:
        end = light.zenith
    return light.horizon + share * (end - light.horizon)


@wp.func
def around(axis: wp.vec3, side: wp.vec3, cap: float, u: float) -> wp.vec3:
    """Return the unit vector at angle acos(1 - cap) to an axis, u of a turn about it."""
    # from 1 - cos: near an axis, a cosine has no digits left
    sine = wp.sqrt(wp.max(cap * (2.0 - cap), 0.0))
    other = wp.cross(axis, side)
    return (1.0 - cap) * axis + (sine * wp.cos(TURN * u)) * side + (sine * wp.sin(TURN * u)) * other


@wp.func
def across(axis: wp.vec3) -> wp.vec3:
    """Return a unit vector across a unit vector (Duff et al. 2017)."""
    sign = wp.where(axis[2] < 0.0, -1.0, 1.0)
    a = -1.0 / (sign + axis[2])
    return wp.vec3(
        1.0 + sign * axis[0] * axis[0] * a, sign * (axis[0] * axis[1] * a), -sign * axis[0]
    )


@wp.func
def sun_direction(light: LightData, u: float, v: float) -> wp.vec3:
    """Return a direction towards the sun's disc, uniform in solid angle."""
    return around(light.sun, light.side, u * light.sun_cap, v)

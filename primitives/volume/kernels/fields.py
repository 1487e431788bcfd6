"""Density fields that light is tracked through: one ``wp.func`` each, taken by kernel factories.

Positions are grid coordinates: those of the blocks of majorants (``blocks.py``). Not
differentiable. Twin: tests/reference/volume_light.py.
"""

import functools
from typing import Any, NamedTuple

import warp as wp

from ngp_warp.launch import module_options


class FieldKind(NamedTuple):
    """What a kernel factory must know of a field."""

    data: Any
    """A ``wp.struct``: what the field is made of."""
    density: Any
    """A ``wp.func`` (data, position) -> density of at least 0; the position lies in the grid."""


@wp.struct
class DenseField:
    """Values at whole grid coordinates."""

    values: wp.array(dtype=float, ndim=3)  # of at least 0, and 0 on the grid's faces


@wp.func
def lerp(a: float, b: float, f: float) -> float:
    """Return a where f is 0."""
    return a + f * (b - a)


@wp.func
def dense_density(field: DenseField, p: wp.vec3) -> float:
    """Trilinear interpolation between the values at the eight corners of the cell of p.

    It rounds to at most (1 + 9 * 2^-24) times the largest of the eight.
    """
    i = wp.clamp(int(p[0]), 0, field.values.shape[0] - 2)
    j = wp.clamp(int(p[1]), 0, field.values.shape[1] - 2)
    k = wp.clamp(int(p[2]), 0, field.values.shape[2] - 2)
    f = wp.vec3(p[0] - float(i), p[1] - float(j), p[2] - float(k))
    v = field.values
    ll = lerp(v[i, j, k], v[i, j, k + 1], f[2])
    lh = lerp(v[i, j + 1, k], v[i, j + 1, k + 1], f[2])
    hl = lerp(v[i + 1, j, k], v[i + 1, j, k + 1], f[2])
    hh = lerp(v[i + 1, j + 1, k], v[i + 1, j + 1, k + 1], f[2])
    return lerp(lerp(ll, lh, f[1]), lerp(hl, hh, f[1]), f[0])


DENSE = FieldKind(DenseField, dense_density)


@functools.cache
def density_kernel(kind: FieldKind) -> wp.Kernel:
    """Return the kernel of densities at points."""
    data_type, density = kind.data, kind.density

    @wp.kernel(module="unique", module_options=module_options())
    def field_density(
        begin: int,
        # in
        field: data_type,
        upper: wp.vec3,  # the grid is between 0 and this
        points: wp.array[wp.vec3],  # [n], grid coordinates
        # out
        densities: wp.array[float],  # [n]
    ):
        """Density at points; 0 outside the grid."""
        i = begin + wp.tid()
        p = points[i]
        d = float(0.0)
        inside = p[0] >= 0.0 and p[1] >= 0.0 and p[2] >= 0.0
        if inside and p[0] <= upper[0] and p[1] <= upper[1] and p[2] <= upper[2]:
            d = density(field, p)
        densities[i] = d

    return field_density

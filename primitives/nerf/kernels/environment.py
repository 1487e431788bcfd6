"""What lies behind the field, by direction: an equirectangular map of trained texels.

Longitude atan2(y, x) runs along a row and wraps; latitude asin(z) down the rows, from the pole +z.
Texels are interpolated bilinearly, and the result goes through a logistic (sRGB, in (0, 1)) or a
softplus (linear light, above 0). Differentiable in the texels. Twin:
tests/reference/environment.py.

A texel is four floats: red, green, blue and one that is not used, as the optimizer's tables have
rows of 1, 2, 4 or 8.
"""

import functools

import warp as wp

from ngp_warp.kernels.atomics import mark
from ngp_warp.kernels.grid import GROUP
from ngp_warp.kernels.grid_portable import FIXED_POINT
from ngp_warp.launch import module_options

wp.set_module_options(module_options())

_GROUP = wp.constant(GROUP)
_FIXED_POINT = wp.constant(FIXED_POINT)
_PER_TURN = wp.constant(0.15915494)
_PER_HALF = wp.constant(0.31830989)


@wp.struct
class Place:
    """Four texels and their weights: the columns a, b of the rows c, d."""

    a: int
    b: int
    c: int
    d: int
    u: float  # weight of column b
    v: float  # weight of row d


@wp.func
def place_of(direction: wp.vec3, width: int, height: int) -> Place:
    """Return where a direction falls; beyond the first and last row's centres, on those rows."""
    p = Place()
    d = wp.normalize(direction)
    column = (wp.atan2(d[1], d[0]) * _PER_TURN + 0.5) * float(width) - 0.5
    row = (0.5 - wp.asin(wp.clamp(d[2], -1.0, 1.0)) * _PER_HALF) * float(height) - 0.5
    row = wp.clamp(row, 0.0, float(height - 1))
    left = wp.floor(column)
    p.u = column - left
    p.a = (int(left) + width) % width
    p.b = (p.a + 1) % width
    p.c = wp.min(int(row), height - 1)
    p.d = wp.min(p.c + 1, height - 1)
    p.v = row - float(p.c)
    return p


@wp.func
def texel_mix(texels: wp.array(dtype=float), width: int, p: Place, channel: int) -> float:
    """Interpolate one channel."""
    above = texels[(p.c * width + p.a) * 4 + channel] * (1.0 - p.u)
    above += texels[(p.c * width + p.b) * 4 + channel] * p.u
    below = texels[(p.d * width + p.a) * 4 + channel] * (1.0 - p.u)
    below += texels[(p.d * width + p.b) * 4 + channel] * p.u
    return above * (1.0 - p.v) + below * p.v


@wp.func
def logistic(x: float) -> float:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + wp.exp(-x))


@wp.func
def softplus(x: float) -> float:
    """Return ln(1 + exp(x)) without overflow."""
    return wp.max(x, 0.0) + wp.log(1.0 + wp.exp(-wp.abs(x)))


@functools.cache
def environment_function(color_space: str) -> wp.Function:
    """Return the function that looks a direction up: its colour, in ``color_space``."""
    bounded = color_space == "srgb"

    @wp.func
    def lookup(texels: wp.array(dtype=float), width: int, height: int, d: wp.vec3) -> wp.vec3:
        p = place_of(d, width, height)
        color = wp.vec3()
        for c in range(3):
            x = texel_mix(texels, width, p, c)
            if wp.static(bounded):
                color[c] = logistic(x)
            else:
                color[c] = softplus(x)
        return color

    return lookup


@functools.cache
def lookup_kernel(color_space: str) -> wp.Kernel:
    """Return the kernel of the environment's colours in given directions."""
    lookup = environment_function(color_space)

    @wp.kernel(module="unique", module_options=module_options())
    def look_up_environment(
        begin: int,
        # in
        texels: wp.array[float],  # [height, width, 4]
        width: int,
        height: int,
        direction: wp.array[float],  # [n, 3]
        # out
        color: wp.array[float],  # [n, 3]
    ):
        """Bilinear in longitude and latitude."""
        i = begin + wp.tid()
        d = wp.vec3(direction[i * 3], direction[i * 3 + 1], direction[i * 3 + 2])
        c = lookup(texels, width, height, d)
        for k in range(3):
            color[i * 3 + k] = c[k]

    return look_up_environment


@wp.kernel
def row_kernel(
    begin: int,
    # in
    direction: wp.array[float],  # [n, 3]
    alpha: wp.array[float],  # [n]
    weight: wp.array[float],  # [n]
    count: wp.array[int],  # [1]
    width: int,
    height: int,
    # out
    row: wp.array[int],  # [n]; -1: gives no gradient
):
    """The upper row that a ray's background was read from.

    A photo that is not opaque somewhere shows no environment there: its target moved with it.
    """
    i = begin + wp.tid()
    row[i] = -1
    if i < count[0] and alpha[i] == 1.0 and weight[i] > 0.0:
        d = wp.vec3(direction[i * 3], direction[i * 3 + 1], direction[i * 3 + 2])
        row[i] = place_of(d, width, height).c


@functools.cache
def backward_kernel(color_space: str, fixed_point: bool) -> wp.Kernel:
    """Return the kernel of the texels' gradients.

    With floats an item has ``rows_per_item`` rows and adds the rays that fall on them in their
    order. In fixed point, whose sums do not depend on the order, an item is a ray.
    """
    lookup = environment_function(color_space)
    bounded = color_space == "srgb"
    gradient_type = wp.array[wp.int64 if fixed_point else float]

    @wp.func
    def add(
        gradient: gradient_type, touched: wp.array[wp.uint8], texel: int, channel: int, g: float
    ):
        if g != 0.0:
            mark(touched, texel / _GROUP)
            if wp.static(fixed_point):
                amount = wp.int64(wp.rint(wp.float64(g) * wp.float64(_FIXED_POINT)))
                wp.atomic_add(gradient, texel * 4 + channel, amount)
            else:
                gradient[texel * 4 + channel] = gradient[texel * 4 + channel] + gradient.dtype(g)

    @wp.kernel(module="unique", module_options=module_options())
    def environment_backward(
        begin: int,
        # in
        direction: wp.array[float],  # [n, 3]
        d_background: wp.array[float],  # [n, 3]
        row: wp.array[int],  # [n]
        n_rays: int,
        width: int,
        height: int,
        texels: wp.array[float],  # [height, width, 4]
        rows_per_item: int,
        # in and out
        gradient: gradient_type,  # [height, width, 4], added to
        touched: wp.array[wp.uint8],  # [height * width / GROUP], set to 1; or empty
    ):
        """d texel += weight * slope of the activation * d background."""
        item = begin + wp.tid()
        first = wp.int32(0)
        end = n_rays
        if wp.static(fixed_point):
            first = item
            end = item + 1
        for i in range(first, end):
            r = row[i]
            if r < 0:
                continue
            # an item adds to its own rows alone: the lower row of a ray may be another item's
            mine = wp.static(fixed_point) or r / rows_per_item == item
            next_mine = wp.static(fixed_point) or wp.min(r + 1, height - 1) / rows_per_item == item
            if not (mine or next_mine):
                continue
            d = wp.vec3(direction[i * 3], direction[i * 3 + 1], direction[i * 3 + 2])
            p = place_of(d, width, height)
            color = lookup(texels, width, height, d)
            for c in range(3):
                slope = color[c] * (1.0 - color[c])
                if wp.static(not bounded):
                    slope = 1.0 - wp.exp(-color[c])
                g = d_background[i * 3 + c] * slope
                if mine:
                    add(gradient, touched, p.c * width + p.a, c, g * (1.0 - p.v) * (1.0 - p.u))
                    add(gradient, touched, p.c * width + p.b, c, g * (1.0 - p.v) * p.u)
                if next_mine:
                    add(gradient, touched, p.d * width + p.a, c, g * p.v * (1.0 - p.u))
                    add(gradient, touched, p.d * width + p.b, c, g * p.v * p.u)

    return environment_backward

"""Lenses: from a pixel to its direction, and the derivatives of the direction by the lens.

Models and units: ngp_warp/rays/lenses.py; its equations are those of OpenCV. ``unproject`` inverts
them by Newton's method; ``lens_gradient`` is the implicit derivative of that inverse. Twin:
tests/reference/lens.py, and ``Lens`` itself in float64.

A lens is a row of a flat table of ``N_LENS`` float32 values.
"""

import warp as wp

from ngp_warp.launch import module_options

wp.set_module_options(module_options())

FX, FY, CX, CY, K1, P1, P2, MODEL, LIMIT, WIDTH, HEIGHT = 0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15
"""Columns; K2 to K6 follow K1."""
N_LENS = 16
N_PARAMETERS = 12
"""Columns that are differentiable: the focal lengths, the principal point and the coefficients."""

PINHOLE, RADIAL, TANGENTIAL, FISHEYE = 0, 1, 2, 3
"""MODEL: perspective without distortion, with k1 to k6, with p1 and p2 too; fisheye."""

UNLIMITED = 1e30
"""LIMIT of a perspective lens whose distortion never folds."""

_FX, _FY, _CX, _CY, _K1 = (wp.constant(v) for v in (FX, FY, CX, CY, K1))
_P1, _P2, _N = (wp.constant(v) for v in (P1, P2, N_LENS))
_PINHOLE, _TANGENTIAL, _FISHEYE = (wp.constant(v) for v in (PINHOLE, TANGENTIAL, FISHEYE))
_UNLIMITED = wp.constant(UNLIMITED)

# Newton's steps shrink quadratically: after one of this share the rest is below float32's
_CONVERGED = wp.constant(1.0e-5)
# enough to start from where tangential distortion is added
_ROUGH = wp.constant(1.0e-2)
# where bounds are halved instead: float32 cannot do better
_EPSILON = wp.constant(2.0e-7)
_MAX_ITERATIONS = wp.constant(48)
# degrees of a scan for the fold: no lens has one that closes again within a third of a degree
SCAN = 256
_SCAN = wp.constant(SCAN)
_HALF_PI = wp.constant(1.5707963)
_PI = wp.constant(3.14159274)

lens_vector = wp.types.vector(length=N_PARAMETERS, dtype=float)


@wp.struct
class LensRow:
    """A row of the table."""

    fx: float
    fy: float
    cx: float
    cy: float
    k1: float
    k2: float
    k3: float
    k4: float
    k5: float
    k6: float
    p1: float
    p2: float
    model: int
    limit: float
    width: float
    height: float


@wp.struct
class Distorted:
    """An image point, and its derivative [[xx, xy], [xy, yy]] by the undistorted one."""

    x: float
    y: float
    xx: float
    xy: float
    yy: float


@wp.func
def load_lens(table: wp.array(dtype=float), row: int) -> LensRow:
    """Read a row."""
    lens = LensRow()
    at = row * _N
    lens.fx = table[at]
    lens.fy = table[at + 1]
    lens.cx = table[at + 2]
    lens.cy = table[at + 3]
    lens.k1 = table[at + 4]
    lens.k2 = table[at + 5]
    lens.k3 = table[at + 6]
    lens.k4 = table[at + 7]
    lens.k5 = table[at + 8]
    lens.k6 = table[at + 9]
    lens.p1 = table[at + 10]
    lens.p2 = table[at + 11]
    lens.model = int(table[at + 12])
    lens.limit = table[at + 13]
    lens.width = table[at + 14]
    lens.height = table[at + 15]
    return lens


@wp.func
def radial(lens: LensRow, r: float) -> wp.vec2:
    """Return the distorted radius (or angle) and its derivative by the undistorted one."""
    s = r * r
    if lens.model == _FISHEYE:
        value = 1.0 + s * (lens.k1 + s * (lens.k2 + s * (lens.k3 + s * lens.k4)))
        slope = 3.0 * lens.k1 + s * (5.0 * lens.k2 + s * (7.0 * lens.k3 + s * 9.0 * lens.k4))
        return wp.vec2(r * value, 1.0 + s * slope)
    over = 1.0 + s * (lens.k1 + s * (lens.k2 + s * lens.k3))
    under = 1.0 + s * (lens.k4 + s * (lens.k5 + s * lens.k6))
    d_over = lens.k1 + s * (2.0 * lens.k2 + s * 3.0 * lens.k3)
    d_under = lens.k4 + s * (2.0 * lens.k5 + s * 3.0 * lens.k6)
    inverse = 1.0 / under
    q = over * inverse
    return wp.vec2(r * q, q + 2.0 * s * (d_over - q * d_under) * inverse)


@wp.func
def distort(lens: LensRow, x: float, y: float) -> Distorted:
    """Perspective: return the image of (x, y) = (X / Z, Y / Z)."""
    s = x * x + y * y
    over = 1.0 + s * (lens.k1 + s * (lens.k2 + s * lens.k3))
    under = 1.0 + s * (lens.k4 + s * (lens.k5 + s * lens.k6))
    d_over = lens.k1 + s * (2.0 * lens.k2 + s * 3.0 * lens.k3)
    d_under = lens.k4 + s * (2.0 * lens.k5 + s * 3.0 * lens.k6)
    inverse = 1.0 / under
    q = over * inverse
    dq = 2.0 * (d_over - q * d_under) * inverse  # dq/dx = dq * x
    p1, p2 = lens.p1, lens.p2
    out = Distorted()
    out.x = q * x + 2.0 * p1 * x * y + p2 * (s + 2.0 * x * x)
    out.y = q * y + p1 * (s + 2.0 * y * y) + 2.0 * p2 * x * y
    out.xx = q + dq * x * x + 2.0 * p1 * y + 6.0 * p2 * x
    out.xy = dq * x * y + 2.0 * (p1 * x + p2 * y)
    out.yy = q + dq * y * y + 6.0 * p1 * y + 2.0 * p2 * x
    return out


@wp.func
def fold(lens: LensRow) -> float:
    """Return the radius (angle) at which the radial distortion stops growing: scan, then halve."""
    if lens.model == _PINHOLE:
        return _UNLIMITED
    fisheye = lens.model == _FISHEYE
    whole = float(_HALF_PI)
    if fisheye:
        whole = float(_PI)
    low = float(0.0)
    high = float(-1.0)
    last = float(0.0)
    for i in range(1, _SCAN):
        angle = whole * float(i) / float(_SCAN)
        r = angle
        if not fisheye:
            r = wp.tan(angle)
        value = radial(lens, r)
        # a pole of the rational model changes the sign of the value
        if not (value[1] > 0.0 and value[0] > last):
            high = angle
            break
        last = value[0]
        low = angle
    if high < 0.0:
        if fisheye:
            return _PI
        return _UNLIMITED
    for _i in range(24):
        middle = 0.5 * (low + high)
        r = middle
        if not fisheye:
            r = wp.tan(middle)
        value = radial(lens, r)
        if value[1] > 0.0 and value[0] >= last:
            low = middle
        else:
            high = middle
    if fisheye:
        return low
    return wp.tan(low)


@wp.func
def undistort_radius(lens: LensRow, distorted: float, tolerance: float) -> float:
    """Return the radius (angle) that is distorted to this one, -1 if there is none.

    Newton between bounds that close in, until a step is ``tolerance`` of the radius.
    """
    low = float(0.0)
    high = lens.limit
    if high < 0.5 * _UNLIMITED:
        if radial(lens, high)[0] < distorted:
            return -1.0
    else:
        high = distorted
        for _i in range(64):
            if radial(lens, high)[0] >= distorted:
                break
            low = high
            high = 2.0 * high
    r = wp.clamp(distorted, low, high)
    for _i in range(_MAX_ITERATIONS):
        value = radial(lens, r)
        error = value[0] - distorted
        if error > 0.0:
            high = r
        else:
            low = r
        following = r - error / value[1]
        enough = tolerance
        if not (following >= low and following <= high):
            following = 0.5 * (low + high)
            enough = _EPSILON
        step = wp.abs(following - r)
        r = following
        if step <= enough * r:
            break
    return r


@wp.func
def undistort(lens: LensRow, mx: float, my: float) -> wp.vec3:
    """Perspective: return (x, y, 1) whose image is (mx, my), or zeros if there is none."""
    if lens.model == _PINHOLE:
        return wp.vec3(mx, my, 1.0)
    distorted = wp.sqrt(mx * mx + my * my)
    tangential = lens.model == _TANGENTIAL
    tolerance = float(_CONVERGED)
    if tangential:
        tolerance = float(_ROUGH)
    r = undistort_radius(lens, distorted, tolerance)
    if r < 0.0:
        if not tangential:
            return wp.vec3()
        r = 0.999 * lens.limit  # tangential distortion may still reach beyond the radial one
    scale = float(1.0)
    if distorted > 0.0:
        scale = r / distorted
    x = mx * scale
    y = my * scale
    if not tangential:
        return wp.vec3(x, y, 1.0)
    found = bool(False)
    for _i in range(_MAX_ITERATIONS):
        m = distort(lens, x, y)
        det = m.xx * m.yy - m.xy * m.xy
        if not det > 0.0:
            return wp.vec3()
        ex = (m.x - mx) / det
        ey = (m.y - my) / det
        dx = m.yy * ex - m.xy * ey
        dy = m.xx * ey - m.xy * ex
        x -= dx
        y -= dy
        if dx * dx + dy * dy <= _CONVERGED * _CONVERGED * (x * x + y * y):
            found = True
            break
    # at the middle, where x is 0, no step is a small share of it
    found = found or x * x + y * y < 1.0e-12
    if not found or x * x + y * y > lens.limit * lens.limit:
        return wp.vec3()
    return wp.vec3(x, y, 1.0)


@wp.func
def unproject(lens: LensRow, u: float, v: float) -> wp.vec3:
    """Return the unit direction of a pixel in the camera's axes (OpenGL's); zeros: it has none."""
    x = (u - lens.cx) / lens.fx
    y = (v - lens.cy) / lens.fy
    if lens.model != _FISHEYE:
        p = undistort(lens, x, y)
        return wp.normalize(wp.vec3(p[0], -p[1], -p[2]))
    distorted = wp.sqrt(x * x + y * y)
    theta = undistort_radius(lens, distorted, _CONVERGED)
    if theta < 0.0:
        return wp.vec3()
    scale = float(1.0)
    if distorted > 0.0:
        scale = wp.sin(theta) / distorted
    return wp.normalize(wp.vec3(scale * x, -scale * y, -wp.cos(theta)))


@wp.func
def project(lens: LensRow, p: wp.vec3) -> wp.vec3:
    """Return (u, v, 1) of a point in the camera's axes, or zeros if the lens cannot see it."""
    x = float(0.0)
    y = float(0.0)
    if lens.model == _FISHEYE:
        side = wp.sqrt(p[0] * p[0] + p[1] * p[1])
        theta = wp.atan2(side, -p[2])
        if theta > lens.limit:
            return wp.vec3()
        if side > 0.0:
            scale = radial(lens, theta)[0] / side
            x = p[0] * scale
            y = -p[1] * scale
    else:
        if p[2] >= 0.0:
            return wp.vec3()
        x = -p[0] / p[2]
        y = p[1] / p[2]
        if x * x + y * y > lens.limit * lens.limit:
            return wp.vec3()
        m = distort(lens, x, y)
        x = m.x
        y = m.y
    return wp.vec3(lens.fx * x + lens.cx, lens.fy * y + lens.cy, 1.0)


@wp.func
def in_picture(lens: LensRow, pixel: wp.vec3) -> bool:
    """Return whether ``project`` found a place in the picture."""
    inside = pixel[0] >= 0.0 and pixel[1] >= 0.0
    return pixel[2] != 0.0 and inside and pixel[0] <= lens.width and pixel[1] <= lens.height


@wp.func
def fisheye_gradient(lens: LensRow, d: wp.vec3, g: wp.vec3) -> lens_vector:
    """``lens_gradient`` of a fisheye lens."""
    out = lens_vector()
    side = wp.sqrt(d[0] * d[0] + d[1] * d[1])
    theta = wp.atan2(side, -d[2])
    if side < 1.0e-6:
        # on the axis, where the lens is a pinhole
        out[_CX] = -g[0] / lens.fx
        out[_CY] = g[1] / lens.fy
        return out
    ex = d[0] / side
    ey = -d[1] / side
    value = radial(lens, theta)
    # by the angle to the axis, and by a turn about it
    along = (side * g[2] - d[2] * (g[0] * ex - g[1] * ey)) / value[1]
    across = -side * (g[0] * ey + g[1] * ex) / value[0]
    dual_x = ex * along - ey * across
    dual_y = ey * along + ex * across
    power = theta
    for i in range(4):
        power *= theta * theta
        out[_K1 + i] = -along * power
    out[_FX] = -dual_x * ex * value[0] / lens.fx
    out[_FY] = -dual_y * ey * value[0] / lens.fy
    out[_CX] = -dual_x / lens.fx
    out[_CY] = -dual_y / lens.fy
    return out


@wp.func
def lens_gradient(lens: LensRow, d: wp.vec3, g: wp.vec3) -> lens_vector:
    """Return the gradient of g . direction by the first columns of the lens, at one pixel.

    The pixel is the one whose direction is d, a unit vector in the camera's axes. From
    F(x, lens) = m(lens): dx = J^-1 (dm - dF/dlens), so with lambda = J^-T g each derivative is
    lambda . (dm - dF).
    """
    if lens.model == _FISHEYE:
        return fisheye_gradient(lens, d, g)
    out = lens_vector()
    z = -1.0 / d[2]
    x = d[0] * z
    y = -d[1] * z
    h = (g - d * wp.dot(d, g)) / z
    m = distort(lens, x, y)
    det = m.xx * m.yy - m.xy * m.xy
    dual_x = (m.yy * h[0] + m.xy * h[1]) / det
    dual_y = (-m.xx * h[1] - m.xy * h[0]) / det
    s = x * x + y * y
    over = 1.0 + s * (lens.k1 + s * (lens.k2 + s * lens.k3))
    under = 1.0 + s * (lens.k4 + s * (lens.k5 + s * lens.k6))
    along = -(dual_x * x + dual_y * y) / under
    power = float(1.0)
    for i in range(3):
        power *= s
        out[_K1 + i] = along * power
        out[_K1 + 3 + i] = -along * power * over / under
    out[_P1] = -(dual_x * 2.0 * x * y + dual_y * (s + 2.0 * y * y))
    out[_P2] = -(dual_x * (s + 2.0 * x * x) + dual_y * 2.0 * x * y)
    out[_FX] = -dual_x * m.x / lens.fx
    out[_FY] = -dual_y * m.y / lens.fy
    out[_CX] = -dual_x / lens.fx
    out[_CY] = -dual_y / lens.fy
    return out

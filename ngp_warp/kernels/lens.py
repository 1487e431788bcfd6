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
_P1, _P2, _MODEL, _LIMIT = (wp.constant(v) for v in (P1, P2, MODEL, LIMIT))
_WIDTH, _HEIGHT, _N = wp.constant(WIDTH), wp.constant(HEIGHT), wp.constant(N_LENS)
_PINHOLE, _TANGENTIAL, _FISHEYE = (wp.constant(v) for v in (PINHOLE, TANGENTIAL, FISHEYE))
_UNLIMITED = wp.constant(UNLIMITED)

# Newton's step where float32 cannot do better
_EPSILON = wp.constant(2.0e-7)
_MAX_ITERATIONS = wp.constant(48)
# degrees of a scan for the fold: no lens has one that closes again within a third of a degree
SCAN = 256
_SCAN = wp.constant(SCAN)
_HALF_PI = wp.constant(1.5707963)
_PI = wp.constant(3.14159274)

lens_vector = wp.types.vector(length=N_PARAMETERS, dtype=float)


@wp.func
def radial(lens: wp.array(dtype=float), at: int, r: float) -> wp.vec2:
    """Return the distorted radius (or angle) and its derivative by the undistorted one."""
    k1, k2, k3 = lens[at + _K1], lens[at + _K1 + 1], lens[at + _K1 + 2]
    k4 = lens[at + _K1 + 3]
    s = r * r
    if lens[at + _MODEL] == float(_FISHEYE):
        value = 1.0 + s * (k1 + s * (k2 + s * (k3 + s * k4)))
        slope = 1.0 + s * (3.0 * k1 + s * (5.0 * k2 + s * (7.0 * k3 + s * 9.0 * k4)))
        return wp.vec2(r * value, slope)
    k5, k6 = lens[at + _K1 + 4], lens[at + _K1 + 5]
    over = 1.0 + s * (k1 + s * (k2 + s * k3))
    under = 1.0 + s * (k4 + s * (k5 + s * k6))
    d_over = k1 + s * (2.0 * k2 + s * 3.0 * k3)
    d_under = k4 + s * (2.0 * k5 + s * 3.0 * k6)
    q = over / under
    return wp.vec2(r * q, q + 2.0 * s * (d_over - q * d_under) / under)


@wp.func
def fold(lens: wp.array(dtype=float), at: int) -> float:
    """Return the radius (angle) at which the radial distortion stops growing: scan, then halve."""
    model = lens[at + _MODEL]
    if model == float(_PINHOLE):
        return _UNLIMITED
    fisheye = model == float(_FISHEYE)
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
        value = radial(lens, at, r)
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
        value = radial(lens, at, r)
        if value[1] > 0.0 and value[0] >= last:
            low = middle
        else:
            high = middle
    if fisheye:
        return low
    return wp.tan(low)


@wp.func
def undistort_radius(lens: wp.array(dtype=float), at: int, distorted: float) -> float:
    """Return the radius (angle) that is distorted to this one, -1 if there is none."""
    low = float(0.0)
    high = lens[at + _LIMIT]
    if high < 0.5 * _UNLIMITED:
        if radial(lens, at, high)[0] < distorted:
            return -1.0
    else:
        high = distorted
        for _i in range(64):
            if radial(lens, at, high)[0] >= distorted:
                break
            low = high
            high = 2.0 * high
    r = wp.clamp(distorted, low, high)
    for _i in range(_MAX_ITERATIONS):
        value = radial(lens, at, r)
        error = value[0] - distorted
        if error > 0.0:
            high = r
        else:
            low = r
        following = r - error / value[1]
        if not (following >= low and following <= high):
            following = 0.5 * (low + high)
        step = wp.abs(following - r)
        r = following
        if step <= _EPSILON * r:
            break
    return r


@wp.func
def distort(lens: wp.array(dtype=float), at: int, p: wp.vec2) -> wp.vec2:
    """Perspective: return the distorted image point of p = (X / Z, Y / Z)."""
    x, y = p[0], p[1]
    s = x * x + y * y
    p1, p2 = lens[at + _P1], lens[at + _P2]
    over = 1.0 + s * (lens[at + _K1] + s * (lens[at + _K1 + 1] + s * lens[at + _K1 + 2]))
    under = 1.0 + s * (lens[at + _K1 + 3] + s * (lens[at + _K1 + 4] + s * lens[at + _K1 + 5]))
    q = over / under
    return wp.vec2(
        q * x + 2.0 * p1 * x * y + p2 * (s + 2.0 * x * x),
        q * y + p1 * (s + 2.0 * y * y) + 2.0 * p2 * x * y,
    )


@wp.func
def distort_jacobian(lens: wp.array(dtype=float), at: int, p: wp.vec2) -> wp.mat22:
    """Perspective: return the derivative of ``distort`` by p."""
    x, y = p[0], p[1]
    s = x * x + y * y
    k1, k2, k3 = lens[at + _K1], lens[at + _K1 + 1], lens[at + _K1 + 2]
    k4, k5, k6 = lens[at + _K1 + 3], lens[at + _K1 + 4], lens[at + _K1 + 5]
    p1, p2 = lens[at + _P1], lens[at + _P2]
    under = 1.0 + s * (k4 + s * (k5 + s * k6))
    q = (1.0 + s * (k1 + s * (k2 + s * k3))) / under
    slope = k1 + s * (2.0 * k2 + s * 3.0 * k3) - q * (k4 + s * (2.0 * k5 + s * 3.0 * k6))
    dq = 2.0 * slope / under  # dq/dx = dq * x
    cross = dq * x * y + 2.0 * (p1 * x + p2 * y)
    return wp.mat22(
        q + dq * x * x + 2.0 * p1 * y + 6.0 * p2 * x,
        cross,
        cross,
        q + dq * y * y + 6.0 * p1 * y + 2.0 * p2 * x,
    )


@wp.func
def undistort(lens: wp.array(dtype=float), at: int, m: wp.vec2) -> wp.vec3:
    """Perspective: return (x, y, 1) with distort(x, y) = m, or zeros if there is none."""
    model = lens[at + _MODEL]
    if model == float(_PINHOLE):
        return wp.vec3(m[0], m[1], 1.0)
    distorted = wp.length(m)
    limit = lens[at + _LIMIT]
    r = undistort_radius(lens, at, distorted)
    if model != float(_TANGENTIAL):
        if r < 0.0:
            return wp.vec3()
        scale = float(1.0)
        if distorted > 0.0:
            scale = r / distorted
        return wp.vec3(m[0] * scale, m[1] * scale, 1.0)
    if r < 0.0:
        r = 0.999 * limit  # tangential distortion may still reach beyond the radial one
    p = m
    if distorted > 0.0:
        p = m * (r / distorted)
    for _i in range(_MAX_ITERATIONS):
        j = distort_jacobian(lens, at, p)
        det = wp.determinant(j)
        if not det > 0.0:
            return wp.vec3()
        error = distort(lens, at, p) - m
        step = wp.vec2(
            (j[1, 1] * error[0] - j[0, 1] * error[1]) / det,
            (j[0, 0] * error[1] - j[1, 0] * error[0]) / det,
        )
        p = p - step
        if wp.length(step) <= _EPSILON * wp.length(p):
            break
    residual = wp.length(distort(lens, at, p) - m)
    if not (residual <= 1.0e-5 * (1.0 + distorted) and wp.length(p) <= limit):
        return wp.vec3()
    if not wp.determinant(distort_jacobian(lens, at, p)) > 0.0:
        return wp.vec3()
    return wp.vec3(p[0], p[1], 1.0)


@wp.func
def unproject(lens: wp.array(dtype=float), row: int, u: float, v: float) -> wp.vec3:
    """Return the unit direction of a pixel in the camera's axes (OpenGL's); zeros: it has none."""
    at = row * _N
    m = wp.vec2(
        (u - lens[at + _CX]) / lens[at + _FX],
        (v - lens[at + _CY]) / lens[at + _FY],
    )
    if lens[at + _MODEL] != float(_FISHEYE):
        p = undistort(lens, at, m)
        return wp.normalize(wp.vec3(p[0], -p[1], -p[2]))
    distorted = wp.length(m)
    theta = undistort_radius(lens, at, distorted)
    if theta < 0.0:
        return wp.vec3()
    scale = float(1.0)
    if distorted > 0.0:
        scale = wp.sin(theta) / distorted
    return wp.normalize(wp.vec3(scale * m[0], -scale * m[1], -wp.cos(theta)))


@wp.func
def project(lens: wp.array(dtype=float), row: int, p: wp.vec3) -> wp.vec3:
    """Return (u, v, 1) of a point in the camera's axes, or zeros if the lens cannot see it."""
    at = row * _N
    m = wp.vec2()
    if lens[at + _MODEL] == float(_FISHEYE):
        side = wp.sqrt(p[0] * p[0] + p[1] * p[1])
        theta = wp.atan2(side, -p[2])
        if theta > lens[at + _LIMIT]:
            return wp.vec3()
        if side > 0.0:
            r = radial(lens, at, theta)[0] / side
            m = wp.vec2(p[0] * r, -p[1] * r)
    else:
        if p[2] >= 0.0:
            return wp.vec3()
        q = wp.vec2(-p[0] / p[2], p[1] / p[2])
        if wp.length(q) > lens[at + _LIMIT]:
            return wp.vec3()
        m = distort(lens, at, q)
    return wp.vec3(
        lens[at + _FX] * m[0] + lens[at + _CX], lens[at + _FY] * m[1] + lens[at + _CY], 1.0
    )


@wp.func
def in_picture(lens: wp.array(dtype=float), row: int, pixel: wp.vec3) -> bool:
    """Return whether ``project`` found a place in the picture."""
    at = row * _N
    if pixel[2] == 0.0:
        return False
    return (
        pixel[0] >= 0.0
        and pixel[1] >= 0.0
        and pixel[0] <= lens[at + _WIDTH]
        and pixel[1] <= lens[at + _HEIGHT]
    )


@wp.func
def lens_gradient(
    lens: wp.array(dtype=float), row: int, d: wp.vec3, g: wp.vec3
) -> lens_vector:
    """Return the gradient of g . direction by the first columns of the lens, at one pixel.

    The pixel is the one whose direction is d, a unit vector in the camera's axes. From
    F(x, lens) = m(lens): dx = J^-1 (dm - dF/dlens), so with lambda = J^-T g each derivative is
    lambda . (dm - dF).
    """
    at = row * _N
    fx, fy = lens[at + _FX], lens[at + _FY]
    out = lens_vector()
    dual = wp.vec2()  # lambda: by the image point m
    m = wp.vec2()
    if lens[at + _MODEL] == float(_FISHEYE):
        side = wp.sqrt(d[0] * d[0] + d[1] * d[1])
        theta = wp.atan2(side, -d[2])
        if side < 1.0e-6:
            dual = wp.vec2(g[0], -g[1])
        else:
            e = wp.vec2(d[0] / side, -d[1] / side)
            value = radial(lens, at, theta)
            by_theta = -d[2] * (g[0] * e[0] - g[1] * e[1]) + side * g[2]
            by_turn = -side * (g[0] * e[1] + g[1] * e[0])
            along = by_theta / value[1]
            across = by_turn / value[0]
            dual = wp.vec2(e[0] * along - e[1] * across, e[1] * along + e[0] * across)
            m = e * value[0]
            power = theta
            for i in range(4):
                power *= theta * theta
                out[_K1 + i] = -along * power
    else:
        z = -1.0 / d[2]
        p = wp.vec2(d[0] * z, -d[1] * z)
        h = (g - d * wp.dot(d, g)) / z
        j = distort_jacobian(lens, at, p)
        det = wp.determinant(j)
        # j is symmetric
        dual = wp.vec2(
            (j[1, 1] * h[0] + j[0, 1] * h[1]) / det, (-j[0, 0] * h[1] - j[1, 0] * h[0]) / det
        )
        m = distort(lens, at, p)
        x, y = p[0], p[1]
        s = x * x + y * y
        under = 1.0 + s * (lens[at + _K1 + 3] + s * (lens[at + _K1 + 4] + s * lens[at + _K1 + 5]))
        over = 1.0 + s * (lens[at + _K1] + s * (lens[at + _K1 + 1] + s * lens[at + _K1 + 2]))
        along = -(dual[0] * x + dual[1] * y) / under
        power = float(1.0)
        for i in range(3):
            power *= s
            out[_K1 + i] = along * power
            out[_K1 + 3 + i] = -along * power * over / under
        out[_P1] = -(dual[0] * 2.0 * x * y + dual[1] * (s + 2.0 * y * y))
        out[_P2] = -(dual[0] * (s + 2.0 * x * x) + dual[1] * 2.0 * x * y)
    out[_FX] = -dual[0] * m[0] / fx
    out[_FY] = -dual[1] * m[1] / fy
    out[_CX] = -dual[0] / fx
    out[_CY] = -dual[1] / fy
    return out

"""Lenses in float64: OpenCV's equations as they are documented, inverted by continuation.

Twin of ngp_warp/kernels/lens.py and ngp_warp/rays/lenses.py: the coefficients grow from 0 to their
values in steps, the undistorted point follows by Newton's method with a numerical Jacobian. That
finds the branch that begins at the middle of the picture without knowing where it folds.
"""

import numpy as np

STEPS = 24


def coefficients(lens):
    """k1 to k6, p1, p2."""
    return np.array(
        [lens.k1, lens.k2, lens.k3, lens.k4, lens.k5, lens.k6, lens.p1, lens.p2], np.float64
    )


def distort(k, x, y):
    """cv::projectPoints, distCoeffs (k1, k2, p1, p2, k3, k4, k5, k6)."""
    k1, k2, k3, k4, k5, k6, p1, p2 = k
    r2 = x**2 + y**2
    ratio = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return np.array(
        [
            x * ratio + 2 * p1 * x * y + p2 * (r2 + 2 * x**2),
            y * ratio + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y,
        ]
    )


def distort_angle(k, theta):
    """cv::fisheye."""
    return theta * (1 + k[0] * theta**2 + k[1] * theta**4 + k[2] * theta**6 + k[3] * theta**8)


def project(lens, point):
    """Pixel of a point in OpenGL's camera axes."""
    x, y, z = point[0], -point[1], -point[2]
    k = coefficients(lens)
    if lens.fisheye:
        r = np.hypot(x, y)
        theta = np.arctan2(r, z)
        image = np.array([x, y]) / r * distort_angle(k, theta)
    else:
        image = distort(k, x / z, y / z)
    return image * [lens.fx, lens.fy] + [lens.cx, lens.cy]


def solve(f, x):
    """Newton's method with central differences."""
    for _ in range(30):
        h = 1e-6
        jacobian = np.stack(
            [(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))], axis=1
        )
        x = x - np.linalg.solve(jacobian, f(x))
    return x


def unproject(lens, pixel):
    """Unit direction of a pixel in OpenGL's camera axes."""
    m = (np.asarray(pixel, np.float64) - [lens.cx, lens.cy]) / [lens.fx, lens.fy]
    k = coefficients(lens)
    if lens.fisheye:
        theta = np.array([np.hypot(*m)])
        for share in np.linspace(0, 1, STEPS):
            theta = solve(lambda t, s=share: distort_angle(s * k, t) - np.hypot(*m), theta)
        e = m / np.hypot(*m)
        return np.array([np.sin(theta[0]) * e[0], -np.sin(theta[0]) * e[1], -np.cos(theta[0])])
    p = m
    for share in np.linspace(0, 1, STEPS):
        p = solve(lambda q, s=share: distort(s * k, *q) - m, p)
    v = np.array([p[0], -p[1], -1.0])
    return v / np.linalg.norm(v)

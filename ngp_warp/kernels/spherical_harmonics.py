"""Real spherical harmonics of directions, as polynomials of their coordinates.

Source: recurrences of the associated Legendre functions (Abramowitz and Stegun 1964, section 8.5),
with the sign (-1)^m of Condon and Shortley: Y_1 = 0.4886 (-y, z, -x). Row l^2 + l + m holds band l,
order m: N_lm P_l^m(z) times the imaginary (m < 0) or real part of (x + i y)^|m|, where P lacks its
factor (1 - z^2)^(|m| / 2). Differentiable in the direction, which need not be a unit vector.
Twin: tests/reference/spherical_harmonics.py.
"""

import math

import numpy as np
import warp as wp

from ngp_warp.launch import module_options

wp.set_module_options(module_options())

MAX_BANDS = 8


def norm(band: int, m: int) -> float:
    """Return N_lm of 0 <= m <= l."""
    ratio = math.factorial(band - m) / math.factorial(band + m)
    return math.sqrt((2 if m else 1) * (2 * band + 1) / (4 * math.pi) * ratio)


def norms() -> np.ndarray:
    """Return N_lm of |m| <= l, float32 [64], at l * 8 + |m|."""
    values = np.zeros((MAX_BANDS, MAX_BANDS))
    for band in range(MAX_BANDS):
        for m in range(band + 1):
            values[band, m] = norm(band, m)
    return values.astype(np.float32).reshape(-1)


@wp.kernel
def harmonics_kernel(
    begin: int,
    # in
    direction: wp.array[float],  # [n * 3]
    norm: wp.array[float],  # [64]
    n_bands: int,  # 1 to 8
    count: wp.array[int],  # [1]: directions that count, or empty: all
    # out
    rows: wp.array[float],  # [n * n_bands^2]
):
    """All harmonics of one direction."""
    i = begin + wp.tid()
    if count.shape[0] > 0:  # noqa: SIM102 - Warp reads both sides of an "and"
        if i >= count[0]:
            return
    x = direction[i * 3]
    y = direction[i * 3 + 1]
    z = direction[i * 3 + 2]
    first = i * n_bands * n_bands
    real = float(1.0)
    imaginary = float(0.0)
    diagonal = float(1.0)
    for m in range(n_bands):
        before = float(0.0)
        p = float(diagonal)
        for band in range(m, n_bands):
            value = norm[band * 8 + m] * p
            at = first + band * band + band
            rows[at + m] = value * real
            if m > 0:
                rows[at - m] = value * imaginary
            l1 = float(band + 1)
            after = ((2.0 * l1 - 1.0) * z * p - (l1 + float(m) - 1.0) * before) / (l1 - float(m))
            before = p
            p = after
        diagonal = -diagonal * float(2 * m + 1)
        r = real * x - imaginary * y
        imaginary = real * y + imaginary * x
        real = r


@wp.func
def harmonics_gradient(
    d: wp.vec3,
    norm: wp.array[float],  # [64]
    n_bands: int,
    d_rows: wp.array[float],
    first: int,
):
    """Sum over the rows of d_rows[first + row] times the gradient of the row in d."""
    z = d[2]
    gx = float(0.0)
    gy = float(0.0)
    gz = float(0.0)
    # (x + i y)^m, and the power before, whose multiples are its derivatives
    real = float(1.0)
    imaginary = float(0.0)
    real_before = float(0.0)
    imaginary_before = float(0.0)
    diagonal = float(1.0)
    for m in range(n_bands):
        before = float(0.0)
        p = float(diagonal)
        slope_before = float(0.0)
        slope = float(0.0)
        for band in range(m, n_bands):
            at = first + band * band + band
            n = norm[band * 8 + m]
            dr = n * d_rows[at + m]
            di = float(0.0)
            if m > 0:
                di = n * d_rows[at - m]
            fm = float(m)
            gx += p * fm * (dr * real_before + di * imaginary_before)
            gy += p * fm * (di * real_before - dr * imaginary_before)
            gz += slope * (dr * real + di * imaginary)
            l1 = float(band + 1)
            a = 2.0 * l1 - 1.0
            b = l1 + fm - 1.0
            after = (a * z * p - b * before) / (l1 - fm)
            slope_after = (a * (p + z * slope) - b * slope_before) / (l1 - fm)
            before = p
            p = after
            slope_before = slope
            slope = slope_after
        diagonal = -diagonal * float(2 * m + 1)
        real_before = real
        imaginary_before = imaginary
        real = real_before * d[0] - imaginary_before * d[1]
        imaginary = real_before * d[1] + imaginary_before * d[0]
    return wp.vec3(gx, gy, gz)


@wp.kernel
def harmonics_gradient_kernel(
    begin: int,
    # in
    direction: wp.array[float],  # [n * 3]
    norm: wp.array[float],  # [64]
    n_bands: int,
    d_rows: wp.array[float],  # [n * n_bands^2]
    # out
    d_direction: wp.array[float],  # [n * 3]
):
    """Gradient of a direction from those of its harmonics."""
    i = begin + wp.tid()
    d = wp.vec3(direction[i * 3], direction[i * 3 + 1], direction[i * 3 + 2])
    g = harmonics_gradient(d, norm, n_bands, d_rows, i * n_bands * n_bands)
    for axis in range(3):
        d_direction[i * 3 + axis] = g[axis]

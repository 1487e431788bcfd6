"""Spherical harmonics as polynomials, in float64. Twin of ngp_warp/kernels/harmonics.py.

Another definition than the kernels': derivatives of Legendre's polynomials instead of a recurrence.
"""

from math import factorial, pi, sqrt

import numpy as np
from numpy.polynomial import legendre


class Harmonics:
    """Of x [n, 3] in the unit cube, which stands for directions 2 x - 1 of any length."""

    n_params, n_dims = 0, 3

    def __init__(self, n_bands):
        self.n_bands = n_bands

    def _rows(self, x):
        """Yield (row, values [n], gradient in x [n, 3])."""
        d = 2 * np.asarray(x, np.float64) - 1
        w = d[:, 0] + 1j * d[:, 1]
        for band in range(self.n_bands):
            for m in range(-band, band + 1):
                k = abs(m)
                series = (
                    legendre.Legendre.basis(band).deriv(k) if k else legendre.Legendre.basis(band)
                )
                norm = sqrt((2 if m else 1) * (2 * band + 1) / (4 * pi))
                norm *= sqrt(factorial(band - k) / factorial(band + k)) * (-1) ** k
                part = np.imag if m < 0 else np.real
                p, slope = norm * series(d[:, 2]), norm * series.deriv()(d[:, 2])
                power, before = w**k, k * w ** max(k - 1, 0)
                gradient = [p * part(before), p * part(1j * before), slope * part(power)]
                yield band * band + band + m, p * part(power), 2 * np.stack(gradient, axis=1)

    def forward(self, x, params):
        del params
        return np.stack([v for _, v, _ in sorted(self._rows(x), key=lambda r: r[0])], axis=1)

    def backward(self, x, params, dy):
        del params
        return sum(dy[:, row, None] * gradient for row, _, gradient in self._rows(x)), np.zeros(0)

"""Real spherical harmonics from SciPy's complex ones. Twin of kernels/spherical_harmonics.py.

Another definition than the kernels': angles instead of polynomials, so unit vectors only.
"""

import numpy as np
from scipy.special import sph_harm_y


def harmonics(directions, n_bands):
    """Rows [n, n_bands^2] at l^2 + l + m of unit vectors [n, 3]."""
    x, y, z = np.asarray(directions, np.float64).T
    theta, phi = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    rows = []
    for band in range(n_bands):
        for m in range(-band, band + 1):
            complex_value = sph_harm_y(band, abs(m), theta, phi)
            part = complex_value.imag if m < 0 else complex_value.real
            rows.append(part * (np.sqrt(2) if m else 1))
    return np.stack(rows, axis=1)

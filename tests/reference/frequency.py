"""Frequency encoding in float64. Twin of ngp_warp/kernels/frequency.py."""

import numpy as np


def encode(x, n_frequencies, identity=True):
    """Return [n, n_dims * (2 n_frequencies + identity)] of x [n, n_dims]."""
    x = np.asarray(x, np.float64)
    rows = [x] if identity else []
    for k in range(n_frequencies):
        rows += [np.sin(2.0**k * np.pi * x), np.cos(2.0**k * np.pi * x)]
    return np.hstack(rows)


def input_gradient(x, dy, n_frequencies, identity=True):
    """Return dL/dx [n, n_dims] of dL/dy."""
    x, dy = np.asarray(x, np.float64), np.asarray(dy, np.float64)
    n_dims = x.shape[1]
    parts = np.split(dy, dy.shape[1] // n_dims, axis=1)
    dx = parts.pop(0).copy() if identity else np.zeros_like(x)
    for k in range(n_frequencies):
        w = 2.0**k * np.pi
        dx += w * (parts[2 * k] * np.cos(w * x) - parts[2 * k + 1] * np.sin(w * x))
    return dx

"""Point-major and blocked arrays, by the definition. Twin of ngp_warp/kernels/layout.py."""

import numpy as np


def to_blocked(points):
    """[n, n_rows] to [n_blocks, n_rows, 32]; the padding repeats point 0."""
    n, n_rows = points.shape
    blocked = np.empty((-(-n // 32), n_rows, 32), points.dtype)
    for i in range(len(blocked) * 32):
        for r in range(n_rows):
            blocked[i // 32, r, i % 32] = points[i if i < n else 0, r]
    return blocked


def from_blocked(blocked, n):
    """[n_blocks, n_rows, 32] to [n, n_rows]."""
    points = np.empty((n, blocked.shape[1]), blocked.dtype)
    for i in range(n):
        for r in range(blocked.shape[1]):
            points[i, r] = blocked[i // 32, r, i % 32]
    return points

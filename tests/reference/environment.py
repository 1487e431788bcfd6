"""The environment map in float64. Twin of primitives/nerf/kernels/environment.py."""

import numpy as np


def corners(direction, width, height):
    """Four (row, column, weight) whose weights sum to 1."""
    x, y, z = np.asarray(direction, np.float64) / np.linalg.norm(direction)
    column = (np.arctan2(y, x) / (2 * np.pi) + 0.5) * width - 0.5
    row = np.clip((0.5 - np.arcsin(np.clip(z, -1, 1)) / np.pi) * height - 0.5, 0, height - 1)
    c, r = int(np.floor(column)), min(int(row), height - 1)
    u, v = column - c, row - r
    below = min(r + 1, height - 1)
    return [
        (r, c % width, (1 - v) * (1 - u)),
        (r, (c + 1) % width, (1 - v) * u),
        (below, c % width, v * (1 - u)),
        (below, (c + 1) % width, v * u),
    ]


def color(texels, direction, color_space):
    """Colour [3] of texels [height, width, 3] in a direction."""
    height, width, _ = texels.shape
    x = sum(w * texels[r, c] for r, c, w in corners(direction, width, height))
    return 1 / (1 + np.exp(-x)) if color_space == "srgb" else np.logaddexp(0, x)


def gradient(texels, directions, d_colors, color_space):
    """Gradient of sum(d_colors * colors) by the texels."""
    height, width, _ = texels.shape
    out = np.zeros_like(texels)
    for direction, d in zip(directions, d_colors, strict=True):
        y = color(texels, direction, color_space)
        slope = y * (1 - y) if color_space == "srgb" else 1 - np.exp(-y)
        for r, c, w in corners(direction, width, height):
            out[r, c] += w * slope * d
    return out

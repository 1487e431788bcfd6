"""Refined cameras in float64. Twin of primitives/nerf/kernels/refine.py.

Rotations are the matrix exponential as scipy computes it; gradients are central differences of the
sum of g_origin . origin + g_direction . direction over rays, through lenses and poses.
"""

from dataclasses import replace

import numpy as np
from scipy.linalg import expm

NAMES = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


def cross_matrix(w):
    """Return [w]x."""
    return np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]], np.float64)


def pose(first, parameters, unit, pivot=(0.5, 0.5, 0.5)):
    """Pose [3, 4] of a first one and its six parameters."""
    turn = expm(cross_matrix(parameters[:3]))
    centre = pivot + turn @ (first[:, 3] - pivot) + unit * np.asarray(parameters[3:])
    return np.column_stack([turn @ first[:, :3], centre])


def lens(first, p):
    """Lens of a first one and its twelve parameters."""
    return replace(
        first,
        fx=first.fx * np.exp(p[0] + p[1] / 2),
        fy=first.fy * np.exp(p[0] - p[1] / 2),
        cx=first.cx + first.fx * p[2],
        cy=first.cy + first.fy * p[3],
        **{name: getattr(first, name) + p[4 + i] for i, name in enumerate(NAMES)},
    )


def value(pose_, lens_, pixels, g_origin, g_direction):
    """Sum of g . ray over the pixels of a view."""
    directions = lens_.unproject(pixels) @ pose_[:, :3].T
    return float((g_origin @ pose_[:, 3]).sum() + (g_direction * directions).sum())


def gradient(f, x, h=1e-6):
    """Central differences of f at x."""
    return np.array([(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))])


def exposures(parameters):
    """Less their mean over the views."""
    return parameters - parameters.mean(axis=0)

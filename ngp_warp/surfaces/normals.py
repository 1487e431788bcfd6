"""Normals of a mesh's vertices, from the field or from the faces."""

from collections.abc import Callable
from typing import Any

import numpy as np

Gradient = Callable[[np.ndarray], Any]
"""float32 points [n, 3] -> the field's gradients [n, 3] there."""

# At a cube's corner a face's normal is 55 degrees (cosine 0.58) from the mean of all three.
_AGREEMENT = 0.5
_AT_ONCE = 1 << 18


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the normals float32 [n, 3] of vertices: the mean of their faces', weighted by area.

    Where they cancel, along z.

    Args:
        vertices: [n, 3].
        faces: [m, 3], anticlockwise seen from outside.
    """
    total = np.zeros((len(vertices), 3))
    for begin in range(0, len(faces), _AT_ONCE):
        corners = faces[begin : begin + _AT_ONCE]
        a, b, c = (vertices[corners[:, i]] for i in range(3))
        normals = np.cross(b - a, c - a)
        for axis in range(3):
            weights = np.repeat(normals[:, axis], 3)
            total[:, axis] += np.bincount(corners.ravel(), weights, minlength=len(vertices))
    normals = _normalised(total)
    normals[~np.any(normals, axis=1)] = (0.0, 0.0, 1.0)
    return normals


def gradient_normals(vertices: np.ndarray, faces: np.ndarray, gradient: Gradient) -> np.ndarray:
    """Return the normals float32 [n, 3] of vertices from the field's gradient.

    A learned gradient is now and then wrong, and where the box cuts a body the field knows nothing
    of the cut: where the gradient is more than 60 degrees from the faces' normal, the faces' is
    taken.

    Args:
        vertices: [n, 3], where the field is defined.
        faces: [m, 3].
        gradient: float32 points [n, 3] -> [n, 3].
    """
    result = face_normals(vertices, faces)
    for begin in range(0, len(vertices), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        found = np.asarray(gradient(vertices[part].astype(np.float32)), np.float32)
        analytic = _normalised(found.reshape(-1, 3))
        agree = np.einsum("ij,ij->i", analytic, result[part]) > _AGREEMENT
        result[part][agree] = analytic[agree]
    return result


def _normalised(vectors: np.ndarray) -> np.ndarray:
    """Return unit vectors float32; zero for what has no direction."""
    vectors = np.where(np.isfinite(vectors), vectors, 0.0)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1.0)).astype(np.float32)

"""Signed distances by brute force in float64. Twin of primitives/sdf/kernels/distance.py."""

import numpy as np


def _dot(a, b):
    return (a * b).sum(axis=-1)


def distance(vertices, faces, points):
    """Unsigned distances [n]: to the planes where the foot lies inside, else to the edges."""
    a, b, c = np.moveaxis(np.asarray(vertices, np.float64)[faces], 1, 0)
    p = np.asarray(points, np.float64)[:, None]
    normal = np.cross(b - a, c - a)
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    inside = np.ones((len(points), len(faces)), bool)
    best = np.full((len(points), len(faces)), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        inside &= _dot(np.cross(normal, edge), p - start) >= 0
        t = np.clip(_dot(p - start, edge) / _dot(edge, edge), 0, 1)
        best = np.minimum(best, np.linalg.norm(p - start - t[..., None] * edge, axis=2))
    plane = np.abs(_dot(p - a, normal))
    return np.where(inside, np.minimum(best, plane), best).min(axis=1)


def winding_number(vertices, faces, points):
    """Sum of the faces' solid angles over 4 pi (Van Oosterom and Strackee 1983), [n]."""
    p = np.asarray(points, np.float64)[:, None]
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, k]] - p for k in range(3))
    la, lb, lc = (np.linalg.norm(v, axis=2) for v in (a, b, c))
    below = la * lb * lc + _dot(a, b) * lc + _dot(b, c) * la + _dot(c, a) * lb
    return np.arctan2(_dot(a, np.cross(b, c)), below).sum(axis=1) / (2 * np.pi)


def enclosed(vertices, faces, points, directions):
    """Whether no ray from a point along any of the directions misses all faces, [n]."""
    a, b, c = np.moveaxis(np.asarray(vertices, np.float64)[faces], 1, 0)
    result = np.ones(len(points), bool)
    for direction in np.asarray(directions, np.float64):
        # Moeller and Trumbore 1997
        h = np.cross(direction, c - a)
        det = _dot(b - a, h)
        s = np.asarray(points, np.float64)[:, None] - a
        u = _dot(s, h) / det
        q = np.cross(s, b - a)
        v, t = q @ direction / det, _dot(q, c - a) / det
        result &= ((u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0)).any(axis=1)
    return result


def box_distance(points, low, high):
    """Signed distance to an axis-aligned box."""
    q = np.abs(np.asarray(points, np.float64) - (low + high) / 2) - (high - low) / 2
    outside = np.linalg.norm(np.maximum(q, 0), axis=1)
    return outside + np.minimum(q.max(axis=1), 0)

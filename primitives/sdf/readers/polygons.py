"""Polygons to triangles: fans where they are right, clipped ears where they are not."""

import numpy as np

from ngp_warp.errors import DataError


def triangulate(
    corners: np.ndarray, counts: np.ndarray, vertices: np.ndarray
) -> tuple[np.ndarray, int]:
    """Divide polygons into triangles that keep their winding.

    Args:
        corners: int64 [sum(counts)], the vertices of one polygon after the other.
        counts: int64 [m], corners of each polygon.
        vertices: float64 [n, 3].

    Returns:
        int64 [t, 3], in the order of the polygons, and how many had more than three corners.

    Raises:
        DataError: a corner is not among the vertices, or a polygon has fewer than three.
    """
    if corners.size and (corners.min() < 0 or corners.max() >= len(vertices)):
        wrong = int(corners.min() if corners.min() < 0 else corners.max())
        raise DataError(
            f"a face names vertex {wrong} (counted from 0), and there are {len(vertices)}"
        )
    if counts.size and counts.min() < 3:
        face = int(counts.argmin())
        raise DataError(f"face {face} (counted from 0) has {counts[face]} corners, not 3 or more")
    if not counts.size or counts.max() == 3:
        return corners.reshape(-1, 3), 0
    # where each polygon's corners and triangles begin
    first = np.concatenate([[0], np.cumsum(counts)])
    before = np.concatenate([[0], np.cumsum(counts - 2)])
    owner = np.repeat(np.arange(len(counts)), counts - 2)
    # a fan about each polygon's first corner
    step = np.arange(len(owner)) - before[owner] + first[owner]
    faces = corners[np.stack([first[owner], step + 1, step + 2], axis=1)]
    for n in _folded(faces, owner, counts, vertices):
        ring = corners[first[n] : first[n + 1]]
        faces[before[n] : before[n + 1]] = _clip_ears(ring, vertices)
    return faces, int((counts > 3).sum())


def _folded(
    faces: np.ndarray, owner: np.ndarray, counts: np.ndarray, vertices: np.ndarray
) -> np.ndarray:
    """Return the polygons whose fan has a triangle that turns against the polygon's own normal."""
    with np.errstate(all="ignore"):  # what is not finite is refused later, with its own words
        a, b, c = (vertices[faces[:, i]] for i in range(3))
        normals = np.cross(b - a, c - a)
        sums = [np.bincount(owner, normals[:, i], len(counts)) for i in range(3)]
        along = (normals * np.stack(sums, axis=1)[owner]).sum(axis=1)
        limit = -1e-9 * (normals**2).sum(axis=1)  # rounding of float32 coordinates on a line
        return np.unique(owner[along < limit])


def _clip_ears(ring: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Triangulate one simple polygon by clipping ears (Meisters 1975), in the plane of its normal.

    Where it is not simple and has no ear left, the rest becomes a fan.
    """
    points = vertices[ring] - vertices[ring[0]]
    following = np.roll(points, -1, axis=0)
    normal = np.cross(points, following).sum(axis=0)
    axis = int(np.abs(normal).argmax())
    plane = points[:, [(axis + 1) % 3, (axis + 2) % 3]] * (1.0, np.sign(normal[axis]) or 1.0)
    left, ears = list(range(len(ring))), []
    position = 0
    misses = 0
    while len(left) > 3 and misses < len(left):
        i, j, k = (left[(position + d) % len(left)] for d in (-1, 0, 1))
        if _is_ear(plane, i, j, k, left):
            ears.append((i, j, k))
            left.pop(position % len(left))
            misses = 0
        else:
            position += 1
            misses += 1
    ears += [(left[0], left[i], left[i + 1]) for i in range(1, len(left) - 1)]
    return ring[np.array(ears)]


def _is_ear(plane: np.ndarray, i: int, j: int, k: int, left: list[int]) -> bool:
    """Return whether the triangle of three corners turns left and holds none of the others."""
    a, b, c = plane[i], plane[j], plane[k]
    if _turn(a, b, c) <= 0:
        return False
    others = plane[left]
    # A polygon with a hole has its bridge's ends twice: what coincides with a corner is not within.
    others = others[(others[:, None] != plane[[i, j, k]]).any(axis=2).all(axis=1)]
    inside = (_turn(a, b, others) >= 0) & (_turn(b, c, others) >= 0) & (_turn(c, a, others) >= 0)
    return not inside.any()


def _turn(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return twice the signed area of a, b and each point [..., 2]."""
    return (b[0] - a[0]) * (points[..., 1] - a[1]) - (b[1] - a[1]) * (points[..., 0] - a[0])

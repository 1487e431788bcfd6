"""Merging and removal: what a file repeats, leaves unused, or has without any area."""

import numpy as np

from ngp_warp.primitives.sdf.topology import Edges, components

_FLAT = 1e-12
"""Height over longest edge below which a triangle has no area: float64 rounding, not size."""
_SEAM = 1e-7
"""In unit space; float32 has steps of 6e-8 there."""
_MIX = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)  # odd, bits well spread


def group_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find equal rows.

    Args:
        rows: [n, 3] of 64-bit words, compared bit by bit.

    Returns:
        Where each distinct row first stands, ascending [u], and for each row which of them it is
        [n].
    """
    words = np.ascontiguousarray(rows).view(np.uint64)
    # One hash sorts four times as fast as three keys.
    key = words[:, 0] * np.uint64(_MIX[0])
    for column in (1, 2):
        key = (key ^ (key >> np.uint64(29))) * np.uint64(_MIX[column]) + words[:, column]
    order = np.argsort(key, kind="stable")
    new = _changes(words[order])
    if (new[1:] & (key[order][1:] == key[order][:-1])).any():  # two rows of one hash
        order = np.lexsort(words.T)
        new = _changes(words[order])
    first = order[new]
    rank = np.empty(len(first), np.int64)
    ascending = np.argsort(first)
    rank[ascending] = np.arange(len(first))
    group = np.empty(len(rows), np.int64)
    group[order] = rank[np.cumsum(new) - 1]
    return first[ascending], group


def _changes(rows: np.ndarray) -> np.ndarray:
    """Return where a row differs from the one before it; the first always does."""
    return np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])[: len(rows)]


def merge_vertices(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices of exactly one position, keeping the order of their first appearance."""
    first, group = group_rows(vertices + 0.0)  # minus zero becomes zero
    return vertices[first], group[faces]


def find_seams(points: np.ndarray, edges: Edges) -> np.ndarray | None:
    """Pair vertices on open borders that lie closer together than float32 resolves.

    Formats that repeat each corner, and exporters that transform each copy, leave seams of a
    rounding error's width.

    Args:
        points: float64 [n, 3], unit space.
        edges: of the faces.

    Returns:
        int64 [n], equal for vertices to be merged: each with its nearest; where several lie
        together, a second call on the merged may find more. None where there is nothing to merge.
    """
    from scipy.spatial import KDTree

    border = np.flatnonzero(mark(len(points), edges.ends[edges.is_boundary]))
    if len(border) < 2:
        return None
    near = KDTree(points[border]).query(points[border], k=2, distance_upper_bound=_SEAM)[1]
    # Of two at one point, either may come first. Where there is no second, it is out of range.
    index, column = np.nonzero(np.asarray(near) < len(border))
    other = np.asarray(near)[index, column]
    if (index == other).all():
        return None
    return components(len(points), border[index], border[other])


def mark(n: int, indices: np.ndarray) -> np.ndarray:
    """Return which of 0..n-1 are among the indices, bool [n]."""
    marks = np.zeros(n, bool)
    marks[indices] = True
    return marks


def drop_unused(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop vertices that no face names."""
    used = mark(len(vertices), faces)
    if used.all():
        return vertices, faces
    return vertices[used], (np.cumsum(used) - 1)[faces]


def has_three_corners(faces: np.ndarray) -> np.ndarray:
    """Return which faces name three different vertices, [m]."""
    a, b, c = faces.T
    return (a != b) & (b != c) & (c != a)


def first_of_each(faces: np.ndarray) -> np.ndarray:
    """Return the faces, in order, without those that repeat another's vertices, turned or not."""
    return faces[group_rows(np.sort(faces, axis=1))[0]]


def area_vectors(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return each face's normal, as long as its area, [m, 3]."""
    a, b, c = (points[faces[:, i]] for i in range(3))
    b -= a
    c -= a
    vectors = np.empty_like(a)
    for x, y, z in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):  # np.cross takes five times as long
        vectors[:, x] = 0.5 * (b[:, y] * c[:, z] - b[:, z] * c[:, y])
    return vectors


def lengths(vectors: np.ndarray) -> np.ndarray:
    """Return the lengths of vectors [m, 3]."""
    return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


def has_area(points: np.ndarray, faces: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return which faces' corners do not lie on one line, [m]; ``vectors`` by `area_vectors`."""
    longest = np.zeros(len(faces))
    for i in range(3):
        side = points[faces[:, i]] - points[faces[:, i - 1]]
        np.maximum(longest, np.einsum("ij,ij->i", side, side), out=longest)
    return 2 * lengths(vectors) > _FLAT * longest

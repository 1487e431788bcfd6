"""Merging and removal: what a file repeats, leaves unused, or has without any area."""

import numpy as np

_FLAT = 1e-12
"""Height over longest edge below which a triangle has no area: float64 rounding, not size."""
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


def drop_unused(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop vertices that no face names."""
    used = np.zeros(len(vertices), bool)
    used[faces] = True
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


def areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces' areas, [m]."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)


def has_area(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return which faces' corners do not lie on one line, [m]."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    longest = np.max([((q - p) ** 2).sum(axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    return 2 * areas(vertices, faces) > _FLAT * longest

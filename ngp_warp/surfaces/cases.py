"""The 256 cases of marching cubes, derived rather than listed.

Source: Lorensen and Cline, "Marching Cubes", SIGGRAPH 1987; the cases are derived here from two
rules that make the whole surface a closed 2-manifold, which the published table does not:

1. On a face whose corners alternate, inside corners are parted. The rule looks at the face alone,
   so both cells of a face draw the same segments there: no cracks.
2. No diagonal of a triangulation joins two edges of one face. Such a diagonal could coincide with
   one of the neighbouring cell, and four triangles would meet in it. Every case has a
   triangulation of this kind (``tests/test_extract.py``).

A cell's corner i lies at (i & 1, i >> 1 & 1, i >> 2); bit i of a case says that corner i is inside.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

EDGES = tuple((c, c | 1 << axis) for axis in range(3) for c in range(8) if not c >> axis & 1)
"""The corners of each of a cell's 12 edges, the lower one first; four edges along each axis."""

EDGE_AXES = np.repeat(np.arange(3), 4)
"""The axis of each edge."""

EDGE_STARTS = np.array([[c & 1, c >> 1 & 1, c >> 2] for c, _ in EDGES])
"""[12, 3]: the lower corner of each edge."""

Polygon = tuple[int, ...]
Triangle = tuple[int, int, int]


@dataclass(frozen=True)
class Cases:
    """The triangles of all cases, one case after another."""

    triangles: np.ndarray
    """uint8 [n, 3]: the edges on which the corners lie, anticlockwise seen from outside."""
    begins: np.ndarray
    """int64 [256]: the first triangle of each case."""
    counts: np.ndarray
    """int64 [256]: the number of triangles of each case."""


def _faces() -> list[tuple[int, ...]]:
    """Return the corners of the six faces, anticlockwise seen from outside the cell."""
    faces = []
    for axis in range(3):
        u, v = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        corners = (0, u, u | v, v)
        faces.append(tuple(c | 1 << axis for c in corners))
        faces.append(corners[::-1])
    return faces


_FACES = _faces()
_EDGE_OF = {frozenset(corners): edge for edge, corners in enumerate(EDGES)}


@functools.cache
def table() -> Cases:
    """Return the triangles of all cases."""
    triangles, counts = [], []
    for case in range(256):
        found = [t for polygon in polygons(case) for t in triangulate(polygon)]
        triangles += found
        counts.append(len(found))
    n = np.array(counts)
    return Cases(np.array(triangles, np.uint8), np.cumsum(n) - n, n)


def polygons(case: int) -> list[Polygon]:
    """Return the polygons in which the surface cuts a cell, each as the edges it passes."""
    following: dict[int, int] = {}
    for face in _FACES:
        following.update(_segments(face, case))
    found = []
    while following:
        polygon = [min(following)]
        while (edge := following.pop(polygon[-1])) != polygon[0]:
            polygon.append(edge)
        found.append(tuple(polygon))
    return found


def _segments(face: tuple[int, ...], case: int) -> Iterator[tuple[int, int]]:
    """Yield a face's segments from edge to edge, the inside to the right seen from outside."""
    sides = [(a, face[(i + 1) % 4]) for i, a in enumerate(face)]
    inside = [bool(case >> c & 1) for c in face]
    entering = [i for i in range(4) if not inside[i] and inside[(i + 1) % 4]]
    leaving = [i for i in range(4) if inside[i] and not inside[(i + 1) % 4]]
    for i in entering:
        # The next one on: each run of inside corners has a segment of its own.
        out = min(leaving, key=lambda k: (k - i) % 4)
        yield _EDGE_OF[frozenset(sides[i])], _EDGE_OF[frozenset(sides[out])]


def triangulate(polygon: Polygon) -> list[Triangle]:
    """Return triangles of a polygon whose diagonals join no two edges of one face."""
    return next(_triangulations(polygon))


def _triangulations(polygon: Polygon) -> Iterator[list[Triangle]]:
    n = len(polygon)
    if n < 3:
        yield []
        return
    for k in range(1, n - 1):
        if k > 1 and share_face(polygon[0], polygon[k]):
            continue
        if k < n - 2 and share_face(polygon[k], polygon[-1]):
            continue
        for left in _triangulations(polygon[: k + 1]):
            for right in _triangulations(polygon[k:]):
                yield [*left, (polygon[0], polygon[k], polygon[-1]), *right]


def share_face(a: int, b: int) -> bool:
    """Return whether two edges lie on one face of the cell."""
    return any({*EDGES[a], *EDGES[b]} <= set(face) for face in _FACES)

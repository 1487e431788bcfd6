"""Fewer faces for a mesh, closed as it was where that can be had."""

from collections import Counter

import numpy as np

from ngp_warp.errors import ConfigError, DataError
from ngp_warp.surfaces.pieces import is_closed


def decimate(
    vertices: np.ndarray, faces: np.ndarray, n_faces: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mesh of about ``n_faces`` faces, by quadric edge collapse.

    The collapse now and then folds two faces onto each other or lets two sheets share an edge; both
    are mended. Even so the result may be no longer closed: ask ``pieces.is_closed``. A mesh that
    has no more faces than wanted comes back as it is.

    Args:
        vertices: float64 [n, 3].
        faces: int32 [m, 3].
        n_faces: at least 4.

    Returns:
        Vertices float64 and faces int32.

    Raises:
        ConfigError: fewer than 4 faces.
        DataError: a shape that so few faces cannot have.
    """
    from fast_simplification import simplify

    if n_faces < 4:
        raise ConfigError(f"a closed mesh has at least 4 faces, got {n_faces}")
    if n_faces >= len(faces):
        return vertices, faces
    # Far from the origin the quadrics would lose their digits.
    middle = vertices.mean(axis=0)
    points, corners = simplify(vertices - middle, faces, target_count=n_faces)[:2]
    points, corners = points + middle, corners.astype(np.int32)
    if not is_closed(corners):
        points, corners = _split(points, _without_folds(corners))
    if len(corners) < 4:
        raise DataError(f"decimation to {n_faces} faces left {len(corners)}; ask for more faces")
    used, corners = np.unique(corners, return_inverse=True)
    return points[used], corners.reshape(-1, 3).astype(np.int32)


def _without_folds(faces: np.ndarray) -> np.ndarray:
    """Return the faces without those that lie twice on the same three vertices."""
    _, which, counts = np.unique(
        np.sort(faces, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    return faces[counts[which.ravel()] != 2]


def _split(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each fan of faces its own copy of a vertex at an edge of more than two faces."""
    edges = np.sort(faces[:, (0, 1, 1, 2, 2, 0)].reshape(-1, 2), axis=1)
    edges, counts = np.unique(edges, axis=0, return_counts=True)
    faces, added = faces.copy(), []
    for vertex in np.unique(edges[counts > 2]).tolist():
        around = np.flatnonzero(np.any(faces == vertex, axis=1))
        for fan in _fans(faces[around].tolist(), vertex)[1:]:
            rows = around[fan]
            faces[rows] = np.where(faces[rows] == vertex, len(vertices) + len(added), faces[rows])
            added.append(vertices[vertex])
    return np.concatenate([vertices, np.array(added).reshape(-1, 3)]), faces


def _fans(faces: list[list[int]], vertex: int) -> list[list[int]]:
    """Return the faces around a vertex, by number, in groups joined by edges of two faces."""
    rims = [{corner for corner in face if corner != vertex} for face in faces]
    n_faces = Counter(corner for rim in rims for corner in rim)
    fans, left = [], set(range(len(faces)))
    while left:
        fan = [left.pop()]
        for number in fan:
            joined = {corner for corner in rims[number] if n_faces[corner] == 2}
            found = [other for other in left if rims[other] & joined]
            left.difference_update(found)
            fan += found
        fans.append(fan)
    return fans

"""What the sign of a distance depends on: a mesh's edges, and its winding, which is mended.

Source of the winding number: Van Oosterom and Strackee 1983.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ngp_warp.primitives.sdf.clean import group_rows, has_three_corners, mark
from ngp_warp.primitives.sdf.topology import components, find_edges

Sign = Literal["normal", "raystab", "winding"]
SIGNS: tuple[Sign, ...] = ("normal", "raystab", "winding")


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What the choice of a sign method depends on."""

    n_faces: int
    n_boundary_edges: int
    """Edges of one face alone."""
    n_branching_edges: int
    """Edges of three faces or more."""
    n_inconsistent_edges: int
    """Edges whose two faces run through it in one direction."""
    orientable: bool
    """Whether all bodies can be wound consistently across their edges of two faces."""

    @property
    def watertight(self) -> bool:
        """Whether each edge has two faces."""
        return not self.n_boundary_edges and not self.n_branching_edges


def find_topology(faces: np.ndarray) -> Topology:
    """Count a mesh's edges by kind.

    Args:
        faces: int [m, 3], vertices at one place merged.
    """
    n_faces = len(faces)
    faces = faces[distinct_faces(faces)]
    first, second, same, n_faces_of_edge, _ = _neighbours(faces)
    return Topology(
        n_faces=n_faces,
        n_boundary_edges=int((n_faces_of_edge == 1).sum()),
        n_branching_edges=int((n_faces_of_edge > 2).sum()),
        n_inconsistent_edges=int(same.sum()),
        orientable=not _flips(first, second, same, np.ones(len(faces)))[1].any(),
    )


def distinct_faces(faces: np.ndarray) -> np.ndarray:
    """Return a mask [m] of faces of three vertices that no face before has too, in any order."""
    first = group_rows(np.sort(np.asarray(faces, np.int64), axis=1))[0]
    return mark(len(faces), first) & has_three_corners(faces)


def orient_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the faces wound consistently across every edge of two faces.

    A connected body that is consistent stays as it is. Of the others a closed one is turned
    outwards, or inwards where it lies within another and so bounds a cavity; an open one follows
    the larger area; one that cannot be wound consistently stays as it is.

    Args:
        vertices: [n, 3].
        faces: int [m, 3], vertices at one place merged.
    """
    first, second, same, _, rim = _neighbours(faces)
    if not same.any():
        return faces
    flip, twisted, body = _flips(first, second, same, _areas(vertices, faces))
    mended = np.where(flip[:, None], faces[:, ::-1], faces)
    is_open = np.zeros(body.max() + 1, bool)
    is_open[body[rim]] = True
    is_open |= twisted
    for b in np.unique(body[first[same]]):
        if not is_open[b] and _inside_out(vertices, mended, body, b, is_open):
            part = body == b
            mended[part] = mended[part][:, ::-1]
    return mended


def _areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = np.moveaxis(vertices[faces].astype(np.float64), 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)


def _inside_out(
    vertices: np.ndarray, faces: np.ndarray, body: np.ndarray, b: int, is_open: np.ndarray
) -> bool:
    """Whether closed body b is wound the wrong way for the number of closed bodies about it."""
    part = body == b
    a_, b_, c_ = np.moveaxis(vertices[faces[part]].astype(np.float64) - 0.5, 1, 0)
    volume = (a_ * np.cross(b_, c_)).sum()
    largest = np.linalg.norm(np.cross(b_ - a_, c_ - a_), axis=1).argmax()
    point = vertices[faces[part][largest]].astype(np.float64).mean(axis=0)
    others = ~part & ~is_open[body]
    # each counts 1 or -1, however it is wound: the parity is right
    depth = round(winding_number(vertices[faces[others]].astype(np.float64), point))
    return bool((volume < 0) == (depth % 2 == 0))


def winding_number(triangles: np.ndarray, point: np.ndarray) -> float:
    """Return how often triangles, float64 [m, 3, 3], wind about a point: solid angle over 4 pi."""
    a, b, c = np.moveaxis(triangles - point, 1, 0)
    la, lb, lc = (np.linalg.norm(v, axis=1) for v in (a, b, c))
    ab, bc, ca = (a * b).sum(axis=1), (b * c).sum(axis=1), (c * a).sum(axis=1)
    below = la * lb * lc + ab * lc + bc * la + ca * lb
    return float(np.arctan2((a * np.cross(b, c)).sum(axis=1), below).sum() / (2 * np.pi))


def _neighbours(
    faces: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the two faces of each edge of two, and whether both run the same way.

    Also the number of faces of each edge, and the faces at edges of another number than two.
    """
    edges = find_edges(np.asarray(faces, np.int64))
    face = edges.order // 3
    start = edges.start[edges.is_manifold]
    rim = face[np.repeat(~edges.is_manifold, edges.count)]
    same = edges.is_inconsistent[edges.is_manifold]
    return face[start], face[start + 1], same, edges.count, rim


def _flips(
    first: np.ndarray, second: np.ndarray, same: np.ndarray, areas: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which faces to flip, which bodies cannot be wound consistently, and faces' bodies.

    Each face is two nodes, as it is (f) and flipped (f + m). Nodes that go together are joined; a
    body then is two components, mirror images, of which one is chosen; a Moebius strip is one.
    """
    m = len(areas)
    rows = np.concatenate([first, first + m])
    columns = np.concatenate([second + m * same, second + m * ~same])
    component = components(2 * m, rows, columns)
    kept = np.bincount(component[:m], areas, minlength=component.max(initial=-1) + 1)
    as_is, flipped = component[:m], component[m:]
    better = kept[flipped] > kept[as_is]
    tie = (kept[flipped] == kept[as_is]) & (flipped < as_is)
    _, body = np.unique(np.minimum(as_is, flipped), return_inverse=True)
    body = body.reshape(-1)
    twisted = np.zeros(body.max(initial=0) + 1, bool)
    twisted[body[as_is == flipped]] = True
    return better | tie, twisted, body

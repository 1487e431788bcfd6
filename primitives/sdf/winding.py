"""Winding mended: faces turned to agree with their neighbours, bodies turned inside in."""

from dataclasses import dataclass

import numpy as np

from ngp_warp.primitives.sdf.clean import lengths, mark
from ngp_warp.primitives.sdf.topology import Edges, components, find_edges, label_bodies

_SHARES = (0.3183098861837907, 0.4342944819032518)  # 1/pi, log10 e: no mesh has such points
_NO_VOLUME = 1e-9  # of area**1.5: a closed sheet, whose volume is rounding


@dataclass(frozen=True)
class Mended:
    """Faces whose winding was mended, and what was found on the way."""

    points: np.ndarray
    """float64 [n, 3], unit space."""
    faces: np.ndarray
    """int64 [m, 3]."""
    vectors: np.ndarray
    """float64 [m, 3], normals as long as the faces' areas."""
    edges: Edges
    """Their signs may be those before whole bodies were turned."""
    body: np.ndarray
    """int64 [m], the number of each face's body."""
    counts: dict[str, int]
    """``inconsistent_edges`` before, ``turned_faces`` and ``inside_out_bodies``."""


def mend_winding(
    points: np.ndarray, faces: np.ndarray, vectors: np.ndarray, edges: Edges
) -> Mended:
    """Turn faces that disagree with most of their neighbours, and bodies that are inside out.

    Args:
        points: float64 [n, 3], unit space.
        faces: int64 [m, 3].
        vectors: float64 [m, 3], normals as long as the faces' areas.
        edges: of the faces.
    """
    n_inconsistent = int(edges.is_inconsistent.sum())
    minority = find_minority(lengths(vectors), edges)
    if minority.any():
        faces, vectors = turn(faces, minority), np.where(minority[:, None], -vectors, vectors)
        edges = find_edges(faces)
    body = label_bodies(len(faces), edges)
    inside_out = mark(int(body.max()) + 1, find_inside_out(points, faces, vectors, edges, body))
    turned = inside_out[body]
    if turned.any():
        faces, vectors = turn(faces, turned), np.where(turned[:, None], -vectors, vectors)
    mixed = mark(len(inside_out), body[minority])  # inside out only in part
    counts = {
        "inconsistent_edges": n_inconsistent,
        "turned_faces": int((mixed[body] & (minority != turned)).sum()),
        "inside_out_bodies": int((inside_out & ~mixed).sum()),
    }
    return Mended(points, faces, vectors, edges, body, counts)


def turn(faces: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return the faces with those chosen by bool [m] wound the other way."""
    return np.where(which[:, None], faces[:, ::-1], faces)


def find_minority(areas: np.ndarray, edges: Edges) -> np.ndarray:
    """Return the faces that are wound against the larger part of their patch's area, bool [m].

    A patch is what edges of two faces join. Each face is two nodes, as it is and turned; an edge
    joins the nodes that agree. Where both nodes of a face hang together (a Moebius strip), no
    winding agrees everywhere, and nothing is turned.

    Args:
        areas: float64 [m], of the faces.
        edges: of the faces.
    """
    m = len(areas)
    start = edges.start[edges.is_manifold]
    a, b = edges.order[start] // 3, edges.order[start + 1] // 3
    clash = edges.is_inconsistent[edges.is_manifold]
    if not clash.any():
        return np.zeros(m, bool)
    other = np.where(clash, b + m, b)
    opposite = np.where(clash, b, b + m)
    label = components(2 * m, np.concatenate([a, a + m]), np.concatenate([other, opposite]))
    as_is, turned = label[:m], label[m:]
    patch = np.minimum(as_is, turned)
    n = int(label.max()) + 1
    low = np.bincount(patch, np.where(as_is == patch, areas, 0.0), n)
    high = np.bincount(patch, np.where(as_is == patch, 0.0, areas), n)
    against = (as_is == patch) == (low < high)[patch]
    return against & (as_is != turned)


def find_inside_out(
    points: np.ndarray, faces: np.ndarray, vectors: np.ndarray, edges: Edges, body: np.ndarray
) -> np.ndarray:
    """Return the numbers of the closed bodies that are inside out.

    A closed body of negative volume is inside out, unless it is a cavity: inside a body that is
    itself the right way round. What lies inside a body that is inside out is so with it.

    Args:
        points: float64 [n, 3], unit space.
        faces: int64 [m, 3].
        vectors: float64 [m, 3], normals as long as the faces' areas.
        edges: of the faces.
        body: int64 [m], from `label_bodies`.
    """
    n_bodies = int(body.max()) + 1
    volume = body_volumes(points, faces, vectors, body)
    unbalanced = edges.order[edges.start[edges.balance != 0]] // 3
    closed = np.ones(n_bodies, bool)
    closed[body[unbalanced]] = False
    limit = _NO_VOLUME * np.bincount(body, lengths(vectors)) ** 1.5
    negative = closed & (volume < -limit)
    if not negative.any():
        return np.zeros(0, np.int64)
    nest = _Nest(points, faces, body, closed & (np.abs(volume) > limit))
    found = [b for b in np.flatnonzero(closed) if negative[nest.outermost(int(b), negative)]]
    return np.array(found, np.int64)


def body_volumes(
    points: np.ndarray, faces: np.ndarray, vectors: np.ndarray, body: np.ndarray
) -> np.ndarray:
    """Return the signed volume that each body encloses, by the divergence theorem."""
    corners = points[faces[:, 0]] - 0.5  # about the middle: less is lost to rounding
    return np.bincount(body, np.einsum("ij,ij->i", corners, vectors)) / 3.0


class _Nest:
    """Which closed body lies in which."""

    def __init__(
        self, points: np.ndarray, faces: np.ndarray, body: np.ndarray, solid: np.ndarray
    ) -> None:
        order = np.argsort(body, kind="stable")
        self._triangles = points[faces[order]]
        self._start = np.searchsorted(body[order], np.arange(len(solid) + 1))
        begins = self._start[:-1]
        self._low = np.minimum.reduceat(self._triangles.min(axis=1), begins)
        self._high = np.maximum.reduceat(self._triangles.max(axis=1), begins)
        self._size = np.prod(self._high - self._low, axis=1)
        self._solid = solid

    def outermost(self, body: int, negative: np.ndarray) -> int:
        """Return the largest body around one, or itself; itself too where none is negative."""
        within = (self._low < self._low[body]).all(axis=1)
        within &= (self._high > self._high[body]).all(axis=1) & self._solid
        if not (negative[body] or (negative & within).any()):
            return body
        # from the largest: the first that holds it is the outermost
        candidates = np.flatnonzero(within)
        for other in candidates[np.argsort(-self._size[candidates])]:
            if self._holds(int(other), body):
                return int(other)
        return body

    def _holds(self, outer: int, inner: int) -> bool:
        """Return whether a point of one body lies inside another: a ray crosses it oddly often."""
        a, b, c = self._triangles[self._start[inner]]
        point = a + _SHARES[0] * (b - a) + _SHARES[1] * (c - a)
        triangles = self._triangles[self._start[outer] : self._start[outer + 1]]
        flat = triangles[:, :, :2]
        near = (flat.min(axis=1) <= point[:2]).all(axis=1)
        near &= (flat.max(axis=1) >= point[:2]).all(axis=1)
        return int(_crossed(triangles[near], point).sum()) % 2 == 1


def _crossed(triangles: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return which triangles [k, 3, 3] the ray from a point along z crosses, bool [k]."""
    corners = triangles - point
    following = np.roll(corners, -1, axis=1)
    # barycentric weights of the point in the projection, that of corner i + 2 at i
    turns = corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]
    inside = (turns > 0).all(axis=1) | (turns < 0).all(axis=1)
    height = (turns * np.roll(corners[..., 2], 1, axis=1)).sum(axis=1) * np.sign(turns[:, 0])
    return inside & (height > 0)

"""Edges, holes and bodies of a triangle mesh."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Edges:
    """The distinct edges of a mesh; a half-edge is one side of one face, numbered 3 * face + side.

    The half-edges are sorted by edge, so that those of edge i are ``order[start[i]:]``,
    ``count[i]`` of them.
    """

    ends: np.ndarray
    """int64 [e, 2], the lower vertex first."""
    order: np.ndarray
    """int64 [3 m], half-edges."""
    start: np.ndarray
    """int64 [e]."""
    count: np.ndarray
    """int64 [e], faces on the edge."""
    balance: np.ndarray
    """int64 [e], half-edges along the edge minus half-edges against it."""

    @property
    def is_boundary(self) -> np.ndarray:
        """Edges of one face, bool [e]."""
        return self.count == 1

    @property
    def is_manifold(self) -> np.ndarray:
        """Edges of two faces, bool [e]."""
        return self.count == 2

    @property
    def is_inconsistent(self) -> np.ndarray:
        """Edges whose two faces are wound against each other, bool [e]."""
        return self.is_manifold & (self.balance != 0)


def find_edges(faces: np.ndarray) -> Edges:
    """Sort the sides of faces [m, 3] into edges."""
    a = faces.reshape(-1)
    b = faces[:, [1, 2, 0]].reshape(-1)
    n = int(faces.max(initial=0)) + 1
    key = np.minimum(a, b) * n + np.maximum(a, b)  # below 2**62 up to 2**31 vertices
    order = np.argsort(key, kind="stable")
    key = key[order]
    start = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])[: len(key)])
    count = np.diff(start, append=len(key))
    balance = np.add.reduceat(np.where(a < b, 1, -1)[order], start)
    ends = np.stack(np.divmod(key[start], n), axis=1)
    return Edges(ends, order, start, count, balance)


def label_bodies(n_faces: int, edges: Edges) -> np.ndarray:
    """Return for each face the number of its body: faces that edges join, [m]."""
    has_one_before = np.ones(len(edges.order), bool)
    has_one_before[edges.start] = False
    later = np.flatnonzero(has_one_before)
    return components(n_faces, edges.order[later] // 3, edges.order[later - 1] // 3)


def components(n: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the connected component of each of n nodes under the links a - b, [n]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def count_holes(edges: Edges) -> int:
    """Return the number of loops of boundary edges; two that touch at a vertex are two.

    Counted in each connected part of the boundary as edges - vertices + 1, and at least 1, for
    what ends at an edge of three faces is no loop but a hole all the same.
    """
    ends = edges.ends[edges.is_boundary]
    if not len(ends):
        return 0
    vertices, compact = np.unique(ends, return_inverse=True)
    compact = compact.reshape(-1, 2)
    part = components(len(vertices), compact[:, 0], compact[:, 1])
    n_edges = np.bincount(part[compact[:, 0]])
    return int(np.maximum(n_edges - np.bincount(part) + 1, 1).sum())

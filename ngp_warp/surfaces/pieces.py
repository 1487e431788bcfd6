"""What a mesh is made of: its connected pieces, and whether it is closed."""

from dataclasses import dataclass

import numpy as np

_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Piece:
    """One connected piece of a closed mesh."""

    n_faces: int
    share: float
    """Of all faces."""
    volume: float
    """Negative: the wall of a cavity."""


@dataclass(frozen=True)
class Pieces:
    """The connected pieces of a mesh, the one of most faces first."""

    of_vertices: np.ndarray
    """int32 [n]: the number of the piece to which each vertex belongs."""
    pieces: list[Piece]

    def __len__(self) -> int:
        return len(self.pieces)


def find_pieces(vertices: np.ndarray, faces: np.ndarray) -> Pieces:
    """Return the connected pieces of a mesh: those that share no vertex.

    Args:
        vertices: [n, 3]; each belongs to a face.
        faces: [m, 3].
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = faces[:, (0, 1)].ravel(), faces[:, (1, 2)].ravel()
    graph = coo_array((np.ones(len(ends[0]), bool), ends), shape=(len(vertices),) * 2)
    n, labels = connected_components(graph, directed=False)
    of_faces = labels[faces[:, 0]]
    counts = np.bincount(of_faces, minlength=n)
    volumes = np.bincount(of_faces, _cone_volumes(vertices, faces), minlength=n)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(n, np.int32)
    rank[order] = np.arange(n)
    pieces = [
        Piece(int(counts[i]), float(counts[i] / len(faces)), float(volumes[i])) for i in order
    ]
    return Pieces(rank[labels], pieces)


def largest_piece(
    vertices: np.ndarray, faces: np.ndarray, pieces: Pieces
) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices and faces of the piece of most faces; its cavities are pieces of their own.

    Args:
        vertices: [n, 3].
        faces: [m, 3].
        pieces: those of this mesh.
    """
    kept = pieces.of_vertices == 0
    number = np.cumsum(kept, dtype=np.int32) - 1
    return vertices[kept], number[faces[kept[faces[:, 0]]]]


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Return the volume that a closed mesh encloses, positive where faces are wound outward."""
    return float(_cone_volumes(vertices, faces).sum())


def _cone_volumes(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the signed volume [m] between each face and the middle of the mesh."""
    middle = vertices.mean(axis=0, dtype=np.float64)  # far from the origin digits would cancel
    result = np.empty(len(faces))
    for begin in range(0, len(faces), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        a, b, c = (vertices[faces[part, i]] - middle for i in range(3))
        result[part] = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    return result


def is_closed(faces: np.ndarray) -> bool:
    """Return whether every edge has two faces, which run along it in opposite directions."""
    if not len(faces):
        return False
    keys = np.empty((3, len(faces)), np.int64)
    size = int(faces.max()) + 1
    for i in range(3):
        a, b = faces[:, i].astype(np.int64), faces[:, (i + 1) % 3].astype(np.int64)
        keys[i] = 2 * (np.minimum(a, b) * size + np.maximum(a, b)) + (a > b)
    if keys.size % 2:
        return False
    keys = np.sort(keys, axis=None).reshape(-1, 2)
    paired = np.all(keys[:, 0] % 2 == 0) and np.all(keys[:, 1] == keys[:, 0] + 1)
    return bool(paired and np.all(np.diff(keys[:, 0]) > 0))

"""Exact distance and inside/outside of a mesh by Open3D's ray casting, on the CPU.

Nothing here is shared with the ground truth that fields are trained on: this is what they are
measured against.
"""

from typing import Any

import numpy as np

from ngp_warp.primitives.sdf.open3d_loader import load_open3d

# No axis or diagonal of any common grid, so that rays seldom run along edges and faces.
_DIRECTIONS = np.array(
    [[0.3191, 0.5302, 0.7855], [-0.7413, 0.2287, 0.6310], [0.5718, -0.8011, 0.1767]], np.float32
)

# Beyond this the inside depends on how the holes are filled.
_FILLED_SHARE = 0.05


class Raycasting:
    """A mesh that answers how far a point is, and whether it is inside.

    Inside is defined where the surface is closed. Faces that are consistently wound give the
    winding number, counted by the signed crossings of a ray: inside is where it is not 0, so that
    bodies that overlap count as their union. Other closed surfaces give the parity of the
    crossings. A ray through an edge may count one crossing too many: where two rays differ, a third
    one decides. A surface with holes has the inside of the one whose holes Open3D has filled, where
    that closes it; distances are always to the surface as it is.

    Attributes:
        vertices: float32 [n, 3].
        faces: int64 [m, 3], without faces of no area, body after body.
        normals: float64 [m, 3], the faces' unit normals.
        areas: float64 [m].
        inside_method: "winding number" or "parity", with a word on filled holes; None where inside
            has no meaning.
        reason: why ``inside_method`` is None, else "".
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, *, distance_only: bool = False):
        """Build the scene.

        Args:
            vertices: float [n, 3]; equal ones merged, or the surface does not pass as closed.
            faces: integer [m, 3].
            distance_only: do not ask what is inside, which takes as long as all the rest.
        """
        o3d = load_open3d()
        self.vertices = np.ascontiguousarray(vertices, np.float32)
        faces = np.asarray(faces, np.int64).reshape(-1, 3)
        self.inside_method, self.reason = None, "only distances were asked for"
        if not distance_only:
            faces = _without_duplicates(faces)
            self.inside_method, self.reason = _inside_method(faces)
        self._filled: Raycasting | None = None
        if len(faces) and self.inside_method is None and not distance_only:
            self._fill_holes(faces)
        bodies = _bodies(faces) if self._rays_tell else np.zeros(len(faces), np.int64)
        normals, areas = _normals(np.asarray(vertices, np.float64), faces)
        order = np.argsort(bodies, kind="stable")
        order = order[areas[order] > 0]
        self.faces, self.normals, self.areas = faces[order], normals[order], areas[order]
        # One geometry a body: Open3D drops a second hit of one geometry at the same place, which
        # would lose one of two faces where bodies touch.
        starts = np.flatnonzero(np.diff(bodies[order], prepend=-1))
        self._first_face = starts
        self._scene = o3d.t.geometry.RaycastingScene()
        for part in np.split(self.faces, starts[1:]):
            # A body takes its own corners only: Open3D copies what it is given.
            used, index = np.unique(part, return_inverse=True)
            if len(used):
                corners = o3d.core.Tensor(self.vertices[used])
                index = index.reshape(-1, 3).astype(np.uint32)
                self._scene.add_triangles(corners, o3d.core.Tensor(index))

    @property
    def _rays_tell(self) -> bool:
        """Whether rays through this surface itself tell what is inside."""
        return self.inside_method is not None and self._filled is None

    def _fill_holes(self, faces: np.ndarray) -> None:
        """Take the inside from the surface with its holes filled, if they are small."""
        o3d = load_open3d()
        tensor = o3d.core.Tensor
        mesh = o3d.t.geometry.TriangleMesh(tensor(self.vertices), tensor(faces))
        # larger than any hole in the unit cube
        filled = mesh.fill_holes(10.0)
        vertices = filled.vertex.positions.numpy()
        more = _without_duplicates(filled.triangle.indices.numpy().astype(np.int64))
        if _inside_method(more)[0] is None:
            self.reason += ", and filling its holes does not close it"
            return
        before, after = (
            _normals(v.astype(np.float64), f)[1].sum()
            for v, f in ((self.vertices, faces), (vertices, more))
        )
        share = 1 - before / after
        if share > _FILLED_SHARE:
            self.reason += f", and its holes are {share:.0%} of it"
            return
        self._filled = Raycasting(vertices, more)
        self.inside_method = (
            f"{self._filled.inside_method}, holes of {share:.1%} of the surface filled"
        )

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the distance float32 [n] of points [n, 3] to the surface, never negative."""
        return self._scene.compute_distance(_tensor(points)).numpy()

    def closest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distance float32 [n] and the nearest face's index int64 [n]."""
        found = self._scene.compute_closest_points(_tensor(points))
        offset = found["points"].numpy() - np.asarray(points, np.float32)
        return np.linalg.norm(offset, axis=1), self._face(found)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Return bool [n]: which of the points [n, 3] are inside.

        Raises:
            ValueError: the surface is not closed.
        """
        if self.inside_method is None:
            raise ValueError(self.reason)
        if self._filled is not None:
            return self._filled.inside(points)
        first, second = (self._inside_along(points, along) for along in _DIRECTIONS[:2])
        undecided = np.flatnonzero(first != second)
        first[undecided] = self._inside_along(points[undecided], _DIRECTIONS[2])
        return first

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return n points float32 [n, 3], uniform by area, and the faces int64 [n] they lie on."""
        ends = np.cumsum(self.areas)
        index = np.searchsorted(ends, rng.random(n) * ends[-1], side="right")
        index = np.minimum(index, len(ends) - 1)
        a, b = rng.random((2, n, 1))
        beyond = a + b > 1
        a, b = np.where(beyond, 1 - a, a), np.where(beyond, 1 - b, b)
        p, q, r = (self.vertices[self.faces[index, k]].astype(np.float64) for k in range(3))
        return (p + a * (q - p) + b * (r - p)).astype(np.float32), index

    def _inside_along(self, points: np.ndarray, direction: np.ndarray) -> np.ndarray:
        if len(points) == 0:  # list_intersections crashes on no rays (Open3D 0.20)
            return np.zeros(0, bool)
        rays = np.concatenate([points, np.broadcast_to(direction, points.shape)], axis=1)
        hits = self._scene.list_intersections(_tensor(rays))
        ray = hits["ray_ids"].numpy().astype(np.int64)
        if self.inside_method == "parity":
            return np.bincount(ray, minlength=len(points)) % 2 == 1
        # A ray that leaves a body crosses with its normal, one that enters, against it.
        sign = np.sign(self.normals[self._face(hits)] @ direction.astype(np.float64))
        return np.bincount(ray, weights=sign, minlength=len(points)) != 0

    def _face(self, hits: Any) -> np.ndarray:
        first = self._first_face[hits["geometry_ids"].numpy().astype(np.int64)]
        return first + hits["primitive_ids"].numpy().astype(np.int64)


def _tensor(array: np.ndarray) -> Any:
    return load_open3d().core.Tensor(np.ascontiguousarray(array, np.float32))


def _without_duplicates(faces: np.ndarray) -> np.ndarray:
    """Drop faces that name a vertex twice, and all but one of faces with the same corners."""
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    turn = (np.argmin(faces, axis=1)[:, None] + np.arange(3)) % 3
    _, first = np.unique(np.take_along_axis(faces, turn, axis=1), axis=0, return_index=True)
    return faces[np.sort(first)]


def _inside_method(faces: np.ndarray) -> tuple[str | None, str]:
    n = int(faces.max(initial=0)) + 1
    ends = np.roll(faces, -1, axis=1)
    edges = np.sort((faces * n + ends).ravel())
    if len(edges) == 0:
        return None, "the surface has no faces"
    if np.array_equal(edges, np.sort((ends * n + faces).ravel())):
        return "winding number", ""
    _, counts = np.unique(np.minimum(faces, ends) * n + np.maximum(faces, ends), return_counts=True)
    n_open = int(np.count_nonzero(counts % 2))
    if n_open == 0:
        return "parity", ""
    return None, f"the original is not closed ({n_open} open edges): it has no inside"


def _bodies(faces: np.ndarray) -> np.ndarray:
    """Return the body int64 [m] of every face: those joined by edges of exactly two faces."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = int(faces.max()) + 1
    ends = np.roll(faces, -1, axis=1)
    edges = (np.minimum(faces, ends) * n + np.maximum(faces, ends)).ravel()
    order = np.argsort(edges, kind="stable")
    _, first, counts = np.unique(edges[order], return_index=True, return_counts=True)
    pairs = first[counts == 2]
    one, other = order[pairs] // 3, order[pairs + 1] // 3
    joined = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(faces),) * 2)
    return connected_components(joined, directed=False)[1].astype(np.int64)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, q, r = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(q - p, r - p)
    length = np.linalg.norm(cross, axis=1)
    return cross / np.where(length > 0, length, 1)[:, None], length / 2

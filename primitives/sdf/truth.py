"""Exact signed distances to a triangle mesh, negative inside, on every core or on CUDA."""

from typing import Any, Literal

import numpy as np
import warp as wp

from ngp_warp import launch
from ngp_warp.errors import ConfigError, DataError, ShapeError
from ngp_warp.primitives.sdf.kernels import distance as kernels
from ngp_warp.primitives.sdf.kernels.tree import WARP
from ngp_warp.primitives.sdf.sign import SIGNS, Sign, distinct_faces, orient_faces
from ngp_warp.primitives.sdf.tree import build_tree, leaf_order

# Half a cell's diagonal is 0.027: most of the cube is farther from the surface than that.
_CELLS = 32
# Points of one pass of a query: bounds the memory on the device.
_QUERY_POINTS = 2**20
# Warp's own limit, below which its tree skips a face: area against squared edges.
_SLIVER = 1e-6


class SignedDistance:
    """Signed distance to a mesh.

    The distance is exact up to float32's rounding, with every sign method. Vertices at one place
    are taken as one; faces without area are left out (their edges belong to other faces).

    Args:
        vertices: float [n, 3], in unit space.
        faces: int [m, 3], most of them counter-clockwise seen from outside; the others are turned
            (``orient_faces``).
        sign: "normal": side of the angle-weighted pseudo-normal of the closest feature, for
            watertight and consistently wound meshes; "raystab": outside if any of 32 rays escapes,
            whatever the winding; "winding": inside where the generalised winding number exceeds
            1/2, for meshes with holes.
        device: "cpu" or a CUDA device.
        search: of the closest face, "vector" (for a CPU), "wide" (for CUDA) or "portable"; None:
            what suits the device and the sign method.

    Raises:
        ConfigError: no such sign method, or a search that is another device's.
        DataError: no face has an area.
    """

    def __init__(
        self,
        vertices: np.ndarray,
        faces: np.ndarray,
        sign: Sign,
        device: str,
        search: Literal["vector", "wide", "portable"] | None = None,
    ):
        if sign not in SIGNS:
            raise ConfigError(f"sign must be one of {', '.join(SIGNS)}, got {sign!r}")
        if search in ("vector", "wide") and (search == "vector") != (device == "cpu"):
            raise ConfigError(f"search must be portable on {device}, got {search}; leave it out")
        launch.init()
        # lanes that share a closest face would all cast the same rays
        on_cuda = "wide" if sign == "normal" else "portable"
        self.search: str = search or ("vector" if device == "cpu" else on_cuda)
        self.sign: Sign = sign
        self.device = device
        self.vertices, self.faces, self._bounds = _prepare(vertices, faces)
        self._points = wp.array(self.vertices, dtype=wp.vec3, device=device)
        self._indices = wp.array(self.faces.reshape(-1), dtype=int, device=device)
        self._mesh = wp.Mesh(
            self._points,
            self._indices,
            support_winding_number=sign == "winding",
            # measured on a CPU with 100,000 faces: faster than leaves of 1, 2 or 8; on CUDA the
            # lanes of a warp wait for each triangle that any of them looks at
            bvh_leaf_size=4 if device == "cpu" else 1,
        )
        self.scene = self._make_scene()

    def _make_scene(self) -> Any:
        scene: Any = kernels.Scene()
        scene.mesh = self._mesh.id
        normals = pseudo_normals(self.vertices, self.faces).reshape(-1, 3)
        scene.normals = wp.array(normals, dtype=wp.vec3, device=self.device)
        directions = fibonacci_directions(kernels.N_DIRECTIONS)
        scene.directions = wp.array(directions, dtype=wp.vec3, device=self.device)
        scene.balls = wp.zeros(_CELLS**3, dtype=float, device=self.device)
        scene.n_cells = 0
        self._add_tree(scene)
        self.scene = scene
        axis = (np.arange(_CELLS, dtype=np.float32) + 0.5) / _CELLS
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        balls = self.query(np.stack([x, y, z], axis=-1).reshape(-1, 3))
        scene.balls.assign(balls)
        scene.n_cells = _CELLS
        return scene

    def _add_tree(self, scene: Any) -> None:
        """Build what the searches of its own read; else its arrays stay empty."""
        if self.search == "portable":
            return
        width = WARP if self.search == "wide" else 16
        tree = build_tree(self.vertices[self.faces], self._bounds, width)
        scene.nodes = _flat(tree.nodes, float, self.device)
        scene.leaves = _flat(tree.leaves, float, self.device)
        scene.first_child = _flat(tree.first_child, int, self.device)
        scene.leaf_faces = _flat(tree.leaf_faces, int, self.device)

    @property
    def kernel(self) -> Any:
        """The query kernel of the sign method: (scene, points, order, max_distance, distance)."""
        return kernels.query_kernel(self.sign, self.search)

    def areas(self) -> np.ndarray:
        """Return the areas of the faces, float64 [m]."""
        a, b, c = (self.vertices[self.faces[:, k]].astype(np.float64) for k in range(3))
        return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2

    def query(self, points: np.ndarray, max_distance: float | None = None) -> np.ndarray:
        """Return signed distances at points.

        Args:
            points: real [n, 3] in unit space; outside the cube too.
            max_distance: points farther away give +-max_distance, many times faster.

        Returns:
            float32 [n], negative inside.

        Raises:
            ShapeError: another shape, points that are not finite, or a max_distance that is not
                positive.
        """
        points = np.asarray(points)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ShapeError(f"points must have shape [n, 3], got {list(points.shape)}")
        if max_distance is not None and not max_distance > 0:
            raise ShapeError(f"max_distance must be positive, got {max_distance}")
        points = np.ascontiguousarray(points, dtype=np.float32)
        if not np.isfinite(points).all():
            raise ShapeError("points must be finite numbers")
        radius = float(kernels.UNBOUNDED if max_distance is None else max_distance)
        result = np.empty(len(points), np.float32)
        for begin in range(0, len(points), _QUERY_POINTS):
            part = slice(begin, begin + _QUERY_POINTS)
            result[part] = self._query(points[part], radius)
        return result

    def _query(self, points: np.ndarray, radius: float) -> np.ndarray:
        n, device = len(points), self.device
        source = wp.array(points, dtype=wp.vec3, device=device)
        distance = wp.empty(n, dtype=float, device=device)
        args = [self.scene, source, self._order(source), radius, distance]
        # Points differ in their cost: many shards keep the cores busy to the end.
        shards = 16 * launch.num_threads()
        n_items = n * kernels.lanes(self.search)
        # small blocks: one lasts as long as its longest point
        launch.record(self.kernel, n_items, args, device, shards=shards, block_dim=64).run()
        return distance.numpy()

    def _order(self, points: wp.array) -> wp.array:
        """Return the points' order along a Morton curve: nearly twice as fast on a CPU."""
        if self.device != "cpu":
            return wp.empty(0, dtype=int, device=self.device)
        dtype: Any = wp.uint16
        codes = wp.empty(len(points), dtype=dtype, device="cpu")
        launch.launch(kernels.morton_codes, len(points), [points, codes], "cpu")
        # 16-bit keys are sorted by radix
        order = np.argsort(codes.numpy(), kind="stable").astype(np.int32)
        return wp.array(order, dtype=int, device="cpu", copy=False)


def _flat(values: np.ndarray, dtype: Any, device: str) -> wp.array:
    return wp.array(values.reshape(-1), dtype=dtype, device=device)


def _prepare(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weld equal vertices, mend the winding, leave out faces without area, sort as a tree.

    Returns:
        float32 [n, 3], int32 [m, 3], and the first face of each of the tree's leaves.
    """
    vertices = np.asarray(vertices, np.float32) + np.float32(0)  # -0 equals 0, byte by byte too
    unique, inverse = np.unique(vertices, axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[np.asarray(faces, np.int64)]
    faces = faces[distinct_faces(faces)]
    triangles = unique[faces].astype(np.float64)
    e0, e1, e2 = (triangles[:, (k + 1) % 3] - triangles[:, k] for k in range(3))
    area = np.linalg.norm(np.cross(e0, e1), axis=1)
    squares = sum((e * e).sum(axis=1) for e in (e0, e1, e2))
    large = area > _SLIVER * squares
    if not large.any():
        raise DataError("the mesh has no face with an area; give a mesh with a surface")
    # only then: slivers too join their neighbours
    faces = orient_faces(unique, faces)[large]
    order, bounds = leaf_order(unique[faces].mean(axis=1))
    faces = faces[order]
    used, first, inverse = np.unique(faces, return_index=True, return_inverse=True)
    order = np.argsort(first)  # by first use: the vertices of neighbouring faces lie together
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return unique[used[order]], rank[inverse.reshape(faces.shape)].astype(np.int32), bounds


def pseudo_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return angle-weighted pseudo-normals (Baerentzen and Aanaes 2005), of any length.

    Args:
        vertices: [n, 3].
        faces: int [m, 3], each with an area.

    Returns:
        float32 [m, 7, 3]: of each face, of its edges ab, bc and ca, of its vertices a, b and c.
    """
    triangles = vertices[faces].astype(np.float64)
    edges = np.stack([triangles[:, (k + 1) % 3] - triangles[:, k] for k in range(3)], axis=1)
    edges /= np.linalg.norm(edges, axis=2, keepdims=True)
    normals = np.cross(edges[:, 0], edges[:, 1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    # the angle at vertex k lies between edges k and k - 1
    cosine = -(edges * np.roll(edges, 1, axis=1)).sum(axis=2)
    angles = np.arccos(np.clip(cosine, -1, 1))
    at_vertices = _sums(faces.reshape(-1), (angles[..., None] * normals[:, None]).reshape(-1, 3))
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2), axis=2).astype(np.int64)
    keys = (ends[..., 0] * len(vertices) + ends[..., 1]).reshape(-1)
    _, edge = np.unique(keys, return_inverse=True)
    at_edges = _sums(edge.reshape(-1), np.repeat(normals, 3, axis=0))
    result = np.empty((len(faces), 7, 3), np.float32)
    result[:, 0] = normals
    result[:, 1:4] = at_edges.reshape(-1, 3, 3)
    result[:, 4:] = at_vertices.reshape(-1, 3, 3)
    return result


def _sums(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return for each of values [n, 3] the sum over its group [n]."""
    totals = [np.bincount(groups, values[:, d]) for d in range(3)]
    return np.stack(totals, axis=1)[groups]


def fibonacci_directions(n: int) -> np.ndarray:
    """Return n evenly spread unit vectors, float32 [n, 3]."""
    i = np.arange(n) + 0.5
    z = 1 - 2 * i / n
    azimuth = np.pi * (1 + np.sqrt(5)) * i
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], 1).astype(np.float32)

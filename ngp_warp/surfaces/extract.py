"""Sparse marching cubes: the mesh of a field's level set, evaluated near the surface alone.

Source: Lorensen and Cline, "Marching Cubes", SIGGRAPH 1987; see ``cases`` for what differs.
"""

import math
from dataclasses import dataclass

import numpy as np

from ngp_warp.errors import DataError, ShapeError
from ngp_warp.primitive import Progress, Report, report_nothing
from ngp_warp.surfaces import cases
from ngp_warp.surfaces.lattice import BLOCK, Evaluate, Lattice, NodePool, batches, check_memory

# In cells: vertices on different edges stay apart (also as float32 at resolution 2048), so no
# triangle is without area and a file format that has no indices cannot weld what must be apart.
_CLEARANCE = 1e-3
_BLOCKS_AT_ONCE = 1 << 10

LIPSCHITZ = 2.0
"""Steepest change of a trained distance field for each unit of distance, with a margin."""


@dataclass(frozen=True)
class ExtractedMesh:
    """A closed surface: every edge has two faces, wound anticlockwise seen from outside."""

    vertices: np.ndarray
    """float64 [n, 3]."""
    faces: np.ndarray
    """int32 [m, 3]."""
    n_evaluated: int
    """Points at which the field was evaluated."""


def extract(
    evaluate: Evaluate,
    resolution: int,
    *,
    level: float = 0.0,
    lower: tuple[float, float, float] = (0.0, 0.0, 0.0),
    upper: tuple[float, float, float] = (1.0, 1.0, 1.0),
    lipschitz: float = LIPSCHITZ,
    blocks: np.ndarray | None = None,
    progress: Report = report_nothing,
) -> ExtractedMesh:
    """Return the surface where a field equals ``level``, by marching cubes on resolution^3 cells.

    The nodes lie at ``lower + i / resolution * (upper - lower)``, i = 0..resolution; a vertex lies
    where the linear interpolant along a cell's edge is zero, at least a thousandth of a cell from
    its ends. Nodes on the sides of the box count as outside: a body that is cut by the box is
    closed there. Only blocks of 8^3 cells that the surface may reach are evaluated, then those
    into which it is seen to run on, so that no block left out can tear a hole: what can be missed
    is a whole piece apart from all others, smaller than a hundredth of the box, in a place where
    the field is steeper than ``lipschitz``.

    Args:
        evaluate: float32 points [n, 3] -> values [n] or [n, 1], negative inside; of a density, give
            its negative.
        resolution: cells along each side, 2 to 4096; below 192 all are evaluated.
        level: the value on the surface.
        lower: the box.
        upper: the box.
        lipschitz: bound on the field's change for each unit of distance; ``math.inf`` evaluates
            every cell.
        blocks: bool [n] * 3 with n = ceil(resolution / 8): where to look first, of a field that is
            no distance and for which no ``lipschitz`` is known; every piece of the surface that
            reaches into one of them is found. None: found by ``lipschitz``.
        progress: told of the work done, of 100.

    Raises:
        ConfigError: a resolution or a box out of range.
        DataError: the field has no surface in the box, or is not finite.
        ResourceError: too little memory.
        ShapeError: ``blocks`` of another shape.
    """
    lattice = Lattice(evaluate, resolution, level=level, lower=lower, upper=upper)
    if blocks is not None and blocks.shape != (lattice.n_blocks,) * 3:
        raise ShapeError(
            f"blocks must be {[lattice.n_blocks] * 3} at resolution {resolution}, "
            f"got {list(blocks.shape)}"
        )

    def done(share: float) -> None:
        progress(Progress(stage="evaluate", step=math.floor(100 * share), total=100))

    near = lattice.near_blocks(lipschitz) if blocks is None else blocks.astype(bool)
    done(0.1)
    n_near = int(np.count_nonzero(near))
    check_memory(n_near, resolution)
    pool = NodePool(lattice, closed=True, n_expected=n_near)
    triangles = _Triangles(lattice)
    added, wave = near, np.argwhere(near).astype(np.int32)
    furthest = 0.1
    while len(wave):
        pool.add(wave, lambda share, begin=furthest: done(begin + (0.8 - begin) * share))
        furthest = 0.8  # almost all of the work is in the first wave
        wanted = np.zeros_like(added)
        for part in batches(wave, _BLOCKS_AT_ONCE):
            triangles.add(part, pool.cubes(part), wanted)
        wave = np.argwhere(wanted & ~added).astype(np.int32)
        added |= wanted
    vertices, faces = triangles.gather()
    done(1.0)
    if not len(faces):
        raise DataError(
            f"the field has no surface: no value below {level:g} at resolution {resolution}; "
            "train longer, or choose another level"
        )
    return ExtractedMesh(vertices, faces, lattice.n_evaluated)


class _Triangles:
    """The triangles of cells that were looked at; a vertex is known by the edge it lies on."""

    def __init__(self, lattice: Lattice):
        self._lattice = lattice
        n = BLOCK * lattice.n_blocks + 1
        self._strides = np.array([n * n, n, 1], np.int64)
        self._edge_keys = 3 * (cases.EDGE_STARTS @ self._strides) + cases.EDGE_AXES
        self._vertex_keys: list[np.ndarray] = []
        self._vertices: list[np.ndarray] = []
        self._corner_keys: list[np.ndarray] = []

    def add(self, blocks: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> None:
        """Take the surface in blocks.

        Args:
            blocks: [n, 3].
            values: [n, 9, 9, 9] at their nodes.
            wanted: bool, by block; set where the surface leaves one of them for a neighbour.
        """
        inside = values < 0
        self._add_vertices(blocks, values, inside)
        self._add_faces(blocks, inside)
        for axis in range(3):
            for side, step in ((0, -1), (BLOCK, 1)):
                face = inside.take(side, axis=axis + 1).reshape(len(blocks), -1)
                crossed = blocks[face.any(axis=1) & ~face.all(axis=1)].copy()
                crossed[:, axis] += step
                wanted[tuple(crossed.T)] = True

    def _add_vertices(self, blocks: np.ndarray, values: np.ndarray, inside: np.ndarray) -> None:
        """Take the crossings on the edges that begin at a block's own nodes.

        An edge with a crossing that begins in a neighbour lies in the face to it, so that the
        neighbour is looked at too.
        """
        low = (slice(None), *[slice(BLOCK)] * 3)
        for axis in range(3):
            high = list(low)
            high[axis + 1] = slice(1, BLOCK + 1)
            which, *local = np.nonzero(inside[low] != inside[tuple(high)])
            nodes = blocks[which] * BLOCK + np.stack(local, axis=1)
            at = (which, *local)
            v0 = values[low][at].astype(np.float64)
            v1 = values[tuple(high)][at]
            position = nodes.astype(np.float64)
            position[:, axis] += np.clip(v0 / (v0 - v1), _CLEARANCE, 1 - _CLEARANCE)
            self._vertex_keys.append(3 * (nodes @ self._strides) + axis)
            self._vertices.append(self._lattice.positions(position))

    def _add_faces(self, blocks: np.ndarray, inside: np.ndarray) -> None:
        case = np.zeros((len(blocks), BLOCK, BLOCK, BLOCK), np.uint8)
        for corner in range(8):
            x, y, z = corner & 1, corner >> 1 & 1, corner >> 2
            part = inside[:, x : x + BLOCK, y : y + BLOCK, z : z + BLOCK]
            case |= part.view(np.uint8) << np.uint8(corner)
        which, *local = np.nonzero((case != 0) & (case != 255))
        number = case[(which, *local)]
        cells = (blocks[which] * BLOCK + np.stack(local, axis=1)) @ self._strides
        table = cases.table()
        counts = table.counts[number]
        first = np.cumsum(counts) - counts
        rank = np.arange(counts.sum()) - np.repeat(first, counts)
        edges = table.triangles[np.repeat(table.begins[number], counts) + rank]
        keys = 3 * np.repeat(cells, counts)[:, None] + self._edge_keys[edges]
        self._corner_keys.append(keys)

    def gather(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices float64 [n, 3], sorted by edge, and faces int32 [m, 3]."""
        keys = np.concatenate(self._vertex_keys)
        order = np.argsort(keys)
        keys = keys[order]
        vertices = np.concatenate(self._vertices)[order]
        self._vertices.clear()
        faces = np.empty((sum(map(len, self._corner_keys)), 3), np.int32)
        begin = 0
        for corners in self._corner_keys:
            faces[begin : begin + len(corners)] = np.searchsorted(keys, corners)
            begin += len(corners)
        self._corner_keys.clear()
        return vertices, faces

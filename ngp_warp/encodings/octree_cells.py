"""A sparse octree (quadtree in two dimensions) over points, and the corners of its cells."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ngp_warp.config import check_range
from ngp_warp.errors import ConfigError, DataError

# a cell of level 16 still has 2^-8 of itself as float32's resolution at 1
MAX_LEVEL = 16
# tables are indexed in 32 bits
MAX_ENTRIES = 2**31 - 1
# a grid's parameters may follow in one array, and are read 8 at a time
ROUND = 8


@dataclass(frozen=True, kw_only=True)
class Octree:
    """Cells of side 2^-l that contain points, l from first_level to last_level.

    Nodes are numbered by level, from the root, and in a level by Morton code. Corners are numbered
    by level too; neighbouring cells of a level share theirs, levels share none. Memory: 4 * 2^d
    bytes for each node that has children, and as much for each cell (``n_bytes``).
    """

    n_dims: int
    first_level: int
    last_level: int
    codes: np.ndarray
    """uint64 [n_leaves], ascending: Morton codes of the last level's cells, from which all follows.
    Bit n_dims * i + axis is bit i of the cell's index along the axis."""
    child: np.ndarray
    """int32 [n_inner, 2^d]: node, or -1; column sum of bit << axis."""
    corner: np.ndarray
    """int32 [n_cells, 2^d]: corner, of the nodes from ``first_cell`` on."""
    cell_offsets: np.ndarray
    """int64 [last - first + 2]: cells of the levels before, in ``corner``."""
    corner_offsets: np.ndarray
    """int64 [last - first + 2]: corners of the levels before."""

    @classmethod
    def from_points(cls, points: np.ndarray, first_level: int, last_level: int) -> "Octree":
        """Build the tree of the cells that contain points.

        Args:
            points: [n, 2] or [n, 3] in the unit cube; what lies at 1 belongs to the last cell.
            first_level: 0 (one cell) to last_level.
            last_level: at most 16.

        Raises:
            ConfigError: levels out of their range, or too many cells for 32-bit indices.
            DataError: no points, or points that are not in the unit cube.
        """
        # float32 like the kernels, so that a point lies in its own cell
        points = np.asarray(points, np.float32)
        if points.ndim != 2 or points.shape[1] not in {2, 3} or len(points) == 0:
            raise DataError(f"an octree needs points [n, 2] or [n, 3], got {points.shape}")
        if not np.all((points >= 0) & (points <= 1)):
            raise DataError("an octree's points must lie in the unit cube")
        check_range("last_level", last_level, 0, MAX_LEVEL)
        n = 1 << last_level
        cells = np.minimum((points * n).astype(np.int64), n - 1)
        codes = np.unique(morton_codes(cells, last_level))
        return cls.from_codes(codes, points.shape[1], first_level, last_level)

    @classmethod
    def from_codes(
        cls, codes: np.ndarray, n_dims: int, first_level: int, last_level: int
    ) -> "Octree":
        """Build the tree of the last level's cells; see ``codes``."""
        check_range("last_level", last_level, 0, MAX_LEVEL)
        check_range("first_level", first_level, 0, last_level)
        levels = [codes.astype(np.uint64)]
        for _ in range(last_level):
            levels.append(_distinct(levels[-1] >> np.uint64(n_dims)))
        levels.reverse()
        if sum(map(len, levels)) << n_dims > MAX_ENTRIES:
            raise ConfigError(
                f"the octree has {sum(map(len, levels))} cells, more than 32 bits can index"
            )
        corner, corner_offsets = _corners(levels[first_level:], n_dims, first_level)
        sizes = [len(level) for level in levels[first_level:]]
        return cls(
            n_dims=n_dims,
            first_level=first_level,
            last_level=last_level,
            codes=levels[-1],
            child=_children(levels, n_dims),
            corner=corner,
            cell_offsets=np.cumsum([0, *sizes]),
            corner_offsets=corner_offsets,
        )

    @property
    def n_levels(self) -> int:
        """Levels that have features."""
        return self.last_level - self.first_level + 1

    @property
    def n_corners(self) -> int:
        """Corners of all levels."""
        return int(self.corner_offsets[-1])

    @property
    def first_cell(self) -> int:
        """Number of the first node that is a cell: those of coarser levels have no corners."""
        return (
            len(self.child) + int(self.cell_offsets[-1] - self.cell_offsets[-2]) - len(self.corner)
        )

    @property
    def n_bytes(self) -> int:
        """Memory of the tables on a device."""
        return self.child.nbytes + self.corner.nbytes

    @property
    def state(self) -> dict[str, Any]:
        """Return what ``from_codes`` takes: the arrays and numbers a checkpoint holds."""
        names = ("codes", "n_dims", "first_level", "last_level")
        return {name: getattr(self, name) for name in names}


def morton_codes(cells: np.ndarray, level: int) -> np.ndarray:
    """Return uint64 [n] of cells [n, d], whose indices have ``level`` bits."""
    n_dims = cells.shape[1]
    codes = np.zeros(len(cells), np.uint64)
    for bit in range(level):
        for axis in range(n_dims):
            value = (cells[:, axis].astype(np.uint64) >> np.uint64(bit)) & np.uint64(1)
            codes |= value << np.uint64(bit * n_dims + axis)
    return codes


def cells_of(codes: np.ndarray, n_dims: int, level: int) -> np.ndarray:
    """Return int64 [n, d]: the inverse of ``morton_codes``."""
    cells = np.zeros((len(codes), n_dims), np.int64)
    for bit in range(level):
        for axis in range(n_dims):
            value = (codes >> np.uint64(bit * n_dims + axis)) & np.uint64(1)
            cells[:, axis] |= value.astype(np.int64) << bit
    return cells


def _distinct(ascending: np.ndarray) -> np.ndarray:
    return ascending[np.r_[True, ascending[1:] != ascending[:-1]]]


def _children(levels: list[np.ndarray], n_dims: int) -> np.ndarray:
    """Return ``Octree.child`` of the levels' codes, from the root's on."""
    n_inner = sum(map(len, levels[:-1]))
    child = np.full((n_inner, 1 << n_dims), -1, np.int32)
    first = 0
    for parents, codes in pairwise(levels):
        parent = first + np.searchsorted(parents, codes >> np.uint64(n_dims))
        column = (codes & np.uint64((1 << n_dims) - 1)).astype(np.int64)
        first += len(parents)
        child[parent, column] = first + np.arange(len(codes))
    return child


def _corners(levels: list[np.ndarray], n_dims: int, first_level: int) -> tuple[np.ndarray, Any]:
    """Return ``Octree.corner`` and ``corner_offsets`` of the levels' codes."""
    columns = np.arange(1 << n_dims)[:, None] >> np.arange(n_dims) & 1
    tables, offsets = [], [0]
    for i, codes in enumerate(levels):
        level = first_level + i
        vertices = cells_of(codes, n_dims, level)[:, None] + columns
        # 17 bits an axis at the finest level
        stride = (1 << level) + 1
        keys = vertices @ (stride ** np.arange(n_dims, dtype=np.int64))
        distinct, inverse = np.unique(keys, return_inverse=True)
        tables.append((inverse.reshape(keys.shape) + offsets[-1]).astype(np.int32))
        offsets.append(offsets[-1] + len(distinct))
    return np.concatenate(tables), np.array(offsets)

"""Where a radiance field is dense: its level set, the cells that matter, a lattice over a box."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ngp_warp.config import check_range
from ngp_warp.errors import ConfigError
from ngp_warp.primitives.nerf.frame import Frame
from ngp_warp.radiance.settings import CELLS
from ngp_warp.surfaces.lattice import BLOCK, Lattice
from ngp_warp.surfaces.volume_files import Placement

DEFAULT_THRESHOLD = 2.5
"""Natural logarithm of the density for each side of the inner cube, at surfaces."""
OCCUPIED = 0.01
"""Optical thickness of the shortest step from which on a cell is occupied for sure."""

_STEEP = 8.0
"""Logarithms further from the threshold than this count as so far: vertices between an empty and a
dense node would else lie at the dense one."""

Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Region:
    """Limits of an export in the box, and the cubic lattice over them."""

    lower: np.ndarray
    """float64 [3]."""
    upper: np.ndarray
    """float64 [3]."""
    resolution: int
    """Cells along the longest side."""

    @property
    def side(self) -> float:
        """Longest side."""
        return float((self.upper - self.lower).max())

    @property
    def cell(self) -> float:
        """Side of a lattice's cell."""
        return self.side / self.resolution

    def corners(self) -> dict[str, Any]:
        """Return ``lower`` and ``upper`` of the lattice, a cube that begins at the lower limits."""
        return {"lower": tuple(self.lower), "upper": tuple(self.lower + self.side)}

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Return which points [n, 3] lie within the limits, or half a thousandth of a cell off."""
        margin = 5e-4 * self.cell
        return np.all((points >= self.lower - margin) & (points <= self.upper + margin), axis=1)

    def placement(self, frame: Frame, per_unit: float = 1.0) -> Placement:
        """Return where the lattice lies in the scene."""
        x, y, z = frame.to_scene(self.lower[None])[0].tolist()
        return Placement((x, y, z), self.cell / frame.scale, per_unit)


def region_of(field: Any, frame: Frame, resolution: int, bounds: Bounds | None = None) -> Region:
    """Return the part of the box that an export is of.

    Args:
        field: a ``RadianceField``.
        frame: from the scene to the box.
        resolution: cells along the longest side.
        bounds: two corners in scene units; None: the inner cube.

    Raises:
        ConfigError: corners that are none, or beyond the box; a resolution out of range.
    """
    check_range("resolution", resolution, 2, 4096)
    if bounds is None:
        half = 0.5 / field.settings.aabb_scale
        return Region(
            lower=np.full(3, 0.5 - half), upper=np.full(3, 0.5 + half), resolution=resolution
        )
    corners = np.array(bounds, np.float64).reshape(2, 3)
    if not (np.all(np.isfinite(corners)) and np.all(corners[0] < corners[1])):
        raise ConfigError(f"--box needs x0,y0,z0,x1,y1,z1 with x0 < x1 and so on, got {bounds}")
    lower, upper = np.clip(frame.to_box(corners), 0, 1)
    if not np.all(lower < upper):
        whole = frame.to_scene(np.array([[0.0] * 3, [1.0] * 3])).round(4).tolist()
        raise ConfigError(f"--box lies outside of what was trained, {whole[0]} to {whole[1]}")
    return Region(lower=lower, upper=upper, resolution=resolution)


class Cells:
    """What the occupancy grid says of places.

    Args:
        field: a ``RadianceField``, whose grid is read once.
    """

    def __init__(self, field: Any):
        self.aabb_scale = field.settings.aabb_scale
        self.occupied: np.ndarray = field.occupancy.occupied()
        """bool [n_cascades, 128, 128, 128], indexed [cascade, z, y, x]."""
        values = field.occupancy.values.numpy().reshape(self.occupied.shape)
        self.seen: np.ndarray = values >= 0
        """The same: cells that a camera sees."""

    def __len__(self) -> int:
        return len(self.occupied)

    def side(self, cascade: int) -> float:
        """Return the side of a cascade's cube, in sides of the box."""
        return 2.0**cascade / self.aabb_scale

    def at(self, cells: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return the entries of ``occupied`` or ``seen`` at points [n, 3]; outside the box False.

        A point's cell is that of the smallest cascade that holds it.
        """
        found = np.zeros(len(points), bool)
        reach = np.abs(points - 0.5).max(axis=1)
        below = 0.0
        for cascade in range(len(self)):
            side = self.side(cascade)
            # each cascade holds its own sides, so that the box's upper faces count too
            here = (reach <= side / 2) & ((reach > below) | (cascade == 0))
            index = np.floor(((points[here] - 0.5) / side + 0.5) * CELLS).astype(np.int64)
            x, y, z = np.clip(index, 0, CELLS - 1).T
            found[here] = cells[cascade, z, y, x]
            below = side / 2
        return found

    def blocks(self, region: Region) -> np.ndarray:
        """Return bool [n] * 3, by block of the region's lattice: those with an occupied cell."""
        n = -(-region.resolution // BLOCK)
        edges = region.lower[:, None] + np.arange(n + 1) * (BLOCK * region.cell)
        inside = (edges[:, :-1] < region.upper[:, None]) & (edges[:, 1:] > region.lower[:, None])
        found = np.zeros((n, n, n), bool)
        for cascade in range(len(self)):
            sums = np.zeros((CELLS + 1,) * 3, np.int32)
            sums[1:, 1:, 1:] = (
                self.occupied[cascade]
                .transpose(2, 1, 0)
                .cumsum(0, dtype=np.int32)
                .cumsum(1, dtype=np.int32)
                .cumsum(2, dtype=np.int32)
            )
            side = self.side(cascade)
            at = ((edges - 0.5) / side + 0.5) * CELLS
            first = np.clip(np.floor(at[:, :-1]), 0, CELLS).astype(np.int64)
            last = np.clip(np.ceil(at[:, 1:]), 0, CELLS).astype(np.int64)
            within = np.abs(edges - 0.5) <= side / 4 + 1e-9
            finer = within[:, :-1] & within[:, 1:] & (cascade > 0)
            for x in range(n):
                plane = _sum_over(sums, first, last, x) > 0
                # blocks that a finer cascade holds are its own
                plane &= ~(finer[0, x] & finer[1][:, None] & finer[2])
                found[x] |= plane
        return found & inside[0][:, None, None] & inside[1][:, None] & inside[2]


def _sum_over(sums: np.ndarray, first: np.ndarray, last: np.ndarray, x: int) -> np.ndarray:
    """Return how many cells are occupied in each block [n, n] of a plane."""
    slab = sums[last[0, x]] - sums[first[0, x]]
    rows = slab[last[1]] - slab[first[1]]
    return rows[:, last[2]] - rows[:, first[2]]


class Solid:
    """The inside of a level set of the density, as ``ngp_warp.surfaces`` takes it.

    Args:
        field: a ``RadianceField``.
        region: limits.
        threshold: logarithm of the density for each side of the inner cube.
        cells: of the field.

    Raises:
        ConfigError: a threshold out of range.
    """

    def __init__(self, field: Any, region: Region, threshold: float, cells: Cells):
        check_range("threshold", threshold, -10.0, 15.0)
        self.field, self.region, self.threshold, self.cells = field, region, threshold, cells
        self._all_seen = bool(cells.seen.all())

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return threshold - log(density) at points [n, 3] of the box, negative inside.

        What lies beyond the region, or in cells that no camera has seen, is outside.
        """
        kept = self.region.holds(points)
        if not self._all_seen:
            kept &= self.cells.at(self.cells.seen, points)
        values = np.full(len(points), _STEEP, np.float32)
        if kept.any():
            density = self.field.density(np.ascontiguousarray(points[kept], np.float32))
            logarithm = np.log(np.maximum(density, 1e-30))
            values[kept] = np.clip(self.threshold - logarithm, -_STEEP, _STEEP)
        return values

    def first_blocks(self) -> np.ndarray:
        """Return where to look for the surface, bool [n] * 3 by block: where cells are occupied.

        A cell that holds a density above the threshold is occupied, as long as the threshold lies
        above what makes it so; below, it may be anywhere.
        """
        settings = self.field.settings
        thickness = math.exp(self.threshold) * settings.min_step * settings.aabb_scale
        if thickness < OCCUPIED:
            n = -(-self.region.resolution // BLOCK)
            return np.ones((n, n, n), bool)
        return self.cells.blocks(self.region)


class Density:
    """The density as it is rendered, for each unit of the scene: 0 where cells are not occupied."""

    def __init__(self, field: Any, frame: Frame, region: Region, cells: Cells):
        self.field, self.region, self.cells = field, region, cells
        self._per_unit = np.float32(field.settings.aabb_scale * frame.scale)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return float32 [n] at points [n, 3] of the box."""
        kept = self.region.holds(points) & self.cells.at(self.cells.occupied, points)
        values = np.zeros(len(points), np.float32)
        if kept.any():
            found = self.field.density(np.ascontiguousarray(points[kept], np.float32))
            values[kept] = found * self._per_unit
        return values

    def lattice(self) -> Lattice:
        """Return the region's lattice of these values."""
        return Lattice(self, self.region.resolution, **self.region.corners())

"""A volume in memory, and what is known of one before it is read."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ngp_warp.errors import ConfigError, DataError, ShapeError

GridClass = Literal["fog", "level set", "staggered", "unknown"]
"""fog: densities of at least 0; level set: distances, negative inside; staggered: vectors whose
components lie at the voxels' faces (read as they stand: component c of voxel (i, j, k) belongs half
a voxel lower along axis c)."""

Index = tuple[int, int, int]


def is_invertible(matrix: np.ndarray) -> bool:
    """Whether an affine map [4, 4] is finite and has an inverse."""
    return bool(np.all(np.isfinite(matrix)) and np.linalg.det(matrix[:3, :3]) != 0)


def lengths(values: np.ndarray, n_axes: int) -> np.ndarray:
    """Return scalars on ``n_axes`` axes as they are, of vectors [..., channel] their lengths."""
    if values.ndim == n_axes:
        return values
    return values[..., 0] if values.shape[-1] == 1 else np.linalg.norm(values, axis=-1)


def magnitudes(values: np.ndarray) -> np.ndarray:
    """Return what is drawn of values: scalars [x, y, z] as they are, of vectors their lengths.

    Args:
        values: [x, y, z] or [x, y, z, channel].

    Returns:
        float32 [x, y, z], contiguous; not a copy where nothing had to be changed.

    Raises:
        ShapeError: another shape.
        DataError: there is none, or not all are finite.
    """
    values = np.asarray(values)
    if values.ndim not in (3, 4):
        raise ShapeError(
            f"values must have shape [x, y, z] or [x, y, z, channel], got {list(values.shape)}"
        )
    values = np.ascontiguousarray(lengths(values, 3), np.float32)
    if values.size == 0 or not np.isfinite(values).all():
        raise DataError("a picture needs values that are finite as float32, and at least one")
    return values


def check_window(window: tuple[float, float]) -> None:
    """Raise ConfigError unless a window of values is two finite ones that rise."""
    low, high = window
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"a window must be two finite values that rise, got {window}")


def no_surface(level: float, low: float, high: float) -> DataError:
    """Return what to raise where values from ``low`` to ``high`` have no surface at a level."""
    return DataError(
        f"the volume has no surface at level {level:g}: its values go from {low:g} to {high:g}; "
        "give another --level"
    )


def checked_transform(to_world: np.ndarray | None) -> np.ndarray:
    """Return an index-to-world transform as float64 [4, 4]; of None the identity.

    Raises:
        ShapeError: another shape.
        DataError: it has no inverse.
    """
    matrix = np.eye(4) if to_world is None else np.asarray(to_world, np.float64)
    if matrix.shape != (4, 4):
        raise ShapeError(f"to_world must have shape [4, 4], got {list(matrix.shape)}")
    if not is_invertible(matrix):
        raise DataError("the transform from index to world is singular or not finite")
    return matrix


def world_cube(
    shape: tuple[int, ...], to_world: np.ndarray, first: Index = (0, 0, 0)
) -> tuple[float, tuple[float, float, float]]:
    """Scale and offset that take the unit cube to one about a volume, in the world.

    The cube holds a voxel more on every side: interpolated against zeros, values end there. For
    ``Camera.moved``: a camera made for the unit cube then looks at the volume.

    Args:
        shape: numbers of values along the axes; more than three are left out.
        to_world: float64 [4, 4], index to world.
        first: index of the first value.
    """
    low = np.array(first) - 1
    return bounding_cube(low, low + np.array(shape[:3]) + 1, to_world)


def bounding_cube(
    low: np.ndarray, high: np.ndarray, to_world: np.ndarray
) -> tuple[float, tuple[float, float, float]]:
    """Scale and offset that take the unit cube to one about a box, in the world.

    Args:
        low: [3], a corner.
        high: [3], the opposite one.
        to_world: float64 [4, 4], from the box's coordinates.
    """
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1).T
    world = corners @ to_world[:3, :3].T + to_world[:3, 3]
    middle = (world.min(axis=0) + world.max(axis=0)) / 2
    side = float(np.ptp(world, axis=0).max())
    x, y, z = (middle - side / 2).tolist()
    return side, (x, y, z)


@dataclass(frozen=True)
class GridInfo:
    """One grid of a file, as its header describes it."""

    name: str
    """What it is chosen by. Where a file has several of one name, ``name[0]``, ``name[1]``, ..."""
    dtype: str
    """As stored: "float32", "uint8", "fp8" (NanoVDB's quantized floats), "points", ..."""
    n_channels: int
    """1: a scalar."""
    grid_class: GridClass = "unknown"
    unread: str = ""
    """Why it cannot be read; empty: it can."""

    def describe(self) -> str:
        """Return it in words: ``density (float32, fog)``."""
        name = self.name or '"" (no name)'
        channels = f" x {self.n_channels}" if self.n_channels > 1 else ""
        kind = f", {self.grid_class}" if self.grid_class != "unknown" else ""
        unread = ", not read" if self.unread else ""
        return f"{name} ({self.dtype}{channels}{kind}{unread})"


@dataclass(frozen=True)
class Oddity:
    """Voxels that are not as most volumes' are."""

    count: int = 0
    """How many; a vector counts once."""
    first: Index | None = None
    """Index of the first (x slowest, z fastest); None: there is none."""


@dataclass(frozen=True)
class Volume:
    """The values of a grid in the bounding box of its active voxels.

    Axes are the file's index axes x, y, z, in this order; z is the fastest in memory. The value
    ``values[i, j, k]`` lies at the index point ``first + (i, j, k)``, which is the *middle* of its
    voxel, and in the world at ``to_world`` times that point. That holds for every format:

    ======== ============================================= ==================================
    format   axes in the file                              world
    ======== ============================================= ==================================
    nvdb/vdb index (x, y, z)                               the grid's transform; no unit
    nii      index (i, j, k), i fastest                    sform, else qform; RAS+, often mm
    npy      [x, y, z] or [x, y, z, channel]               the index itself
    npz      the same; ``origin`` and ``voxel_size`` too   origin + voxel_size * index
    npz      the same; ``to_world`` and ``first`` too      to_world * (first + [x, y, z])
    tiff     pages z, rows y, columns x                    the index itself (ImageJ: spacing)
    raw      x fastest, then y, z                          the index itself
    ======== ============================================= ==================================
    """

    name: str
    format: str
    """"nvdb", "vdb", "nii", "npy", "npz", "tiff" or "raw"."""
    values: np.ndarray
    """float32 [x, y, z], or [x, y, z, channel] of vectors; finite. Numbers as stored: integers are
    converted, not scaled to 0..1 (a NIfTI's own slope and intercept are applied)."""
    first: Index
    """Index of ``values[0, 0, 0]``."""
    active: np.ndarray | None
    """bool [x, y, z]; None: all. Inactive voxels hold what the file has there: mostly the
    background, inside a level set its negative."""
    background: tuple[float, ...]
    """Of all voxels outside the box, a number a channel; 0 where the format has none."""
    to_world: np.ndarray
    """float64 [4, 4], index to world, for column vectors; exactly as the file has it."""
    grid_class: GridClass
    dtype: str
    """As stored (GridInfo.dtype)."""
    unit: str
    """Of the world: "mm", "meter", "micron", ...; empty: the file does not say."""
    negative: Oddity
    """Active voxels with a component below 0: nothing odd in a level set or a vector field."""
    nan: Oddity
    """Voxels that were NaN. They hold the background now and are inactive."""
    infinite: Oddity
    """Voxels that were infinite, or beyond float32: treated as NaNs."""

    @property
    def n_channels(self) -> int:
        """1: a scalar."""
        return self.values.shape[3] if self.values.ndim == 4 else 1

    @property
    def n_active(self) -> int:
        """How many voxels are active."""
        shape = self.values.shape[:3]
        return int(np.prod(shape) if self.active is None else np.count_nonzero(self.active))

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Distance of neighbours along each index axis, in the world's units."""
        x, y, z = np.linalg.norm(self.to_world[:3, :3], axis=0).tolist()
        return x, y, z

    def remarks(self) -> Iterator[str]:
        """Yield what whoever fits it should be told, a line each."""
        for oddity, what, note in (
            (self.nan, "NaN", "taken as inactive"),
            (self.infinite, "infinite", "taken as inactive"),
            (self.negative, "negative", "kept"),
        ):
            usual = what == "negative" and (self.grid_class == "level set" or self.n_channels > 1)
            if oddity.count and not usual:
                voxels = "voxel is" if oddity.count == 1 else "voxels are"
                yield (
                    f"{oddity.count} {voxels} {what} and {note}; "
                    f"the first at [x, y, z] = {list(oddity.first or ())}"
                )

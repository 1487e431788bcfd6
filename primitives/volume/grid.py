"""A volume in memory, and what is known of one before it is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

GridClass = Literal["fog", "level set", "staggered", "unknown"]
"""fog: densities of at least 0; level set: distances, negative inside; staggered: vectors whose
components lie at the voxels' faces (read as they stand: component c of voxel (i, j, k) belongs half
a voxel lower along axis c)."""

Index = tuple[int, int, int]


def is_invertible(matrix: np.ndarray) -> bool:
    """Whether an affine map [4, 4] is finite and has an inverse."""
    return bool(np.all(np.isfinite(matrix)) and np.linalg.det(matrix[:3, :3]) != 0)


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

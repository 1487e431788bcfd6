"""Volume files to dense arrays."""

from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import GridInfo, Index, Oddity, Volume, is_invertible
from ngp_warp.primitives.volume.readers import open_volume
from ngp_warp.primitives.volume.readers.raw import RawLayout
from ngp_warp.primitives.volume.readers.source import CHUNK_BYTES, Box, Stored, reading

__all__ = ["GridInfo", "RawLayout", "Volume", "list_grids", "load_volume"]

_MOST_NAMED = 12


def list_grids(path: str | Path, *, raw: RawLayout | None = None) -> list[GridInfo]:
    """Read what grids a file has, from its headers alone; those that cannot be read are among them.

    Raises:
        DataError: the file is missing, broken, or of no known format.
        ResourceError: a package is missing.
    """
    path = Path(path)
    with reading(path):
        return [stored.info for stored in open_volume(path, raw)[1]]


def load_volume(
    path: str | Path, *, grid: str | None = None, raw: RawLayout | None = None
) -> Volume:
    """Read one grid: NanoVDB, OpenVDB, NPY, NPZ, NIfTI, TIFF, told by content, or raw numbers.

    Args:
        path: the file.
        grid: its name (``list_grids``); None: the only one that can be read.
        raw: shape and dtype of a raw file.

    Raises:
        DataError: the file is missing, broken, cut short, of no known format; there is no such
            grid, or several and none was chosen; it is of a type that is not read, empty, or 0
            everywhere.
        ResourceError: the dense box does not fit into memory, or a package is missing.
    """
    path = Path(path)
    with reading(path):
        name, grids = open_volume(path, raw)
        stored = _choose(grids, grid)
        return _volume(name, stored.info, stored.read())


def _choose(grids: list[Stored], name: str | None) -> Stored:
    """Return the grid of a name, or the only one."""
    named = [stored.info.describe() for stored in grids]
    if len(named) > _MOST_NAMED:
        named[_MOST_NAMED:] = [f"and {len(named) - _MOST_NAMED} more"]
    listed = ", ".join(named)
    if name is not None:
        found = [stored for stored in grids if stored.info.name == name]
        if not found:
            raise DataError(f"it has no grid {name!r}; it has {listed}")
    else:
        found = [stored for stored in grids if not stored.info.unread]
        if len(found) > 1:
            raise DataError(
                f"it holds several grids, choose one by its name (--grid NAME): {listed}"
            )
        if not found and len(grids) > 1:
            raise DataError(f"none of its grids can be read: {listed}")
        found = found or grids
    if found[0].info.unread:
        raise DataError(found[0].info.unread)
    return found[0]


class _Counter:
    """Counts voxels of one kind, part by part.

    Args:
        first: index of the box's first voxel.
    """

    def __init__(self, first: Index):
        self._origin = first
        self.found = Oddity()

    def add(self, mask: np.ndarray, x: int) -> None:
        """Count the voxels of a part [x, y, z] of the box that begins at plane ``x``."""
        count, first = int(np.count_nonzero(mask)), self.found.first
        if count and first is None:
            i, j, k = (int(n) for n in np.unravel_index(int(mask.argmax()), mask.shape))
            first = (self._origin[0] + x + i, self._origin[1] + j, self._origin[2] + k)
        self.found = Oddity(self.found.count + count, first)


def _volume(name: str, info: GridInfo, box: Box) -> Volume:
    """Check a box and put aside what is not finite."""
    if not is_invertible(box.to_world):
        raise DataError("its transform from index to world is singular or not finite")
    background = tuple(b if np.isfinite(b) else 0.0 for b in box.background)
    background = background or (0.0,) * info.n_channels
    values, active = box.values.reshape(*box.values.shape[:3], -1), box.active
    nan, infinite, negative = (_Counter(box.first) for _ in range(3))
    is_zero, step = True, max(1, CHUNK_BYTES // values[0].nbytes)
    for x in range(0, len(values), step):
        part = values[x : x + step]
        if not np.isfinite(part).all():
            is_nan: np.ndarray = np.any(np.isnan(part), axis=3)
            bad: np.ndarray = ~np.all(np.isfinite(part), axis=3)
            nan.add(is_nan, x)
            infinite.add(bad & ~is_nan, x)
            active = np.ones(values.shape[:3], bool) if active is None else active
            active[x : x + step][bad] = False
            part[bad] = background
        below = np.any(part < 0, axis=3)
        negative.add(below if active is None else below & active[x : x + step], x)
        is_zero &= not part.any()
    if active is not None and not active.any():
        raise DataError("none of its voxels is active and finite")
    if is_zero:
        raise DataError("every value is 0: there is nothing to fit")
    return Volume(
        name=info.name,
        format=name,
        values=box.values,
        first=box.first,
        active=active,
        background=background,
        to_world=box.to_world,
        grid_class=info.grid_class,
        dtype=info.dtype,
        unit=box.unit,
        negative=negative.found,
        nan=nan.found,
        infinite=infinite.found,
    )

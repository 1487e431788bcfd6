"""Volume files to dense arrays."""

from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import GridInfo, Oddity, Volume
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
            raise DataError(f"it holds several grids, choose one by its name: {listed}")
        if not found and len(grids) > 1:
            raise DataError(f"none of its grids can be read: {listed}")
        found = found or grids
    if found[0].info.unread:
        raise DataError(found[0].info.unread)
    return found[0]


def _volume(name: str, info: GridInfo, box: Box) -> Volume:
    """Check a box and put aside what is not finite."""
    if not np.all(np.isfinite(box.to_world)) or np.linalg.det(box.to_world[:3, :3]) == 0:
        raise DataError("its transform from index to world is singular or not finite")
    background = tuple(b if np.isfinite(b) else 0.0 for b in box.background)
    background = background or (0.0,) * info.n_channels
    values = box.values.reshape(*box.values.shape[:3], -1)
    active, counts, largest = box.active, {"nan": 0, "infinite": 0, "negative": 0}, 0.0
    firsts: dict[str, tuple[int, int, int] | None] = dict.fromkeys(counts)
    step = max(1, CHUNK_BYTES // values[0].nbytes)
    for x in range(0, len(values), step):
        part = values[x : x + step]
        nan, infinite = (np.any(test(part), axis=3) for test in (np.isnan, np.isinf))
        bad = nan | infinite
        if bad.any():
            active = np.ones(values.shape[:3], bool) if active is None else active
            active[x : x + step][bad] = False
            part[bad] = background
        negative = np.any(part < 0, axis=3)
        if active is not None:
            negative &= active[x : x + step]
        for key, mask in (("nan", nan), ("infinite", infinite & ~nan), ("negative", negative)):
            n = int(np.count_nonzero(mask))
            if n and not counts[key]:
                i, j, k = (int(n) for n in np.unravel_index(int(mask.argmax()), mask.shape))
                firsts[key] = (box.first[0] + x + i, box.first[1] + j, box.first[2] + k)
            counts[key] += n
        largest = max(largest, float(part.max()), -float(part.min()))
    if active is not None and not active.any():
        raise DataError("none of its voxels is active and finite")
    if largest == 0:
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
        **{key: Oddity(counts[key], firsts[key]) for key in counts},
    )

"""TIFF stacks: pages are planes of z; ImageJ's and OME's series too."""

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import GridInfo
from ngp_warp.primitives.volume.readers.source import (
    MAX_CHANNELS,
    Box,
    Stored,
    check_memory,
    check_ratio,
    dense_shape,
    to_float32,
    unread_dtype,
)

_DEPTHS = "ZIQTR"
"""tifffile's letters for an axis that may be z: also one whose meaning is not told."""
_CHANNELS = "SC"
_MOST_PAGES = 1 << 20
_COMPRESSED = 65536.0
"""The most that a compression of TIFF reaches on volumes (Zstandard)."""


def read_tiff(path: Path) -> list[Stored]:
    """Read the tags of all pages; every series of them is a grid.

    Raises:
        DataError: broken tags, pages that are missing, or pixels outside the file.
    """
    import tifffile

    n_pages = _count_pages(path)
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) != n_pages:
            raise DataError(f"it is cut short: {len(tiff.pages)} of {n_pages} pages are whole")
        _check_pages(path, tiff)
        world, unit = _world(tiff)
        found = []
        for number, series in enumerate(tiff.series):
            name = path.stem if len(tiff.series) == 1 else f"{path.stem}[{number}]"
            order, wrong = _order(series.axes, series.shape)
            shape = tuple(series.shape[i] for i in order)
            shape, odd = dense_shape(shape) if not wrong else (shape, wrong)
            info = GridInfo(
                name,
                "unknown" if series.dtype is None else series.dtype.name,
                shape[3] if len(shape) == 4 and not odd else 1,
                unread=odd or unread_dtype(np.dtype(series.dtype or "V")),
            )
            found.append(Stored(info, partial(_read, path, number, order, shape, world, unit)))
        return found


def _count_pages(path: Path) -> int:
    """Return how many pages the file's chain has; tifffile stops where it breaks.

    Raises:
        DataError: the chain leads out of the file or in a circle.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        count, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
        width = struct.calcsize(link)
        (position,) = struct.unpack_from(order + link, head.ljust(16, b"\0"), 8 if big else 4)
        seen: set[int] = set()
        while position:
            if position in seen or len(seen) >= _MOST_PAGES:
                raise DataError("it is broken: its pages lead in a circle")
            seen.add(position)
            file.seek(position)
            raw = file.read(struct.calcsize(count))
            n = struct.unpack(order + count, raw)[0] if len(raw) == struct.calcsize(count) else 0
            end = position + len(raw) + n * entry
            if n == 0 or end + width > size:
                raise DataError(f"it is cut short: page {len(seen)} lies outside of it")
            file.seek(end)
            (position,) = struct.unpack(order + link, file.read(width))
    if not seen:
        raise DataError("it has no pages")
    return len(seen)


def _check_pages(path: Path, tiff: Any) -> None:
    """Raise DataError unless all pixels lie within the file and can come out of it."""
    size, n_bytes, packed = path.stat().st_size, 0, False
    for series in tiff.series:
        n_bytes += int(series.nbytes)
        offset = series.dataoffset
        if offset is not None and offset + series.nbytes > size:
            raise DataError("it is cut short: its values reach past its end")
    for page in (frame.aspage() for frame in tiff.pages):
        packed |= int(page.compression) != 1
        ends = np.add(page.dataoffsets, page.databytecounts, dtype=np.float64)
        if len(ends) and ends.max() > size:
            raise DataError("it is cut short: its values reach past its end")
    check_ratio(n_bytes, size, _COMPRESSED if packed else 1.0)


def _order(axes: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
    """Return the axes x, y, z and channels (if any) among a series', and what is wrong."""
    kept = [i for i in range(len(axes)) if shape[i] > 1 or axes[i] in "XYZ"]
    names = "".join(axes[i] for i in kept)
    depth = [i for i in kept if axes[i] in _DEPTHS]
    depth = [i for i in depth if axes[i] == "Z"] or depth
    channels = [i for i in kept if axes[i] in _CHANNELS]
    told = f"its axes are {axes} of {list(shape)}"
    if "X" not in axes or "Y" not in axes or len(depth) != 1 or len(channels) > 1:
        return (), f"it is no stack of planes: {told}"
    order = (axes.index("X"), axes.index("Y"), depth[0], *channels)
    if len(order) != len(names):
        return (), f"it has more axes than a volume: {told}"
    if channels and shape[channels[0]] > MAX_CHANNELS:
        return (), f"it has more than {MAX_CHANNELS} channels: {told}"
    return order, ""


def _world(tiff: Any) -> tuple[np.ndarray, str]:
    """Return index to world: ImageJ's spacing and resolution, else the index itself."""
    world, told = np.eye(4), tiff.imagej_metadata
    if not told:
        return world, ""
    tags = tiff.pages[0].tags
    sizes = [1.0, 1.0, float(told.get("spacing", 1.0))]
    for axis, tag in enumerate((282, 283)):  # X and YResolution, pixels a unit
        numerator, denominator = tags[tag].value if tag in tags else (1, 1)
        if numerator > 0 and denominator > 0:
            sizes[axis] = denominator / numerator
    if not (np.all(np.isfinite(sizes)) and min(sizes) > 0):
        return world, ""
    world[:3, :3] = np.diag(sizes)
    unit = str(told.get("unit", ""))
    return world, {"\\u00B5m": "micron", "µm": "micron", "um": "micron"}.get(unit, unit)


def _read(
    path: Path, number: int, order: tuple[int, ...], shape: tuple[int, ...], world: Any, unit: str
) -> Box:
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        series: Any = tiff.series[number]
        check_memory(shape, 5 * (shape[3] if len(shape) == 4 else 1), int(series.nbytes))
        array = series.asarray()
    others = tuple(i for i in range(array.ndim) if i not in order)
    values = array.transpose(*order, *others).reshape(shape)
    return Box(to_float32(values), to_world=world, unit=unit)

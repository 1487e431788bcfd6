"""NanoVDB files: segments of grids, uncompressed or compressed by zip or Blosc; or bare grids.

Source: NanoVDB.h and IO.h of OpenVDB 10 (NanoVDB 32.4); the layout is that of all of 32.x.
"""

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import GridClass, GridInfo
from ngp_warp.primitives.volume.readers.nanovdb_tree import LAYOUTS, NAMES, read_tree
from ngp_warp.primitives.volume.readers.source import (
    Box,
    Stored,
    check_ratio,
    check_room,
    unblosc,
)
from ngp_warp.primitives.volume.readers.sparse import densify

_MAGICS = (b"NanoVDB0", b"NanoVDB1", b"NanoVDB2")
_BARE = b"NanoVDB1"
_MAJOR = 32
_HEADER = np.dtype([("magic", "S8"), ("version", "<u4"), ("n_grids", "<u2"), ("codec", "<u2")])
_META = np.dtype(
    {
        "names": ["grid_bytes", "file_bytes", "type", "grid_class", "name_bytes", "codec"],
        "formats": ["<u8", "<u8", "<u4", "<u4", "<u4", "<u2"],
        "offsets": [0, 8, 32, 36, 136, 168],
        "itemsize": 176,
    }
)
_GRID = np.dtype(
    {
        "names": ["magic", "version", "grid_bytes", "name", "matrix", "origin", "class", "type"],
        "formats": ["S8", "<u4", "<u8", "S256", "(3,3)<f8", "(3,)<f8", "<u4", "<u4"],
        "offsets": [0, 16, 32, 40, 296 + 88, 296 + 88 + 144, 632, 636],
        "itemsize": 672,
    }
)
_NONE, _ZIP, _BLOSC = 0, 1, 2
_RATIOS = {_NONE: 1.0, _ZIP: 1032.0, _BLOSC: 256.0}
"""The most that a codec can shrink bytes: deflate; LZ4, of which one byte says at most 255."""
_CLASSES: dict[int, GridClass] = {1: "level set", 2: "fog", 3: "staggered"}
_INDEX_TYPES = ("index", "on-index", "index-mask", "on-index-mask")
_POINT_CLASSES = (4, 5)


@dataclass(frozen=True)
class _Payload:
    """Where a grid lies in its file."""

    offset: int
    n_bytes: int
    grid_bytes: int
    codec: int


def read_nanovdb(path: Path) -> list[Stored]:
    """List the grids of a NanoVDB file.

    Raises:
        DataError: a broken header, another version or codec, or a grid that reaches past the end.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # Until 32.6 files and grids began alike; a grid has a checksum where a file's version is.
        as_file, as_grid = (int.from_bytes(data[i : i + 4], "little") >> 21 for i in (8, 16))
        old_grid = data[:8] == b"NanoVDB0" and as_file != _MAJOR and as_grid == _MAJOR
        bare = data[:8] == _BARE or old_grid
        found = list(_bare_grids(data) if bare else _segments(data))
    return [Stored(info, partial(_read, path, info, payload)) for info, payload in found]


def _segments(data: mmap.mmap) -> Iterator[tuple[GridInfo, _Payload]]:
    """Walk through the file's segments."""
    position = 0
    while position < len(data):
        header = _record(data, position, _HEADER)
        if header["magic"] not in _MAGICS:
            raise DataError(f"it is broken: no NanoVDB segment begins at byte {position}")
        _check_version(int(header["version"]))
        codec = int(header["codec"])
        if codec not in _RATIOS:
            raise DataError(f"its grids are compressed by a codec that is not read: {codec}")
        position += _HEADER.itemsize
        metas = []
        for _ in range(int(header["n_grids"])):
            meta = _record(data, position, _META)
            position += _META.itemsize
            size = int(meta["name_bytes"])
            if position + size > len(data):
                raise _cut(position + size, len(data))
            metas.append((meta, data[position : position + size].split(b"\0")[0]))
            position += size
        for meta, name in metas:
            payload = _Payload(position, int(meta["file_bytes"]), int(meta["grid_bytes"]), codec)
            position += payload.n_bytes
            if position > len(data):
                raise _cut(position, len(data))
            check_ratio(payload.grid_bytes, payload.n_bytes, _RATIOS[codec])
            yield _info(name, int(meta["type"]), int(meta["grid_class"])), payload


def _bare_grids(data: mmap.mmap) -> Iterator[tuple[GridInfo, _Payload]]:
    """Walk through grids that were written as they lie in memory."""
    position = 0
    while position < len(data):
        grid = _record(data, position, _GRID)
        if grid["magic"] not in _MAGICS:
            raise DataError(f"it is broken: no NanoVDB grid begins at byte {position}")
        _check_version(int(grid["version"]))
        size = int(grid["grid_bytes"])
        if size < _GRID.itemsize:
            raise DataError(f"it is broken: a grid of {size} bytes")
        if position + size > len(data):
            raise _cut(position + size, len(data))
        name = bytes(grid["name"])
        yield _info(name, int(grid["type"]), int(grid["class"])), _Payload(position, size, size, 0)
        position += size


def _record(data: mmap.mmap, position: int, layout: np.dtype) -> np.void:
    end = position + layout.itemsize
    if end > len(data):
        raise _cut(end, len(data))
    return np.frombuffer(data[position:end], layout)[0]


def _cut(needed: int, size: int) -> DataError:
    return DataError(f"it is cut short: it has {size} of at least {needed} bytes")


def _check_version(version: int) -> None:
    if version >> 21 != _MAJOR:
        raise DataError(
            f"it is of NanoVDB version {version >> 21}.{version >> 10 & 2047}; "
            f"{_MAJOR}.x is read: convert it with nanovdb_convert"
        )


def _info(name: bytes, grid_type: int, grid_class: int) -> GridInfo:
    layout = LAYOUTS.get(grid_type)
    stored = NAMES[grid_type] if grid_type < len(NAMES) else f"type {grid_type}"
    unread = "" if layout else f"grids of {stored} are not read"
    if stored in _INDEX_TYPES:
        unread = f"it is an {stored} grid: it has no values of its own, only their numbers"
    if grid_class in _POINT_CLASSES:
        stored, unread = "points", "it is a point grid: it has no values, only points"
    return GridInfo(
        name=name.decode(errors="replace"),
        dtype=stored,
        n_channels=layout.n_channels if layout else 1,
        grid_class=_CLASSES.get(grid_class, "unknown"),
        unread=unread,
    )


def _read(path: Path, info: GridInfo, payload: _Payload) -> Box:
    """Decode one grid."""
    stored = np.memmap(path, np.uint8, "r", payload.offset, (payload.n_bytes,))
    memory = stored if payload.codec == _NONE else _inflated(stored, payload)
    if len(memory) != payload.grid_bytes or len(memory) < _GRID.itemsize:
        raise DataError(f"it is broken: grid {info.name!r} has another size than its header says")
    grid = memory[: _GRID.itemsize].view(_GRID)[0]
    if bytes(grid["magic"]) not in _MAGICS or int(grid["type"]) not in LAYOUTS:
        raise DataError(f"it is broken: grid {info.name!r} is no NanoVDB grid")
    _check_version(int(grid["version"]))
    layout = LAYOUTS[int(grid["type"])]
    if layout.name != info.dtype:
        raise DataError(f"it is broken: grid {info.name!r} is of {layout.name}, not {info.dtype}")
    to_world = np.eye(4)
    to_world[:3, :3], to_world[:3, 3] = grid["matrix"], grid["origin"]
    return densify(read_tree(memory, layout), to_world)


def _inflated(stored: np.ndarray, payload: _Payload) -> np.ndarray:
    """Decompress chunks, each behind its size in 8 bytes."""
    check_room(payload.grid_bytes)
    out = np.empty(payload.grid_bytes, np.uint8)
    data, position, filled = stored.data, 0, 0
    while filled < len(out):
        size = int.from_bytes(data[position : position + 8], "little")
        begin, position = position + 8, position + 8 + size
        if size == 0 or position > len(data):
            raise DataError("it is cut short or broken: a compressed chunk reaches past its grid")
        decode = _unzip if payload.codec == _ZIP else unblosc
        chunk = decode(bytes(data[begin:position]), len(out) - filled)
        if not chunk:
            raise DataError("it is broken: a compressed chunk is empty")
        out[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    if position != len(data):
        raise DataError("it is broken: a compressed grid is followed by other bytes")
    return out


def _unzip(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    out = inflater.decompress(data, most)
    # Ended: the checksum was read and is right.
    if not inflater.eof and inflater.decompress(inflater.unconsumed_tail, 1):
        raise DataError("it is broken: it inflates to more than its header says")
    if not inflater.eof:
        raise DataError("it is cut short or broken: a compressed chunk does not end")
    return out

"""OpenVDB files (.vdb): header, grids' descriptions, transforms.

Source: io/Archive.cc, io/GridDescriptor.cc, math/Maps.h of OpenVDB 10. File versions 222 (masks of
nodes are compressed) to 224, written where the writer could seek. tinyvdb 0.9 was tried: it leaves
out active tiles, fails on half precision and gives no values of vectors and booleans.
"""

import mmap
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.grid import GridClass, GridInfo
from ngp_warp.primitives.volume.readers.openvdb_tree import KINDS, Cursor, Kind, read_tree
from ngp_warp.primitives.volume.readers.source import Box, Stored
from ngp_warp.primitives.volume.readers.sparse import densify

_MAGIC = 0x56444220
_VERSIONS = (222, 224)
_SEPARATOR = "\x1e"
"""Between a grid's name and what makes it unique."""
_HALF = "_HalfFloat"
_POINTS = ("Tree_ptdataidx32_5_4_3", "Tree_ptidx32_5_4_3")
_CLASSES: dict[str, GridClass] = {
    "fog volume": "fog",
    "level set": "level set",
    "staggered": "staggered",
}
_SCALE_BYTES = 5 * 24
"""A scale with its voxel size, inverse, inverse square and half inverse."""


@dataclass(frozen=True)
class _Grid:
    """A grid's entry in the file."""

    unique_name: str
    tree_type: str
    parent: str
    """The grid whose tree this one shares; empty: it has its own."""
    begin: int
    end: int

    @property
    def name(self) -> str:
        return self.unique_name.split(_SEPARATOR)[0]


@dataclass(frozen=True)
class _Header:
    compression: int
    metadata: dict[str, Any]
    to_world: np.ndarray
    map_error: str

    @property
    def half(self) -> bool:
        """Whether floats are in half precision: told here and not by the type, as in OpenVDB."""
        return self.metadata.get("is_saved_as_half_float", b"")[:1] == b"\1"


def read_openvdb(path: Path) -> list[Stored]:
    """List the grids of an OpenVDB file.

    Raises:
        DataError: a broken header, another version, or a grid that reaches past the end.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        grids = _descriptors(Cursor(data))
        headers = [_header(Cursor(data, grid.begin, grid.end)) for grid in grids]
    by_name = {grid.unique_name: grid for grid in grids}
    found = []
    for grid, header in zip(grids, headers, strict=True):
        info = _info(grid, header)
        tree = by_name.get(grid.parent, grid) if grid.parent else grid
        if grid.parent and (grid.parent not in by_name or tree.parent):
            raise DataError(f"it is broken: grid {grid.name!r} shares a tree that is not there")
        found.append(Stored(info, partial(_read, path, tree, header.to_world)))
    return found


def _descriptors(data: Cursor) -> list[_Grid]:
    """Read the file's header and where its grids lie."""
    magic, version, _major, _minor, has_offsets = data.unpack("<qIII?")
    if magic != _MAGIC:
        raise DataError("it is no OpenVDB file")
    if not _VERSIONS[0] <= version <= _VERSIONS[1]:
        raise DataError(
            f"it is of OpenVDB's file version {version}; {_VERSIONS[0]} to {_VERSIONS[1]} are "
            "read: write it again with a current OpenVDB"
        )
    if not has_offsets:
        raise DataError("it was written as a stream, without offsets; write it to a file")
    data.take(36)  # UUID
    _metadata(data)
    grids: list[_Grid] = []
    (n_grids,) = data.unpack("<i")
    for _ in range(n_grids):
        name, tree_type, parent = _string(data), _string(data), _string(data)
        begin, block, end = data.unpack("<qqq")
        if not data.position <= begin <= end or not (begin <= block <= end or parent):
            raise DataError("it is broken: a grid ends before it begins")
        if end > data.end:
            raise data.cut(end)
        grids.append(_Grid(name, tree_type, parent, begin, end))
        data.position = end
    return grids


def _string(data: Cursor) -> str:
    (size,) = data.unpack("<I")
    return bytes(data.take(size)).decode(errors="replace")


def _metadata(data: Cursor) -> dict[str, Any]:
    """Read a table of named values; strings and booleans are kept, the others' bytes."""
    found: dict[str, Any] = {}
    (count,) = data.unpack("<I")
    for _ in range(count):
        name, kind = _string(data), _string(data)
        (size,) = data.unpack("<I")
        raw = bytes(data.take(size))
        found[name] = raw.decode(errors="replace") if kind == "string" else raw
    return found


def _header(data: Cursor) -> _Header:
    """Read what stands before a grid's tree."""
    (compression,) = data.unpack("<I")
    metadata = _metadata(data)
    to_world, error = _transform(data)
    return _Header(compression, metadata, to_world, error)


def _transform(data: Cursor) -> tuple[np.ndarray, str]:
    """Return index to world, and why it cannot be told (or "")."""
    kind, to_world = _string(data), np.eye(4)
    if kind in ("ScaleTranslateMap", "UniformScaleTranslateMap"):
        to_world[:3, 3] = data.unpack("<3d")
    if kind in (
        "ScaleMap",
        "UniformScaleMap",
        "ScaleTranslateMap",
        "UniformScaleTranslateMap",
    ):
        to_world[:3, :3] = np.diag(struct.unpack("<15d", data.take(_SCALE_BYTES))[:3])
    elif kind == "TranslationMap":
        to_world[:3, 3] = data.unpack("<3d")
    elif kind in ("AffineMap", "UnitaryMap"):
        # OpenVDB multiplies rows from the left.
        to_world = np.reshape(data.unpack("<16d"), (4, 4)).T.copy()
    else:
        return to_world, f"its transform is a {kind}, which is not linear"
    return to_world, ""


def _info(grid: _Grid, header: _Header) -> GridInfo:
    tree_type = grid.tree_type.removesuffix(_HALF)
    kind = KINDS.get(tree_type)
    stored, unread = tree_type, ""
    if kind is not None:
        stored = "float16" if header.half and kind.value.kind == "f" else kind.name
        unread = header.map_error
    elif tree_type in _POINTS:
        stored, unread = "points", "it is a point grid: it has no values, only points"
    else:
        unread = f"trees of type {tree_type} are not read"
    return GridInfo(
        name=grid.name,
        dtype=stored,
        n_channels=kind.n_channels if kind else 1,
        grid_class=_CLASSES.get(str(header.metadata.get("class", "")), "unknown"),
        unread=unread,
    )


def _read(path: Path, grid: _Grid, to_world: np.ndarray) -> Box:
    """Decode one grid's tree."""
    kind: Kind = KINDS[grid.tree_type.removesuffix(_HALF)]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = Cursor(data, grid.begin, grid.end)
        header = _header(cursor)
        tree = read_tree(cursor, kind, header.compression, header.half)
        if cursor.position != grid.end:
            raise DataError(
                f"it is broken: grid {grid.name!r} ends {grid.end - cursor.position} bytes early"
            )
    return densify(tree, to_world)

"""An OpenVDB grid's tree: the topology of its nodes, then the leaves' values.

Source: tree/RootNode.h, InternalNode.h, LeafNode.h, LeafNodeBool.h, LeafNodeMask.h and
io/Compression.h of OpenVDB 10; trees of the usual form, 5-4-3.
"""

import mmap
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ngp_warp.errors import DataError
from ngp_warp.primitives.volume.readers.source import check_ratio, check_room, unblosc
from ngp_warp.primitives.volume.readers.sparse import (
    LOWER,
    MASK_BYTES,
    N_VOXELS,
    ROOT_WIDTH,
    UPPER,
    WIDTHS,
    Tiles,
    Tree,
    corners,
    notable,
)

_ZIP, _ACTIVE_MASK, _BLOSC = 1, 2, 4
# What a node's inactive values are, told by its first byte (io/Compression.h).
_BACKGROUND, _MINUS, _ONE, _MASK, _MASK_ONE, _MASK_TWO, _ALL = range(7)
_MOST = 128.0
"""Leaves take at least the 65 bytes of a mask and a form, for 512 vectors of three floats."""


@dataclass(frozen=True)
class Kind:
    """A type of value."""

    name: str
    value: np.dtype
    """One component."""
    n_channels: int = 1

    @property
    def n_bytes(self) -> int:
        """Size of a value."""
        return self.value.itemsize * self.n_channels


KINDS = {
    f"Tree_{name}_5_4_3": kind
    for name, kind in {
        "float": Kind("float32", np.dtype("<f4")),
        "double": Kind("float64", np.dtype("<f8")),
        "int32": Kind("int32", np.dtype("<i4")),
        "int64": Kind("int64", np.dtype("<i8")),
        "bool": Kind("bool", np.dtype("?")),
        "mask": Kind("mask", np.dtype("?")),
        "vec3s": Kind("vec3f", np.dtype("<f4"), 3),
        "vec3d": Kind("vec3d", np.dtype("<f8"), 3),
        "vec3i": Kind("vec3i", np.dtype("<i4"), 3),
    }.items()
}
"""By the type of the tree: those that are read."""


class Cursor:
    """Reads one after another, never past the end.

    Args:
        data: the file.
        begin: of the part to be read.
        end: of it; None: the file's.
    """

    def __init__(self, data: mmap.mmap, begin: int = 0, end: int | None = None):
        self.data, self.position = data, begin
        self.end = len(data) if end is None else end

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        begin, end = self.position, self.position + size
        if end > self.end:
            raise self.cut(end)
        self.position = end
        return self.data[begin:end]

    def unpack(self, form: str) -> tuple[Any, ...]:
        """Return the next values, as ``struct`` does."""
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def cut(self, needed: int) -> DataError:
        """Return the error that says that bytes are missing."""
        return DataError(
            f"it is cut short or broken: {needed - self.end} bytes are missing at byte {self.end}"
        )


@dataclass
class _Reader:
    """What is the same for all nodes of a tree."""

    data: Cursor
    kind: Kind
    compression: int
    half: bool
    background: np.ndarray = field(default_factory=lambda: np.zeros(1))
    tiles: list[Tiles] = field(default_factory=list)

    def value(self) -> np.ndarray:
        """Read one value: [channels]."""
        return np.frombuffer(self.data.take(self.kind.n_bytes), self.kind.value)

    def values(self, active: np.ndarray) -> np.ndarray:
        """Read a node's values [n, channels], packed with the help of its mask [n]."""
        n, packed = len(active), bool(self.compression & _ACTIVE_MASK)
        told = self.data.take(1)[0]
        if told > _ALL:
            raise DataError("it is broken: a node's values are of an unknown form")
        first = second = self.background
        if told != _BACKGROUND:
            first = ~first if self.kind.value.kind == "b" else -first
        if told in (_ONE, _MASK_ONE, _MASK_TWO):
            first = self.value()
        if told == _MASK_TWO:
            second = self.value()
        choice = None
        if told in (_MASK, _MASK_ONE, _MASK_TWO):
            choice = _bits(self.data.take(n // 8))[:, None]
        count = int(np.count_nonzero(active)) if packed and told != _ALL else n
        found = self.block(count)
        if count == n:
            return found
        out = np.empty((n, self.kind.n_channels), found.dtype)
        out[...] = first if choice is None else np.where(choice, second, first)
        out[active] = found
        return out

    def block(self, count: int) -> np.ndarray:
        """Read so many values [count, channels], compressed or not."""
        dtype = self.kind.value
        if self.half and dtype.kind == "f":
            dtype = np.dtype("<f2")
            if count == 0:  # nothing is written, not even a size
                return np.empty((0, self.kind.n_channels), dtype)
        size = count * self.kind.n_channels * dtype.itemsize
        if self.compression & (_ZIP | _BLOSC):
            (stored,) = self.data.unpack("<q")
            raw = self.data.take(abs(stored))
            if stored > 0:
                unpack = unblosc if self.compression & _BLOSC else _unzip
                raw = unpack(raw, size)
        else:
            raw = self.data.take(size)
        if len(raw) != size:
            raise DataError("it is broken: a node's values are of another size than its mask says")
        return np.frombuffer(raw, dtype).reshape(count, self.kind.n_channels)

    def add_tiles(self, first: np.ndarray, width: int, values: Any, active: np.ndarray) -> None:
        """Keep the tiles that differ from what is outside the tree."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = np.asarray(values).reshape(len(first), self.kind.n_channels).astype(np.float32)
            outside = self.background.astype(np.float32)
        self.tiles.append(notable(first, width, values, active, outside))


def _bits(raw: bytes) -> np.ndarray:
    """Return the mask as bool, the lowest bit first."""
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little").view(bool)


def _unzip(raw: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    out = inflater.decompress(raw, size + 1)
    if not inflater.eof or len(out) != size:
        raise DataError("it is broken: a node's values are of another size than its mask says")
    return out


def read_tree(data: Cursor, kind: Kind, compression: int, half: bool) -> Tree:
    """Read a tree, up to the end of its leaves' values.

    Args:
        data: stands at the tree's first byte.
        kind: of its values.
        compression: flags, as before the grid.
        half: whether floats are stored in half precision.

    Raises:
        DataError: it is cut short or broken.
        ResourceError: the values do not fit into memory.
    """
    reader = _Reader(data, kind, compression, half)
    (n_buffers,) = data.unpack("<i")
    if n_buffers != 1:
        raise DataError(f"it is broken: its tree has {n_buffers} sets of values")
    reader.background = reader.value()
    first = _topology(reader)
    decoded = len(first) * N_VOXELS * 4 * kind.n_channels
    check_ratio(decoded, data.end - data.position, _MOST)
    check_room(decoded)
    values = np.empty((len(first), N_VOXELS, kind.n_channels), np.float32)
    masks = np.empty((len(first), MASK_BYTES), np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(len(first)):
            raw = data.take(MASK_BYTES)
            masks[i] = np.frombuffer(raw, np.uint8)
            values[i] = _leaf_values(reader, raw)
        background = reader.background.astype(np.float32)
    return Tree(background, reader.tiles, first, masks, values.__getitem__)


def _leaf_values(reader: _Reader, mask: bytes) -> np.ndarray:
    if reader.kind.value.kind != "b":
        return reader.values(_bits(mask))
    reader.data.take(12)  # its first voxel, once more
    bits = mask if reader.kind.name == "mask" else reader.data.take(MASK_BYTES)
    return _bits(bits)[:, None]


def _topology(reader: _Reader) -> np.ndarray:
    """Read all nodes above the leaves' values; return where the leaves lie: int64 [n, 3]."""
    data = reader.data
    n_tiles, n_children = data.unpack("<II")
    for _ in range(n_tiles):
        first = np.array([data.unpack("<3i")], np.int64)
        value = reader.value()
        reader.add_tiles(first, ROOT_WIDTH, value, np.array(data.unpack("<?")))
    leaves = [np.empty((0, 3), np.int64)]
    for _ in range(n_children):
        first = np.array(data.unpack("<3i"), np.int64)
        for lower in _node(reader, first, UPPER):
            found = _node(reader, lower, LOWER)
            data.take(MASK_BYTES * len(found))  # their masks stand before their values too
            leaves.append(found)
    return np.concatenate(leaves)


def _node(reader: _Reader, first: np.ndarray, log2_side: int) -> np.ndarray:
    """Read a node without its children; return where they lie: int64 [n, 3]."""
    n, width = 1 << 3 * log2_side, WIDTHS[log2_side]
    child, active = _bits(reader.data.take(n // 8)), _bits(reader.data.take(n // 8))
    values = reader.values(active)
    outer = np.flatnonzero(~child)
    found = corners(first, outer, log2_side, width)
    reader.add_tiles(found, width, values[outer], active[outer])
    return corners(first, np.flatnonzero(child), log2_side, width)
